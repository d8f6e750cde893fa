//! Connections to the upstream are kept, and one that has died is replaced.

use std::time::Duration;

use pillion::upstream::{Phase, Resolver};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::support::direct::Direct;
use crate::support::{Answer, Gate, Pillion, Step, Upstream, advance, within};

const FOUND: &str = r#"{"result":[{"id":"a"}]}"#;

/// Searches that are never the same twice.
async fn search(pillion: &Pillion, number: usize) -> u16 {
    pillion.post("/query", &format!(r#"{{"topK":{number}}}"#)).await.status
}

#[tokio::test]
async fn one_connection_carries_one_request_after_another() {
    let upstream = Upstream::answering(|_| Answer::ok(FOUND)).await;
    let pillion = Pillion::route("upstash-vector", &upstream, &[]).await;
    for number in 0..20 {
        assert_eq!(search(&pillion, number).await, 200);
    }
    assert_eq!(upstream.connections(), 1);
    let chunked = Answer::chunked(200, &[("content-type", "application/json")], &[FOUND]);
    upstream.push(chunked);
    assert_eq!(search(&pillion, 20).await, 200);
    assert_eq!(search(&pillion, 21).await, 200);
    assert_eq!(upstream.connections(), 1);
}

#[tokio::test]
async fn requests_at_the_same_time_do_not_share_a_connection() {
    let (upstream, gate) = (Upstream::start().await, Gate::new());
    let pillion = Pillion::route("upstash-vector", &upstream, &[]).await;
    for _ in 0..3 {
        upstream.push(Answer::ok(FOUND).held(&gate));
    }
    let all = async { tokio::join!(search(&pillion, 1), search(&pillion, 2), search(&pillion, 3)) };
    let open = async {
        upstream.seen(3).await;
        gate.open();
    };
    assert_eq!(tokio::join!(all, open).0, (200, 200, 200));
    assert_eq!(upstream.connections(), 3);
    upstream.push(Answer::ok(FOUND));
    assert_eq!(search(&pillion, 4).await, 200);
    assert_eq!(upstream.connections(), 3, "one of them is used again");
}

#[tokio::test]
async fn a_connection_closed_between_requests_is_replaced_unseen() {
    for end in [|| Step::Close, || Step::Reset] {
        let upstream = Upstream::start().await;
        // Chats, and no retries at all: what is replaced here is no attempt.
        let pillion = Pillion::route("openai", &upstream, &["retry: {enabled: false}"]).await;
        for n in 0..10 {
            upstream.push(Answer::ok("{}").then(end()));
            let answer = pillion.post("/v1/chat/completions", "{}").await;
            assert_eq!(answer.status, 200, "request {n}");
            // The end may have arrived by the next request, or not: either must do.
            for _ in 0..n * 5 {
                tokio::task::yield_now().await;
            }
        }
        assert_eq!(upstream.count(), 10);
    }
}

#[tokio::test]
async fn a_connection_that_closes_exactly_at_reuse_is_tried_again_where_that_is_safe() {
    for end in [Answer::close, Answer::reset] {
        let upstream = Upstream::start().await;
        let pillion = Pillion::route("upstash-vector", &upstream, &["retry: {base: 0ms}"]).await;
        upstream.push(Answer::ok(FOUND));
        assert_eq!(search(&pillion, 1).await, 200);
        upstream.push(end());
        upstream.push(Answer::ok(FOUND));
        assert_eq!(search(&pillion, 2).await, 200, "a search");
        assert_eq!(upstream.connections(), 2);
        assert_eq!(upstream.requests()[1].connection, 0, "it had been sent on the old one");
        // What may have been done must not be done twice.
        upstream.push(end());
        assert_eq!(pillion.post("/update", r#"{"id":"a"}"#).await.status, 502, "an update");
        assert_eq!(upstream.count(), 4);
    }
}

#[tokio::test]
async fn connections_do_not_grow_old() {
    let upstream = Upstream::answering(|_| Answer::ok(FOUND)).await;
    let pillion = Pillion::route("upstash-vector", &upstream, &[]).await;
    assert_eq!(search(&pillion, 1).await, 200);
    advance(Duration::from_secs(31)).await;
    assert_eq!(search(&pillion, 2).await, 200);
    assert_eq!(upstream.connections(), 2, "idle for too long");
    for number in 0..9 {
        advance(Duration::from_secs(29)).await;
        assert_eq!(search(&pillion, 10 + number).await, 200);
    }
    assert_eq!(upstream.connections(), 2, "no connection ends before four minutes and a half");
    for number in 0..3 {
        advance(Duration::from_secs(29)).await;
        assert_eq!(search(&pillion, 20 + number).await, 200);
    }
    assert_eq!(upstream.connections(), 3, "used for more than five minutes and a half");
}

#[tokio::test]
async fn keep_alive_is_obeyed() {
    // What the upstream says, how long the connection is still used, and after how long no more; in seconds.
    for (says, used, unused) in [("timeout=5, max=100", 3.9, 4.1), ("timeout=70", 68.0, 69.5)] {
        let upstream = Upstream::answering(move |_| Answer::with(200, &[("keep-alive", says)], FOUND)).await;
        let pillion = Pillion::route("upstash-vector", &upstream, &[]).await;
        assert_eq!(search(&pillion, 1).await, 200);
        advance(Duration::from_secs_f64(used)).await;
        assert_eq!(search(&pillion, 2).await, 200);
        assert_eq!(upstream.connections(), 1, "{says}");
        // An answer that does not say it changes nothing.
        upstream.push(Answer::ok(FOUND));
        assert_eq!(search(&pillion, 3).await, 200);
        advance(Duration::from_secs_f64(unused)).await;
        assert_eq!(search(&pillion, 4).await, 200);
        assert_eq!(upstream.connections(), 2, "{says}");
    }
}

#[tokio::test]
async fn an_upstream_that_keeps_connections_for_less_than_we_do_is_learnt_about() {
    let upstream = Upstream::answering(|_| Answer::ok(FOUND)).await;
    let pillion = Pillion::route("upstash-vector", &upstream, &[]).await;
    let gate = Gate::new();
    upstream.push(Answer::ok(FOUND).then(Step::Wait(gate.clone())).then(Step::Close));
    assert_eq!(search(&pillion, 1).await, 200);
    advance(Duration::from_secs(10)).await;
    gate.open();
    // Its end is seen before the next request, or under it.
    tokio::task::yield_now().await;
    assert_eq!(search(&pillion, 2).await, 200);
    // A second earlier than it was ended.
    advance(Duration::from_millis(8900)).await;
    assert_eq!(search(&pillion, 3).await, 200);
    assert_eq!(upstream.connections(), 2);
    advance(Duration::from_millis(9500)).await;
    assert_eq!(search(&pillion, 4).await, 200);
    assert_eq!(upstream.connections(), 3);
    // What was learnt wears off.
    for number in 5..9 {
        advance(Duration::from_secs(60)).await;
        assert_eq!(search(&pillion, number).await, 200);
    }
    let before = upstream.connections();
    advance(Duration::from_secs(29)).await;
    assert_eq!(search(&pillion, 9).await, 200);
    assert_eq!(upstream.connections(), before);
}

/// What ended before the upstream said a word is told from what broke in its words, and from a new connection's end.
#[tokio::test]
async fn the_end_of_a_reused_connection_is_told_apart() {
    let answer = || Answer::ok(FOUND);
    for (what, last, phase) in [
        ("closed", Answer::close(), Phase::Reused),
        ("reset", Answer::reset(), Phase::Reused),
        ("closed after a byte", answer().cut_with(1, Step::Close), Phase::Sent),
        ("closed in the head", answer().cut_with(20, Step::Close), Phase::Sent),
        (
            "closed after another head",
            Answer::raw("HTTP/1.1 103 Early Hints\r\n\r\n").then(Step::Close),
            Phase::Sent,
        ),
        ("not HTTP", Answer::raw("no").then(Step::Close), Phase::Sent),
    ] {
        let upstream = Upstream::start().await;
        let direct = Direct::new(&upstream.addr.to_string(), Resolver::system(), 0);
        upstream.push(answer());
        upstream.push(last);
        assert_eq!(direct.get().await, FOUND);
        assert_eq!(direct.phase(false).await, Some(phase), "{what}");
        assert_eq!((upstream.count(), upstream.connections()), (2, 1), "{what}");
    }
    for end in [Answer::close, Answer::reset] {
        let upstream = Upstream::start().await;
        let direct = Direct::new(&upstream.addr.to_string(), Resolver::system(), 0);
        upstream.push(end());
        assert_eq!(direct.phase(false).await, Some(Phase::Sent));
        upstream.push(answer());
        assert_eq!(direct.get().await, FOUND);
        // There is one that could be used, and it is not.
        upstream.push(end());
        assert_eq!(direct.phase(true).await, Some(Phase::Sent));
        assert_eq!(upstream.connections(), 3);
    }
}

#[tokio::test]
async fn connection_close_is_obeyed() {
    let upstream = Upstream::answering(|_| Answer::with(200, &[("connection", "close")], FOUND)).await;
    let pillion = Pillion::route("upstash-vector", &upstream, &[]).await;
    for number in 0..3 {
        assert_eq!(search(&pillion, number).await, 200);
        upstream.closed(number).await;
    }
    assert_eq!(upstream.connections(), 3);
}

#[tokio::test]
async fn an_answer_before_the_end_of_the_request_ends_the_connection() {
    let upstream = Upstream::start().await;
    let pillion = Pillion::route("http", &upstream, &["limits: {replay_body: 1KiB}"]).await;
    let mut client = pillion.connect().await;
    client.send("POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 100000\r\n\r\n").await;
    client.send("a".repeat(50_000)).await;
    // The scripted upstream answers complete requests only; here the client leaves, and nothing may be reused.
    upstream.accepted(1).await;
    drop(client);
    upstream.closed(0).await;
    assert_eq!(upstream.count(), 0);
    let begun = String::from_utf8_lossy(&upstream.partial(0)).into_owned();
    assert!(begun.starts_with("POST / HTTP/1.1\r\n"), "{}", &begun[..begun.len().min(100)]);
    upstream.push(Answer::ok("next"));
    assert_eq!(pillion.get("/next").await.text(), "next");
    assert_eq!(upstream.connections(), 2);
}

/// It answers early, keeps the connection, and never reads the rest: a second later it is let go with what was left.
#[tokio::test]
async fn a_connection_whose_request_is_never_read_is_not_kept() {
    const LENGTH: usize = 30 << 20;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let yaml = "routes: [{name: r, path: /, upstream: '${UP}', preset: http}]";
    let url = format!("http://{}", listener.local_addr().unwrap());
    let pillion = Pillion::start(yaml, &[("UP", &url)]).await;
    let mut client = pillion.connect().await;
    client.send(format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {LENGTH}\r\n\r\n")).await;
    client.send("x".repeat(LENGTH)).await;
    let (mut stuck, _) = within("a connection", listener.accept()).await.unwrap();
    within("the content", stuck.readable()).await.unwrap();
    stuck.write_all(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n").await.unwrap();
    assert_eq!(client.response().await.status, 403);
    pillion.metric_is("pillion_in_flight", &[], 0.0).await;
    advance(Duration::from_millis(1100)).await;
    // What was on its way by then.
    let (mut read, mut part) = (0, vec![0; 1 << 16]);
    while let Ok(more @ 1..) = within("the end", stuck.read(&mut part)).await {
        read += more;
    }
    assert!(read < LENGTH, "all of it came");
}
