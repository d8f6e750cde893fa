//! Where messages begin and end: nothing may be read as two, and nothing cut as whole.

use std::fmt::Write as _;

use crate::support::{Answer, Pillion, Upstream};

async fn plain() -> (Upstream, Pillion) {
    let upstream = Upstream::answering(|seen| Answer::ok(format!("{} {}", seen.method, seen.target))).await;
    let pillion = Pillion::route("http", &upstream, &["retry: {enabled: false}"]).await;
    (upstream, pillion)
}

/// Sends these bytes; the status of the answer, and whether the connection was closed after it.
async fn status_of(pillion: &Pillion, bytes: &str) -> (u16, bool) {
    let mut client = pillion.connect().await;
    client.send(bytes).await;
    let answer = client.response().await;
    client.send("GET /next HTTP/1.1\r\nhost: x\r\n\r\n").await;
    (answer.status, client.head().await.is_none())
}

#[tokio::test]
async fn rfc9112_3_2_a_request_has_exactly_one_host() {
    let (upstream, pillion) = plain().await;
    for bytes in [
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nHost: a\r\n\r\n",
    ] {
        assert_eq!(status_of(&pillion, bytes).await.0, 400, "{bytes:?}");
    }
    assert!(upstream.requests().iter().all(|seen| seen.target == "/next"));
    assert_eq!(status_of(&pillion, "GET /old HTTP/1.0\r\n\r\n").await, (200, true), "HTTP/1.0 needs none");
}

#[tokio::test]
async fn rfc9112_6_1_length_and_coding_together_are_framed_anew_and_close() {
    let (upstream, pillion) = plain().await;
    for fields in [
        "content-length: 4\r\ntransfer-encoding: chunked",
        "transfer-encoding: chunked\r\ncontent-length: 4",
        "transfer-encoding: chunked\r\ncontent-length: 100",
    ] {
        let before = upstream.count();
        // By its length the body ends behind the first chunk's size, and what follows is another request.
        let inner = "GET /smuggled HTTP/1.1\r\nhost: x\r\n\r\n";
        let chunks = format!("{:x}\r\n{inner}\r\n0\r\n\r\n", inner.len());
        let mut client = pillion.connect().await;
        client.send(format!("POST /one HTTP/1.1\r\nhost: x\r\n{fields}\r\n\r\n{chunks}")).await;
        client.send("GET /next HTTP/1.1\r\nhost: x\r\n\r\n").await;
        assert_eq!(client.response().await.text(), "POST /one", "{fields}");
        assert_eq!(client.end().await, b"", "{fields}: closed, and nothing else was answered");
        let [seen] = &upstream.requests()[before..] else { panic!("one request went upstream") };
        assert_eq!((seen.target.as_str(), seen.text().as_str()), ("/one", inner));
        let framings = ["content-length", "transfer-encoding"].map(|name| seen.header(name).is_some());
        assert_ne!(framings[0], framings[1], "framed in one way: {}", seen.head);
    }
}

#[tokio::test]
async fn rfc9112_6_1_a_coding_in_http_1_0_is_refused() {
    let (upstream, pillion) = plain().await;
    let bytes = "POST / HTTP/1.0\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n";
    assert_eq!(status_of(&pillion, bytes).await, (400, true));
    assert_eq!(upstream.count(), 0);
}

#[tokio::test]
async fn rfc9112_6_3_unclear_lengths_are_refused() {
    let (upstream, pillion) = plain().await;
    for fields in [
        "content-length: 1\r\ncontent-length: 2",
        "content-length: 1, 2",
        "content-length: +1",
        "content-length: -1",
        "content-length: 0x1",
        "content-length: 99999999999999999999999",
        "transfer-encoding: gzip",
        "transfer-encoding: chunked, gzip",
        "transfer-encoding: identity",
        "transfer-encoding: xchunked",
        "transfer-encoding : chunked",
    ] {
        let bytes = format!("POST / HTTP/1.1\r\nhost: x\r\n{fields}\r\n\r\n1\r\na\r\n0\r\n\r\n");
        let (status, closed) = status_of(&pillion, &bytes).await;
        assert!(matches!(status, 400 | 501), "{fields}: {status}");
        assert!(closed, "{fields}");
    }
    assert_eq!(upstream.count(), 0);
}

#[tokio::test]
async fn rfc9112_7_1_broken_chunks_are_refused() {
    let (upstream, pillion) = plain().await;
    for chunks in [
        "zz\r\na\r\n0\r\n\r\n",
        "1\r\nab\r\n0\r\n\r\n",
        "1\na\n0\n\n",
        "ffffffffffffffffff\r\n",
        "-1\r\n\r\n",
    ] {
        let bytes = format!("POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n{chunks}");
        let (status, closed) = status_of(&pillion, &bytes).await;
        assert_eq!((status, closed), (400, true), "{chunks:?}");
    }
    assert_eq!(upstream.count(), 0, "a body that was never complete is not forwarded");
}

#[tokio::test]
async fn rfc9112_7_1_chunks_of_any_size_arrive_as_one_body() {
    let (upstream, pillion) = plain().await;
    let bytes = "POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n\
                 1\r\na\r\n3;ext=\"x\"\r\nbcd\r\n00004\r\nefgh\r\n0\r\nx-trailer: 1\r\n\r\n";
    assert_eq!(status_of(&pillion, bytes).await, (200, false));
    assert_eq!(upstream.requests()[0].text(), "abcdefgh");
    assert_eq!(upstream.requests()[0].header("x-trailer"), None);
}

#[tokio::test]
async fn rfc6585_5_too_large_a_head_is_431() {
    let (upstream, pillion) = plain().await;
    let mut many = String::from("GET / HTTP/1.1\r\nhost: x\r\n");
    (0..120).for_each(|n| write!(many, "x-{n}: 1\r\n").unwrap());
    let long = format!("GET / HTTP/1.1\r\nhost: x\r\nx-long: {}\r\n", "a".repeat(200 * 1024));
    for head in [many, long] {
        let mut client = pillion.connect().await;
        client.send(format!("{head}\r\n")).await;
        assert_eq!(client.response().await.status, 431);
    }
    assert_eq!(upstream.count(), 0);
}

#[tokio::test]
async fn a_head_as_large_as_allowed_passes() {
    let (upstream, pillion) = plain().await;
    let mut head = format!("GET /x HTTP/1.1\r\nhost: x\r\nx-long: {}\r\n", "a".repeat(60 * 1024));
    (0..90).for_each(|n| write!(head, "x-{n}: 1\r\n").unwrap());
    assert_eq!(status_of(&pillion, &format!("{head}\r\n")).await, (200, false));
    assert_eq!(upstream.requests()[0].header("x-long").unwrap().len(), 60 * 1024);
}

#[tokio::test]
async fn rfc9110_10_1_1_expect_continue_is_answered() {
    let (upstream, pillion) = plain().await;
    let mut client = pillion.connect().await;
    client.send("POST / HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 3\r\n\r\n").await;
    assert_eq!(client.head().await.unwrap().status, 100);
    client.send("abc").await;
    assert_eq!(client.response().await.status, 200);
    let seen = upstream.last();
    assert_eq!((seen.text().as_str(), seen.header("expect")), ("abc", None));
}

#[tokio::test]
async fn rfc9110_9_3_2_head_has_the_length_and_no_content() {
    let upstream = Upstream::start().await;
    let pillion = Pillion::route("http", &upstream, &[]).await;
    let head = "HTTP/1.1 200 OK\r\ncontent-length: 1234\r\ncontent-type: text/plain\r\n\r\n";
    upstream.push(Answer::raw(head));
    upstream.push(Answer::ok("after"));
    let mut client = pillion.connect().await;
    let answer = client.exchange("HEAD", "/", &[], "").await;
    assert_eq!((answer.status, answer.header("content-length")), (200, Some("1234")));
    assert_eq!(client.exchange("GET", "/", &[], "").await.text(), "after");
    assert_eq!(upstream.connections(), 1, "the connection was in order after it");
}

#[tokio::test]
async fn rfc9110_15_no_content_where_the_status_has_none() {
    let upstream = Upstream::start().await;
    let pillion = Pillion::route("http", &upstream, &[]).await;
    let mut client = pillion.connect().await;
    for status in [204, 304] {
        upstream.push(Answer::raw(format!("HTTP/1.1 {status} X\r\netag: \"a\"\r\n\r\n")));
        upstream.push(Answer::ok("after"));
        let answer = client.exchange("GET", "/", &[], "").await;
        assert_eq!(answer.status, status);
        assert_eq!((answer.header("transfer-encoding"), answer.header("etag")), (None, Some("\"a\"")));
        assert_eq!(client.exchange("GET", "/", &[], "").await.text(), "after");
    }
    assert_eq!(upstream.connections(), 1);
}

#[tokio::test]
async fn data_behind_a_response_never_reaches_a_client() {
    for behind in ["HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nEVIL", "EVIL"] {
        let upstream = Upstream::start().await;
        let pillion = Pillion::route("http", &upstream, &["retry: {enabled: false}"]).await;
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ngood{behind}");
        upstream.push(Answer::raw(answer));
        upstream.push(Answer::ok("next"));
        let mut client = pillion.connect().await;
        assert_eq!(client.exchange("GET", "/1", &[], "").await.text(), "good");
        let next = client.exchange("GET", "/2", &[], "").await;
        assert_eq!(next.text(), "next", "{behind}");
        assert_eq!(upstream.connections(), 2, "the connection is not used again");
    }
}

#[tokio::test]
async fn rfc9112_6_3_unclear_responses_are_502() {
    for head in [
        "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
        "HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\nab",
        "HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\nab",
        "HTTP/1.1 2000 OK\r\n\r\n",
        "SSH-2.0-OpenSSH_9\r\n\r\n",
        "HTTP/1.1 200 OK\r\nbad name: 1\r\n\r\n",
    ] {
        let upstream = Upstream::start().await;
        let pillion = Pillion::route("http", &upstream, &["retry: {enabled: false}"]).await;
        upstream.push(Answer::raw(head));
        let answer = pillion.get("/").await;
        assert_eq!(answer.status, 502, "{head:?}");
        assert!(answer.header("proxy-status").unwrap().contains("error=http_protocol_error"), "{head:?}");
    }
}

#[tokio::test]
async fn rfc9112_9_3_2_pipelined_requests_are_answered_in_order() {
    let (upstream, pillion) = plain().await;
    let mut client = pillion.connect().await;
    let bytes: String = (0..20)
        .map(|n| match n % 3 {
            0 => format!("GET /{n} HTTP/1.1\r\nhost: x\r\n\r\n"),
            1 => format!("POST /{n} HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\nGET"),
            _ => format!(
                "POST /{n} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n3\r\nGET\r\n0\r\n\r\n"
            ),
        })
        .collect();
    client.send(bytes).await;
    for n in 0..20 {
        assert!(client.response().await.text().ends_with(&format!("/{n}")));
    }
    assert_eq!(upstream.count(), 20);
}

#[tokio::test]
async fn an_early_answer_leaves_nothing_of_the_request_on_the_connection() {
    let upstream = Upstream::start().await;
    let yaml = "routes: [{name: o, path: /o, upstream: '${UP}', preset: http}]";
    let pillion = Pillion::start(yaml, &[("UP", &upstream.url())]).await;
    // No route: answered before the content is read. The content must not become a request.
    let inner = "GET /o/smuggled HTTP/1.1\r\nhost: x\r\n\r\n";
    let mut client = pillion.connect().await;
    client
        .send(format!("POST /nowhere HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n", inner.len()))
        .await;
    assert_eq!(client.response().await.status, 404);
    client.send(inner).await;
    client.send("GET /nowhere HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
    let rest = String::from_utf8_lossy(&client.end().await).into_owned();
    assert!(rest.is_empty() || rest.starts_with("HTTP/1.1 404"), "{rest}");
    assert_eq!(upstream.count(), 0);
}

/// A reader that believes the length would take the rest for the next response.
#[tokio::test]
async fn rfc9112_6_3_an_upstream_that_frames_twice_is_refused() {
    let split = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n\
                 2a\r\nhelloHTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nFAKE\r\n0\r\n\r\n";
    for preset in ["http", "upstash-vector", "openai"] {
        let upstream = Upstream::start().await;
        let pillion = Pillion::route(preset, &upstream, &["retry: {enabled: false}"]).await;
        for target in ["/query", "/upsert", "/v1/chat/completions"] {
            upstream.push(Answer::raw(split));
            upstream.push(Answer::ok("next"));
            let mut client = pillion.connect().await;
            let refused = client.exchange("POST", target, &[], "{}").await;
            assert_eq!(refused.status, 502, "{preset} {target}");
            assert!(refused.header("proxy-status").unwrap().contains("http_protocol_error"));
            assert_eq!(client.exchange("POST", target, &[], "{}").await.text(), "next", "{preset} {target}");
        }
    }
}

#[tokio::test]
async fn rfc9110_15_2_2_an_unasked_switch_of_protocols_is_refused() {
    let upstream = Upstream::start().await;
    let pillion = Pillion::route("http", &upstream, &["retry: {enabled: false}"]).await;
    upstream
        .push(Answer::raw("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n"));
    assert_eq!(pillion.post("/x", "{}").await.status, 502);
}
