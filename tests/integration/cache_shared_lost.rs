//! Redis has lost what it knew of writes, or knows it from another time: nothing is stored before every write that it may
//! have forgotten has settled.

use crate::cache_shared::{SECRET, joined, search, store, stored, write};
use crate::support::redis::Redis;
use crate::support::{Answer, Pillion, Upstream, eventually};

const FENCES: &str = "pillion:{cache}:fences";
const SETTLE: &str = "pillion; fwd=bypass; detail=settle";

/// In use, of a store that takes so long to settle.
async fn settling(upstream: &Upstream, redis: &Redis, settle: &str) -> Pillion {
    let yaml = format!(
        "redis: {{url: '{}', timeout: 2s, {SECRET}}}\nroutes:\n  - {{name: r, path: /, upstream: '${{UP}}', preset: \
         upstash-vector, cache: {{settle: {settle}}}, retry: {{enabled: false}}}}\n",
        redis.url()
    );
    let pillion = Pillion::start(&yaml, &[("UP", &upstream.url())]).await;
    pillion.metric_is("pillion_redis_up", &[], 1.0).await;
    pillion
}

/// The server's time, in milliseconds.
async fn time(redis: &Redis) -> u64 {
    let (seconds, micros): (u64, u64) = redis.ask(&["TIME"]).await;
    seconds * 1000 + micros / 1000
}

/// Until when nothing is stored, in the server's milliseconds; 0 where nothing is known of it.
async fn held(redis: &Redis) -> u64 {
    redis.ask::<Option<u64>>(&["HGET", FENCES, "q"]).await.unwrap_or(0)
}

#[tokio::test]
async fn a_write_of_an_instance_that_has_ended_settles_although_redis_forgets_it() {
    for lost in [&["FLUSHALL"][..], &["DEL", FENCES]] {
        let (upstream, redis) = (store().await, Redis::start().await);
        let one = settling(&upstream, &redis, "30s").await;
        let two = settling(&upstream, &redis, "30s").await;
        assert_eq!(search(&two).await.cache(), SETTLE, "the last write of before may be of a moment ago");
        write(&one, "/upsert/one").await;
        one.running.stop().await;
        let now = time(&redis).await;
        redis.ask::<()>(lost).await;
        eventually("the new fences", async || {
            let answer = search(&two).await;
            assert_ne!(answer.cache(), "pillion; fwd=miss; stored", "{lost:?}");
            answer.cache() == SETTLE
        })
        .await;
        assert!(held(&redis).await >= now + 30_000, "{lost:?}");
    }
}

#[tokio::test]
async fn whoever_hears_that_fences_are_made_anew_tells_what_settles() {
    let (upstream, redis) = (store().await, Redis::start().await);
    let one = settling(&upstream, &redis, "30s").await;
    // By itself it would hold for a moment only.
    let two = settling(&upstream, &redis, "0s").await;
    write(&one, "/upsert/one").await;
    let now = time(&redis).await;
    redis.ask::<()>(&["FLUSHALL"]).await;
    // Nobody asks the one that has written.
    eventually("what it knows", async || {
        search(&two).await;
        held(&redis).await >= now + 20_000
    })
    .await;
}

#[tokio::test]
async fn who_has_to_wait_longest_for_a_write_looks_if_redis_still_knows_of_it() {
    let (upstream, redis) = (Upstream::start().await, Redis::start().await);
    let one = settling(&upstream, &redis, "0s").await;
    upstream.push(Answer::status(504, "{}"));
    assert_eq!(one.post("/upsert/one", "{}").await.status, 504, "its outcome is unknown for a minute");
    let now = time(&redis).await;
    redis.ask::<()>(&["DEL", FENCES]).await;
    // Nobody tells, nobody searches.
    eventually("new fences", async || held(&redis).await >= now + 40_000).await;
}

#[tokio::test]
async fn fences_made_anew_give_others_a_second_to_tell() {
    let (upstream, redis) = (store().await, Redis::start().await);
    let one = joined(&upstream, &redis, SECRET).await;
    search(&one).await;
    stored(&one, 1.0).await;
    let now = time(&redis).await;
    redis.ask::<()>(&["DEL", FENCES]).await;
    eventually("new fences", async || {
        search(&one).await;
        held(&redis).await > 0
    })
    .await;
    assert!(held(&redis).await >= now + 1000);
}

#[tokio::test]
async fn another_server_may_have_forgotten_what_settles() {
    let (upstream, mut redis) = (store().await, Redis::start().await);
    let one = settling(&upstream, &redis, "30s").await;
    redis.ask::<()>(&["SAVE"]).await;
    write(&one, "/upsert/one").await;
    one.running.stop().await;
    redis.kill().await;
    redis.restart().await;
    let now = time(&redis).await;
    let two = settling(&upstream, &redis, "30s").await;
    assert!(held(&redis).await >= now + 30_000);
    assert_eq!(search(&two).await.cache(), SETTLE);
}

#[tokio::test]
async fn what_was_stored_counts_while_nothing_is_stored() {
    let (upstream, redis) = (store().await, Redis::start().await);
    let one = joined(&upstream, &redis, SECRET).await;
    let before = search(&one).await;
    stored(&one, 1.0).await;
    let later = (time(&redis).await + 3_600_000).to_string();
    redis.ask::<()>(&["HSET", FENCES, "q", &later]).await;
    let two = joined(&upstream, &redis, SECRET).await;
    let hit = search(&two).await;
    assert!(hit.is_hit() && hit.body == before.body, "its tokens are those of now: {hit:?}");
    assert_eq!(two.post("/query/two", "{}").await.cache(), SETTLE);
}

/// Until one has everything of the other.
async fn follow(one: &Redis, other: &Redis) {
    one.ask::<()>(&["REPLICAOF", "127.0.0.1", &other.port.to_string()]).await;
    eventually("all of the other", async || {
        one.ask::<String>(&["INFO", "replication"]).await.contains("master_link_status:up")
    })
    .await;
}

#[tokio::test]
async fn a_server_that_was_filled_from_a_backup_is_another() {
    let (upstream, redis, backup) = (store().await, Redis::start().await, Redis::start().await);
    let one = joined(&upstream, &redis, SECRET).await;
    let before = search(&one).await;
    stored(&one, 1.0).await;
    follow(&backup, &redis).await;
    backup.ask::<()>(&["REPLICAOF", "NO", "ONE"]).await;
    write(&one, "/upsert/one").await;
    one.running.stop().await;
    follow(&redis, &backup).await;
    redis.ask::<()>(&["REPLICAOF", "NO", "ONE"]).await;
    let two = joined(&upstream, &redis, SECRET).await;
    assert_ne!(search(&two).await.body, before.body, "the same process, but not with what it had");
}

#[tokio::test]
async fn one_refusal_of_a_follower_is_enough() {
    let (upstream, redis) = (store().await, Redis::start().await);
    let one = joined(&upstream, &redis, SECRET).await;
    redis.ask::<()>(&["REPLICAOF", "127.0.0.1", "1"]).await;
    assert!(!search(&one).await.is_hit());
    assert_eq!(one.metric("pillion_redis_up", &[]).await, 0.0);
}
