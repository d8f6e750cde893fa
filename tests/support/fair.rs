//! Time as far as this thread was given any.
//!
//! A bound of a few milliseconds must not fail because another process held the processor. Linux tells for how long a
//! thread was ready and had to wait (`/proc/thread-self/schedstat`, second number); all of a test on a runtime of one
//! thread runs on that thread, Pillion included, so what remains is what we took ourselves.

use std::time::{Duration, Instant};

/// A moment, and how long this thread had waited for a processor until then.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    at: Instant,
    starved: Duration,
}

impl Moment {
    pub(crate) fn now() -> Self {
        let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
        let nanos = text.split(' ').nth(1).and_then(|text| text.parse().ok()).unwrap_or(0);
        Self { at: Instant::now(), starved: Duration::from_nanos(nanos) }
    }

    /// From `earlier` to here, on the clock on the wall.
    pub(crate) fn since(self, earlier: Moment) -> Duration {
        self.at - earlier.at
    }

    /// The same without the time that was not ours.
    pub(crate) fn fairly_since(self, earlier: Moment) -> Duration {
        self.since(earlier).saturating_sub(self.starved.saturating_sub(earlier.starved))
    }
}
