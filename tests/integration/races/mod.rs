//! The promise of docs/cache.md under random traffic over real sockets: searches that race with writes of the same part
//! of a store, through one instance or through two with a real Redis, which may break; and a store that applies writes
//! some time after it has acknowledged them.
//!
//! A race is a search that is under way together with a write of its namespace, or while the store settles after one.
//! `make test` runs some hundred of each kind, `make races` a hundred thousand (`PILLION_RACES=100`, which is percent).

mod judge;
mod origin;
mod traffic;

use std::sync::Arc;
use std::time::{Duration, Instant};

use self::judge::Judge;
use self::origin::Origin;
use self::traffic::{havoc, traffic};
use crate::support::redis::Redis;
use crate::support::{Pillion, Upstream};

/// What a store that applies writes late takes for it, at most.
const LAG: Duration = Duration::from_millis(1500);
/// `settle` of the route to it.
const SETTLE: Duration = Duration::from_secs(2);
/// A run that takes longer has tried too little.
const LONGEST: Duration = Duration::from_secs(300);

/// Who races.
#[derive(Clone, Copy, Debug)]
struct Scene {
    name: &'static str,
    instances: usize,
    namespaces: usize,
    /// Clients of each instance.
    clients: u64,
    /// The store applies writes late.
    late: bool,
    /// Redis fails again and again.
    breaks: bool,
    /// Races in `make races`, and otherwise.
    races: [usize; 2],
}

const ONE: Scene = Scene {
    name: "one instance",
    instances: 1,
    namespaces: 3,
    clients: 12,
    late: false,
    breaks: false,
    races: [20_000, 500],
};
const TWO: Scene = Scene { name: "two instances", instances: 2, races: [50_000, 500], ..ONE };
const BROKEN: Scene =
    Scene { name: "two instances while Redis fails", breaks: true, races: [20_000, 500], ..TWO };
const LATE: Scene = Scene {
    name: "one instance, a late store",
    namespaces: 100,
    // Many of them wait for slow answers.
    clients: 60,
    late: true,
    races: [8_000, 300],
    ..ONE
};
const LATE_TWO: Scene = Scene { name: "two instances, a late store", instances: 2, ..LATE };
const LATE_BROKEN: Scene = Scene {
    name: "two instances, a late store, while Redis fails",
    breaks: true,
    races: [5_000, 300],
    ..LATE_TWO
};

async fn instance(scene: Scene, upstream: &Upstream, redis: Option<&Redis>) -> Pillion {
    // Long enough for a busy machine where Redis is to answer, short where it is to fail.
    let timeout = if scene.breaks { "500ms" } else { "10s" };
    let shared = redis.map(|redis| format!("redis: {{url: '{}', timeout: {timeout}}}\n", redis.url()));
    let settle = if scene.late { SETTLE } else { Duration::ZERO }.as_secs();
    let yaml = format!(
        "{}routes:\n  - {{name: r, path: /, upstream: '${{UP}}', preset: upstash-vector, cache: {{settle: {settle}s}}, \
         retry: {{base: 0ms}}}}\n",
        shared.unwrap_or_default()
    );
    let pillion = Pillion::start_now(&yaml, &[("UP", &upstream.url())]).await;
    if redis.is_some() {
        pillion.metric_is("pillion_redis_up", &[], 1.0).await;
    }
    pillion
}

async fn race(mut scene: Scene, seed: u64) {
    let percent = std::env::var("PILLION_RACES").ok().map(|percent| percent.parse::<usize>().unwrap());
    let races = percent.map_or(scene.races[1], |percent| scene.races[0] * percent / 100);
    if scene.late && percent.is_none() {
        (scene.namespaces, scene.clients) = (20, 12);
    }
    let origin = Origin::new(scene.namespaces, scene.late, seed);
    let upstream = Upstream::answering(move |seen| origin.answer(seen)).await;
    upstream.forgets();
    let redis = if scene.instances > 1 { Some(Redis::start().await) } else { None };
    let mut instances = Vec::new();
    for _ in 0..scene.instances {
        instances.push(instance(scene, &upstream, redis.as_ref()).await);
    }
    let (judge, begun) = (Arc::new(Judge::new(scene, races)), Instant::now());
    let mut clients = tokio::task::JoinSet::new();
    for (number, pillion) in instances.iter().enumerate() {
        for n in 0..scene.clients {
            let seed = seed * 1000 + n * 2 + number as u64;
            let at = (pillion.addr, pillion.admin);
            clients.spawn(traffic(scene, number, at, seed, Arc::clone(&judge)));
        }
    }
    let racing = async {
        while let Some(client) = clients.join_next().await {
            client.unwrap();
        }
    };
    match &redis {
        Some(redis) if scene.breaks => {
            tokio::join!(racing, havoc(scene, redis, &instances, seed, &judge));
        }
        _ => racing.await,
    }
    println!("races: {}, seed {seed}: {judge} in {:.1} s", scene.name, begun.elapsed().as_secs_f64());
    judge.verdict();
}

/// Runs of a scene, each with instances of its own.
async fn races(scene: Scene, seeds: std::ops::RangeInclusive<u64>) {
    for seed in seeds {
        race(scene, seed).await;
    }
}

#[tokio::test]
async fn one_instance_on_one_thread() {
    races(ONE, 1..=1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_instance() {
    races(ONE, 2..=3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_instances() {
    races(TWO, 4..=5).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_instances_while_redis_fails() {
    races(BROKEN, 6..=7).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_instance_before_a_late_store() {
    races(LATE, 8..=8).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_instances_before_a_late_store() {
    races(LATE_TWO, 9..=9).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_instances_before_a_late_store_while_redis_fails() {
    races(LATE_BROKEN, 10..=10).await;
}
