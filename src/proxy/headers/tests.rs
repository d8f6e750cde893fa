use super::*;
use http::Request;

fn admitted(request: http::request::Builder) -> Result<(), Kind> {
    let (head, ()) = request.body(()).unwrap().into_parts();
    Seen::of(&head.headers, "pillion-1").admit(&head.method, head.version).map_err(|e| e.kind)
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

fn forward(headers: &mut HeaderMap, length: Option<u64>) -> Seen {
    let seen = Seen::of(headers, "p");
    let (host, via) = (HeaderValue::from_static("up"), HeaderValue::from_static("1.1 p"));
    seen.forward(headers, &HeaderName::from_static("x-conversation-id"), &host, &via, length);
    seen
}

fn forwarded(fields: &[(&'static str, &str)], length: Option<u64>) -> Vec<String> {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        headers.append(*name, value.parse().unwrap());
    }
    forward(&mut headers, length);
    let mut lines: Vec<_> = headers.iter().map(|(n, v)| format!("{n}: {}", v.to_str().unwrap())).collect();
    lines.sort();
    lines
}

#[test]
fn every_bit_is_its_field() {
    for (bit, name) in HOP_BY_HOP.iter().enumerate() {
        assert_eq!(hop_by_hop(name.as_str()), 1 << bit, "{name}");
    }
}

#[test]
fn the_length_goes_on_only_where_it_is_that_of_the_content() {
    let via = ["host: up", "via: 1.1 p"];
    for (lengths, content, kept) in [
        (&["7"][..], Some(7), &["content-length: 7"][..]),
        (&["7"], Some(6), &[]),
        (&["7", "7"], Some(7), &[]),
        (&["+7"], Some(7), &[]),
        (&["07"], Some(7), &[]),
        (&["0"], Some(0), &["content-length: 0"]),
        (&[], Some(7), &[]),
        // Content that streams is of the length that was announced.
        (&["7"], None, &["content-length: 7"]),
    ] {
        let fields: Vec<_> = lengths.iter().map(|length| ("content-length", *length)).collect();
        assert_eq!(forwarded(&fields, content), [kept, &via].concat(), "{lengths:?} {content:?}");
    }
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
    assert_eq!(forwarded(&fields, None), ["host: up", "via: 1.1 p", "x-three: 3"]);
}

#[test]
fn connection_cannot_talk_credentials_away() {
    let fields = [("connection", "authorization, x-api-key"), ("authorization", "k"), ("x-api-key", "k")];
    assert_eq!(forwarded(&fields, None), ["authorization: k", "host: up", "via: 1.1 p", "x-api-key: k"]);
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
    assert_eq!(
        forward(&mut headers, None).asks,
        Asks {
            cache: CacheAsk::Refresh,
            no_retry: true,
            no_window: false,
            client_retries: 2,
            client_timeout: Some(Duration::from_millis(600_500))
        }
    );
    assert_eq!(headers.len(), 4, "the SDK's own fields go on, besides Host and Via");
}

#[test]
fn of_asks_that_come_twice_the_stricter_holds() {
    for (fields, expected) in [
        ([("pillion-retry", "off"), ("pillion-retry", "on")], Asks { no_retry: true, ..Asks::default() }),
        ([("pillion-window", "on"), ("pillion-window", "off")], Asks { no_window: true, ..Asks::default() }),
        (
            [("pillion-cache", "bypass"), ("pillion-cache", "refresh")],
            Asks { cache: CacheAsk::Bypass, ..Asks::default() },
        ),
        (
            [("x-stainless-read-timeout", "600"), ("x-stainless-read-timeout", "5")],
            Asks { client_timeout: Some(Duration::from_secs(5)), ..Asks::default() },
        ),
        (
            [("x-stainless-read-timeout", "5"), ("x-stainless-read-timeout", "abc")],
            Asks { client_timeout: Some(Duration::from_secs(5)), ..Asks::default() },
        ),
        (
            [("x-stainless-retry-count", "2"), ("x-stainless-retry-count", "0")],
            Asks { client_retries: 2, ..Asks::default() },
        ),
    ] {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(name, value.parse().unwrap());
        }
        assert_eq!(Seen::of(&headers, "p").asks, expected, "{fields:?}");
    }
}

#[test]
fn an_ask_of_the_cache_is_a_list_and_what_means_nothing_is_a_bypass() {
    use CacheAsk::{Bypass, Refresh, Use};
    for (value, expected) in [
        ("bypass", Bypass),
        (" Refresh ", Refresh),
        ("refresh, bypass", Bypass),
        ("bypass,refresh", Bypass),
        ("refresh,,refresh", Refresh),
        ("refresh, off", Bypass),
        ("no-store", Bypass),
        ("bypass;x", Bypass),
        ("refresh;x=1", Bypass),
        ("", Use),
        (" , ", Use),
    ] {
        let headers = [("pillion-cache", value)];
        let headers = headers.map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
        let seen = Seen::of(&HeaderMap::from_iter(headers), "p");
        assert_eq!(seen.asks.cache, expected, "{value:?}");
    }
}

#[test]
fn an_upstreams_connection_cannot_talk_away_what_the_cache_goes_by() {
    let mut headers = HeaderMap::new();
    for (name, value) in [
        ("connection", "vary, set-cookie, retry-after, x-should-retry, x-hop"),
        ("vary", "x-lang"),
        ("set-cookie", "a=b"),
        ("retry-after", "1"),
        ("x-should-retry", "false"),
        ("x-hop", "1"),
    ] {
        headers.insert(name, value.parse().unwrap());
    }
    give_back(&mut headers);
    let mut left: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
    left.sort_unstable();
    assert_eq!(left, ["retry-after", "set-cookie", "vary", "x-should-retry"]);
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
