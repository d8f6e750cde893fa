//! Time that is up: who is told, and what is let go.

use std::time::Duration;

use crate::support::{Answer, Gate, Pillion, Step, Upstream, advance};

const CHAT: &str = "/v1/chat/completions";
const BODY: &str = r#"{"messages":[{"role":"user","content":"a"}]}"#;
const S: Duration = Duration::from_secs(1);

fn silent_within_content(answer: Answer) -> Answer {
    let length = answer.len() - 5;
    answer.cut_with(length, Step::Hang)
}

#[tokio::test]
async fn no_head_within_first_byte_is_504() {
    let upstream = Upstream::answering(|_| Answer::hang()).await;
    let pillion = Pillion::route("http", &upstream, &["timeouts: {first_byte: 3s}"]).await;
    let mut client = pillion.connect().await;
    client.ask("POST", "/x", &[], BODY).await;
    upstream.seen(1).await;
    advance(S * 29 / 10).await;
    pillion.metric_is("pillion_in_flight", &[], 1.0).await;
    advance(S * 2 / 10).await;
    let response = client.response().await;
    assert_eq!(response.status, 504);
    assert!(response.header("proxy-status").unwrap().contains("error=http_response_timeout"));
    assert_eq!(response.header("content-type"), Some("application/problem+json"));
    assert_eq!(response.json()["status"], 504);
    assert_eq!(response.header("x-should-retry"), None, "the class forbids it, the deadline is not over");
    upstream.closed(0).await;
    pillion.metric_is("pillion_errors_total", &[("error", "http_response_timeout")], 1.0).await;
}

/// `total` holds for all attempts and back-offs together, and the SDK need not try again.
#[tokio::test]
async fn total_is_504_and_stops_the_sdk() {
    let upstream = Upstream::answering(|_| Answer::hang()).await;
    let more = ["timeouts: {first_byte: 4s, total: 10s}", "retry: {base: 1ms, attempts: 10}"];
    let pillion = Pillion::route("openai", &upstream, &more).await;
    let mut client = pillion.connect().await;
    client.ask("POST", "/v1/embeddings", &[], BODY).await;
    for attempt in 1..=3 {
        upstream.seen(attempt).await;
        advance(S * 41 / 10).await;
    }
    let response = client.response().await;
    assert_eq!(response.status, 504);
    assert_eq!(response.json()["error"]["code"], "http_response_timeout");
    assert_eq!(response.header("x-should-retry"), Some("false"));
    assert_eq!(upstream.count(), 3);
    pillion.metric_is("pillion_retries_not_made_total", &[("reason", "deadline")], 1.0).await;
}

/// Content that is held counts to `total`: its head has not gone out.
#[tokio::test]
async fn held_content_must_be_complete_within_total() {
    let upstream = Upstream::start().await;
    let pillion = Pillion::route("upstash-vector", &upstream, &["timeouts: {total: 10s, idle: 6s}"]).await;
    let (feed, answer) = Answer::fed(200, &[]);
    upstream.push(answer);
    let mut client = pillion.connect().await;
    client.ask("POST", "/query", &[], BODY).await;
    upstream.seen(1).await;
    // Never silent for long, and never done.
    for _ in 0..4 {
        feed.send(Answer::chunk("[")).unwrap();
        pillion.metric_is("pillion_in_flight", &[], 1.0).await;
        advance(S * 3).await;
    }
    let response = client.response().await;
    assert_eq!((response.status, response.header("x-should-retry")), (504, Some("false")));
    upstream.closed(0).await;
}

/// A held search that falls silent is attempted again.
#[tokio::test]
async fn held_content_that_falls_silent_is_attempted_again() {
    let upstream = Upstream::answering(|_| Answer::ok(r#"{"result":[1]}"#)).await;
    let more = ["timeouts: {first_byte: 30s, total: 1m, idle: 6s}", "retry: {base: 1ms}"];
    let pillion = Pillion::route("upstash-vector", &upstream, &more).await;
    upstream.push(silent_within_content(Answer::ok(r#"{"result":[1]}"#)));
    let mut client = pillion.connect().await;
    client.ask("POST", "/query", &[], BODY).await;
    upstream.seen(1).await;
    // The head comes at some point of this; the time for it alone would be longer.
    for _ in 0..15 {
        advance(S).await;
        // Lets everything run that can.
        pillion.metrics().await;
        if upstream.count() > 1 {
            break;
        }
    }
    let response = client.response().await;
    assert_eq!((response.status, response.text().as_str()), (200, r#"{"result":[1]}"#));
    assert_eq!(upstream.count(), 2);
}

#[tokio::test]
async fn an_answer_that_falls_silent_is_cut() {
    let upstream = Upstream::start().await;
    let pillion = Pillion::route("openai", &upstream, &["timeouts: {idle: 5s}"]).await;
    upstream.push(silent_within_content(Answer::ok("0123456789")));
    let mut client = pillion.connect().await;
    client.ask("POST", CHAT, &[], BODY).await;
    let mut response = client.head().await.unwrap();
    assert_eq!(response.status, 200);
    advance(S * 51 / 10).await;
    client.content(&mut response, false).await;
    assert!(!response.complete);
    upstream.closed(0).await;
    pillion.metric_is("pillion_errors_total", &[("error", "http_response_timeout")], 1.0).await;
    pillion.metric_is("pillion_requests_total", &[("status", "2xx")], 1.0).await;
}

#[tokio::test]
async fn content_that_stops_coming_is_408() {
    let upstream = Upstream::start().await;
    let pillion = Pillion::route("openai", &upstream, &["timeouts: {idle: 5s}"]).await;
    let mut client = pillion.connect().await;
    client.send(format!("POST {CHAT} HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\nhalf")).await;
    pillion.metric_is("pillion_in_flight", &[("operation", "chat")], 1.0).await;
    // Every byte starts the time anew.
    advance(S * 4).await;
    client.send("more").await;
    // Room for all that it announced.
    pillion.metric_is("pillion_buffers_bytes", &[], 100.0).await;
    advance(S * 4).await;
    pillion.metric_is("pillion_in_flight", &[("operation", "chat")], 1.0).await;
    advance(S * 2).await;
    let response = client.response().await;
    assert_eq!(response.status, 408);
    assert_eq!(response.json()["error"]["type"], "http_request_error");
    assert_eq!(client.end().await, b"", "what follows cannot be told from the rest of the content");
    assert_eq!(upstream.connections(), 0);
    pillion.metric_is("pillion_buffers_bytes", &[], 0.0).await;
}

/// A head that never ends holds no connection for ever.
#[tokio::test]
async fn a_head_that_stops_coming_ends_the_connection() {
    let upstream = Upstream::start().await;
    let pillion = Pillion::route("openai", &upstream, &[]).await;
    let mut client = pillion.connect().await;
    client.send("POST /x HTTP/1.1\r\nhost: a\r\n").await;
    // Only once it is answered has the connection been accepted.
    assert_eq!(pillion.get("/y").await.status, 501);
    advance(S * 76).await;
    let said = client.end().await;
    assert!(said.is_empty() || said.starts_with(b"HTTP/1.1 408"), "{}", String::from_utf8_lossy(&said));
}

/// What is late is late, whatever the upstream sends then: its connection is not used again.
#[tokio::test]
async fn a_late_answer_reaches_nobody_else() {
    let upstream = Upstream::start().await;
    let gate = Gate::new();
    upstream.push(Answer::ok("late").held(&gate));
    upstream.push(Answer::ok("own"));
    let pillion = Pillion::route("http", &upstream, &["timeouts: {first_byte: 3s}"]).await;
    let mut client = pillion.connect().await;
    client.ask("POST", "/x", &[], BODY).await;
    upstream.seen(1).await;
    advance(S * 4).await;
    assert_eq!(client.response().await.status, 504);
    gate.open();
    assert_eq!(pillion.post("/x", BODY).await.text(), "own");
    assert_eq!(upstream.connections(), 2);
}
