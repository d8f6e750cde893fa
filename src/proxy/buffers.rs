//! The budget out of which requests hold their content: never more than the limit, however many come at once.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Weak};

use crate::shard::Sharded;

/// What a shard keeps of the budget for its next request, at most: that of a search or a conversation as they mostly are.
const KEPT: u64 = 64 << 10;

/// The budget of all request content held for replay, in bytes.
#[derive(Debug)]
pub(crate) struct Buffers {
    limit: u64,
    /// By requests and by shards, together never more than the limit.
    taken: AtomicU64,
    shards: Sharded<Arc<Shard>>,
}

/// What requests of one thread have given back of the budget, for the next of them. Where the budget ends it is
/// everybody's.
#[derive(Debug)]
// Two cache lines, which processors fetch together.
#[repr(align(128))]
struct Shard {
    kept: AtomicU64,
    buffers: Weak<Buffers>,
}

/// A share of the budget, given back when dropped.
#[derive(Debug)]
pub(crate) struct Reservation {
    shard: Arc<Shard>,
    pub(super) bytes: u64,
}

impl Buffers {
    pub(crate) fn new(limit: u64, shards: usize) -> Arc<Self> {
        Arc::new_cyclic(|buffers| Self {
            limit,
            taken: AtomicU64::new(0),
            shards: Sharded::new(shards, || Shard::new(buffers.clone())),
        })
    }

    /// Bytes that requests hold.
    pub(crate) fn used(&self) -> u64 {
        let kept = self.shards.iter().map(|shard| shard.kept.load(Relaxed)).sum();
        self.taken.load(Relaxed).saturating_sub(kept)
    }

    pub(super) fn reserve(self: &Arc<Self>) -> Reservation {
        let shard = self.shards.here();
        Reservation { shard: Arc::clone(shard), bytes: 0 }
    }

    /// Takes of what nobody has, if there is so much.
    fn take(&self, bytes: u64) -> bool {
        let fits = |taken: u64| taken.checked_add(bytes).filter(|taken| *taken <= self.limit);
        self.taken.fetch_update(Relaxed, Relaxed, fits).is_ok()
    }

    /// Takes back what is kept for requests that have not come.
    #[cold]
    fn call_in(&self) {
        let kept = self.shards.iter().map(|shard| shard.kept.swap(0, Relaxed)).sum();
        self.taken.fetch_sub(kept, Relaxed);
    }
}

impl Shard {
    fn new(buffers: Weak<Buffers>) -> Arc<Self> {
        Arc::new(Self { kept: AtomicU64::new(0), buffers })
    }

    fn take(&self, bytes: u64) -> bool {
        self.kept.fetch_update(Relaxed, Relaxed, |kept| kept.checked_sub(bytes)).is_ok()
            || self.buffers.upgrade().is_some_and(|buffers| {
                buffers.take(bytes) || {
                    buffers.call_in();
                    buffers.take(bytes)
                }
            })
    }

    fn give_back(&self, bytes: u64) {
        let fits = |kept: u64| kept.checked_add(bytes).filter(|kept| *kept <= KEPT);
        if self.kept.fetch_update(Relaxed, Relaxed, fits).is_err()
            && let Some(buffers) = self.buffers.upgrade()
        {
            buffers.taken.fetch_sub(bytes, Relaxed);
        }
    }
}

impl Reservation {
    /// Takes more of the budget, if there is so much.
    pub(super) fn grow(&mut self, bytes: u64) -> bool {
        let taken = self.shard.take(bytes);
        if taken {
            self.bytes += bytes;
        }
        taken
    }

    /// Whether so much more could be taken now.
    pub(super) fn could_grow(&self, bytes: u64) -> bool {
        let buffers = self.shard.buffers.upgrade();
        buffers.is_some_and(|buffers| buffers.used().saturating_add(bytes) <= buffers.limit)
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.shard.give_back(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_budget_is_never_exceeded_and_given_back() {
        let buffers = Buffers::new(10, 1);
        let (mut one, mut two) = (buffers.reserve(), buffers.reserve());
        assert!(one.grow(6) && !two.grow(5) && two.grow(4));
        assert_eq!(buffers.used(), 10);
        drop(one);
        assert!(two.grow(6) && !two.grow(1));
        drop(two);
        assert_eq!(buffers.used(), 0);
    }

    #[test]
    fn what_other_threads_keep_is_not_lost() {
        let buffers = Buffers::new(10, 8);
        for bytes in 1..=10 {
            // A thread of its own, and so mostly another shard than the last.
            std::thread::scope(|scope| {
                scope.spawn(|| assert!(buffers.reserve().grow(bytes))).join().unwrap();
            });
            assert_eq!(buffers.used(), 0);
        }
        let mut all = buffers.reserve();
        assert!(all.grow(10) && !all.grow(1));
        assert_eq!(buffers.used(), 10);
    }

    #[test]
    fn threads_never_hold_more_than_the_budget() {
        // Less than all of them want at once, and more than shards keep.
        const LIMIT: u64 = 3 * KEPT;
        let (buffers, held) = (Buffers::new(LIMIT, 3), AtomicU64::new(0));
        std::thread::scope(|scope| {
            for seed in 0..4 {
                let (buffers, held) = (&buffers, &held);
                scope.spawn(move || {
                    let mut random = fastrand::Rng::with_seed(seed);
                    for _ in 0..5000 {
                        let mut reservation = buffers.reserve();
                        for _ in 0..random.u64(..4) {
                            let bytes = random.u64(..KEPT / 2) << random.u64(..2);
                            if reservation.grow(bytes) {
                                assert!(held.fetch_add(bytes, Relaxed) + bytes <= LIMIT);
                            }
                        }
                        held.fetch_sub(reservation.bytes, Relaxed);
                    }
                });
            }
        });
        assert_eq!(buffers.used(), 0);
        assert!(buffers.reserve().grow(LIMIT));
    }
}
