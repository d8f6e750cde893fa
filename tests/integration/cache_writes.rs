//! A write forgets what it may have changed, however it is spelled and however it ends.

use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::time::Duration;

use crate::support::{Answer, Gate, Pillion, Upstream, advance};

/// Searches get answers that are all different, everything else an empty success.
async fn store() -> Upstream {
    let count = AtomicU32::new(0);
    Upstream::answering(move |seen| {
        if seen.method == "POST" && seen.target.contains("query") && !seen.target.contains("query-") {
            return Answer::ok(format!(r#"{{"result":[{}]}}"#, count.fetch_add(1, SeqCst)));
        }
        Answer::ok(r#"{"result":"Success"}"#)
    })
    .await
}

type Make = fn() -> Answer;

const SETTLE: &str = "pillion; fwd=bypass; detail=settle";
const STORED: &str = "pillion; fwd=miss; stored";
const AT_REST: &[&str] = &["cache: {settle: 0s}", "retry: {enabled: false}"];

/// Whether what was stored for these searches is still hit.
async fn hits<const N: usize>(pillion: &Pillion, searches: [&str; N]) -> [bool; N] {
    let mut hits = [false; N];
    for (hit, search) in hits.iter_mut().zip(searches) {
        *hit = pillion.post(search, "{}").await.is_hit();
    }
    hits
}

/// Three at rest. Fences are hashed with a random key, so that one write in some thousand drops a bystander as well,
/// but not in the same place twice: kept is what any of the three keeps.
async fn three(preset: &str) -> Vec<(Upstream, Pillion)> {
    let mut three = Vec::new();
    for _ in 0..3 {
        let upstream = store().await;
        let pillion = Pillion::route(preset, &upstream, AT_REST).await;
        three.push((upstream, pillion));
    }
    three
}

/// What of these searches a write leaves stored.
async fn kept<const N: usize>(
    three: &[(Upstream, Pillion)],
    searches: [&str; N],
    write: impl AsyncFn(&Upstream, &Pillion),
) -> [bool; N] {
    let mut kept = [false; N];
    for (upstream, pillion) in three {
        hits(pillion, searches).await;
        assert_eq!(hits(pillion, searches).await, [true; N], "all is stored before the write");
        write(upstream, pillion).await;
        for (kept, hit) in kept.iter_mut().zip(hits(pillion, searches).await) {
            *kept |= hit;
        }
        assert_eq!(
            hits(pillion, searches).await,
            [true; N],
            "what was asked after the write is stored again"
        );
    }
    kept
}

const UPSTASH: [&str; 3] = ["/query/one", "/query/two", "/query"];
/// Of the namespace `one`, of `two`, of the default one.
const ONE: [bool; 3] = [false, true, true];
const DEFAULT: [bool; 3] = [true, true, false];
const NONE: [bool; 3] = [true, true, true];
/// Of a collection, whatever database the path names: the server finds it by its UUID alone.
const RECORDS: [bool; 3] = [false, true, false];
const ALL: [bool; 3] = [false, false, false];

#[tokio::test]
async fn every_write_of_upstash_forgets_its_namespace_and_no_other() {
    let three = three("upstash-vector").await;
    for (method, target, expected) in [
        ("POST", "/upsert/one", ONE),
        ("PUT", "/upsert/one", ONE),
        ("GET", "/upsert/one", ONE),
        ("POST", "/upsert-data/one", ONE),
        ("POST", "/update/one", ONE),
        ("POST", "/delete/one", ONE),
        ("DELETE", "/delete/one", ONE),
        ("POST", "/reset/one", ONE),
        ("GET", "/reset/one", ONE),
        ("DELETE", "/delete-namespace/one", ONE),
        ("POST", "/upsert", DEFAULT),
        ("POST", "/upsert/", DEFAULT),
        ("POST", "/update", DEFAULT),
        ("POST", "/delete", DEFAULT),
        ("POST", "/reset", DEFAULT),
        ("POST", "//upsert/one", ONE),
        ("POST", "//upsert//one//", ONE),
        ("POST", "/%75psert/one", ONE),
        ("POST", "/upser%74/%6Fne", ONE),
        ("POST", "/reset?all", ALL),
        ("DELETE", "/reset?x=1&all=true", ALL),
        ("POST", "/rename-namespace", ALL),
        ("POST", "/unknown", ALL),
        ("PATCH", "/upserts/one", ALL),
        ("DELETE", "/query/one", ALL),
        ("POST", "/UPSERT/one", ALL),
        ("POST", "/", ALL),
        ("BREW", "/query/one", ALL),
        ("GET", "/unknown", ALL),
        ("GET", "/upsert%2Fone", ALL),
        ("POST", "/reset?%61ll", ALL),
        ("POST", "/reset/two?all", ALL),
        ("POST", "/info", NONE),
        ("POST", "/fetch/one", NONE),
        ("POST", "/range/one", NONE),
        ("GET", "/query/one?x", NONE),
    ] {
        let left = kept(&three, UPSTASH, async |_, pillion| {
            let written = pillion.connect().await.exchange(method, target, &[], "{}").await;
            assert_eq!(written.status, 200, "{method} {target}");
        })
        .await;
        assert_eq!(left, expected, "{method} {target}");
    }
}

#[tokio::test]
async fn every_write_of_chroma_forgets_what_it_may_have_changed() {
    let three = three("chroma-v2").await;
    let searches = ["d/collections/c1", "d/collections/c2", "e/collections/c1"]
        .map(|collection| format!("/api/v2/tenants/t/databases/{collection}/query"));
    let searches = searches.each_ref().map(String::as_str);
    for (method, target, expected) in [
        ("POST", "tenants/t/databases/d/collections/c1/add", RECORDS),
        ("POST", "tenants/t/databases/d/collections/c1/upsert", RECORDS),
        ("POST", "tenants/t/databases/d/collections/c1/update", RECORDS),
        ("POST", "tenants/t/databases/d/collections/c1/delete", RECORDS),
        ("PUT", "tenants/t/databases/d/collections/c1/add", RECORDS),
        ("POST", "tenants/t//databases/d/collections/c1/add/", RECORDS),
        ("POST", "%74enants/t/databases/d/collections/c%31/%61dd", RECORDS),
        ("PUT", "tenants/t/databases/d/collections/c1", ALL),
        ("DELETE", "tenants/t/databases/d/collections/by-name", ALL),
        ("POST", "tenants/t/databases/d/collections/c1/fork", ALL),
        ("DELETE", "tenants/t/databases/d", ALL),
        ("POST", "tenants/t/databases/other/collections/c1/upsert", RECORDS),
        ("POST", "tenants/t/databases/d/collections/urn:uuid:C1/upsert", RECORDS),
        ("POST", "reset", ALL),
        ("PATCH", "tenants/t", ALL),
        ("POST", "tenants/t/databases/d/collections/c1/unknown", ALL),
        ("DELETE", "tenants/t/databases/d/collections/c1/query", ALL),
        ("POST", "tenants/t/databases/d/collections", NONE),
        ("POST", "tenants/t/databases", NONE),
        ("GET", "tenants/t/databases/d/collections/c1/count", NONE),
        ("POST", "tenants/t/databases/d/collections/c1/get", NONE),
    ] {
        let left = kept(&three, searches, async |_, pillion| {
            let target = format!("/api/v2/{target}");
            let written = pillion.connect().await.exchange(method, &target, &[], "{}").await;
            assert_eq!(written.status, 200, "{method} {target}");
        })
        .await;
        assert_eq!(left, expected, "{method} {target}");
    }
}

#[tokio::test]
async fn a_write_that_fails_forgets_all_the_same() {
    let three = three("upstash-vector").await;
    let cases: [(&str, Make, u16); 7] = [
        ("refused", || Answer::status(400, "{}"), 400),
        ("failed", || Answer::status(500, "{}"), 500),
        ("shed", || Answer::status(503, "{}"), 503),
        ("reset", Answer::reset, 502),
        ("closed", Answer::close, 502),
        ("cut", || Answer::ok(r#"{"result":"Success"}"#).cut(60), 502),
        ("nonsense", || Answer::raw("nonsense\r\n\r\n"), 502),
    ];
    for (what, answer, status) in cases {
        let left = kept(&three, UPSTASH, async |upstream, pillion| {
            upstream.push(answer());
            assert_eq!(pillion.post("/upsert/one", "{}").await.status, status, "{what}");
            if status >= 500 {
                // Whether it was applied is unknown, and whether it still will be: nothing is stored for a while.
                let during = pillion.post("/query/one", "{}").await;
                assert_eq!(during.cache(), SETTLE, "{what}");
                advance(Duration::from_secs(61)).await;
            }
        })
        .await;
        assert_eq!(left, ONE, "{what}");
    }
}

/// What stands before a store may have stopped waiting for it, and an attempt that broke may be on its way still.
#[tokio::test]
async fn any_attempt_whose_outcome_is_unknown_counts_unless_a_later_one_succeeded() {
    for (first, last, status, told) in [
        (Answer::reset(), Answer::status(400, "{}"), 400, SETTLE),
        (Answer::status(504, "{}"), Answer::status(429, "{}"), 429, SETTLE),
        (Answer::status(503, "{}"), Answer::status(499, "{}"), 499, SETTLE),
        (Answer::status(429, "{}"), Answer::status(408, "{}"), 408, SETTLE),
        (Answer::status(429, "{}"), Answer::status(400, "{}"), 400, STORED),
        (Answer::status(429, "{}"), Answer::status(501, "{}"), 501, STORED),
        (Answer::reset(), Answer::ok("{}"), 200, STORED),
        (Answer::reset(), Answer::status(202, "{}"), 202, SETTLE),
    ] {
        let upstream = store().await;
        let more = ["cache: {settle: 0s}", "retry: {base: 0ms, attempts: 2}"];
        let pillion = Pillion::route("upstash-vector", &upstream, &more).await;
        upstream.push(first);
        upstream.push(last);
        assert_eq!(pillion.post("/upsert/one", "{}").await.status, status);
        assert_eq!(upstream.count(), 2);
        assert_eq!(pillion.post("/query/one", "{}").await.cache(), told, "{status}");
    }
}

#[tokio::test]
async fn a_write_that_is_never_answered_forgets_all_the_same() {
    let three = three("upstash-vector").await;
    let left = kept(&three, UPSTASH, async |upstream, pillion| {
        upstream.push(Answer::hang());
        let before = upstream.count();
        let mut client = pillion.connect().await;
        client.ask("POST", "/upsert/one", &[], "{}").await;
        upstream.seen(before + 1).await;
        advance(Duration::from_secs(31)).await;
        assert_eq!(client.response().await.status, 504);
        advance(Duration::from_secs(61)).await;
    })
    .await;
    assert_eq!(left, ONE);
}

#[tokio::test]
async fn a_write_that_cannot_be_sent_forgets_all_the_same() {
    let upstream = store().await;
    let pillion = Pillion::route("upstash-vector", &upstream, AT_REST).await;
    assert_eq!(hits(&pillion, UPSTASH).await, ALL);
    assert_eq!(hits(&pillion, UPSTASH).await, NONE);
    drop(upstream);
    assert_eq!(pillion.post("/upsert/one", "{}").await.status, 502);
    assert_eq!(pillion.post("/query/one", "{}").await.status, 502, "no hit");
}

#[tokio::test]
async fn a_write_whose_client_leaves_is_seen_to_its_end() {
    let (upstream, gate) = (store().await, Gate::new());
    let pillion = Pillion::route("upstash-vector", &upstream, AT_REST).await;
    assert_eq!(hits(&pillion, UPSTASH).await, ALL);
    upstream.push(Answer::ok(r#"{"result":"Success"}"#).held(&gate));
    let mut client = pillion.connect().await;
    client.ask("POST", "/upsert/one", &[], r#"{"id":"a"}"#).await;
    let write = upstream.seen(4).await.remove(3);
    let labels = [("route", "r"), ("operation", "write")];
    pillion.metric_is("pillion_in_flight", &labels, 1.0).await;
    drop(client);
    pillion.metric_is("pillion_client_gone_total", &labels, 1.0).await;
    // Under way still: what is asked meanwhile is answered and not stored.
    for _ in 0..2 {
        let during = pillion.post("/query/one", "{}").await;
        assert_eq!(during.cache(), "pillion; fwd=bypass; detail=settle");
    }
    gate.open();
    crate::support::eventually("the end of the write", async || {
        pillion.post("/query/one", r#"{"topK":2}"#).await.cache().ends_with("stored")
    })
    .await;
    assert!(!upstream.is_closed(write.connection), "its answer was waited for");
    assert!(!pillion.post("/query/one", "{}").await.is_hit());
}

#[tokio::test]
async fn a_write_too_large_to_hold_forgets_the_whole_route() {
    let upstream = store().await;
    let more = ["cache: {settle: 0s}", "limits: {replay_body: 1KiB}"];
    let pillion = Pillion::route("upstash-vector", &upstream, &more).await;
    assert_eq!(hits(&pillion, UPSTASH).await, ALL);
    assert_eq!(hits(&pillion, UPSTASH).await, NONE);
    let large = format!(r#"{{"id":"a","data":"{}"}}"#, "x".repeat(5000));
    assert_eq!(pillion.post("/upsert/one", &large).await.status, 200);
    assert_eq!(upstream.last().text(), large);
    assert_eq!(hits(&pillion, UPSTASH).await, ALL);
    assert_eq!(hits(&pillion, UPSTASH).await, NONE);
}

#[tokio::test]
async fn a_write_through_one_route_forgets_what_another_stored_of_the_same_store() {
    let upstream = store().await;
    let yaml = "
defaults: {retry: {enabled: false}}
routes:
  - {name: a, path: /a, upstream: '${UP}', preset: upstash-vector, cache: {settle: 0s}}
  - {name: b, path: /b, upstream: '${UP}', preset: upstash-vector, cache: {settle: 0s}}
  - {name: c, path: /c, upstream: '${UP}', preset: http}
  - {name: d, path: /d, upstream: '${UP}/base', preset: upstash-vector, cache: {settle: 0s}}
";
    let pillion = Pillion::start(yaml, &[("UP", &upstream.url())]).await;
    let searches = ["/a/query/one", "/a/query/two", "/d/query/one"];
    for write in ["/b/upsert/one", "/d/upsert/one", "/c/upsert/one", "/c/whatever"] {
        hits(&pillion, searches).await;
        assert_eq!(hits(&pillion, searches).await, NONE, "{write}");
        assert_eq!(pillion.post(write, "{}").await.status, 200);
        let [one, ..] = hits(&pillion, searches).await;
        assert!(!one, "{write}");
    }
}

#[tokio::test]
async fn a_write_to_another_store_changes_nothing_here() {
    let three = three("upstash-vector").await;
    let two = store().await;
    let left = kept(&three, UPSTASH, async |_, _| {
        let elsewhere = Pillion::route("upstash-vector", &two, AT_REST).await;
        assert_eq!(elsewhere.post("/reset?all", "{}").await.status, 200);
    })
    .await;
    assert_eq!(left, NONE, "another process");

    let one = store().await;
    let yaml = "
routes:
  - {name: a, path: /a, upstream: '${A}', preset: upstash-vector, cache: {settle: 0s}}
  - {name: b, path: /b, upstream: '${B}', preset: upstash-vector, cache: {settle: 0s}}
";
    let mut left = false;
    for _ in 0..3 {
        let pillion = Pillion::start(yaml, &[("A", &one.url()), ("B", &two.url())]).await;
        hits(&pillion, ["/a/query/one"]).await;
        assert_eq!(pillion.post("/b/upsert/one", "{}").await.status, 200);
        assert_eq!(pillion.post("/b/reset?all", "{}").await.status, 200);
        left |= hits(&pillion, ["/a/query/one"]).await[0];
    }
    assert!(left, "another upstream");
}

#[tokio::test]
async fn writes_are_counted_once_each() {
    let upstream = store().await;
    let pillion = Pillion::route("upstash-vector", &upstream, AT_REST).await;
    for path in ["/upsert/one", "/delete/one", "/unknown", "/info", "/query/one"] {
        pillion.post(path, "{}").await;
    }
    pillion.metric_is("pillion_invalidations_total", &[("route", "r")], 3.0).await;
}
