//! Which call the demo's upstream fails, and how long a search takes.
//!
//! Both are functions of the seed and of how many calls came before, never of the clock: the first thousand calls see
//! the same faults in every run, whoever makes them. Retries are calls like any other.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// One call in how many fails.
const ONE_IN: u64 = 20;

/// How a call fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// 429, at once and without doing anything.
    TooMany,
    /// 500, after the usual time.
    Broken,
    /// 503, at once and without doing anything.
    Unavailable,
    /// The connection is closed after the usual time, before any byte of a response.
    Cut,
}

/// What is drawn for one call.
#[derive(Clone, Copy, Debug)]
pub(super) struct Draw {
    /// `None`: it is answered properly.
    pub(super) fault: Option<Fault>,
    /// A write that breaks or is cut was applied all the same.
    pub(super) applied: bool,
    /// What a search takes: uniform from 200 to 500 ms.
    pub(super) search: Duration,
}

/// Draws for one call after the other.
#[derive(Debug)]
pub(super) struct Faults {
    seed: u64,
    calls: AtomicU64,
}

impl Faults {
    /// The sequence of a seed.
    pub(super) fn new(seed: u64) -> Self {
        Self { seed, calls: AtomicU64::new(0) }
    }

    /// What befalls the next call.
    pub(super) fn next(&self) -> Draw {
        let call = self.calls.fetch_add(1, Ordering::Relaxed);
        let mut rng = fastrand::Rng::with_seed(mix(self.seed, call));
        let fault = (rng.u64(..ONE_IN) == 0).then(|| match rng.u8(..4) {
            0 => Fault::TooMany,
            1 => Fault::Broken,
            2 => Fault::Unavailable,
            _ => Fault::Cut,
        });
        Draw { fault, applied: rng.bool(), search: Duration::from_micros(rng.u64(200_000..=500_000)) }
    }
}

/// Spreads neighbouring numbers (`SplitMix64`), so that call n and call n + 1 have nothing in common.
pub(super) fn mix(seed: u64, number: u64) -> u64 {
    let mut z = seed.wrapping_add(number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_in_a_hundred_fail_in_four_ways() {
        let faults = Faults::new(7);
        let draws: Vec<Draw> = (0..100_000).map(|_| faults.next()).collect();
        let count = |fault: Fault| draws.iter().filter(|draw| draw.fault == Some(fault)).count();
        for fault in [Fault::TooMany, Fault::Broken, Fault::Unavailable, Fault::Cut] {
            assert!((1_000..1_500).contains(&count(fault)), "{fault:?}: {}", count(fault));
        }
        let mean = draws.iter().map(|draw| draw.search).sum::<Duration>() / 100_000;
        assert!((345..355).contains(&mean.as_millis()), "{mean:?}");
    }

    #[test]
    fn a_seed_is_a_sequence() {
        let draws = |seed| -> Vec<_> {
            let faults = Faults::new(seed);
            (0..1000).map(|_| faults.next()).map(|draw| (draw.fault, draw.search)).collect()
        };
        assert_eq!(draws(1), draws(1));
        assert_ne!(draws(1), draws(2));
    }
}
