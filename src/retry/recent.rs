//! How much happened in the last seconds, counted without a lock.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Seconds that count as recent, the running one included.
pub(super) const SECONDS: u64 = 10;

/// A count of each of the last seconds: the second above, its count below.
#[derive(Debug, Default)]
pub(super) struct Recent([AtomicU64; SECONDS as usize]);

const COUNT: u64 = u32::MAX as u64;

impl Recent {
    /// One more in this second, counted from any moment that stays the same.
    pub(super) fn count(&self, second: u64) {
        let Some(slot) = self.0.get((second % SECONDS) as usize) else { return };
        // One that another thread has moved on meanwhile is no longer recent, and nothing is lost by it.
        let _ = slot.fetch_update(Relaxed, Relaxed, |known| {
            Some(if known >> 32 == second & COUNT { known + 1 } else { ((second & COUNT) << 32) | 1 })
        });
    }

    /// The sum of the seconds that are recent in this second and not before `since`.
    pub(super) fn sum(&self, second: u64, since: u64) -> u64 {
        let from = since.max(second.saturating_sub(SECONDS - 1)) & COUNT;
        let slots = self.0.iter().map(|slot| slot.load(Relaxed));
        slots.filter(|slot| (from..=second & COUNT).contains(&(slot >> 32))).map(|slot| slot & COUNT).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_seconds_count() {
        let recent = Recent::default();
        assert_eq!(recent.sum(0, 0), 0);
        for second in 0..25 {
            recent.count(second);
            recent.count(second);
            assert_eq!(recent.sum(second, 0), 2 * (second + 1).min(SECONDS));
        }
        assert_eq!(recent.sum(24, 23), 4, "none before a moment");
        assert_eq!(recent.sum(33, 0), 2, "the last of them");
        assert_eq!(recent.sum(34, 0), 0, "all over");
    }

    #[test]
    fn threads_lose_nothing() {
        let recent = Recent::default();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..10_000).for_each(|_| recent.count(7)));
            }
        });
        assert_eq!(recent.sum(7, 0), 40_000);
    }
}
