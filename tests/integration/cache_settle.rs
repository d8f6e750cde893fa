//! What a search that meets a write may leave behind: nothing that was read before the write was over.

use std::time::Duration;

use crate::support::{Answer, Gate, Pillion, Upstream, advance};

const SETTLE: &str = "pillion; fwd=bypass; detail=settle";
const STORED: &str = "pillion; fwd=miss; stored";

fn found(n: u32) -> Answer {
    Answer::ok(format!(r#"{{"result":[{n}]}}"#))
}

#[tokio::test]
async fn a_search_answered_after_a_write_that_it_came_before_is_not_stored() {
    let (upstream, gate) = (Upstream::start().await, Gate::new());
    let pillion = Pillion::route("upstash-vector", &upstream, &["cache: {settle: 0s}"]).await;
    upstream.push(found(1).held(&gate));
    upstream.push(Answer::ok(r#"{"result":"Success"}"#));
    upstream.push(found(2));
    let mut early = pillion.connect().await;
    early.ask("POST", "/query/one", &[("content-type", "application/json")], "{}").await;
    upstream.seen(1).await;
    assert_eq!(pillion.post("/upsert/one", "{}").await.status, 200);
    gate.open();
    let early = early.response().await;
    assert_eq!((early.cache(), early.text().as_str()), ("pillion; fwd=miss", r#"{"result":[1]}"#));
    let late = pillion.post("/query/one", "{}").await;
    assert_eq!((late.cache(), late.text().as_str()), (STORED, r#"{"result":[2]}"#));
    pillion.metric_is("pillion_cache_not_stored_total", &[("reason", "write")], 1.0).await;
}

#[tokio::test]
async fn a_search_during_a_write_is_not_stored() {
    let (upstream, gate) = (Upstream::start().await, Gate::new());
    let pillion = Pillion::route("upstash-vector", &upstream, &["cache: {settle: 0s}"]).await;
    upstream.push(Answer::ok(r#"{"result":"Success"}"#).held(&gate));
    upstream.push(found(1));
    upstream.push(found(2));
    let mut write = pillion.connect().await;
    write.ask("POST", "/upsert/one", &[], "{}").await;
    upstream.seen(1).await;
    assert_eq!(pillion.post("/query/one", "{}").await.cache(), SETTLE);
    gate.open();
    assert_eq!(write.response().await.status, 200);
    let after = pillion.post("/query/one", "{}").await;
    assert_eq!((after.cache(), after.text().as_str()), (STORED, r#"{"result":[2]}"#));
}

#[tokio::test]
async fn a_search_begun_during_a_write_and_answered_after_it_is_not_stored() {
    let (upstream, write_gate, read_gate) = (Upstream::start().await, Gate::new(), Gate::new());
    let pillion = Pillion::route("upstash-vector", &upstream, &["cache: {settle: 0s}"]).await;
    upstream.push(Answer::ok(r#"{"result":"Success"}"#).held(&write_gate));
    upstream.push(found(1).held(&read_gate));
    upstream.push(found(2));
    let (mut write, mut read) = (pillion.connect().await, pillion.connect().await);
    write.ask("POST", "/upsert/one", &[], "{}").await;
    upstream.seen(1).await;
    read.ask("POST", "/query/one", &[("content-type", "application/json")], "{}").await;
    upstream.seen(2).await;
    write_gate.open();
    assert_eq!(write.response().await.status, 200);
    read_gate.open();
    assert_eq!(read.response().await.cache(), SETTLE);
    assert_eq!(pillion.post("/query/one", "{}").await.cache(), STORED);
    assert_eq!(upstream.count(), 3);
}

#[tokio::test]
async fn a_hit_is_never_given_while_a_write_is_under_way() {
    let (upstream, gate) = (Upstream::start().await, Gate::new());
    let pillion = Pillion::route("upstash-vector", &upstream, &["cache: {settle: 0s}"]).await;
    upstream.push(found(1));
    assert_eq!(pillion.post("/query/one", "{}").await.cache(), STORED);
    upstream.push(Answer::ok("{}").held(&gate));
    upstream.push(found(2));
    let mut write = pillion.connect().await;
    write.ask("POST", "/upsert/one", &[], "{}").await;
    upstream.seen(2).await;
    assert_eq!(pillion.post("/query/one", "{}").await.text(), r#"{"result":[2]}"#);
    gate.open();
    write.response().await;
}

#[tokio::test]
async fn nothing_is_stored_until_the_store_has_settled() {
    let upstream = Upstream::answering(|_| found(1)).await;
    let pillion = Pillion::route("upstash-vector", &upstream, &[]).await;
    assert_eq!(pillion.post("/query/one", "{}").await.cache(), STORED);
    assert_eq!(pillion.post("/upsert/one", "{}").await.status, 200);
    for _ in 0..3 {
        assert_eq!(pillion.post("/query/one", "{}").await.cache(), SETTLE);
        advance(Duration::from_secs(9)).await;
    }
    // Another write begins the time anew.
    assert_eq!(pillion.post("/upsert/one", "{}").await.status, 200);
    advance(Duration::from_secs(29)).await;
    assert_eq!(pillion.post("/query/one", "{}").await.cache(), SETTLE);
    advance(Duration::from_secs(2)).await;
    assert_eq!(pillion.post("/query/one", "{}").await.cache(), STORED);
    assert!(pillion.post("/query/one", "{}").await.is_hit());
}

#[tokio::test]
async fn what_was_written_before_the_start_has_to_settle_too() {
    let upstream = Upstream::answering(|_| found(1)).await;
    let yaml = "routes: [{name: r, path: /, upstream: '${UP}', preset: upstash-vector}]";
    let pillion = Pillion::start_now(yaml, &[("UP", &upstream.url())]).await;
    assert_eq!(pillion.post("/query/one", "{}").await.cache(), SETTLE);
    advance(Duration::from_secs(31)).await;
    assert_eq!(pillion.post("/query/one", "{}").await.cache(), STORED);
}

#[tokio::test]
async fn a_store_settles_as_long_as_any_route_to_it_says() {
    let upstream = Upstream::answering(|_| found(1)).await;
    let yaml = "
routes:
  - {name: bot, path: /bot, upstream: '${UP}', preset: upstash-vector, cache: {settle: 10s}}
  - {name: job, path: /job, upstream: '${UP}', preset: upstash-vector, cache: {enabled: false, settle: 0s}}
";
    let pillion = Pillion::start(yaml, &[("UP", &upstream.url())]).await;
    assert_eq!(pillion.post("/bot/query/one", "{}").await.cache(), STORED);
    assert_eq!(pillion.post("/job/upsert/one", "{}").await.status, 200);
    assert_eq!(pillion.post("/bot/query/one", "{}").await.cache(), SETTLE);
    advance(Duration::from_secs(11)).await;
    assert_eq!(pillion.post("/bot/query/one", "{}").await.cache(), STORED);
}

#[tokio::test]
async fn settled_is_judged_when_the_search_is_sent() {
    let (upstream, gate) = (Upstream::start().await, Gate::new());
    let pillion = Pillion::route("upstash-vector", &upstream, &["cache: {settle: 3s}"]).await;
    upstream.push(Answer::ok("{}"));
    assert_eq!(pillion.post("/upsert/one", "{}").await.status, 200);
    upstream.push(found(1).held(&gate));
    upstream.push(found(2));
    let mut read = pillion.connect().await;
    read.ask("POST", "/query/one", &[("content-type", "application/json")], "{}").await;
    upstream.seen(2).await;
    advance(Duration::from_secs(4)).await;
    gate.open();
    let read = read.response().await;
    assert_eq!(
        (read.status, read.cache()),
        (200, SETTLE),
        "answered when all was over, sent when it was not"
    );
    let after = pillion.post("/query/one", "{}").await;
    assert_eq!((after.cache(), after.text().as_str()), (STORED, r#"{"result":[2]}"#));
}

#[tokio::test]
async fn the_settle_time_of_a_write_counts_from_its_end() {
    let (upstream, gate) = (Upstream::start().await, Gate::new());
    let pillion = Pillion::route("upstash-vector", &upstream, &["cache: {settle: 10s}"]).await;
    upstream.push(Answer::ok("{}").held(&gate));
    let mut write = pillion.connect().await;
    write.ask("POST", "/upsert/one", &[], "{}").await;
    upstream.seen(1).await;
    advance(Duration::from_secs(20)).await;
    gate.open();
    assert_eq!(write.response().await.status, 200);
    upstream.push(found(1));
    assert_eq!(pillion.post("/query/one", "{}").await.cache(), SETTLE);
    advance(Duration::from_secs(11)).await;
    upstream.push(found(1));
    assert_eq!(pillion.post("/query/one", "{}").await.cache(), STORED);
}

#[tokio::test]
async fn chroma_settles_at_once() {
    let upstream = Upstream::answering(|_| Answer::ok(r#"{"ids":[["a"]]}"#)).await;
    let pillion = Pillion::route("chroma-v2", &upstream, &[]).await;
    let collection = "/api/v2/tenants/t/databases/d/collections/c1";
    assert_eq!(pillion.post(&format!("{collection}/upsert"), "{}").await.status, 200);
    assert_eq!(pillion.post(&format!("{collection}/query"), "{}").await.cache(), STORED);
}

#[tokio::test]
async fn a_large_answer_of_a_write_keeps_the_fence_up_until_its_last_byte() {
    let upstream = Upstream::start().await;
    let pillion = Pillion::route("upstash-vector", &upstream, &["cache: {settle: 0s}"]).await;
    let (feed, answer) = Answer::fed(200, &[("content-type", "application/json")]);
    upstream.push(answer);
    feed.send(Answer::chunk("a".repeat(1024 * 1024 + 1))).unwrap();
    let mut write = pillion.connect().await;
    write.ask("POST", "/upsert/one", &[], "{}").await;
    let mut head = write.head().await.unwrap();
    upstream.push(found(1));
    assert_eq!(pillion.post("/query/one", "{}").await.cache(), SETTLE);
    feed.send(b"0\r\n\r\n".to_vec()).unwrap();
    write.content(&mut head, false).await;
    assert!(head.complete);
    upstream.push(found(2));
    assert_eq!(pillion.post("/query/one", "{}").await.cache(), STORED);
}

#[tokio::test]
async fn a_write_under_way_when_its_client_leaves_settles_when_it_ends() {
    let (upstream, gate) = (Upstream::answering(|_| found(1)).await, Gate::new());
    let pillion = Pillion::route("upstash-vector", &upstream, &["cache: {settle: 10s}"]).await;
    upstream.push(Answer::ok("{}").held(&gate));
    let mut write = pillion.connect().await;
    write.ask("POST", "/upsert/one", &[], "{}").await;
    upstream.seen(1).await;
    drop(write);
    pillion.metric_is("pillion_client_gone_total", &[("operation", "write")], 1.0).await;
    advance(Duration::from_secs(20)).await;
    assert_eq!(pillion.metric("pillion_buffers_bytes", &[]).await, 2.0);
    assert_eq!(pillion.post("/query/one", "{}").await.cache(), SETTLE, "still under way");
    gate.open();
    // Its content is held for as long as it may have to be sent again.
    pillion.metric_is("pillion_buffers_bytes", &[], 0.0).await;
    assert_eq!(pillion.post("/query/one", "{}").await.cache(), SETTLE, "it has ended, ten seconds begin");
    advance(Duration::from_secs(11)).await;
    assert_eq!(pillion.post("/query/one", "{}").await.cache(), STORED);
}

#[tokio::test]
async fn an_older_answer_does_not_take_a_newer_ones_place() {
    let (upstream, gate) = (Upstream::start().await, Gate::new());
    let pillion = Pillion::route("upstash-vector", &upstream, &[]).await;
    upstream.push(found(1).held(&gate));
    let mut slow = pillion.connect().await;
    // With the field that the others send, or its key would be another.
    slow.ask("POST", "/query/one", &[("content-type", "application/json")], "{}").await;
    upstream.seen(1).await;
    upstream.push(found(2));
    let newer = pillion.post_with("/query/one", &[("pillion-cache", "refresh")], "{}").await;
    assert_eq!((newer.cache(), newer.text().as_str()), (STORED, r#"{"result":[2]}"#));
    gate.open();
    assert_eq!(slow.response().await.text(), r#"{"result":[1]}"#);
    let hit = pillion.post("/query/one", "{}").await;
    assert!(hit.is_hit() && hit.text() == r#"{"result":[2]}"#, "{hit:?}");
}
