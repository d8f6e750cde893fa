//! When an answer in this process's own memory may be used although others write, too: under a lease.
//!
//! A *tick* is sent through Redis to ourselves, over the connection on which writes are told. When it comes, all that
//! was told before it was sent has come too, for it passes the same server and the same connection behind it. So the
//! lease counts from when the tick was *sent*: a write that is told later is missed for [`LENGTH`] at most. Without
//! ticks, whatever keeps them away, the lease runs out by itself.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::cache::fence::{Fences, Stamp};

/// How old an answer may be past a write that was told.
pub(super) const LENGTH: Duration = Duration::from_secs(1);
/// How long a lease lasts: less, for the time between looking at the clock and the answer's leaving.
const LEASE: Duration = Duration::from_millis(900);
/// How often the lease is renewed.
pub(super) const TICK: Duration = Duration::from_millis(300);
/// Without a search for so long it is not renewed: nobody would use it.
pub(super) const IDLE: Duration = Duration::from_secs(60);
/// How exact the time of the last search is.
const GRAIN: Duration = Duration::from_secs(1);

/// The lease, and the fences that others' writes move.
#[derive(Debug)]
pub struct Trust {
    /// Beside the process's own: hashed with the shared secret, moved by messages.
    pub(super) mirror: Fences,
    begun: Instant,
    /// Nanoseconds since `begun`; 0: there is none.
    until: AtomicU64,
    /// Nanoseconds since `begun` of the last search, to the second.
    used: AtomicU64,
    pub(super) woken: Notify,
}

impl Trust {
    pub(super) fn new(key: [u8; 16]) -> Self {
        Self {
            mirror: Fences::new(key),
            begun: Instant::now(),
            until: AtomicU64::new(0),
            used: AtomicU64::new(0),
            woken: Notify::new(),
        }
    }

    /// Whether the process's own memory may be used now.
    pub fn holds(&self, now: Instant) -> bool {
        self.nanos(now) < self.until.load(SeqCst)
    }

    /// Whether no write was told in the scope since this was taken.
    pub fn current(&self, stamp: &Stamp) -> bool {
        self.mirror.current(stamp)
    }

    /// A search has come: keeps the lease from being given up.
    pub fn touch(&self, now: Instant) {
        let (now, used) = (self.nanos(now), self.used.load(Relaxed));
        if used == 0 || now.saturating_sub(used) >= GRAIN.as_nanos() as u64 {
            self.used.store(now, Relaxed);
            self.woken.notify_one();
        }
    }

    pub(super) fn is_idle(&self, now: Instant) -> bool {
        let used = self.used.load(Relaxed);
        used == 0 || self.nanos(now).saturating_sub(used) >= IDLE.as_nanos() as u64
    }

    /// A tick that was sent then has come back.
    pub(super) fn grant(&self, sent: u64) {
        self.until.fetch_max(sent.saturating_add(LEASE.as_nanos() as u64), SeqCst);
    }

    /// Nothing is heard any more.
    pub(super) fn revoke(&self) {
        self.until.store(0, SeqCst);
    }

    /// What a tick says of when it was sent. Never 0.
    pub(super) fn nanos(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.begun).as_nanos() as u64 + 1
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::time::advance;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    enum Sent {
        Tick(u64),
        Write,
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_counts_from_when_the_tick_was_sent() {
        let trust = Trust::new([1; 16]);
        assert!(!trust.holds(Instant::now()));
        let sent = trust.nanos(Instant::now());
        advance(400 * MS).await;
        trust.grant(sent);
        assert!(trust.holds(Instant::now()));
        advance(499 * MS).await;
        assert!(trust.holds(Instant::now()));
        advance(MS).await;
        assert!(!trust.holds(Instant::now()), "900 ms after it was sent, not after it came");
    }

    #[tokio::test(start_paused = true)]
    async fn a_tick_that_comes_too_late_gives_none() {
        let trust = Trust::new([1; 16]);
        let sent = trust.nanos(Instant::now());
        advance(LENGTH).await;
        trust.grant(sent);
        assert!(!trust.holds(Instant::now()));
    }

    #[tokio::test(start_paused = true)]
    async fn an_older_tick_does_not_shorten_it_and_a_loss_ends_it() {
        let trust = Trust::new([1; 16]);
        let first = trust.nanos(Instant::now());
        advance(300 * MS).await;
        let second = trust.nanos(Instant::now());
        trust.grant(second);
        trust.grant(first);
        advance(800 * MS).await;
        assert!(trust.holds(Instant::now()));
        trust.revoke();
        assert!(!trust.holds(Instant::now()));
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_idle_a_minute_after_the_last_search() {
        let trust = Trust::new([1; 16]);
        assert!(trust.is_idle(Instant::now()), "no search has ever come");
        advance(10 * MS).await;
        trust.touch(Instant::now());
        assert!(!trust.is_idle(Instant::now()));
        advance(IDLE).await;
        assert!(trust.is_idle(Instant::now()));
        trust.touch(Instant::now());
        assert!(!trust.is_idle(Instant::now()));
    }

    proptest! {
        /// Time goes on, ticks are sent and come back late or never, writes are told at any time and their messages come
        /// in order with the ticks or never: no answer is ever used more than a second past a write that was told.
        #[test]
        fn nothing_older_than_a_second_is_trusted(
            steps in prop::collection::vec((0_u64..200, 0_u8..5), 1..300),
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
            runtime.block_on(async {
                let trust = Trust::new([2; 16]);
                let scope = super::super::secret::Derived::of(b"s").slots.scope("h", [None]);
                let slot = scope.write().next().unwrap();
                let (mut wire, mut cut) = (std::collections::VecDeque::new(), false);
                let mut stamp = trust.mirror.stamp(&scope);
                // The first write that was told since the stamp was taken.
                let mut told: Option<Instant> = None;
                for (wait, what) in steps {
                    advance(Duration::from_millis(wait)).await;
                    match what {
                        0 if !cut => wire.push_back(Sent::Tick(trust.nanos(Instant::now()))),
                        1 => {
                            told.get_or_insert(Instant::now());
                            if !cut {
                                wire.push_back(Sent::Write);
                            }
                        }
                        2 => match wire.pop_front() {
                            Some(Sent::Tick(sent)) => trust.grant(sent),
                            Some(Sent::Write) => trust.mirror.shift(slot),
                            None => {}
                        },
                        3 if wait % 7 == 0 => cut = true,
                        // A new answer was stored.
                        4 if wait % 3 == 0 => (stamp, told) = (trust.mirror.stamp(&scope), None),
                        _ => {}
                    }
                    let now = Instant::now();
                    if trust.holds(now) && trust.current(&stamp)
                        && let Some(told) = told
                    {
                        prop_assert!(now - told < LENGTH, "trusted {:?} after a write was told", now - told);
                    }
                }
                Ok(())
            })?;
        }
    }
}
