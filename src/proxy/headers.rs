//! Header fields on their way through: what is refused, what is taken off, what is added.
//!
//! RFC 9110 section 7.6.1 (hop-by-hop), 7.6.3 (Via), 7.8 (Upgrade), 10.1.1 (Expect); RFC 9112 sections 3.2 and 6.1.

use std::time::Duration;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Version};

use crate::error::{Error, Kind};

const PILLION_CACHE: HeaderName = HeaderName::from_static("pillion-cache");
const PILLION_RETRY: HeaderName = HeaderName::from_static("pillion-retry");
const PILLION_WINDOW: HeaderName = HeaderName::from_static("pillion-window");

/// Concern one connection only, whether `Connection` names them or not. In the order of [`hop_by_hop`].
static HOP_BY_HOP: [HeaderName; 8] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// The bit of a field of [`HOP_BY_HOP`]; 0 for any other.
fn hop_by_hop(name: &str) -> u8 {
    match name {
        "connection" => 1,
        "keep-alive" => 1 << 1,
        "proxy-connection" => 1 << 2,
        "proxy-authorization" => 1 << 3,
        "te" => 1 << 4,
        "trailer" => 1 << 5,
        "transfer-encoding" => 1 << 6,
        "upgrade" => 1 << 7,
        _ => 0,
    }
}

/// What `Connection` may name without our dropping it: a client must not talk a credential, the framing or the loop
/// detection away (CVE-2026-105299 and its kind), nor an upstream what the cache and the retries go by.
static NEVER_NOMINATED: [HeaderName; 16] = [
    header::HOST,
    header::AUTHORIZATION,
    header::COOKIE,
    header::CONTENT_LENGTH,
    header::CONTENT_TYPE,
    header::CONTENT_ENCODING,
    header::CACHE_CONTROL,
    header::RETRY_AFTER,
    header::SET_COOKIE,
    header::VARY,
    header::VIA,
    HeaderName::from_static("x-should-retry"),
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum CacheAsk {
    #[default]
    Use,
    /// Do not look, but store.
    Refresh,
    /// Neither look nor store.
    Bypass,
}

impl CacheAsk {
    /// The strongest of a list of asks. Who sends a word that means nothing here did not mean to get what is stored.
    fn read(value: &[u8]) -> Self {
        let words = value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
        let asks = words
            .filter(|word| !word.is_empty())
            .map(|word| if word.eq_ignore_ascii_case(b"refresh") { Self::Refresh } else { Self::Bypass });
        asks.max().unwrap_or_default()
    }
}

/// What one pass over a request's fields tells. Looking up one name costs as much as comparing several, so none is
/// looked up.
#[derive(Debug, Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is one fact; nothing is decided by two of them together"
)]
pub(crate) struct Seen {
    pub(crate) asks: Asks,
    /// Names the exchange, as the client wants it.
    pub(crate) request_id: Option<HeaderValue>,
    /// The content is encoded, or vouched for byte by byte (RFC 9110 section 8.4, RFC 9530, RFC 9421).
    pub(crate) sealed: bool,
    /// A part of the answer is wanted, or only under a condition (RFC 9110 sections 13.1 and 14.2), or the content is
    /// encoded: not what a stored response answers.
    pub(crate) conditional: bool,
    /// `Content-Length`, where there is one and it is spelled as everybody reads it.
    length: Option<u64>,
    lengths: usize,
    hosts: usize,
    /// Which of [`HOP_BY_HOP`] are there.
    hop_by_hop: u8,
    transfer_encoding: bool,
    expects: bool,
    /// Something only Pillion is to know.
    for_pillion: bool,
    upgrades: bool,
    comes_back: bool,
}

impl Seen {
    /// Looks at every field once. Of an ask that comes twice the stricter holds. `pseudonym` is our name in `Via`.
    pub(crate) fn of(headers: &HeaderMap, pseudonym: &str) -> Self {
        let mut seen = Self::default();
        for (name, value) in headers {
            seen.field(name, value, pseudonym);
        }
        seen
    }

    fn field(&mut self, name: &HeaderName, value: &HeaderValue, pseudonym: &str) {
        let bytes = value.as_bytes();
        let is_off = || bytes.eq_ignore_ascii_case(b"off");
        let name = name.as_str();
        self.hop_by_hop |= hop_by_hop(name);
        match name {
            "host" => self.hosts += 1,
            "content-length" => {
                self.lengths += 1;
                self.length = canonical_length(bytes);
            }
            "via" => self.comes_back |= names_us(bytes, pseudonym),
            "transfer-encoding" => self.transfer_encoding = true,
            "upgrade" => {
                // `h2c` may be ignored (RFC 9113 section 3.1) and some clients always offer it.
                self.upgrades |= !bytes.eq_ignore_ascii_case(b"h2c");
            }
            "expect" => self.expects = true,
            "content-encoding" => (self.sealed, self.conditional) = (true, true),
            "content-digest" | "repr-digest" | "content-md5" | "digest" | "signature" => self.sealed = true,
            "range" | "if-match" | "if-none-match" | "if-modified-since" | "if-unmodified-since" => {
                self.conditional = true;
            }
            "pillion-cache" => {
                self.for_pillion = true;
                self.asks.cache = self.asks.cache.max(CacheAsk::read(bytes));
            }
            "pillion-retry" => {
                self.for_pillion = true;
                self.asks.no_retry |= is_off();
            }
            "pillion-window" => {
                self.for_pillion = true;
                self.asks.no_window |= is_off();
            }
            "x-request-id" => _ = self.request_id.get_or_insert_with(|| value.clone()),
            _ => {
                if let Some(name) = name.strip_prefix("x-stainless-") {
                    self.sdk_field(name, value);
                }
            }
        }
    }

    /// What the official SDKs tell of themselves.
    fn sdk_field(&mut self, name: &str, value: &HeaderValue) {
        match name {
            "retry-count" => {
                let count = number(value).map_or(0, |count| count.clamp(0.0, 100.0) as u32);
                self.asks.client_retries = self.asks.client_retries.max(count);
            }
            // Of Python, and of Node.
            "read-timeout" | "timeout" => {
                let told = number(value).filter(|s| *s > 0.0);
                let told = told.and_then(|s| Duration::try_from_secs_f64(s).ok());
                self.asks.client_timeout = self.asks.client_timeout.into_iter().chain(told).min();
            }
            _ => {}
        }
    }

    /// Refuses what this proxy must not or cannot forward.
    pub(crate) fn admit(&self, method: &Method, version: Version) -> Result<(), Error> {
        let malformed = |detail: &'static str| Err(Error::new(Kind::Malformed, detail));
        if *method == Method::CONNECT {
            return Err(Error::new(Kind::NotImplemented, "this proxy opens no tunnels (CONNECT)"));
        }
        if self.upgrades {
            return Err(Error::new(Kind::NotImplemented, "this proxy does not upgrade connections"));
        }
        if self.hosts == 0 && version >= Version::HTTP_11 {
            return malformed("the request has no Host");
        }
        if self.hosts > 1 {
            return malformed("the request has more than one Host");
        }
        if self.transfer_encoding && version < Version::HTTP_11 {
            return malformed("Transfer-Encoding in an HTTP/1.0 request");
        }
        if self.comes_back {
            return Err(Error::new(
                Kind::Loop,
                "this request has passed through this Pillion before: an upstream points back at it. Set the \
                 upstream to the provider's own address",
            ));
        }
        Ok(())
    }

    /// Makes a request's fields those of the forwarded request. `length` is that of the content, where all of it is
    /// here.
    pub(crate) fn forward(
        &self,
        headers: &mut HeaderMap,
        id_header: &HeaderName,
        host: &HeaderValue,
        via: &HeaderValue,
        length: Option<u64>,
    ) {
        if self.for_pillion {
            for name in [PILLION_CACHE, PILLION_RETRY, PILLION_WINDOW] {
                headers.remove(name);
            }
        }
        headers.remove(id_header);
        remove_hop_by_hop(headers, self.hop_by_hop);
        if self.expects {
            // hyper has answered 100-continue to the client already; the upstream gets the content at once.
            headers.remove(header::EXPECT);
        }
        if length.is_some() && self.lengths > 0 && (self.lengths > 1 || length != self.length) {
            // Not that of what is sent; hyper writes the right one.
            headers.remove(header::CONTENT_LENGTH);
        }
        headers.insert(header::HOST, host.clone());
        headers.append(header::VIA, via.clone());
    }
}

/// Whether a member of `Via` (RFC 9110 section 7.6.3) was written by us.
fn names_us(via: &[u8], pseudonym: &str) -> bool {
    via.split(|byte| *byte == b',')
        .any(|member| member.trim_ascii().split(|b| *b == b' ').nth(1) == Some(pseudonym.as_bytes()))
}

/// A length without leading zeros, which some would read as octal.
fn canonical_length(text: &[u8]) -> Option<u64> {
    let canonical = text.iter().all(u8::is_ascii_digit) && (text.first() != Some(&b'0') || text.len() == 1);
    std::str::from_utf8(text).ok().filter(|_| canonical)?.parse().ok()
}

fn number(value: &HeaderValue) -> Option<f64> {
    value.to_str().ok()?.trim().parse().ok()
}

/// What one pass over the fields of an answer tells of its framing, the pass that makes them those of the forwarded
/// response.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Framing {
    pub(crate) length: bool,
    /// The last transfer coding is `chunked`; `None` without one.
    pub(crate) chunked: Option<bool>,
}

/// Makes a response's fields those of the forwarded response, and tells how it was framed.
pub(crate) fn give_back(headers: &mut HeaderMap) -> Framing {
    let (mut framing, mut present) = (Framing::default(), 0);
    for (name, value) in headers.iter() {
        let name = name.as_str();
        present |= hop_by_hop(name);
        match name {
            "content-length" => framing.length = true,
            "transfer-encoding" => {
                framing.chunked = Some(value.as_bytes().to_ascii_lowercase().ends_with(b"chunked"));
            }
            _ => {}
        }
    }
    remove_hop_by_hop(headers, present);
    framing
}

/// Takes off what the bits of [`hop_by_hop`] say is there, and what `Connection` names.
fn remove_hop_by_hop(headers: &mut HeaderMap, present: u8) {
    if present & hop_by_hop("connection") != 0 {
        let is_usual = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"keep-alive");
        let named: Vec<HeaderName> = headers
            .get_all(header::CONNECTION)
            .iter()
            .filter(|value| !is_usual(value))
            .filter_map(|value| value.to_str().ok())
            .flat_map(|names| names.split(',').filter_map(|name| name.trim().parse().ok()))
            .collect();
        for name in named.iter().filter(|name| !NEVER_NOMINATED.contains(name)) {
            headers.remove(name);
        }
    }
    for (_, name) in HOP_BY_HOP.iter().enumerate().filter(|(bit, _)| present & (1 << bit) != 0) {
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
mod tests;
