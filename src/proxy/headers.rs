//! Header fields on their way through: what is refused, what is taken off, what is added.
//!
//! RFC 9110 section 7.6.1 (hop-by-hop), 7.6.3 (Via), 7.8 (Upgrade), 10.1.1 (Expect); RFC 9112 sections 3.2 and 6.1.

use std::time::Duration;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Version, request};

use crate::error::{Error, Kind};

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const PILLION_CACHE: HeaderName = HeaderName::from_static("pillion-cache");
const PILLION_RETRY: HeaderName = HeaderName::from_static("pillion-retry");
const PILLION_WINDOW: HeaderName = HeaderName::from_static("pillion-window");
const RETRY_COUNT: HeaderName = HeaderName::from_static("x-stainless-retry-count");
const READ_TIMEOUT: HeaderName = HeaderName::from_static("x-stainless-read-timeout");

/// Concern one connection only, whether `Connection` names them or not.
const HOP_BY_HOP: [HeaderName; 8] = [
    header::CONNECTION,
    KEEP_ALIVE,
    PROXY_CONNECTION,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// What `Connection` may name without our dropping it: a client must not talk a credential, the framing or the loop
/// detection away (CVE-2026-105299 and its kind).
const NEVER_NOMINATED: [HeaderName; 12] = [
    header::HOST,
    header::AUTHORIZATION,
    header::COOKIE,
    header::CONTENT_LENGTH,
    header::CONTENT_TYPE,
    header::CONTENT_ENCODING,
    header::CACHE_CONTROL,
    header::VIA,
    HeaderName::from_static("api-key"),
    HeaderName::from_static("apikey"),
    HeaderName::from_static("x-api-key"),
    HeaderName::from_static("x-chroma-token"),
];

/// What a request asks of Pillion itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Asks {
    pub(crate) cache: CacheAsk,
    pub(crate) no_retry: bool,
    pub(crate) no_window: bool,
    /// How often the client's SDK has tried this request before.
    pub(crate) client_retries: u32,
    /// How long the client will wait for the response head.
    pub(crate) client_timeout: Option<Duration>,
}

/// What a request asks of the cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum CacheAsk {
    #[default]
    Use,
    /// Neither look nor store.
    Bypass,
    /// Do not look, but store.
    Refresh,
}

/// Refuses what this proxy must not or cannot forward.
pub(crate) fn admit(head: &request::Parts, pseudonym: &str) -> Result<(), Error> {
    let malformed = |detail: &'static str| Err(Error::new(Kind::Malformed, detail));
    if head.method == Method::CONNECT {
        return Err(Error::new(Kind::NotImplemented, "this proxy opens no tunnels (CONNECT)"));
    }
    // `h2c` may be ignored (RFC 9113 section 3.1) and some clients always offer it; others want another protocol.
    if let Some(upgrade) = head.headers.get(header::UPGRADE)
        && !upgrade.as_bytes().eq_ignore_ascii_case(b"h2c")
    {
        return Err(Error::new(Kind::NotImplemented, "this proxy does not upgrade connections"));
    }
    let mut hosts = head.headers.get_all(header::HOST).iter();
    if hosts.next().is_none() && head.version >= Version::HTTP_11 {
        return malformed("the request has no Host");
    }
    if hosts.next().is_some() {
        return malformed("the request has more than one Host");
    }
    if head.headers.contains_key(header::TRANSFER_ENCODING) && head.version < Version::HTTP_11 {
        return malformed("Transfer-Encoding in an HTTP/1.0 request");
    }
    let comes_back = |via: &HeaderValue| {
        let mut members = via.as_bytes().split(|byte| *byte == b',');
        members.any(|member| member.trim_ascii().split(|b| *b == b' ').nth(1) == Some(pseudonym.as_bytes()))
    };
    if head.headers.get_all(header::VIA).iter().any(comes_back) {
        return Err(Error::new(
            Kind::Loop,
            "this request has passed through this Pillion before: an upstream points back at it. Set the upstream to \
             the provider's own address",
        ));
    }
    Ok(())
}

/// Takes off what is for Pillion only.
pub(crate) fn take_asks(headers: &mut HeaderMap, id_header: &HeaderName) -> Asks {
    let number = |name: &HeaderName| headers.get(name)?.to_str().ok()?.trim().parse::<f64>().ok();
    let client_retries = number(&RETRY_COUNT).map_or(0, |count| count.clamp(0.0, 100.0) as u32);
    let client_timeout =
        number(&READ_TIMEOUT).filter(|s| *s > 0.0).and_then(|s| Duration::try_from_secs_f64(s).ok());
    let is_off =
        |value: Option<HeaderValue>| value.is_some_and(|v| v.as_bytes().eq_ignore_ascii_case(b"off"));
    let cache = match headers.remove(PILLION_CACHE) {
        Some(value) if value.as_bytes().eq_ignore_ascii_case(b"bypass") => CacheAsk::Bypass,
        Some(value) if value.as_bytes().eq_ignore_ascii_case(b"refresh") => CacheAsk::Refresh,
        _ => CacheAsk::Use,
    };
    let no_retry = is_off(headers.remove(PILLION_RETRY));
    let no_window = is_off(headers.remove(PILLION_WINDOW));
    headers.remove(id_header);
    Asks { cache, no_retry, no_window, client_retries, client_timeout }
}

/// Makes a request's fields those of the forwarded request.
pub(crate) fn forward(headers: &mut HeaderMap, via: &HeaderValue) {
    remove_hop_by_hop(headers);
    // hyper has answered 100-continue to the client already; the upstream gets the content at once.
    headers.remove(header::EXPECT);
    headers.remove(header::HOST);
    headers.append(header::VIA, via.clone());
}

/// Makes a response's fields those of the forwarded response.
pub(crate) fn give_back(headers: &mut HeaderMap) {
    remove_hop_by_hop(headers);
}

fn remove_hop_by_hop(headers: &mut HeaderMap) {
    // Most messages have none or one of them: one pass over the names costs less than looking each up.
    if !headers.keys().any(|name| HOP_BY_HOP.contains(name)) {
        return;
    }
    if let header::Entry::Occupied(connection) = headers.entry(header::CONNECTION) {
        let (_, values) = connection.remove_entry_mult();
        let named: Vec<HeaderName> = values
            .filter(|value| !value.as_bytes().eq_ignore_ascii_case(b"keep-alive"))
            .filter_map(|value| Some(value.to_str().ok()?.to_owned()))
            .flat_map(|names| names.split(',').filter_map(|n| n.trim().parse().ok()).collect::<Vec<_>>())
            .collect();
        for name in named.iter().filter(|name| !NEVER_NOMINATED.contains(name)) {
            headers.remove(name);
        }
    }
    for name in &HOP_BY_HOP {
        headers.remove(name);
    }
}

/// Whether a stored response gives this field again. What speaks of one exchange, of the moment, or of the
/// connection is left out.
pub(crate) fn is_stored(name: &HeaderName) -> bool {
    const LEFT_OUT: [&str; 16] = [
        "age",
        "alt-svc",
        "cache-status",
        "cf-ray",
        "content-length",
        "date",
        "nel",
        "proxy-status",
        "report-to",
        "request-id",
        "retry-after",
        "server-timing",
        "set-cookie",
        "traceparent",
        "via",
        "x-request-id",
    ];
    let name = name.as_str();
    !LEFT_OUT.contains(&name) && !name.contains("ratelimit") && !name.ends_with("-trace-id")
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    fn admitted(request: http::request::Builder) -> Result<(), Kind> {
        let (head, ()) = request.body(()).unwrap().into_parts();
        admit(&head, "pillion-1").map_err(|e| e.kind)
    }

    fn get() -> http::request::Builder {
        Request::get("/x").header("host", "127.0.0.1:8080")
    }

    #[test]
    fn what_is_admitted() {
        assert_eq!(admitted(get()), Ok(()));
        assert_eq!(admitted(get().header("via", "1.1 other, 1.0 pillion-10")), Ok(()));
        assert_eq!(admitted(get().header("upgrade", "h2c")), Ok(()));
        assert_eq!(admitted(Request::get("/x").version(Version::HTTP_10)), Ok(()));
    }

    #[test]
    fn what_is_refused() {
        for (request, kind) in [
            (Request::connect("a:1").header("host", "a:1"), Kind::NotImplemented),
            (get().header("upgrade", "websocket"), Kind::NotImplemented),
            (Request::get("/x"), Kind::Malformed),
            (get().header("host", "other"), Kind::Malformed),
            (get().version(Version::HTTP_10).header("transfer-encoding", "chunked"), Kind::Malformed),
            (get().header("via", "1.1 a,1.1 pillion-1"), Kind::Loop),
            (get().header("via", "1.1 a").header("via", "1.1 pillion-1 (x)"), Kind::Loop),
        ] {
            assert_eq!(admitted(request), Err(kind));
        }
    }

    fn forwarded(fields: &[(&'static str, &str)]) -> Vec<String> {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, value.parse().unwrap());
        }
        forward(&mut headers, &HeaderValue::from_static("1.1 p"));
        let mut lines: Vec<_> =
            headers.iter().map(|(n, v)| format!("{n}: {}", v.to_str().unwrap())).collect();
        lines.sort();
        lines
    }

    #[test]
    fn rfc9110_7_6_1_connection_and_what_it_names_stay_here() {
        let fields = [
            ("connection", "keep-alive, X-One"),
            ("connection", "x-two"),
            ("keep-alive", "5"),
            ("te", "trailers"),
            ("x-one", "1"),
            ("x-two", "2"),
            ("x-three", "3"),
        ];
        assert_eq!(forwarded(&fields), ["via: 1.1 p", "x-three: 3"]);
    }

    #[test]
    fn connection_cannot_talk_credentials_away() {
        let fields = [("connection", "authorization, x-api-key"), ("authorization", "k"), ("x-api-key", "k")];
        assert_eq!(forwarded(&fields), ["authorization: k", "via: 1.1 p", "x-api-key: k"]);
    }

    #[test]
    fn asks_are_taken_off() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("pillion-cache", "Refresh"),
            ("pillion-retry", "off"),
            ("x-conversation-id", "c1"),
            ("x-stainless-retry-count", "2"),
            ("x-stainless-read-timeout", "600.5"),
        ] {
            headers.insert(name, value.parse().unwrap());
        }
        let asks = take_asks(&mut headers, &HeaderName::from_static("x-conversation-id"));
        assert_eq!(
            asks,
            Asks {
                cache: CacheAsk::Refresh,
                no_retry: true,
                no_window: false,
                client_retries: 2,
                client_timeout: Some(Duration::from_millis(600_500))
            }
        );
        assert_eq!(headers.len(), 2, "the SDK's own fields go on");
    }

    #[test]
    fn what_a_stored_response_gives_again() {
        for (name, kept) in [
            ("content-type", true),
            ("x-elastic-product", true),
            ("x-ratelimit-remaining-requests", false),
            ("anthropic-ratelimit-tokens-reset", false),
            ("set-cookie", false),
            ("chroma-trace-id", false),
            ("x-request-id", false),
        ] {
            assert_eq!(is_stored(&HeaderName::from_static(name)), kept, "{name}");
        }
    }
}
