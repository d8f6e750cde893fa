//! When a connection is given up, and how long it is left alone then. Pure: what happened and chance come in as values.

use std::time::Duration;

use tokio::time::Instant;

/// Failures in a row after which the connection is given up,
const FAILURES: u32 = 3;
/// if they are not all of one moment: many calls fail together when this process had no time for them.
const MOMENT: Duration = Duration::from_millis(200);
/// The first wait before the next probe, at most.
const FIRST: Duration = Duration::from_millis(100);
/// The longest, at most: with a second for the probe itself, Redis is back in use within two seconds of its return.
const LONGEST: Duration = Duration::from_millis(800);

/// Failures in a row on one connection.
#[derive(Debug, Default)]
pub(super) struct Run {
    count: u32,
    first: Option<Instant>,
}

impl Run {
    pub(super) fn succeeded(&mut self) {
        *self = Self::default();
    }

    /// Whether this one is enough.
    pub(super) fn failed(&mut self, now: Instant) -> bool {
        self.count += 1;
        let first = *self.first.get_or_insert(now);
        self.count >= FAILURES && now.saturating_duration_since(first) >= MOMENT
    }
}

/// The wait before the next probe, after so many in vain. `random` is in `0..1`: instances that lost Redis together do
/// not come back together.
pub(super) fn wait(probes: u32, random: f64) -> Duration {
    let longest = FIRST.saturating_mul(1 << probes.min(10)).min(LONGEST);
    longest.mul_f64(0.5 + random.clamp(0.0, 1.0) / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_failures_in_a_row_count_that_are_not_of_one_moment() {
        let (mut run, begun) = (Run::default(), Instant::now());
        let mut failed = |millis| run.failed(begun + Duration::from_millis(millis));
        assert!(!failed(0) && !failed(1) && !failed(2) && !failed(199) && failed(200));
        run.succeeded();
        let mut failed = |millis| run.failed(begun + Duration::from_millis(millis));
        assert!(!failed(300) && !failed(900) && failed(901));
    }

    #[test]
    fn waits_grow_to_their_bound_with_jitter() {
        let millis = |probes, random| wait(probes, random).as_millis();
        assert_eq!((millis(0, 0.0), millis(0, 1.0)), (50, 100));
        assert_eq!((millis(1, 0.0), millis(2, 1.0)), (100, 400));
        assert_eq!((millis(3, 1.0), millis(99, 1.0), millis(99, 0.0)), (800, 800, 400));
    }
}
