//! Who searches and writes, and who breaks things.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use super::judge::Judge;
use super::{SETTLE, Scene};
use crate::support::redis::Redis;
use crate::support::{Client, Pillion, metric};

/// Between two writes of a namespace of a late store, at most: many searches come when it has settled, many before, and
/// settle times overlap.
const SELDOM: Duration = Duration::from_secs(8);

/// One client of an instance, which is at these addresses, until enough was tried.
pub(super) async fn traffic(
    scene: Scene,
    instance: usize,
    (addr, admin): (SocketAddr, SocketAddr),
    seed: u64,
    judge: Arc<Judge>,
) {
    let mut dice = fastrand::Rng::with_seed(seed);
    let (mut client, mut metrics) = (Client::connect(addr).await, Client::connect(admin).await);
    while !judge.enough() {
        let namespace = dice.usize(..scene.namespaces);
        let writes =
            if scene.late { judge.is_due(namespace, SELDOM.mul_f64(dice.f64())) } else { dice.u8(..25) == 0 };
        let leaves = dice.u8(..50) == 0;
        if writes {
            let told = &judge.unpublished[instance];
            let (untold_before, sent) = (told.load(SeqCst), judge.write_begins(namespace));
            client.ask("POST", &format!("/upsert/{namespace}"), &[], r#"{"id":"a"}"#).await;
            if leaves {
                client = Client::connect(addr).await;
                judge.write_ends(namespace, instance, sent, false, None);
                continue;
            }
            let answer = client.response().await;
            assert!(answer.status == 200 || answer.status >= 500, "{answer:?}");
            if scene.breaks {
                let text = metrics.exchange("GET", "/metrics", &[], "").await.text();
                told.fetch_max(metric(&text, "pillion_redis_unpublished_writes_total", &[]) as u64, SeqCst);
            }
            let version = (answer.status == 200).then(|| answer.json()["result"][0].as_u64().unwrap());
            let untold = told.load(SeqCst) > untold_before;
            judge.write_ends(namespace, instance, sent, untold, version);
            continue;
        }
        let floors = judge.search_begins(namespace, instance);
        let question = format!(r#"{{"topK":{}}}"#, dice.u8(..2));
        client.ask("POST", &format!("/query/{namespace}"), &[], question).await;
        if leaves {
            client = Client::connect(addr).await;
        } else {
            judge.search_ends(namespace, &floors, &client.response().await);
        }
    }
}

/// Breaks something every now and then, but nothing before all is well again.
pub(super) async fn havoc(scene: Scene, redis: &Redis, instances: &[Pillion], seed: u64, judge: &Judge) {
    let mut dice = fastrand::Rng::with_seed(seed);
    // Now and then a late store has time to settle, or nothing would ever be hit.
    let longest = if scene.late { SETTLE * 2 } else { SETTLE / 4 };
    while !judge.enough() {
        for pillion in instances {
            pillion.metric_is("pillion_redis_up", &[], 1.0).await;
        }
        // Some time, by chance; nothing is waited for.
        tokio::time::sleep(longest.mul_f64(dice.f64())).await;
        let words: &[&str] = match dice.u8(..9) {
            0 | 1 => &["CLIENT", "KILL", "TYPE", "pubsub"],
            2 | 3 => &["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"],
            4 | 5 => &["DEL", "pillion:{cache}:fences"],
            6 | 7 => &["FLUSHALL"],
            // Longer than a write waits to be told, its end included.
            _ => &["CLIENT", "PAUSE", "2500", "WRITE"],
        };
        redis.ask::<redis::Value>(words).await;
        judge.broken.fetch_add(1, SeqCst);
    }
}
