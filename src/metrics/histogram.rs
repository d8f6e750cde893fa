//! Counts in log-linear buckets: lock-free to record into, mergeable, with a bounded relative error.
//!
//! Each power of two is cut into 16 equal buckets, and a bucket stands for its middle: no quantile is further than
//! 1/32 (3.2 %) from the exact one inside a scale's range. Sum, minimum and maximum are kept exactly.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

/// 2^4 buckets per power of two.
const FINE: u32 = 4;

/// Which values a histogram tells apart.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scale {
    /// Values are told apart in steps of 2^unit at best.
    unit: u32,
    /// Values of 2^(unit + octaves) and more share the last bucket.
    octaves: u32,
}

impl Scale {
    /// Nanoseconds from 4 microseconds to 36 minutes.
    pub(super) const TIME: Scale = Scale { unit: 8, octaves: 33 };
    /// Numbers from 0 to 131,071; exact up to 31.
    pub(super) const SIZE: Scale = Scale { unit: 0, octaves: 17 };

    /// How many buckets cover the scale.
    const fn buckets(self) -> usize {
        ((self.octaves - FINE + 1) << FINE) as usize
    }

    /// The bucket of a value. The first 2^FINE units have a bucket each, so that small numbers are exact.
    fn index(self, value: u64) -> usize {
        let units = (value >> self.unit).min((1 << self.octaves) - 1);
        if units < 1 << FINE {
            return units as usize;
        }
        let shift = units.ilog2() - FINE;
        ((u64::from(shift) << FINE) + (units >> shift)) as usize
    }

    /// The middle of a bucket.
    fn middle(self, index: usize) -> f64 {
        let index = index as u64;
        let shift = (index >> FINE).saturating_sub(1);
        let low = (index - (shift << FINE)) << shift << self.unit;
        let width = 1u64 << shift << self.unit;
        // The greatest integer in the bucket is `low + width - 1`: a bucket of one number is that number.
        low as f64 + (width - 1) as f64 / 2.0
    }
}

/// Counts per bucket that any number of threads record into at once.
#[derive(Debug)]
pub(super) struct Histogram {
    scale: Scale,
    // A slot lives for a minute: 32 bits do, and halve the memory.
    buckets: Box<[AtomicU32]>,
    sum: AtomicU64,
    min: AtomicU64,
    max: AtomicU64,
}

impl Histogram {
    /// An empty histogram.
    pub(super) fn new(scale: Scale) -> Self {
        Self {
            scale,
            buckets: (0..scale.buckets()).map(|_| AtomicU32::new(0)).collect(),
            sum: AtomicU64::new(0),
            min: AtomicU64::new(u64::MAX),
            max: AtomicU64::new(0),
        }
    }

    /// Counts one value.
    pub(super) fn record(&self, value: u64) {
        self.sum.fetch_add(value, Relaxed);
        // Looked at first: there is seldom anything to write.
        if value < self.min.load(Relaxed) {
            self.min.fetch_min(value, Relaxed);
        }
        if value > self.max.load(Relaxed) {
            self.max.fetch_max(value, Relaxed);
        }
        if let Some(bucket) = self.buckets.get(self.scale.index(value)) {
            bucket.fetch_add(1, Relaxed);
        }
    }

    /// How many buckets it takes memory for.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.buckets.len()
    }

    /// Forgets everything. What is recorded meanwhile may be lost.
    pub(super) fn clear(&self) {
        for bucket in &self.buckets {
            bucket.store(0, Relaxed);
        }
        self.sum.store(0, Relaxed);
        self.min.store(u64::MAX, Relaxed);
        self.max.store(0, Relaxed);
    }
}

/// Histograms of one scale added up, to read figures from.
#[derive(Debug)]
pub(super) struct Merged {
    scale: Scale,
    buckets: Vec<u64>,
    count: u64,
    sum: u64,
    min: u64,
    max: u64,
}

impl Merged {
    /// Nothing yet.
    pub(super) fn new(scale: Scale) -> Self {
        Self { scale, buckets: vec![0; scale.buckets()], count: 0, sum: 0, min: u64::MAX, max: 0 }
    }

    /// Adds what a histogram of the same scale has counted. What is being recorded at this moment counts in part or
    /// not at all; the count is always that of the buckets.
    pub(super) fn add(&mut self, histogram: &Histogram) {
        for (mine, theirs) in self.buckets.iter_mut().zip(&histogram.buckets) {
            let counted = u64::from(theirs.load(Relaxed));
            *mine += counted;
            self.count += counted;
        }
        self.sum = self.sum.saturating_add(histogram.sum.load(Relaxed));
        self.min = self.min.min(histogram.min.load(Relaxed));
        self.max = self.max.max(histogram.max.load(Relaxed));
    }

    /// How many values.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// Their mean; 0 when there are none.
    pub(super) fn average(&self) -> f64 {
        if self.count == 0 { 0.0 } else { self.sum as f64 / self.count as f64 }
    }

    /// The smallest; 0 when there are none.
    pub(super) fn min(&self) -> f64 {
        if self.count == 0 { 0.0 } else { self.min as f64 }
    }

    /// The largest; 0 when there are none.
    pub(super) fn max(&self) -> f64 {
        if self.count == 0 { 0.0 } else { self.max as f64 }
    }

    /// The value at or below which a share `q` (0 to 1) of all values lies, by nearest rank; 0 when there are none.
    pub(super) fn quantile(&self, q: f64) -> f64 {
        if self.count == 0 {
            return 0.0;
        }
        let rank = ((q * self.count as f64).ceil() as u64).clamp(1, self.count);
        let mut below = 0;
        let found = self.buckets.iter().position(|counted| {
            below += counted;
            below >= rank
        });
        let middle = found.map_or(0.0, |index| self.scale.middle(index));
        // Not f64::clamp, which panics when a record in progress has moved one bound only.
        middle.max(self.min as f64).min(self.max as f64)
    }
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "small integers are exact")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn merged(scale: Scale, values: &[u64]) -> Merged {
        let histogram = Histogram::new(scale);
        for value in values {
            histogram.record(*value);
        }
        let mut merged = Merged::new(scale);
        merged.add(&histogram);
        merged
    }

    fn exact(values: &[u64], q: f64) -> u64 {
        let mut sorted = values.to_vec();
        sorted.sort_unstable();
        let rank = ((q * sorted.len() as f64).ceil() as usize).clamp(1, sorted.len());
        sorted[rank - 1]
    }

    #[test]
    fn buckets_follow_each_other_without_gap() {
        for scale in [Scale::TIME, Scale::SIZE] {
            assert_eq!(scale.index(0), 0);
            assert_eq!(scale.index(u64::MAX), scale.buckets() - 1);
            for index in 0..scale.buckets() {
                let middle = scale.middle(index);
                assert_eq!(scale.index(middle as u64), index, "{scale:?} {index}");
                if index > 0 {
                    assert!(scale.middle(index - 1) < middle);
                }
            }
        }
    }

    #[test]
    fn the_scales_reach_as_far_as_promised() {
        let minutes_20 = 20 * 60 * 1_000_000_000;
        assert!(Scale::TIME.index(minutes_20) < Scale::TIME.buckets() - 1);
        assert!(Scale::SIZE.index(100_000) < Scale::SIZE.buckets() - 1);
        assert!((0..=31).all(|n| Scale::SIZE.middle(Scale::SIZE.index(n)) as u64 == n));
    }

    #[test]
    fn figures_of_few_values() {
        let none = merged(Scale::TIME, &[]);
        assert_eq!((none.count(), none.average(), none.min(), none.max()), (0, 0.0, 0.0, 0.0));
        assert_eq!(none.quantile(0.5), 0.0);

        // One value is every quantile, exactly: bounded by minimum and maximum.
        let one = merged(Scale::TIME, &[123_456_789]);
        assert_eq!([0.0, 0.5, 0.99, 1.0].map(|q| one.quantile(q)), [123_456_789.0; 4]);

        let four = merged(Scale::SIZE, &[1, 2, 3, 20]);
        assert_eq!((four.count(), four.average(), four.min(), four.max()), (4, 6.5, 1.0, 20.0));
        assert_eq!((four.quantile(0.5), four.quantile(0.75), four.quantile(0.99)), (2.0, 3.0, 20.0));
    }

    #[test]
    fn what_is_out_of_range_still_counts() {
        let out = merged(Scale::SIZE, &[u64::from(u32::MAX), 7]);
        assert_eq!((out.count(), out.min(), out.max()), (2, 7.0, f64::from(u32::MAX)));
    }

    proptest! {
        #[test]
        fn time_quantiles_are_within_four_percent(
            values in prop::collection::vec((4.0f64..12.079).prop_map(|exponent| 10f64.powf(exponent) as u64), 1..400),
            q in 0.0f64..=1.0,
        ) {
            let (exact, found) = (exact(&values, q) as f64, merged(Scale::TIME, &values).quantile(q));
            prop_assert!((found - exact).abs() <= exact * 0.04, "{found} is not near {exact}");
        }

        #[test]
        fn size_quantiles_are_within_four_percent(
            values in prop::collection::vec(1u64..=100_000, 1..400),
            q in 0.0f64..=1.0,
        ) {
            let (exact, found) = (exact(&values, q) as f64, merged(Scale::SIZE, &values).quantile(q));
            prop_assert!((found - exact).abs() <= exact * 0.04, "{found} is not near {exact}");
        }
    }
}
