//! Connections kept for the next request: last in, first out, so that those not needed grow old and go.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::connect::Connection;

/// Idle HTTP/1.1 connections kept per upstream.
const MAX_IDLE: usize = 64;
/// An idle connection older than this is not used again: upstreams close theirs after a minute or more.
const MAX_IDLE_TIME: Duration = Duration::from_secs(30);
/// No connection is used longer than this, so that a change of address is seen.
const MAX_AGE: Duration = Duration::from_secs(300);

/// The connections of one upstream that no exchange is using, and the shared HTTP/2 one.
#[derive(Debug, Default)]
pub(super) struct Pool {
    idle: Mutex<Vec<Idle>>,
    /// Every exchange of an HTTP/2 upstream shares this one.
    shared: Mutex<Option<(Connection, Instant)>>,
    /// There has been a shared one: spares the others the look.
    shares: AtomicBool,
}

#[derive(Debug)]
struct Idle {
    connection: Connection,
    made: Instant,
    since: Instant,
}

/// A connection lent to one exchange.
#[derive(Debug)]
pub(super) struct Lease {
    pub(super) connection: Connection,
    /// Used before: it may have been closed by the upstream meanwhile.
    pub(super) reused: bool,
    made: Instant,
    pool: Arc<Pool>,
}

impl Pool {
    /// A connection that can take a request now.
    pub(super) fn checkout(self: &Arc<Self>, now: Instant) -> Option<Lease> {
        if self.shares.load(Relaxed)
            && let Some(lease) = self.checkout_shared(now)
        {
            return Some(lease);
        }
        let mut idle = lock(&self.idle);
        let mut at = idle.len();
        while at > 0 {
            at -= 1;
            let candidate = idle.get(at)?;
            let fresh = now - candidate.since < MAX_IDLE_TIME && now - candidate.made < MAX_AGE;
            if !fresh || candidate.connection.is_closed() {
                idle.remove(at);
            } else if candidate.connection.is_ready() {
                let Idle { connection, made, .. } = idle.remove(at);
                return Some(Lease { connection, reused: true, made, pool: Arc::clone(self) });
            }
        }
        None
    }

    fn checkout_shared(self: &Arc<Self>, now: Instant) -> Option<Lease> {
        let mut shared = lock(&self.shared);
        let (connection, made) = shared.as_ref()?;
        if connection.is_closed() || now - *made >= MAX_AGE {
            // Exchanges on it hold their own handles and go on.
            *shared = None;
            return None;
        }
        let connection = connection.share()?;
        Some(Lease { connection, reused: true, made: *made, pool: Arc::clone(self) })
    }

    /// The shared connection is not answering: the next exchange makes another.
    pub(super) fn forget_shared(&self) {
        *lock(&self.shared) = None;
    }

    /// Takes in a connection just made, and lends it.
    pub(super) fn admit(self: &Arc<Self>, connection: Connection) -> Lease {
        let made = Instant::now();
        if let Some(again) = connection.share() {
            *lock(&self.shared) = Some((again, made));
            self.shares.store(true, Relaxed);
        }
        Lease { connection, reused: false, made, pool: Arc::clone(self) }
    }
}

impl Lease {
    /// Gives the connection back after a complete exchange. Without this it is closed.
    pub(super) fn give_back(self) {
        let Lease { connection, made, pool, .. } = self;
        if connection.is_closed() || connection.share().is_some() {
            return;
        }
        let since = Instant::now();
        let mut idle = lock(&pool.idle);
        if idle.first().is_some_and(|oldest| since - oldest.since >= MAX_IDLE_TIME) || idle.len() >= MAX_IDLE
        {
            idle.remove(0);
        }
        idle.push(Idle { connection, made, since });
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic while it was held cannot have left a list half changed.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
