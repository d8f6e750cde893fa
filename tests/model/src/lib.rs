//! The promise of docs/cache.md, held against schedules: a write that was acknowledged is seen by every search that
//! starts later.
//!
//! The fences and the store are those of `src/cache`, included by `build.rs`; what is around them (`scenario.rs`) is a
//! vector store with versions, searches that share flights, and writes that are applied at once, late, or with nobody
//! knowing. Shuttle decides who takes the next step.

/// The time, as far as a schedule has moved it on. Every thread of a schedule is on one thread of the system.
pub mod clock {
    use std::cell::Cell;
    use std::time::Duration;

    thread_local!(static NOW: Cell<Duration> = const { Cell::new(Duration::ZERO) });

    /// Stands in for tokio's.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
    pub struct Instant(Duration);

    impl Instant {
        pub fn now() -> Self {
            Self(NOW.get())
        }

        pub fn elapsed(&self) -> Duration {
            NOW.get() - self.0
        }

        pub fn saturating_duration_since(&self, other: Self) -> Duration {
            self.0.saturating_sub(other.0)
        }
    }

    pub fn reset() {
        NOW.set(Duration::ZERO);
    }

    pub fn advance(by: Duration) {
        NOW.set(NOW.get() + by);
    }
}

macro_rules! model {
    ($($name:ident)*) => {$(
        #[allow(dead_code, reason = "the model has no use for some of it")]
        pub mod $name {
            mod cache {
                pub(super) mod fence {
                    include!(concat!(env!("OUT_DIR"), "/", stringify!($name), "/fence.rs"));
                }
                pub(super) mod store {
                    include!(concat!(env!("OUT_DIR"), "/", stringify!($name), "/store.rs"));
                }
                pub(super) mod key {
                    /// Who asks what; nothing is calculated.
                    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
                    pub struct Key(pub usize);
                }
                mod shared {
                    pub(super) mod trust {
                        /// Of instances that share; there is one.
                        #[derive(Debug)]
                        pub enum Trust {}

                        impl Trust {
                            pub fn touch(&self, _: crate::clock::Instant) {}

                            pub fn holds(&self, _: crate::clock::Instant) -> bool {
                                true
                            }

                            pub fn current(&self, _: &super::super::fence::Stamp) -> bool {
                                true
                            }
                        }
                    }
                }
                mod sync {
                    pub(super) use shuttle::sync::atomic::{AtomicU32, AtomicU64};

                    pub(super) use crate::clock::Instant;
                }
            }
            use cache::fence::{Fences, Scope, Settle};
            use cache::key::Key;
            use cache::store::{Hit, Lifetime, Store, Under};

            include!("scenario.rs");
        }
    )*};
}

model! {
    as_is bump_only_before bump_only_after settle_judged_on_arrival settle_forgotten
    flight_across_the_end_of_settling flight_across_the_end_of_one_of_two compare_forgotten_on_hits
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    use shuttle::Runner;
    use shuttle::scheduler::{PctScheduler, RandomScheduler};

    use super::*;

    /// Schedules of each kind: some thousands each time, a million in all by `make model`.
    fn schedules() -> usize {
        if std::env::var_os("PILLION_MODEL").is_some() { 500_000 } else { 5_000 }
    }

    /// The same orders each time; `PILLION_SEED` is for others.
    fn seed() -> u64 {
        std::env::var("PILLION_SEED").map_or(1, |seed| seed.parse().expect("a number"))
    }

    /// Any thread may take any step.
    fn any_order(schedule: impl Fn() + Send + Sync + 'static, count: usize) {
        Runner::new(RandomScheduler::new_from_seed(seed(), count), Default::default()).run(schedule);
    }

    /// The same thread takes step after step but for a few changes (PCT): what needs long stretches is found so.
    fn few_changes(schedule: impl Fn() + Send + Sync + 'static, count: usize) {
        Runner::new(PctScheduler::new_from_seed(seed(), CHANGES, count), Default::default()).run(schedule);
    }

    /// Changes of turn that a schedule with few of them has.
    const CHANGES: usize = 4;

    /// Enough for a mistake that is there.
    const TRIES: usize = 300_000;

    #[test]
    fn no_answer_is_stale_in_any_order() {
        any_order(as_is::schedule, schedules());
    }

    #[test]
    fn no_answer_is_stale_with_few_changes_of_turn() {
        few_changes(as_is::schedule, schedules());
    }

    #[test]
    fn names_of_the_model_do_not_meet_in_its_small_table() {
        any_order(as_is::names_are_apart, 1);
    }

    #[test]
    fn what_the_model_is_about_happens() {
        let seen = Arc::new(as_is::Seen::default());
        let told = Arc::clone(&seen);
        any_order(move || as_is::schedule_seen(&told), 5_000);
        let [searches, hits, collapsed, stored, writes] = seen.counts();
        println!("{searches} searches: {hits} hits, {collapsed} collapsed, {stored} stored; {writes} writes");
        assert!(
            hits * 10 > searches && collapsed * 50 > searches && stored * 10 > searches && writes > 5_000
        );
    }

    /// The planted mistake is found, as a stale answer and not as anything else.
    fn is_found(name: &str, schedule: fn()) {
        let tried = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&tried);
        let counted = move || {
            count.fetch_add(1, Relaxed);
            schedule();
        };
        let found = catch_unwind(AssertUnwindSafe(|| few_changes(counted, TRIES)));
        let Err(panic) = found else { panic!("{name} is not found in {TRIES} schedules") };
        let text = panic
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
            .unwrap_or_default();
        assert!(text.contains("is stale"), "{name}: {text}");
        println!("{name}: found in schedule {}", tried.load(Relaxed));
    }

    #[test]
    fn each_planted_mistake_is_found() {
        is_found("bump only before", bump_only_before::schedule);
        is_found("bump only after", bump_only_after::schedule);
        is_found("settle judged on arrival", settle_judged_on_arrival::schedule);
        is_found("settle forgotten", settle_forgotten::schedule);
        is_found("flight across the end of settling", flight_across_the_end_of_settling::schedule);
        is_found("flight across the end of one of two", flight_across_the_end_of_one_of_two::schedule);
        is_found("compare forgotten on hits", compare_forgotten_on_hits::schedule);
    }
}
