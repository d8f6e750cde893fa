//! What is done with Redis: counted where it is done, and shown here.

use parking_lot::Mutex;
use prometheus::{IntCounter, IntCounterVec, IntGauge};

use super::RedisFigures;
use super::catalogue::Families;

const LOOKUPS: [&str; 3] = ["hit", "miss", "unavailable"];
const STORES: [&str; 4] = ["stored", "refused", "failed", "dropped"];

pub(super) struct Redis(Mutex<Series>);

struct Series {
    up: IntGauge,
    lease: IntGauge,
    lookups: Box<[IntCounter]>,
    stores: Box<[IntCounter]>,
    messages: IntCounter,
    unpublished: IntCounter,
}

impl Redis {
    pub(super) fn new(families: &Families) -> prometheus::Result<Self> {
        let none: [&str; 0] = [];
        let each = |family: &IntCounterVec, words: &[&str]| -> prometheus::Result<Box<[IntCounter]>> {
            words.iter().map(|word| family.get_metric_with_label_values(&[word])).collect()
        };
        Ok(Self(Mutex::new(Series {
            up: families.redis_up.get_metric_with_label_values(&none)?,
            lease: families.redis_lease.get_metric_with_label_values(&none)?,
            lookups: each(&families.redis_lookups, &LOOKUPS)?,
            stores: each(&families.redis_stores, &STORES)?,
            messages: families.redis_messages.get_metric_with_label_values(&none)?,
            unpublished: families.redis_unpublished.get_metric_with_label_values(&none)?,
        })))
    }

    pub(super) fn set(&self, figures: &RedisFigures) {
        let RedisFigures { up, lease, lookups, stores, messages, unpublished } = figures;
        // One at a time: a counter can only be told by how much it is behind.
        let series = self.0.lock();
        series.up.set(i64::from(*up));
        series.lease.set(i64::from(*lease));
        let counts = series.lookups.iter().zip(lookups).chain(series.stores.iter().zip(stores));
        let single = [(&series.messages, messages), (&series.unpublished, unpublished)];
        for (counter, count) in counts.chain(single) {
            counter.inc_by(count.saturating_sub(counter.get()));
        }
    }
}
