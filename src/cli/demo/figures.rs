//! The measurements of one run, worked out from what the bot and the upstream recorded.

use std::time::Duration;

use serde::Serialize;

use super::bot::{Found, Record};
use super::checker::Tally;
use super::upstream::{Received, Seen};

/// One side of the comparison. `None` where a figure does not apply.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Side {
    /// Calls that failed for the bot, of all it made.
    pub(super) failed_ratio: f64,
    /// A turn's search and chat together.
    pub(super) answer_ms_mean: f64,
    pub(super) answer_ms_p50: f64,
    pub(super) answer_ms_p95: f64,
    /// Answered searches alone.
    pub(super) search_ms_mean: f64,
    pub(super) search_hit_ms_p50: Option<f64>,
    pub(super) search_hit_ms_p95: Option<f64>,
    pub(super) search_miss_ms_p50: Option<f64>,
    pub(super) search_miss_ms_p95: Option<f64>,
    /// Hits, of all answered searches.
    pub(super) hit_rate: Option<f64>,
    /// Messages after the head in a chat call that reached the model.
    pub(super) max_messages_forwarded: usize,
    pub(super) mean_messages_forwarded: f64,
    /// Bytes of a chat call that reached the model.
    pub(super) max_bytes_forwarded: usize,
    pub(super) mean_bytes_forwarded: f64,
    /// Calls that reached the model or the index, retries and failed ones included.
    pub(super) upstream_calls: u64,
    /// Of these, the ones that were failed on purpose.
    pub(super) upstream_faults: u64,
    /// Answers that were not right when they were given.
    pub(super) stale_answers: Option<u64>,
    /// Answers that were checked for it.
    pub(super) checked_answers: u64,
    /// Of these, the ones where the answer last given to the same question would no longer have been right.
    pub(super) changed_answers: u64,
    /// Calls that the bot made.
    pub(super) calls: usize,
    /// Calls that failed for the bot.
    pub(super) failed: usize,
    /// How long the run took.
    pub(super) seconds: f64,
}

impl Side {
    /// The figures of a run; `cached` when hits were possible in it.
    pub(super) fn new(records: &[Record], seen: &Seen, tally: Tally, took: Duration, cached: bool) -> Self {
        let writes = records.iter().filter_map(|record| record.write_failed);
        let calls = records.len() * 2 + writes.clone().count();
        let failed = records.iter().filter(|record| record.chat_failed).count()
            + records.iter().filter(|record| record.found == Found::Failed).count()
            + writes.filter(|failed| *failed).count();
        let answers = Times::new(records.iter().map(|record| record.answer));
        let searches = |found: Found| {
            Times::new(records.iter().filter(|record| record.found == found).map(|record| record.search))
        };
        let (hits, misses) = (searches(Found::Hit), searches(Found::Miss));
        let answered = Times::new(
            records.iter().filter(|record| record.found != Found::Failed).map(|record| record.search),
        );
        let chats = seen.chats();
        let of = |count: fn(&Received) -> usize| chats.iter().map(count);
        Self {
            failed_ratio: ratio(failed, calls),
            answer_ms_mean: answers.mean().unwrap_or(0.0),
            answer_ms_p50: answers.quantile(0.50).unwrap_or(0.0),
            answer_ms_p95: answers.quantile(0.95).unwrap_or(0.0),
            search_ms_mean: answered.mean().unwrap_or(0.0),
            search_hit_ms_p50: hits.quantile(0.50),
            search_hit_ms_p95: hits.quantile(0.95),
            search_miss_ms_p50: misses.quantile(0.50),
            search_miss_ms_p95: misses.quantile(0.95),
            hit_rate: cached.then(|| ratio(hits.0.len(), answered.0.len())),
            max_messages_forwarded: of(|chat| chat.messages).max().unwrap_or(0),
            mean_messages_forwarded: ratio(of(|chat| chat.messages).sum(), chats.len()),
            max_bytes_forwarded: of(|chat| chat.bytes).max().unwrap_or(0),
            mean_bytes_forwarded: ratio(of(|chat| chat.bytes).sum(), chats.len()),
            upstream_calls: seen.calls(),
            upstream_faults: seen.faults(),
            stale_answers: Some(tally.stale),
            checked_answers: tally.checked,
            changed_answers: tally.changed,
            calls,
            failed,
            seconds: took.as_secs_f64(),
        }
    }
}

fn ratio(part: usize, whole: usize) -> f64 {
    part as f64 / whole.max(1) as f64
}

/// Times in milliseconds, in order.
#[derive(Debug)]
struct Times(Vec<f64>);

impl Times {
    fn new(times: impl Iterator<Item = Duration>) -> Self {
        let mut times: Vec<f64> = times.map(|time| time.as_secs_f64() * 1e3).collect();
        times.sort_by(f64::total_cmp);
        Self(times)
    }

    fn mean(&self) -> Option<f64> {
        (!self.0.is_empty()).then(|| self.0.iter().sum::<f64>() / self.0.len() as f64)
    }

    /// The smallest time that at least this part of all does not exceed (nearest rank).
    fn quantile(&self, part: f64) -> Option<f64> {
        let rank = (part * self.0.len() as f64).ceil() as usize;
        self.0.get(rank.max(1) - 1).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(values: impl Iterator<Item = u64>) -> Times {
        Times::new(values.map(Duration::from_millis))
    }

    #[test]
    fn quantiles_by_nearest_rank() {
        let hundred = times((1..=100).rev());
        assert_eq!(hundred.quantile(0.50), Some(50.0));
        assert_eq!(hundred.quantile(0.95), Some(95.0));
        assert_eq!(hundred.quantile(1.0), Some(100.0));
        assert_eq!(hundred.mean(), Some(50.5));
        assert_eq!(times([7].into_iter()).quantile(0.95), Some(7.0));
        assert_eq!(times([1, 2, 3].into_iter()).quantile(0.5), Some(2.0));
        assert_eq!(times(std::iter::empty()).quantile(0.5), None);
        assert_eq!(times(std::iter::empty()).mean(), None);
    }

    #[test]
    fn every_call_of_the_bot_is_counted() {
        let record = |found, chat_failed, write_failed| Record {
            answer: Duration::from_millis(400),
            search: Duration::from_millis(350),
            found,
            chat_failed,
            write_failed,
        };
        let records = [
            record(Found::Hit, false, None),
            record(Found::Miss, true, Some(true)),
            record(Found::Failed, false, Some(false)),
            record(Found::Miss, false, None),
        ];
        let side = Side::new(&records, &Seen::default(), Tally::default(), Duration::from_secs(1), true);
        assert_eq!((side.calls, side.failed), (10, 3));
        assert!((side.failed_ratio - 0.3).abs() < 1e-9);
        assert!(side.hit_rate.is_some_and(|rate| (rate - 1.0 / 3.0).abs() < 1e-9));
    }
}
