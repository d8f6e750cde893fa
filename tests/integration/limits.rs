//! How large a request may be, and what becomes of one that is too large to hold.

use crate::support::{Answer, Gate, Pillion, Upstream, client};

const SEARCH: &[(&str, &str)] = &[("route", "r"), ("operation", "search")];
const CHAT: &[(&str, &str)] = &[("route", "r"), ("operation", "chat")];

#[tokio::test]
async fn max_body_refuses_by_length_before_the_content_is_asked_for() {
    let upstream = Upstream::answering(|_| Answer::ok("{}")).await;
    let pillion = Pillion::route("http", &upstream, &["limits: {max_body: 1KiB}"]).await;
    let mut client = pillion.connect().await;
    client.send("POST / HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 1025\r\n\r\n").await;
    let answer = client.response().await;
    assert_eq!(answer.status, 413, "no 100 first");
    assert!(answer.header("proxy-status").unwrap().contains("error=http_request_error"));
    assert_eq!(pillion.post("/", &"a".repeat(1024)).await.status, 200);
    assert_eq!(upstream.count(), 1);
}

#[tokio::test]
async fn max_body_refuses_chunked_content_where_it_grows_too_large() {
    let upstream = Upstream::answering(|_| Answer::ok("{}")).await;
    let pillion = Pillion::route("http", &upstream, &["limits: {max_body: 1KiB}"]).await;
    let mut client = pillion.connect().await;
    client.send("POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n").await;
    client.send(Answer::chunk("a".repeat(1000))).await;
    client.send(Answer::chunk("b".repeat(25))).await;
    assert_eq!(client.response().await.status, 413);
    assert_eq!(upstream.count(), 0);
}

#[tokio::test]
async fn max_body_holds_for_content_that_streams_through() {
    let upstream = Upstream::answering(|_| Answer::ok("{}")).await;
    let limits = ["limits: {max_body: 3KiB, replay_body: 1KiB}"];
    let pillion = Pillion::route("http", &upstream, &limits).await;
    for (chunks, status) in [(3, 200), (4, 413)] {
        let mut client = pillion.connect().await;
        client.send("POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n").await;
        for _ in 0..chunks {
            client.send(Answer::chunk("a".repeat(1024))).await;
        }
        if status == 200 {
            client.send("0\r\n\r\n").await;
        }
        assert_eq!(client.response().await.status, status, "{chunks} KiB");
    }
    assert_eq!(upstream.count(), 1, "the other one was cut off");
    upstream.closed(0).await;
    assert!(upstream.partial(0).len() < 3 * 1024 + 512, "{}", upstream.partial(0).len());
}

/// A conversation that would be trimmed if it could be held.
fn long_chat(padding: usize) -> String {
    let message = format!(r#"{{"role":"user","content":"{}"}}"#, "x".repeat(padding));
    format!(r#"{{"model":"m","messages":[{}]}}"#, vec![message; 30].join(","))
}

#[tokio::test]
async fn content_beyond_replay_body_streams_through_and_is_counted() {
    let upstream = Upstream::start().await;
    let pillion = Pillion::route("openai", &upstream, &["limits: {replay_body: 2KiB}"]).await;
    let body = long_chat(100);
    upstream.push(Answer::ok("{}"));
    let answer = pillion.post("/v1/chat/completions", &body).await;
    assert_eq!((answer.status, answer.header("pillion-trimmed")), (200, None));
    assert_eq!(upstream.last().text(), body, "untrimmed, byte for byte");
    assert_eq!(upstream.last().header("content-length").unwrap(), body.len().to_string());

    // In chunks too, where the size is known only on the way.
    upstream.push(Answer::ok("{}"));
    let mut client = pillion.connect().await;
    client.send("POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n").await;
    for piece in body.as_bytes().chunks(700) {
        client.send(Answer::chunk(piece)).await;
    }
    client.send("0\r\n\r\n").await;
    assert_eq!(client.response().await.status, 200);
    assert_eq!(upstream.last().text(), body);

    // One attempt only.
    upstream.push(Answer::status(503, "{}"));
    assert_eq!(pillion.post("/v1/chat/completions", &body).await.status, 503);
    assert_eq!(upstream.count(), 3);
    pillion.metric_is("pillion_streamed_bodies_total", CHAT, 3.0).await;
    assert_eq!(pillion.metric("pillion_trimmed_messages_total", CHAT).await, 0.0);
}

#[tokio::test]
async fn a_search_too_large_to_hold_is_not_cached() {
    let upstream = Upstream::answering(|_| Answer::ok(r#"{"result":[{"id":"a"}]}"#)).await;
    let pillion = Pillion::route("upstash-vector", &upstream, &["limits: {replay_body: 1KiB}"]).await;
    let body = format!(r#"{{"topK":1,"data":"{}"}}"#, "x".repeat(2000));
    for n in 1..=2 {
        let answer = pillion.post("/query-data", &body).await;
        assert_eq!(answer.cache(), "pillion; fwd=bypass; detail=size");
        assert_eq!(upstream.count(), n);
    }
    pillion.metric_is("pillion_streamed_bodies_total", SEARCH, 2.0).await;
}

#[tokio::test]
async fn content_streams_when_the_buffers_are_used_up_and_is_held_again_later() {
    let (upstream, gate) = (Upstream::start().await, Gate::new());
    let yaml = "
memory: {buffers: 4KiB}
routes: [{name: r, path: /, upstream: '${UP}', preset: openai}]";
    let pillion = Pillion::start(yaml, &[("UP", &upstream.url())]).await;
    let body = long_chat(60);
    assert!((2049..4096).contains(&body.len()), "fits once, not twice: {}", body.len());
    upstream.push(Answer::ok("{}").held(&gate));
    upstream.push(Answer::ok("{}"));
    let mut first = pillion.connect().await;
    first.ask("POST", "/v1/chat/completions", &[], &body).await;
    upstream.seen(1).await;
    assert_eq!(pillion.metric("pillion_buffers_bytes", &[]).await, body.len() as f64);

    let second = pillion.post("/v1/chat/completions", &body).await;
    assert_eq!((second.status, second.header("pillion-trimmed")), (200, None));
    assert_eq!(upstream.last().text(), body, "streamed as it is");
    gate.open();
    assert_eq!(first.response().await.header("pillion-trimmed"), Some("10"), "held, hence trimmed");
    pillion.metric_is("pillion_buffers_bytes", &[], 0.0).await;
    pillion.metric_is("pillion_streamed_bodies_total", CHAT, 1.0).await;

    upstream.push(Answer::ok("{}"));
    let third = pillion.post("/v1/chat/completions", &body).await;
    assert_eq!(third.header("pillion-trimmed"), Some("10"));
}

#[tokio::test]
async fn a_client_that_leaves_amid_its_content_gives_the_memory_back() {
    let upstream = Upstream::start().await;
    let pillion = Pillion::route("openai", &upstream, &[]).await;
    let request = client::request("POST", "/v1/chat/completions", &[], long_chat(60).as_bytes());
    let mut client = pillion.connect().await;
    client.send(&request[..request.len() - 1]).await;
    pillion.metric_is("pillion_in_flight", CHAT, 1.0).await;
    drop(client);
    pillion.metric_is("pillion_in_flight", CHAT, 0.0).await;
    pillion.metric_is("pillion_buffers_bytes", &[], 0.0).await;
    assert_eq!(upstream.connections(), 0);
}

#[tokio::test]
async fn large_content_passes_both_ways_unchanged() {
    let body: Vec<u8> = (0..3_000_000_u32).map(|n| (n * 31 % 251) as u8).collect();
    let upstream = Upstream::answering(|seen| Answer::with(200, &[], &seen.body)).await;
    for more in [&[][..], &["limits: {replay_body: 64KiB}"]] {
        let pillion = Pillion::route("http", &upstream, more).await;
        let answer = client::exchange(pillion.addr, "POST", "/", &[], &body).await;
        assert!(answer.complete && answer.body == body, "{} bytes came back", answer.body.len());
    }
}

/// Who announces much and sends nothing holds nothing: others keep their cache, retries and window.
#[tokio::test]
async fn memory_is_taken_as_content_comes() {
    let upstream = Upstream::answering(|_| Answer::ok(r#"{"result":[1]}"#)).await;
    let pillion = Pillion::route("upstash-vector", &upstream, &[]).await;
    let mut silent = Vec::new();
    for _ in 0..3 {
        let mut client = pillion.connect().await;
        client.send("POST /query HTTP/1.1\r\nhost: a\r\ncontent-length: 33554432\r\n\r\nx").await;
        silent.push(client);
    }
    pillion.metric_is("pillion_buffers_bytes", &[], 3.0).await;
    assert_eq!(pillion.post("/query", "{}").await.cache(), "pillion; fwd=miss; stored");
    assert!(pillion.post("/query", "{}").await.is_hit());
}

#[tokio::test]
async fn an_answer_of_a_hundred_fields_passes_and_one_of_more_is_a_502() {
    let upstream = Upstream::start().await;
    let pillion = Pillion::route("http", &upstream, &["retry: {enabled: false}"]).await;
    for (fields, status) in [(100, 200), (101, 502)] {
        // Besides the length.
        let names: Vec<String> = (1..fields).map(|number| format!("x-{number}")).collect();
        let headers: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "1")).collect();
        upstream.push(Answer::with(200, &headers, "{}"));
        assert_eq!(pillion.post("/", "{}").await.status, status, "{fields} fields");
    }
}
