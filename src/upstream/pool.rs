//! Connections kept for the next request: last in, first out, so that those not needed grow old and go.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use http::HeaderMap;
use tokio::runtime::Handle;
use tokio::sync;
use tokio::time::{Instant, sleep};

use super::connect::Connection;
use super::idle::{self, Patience};
use super::wire::Wire;
use crate::error::Error;

/// Idle HTTP/1.1 connections kept per upstream.
const MAX_IDLE: usize = 64;
/// An idle connection not ready by then is not idle: its upstream has answered early, and does not read the rest.
const MAX_UNREADY_TIME: Duration = Duration::from_secs(1);
/// The oldest of more than one idle connection goes after this.
const MAX_IDLE_TIME: Duration = Duration::from_secs(30);

/// The connections of one upstream that no exchange is using, and the shared ones of HTTP/2.
#[derive(Debug, Default)]
pub(super) struct Pool {
    idle: Mutex<Idle>,
    /// The exchanges of an HTTP/2 upstream share the first of these that takes one more.
    shared: Mutex<Vec<Connection>>,
    /// There has been a shared one: spares the others the look.
    shares: AtomicBool,
    /// The last connection made carries one exchange at a time.
    alone: AtomicBool,
    /// Held by who makes a connection that may become the shared one, so that others wait for it rather than make their
    /// own. What the last who failed has met, and when.
    turn: sync::Mutex<Option<(Instant, Error)>>,
}

#[derive(Debug, Default)]
struct Idle {
    connections: Vec<Sleeping>,
    patience: Patience,
    /// Somebody looks after those that were not ready when they were given back.
    swept: bool,
}

#[derive(Debug)]
struct Sleeping {
    connection: Connection,
    keep: Option<Duration>,
    since: Instant,
}

/// A connection lent to one exchange.
#[derive(Debug)]
pub(super) struct Lease {
    pub(super) connection: Connection,
    /// Used before: it may have been closed by the upstream meanwhile.
    pub(super) reused: bool,
    /// How long it had been idle.
    idle: Duration,
    /// What had come in on it by then.
    reads: u64,
    /// How long the upstream keeps it, as far as it has told.
    keep: Option<Duration>,
    pool: Arc<Pool>,
}

impl Pool {
    /// A connection that can take a request now.
    pub(super) fn checkout(self: &Arc<Self>, now: Instant) -> Option<Lease> {
        if self.shares.load(Relaxed)
            && let Some(lease) = self.checkout_shared(now, |_| true)
        {
            return Some(lease);
        }
        let mut idle = lock(&self.idle);
        let Idle { connections, patience, .. } = &mut *idle;
        let mut at = connections.len();
        while at > 0 {
            at -= 1;
            let candidate = connections.get(at)?;
            let slept = now.saturating_duration_since(candidate.since);
            if candidate.connection.is_closed() {
                if let Some(ended) = candidate.connection.wire.ended() {
                    patience.learn(ended.saturating_duration_since(candidate.since), now);
                }
                connections.remove(at);
            } else if !candidate.connection.wire.is_current(now)
                || slept >= patience.limit(candidate.keep, now)
            {
                connections.remove(at);
            } else if candidate.connection.is_ready() {
                let Sleeping { connection, keep, .. } = connections.remove(at);
                let reads = connection.wire.reads();
                let pool = Arc::clone(self);
                return Some(Lease { connection, reused: true, idle: slept, reads, keep, pool });
            }
        }
        None
    }

    fn checkout_shared(self: &Arc<Self>, now: Instant, which: impl Fn(&Wire) -> bool) -> Option<Lease> {
        let mut shared = lock(&self.shared);
        // Exchanges on those that leave hold their own handles and go on.
        shared.retain(|connection| !connection.is_closed() && connection.wire.is_current(now));
        let connection =
            shared.iter().filter(|connection| which(&connection.wire)).find_map(Connection::share)?;
        drop(shared);
        Some(self.lend(connection, true))
    }

    fn lend(self: &Arc<Self>, connection: Connection, reused: bool) -> Lease {
        let pool = Arc::clone(self);
        Lease { connection, reused, idle: Duration::ZERO, reads: 0, keep: None, pool }
    }

    /// Takes in a connection just made, and lends it.
    pub(super) fn admit(self: &Arc<Self>, connection: Connection) -> Lease {
        self.alone.store(!connection.is_shared(), Relaxed);
        let Some(first) = connection.share() else { return self.lend(connection, false) };
        lock(&self.shared).push(connection);
        self.shares.store(true, Relaxed);
        self.lend(first, false)
    }

    /// Makes a connection. Where it may turn out to be one that all share (`may_share`), one makes it and the others wait:
    /// for the connection, or for what went wrong with it. `anew`: none that was there before will do. Who gives up making it leaves it to the next.
    pub(super) async fn make<F>(
        self: &Arc<Self>,
        may_share: bool,
        anew: bool,
        make: impl FnOnce() -> F,
    ) -> Result<Lease, Error>
    where
        F: Future<Output = Result<Connection, Error>>,
    {
        let came = Instant::now();
        let is_alone = || !may_share || self.alone.load(Relaxed);
        if is_alone() {
            return Ok(self.admit(make().await?));
        }
        let mut turn = self.turn.lock().await;
        if let Some(lease) = self.checkout_shared(Instant::now(), |wire| !anew || wire.is_younger(came)) {
            return Ok(lease);
        }
        if let Some((_, error)) = turn.as_ref().filter(|(failed, _)| *failed > came) {
            return Err(error.clone());
        }
        if is_alone() {
            drop(turn);
            return Ok(self.admit(make().await?));
        }
        match make().await {
            Ok(connection) => Ok(self.admit(connection)),
            Err(error) => {
                *turn = Some((Instant::now(), error.clone()));
                Err(error)
            }
        }
    }
}

impl Lease {
    /// What the answer says about keeping the connection.
    pub(super) fn told(&mut self, headers: &HeaderMap) {
        if !self.connection.is_shared()
            && let Some(keep) = idle::told(headers)
        {
            self.keep = Some(keep);
        }
    }

    /// Whether nothing has come in on it since it was used before. Of a connection that is shared nobody can tell what
    /// came for whom.
    pub(super) fn is_unheard(&self) -> bool {
        self.reused && !self.connection.is_shared() && self.connection.wire.reads() == self.reads
    }

    /// Whether others used it before, or use it now.
    pub(super) fn is_shared(&self) -> bool {
        self.reused && self.connection.is_shared()
    }

    /// The upstream had ended it by the time it was lent, or was about to.
    pub(super) fn had_ended(&self) {
        if self.connection.is_shared() {
            self.forget();
        } else if self.reused {
            lock(&self.pool.idle).patience.learn(self.idle, Instant::now());
        }
    }

    /// The next exchange takes another connection.
    pub(super) fn forget(&self) {
        let wire = &self.connection.wire;
        lock(&self.pool.shared).retain(|shared| !Arc::ptr_eq(&shared.wire, wire));
    }

    /// Gives the connection back after a complete exchange. Without this it is closed.
    pub(super) fn give_back(self) {
        let Lease { connection, keep, pool, .. } = self;
        if connection.is_closed() || connection.is_shared() {
            return;
        }
        let since = Instant::now();
        let is_ready = connection.is_ready();
        let mut idle = lock(&pool.idle);
        let connections = &mut idle.connections;
        let oldest = connections.first();
        if oldest.is_some_and(|oldest| since - oldest.since >= MAX_IDLE_TIME) || connections.len() >= MAX_IDLE
        {
            connections.remove(0);
        }
        connections.push(Sleeping { connection, keep, since });
        if !is_ready
            && !idle.swept
            && let Ok(runtime) = Handle::try_current()
        {
            idle.swept = true;
            drop(idle);
            runtime.spawn(sweep(Arc::downgrade(&pool)));
        }
    }
}

/// Ends what is not ready in time, as long as there is something that is not ready.
async fn sweep(pool: Weak<Pool>) {
    loop {
        sleep(MAX_UNREADY_TIME).await;
        let Some(pool) = pool.upgrade() else { return };
        let now = Instant::now();
        let mut idle = lock(&pool.idle);
        let in_time = |sleeping: &Sleeping| now - sleeping.since < MAX_UNREADY_TIME;
        idle.connections.retain(|sleeping| {
            sleeping.connection.is_ready() || sleeping.connection.is_closed() || in_time(sleeping)
        });
        let mut connections = idle.connections.iter();
        idle.swept =
            connections.any(|Sleeping { connection, .. }| !connection.is_ready() && !connection.is_closed());
        if !idle.swept {
            return;
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic while it was held cannot have left a list half changed.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
