//! Order statistics, and the clock that both ends share.

use std::time::{SystemTime, UNIX_EPOCH};

/// Nanoseconds since 1970: the upstream stamps its events with them, and the client reads them on the same machine.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |passed| passed.as_nanos() as u64)
}

/// Samples in nanoseconds.
#[derive(Default)]
pub(crate) struct Samples(pub(crate) Vec<u64>);

impl Samples {
    /// The nearest rank, in microseconds.
    pub(crate) fn percentile(&mut self, percent: f64) -> f64 {
        self.0.sort_unstable();
        let rank = (percent / 100.0 * self.0.len() as f64).ceil() as usize;
        self.0.get(rank.saturating_sub(1)).map_or(f64::NAN, |nanoseconds| *nanoseconds as f64 / 1e3)
    }

    /// As members of a JSON object, in microseconds.
    pub(crate) fn members(&mut self, name: &str) -> String {
        if self.0.is_empty() {
            return format!("\"{name}_count\":0");
        }
        let [p50, p99, max] = [50.0, 99.0, 100.0].map(|percent| self.percentile(percent));
        format!(
            "\"{name}_count\":{},\"{name}_p50\":{p50:.1},\"{name}_p99\":{p99:.1},\"{name}_max\":{max:.1}",
            self.0.len()
        )
    }
}

/// Small, fast, the same everywhere: splitmix64.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}
