//! The promise itself, under random traffic: a write that was acknowledged is seen by every search that starts later.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use crate::support::{Answer, Client, Pillion, Seen, Step, Upstream};

pub(crate) const NAMESPACES: usize = 3;
const CLIENTS: u64 = 8;
const OPERATIONS: usize = 200;

/// A store whose every namespace has a version that writes move on.
#[derive(Default)]
pub(crate) struct Origin([AtomicU64; NAMESPACES]);

impl Origin {
    pub(crate) fn answer(self: &Arc<Self>, seen: &Seen, dice: &mut fastrand::Rng) -> Answer {
        let namespace: usize = seen.target.rsplit('/').next().unwrap().parse().unwrap();
        let (origin, fails) = (Arc::clone(self), dice.u8(..20) == 0);
        let act = move |write: bool| {
            let version = &origin.0[namespace];
            let now = if write { version.fetch_add(1, SeqCst) + 1 } else { version.load(SeqCst) };
            Answer::ok(format!(r#"{{"result":[{now}]}}"#))
        };
        let write = seen.target.starts_with("/upsert");
        // It acts when the request arrives, when the answer leaves, or in between.
        let (before, after) = (Step::Yield(dice.usize(..30)), Step::Yield(dice.usize(..30)));
        let answer = match dice.u8(..3) {
            0 => act(write),
            _ => Answer::late(move || act(write)),
        };
        match (fails, dice.bool()) {
            (false, _) => answer.after(before).after(after),
            // Done, and nobody is told; or half told.
            (true, false) => Answer(vec![before, Step::Close]),
            (true, true) if write => {
                self.0[namespace].fetch_add(1, SeqCst);
                Answer(vec![before, Step::Reset])
            }
            (true, true) => Answer::status(503, "{}").after(before),
        }
    }
}

#[derive(Default)]
struct Tally {
    /// By namespace: what the last acknowledged write left.
    acknowledged: [AtomicU64; NAMESPACES],
    hits: AtomicUsize,
    searches: AtomicUsize,
    writes: AtomicUsize,
    stale: Mutex<Vec<String>>,
}

async fn traffic(addr: std::net::SocketAddr, seed: u64, tally: Arc<Tally>) {
    let mut dice = fastrand::Rng::with_seed(seed);
    let mut client = Client::connect(addr).await;
    for _ in 0..OPERATIONS {
        let namespace = dice.usize(..NAMESPACES);
        let write = dice.u8(..10) == 0;
        let floor = tally.acknowledged[namespace].load(SeqCst);
        let (target, body) = if write {
            (format!("/upsert/{namespace}"), String::from(r#"{"id":"a"}"#))
        } else {
            (format!("/query/{namespace}"), format!(r#"{{"topK":{}}}"#, dice.u8(..2)))
        };
        client.ask("POST", &target, &[], &body).await;
        if dice.u8(..25) == 0 {
            // Leaves without waiting.
            client = Client::connect(addr).await;
            continue;
        }
        let answer = client.response().await;
        let version = (answer.status == 200).then(|| answer.json()["result"][0].as_u64().unwrap());
        match version {
            Some(version) if write => {
                tally.writes.fetch_add(1, SeqCst);
                tally.acknowledged[namespace].fetch_max(version, SeqCst);
            }
            Some(version) => {
                tally.searches.fetch_add(1, SeqCst);
                tally.hits.fetch_add(usize::from(answer.is_hit()), SeqCst);
                if version < floor {
                    let what = format!("{target} gave {version} after {floor}: {}", answer.cache());
                    tally.stale.lock().unwrap().push(what);
                }
            }
            None => assert!(answer.status >= 500, "{answer:?}"),
        }
    }
}

async fn no_answer_is_stale(seed: u64) {
    let (origin, dice) = (Arc::new(Origin::default()), Mutex::new(fastrand::Rng::with_seed(seed)));
    let upstream = Upstream::answering(move |seen| origin.answer(seen, &mut dice.lock().unwrap())).await;
    let more = ["cache: {settle: 0s}", "retry: {base: 0ms}"];
    let pillion = Pillion::route("upstash-vector", &upstream, &more).await;
    let tally = Arc::new(Tally::default());
    let clients: Vec<_> = (0..CLIENTS)
        .map(|n| tokio::spawn(traffic(pillion.addr, seed * 1000 + n, Arc::clone(&tally))))
        .collect();
    for client in clients {
        client.await.unwrap();
    }
    let stale = tally.stale.lock().unwrap();
    assert!(stale.is_empty(), "seed {seed}: {} stale answers, such as {}", stale.len(), stale[0]);
    let [hits, searches, writes] =
        [&tally.hits, &tally.searches, &tally.writes].map(|count| count.load(SeqCst));
    assert!(hits * 5 > searches && writes > 60, "little was tried: {hits} of {searches}, {writes} writes");
}

#[tokio::test]
async fn no_answer_is_stale_on_one_thread() {
    for seed in 1..=2 {
        no_answer_is_stale(seed).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_answer_is_stale_on_four_threads() {
    for seed in 3..=4 {
        no_answer_is_stale(seed).await;
    }
}
