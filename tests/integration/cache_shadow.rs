//! Whether hits are true: `cache.shadow` and `cache.audit`.

use std::time::Duration;

use crate::support::{Answer, Gate, Pillion, Upstream, advance};

const FOUND: &str = r#"{"result":[{"id":"a"}]}"#;
const OTHER: &str = r#"{"result":[{"id":"b"}]}"#;
const SHADOW: &[&str] = &["cache: {ttl: 40s, shadow: true, settle: 0s}", "retry: {enabled: false}"];
const AUDIT: &[&str] = &["cache: {audit: 100%, settle: 0s}", "retry: {enabled: false}"];

async fn counts(pillion: &Pillion, name: &str, result: &str, count: f64) {
    pillion.metric_is(name, &[("operation", "search"), ("result", result)], count).await;
}

#[tokio::test]
async fn in_shadow_the_upstream_answers_and_the_hit_is_compared() {
    let upstream = Upstream::start().await;
    let pillion = Pillion::route("upstash-vector", &upstream, SHADOW).await;
    for (n, (answer, told)) in [
        (Answer::ok(FOUND), "miss"),
        (Answer::ok(FOUND), "equal"),
        (Answer::ok(OTHER), "different"),
        // What a cache would give is still the first answer.
        (Answer::ok(OTHER), "different"),
        (Answer::ok(r#"{ "result": [{"id": "a"}], "took": 7 }"#), "equal"),
        (Answer::status(503, "{}"), "incomparable"),
        (Answer::with(200, &[("content-encoding", "gzip")], FOUND), "incomparable"),
    ]
    .into_iter()
    .enumerate()
    {
        upstream.push(answer);
        let answer = pillion.post("/query", "{}").await;
        assert_eq!(answer.cache(), format!("pillion; fwd=bypass; detail=shadow-{told}"));
        assert_eq!(upstream.count(), n + 1, "the upstream answers");
        assert_eq!(answer.header("age"), None);
    }
    for (result, count) in
        [("miss", 1.0), ("equal", 2.0), ("different", 2.0), ("overtaken", 0.0), ("incomparable", 2.0)]
    {
        counts(&pillion, "pillion_cache_shadow_total", result, count).await;
    }
    counts(&pillion, "pillion_cache_results_total", "bypass", 7.0).await;
    assert_eq!(pillion.admin_get("/summary").await.json()["metrics"]["cache_hit_rate"], 0.0);
    // It ends as a hit would, and a write drops it.
    advance(Duration::from_secs(41)).await;
    for answer in [Answer::ok(OTHER), Answer::ok("{}"), Answer::ok(OTHER)] {
        upstream.push(answer);
    }
    assert_eq!(pillion.post("/query", "{}").await.cache(), "pillion; fwd=bypass; detail=shadow-miss");
    assert_eq!(pillion.post("/upsert", "{}").await.status, 200);
    assert_eq!(pillion.post("/query", "{}").await.cache(), "pillion; fwd=bypass; detail=shadow-miss");
}

#[tokio::test]
async fn in_shadow_nobody_waits_for_another() {
    let (upstream, gate) = (Upstream::start().await, Gate::new());
    let pillion = Pillion::route("upstash-vector", &upstream, SHADOW).await;
    let mut clients = Vec::new();
    for _ in 0..3 {
        upstream.push(Answer::ok(FOUND).held(&gate));
        let mut client = pillion.connect().await;
        client.ask("POST", "/query", &[], "{}").await;
        clients.push(client);
    }
    upstream.seen(3).await;
    gate.open();
    for client in &mut clients {
        assert_eq!(client.response().await.cache(), "pillion; fwd=bypass; detail=shadow-miss");
    }
}

#[tokio::test]
async fn a_write_in_between_explains_a_difference() {
    for lines in [SHADOW, AUDIT] {
        let (upstream, gate) = (Upstream::start().await, Gate::new());
        let pillion = Pillion::route("upstash-vector", &upstream, lines).await;
        upstream.push(Answer::ok(FOUND));
        pillion.post("/query", "{}").await;
        upstream.push(Answer::ok(OTHER).held(&gate));
        let mut client = pillion.connect().await;
        client.ask("POST", "/query", &[("content-type", "application/json")], "{}").await;
        upstream.seen(2).await;
        upstream.push(Answer::ok("{}"));
        assert_eq!(pillion.post("/upsert", "{}").await.status, 200);
        gate.open();
        let answer = client.response().await;
        if lines == SHADOW {
            assert_eq!(answer.cache(), "pillion; fwd=bypass; detail=shadow-overtaken");
            counts(&pillion, "pillion_cache_shadow_total", "overtaken", 1.0).await;
        } else {
            assert!(answer.is_hit(), "{answer:?}");
            counts(&pillion, "pillion_cache_audits_total", "overtaken", 1.0).await;
            assert_eq!(pillion.metric("pillion_cache_stale_hits_total", &[]).await, 0.0);
        }
    }
}

#[tokio::test]
async fn an_audit_counts_the_hits_that_the_upstream_answers_differently() {
    let upstream = Upstream::start().await;
    let pillion = Pillion::route("upstash-vector", &upstream, AUDIT).await;
    upstream.push(Answer::ok(FOUND));
    pillion.post_with("/query", &[("authorization", "Bearer one")], r#"{"topK":3}"#).await;
    for (n, (answer, result)) in [
        (Answer::ok(FOUND), "equal"),
        (Answer::ok(OTHER), "different"),
        (Answer::status(503, "{}"), "incomparable"),
        (Answer::reset(), "incomparable"),
    ]
    .into_iter()
    .enumerate()
    {
        upstream.push(answer);
        let before = pillion.metric("pillion_cache_audits_total", &[("result", result)]).await;
        let hit = pillion.post_with("/query", &[("authorization", "Bearer one")], r#"{"topK":3}"#).await;
        assert!(hit.is_hit() && hit.text() == FOUND, "{hit:?}");
        assert!(!hit.header("server-timing").unwrap().contains("upstream"), "nobody waits for it: {hit:?}");
        counts(&pillion, "pillion_cache_audits_total", result, before + 1.0).await;
        assert_eq!(upstream.count(), n + 2, "one attempt");
        let seen = upstream.last();
        assert_eq!((seen.target.as_str(), seen.text().as_str()), ("/query", r#"{"topK":3}"#));
        assert_eq!(seen.header("authorization"), Some("Bearer one"));
    }
    assert_eq!(pillion.metric("pillion_cache_stale_hits_total", &[]).await, 1.0);
    assert_eq!(pillion.metric("pillion_buffers_bytes", &[]).await, 0.0);
    counts(&pillion, "pillion_cache_results_total", "hit", 4.0).await;
}

#[tokio::test]
async fn audits_under_way_are_bounded() {
    let (upstream, gate) = (Upstream::start().await, Gate::new());
    let pillion = Pillion::route("upstash-vector", &upstream, AUDIT).await;
    upstream.push(Answer::ok(FOUND));
    pillion.post("/query", "{}").await;
    for _ in 0..10 {
        upstream.push(Answer::ok(FOUND).held(&gate));
    }
    for _ in 0..10 {
        assert!(pillion.post("/query", "{}").await.is_hit());
    }
    upstream.seen(5).await;
    counts(&pillion, "pillion_cache_audits_total", "skipped", 6.0).await;
    gate.open();
    counts(&pillion, "pillion_cache_audits_total", "equal", 4.0).await;
    assert_eq!(upstream.count(), 5);
    assert!(pillion.post("/query", "{}").await.is_hit());
    counts(&pillion, "pillion_cache_audits_total", "equal", 5.0).await;
}

#[tokio::test]
async fn a_share_of_the_hits_is_audited_and_none_where_nothing_is_said() {
    for (share, low, high) in [("25%", 70.0, 130.0), ("0%", 0.0, 0.0)] {
        let upstream = Upstream::answering(|_| Answer::ok(FOUND)).await;
        let cache = format!("cache: {{audit: {share}}}");
        let pillion = Pillion::route("upstash-vector", &upstream, &[&cache]).await;
        // All of this test runs on this thread, whose dice these are.
        fastrand::seed(1);
        let mut client = pillion.connect().await;
        for _ in 0..401 {
            assert_eq!(client.exchange("POST", "/query", &[], "{}").await.text(), FOUND);
        }
        let audits = pillion.metric("pillion_cache_audits_total", &[]).await;
        assert!((low..=high).contains(&audits), "{audits} of 400");
    }
}
