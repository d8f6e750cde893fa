//! A search that was answered before is answered from memory, for as long as that is allowed.

use std::time::Duration;

use crate::support::{Answer, Pillion, Upstream, advance};

const FOUND: &str = "{ \"result\" : [{\"id\":\"a\", \"score\":0.10000000149011612}] }\n";
const CHROMA: &str = "/api/v2/tenants/t/databases/d/collections/c1/query";
const SEARCH: &[(&str, &str)] = &[("route", "r"), ("operation", "search")];

async fn upstash(more: &[&str]) -> (Upstream, Pillion) {
    let upstream = Upstream::answering(|_| Answer::ok(FOUND)).await;
    let pillion = Pillion::route("upstash-vector", &upstream, more).await;
    (upstream, pillion)
}

#[tokio::test]
async fn rfc9211_a_miss_is_stored_and_then_hit_byte_for_byte() {
    for (preset, path) in [("upstash-vector", "/query-data/ns"), ("chroma-v2", CHROMA)] {
        let upstream = Upstream::start().await;
        let pillion = Pillion::route(preset, &upstream, &[]).await;
        let sent =
            [("content-type", "application/json"), ("x-product", "v"), ("date", "then"), ("age", "77")];
        upstream.push(Answer::with(200, &sent, FOUND));
        let miss = pillion.post(path, r#"{"topK":3}"#).await;
        assert_eq!((miss.status, miss.cache()), (200, "pillion; fwd=miss; stored"), "{preset}");
        assert_eq!(miss.header("x-product"), Some("v"));
        for _ in 0..3 {
            let hit = pillion.post(path, r#"{"topK":3}"#).await;
            assert_eq!(hit.status, 200);
            let ttl = hit.ttl().expect("a hit");
            assert!((284..=300).contains(&ttl), "five minutes, less up to a twentieth: {hit:?}");
            assert_eq!(hit.body, FOUND.as_bytes());
            assert!(hit.has_age(0), "its own, not the one that came with it: {hit:?}");
            assert_eq!(hit.header("content-length"), Some(FOUND.len().to_string().as_str()));
            assert_eq!(hit.header("content-type"), Some("application/json"));
            assert_eq!(hit.header("x-product"), Some("v"));
        }
        assert_eq!((upstream.count(), upstream.connections()), (1, 1), "a hit touches no upstream");
    }
}

#[tokio::test]
async fn rfc9111_5_1_age_and_ttl_move_with_the_time_and_end() {
    let (upstream, pillion) = upstash(&["cache: {ttl: 40s}"]).await;
    assert_eq!(pillion.post("/query", "{}").await.cache(), "pillion; fwd=miss; stored");
    advance(Duration::from_secs(20)).await;
    let hit = pillion.post("/query", "{}").await;
    assert!(hit.has_age(20), "{hit:?}");
    let ttl = hit.ttl().unwrap();
    assert!((10..=19).contains(&ttl), "{hit:?}");
    // A hit does not make it younger.
    advance(Duration::from_secs(ttl - 3)).await;
    let hit = pillion.post("/query", "{}").await;
    assert!(hit.has_age(20 + ttl - 3), "{hit:?}");
    assert!(hit.ttl() <= Some(3), "{hit:?}");
    advance(Duration::from_secs(4)).await;
    let miss = pillion.post("/query", "{}").await;
    assert_eq!((miss.cache(), miss.header("age")), ("pillion; fwd=miss; stored", None));
    assert_eq!(upstream.count(), 2);
}

#[tokio::test]
async fn the_default_lifetime_is_five_minutes() {
    let (upstream, pillion) = upstash(&[]).await;
    pillion.post("/query", "{}").await;
    advance(Duration::from_secs(284)).await;
    assert!(pillion.post("/query", "{}").await.is_hit());
    advance(Duration::from_secs(16)).await;
    assert!(!pillion.post("/query", "{}").await.is_hit());
    assert_eq!(upstream.count(), 2);
}

#[tokio::test]
async fn rfc9111_5_2_1_the_clients_no_cache_is_not_obeyed() {
    // @upstash/vector for Node sends both with every call.
    let (upstream, pillion) = upstash(&[]).await;
    let sent = [("cache-control", "no-cache, no-store, max-age=0"), ("pragma", "no-cache")];
    assert_eq!(pillion.post_with("/query", &sent, "{}").await.cache(), "pillion; fwd=miss; stored");
    assert_eq!(upstream.last().header("cache-control"), Some("no-cache, no-store, max-age=0"), "forwarded");
    assert!(pillion.post_with("/query", &sent, "{}").await.is_hit());
    assert!(pillion.post("/query", "{}").await.is_hit(), "nor is it part of the key");
}

#[tokio::test]
async fn a_request_may_bypass_or_refresh() {
    let upstream = Upstream::start().await;
    let pillion = Pillion::route("upstash-vector", &upstream, &[]).await;
    let answer = |n: u32| Answer::ok(format!(r#"{{"result":[{n}]}}"#));
    let result = |answer: &crate::support::Response| answer.json()["result"][0].as_u64().unwrap();
    upstream.push(answer(1));
    assert_eq!(pillion.post("/query", "{}").await.cache(), "pillion; fwd=miss; stored");

    upstream.push(answer(2));
    let bypass = pillion.post_with("/query", &[("pillion-cache", "bypass")], "{}").await;
    assert_eq!((bypass.cache(), result(&bypass)), ("pillion; fwd=request; detail=pillion-cache", 2));
    assert_eq!(result(&pillion.post("/query", "{}").await), 1, "a bypass changes nothing that is stored");

    upstream.push(answer(3));
    let refresh = pillion.post_with("/query", &[("pillion-cache", "refresh")], "{}").await;
    assert_eq!((refresh.cache(), result(&refresh)), ("pillion; fwd=miss; stored", 3));
    let hit = pillion.post("/query", "{}").await;
    assert!(hit.is_hit() && result(&hit) == 3, "{hit:?}");

    upstream.push(Answer::status(500, "{}"));
    let failed =
        pillion.post_with("/query", &[("pillion-cache", "refresh"), ("pillion-retry", "off")], "{}").await;
    assert_eq!(failed.status, 500);
    assert!(pillion.post("/query", "{}").await.is_hit(), "a refresh that fails leaves what is stored");
}

#[tokio::test]
async fn a_bypass_is_not_stored() {
    let (upstream, pillion) = upstash(&[]).await;
    for n in 1..=2 {
        let answer = pillion.post_with("/query", &[("pillion-cache", "BYPASS")], "{}").await;
        assert!(!answer.is_hit());
        assert_eq!(upstream.count(), n);
    }
    assert_eq!(pillion.post("/query", "{}").await.cache(), "pillion; fwd=miss; stored");
}

#[tokio::test]
async fn what_is_switched_off_is_off() {
    for more in ["cache: {enabled: false}", "preset: http"] {
        let upstream = Upstream::answering(|_| Answer::ok(FOUND)).await;
        let preset = if more.starts_with("preset") { "http" } else { "upstash-vector" };
        let more = if preset == "http" { &[][..] } else { &[more][..] };
        let pillion = Pillion::route(preset, &upstream, more).await;
        for n in 1..=2 {
            let answer = pillion.post("/query", "{}").await;
            assert!(!answer.is_hit(), "{answer:?}");
            assert_eq!(upstream.count(), n);
        }
    }
}

#[tokio::test]
async fn requests_that_say_more_than_their_content_are_forwarded() {
    let (upstream, pillion) = upstash(&[]).await;
    pillion.post("/query", "{}").await;
    for (n, header) in
        [("range", "bytes=0-1"), ("content-encoding", "gzip"), ("if-none-match", "\"a\""), ("if-match", "*")]
            .into_iter()
            .enumerate()
    {
        let answer = pillion.post_with("/query", &[header], "{}").await;
        assert_eq!(answer.cache(), "pillion; fwd=bypass; detail=encoded", "{header:?}");
        assert_eq!(upstream.count(), n + 2);
        assert_eq!(upstream.last().header(header.0), Some(header.1));
    }
    assert_eq!(pillion.metric("pillion_cache_entries", &[]).await, 1.0);
}

#[tokio::test]
async fn reads_that_are_not_worth_storing_are_forwarded() {
    let (upstream, pillion) = upstash(&[]).await;
    for path in
        ["/fetch/ns", "/range", "/random", "/info", "/list-namespaces", "/resumable-query", "/query/../x"]
    {
        for _ in 0..2 {
            let answer = pillion.post(path, "{}").await;
            assert!(!answer.is_hit() && !answer.cache().contains("stored"), "{path}: {answer:?}");
        }
    }
    assert_eq!(upstream.count(), 12);
    assert_eq!(pillion.metric("pillion_cache_entries", &[]).await, 0.0);
}

#[tokio::test]
async fn eviction_keeps_the_bytes_within_the_budget() {
    let upstream =
        Upstream::answering(|_| Answer::ok(format!(r#"{{"result":[{{"id":"{}"}}]}}"#, "x".repeat(4000))))
            .await;
    let yaml = "
memory: {cache: 64KiB}
routes: [{name: r, path: /, upstream: '${UP}', preset: upstash-vector}]";
    let pillion = Pillion::start(yaml, &[("UP", &upstream.url())]).await;
    let mut client = pillion.connect().await;
    for n in 0..200 {
        let answer = client.exchange("POST", "/query", &[], format!(r#"{{"topK":{n}}}"#)).await;
        assert_eq!(answer.status, 200);
        if n % 20 == 0 {
            let bytes = pillion.metric("pillion_cache_bytes", &[]).await;
            assert!(bytes <= 65536.0, "{bytes}");
        }
    }
    let entries = pillion.metric("pillion_cache_entries", &[]).await;
    assert!((5.0..=14.0).contains(&entries), "{entries}");
    let bytes = pillion.metric("pillion_cache_bytes", &[]).await;
    assert!((30_000.0..=65_536.0).contains(&bytes), "{bytes}");
}

#[tokio::test]
async fn hits_and_misses_are_counted() {
    let (_upstream, pillion) = upstash(&[]).await;
    for _ in 0..5 {
        pillion.post("/query", "{}").await;
    }
    pillion.post_with("/query", &[("pillion-cache", "bypass")], "{}").await;
    for (result, count) in [("hit", 4.0), ("miss", 1.0), ("bypass", 1.0), ("collapsed", 0.0)] {
        let labels = [SEARCH, &[("result", result)]].concat();
        pillion.metric_is("pillion_cache_results_total", &labels, count).await;
    }
    assert_eq!(pillion.metric("pillion_upstream_attempts_total", SEARCH).await, 2.0);
    let summary = pillion.admin_get("/summary").await.json();
    assert_eq!(summary["metrics"]["cache_hit_rate"], 0.8);
}
