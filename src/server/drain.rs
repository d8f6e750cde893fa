//! How the process stops: nothing is cut, and nothing waits for what is not there.
//!
//! Readiness goes first, then the data listeners close, then requests in flight and streams end, at most for the
//! `drain` of the configuration. The admin listener answers until the end, so that probes see what happens.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use async_trait::async_trait;
use pingora_core::server::{ShutdownSignal, ShutdownSignalWatch};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

/// Stops the data listeners and waits for what they began.
#[derive(Clone, Debug)]
pub struct Drain {
    ready: Arc<AtomicBool>,
    stop: watch::Sender<bool>,
    armed: watch::Sender<bool>,
    tasks: TaskTracker,
    limit: Duration,
}

impl Drain {
    /// A drain of at most `limit` for the connections that `tasks` counts.
    pub fn new(tasks: TaskTracker, limit: Duration) -> Self {
        let (ready, stop) = (Arc::new(AtomicBool::new(false)), watch::Sender::new(false));
        Self { ready, stop, armed: watch::Sender::new(false), tasks, limit }
    }

    /// Waits until [`Signals`] are received: before that a signal would end the process, whatever is in flight.
    pub async fn armed(&self) {
        // The sender is here, so that this cannot fail.
        let _ = self.armed.subscribe().wait_for(|armed| *armed).await;
    }

    /// Told `true` when the data listeners are to close.
    pub fn stop(&self) -> watch::Receiver<bool> {
        self.stop.subscribe()
    }

    /// Whether requests are welcome.
    pub fn is_ready(&self) -> bool {
        self.ready.load(SeqCst) && !self.is_stopping()
    }

    /// Whether the drain has begun.
    pub fn is_stopping(&self) -> bool {
        *self.stop.borrow()
    }

    /// Requests are welcome from now on, unless the drain has begun.
    pub fn begin(&self) {
        self.ready.store(true, SeqCst);
    }

    /// Drains. Returns when the work is done or the time is up; tells whether it was done.
    pub async fn run(&self) -> bool {
        self.ready.store(false, SeqCst);
        self.stop.send_replace(true);
        self.tasks.close();
        tokio::time::timeout(self.limit, self.tasks.wait()).await.is_ok()
    }
}

/// SIGTERM and SIGINT drain; a second one stops at once.
#[derive(Debug)]
pub struct Signals(pub Drain);

#[async_trait]
impl ShutdownSignalWatch for Signals {
    async fn recv(&self) -> ShutdownSignal {
        let (Ok(mut terminate), Ok(mut interrupt)) =
            (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
        else {
            tracing::error!("no signals can be received here; stopping");
            return ShutdownSignal::FastShutdown;
        };
        let mut stopped = self.0.stop();
        self.0.armed.send_replace(true);
        let name = tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
            // An accept loop has ended without being told to.
            _ = stopped.wait_for(|stop| *stop) => return ShutdownSignal::FastShutdown,
        };
        tracing::info!("{name}: draining, {:?} at most", self.0.limit);
        tokio::select! {
            done = self.0.run() => if done {
                tracing::info!("drained");
            } else {
                tracing::warn!("the drain's time is up; what is still open is cut");
            },
            _ = terminate.recv() => tracing::warn!("a second signal: stopping at once"),
            _ = interrupt.recv() => tracing::warn!("a second signal: stopping at once"),
        }
        // Not the graceful kinds: those sleep for fixed times, and the work is done.
        ShutdownSignal::FastShutdown
    }
}
