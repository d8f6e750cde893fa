//! What concerns one hop only, and what passes it.

use crate::support::{Answer, Pillion, Upstream};

async fn plain() -> (Upstream, Pillion) {
    let upstream = Upstream::answering(|_| Answer::ok("{}")).await;
    let pillion = Pillion::route("http", &upstream, &[]).await;
    (upstream, pillion)
}

#[tokio::test]
async fn rfc9110_7_6_1_connection_options_are_removed() {
    let (upstream, pillion) = plain().await;
    let sent = [
        ("connection", "keep-alive, X-Hop"),
        ("connection", "x-other-hop"),
        ("keep-alive", "timeout=5"),
        ("proxy-connection", "keep-alive"),
        ("proxy-authorization", "Basic x"),
        ("te", "trailers"),
        ("x-hop", "1"),
        ("x-other-hop", "2"),
        ("x-end", "3"),
    ];
    assert_eq!(pillion.post_with("/", &sent, "{}").await.status, 200);
    let seen = upstream.last();
    for gone in
        ["connection", "keep-alive", "proxy-connection", "proxy-authorization", "te", "x-hop", "x-other-hop"]
    {
        assert_eq!(seen.header(gone), None, "{gone}");
    }
    assert_eq!(seen.header("x-end"), Some("3"));
}

#[tokio::test]
async fn rfc9110_7_6_1_connection_options_of_a_response_are_removed() {
    let upstream = Upstream::start().await;
    let pillion = Pillion::route("http", &upstream, &[]).await;
    let sent = [
        ("connection", "x-hop, keep-alive"),
        ("keep-alive", "timeout=5"),
        ("proxy-authenticate", "Basic"),
        ("x-hop", "1"),
        ("x-end", "2"),
        ("content-type", "text/plain"),
    ];
    upstream.push(Answer::with(200, &sent, "x"));
    let answer = pillion.get("/").await;
    assert_eq!(answer.text(), "x");
    assert_eq!((answer.header("x-hop"), answer.header("keep-alive")), (None, None));
    assert_eq!(answer.header("connection"), None);
    assert_eq!(answer.header("x-end"), Some("2"));
    assert_eq!(answer.header("content-type"), Some("text/plain"));
}

#[tokio::test]
async fn connection_cannot_nominate_credentials_away() {
    let (upstream, pillion) = plain().await;
    let sent = [
        ("connection", "authorization, api-key, x-api-key, host, content-length, content-type, via"),
        ("authorization", "Bearer k"),
        ("api-key", "k1"),
        ("x-api-key", "k2"),
    ];
    assert_eq!(pillion.post_with("/", &sent, "{}").await.status, 200);
    let seen = upstream.last();
    for (name, value) in [("authorization", "Bearer k"), ("api-key", "k1"), ("x-api-key", "k2")] {
        assert_eq!(seen.header(name), Some(value));
    }
    assert_eq!(seen.header("content-type"), Some("application/json"));
    assert_eq!(seen.text(), "{}");
    assert!(seen.header("via").is_some());
}

#[tokio::test]
async fn rfc9110_7_8_upgrades_and_tunnels_are_refused() {
    let (upstream, pillion) = plain().await;
    let mut client = pillion.connect().await;
    let upgrade = [("connection", "upgrade"), ("upgrade", "websocket"), ("sec-websocket-key", "x")];
    let answer = client.exchange("GET", "/", &upgrade, "").await;
    assert_eq!(answer.status, 501);
    assert!(answer.header("proxy-status").unwrap().contains("error=http_request_error"));

    let mut client = pillion.connect().await;
    client.send("CONNECT example.com:443 HTTP/1.1\r\nhost: example.com:443\r\n\r\n").await;
    assert_eq!(client.response().await.status, 501);
    assert_eq!(upstream.count(), 0);

    // RFC 9113 section 3.1: a server may go on in HTTP/1.1.
    let h2c = [("connection", "upgrade, http2-settings"), ("upgrade", "h2c"), ("http2-settings", "AAMAAABk")];
    let answer = pillion.post_with("/", &h2c, "{}").await;
    assert_eq!(answer.status, 200);
    let seen = upstream.last();
    assert_eq!((seen.header("upgrade"), seen.header("http2-settings")), (None, None));
}

#[tokio::test]
async fn what_is_for_pillion_stays_here() {
    let upstream = Upstream::answering(|_| Answer::ok("{}")).await;
    let pillion = Pillion::route("openai", &upstream, &["window: {id_header: X-Bot-Chat}"]).await;
    let sent = [
        ("Pillion-Cache", "bypass"),
        ("pillion-retry", "off"),
        ("PILLION-WINDOW", "off"),
        ("x-bot-chat", "c-17"),
        ("x-stainless-retry-count", "0"),
        ("x-conversation-id", "another's"),
    ];
    assert_eq!(pillion.post_with("/v1/chat/completions", &sent, r#"{"messages":[]}"#).await.status, 200);
    let seen = upstream.last();
    for gone in ["pillion-cache", "pillion-retry", "pillion-window", "x-bot-chat"] {
        assert_eq!(seen.header(gone), None, "{gone}");
    }
    assert_eq!(seen.header("x-stainless-retry-count"), Some("0"));
    assert_eq!(seen.header("x-conversation-id"), Some("another's"), "the header is what the route says");
}

#[tokio::test]
async fn rfc9110_15_4_redirects_are_passed_not_followed() {
    let upstream = Upstream::start().await;
    let pillion = Pillion::route("http", &upstream, &[]).await;
    for status in [301, 302, 303, 307, 308] {
        let there = format!("{}/there", upstream.url());
        upstream.push(Answer::with(status, &[("location", &there)], "moved"));
        let answer = pillion.get("/here").await;
        assert_eq!(answer.status, status);
        assert_eq!(answer.header("location"), Some(there.as_str()));
        assert_eq!(answer.text(), "moved");
        assert_eq!(upstream.last().target, "/here");
    }
    assert_eq!(upstream.count(), 5);
}

#[tokio::test]
async fn fields_of_both_sides_pass_as_they_are() {
    let upstream = Upstream::start().await;
    let pillion = Pillion::route("http", &upstream, &[]).await;
    let answer = [("set-cookie", "a=1; Path=/"), ("set-cookie", "b=2"), ("x-odd", "a,b;c=\"d\"  e")];
    upstream.push(Answer::with(200, &answer, "{}"));
    let sent = [
        ("cookie", "a=1"),
        ("x-odd", "  v\u{e9}  "),
        ("accept", "a"),
        ("accept", "b"),
        ("user-agent", "bot/1"),
    ];
    let answer = pillion.post_with("/", &sent, "{}").await;
    assert_eq!(answer.all("set-cookie"), ["a=1; Path=/", "b=2"]);
    assert_eq!(answer.header("x-odd"), Some("a,b;c=\"d\"  e"));
    let seen = upstream.last();
    let accept: Vec<_> =
        seen.headers.iter().filter(|(n, _)| n == "accept").map(|(_, v)| v.as_str()).collect();
    assert_eq!(accept, ["a", "b"]);
    assert_eq!(seen.header("x-odd"), Some("v\u{e9}"));
    assert_eq!((seen.header("cookie"), seen.header("user-agent")), (Some("a=1"), Some("bot/1")));
}
