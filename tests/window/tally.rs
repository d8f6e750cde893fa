//! What came of all the conversations, so that a run that checks nothing is seen.

use std::collections::BTreeMap;

use pillion::window::Reading;

use crate::histories::Feature;

#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) histories: u64,
    pub(crate) cut: u64,
    pub(crate) messages: u64,
    pub(crate) removed: u64,
    pub(crate) bytes: u64,
    /// Cut, and more than the last turn kept.
    pub(crate) within_limits: u64,
    /// Taken by the strict validator as they came.
    pub(crate) taken: u64,
    pub(crate) untouched: BTreeMap<&'static str, u64>,
    pub(crate) features: BTreeMap<Feature, u64>,
    /// Bodies and what was forwarded in their place, for another parser to look at.
    pub(crate) sample: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Tally {
    pub(crate) fn count(&mut self, reading: &Reading, bytes: usize) {
        self.histories += 1;
        self.bytes += bytes as u64;
        self.messages += (reading.forwarded.unwrap_or_default() + reading.removed) as u64;
        self.removed += reading.removed as u64;
        self.cut += u64::from(reading.cut.is_some());
        if let Some(why) = reading.untouched {
            *self.untouched.entry(why.word()).or_default() += 1;
        }
    }

    pub(crate) fn add(&mut self, other: Tally) {
        self.histories += other.histories;
        self.cut += other.cut;
        self.messages += other.messages;
        self.removed += other.removed;
        self.bytes += other.bytes;
        self.within_limits += other.within_limits;
        self.taken += other.taken;
        for (why, count) in other.untouched {
            *self.untouched.entry(why).or_default() += count;
        }
        for (feature, count) in other.features {
            *self.features.entry(feature).or_default() += count;
        }
        self.sample.extend(other.sample);
    }

    pub(crate) fn print(&self, what: &str) {
        let Self { histories, cut, messages, removed, bytes, within_limits, taken, .. } = self;
        println!(
            "{what}: {histories} conversations of {messages} messages, {bytes} bytes; {cut} cut, {removed} messages left \
             out, {within_limits} kept more than the last turn; {taken} taken by the vendor's rules before and after"
        );
        println!("    untouched: {:?}", self.untouched);
        println!("    with: {:?}", self.features);
    }

    /// At least so many of a hundred conversations.
    pub(crate) fn at_least(&self, what: &str, count: u64, percent: f64) {
        let least = self.histories as f64 * percent / 100.0;
        assert!(count as f64 >= least, "{what}: {count} of {}, less than {percent} %", self.histories);
    }
}
