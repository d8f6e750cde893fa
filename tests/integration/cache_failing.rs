//! `cache.stale_if_error`: what is stored answers while the upstream fails (RFC 5861 section 4).

use std::time::Duration;

use crate::support::{Answer, Gate, Pillion, Response, Upstream, advance};

const FOUND: &str = r#"{"result":[{"id":"a"}]}"#;
const BUSY: &str = r#"{"error":"busy"}"#;
const SEARCHES: &[(&str, &str)] = &[("route", "r"), ("operation", "search")];
const UNTOLD: &str = "pillion; fwd=stale; detail=stale-if-error";

/// Forty seconds fresh, a minute more while the upstream fails; one answer stored, and no longer fresh.
async fn expired(more: &[&str]) -> (Upstream, Pillion) {
    let upstream = Upstream::start().await;
    let lines = [&["cache: {ttl: 40s, stale_if_error: 1m, settle: 0s}"], more].concat();
    let pillion = Pillion::route("upstash-vector", &upstream, &lines).await;
    upstream.push(Answer::with(200, &[("content-type", "application/json"), ("x-product", "v")], FOUND));
    assert_eq!(pillion.post("/query", "{}").await.cache(), "pillion; fwd=miss; stored");
    advance(Duration::from_secs(41)).await;
    (upstream, pillion)
}

fn is_stored(answer: &Response) {
    assert_eq!((answer.status, answer.text().as_str()), (200, FOUND), "{answer:?}");
    assert_eq!(answer.header("x-product"), Some("v"));
    assert_eq!(answer.header("x-should-retry"), None, "nothing has failed that a client should know of");
}

#[tokio::test]
async fn rfc5861_4_an_upstreams_5xx_is_answered_from_what_is_stored() {
    let (upstream, pillion) = expired(&["retry: {enabled: false}"]).await;
    for (n, status) in [500, 502, 503, 504, 529].into_iter().enumerate() {
        upstream.push(Answer::status(status, BUSY));
        let answer = pillion.post("/query", "{}").await;
        is_stored(&answer);
        let told = format!("pillion; fwd=stale; fwd-status={status}; detail=stale-if-error");
        assert_eq!(answer.cache(), told);
        assert!(answer.has_age(41), "{answer:?}");
        assert!(answer.header("server-timing").unwrap().contains("cache;desc=stale"), "{answer:?}");
        assert_eq!(upstream.count(), n + 2, "the upstream is asked each time");
    }
    pillion.metric_is("pillion_cache_results_total", &[&[("result", "stale")], SEARCHES].concat(), 5.0).await;
    assert_eq!(pillion.metric("pillion_requests_total", &[("status", "5xx")]).await, 0.0);
}

#[tokio::test]
async fn only_after_all_attempts() {
    let (upstream, pillion) = expired(&["retry: {base: 0ms, attempts: 3}"]).await;
    for _ in 0..3 {
        upstream.push(Answer::status(503, BUSY));
    }
    is_stored(&pillion.post("/query", "{}").await);
    assert_eq!(upstream.count(), 4);
    upstream.push(Answer::status(503, BUSY));
    upstream.push(Answer::ok(r#"{"result":["new"]}"#));
    let answer = pillion.post("/query", "{}").await;
    assert_eq!(
        (answer.text().as_str(), answer.cache()),
        (r#"{"result":["new"]}"#, "pillion; fwd=miss; stored")
    );
    let hit = pillion.post("/query", "{}").await;
    assert!(hit.is_hit() && hit.text() == r#"{"result":["new"]}"#, "the new answer has replaced the old one");
}

#[tokio::test]
async fn an_upstream_that_does_not_answer_has_failed_too() {
    let (upstream, pillion) = expired(&["retry: {enabled: false}", "timeouts: {first_byte: 50ms}"]).await;
    let whole = Answer::ok(FOUND).len();
    for (what, answer) in [
        ("reset", Answer::reset()),
        ("closed", Answer::close()),
        ("cut", Answer::ok(FOUND).cut(whole - 1)),
        ("no HTTP", Answer::raw("nonsense\r\n\r\n").then(crate::support::Step::Close)),
        ("silent", Answer::hang()),
    ] {
        upstream.push(answer);
        let answer = pillion.post("/query", "{}").await;
        is_stored(&answer);
        assert_eq!(answer.cache(), UNTOLD, "{what}");
    }
    drop(upstream);
    let answer = pillion.post("/query", "{}").await;
    is_stored(&answer);
    assert_eq!(answer.cache(), UNTOLD, "nobody there");
}

#[tokio::test]
async fn an_answer_that_is_no_failure_stands() {
    let (upstream, pillion) = expired(&["retry: {enabled: false}"]).await;
    for status in [400, 401, 404, 429] {
        upstream.push(Answer::status(status, BUSY));
        let answer = pillion.post("/query", "{}").await;
        assert_eq!((answer.status, answer.cache()), (status, "pillion; fwd=miss"));
    }
    // Other questions have nothing stored.
    upstream.push(Answer::status(503, BUSY));
    assert_eq!(pillion.post("/query", r#"{"topK":2}"#).await.status, 503);
    // Who wants the upstream's answer gets it.
    for ask in ["refresh", "bypass"] {
        upstream.push(Answer::status(503, BUSY));
        assert_eq!(pillion.post_with("/query", &[("pillion-cache", ask)], "{}").await.status, 503, "{ask}");
    }
}

#[tokio::test]
async fn it_ends_after_its_time() {
    let (upstream, pillion) = expired(&["retry: {enabled: false}"]).await;
    advance(Duration::from_secs(55)).await;
    upstream.push(Answer::status(503, BUSY));
    let answer = pillion.post("/query", "{}").await;
    is_stored(&answer);
    assert!(answer.has_age(96), "{answer:?}");
    advance(Duration::from_secs(5)).await;
    upstream.push(Answer::status(503, BUSY));
    let answer = pillion.post("/query", "{}").await;
    assert_eq!((answer.status, answer.text().as_str()), (503, BUSY));
    assert_eq!(pillion.metric("pillion_cache_entries", &[]).await, 0.0, "removed when it was asked for");
}

#[tokio::test]
async fn off_is_the_default() {
    let upstream = Upstream::start().await;
    let lines = ["cache: {ttl: 40s}", "retry: {enabled: false}"];
    let pillion = Pillion::route("upstash-vector", &upstream, &lines).await;
    upstream.push(Answer::ok(FOUND));
    pillion.post("/query", "{}").await;
    advance(Duration::from_secs(41)).await;
    upstream.push(Answer::status(503, BUSY));
    let answer = pillion.post("/query", "{}").await;
    assert_eq!((answer.status, answer.cache()), (503, "pillion; fwd=miss"));
    assert_eq!(pillion.metric("pillion_cache_entries", &[]).await, 0.0);
}

#[tokio::test]
async fn never_across_a_write() {
    // Ended, under way, and begun while the failing search is.
    for when in ["before", "during", "between"] {
        let (upstream, pillion) = expired(&["retry: {enabled: false}"]).await;
        let (writing, searching) = (Gate::new(), Gate::new());
        let mut writer = pillion.connect().await;
        let mut searcher = pillion.connect().await;
        if when == "between" {
            upstream.push(Answer::status(503, BUSY).held(&searching));
            searcher.ask("POST", "/query", &[("content-type", "application/json")], "{}").await;
            upstream.seen(2).await;
        }
        upstream.push(Answer::ok("{}").held(&writing));
        writer.ask("POST", "/upsert", &[], r#"{"id":"a"}"#).await;
        upstream.seen(if when == "between" { 3 } else { 2 }).await;
        if when != "during" {
            writing.open();
            assert_eq!(writer.response().await.status, 200);
        }
        if when != "between" {
            upstream.push(Answer::status(503, BUSY));
            searcher.ask("POST", "/query", &[("content-type", "application/json")], "{}").await;
        }
        searching.open();
        let answer = searcher.response().await;
        assert_eq!((answer.status, answer.text().as_str()), (503, BUSY), "{when}: {}", answer.cache());
        writing.open();
    }
}

#[tokio::test]
async fn those_who_wait_for_a_failure_get_what_is_stored() {
    let (upstream, pillion) = expired(&["retry: {enabled: false}"]).await;
    let gate = Gate::new();
    upstream.push(Answer::status(503, BUSY).held(&gate));
    let mut clients = Vec::new();
    for n in 1..=3 {
        let mut client = pillion.connect().await;
        client.ask("POST", "/query", &[("content-type", "application/json")], "{}").await;
        pillion.metric_is("pillion_in_flight", SEARCHES, f64::from(n)).await;
        clients.push(client);
    }
    gate.open();
    for client in &mut clients {
        is_stored(&client.response().await);
    }
    assert_eq!(upstream.count(), 2);
}
