//! Calls, as bots make them: one after the other each, or at fixed times whatever the answers do.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::support::{Answer, Client, Seen};

/// Where a search goes, on the one route of preset `upstash-vector`.
pub(super) const SEARCH: &str = "/query";

/// The answer that echoes its request's number, so that a mixed-up one is seen.
pub(super) fn echo(seen: &Seen) -> Answer {
    Answer::ok(content(&seen.json()["n"].to_string()))
}

/// What [`echo`] answers to this number.
pub(super) fn content(number: &str) -> String {
    format!(r#"{{"result":[{number}],"n":{number}}}"#)
}

/// A request whose like there is no other: nothing can be answered from the cache.
fn request(number: usize) -> String {
    format!(r#"{{"n":{number},"messages":[{{"role":"user","content":"a"}}]}}"#)
}

/// So many calls by so many bots, of these targets in turn. Tells what the bots saw fail.
pub(super) async fn calls(
    pillion: SocketAddr,
    targets: &'static [&'static str],
    count: usize,
    bots: usize,
) -> Vec<String> {
    let next = Arc::new(AtomicUsize::new(0));
    let mut running = JoinSet::new();
    for _ in 0..bots {
        let next = Arc::clone(&next);
        running.spawn(async move {
            let mut client = Client::connect(pillion).await;
            let mut failed = Vec::new();
            loop {
                let number = next.fetch_add(1, SeqCst);
                if number >= count {
                    return failed;
                }
                let target = targets[number % targets.len()];
                let headers = [("content-type", "application/json")];
                let response = client.exchange("POST", target, &headers, request(number)).await;
                let whole = response.status == 200 && response.complete;
                if !whole || response.text() != content(&number.to_string()) {
                    failed.push(format!("{target}: {} {}", response.status, response.text()));
                    client = Client::connect(pillion).await;
                }
            }
        });
    }
    running.join_all().await.into_iter().flatten().collect()
}

/// A search that was due at a time, and what became of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    pub(super) due: Instant,
    /// From when it was due, not from when it could be sent: waiting for Pillion counts.
    pub(super) took: Duration,
    /// 0: the connection ended without an answer.
    pub(super) status: u16,
}

/// Searches at fixed times, until it is told to stop.
#[derive(Debug)]
pub(super) struct Open {
    samples: Arc<Mutex<Vec<Sample>>>,
    stop: Arc<AtomicBool>,
    sending: tokio::task::JoinHandle<()>,
}

impl Open {
    /// From `begun` on so many a second.
    pub(super) fn start(pillion: SocketAddr, begun: Instant, rate: u32) -> Self {
        let samples: Arc<Mutex<Vec<Sample>>> = Arc::default();
        let stop = Arc::new(AtomicBool::new(false));
        let sending = tokio::spawn(send(pillion, begun, rate, Arc::clone(&samples), Arc::clone(&stop)));
        Self { samples, stop, sending }
    }

    /// What has been answered so far, in the order of the answers.
    pub(super) fn samples(&self) -> Vec<Sample> {
        self.samples.lock().unwrap().clone()
    }

    /// Sends no more, waits for the answers that are missing, and tells all in the order in which they were due.
    pub(super) async fn end(self) -> Vec<Sample> {
        self.stop.store(true, SeqCst);
        self.sending.await.unwrap();
        let mut samples = std::mem::take(&mut *self.samples.lock().unwrap());
        samples.sort_by_key(|sample| sample.due);
        samples
    }
}

async fn send(
    pillion: SocketAddr,
    begun: Instant,
    rate: u32,
    samples: Arc<Mutex<Vec<Sample>>>,
    stop: Arc<AtomicBool>,
) {
    let idle: Arc<Mutex<Vec<Client>>> = Arc::default();
    let mut waiting = JoinSet::new();
    for number in 0.. {
        let due = begun + Duration::from_secs(1) * number / rate;
        sleep_until(due).await;
        if stop.load(SeqCst) {
            break;
        }
        let (idle, samples) = (Arc::clone(&idle), Arc::clone(&samples));
        waiting.spawn(async move {
            let kept = idle.lock().unwrap().pop();
            let mut client = match kept {
                Some(client) => client,
                None => Client::connect(pillion).await,
            };
            let headers = [("content-type", "application/json")];
            client.ask("POST", SEARCH, &headers, request(number as usize)).await;
            let head = client.head().await;
            let mut status = 0;
            if let Some(mut response) = head {
                client.content(&mut response, false).await;
                if response.complete {
                    status = response.status;
                    let closes = response.header("connection").is_some_and(|value| value.contains("close"));
                    if !closes {
                        idle.lock().unwrap().push(client);
                    }
                }
            }
            samples.lock().unwrap().push(Sample { due, took: due.elapsed(), status });
        });
        while waiting.try_join_next().is_some() {}
    }
    waiting.join_all().await;
}
