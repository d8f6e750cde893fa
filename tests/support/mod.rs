//! What the tests over real sockets share: a scripted upstream, a raw client, a Pillion in this process.
//!
//! Nothing here waits for a fixed time: every wait is for an event, and fails after [`PATIENCE`].

#![allow(dead_code, unused_imports, reason = "each test binary uses its own part")]
#![allow(clippy::format_collect, clippy::format_push_string, reason = "a test may take the short way")]

pub(crate) mod answer;
pub(crate) mod client;
pub(crate) mod direct;
pub(crate) mod fair;
pub(crate) mod frames;
pub(crate) mod metrics;
pub(crate) mod pillion;
pub(crate) mod process;
pub(crate) mod redis;
pub(crate) mod relay;
pub(crate) mod secure;
pub(crate) mod upstream;

use std::time::Duration;

pub(crate) use answer::{Answer, Gate, Step};
pub(crate) use client::{Client, Response};
pub(crate) use metrics::metric;
pub(crate) use pillion::Pillion;
pub(crate) use upstream::{Seen, Upstream};

/// How long an event may take before the test fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Waits for an event; fails the test when it does not come.
pub(crate) async fn within<F: Future>(what: &str, event: F) -> F::Output {
    // The time of the system, not tokio's: a test may move that one on.
    let begun = std::time::Instant::now();
    let mut event = std::pin::pin!(event);
    loop {
        match tokio::time::timeout(PATIENCE, event.as_mut()).await {
            Ok(output) => return output,
            Err(_) => assert!(begun.elapsed() < PATIENCE, "waited in vain: {what}"),
        }
    }
}

/// Moves the time on, on the runtime of one thread that the tests have. What is on a timer happens.
pub(crate) async fn advance(by: Duration) {
    tokio::time::pause();
    tokio::time::advance(by).await;
    tokio::time::resume();
}

/// Asks again and again until it is so; other tasks run in between.
pub(crate) async fn eventually(what: &str, mut is: impl AsyncFnMut() -> bool) {
    let begun = std::time::Instant::now();
    while !is().await {
        assert!(begun.elapsed() < PATIENCE, "waited in vain: {what}");
        tokio::task::yield_now().await;
    }
}
