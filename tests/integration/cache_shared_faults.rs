//! Redis goes away in every way there is: requests go on, and nothing older than a second past a write is given.

use std::time::{Duration, Instant};

use crate::cache_shared::{SECRET, in_memory, instance, joined, search, store, stored, write};
use crate::support::redis::{Redis, pretender};
use crate::support::{Pillion, eventually};

const LEASE: Duration = Duration::from_secs(1);

/// Until Redis answers a search of this instance, whatever it says.
async fn in_use_again(pillion: &Pillion) {
    pillion.metric_is("pillion_redis_up", &[], 1.0).await;
}

/// Redis has lost everything: what was stored is never given again, and new answers are shared.
async fn begins_anew(one: &Pillion, two: &Pillion, before: &[u8]) {
    let mut number = 1;
    eventually("a hit through the other", async || {
        assert_ne!(search(one).await.body, before);
        assert_ne!(search(two).await.body, before);
        // Each time another question: each may have an answer of its own to one that was asked in between.
        number += 1;
        let question = format!(r#"{{"topK":{number}}}"#);
        let first = one.post("/query/one", &question).await;
        let second = two.post("/query/one", &question).await;
        second.is_hit() && first.body == second.body
    })
    .await;
}

#[tokio::test]
async fn what_redis_loses_is_a_miss_and_no_more() {
    for lost in [&["FLUSHALL"][..], &["DEL", "pillion:{cache}:fences"]] {
        let (upstream, redis) = (store().await, Redis::start().await);
        let one = joined(&upstream, &redis, "").await;
        let two = joined(&upstream, &redis, "").await;
        let before = search(&one).await;
        stored(&one, 1.0).await;
        assert!(search(&two).await.is_hit());
        redis.ask::<()>(lost).await;
        write(&one, "/upsert/one").await;
        assert_eq!(one.metric("pillion_redis_unpublished_writes_total", &[]).await, 0.0, "{lost:?}");
        // The other had it in memory, at most for as long as its lease.
        let told = Instant::now();
        eventually("the new answer", async || search(&two).await.body != before.body).await;
        assert!(told.elapsed() < LEASE, "{lost:?}: {:?}", told.elapsed());
        begins_anew(&one, &two, &before.body).await;
    }
}

#[tokio::test]
async fn a_stopped_redis_costs_its_timeout_and_then_nothing() {
    let (upstream, redis) = (store().await, Redis::start().await);
    let one = instance(&upstream, &redis.url(), "timeout: 200ms").await;
    let two = instance(&upstream, &redis.url(), "timeout: 200ms").await;
    in_use_again(&one).await;
    in_use_again(&two).await;
    let before = search(&one).await;
    redis.signal("STOP").await;
    // Told to nobody: what the other has in memory counts until its lease is over.
    let stopped = Instant::now();
    let mut slowest = Duration::ZERO;
    while stopped.elapsed() < 2 * LEASE {
        let asked = Instant::now();
        let answer = search(&two).await;
        slowest = slowest.max(asked.elapsed());
        assert!(stopped.elapsed() < LEASE || !answer.is_hit(), "{answer:?} after {:?}", stopped.elapsed());
    }
    two.metric_is("pillion_redis_up", &[], 0.0).await;
    let unavailable = async || two.metric("pillion_redis_lookups_total", &[("result", "unavailable")]).await;
    assert!(unavailable().await > 1.0);
    let begun = Instant::now();
    for _ in 0..20 {
        search(&two).await;
    }
    assert!(begun.elapsed() < 10 * Duration::from_millis(200), "no timeout is waited for any more");
    // A write goes on, within a second more than it takes.
    let begun = Instant::now();
    write(&one, "/upsert/one").await;
    assert!(begun.elapsed() < Duration::from_millis(1500), "{:?}", begun.elapsed());
    assert_eq!(one.metric("pillion_redis_unpublished_writes_total", &[]).await, 1.0);
    redis.signal("CONT").await;
    let back = Instant::now();
    in_use_again(&one).await;
    in_use_again(&two).await;
    assert!(back.elapsed() < Duration::from_secs(2), "{:?}", back.elapsed());
    begins_anew(&one, &two, &before.body).await;
}

#[tokio::test]
async fn a_crash_begins_new_generations() {
    let (upstream, mut redis) = (store().await, Redis::start().await);
    let one = joined(&upstream, &redis, SECRET).await;
    let two = joined(&upstream, &redis, SECRET).await;
    let before = search(&one).await;
    stored(&one, 1.0).await;
    assert!(search(&two).await.is_hit());
    redis.kill().await;
    one.metric_is("pillion_redis_up", &[], 0.0).await;
    two.metric_is("pillion_redis_up", &[], 0.0).await;
    let answer = search(&two).await;
    assert!(!answer.is_hit(), "the connection broke: nothing is trusted, {answer:?}");
    write(&one, "/upsert/one").await;
    redis.restart().await;
    let back = Instant::now();
    in_use_again(&one).await;
    in_use_again(&two).await;
    assert!(back.elapsed() < Duration::from_secs(2), "{:?}", back.elapsed());
    begins_anew(&one, &two, &before.body).await;
}

#[tokio::test]
async fn after_a_restart_from_disk_nothing_of_before_counts() {
    // One that says which server it is, and one that does not.
    for arguments in [&[][..], &["--rename-command", "INFO", "NO-INFO"]] {
        let (upstream, mut redis) = (store().await, Redis::with(arguments).await);
        let one = joined(&upstream, &redis, SECRET).await;
        let before = search(&one).await;
        stored(&one, 1.0).await;
        // What a failover brings, too: the state of some time ago, without the last writes.
        redis.ask::<()>(&["SAVE"]).await;
        write(&one, "/upsert/one").await;
        redis.kill().await;
        one.running.stop().await;
        redis.restart().await;
        assert_eq!(redis.keys().await.len(), 2, "nothing is told by this test");
        // Instances that have never known the server before.
        let two = joined(&upstream, &redis, SECRET).await;
        assert_ne!(search(&two).await.body, before.body, "{arguments:?}");
        let three = joined(&upstream, &redis, SECRET).await;
        begins_anew(&three, &two, &before.body).await;
    }
}

#[tokio::test]
async fn a_follower_is_not_believed() {
    let (upstream, redis) = (store().await, Redis::start().await);
    let one = joined(&upstream, &redis, SECRET).await;
    let other = joined(&upstream, &redis, SECRET).await;
    let before = search(&one).await;
    stored(&one, 1.0).await;
    // A leader that is away: it has all that was stored, and hears of nothing.
    redis.ask::<()>(&["REPLICAOF", "127.0.0.1", "1"]).await;
    assert!(!search(&other).await.is_hit());
    eventually("it is noticed", async || {
        search(&one).await;
        one.metric("pillion_redis_up", &[]).await == 0.0
    })
    .await;
    assert!(!search(&one).await.is_hit());
    write(&one, "/upsert/one").await;
    redis.ask::<()>(&["REPLICAOF", "NO", "ONE"]).await;
    in_use_again(&one).await;
    let two = joined(&upstream, &redis, SECRET).await;
    begins_anew(&one, &two, &before.body).await;
}

#[tokio::test]
async fn a_full_redis_still_takes_what_is_known_of_writes() {
    let (upstream, redis) = (store().await, Redis::start().await);
    let one = joined(&upstream, &redis, SECRET).await;
    let two = joined(&upstream, &redis, SECRET).await;
    let before = search(&one).await;
    let other = async |pillion: &Pillion| pillion.post("/query/two", "{}").await;
    other(&one).await;
    stored(&one, 2.0).await;
    assert!(search(&two).await.is_hit());
    redis.ask::<()>(&["CONFIG", "SET", "maxmemory", "1"]).await;
    assert!(search(&two).await.is_hit(), "what only reads goes on");
    write(&one, "/upsert/one").await;
    assert_eq!(one.metric("pillion_redis_unpublished_writes_total", &[]).await, 0.0);
    let told = Instant::now();
    eventually("the new answer", async || search(&two).await.body != before.body).await;
    assert!(told.elapsed() < LEASE, "{:?}", told.elapsed());
    assert!(other(&two).await.is_hit(), "nothing but its scope is dropped");
    assert_eq!(two.metric("pillion_redis_up", &[]).await, 1.0);
    redis.ask::<()>(&["CONFIG", "SET", "maxmemory", "0"]).await;
    begins_anew(&one, &two, &before.body).await;
}

#[tokio::test]
async fn whatever_refuses_or_says_nothing_is_not_in_use() {
    for answer in [
        None,
        Some("-LOADING Redis is loading the dataset in memory\r\n"),
        Some("-NOAUTH Authentication required.\r\n"),
        Some("-MISCONF Redis is configured to save RDB snapshots\r\n"),
        Some("-BUSY Redis is busy running a script\r\n"),
        Some("+OK\r\n"),
        Some("HTTP/1.1 400 Bad Request\r\n\r\n"),
    ] {
        let upstream = store().await;
        let pillion = instance(&upstream, &pretender(answer).await, "timeout: 10ms").await;
        for _ in 0..3 {
            assert!(!search(&pillion).await.is_hit(), "{answer:?}");
        }
        let begun = Instant::now();
        write(&pillion, "/upsert/one").await;
        assert!(begun.elapsed() < Duration::from_millis(1500), "{answer:?}: {:?}", begun.elapsed());
        assert_eq!(pillion.metric("pillion_redis_up", &[]).await, 0.0, "{answer:?}");
        assert_eq!(pillion.metric("pillion_redis_unpublished_writes_total", &[]).await, 1.0);
        assert_eq!(upstream.count(), 4);
    }
}

#[tokio::test]
async fn a_replica_that_hears_nothing_trusts_its_memory_for_a_second_at_most() {
    let (upstream, redis) = (store().await, Redis::start().await);
    let one = joined(&upstream, &redis, SECRET).await;
    let two = joined(&upstream, &redis, SECRET).await;
    let before = search(&one).await;
    stored(&one, 1.0).await;
    eventually("a lease", async || {
        search(&two).await;
        two.metric("pillion_redis_lease", &[]).await == 1.0
    })
    .await;
    // Messages are kept back while the server is stopped, and what was written through the other is told when it goes
    // on: from then on it is a second.
    redis.ask::<()>(&["CLIENT", "PAUSE", "400", "WRITE"]).await;
    write(&one, "/upsert/one").await;
    let told = Instant::now();
    eventually("the new answer", async || search(&two).await.body != before.body).await;
    assert!(told.elapsed() < LEASE, "{:?}", told.elapsed());
}

#[tokio::test]
async fn two_secrets_under_one_prefix_never_give_what_a_write_has_passed() {
    let (upstream, redis) = (store().await, Redis::start().await);
    let one = joined(&upstream, &redis, SECRET).await;
    let two = joined(&upstream, &redis, "secret: another").await;
    for _ in 0..3 {
        let before = search(&one).await;
        write(&two, "/upsert/one").await;
        let told = Instant::now();
        eventually("the new answer", async || search(&one).await.body != before.body).await;
        assert!(told.elapsed() < LEASE, "{:?}", told.elapsed());
    }
}

#[tokio::test]
async fn what_was_told_while_nobody_listened_is_not_missed() {
    let (upstream, redis) = (store().await, Redis::start().await);
    let one = joined(&upstream, &redis, SECRET).await;
    let two = joined(&upstream, &redis, SECRET).await;
    let before = in_memory(&two).await;
    // It listens again some time later, and its lease is renewed; what it has in memory is from before.
    redis.ask::<i64>(&["CLIENT", "KILL", "TYPE", "pubsub"]).await;
    write(&one, "/upsert/one").await;
    eventually("the end of the lease", async || two.metric("pillion_redis_lease", &[]).await == 0.0).await;
    two.metric_is("pillion_redis_lease", &[], 1.0).await;
    assert_ne!(search(&two).await.body, before.body);
}
