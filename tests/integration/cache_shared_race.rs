//! The promise under random traffic through two instances, while connections to Redis break and Redis loses things.
//!
//! A search sees every write that was acknowledged before it began: through its own instance always, through the other
//! unless it is answered from memory or shares a call, and then if the write is a second old.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::cache_stale::{NAMESPACES, Origin};
use crate::support::redis::Redis;
use crate::support::{Client, Pillion, Upstream};

const CLIENTS: u64 = 4;
const OPERATIONS: usize = 200;
const LEASE: Duration = Duration::from_secs(1);

/// A write that was acknowledged: when, by whom, what it left.
type Acknowledged = (Instant, usize, u64);

#[derive(Default)]
struct Tally {
    acknowledged: [Mutex<Vec<Acknowledged>>; NAMESPACES],
    from_memory: AtomicUsize,
    from_redis: AtomicUsize,
    stale: Mutex<Vec<String>>,
}

impl Tally {
    /// What a search through this instance that begins now has to see: from memory, and otherwise.
    fn floors(&self, namespace: usize, instance: usize) -> (u64, u64) {
        let (now, writes) = (Instant::now(), self.acknowledged[namespace].lock().unwrap());
        let all = writes.iter().map(|(_, _, version)| *version).max().unwrap_or(0);
        let known = writes.iter().filter(|(at, by, _)| *by == instance || now - *at >= LEASE);
        (known.map(|(_, _, version)| *version).max().unwrap_or(0), all)
    }
}

async fn traffic(instance: usize, addr: SocketAddr, seed: u64, tally: Arc<Tally>) {
    let mut dice = fastrand::Rng::with_seed(seed);
    let mut client = Client::connect(addr).await;
    for _ in 0..OPERATIONS {
        let namespace = dice.usize(..NAMESPACES);
        let write = dice.u8(..20) == 0;
        let (memory, any) = tally.floors(namespace, instance);
        let (target, body) = if write {
            (format!("/upsert/{namespace}"), String::from(r#"{"id":"a"}"#))
        } else {
            (format!("/query/{namespace}"), format!(r#"{{"topK":{}}}"#, dice.u8(..2)))
        };
        client.ask("POST", &target, &[], &body).await;
        let answer = client.response().await;
        if answer.status != 200 {
            assert!(answer.status >= 500, "{answer:?}");
            continue;
        }
        let version = answer.json()["result"][0].as_u64().unwrap();
        if write {
            tally.acknowledged[namespace].lock().unwrap().push((Instant::now(), instance, version));
            continue;
        }
        let from_redis = answer.cache().ends_with("detail=redis");
        let from_memory = answer.is_hit() && !from_redis;
        tally.from_memory.fetch_add(usize::from(from_memory), SeqCst);
        tally.from_redis.fetch_add(usize::from(from_redis), SeqCst);
        // Without Redis, a call that is under way may be shared for half a second.
        let floor = if from_memory || answer.cache().ends_with("collapsed") { memory } else { any };
        if version < floor {
            let what = format!("{instance}: {target} gave {version} after {floor}: {}", answer.cache());
            tally.stale.lock().unwrap().push(what);
        }
    }
}

async fn joined(upstream: &Upstream, redis: &Redis) -> Pillion {
    let yaml = format!(
        "redis: {{url: '{}', timeout: 2s}}\nroutes:\n  - {{name: r, path: /, upstream: '${{UP}}', preset: \
         upstash-vector, cache: {{settle: 0s}}, retry: {{base: 0ms}}}}\n",
        redis.url()
    );
    let pillion = Pillion::start(&yaml, &[("UP", &upstream.url())]).await;
    pillion.metric_is("pillion_redis_up", &[], 1.0).await;
    pillion
}

/// Breaks something every now and then, but nothing before all is well again: a connection that is broken all the time
/// is the one exception.
async fn havoc(redis: &Redis, instances: [&Pillion; 2], seed: u64, over: &AtomicBool) {
    let mut dice = fastrand::Rng::with_seed(seed);
    while !over.load(SeqCst) {
        for pillion in instances {
            pillion.metric_is("pillion_redis_up", &[], 1.0).await;
        }
        for _ in 0..dice.usize(200..2000) {
            tokio::task::yield_now().await;
        }
        let words: &[&str] = match dice.u8(..4) {
            0 => &["CLIENT", "KILL", "TYPE", "pubsub"],
            1 => &["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"],
            2 => &["DEL", "pillion:{cache}:fences"],
            _ => &["FLUSHALL"],
        };
        redis.ask::<redis::Value>(words).await;
    }
}

async fn no_answer_is_stale(seed: u64, breaks: bool) {
    let (origin, dice) = (Arc::new(Origin::default()), Mutex::new(fastrand::Rng::with_seed(seed)));
    let upstream = Upstream::answering(move |seen| origin.answer(seen, &mut dice.lock().unwrap())).await;
    let redis = Redis::start().await;
    let (one, two) = (joined(&upstream, &redis).await, joined(&upstream, &redis).await);
    let (tally, over) = (Arc::new(Tally::default()), AtomicBool::new(false));
    let clients: Vec<_> = [&one, &two]
        .iter()
        .enumerate()
        .flat_map(|(instance, pillion)| (0..CLIENTS).map(move |n| (instance, pillion.addr, n)))
        .map(|(instance, addr, n)| {
            let seed = seed * 1000 + n * 2 + instance as u64;
            tokio::spawn(traffic(instance, addr, seed, Arc::clone(&tally)))
        })
        .collect();
    let searching = async {
        for client in clients {
            client.await.unwrap();
        }
        over.store(true, SeqCst);
    };
    if breaks {
        tokio::join!(searching, havoc(&redis, [&one, &two], seed, &over));
    } else {
        searching.await;
    }
    for pillion in [&one, &two] {
        let unpublished = pillion.metric("pillion_redis_unpublished_writes_total", &[]).await;
        assert_eq!(unpublished, 0.0, "the one exception: no connection came back within a second");
    }
    let stale = tally.stale.lock().unwrap();
    assert!(stale.is_empty(), "seed {seed}: {} stale answers, such as {}", stale.len(), stale[0]);
    let (memory, redis) = (tally.from_memory.load(SeqCst), tally.from_redis.load(SeqCst));
    println!("seed {seed}: {memory} from memory, {redis} from Redis");
    assert!(
        breaks || memory > 100 && redis > 20,
        "little was tried: {memory} from memory, {redis} from Redis"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_instances_never_give_what_a_write_has_passed() {
    for seed in 1..=2 {
        no_answer_is_stale(seed, false).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_instances_never_give_what_a_write_has_passed_while_redis_fails() {
    for seed in 3..=4 {
        no_answer_is_stale(seed, true).await;
    }
}
