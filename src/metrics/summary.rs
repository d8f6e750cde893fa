//! The last hour, in the process: what `/summary` and `pillion report` tell.
//!
//! A ring of one-minute slots. Recording is atomic additions into the slot of the current minute; only the first
//! record of a minute takes a lock, to empty the slot it takes over from an hour ago. Nothing here needs a timer.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::histogram::{Histogram, Merged, Scale};

/// The current minute, and the sixty before it.
const SLOTS: u64 = 61;

/// Nanoseconds in a second.
const NANOS: f64 = 1e9;

/// What the bot's operators know as "performance metrics": figures over a window of time.
///
/// Serialises to the shape they already read; all times are seconds, all figures are 0 when there was nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Whether there are figures.
    pub status: Status,
    /// The figures.
    pub metrics: Figures,
}

/// Whether a summary could be made. In the process it always can.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// There are figures.
    #[default]
    Ok,
}

/// The figures of a [`Summary`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    /// Seconds of operation `search`, hits and misses together, to the last byte.
    pub vector_search_duration: Distribution,
    /// Seconds of operation `chat`, to the last byte.
    pub llm_call_duration: Distribution,
    /// Seconds of every request, to the last byte.
    pub http_request_duration: Distribution,
    /// Messages forwarded per conversation, after the leading system and developer messages.
    pub conversation_size: Distribution,
    /// Hits / (hits + misses), from 0 to 1; 0 when there were none.
    pub cache_hit_rate: f64,
    /// Prompt and completion tokens together.
    pub total_tokens_used: u64,
}

/// How values are distributed. Count, average, minimum and maximum are exact, the rest within 4 %.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Distribution {
    /// How many.
    pub count: u64,
    /// Their mean.
    pub average: f64,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
    /// Half are at or below it.
    pub p50: f64,
    /// 95 % are at or below it.
    pub p95: f64,
    /// 99 % are at or below it.
    pub p99: f64,
}

impl Distribution {
    /// Reads the figures, dividing each by `unit`. Nine decimals are a nanosecond: what is behind them is noise.
    fn of(merged: &Merged, unit: f64) -> Self {
        let figure = |value: f64| (value / unit * NANOS).round() / NANOS;
        Self {
            count: merged.count(),
            average: figure(merged.average()),
            min: figure(merged.min()),
            max: figure(merged.max()),
            p50: figure(merged.quantile(0.5)),
            p95: figure(merged.quantile(0.95)),
            p99: figure(merged.quantile(0.99)),
        }
    }
}

/// Which of the summary's timings an operation belongs to, besides that of all requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// `vector_search_duration`.
    Search,
    /// `llm_call_duration`.
    Chat,
    /// None.
    Other,
}

impl Role {
    /// The role of an operation, by its label.
    pub(super) fn of(operation: &str) -> Self {
        match operation {
            "search" => Role::Search,
            "chat" => Role::Chat,
            _ => Role::Other,
        }
    }
}

/// What a cache result means for the hit rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lookup {
    /// A stored response answered.
    Hit,
    /// It would have, had there been one.
    Miss,
    /// The cache was not asked.
    Neither,
}

impl Lookup {
    /// What a cache result means, by its label.
    ///
    /// `collapsed` is a miss, as in `Cache-Status` (`fwd=miss; collapsed`): it saved the upstream a call, but its
    /// client waited for the upstream all the same. So is `stale`, which waited for an upstream that failed.
    pub(super) fn of(result: &str) -> Self {
        match result {
            "hit" => Lookup::Hit,
            "miss" | "collapsed" | "stale" => Lookup::Miss,
            _ => Lookup::Neither,
        }
    }
}

/// What the summary takes from one request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    /// Which timing it belongs to.
    pub(super) role: Role,
    /// To the last byte.
    pub(super) total: Duration,
    /// Messages forwarded, when it was a conversation.
    pub(super) messages: Option<u64>,
    /// What the cache did for it.
    pub(super) lookup: Lookup,
    /// Prompt and completion.
    pub(super) tokens: u64,
}

/// One minute.
#[derive(Debug)]
struct Slot {
    /// The minute it holds; 0 before its first.
    minute: AtomicU64,
    requests: Histogram,
    searches: Histogram,
    chats: Histogram,
    sizes: Histogram,
    hits: AtomicU64,
    misses: AtomicU64,
    tokens: AtomicU64,
}

impl Slot {
    fn new() -> Self {
        Self {
            minute: AtomicU64::new(0),
            requests: Histogram::new(Scale::TIME),
            searches: Histogram::new(Scale::TIME),
            chats: Histogram::new(Scale::TIME),
            sizes: Histogram::new(Scale::SIZE),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
            tokens: AtomicU64::new(0),
        }
    }

    fn record(&self, sample: &Sample) {
        let nanos = u64::try_from(sample.total.as_nanos()).unwrap_or(u64::MAX);
        self.requests.record(nanos);
        match sample.role {
            Role::Search => self.searches.record(nanos),
            Role::Chat => self.chats.record(nanos),
            Role::Other => {}
        }
        if let Some(messages) = sample.messages {
            self.sizes.record(messages);
        }
        match sample.lookup {
            Lookup::Hit => _ = self.hits.fetch_add(1, Ordering::Relaxed),
            Lookup::Miss => _ = self.misses.fetch_add(1, Ordering::Relaxed),
            Lookup::Neither => {}
        }
        if sample.tokens > 0 {
            self.tokens.fetch_add(sample.tokens, Ordering::Relaxed);
        }
    }

    fn clear(&self) {
        for histogram in [&self.requests, &self.searches, &self.chats, &self.sizes] {
            histogram.clear();
        }
        for number in [&self.hits, &self.misses, &self.tokens] {
            number.store(0, Ordering::Relaxed);
        }
    }
}

/// The last hour of requests.
#[derive(Debug)]
pub(super) struct Recent {
    epoch: Instant,
    slots: Box<[Slot]>,
    /// Held while a slot is emptied, once a minute.
    turning: Mutex<()>,
}

impl Recent {
    /// An empty hour that begins now.
    pub(super) fn new() -> Self {
        Self {
            epoch: Instant::now(),
            slots: (0..SLOTS).map(|_| Slot::new()).collect(),
            turning: Mutex::new(()),
        }
    }

    /// Minutes begin at `SLOTS`, so that the hour before the start has numbers that no slot holds.
    fn minute(&self) -> u64 {
        SLOTS + self.epoch.elapsed().as_secs() / 60
    }

    /// Counts one request in the current minute.
    pub(super) fn record(&self, sample: &Sample) {
        let minute = self.minute();
        let Some(slot) = self.slots.get((minute % SLOTS) as usize) else { return };
        if slot.minute.load(Ordering::Acquire) < minute {
            self.turn(slot, minute);
        }
        slot.record(sample);
    }

    /// Empties a slot for a new minute. Who comes second finds it done; who comes an hour late (a thread that
    /// slept between two lines) counts in the wrong minute rather than erasing the right one.
    #[cold]
    fn turn(&self, slot: &Slot, minute: u64) {
        let _turning = self.turning.lock();
        if slot.minute.load(Ordering::Acquire) < minute {
            slot.clear();
            slot.minute.store(minute, Ordering::Release);
        }
    }

    /// The figures of the current minute and as many before it as `window` has, sixty at most: of several hours that
    /// were recorded apart, as one.
    pub(super) fn summary<'a>(apart: impl IntoIterator<Item = &'a Recent>, window: Duration) -> Summary {
        let [mut requests, mut searches, mut chats] = [(); 3].map(|()| Merged::new(Scale::TIME));
        let mut sizes = Merged::new(Scale::SIZE);
        let (mut hits, mut misses, mut tokens) = (0, 0, 0);
        for slot in apart.into_iter().flat_map(|recent| recent.last(window)) {
            requests.add(&slot.requests);
            searches.add(&slot.searches);
            chats.add(&slot.chats);
            sizes.add(&slot.sizes);
            hits += slot.hits.load(Ordering::Relaxed);
            misses += slot.misses.load(Ordering::Relaxed);
            tokens += slot.tokens.load(Ordering::Relaxed);
        }

        let lookups = hits + misses;
        Summary {
            status: Status::Ok,
            metrics: Figures {
                vector_search_duration: Distribution::of(&searches, NANOS),
                llm_call_duration: Distribution::of(&chats, NANOS),
                http_request_duration: Distribution::of(&requests, NANOS),
                conversation_size: Distribution::of(&sizes, 1.0),
                cache_hit_rate: if lookups == 0 { 0.0 } else { hits as f64 / lookups as f64 },
                total_tokens_used: tokens,
            },
        }
    }

    /// The slots that `window` reaches back to.
    fn last(&self, window: Duration) -> impl Iterator<Item = &Slot> {
        let minutes = window.as_secs().div_ceil(60).clamp(1, SLOTS - 1);
        let now = self.minute();
        let kept = now - minutes..=now;
        self.slots.iter().filter(move |slot| kept.contains(&slot.minute.load(Ordering::Acquire)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn sample(millis: u64) -> Sample {
        Sample {
            role: Role::Other,
            total: Duration::from_millis(millis),
            messages: None,
            lookup: Lookup::Neither,
            tokens: 0,
        }
    }

    fn count(recent: &Recent, window: Duration) -> u64 {
        Recent::summary([recent], window).metrics.http_request_duration.count
    }

    async fn pass(seconds: u64) {
        tokio::time::advance(Duration::from_secs(seconds)).await;
    }

    #[test]
    fn nothing_is_zeros_in_the_known_shape() {
        let zeros = r#"{"count":0,"average":0.0,"min":0.0,"max":0.0,"p50":0.0,"p95":0.0,"p99":0.0}"#;
        let expected = format!(
            r#"{{"status":"ok","metrics":{{"vector_search_duration":{zeros},"llm_call_duration":{zeros},"http_request_duration":{zeros},"conversation_size":{zeros},"cache_hit_rate":0.0,"total_tokens_used":0}}}}"#
        );
        let summary = Recent::summary([&Recent::new()], HOUR);
        assert_eq!(serde_json::to_string(&summary).unwrap(), expected);
        assert_eq!(serde_json::from_str::<Summary>(&expected).unwrap(), summary);
    }

    #[test]
    fn each_request_counts_where_it_belongs() {
        let recent = Recent::new();
        recent.record(&Sample { role: Role::Search, lookup: Lookup::Hit, ..sample(5) });
        recent.record(&Sample { role: Role::Search, lookup: Lookup::Miss, ..sample(300) });
        recent.record(&Sample { role: Role::Chat, messages: Some(20), tokens: 125, ..sample(2000) });
        recent.record(&sample(1));
        let figures = Recent::summary([&recent], HOUR).metrics;
        assert_eq!(figures.http_request_duration.count, 4);
        let search = figures.vector_search_duration;
        assert_eq!((search.count, search.average, search.min, search.max), (2, 0.1525, 0.005, 0.3));
        assert_eq!((figures.llm_call_duration.count, figures.llm_call_duration.p99), (1, 2.0));
        assert_eq!((figures.conversation_size.count, figures.conversation_size.p50), (1, 20.0));
        assert_eq!((figures.cache_hit_rate, figures.total_tokens_used), (0.5, 125));
    }

    #[test]
    fn a_collapsed_request_is_a_miss_and_a_bypass_is_neither() {
        let words = ["hit", "miss", "collapsed", "stale", "bypass", "refresh"];
        let (hit, miss, neither) = (Lookup::Hit, Lookup::Miss, Lookup::Neither);
        assert_eq!(words.map(Lookup::of), [hit, miss, miss, miss, neither, neither]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_window_ends_where_it_says() {
        let recent = Recent::new();
        recent.record(&sample(1));
        pass(59).await;
        recent.record(&sample(1));
        assert_eq!(count(&recent, Duration::ZERO), 2);
        pass(61).await; // The third minute: a window of one minute is this one and the one before.
        recent.record(&sample(1));
        assert_eq!(count(&recent, Duration::from_secs(60)), 1);
        assert_eq!(count(&recent, Duration::from_secs(61)), 3);
        assert_eq!(count(&recent, HOUR * 24), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn an_hour_is_kept_and_no_more() {
        let recent = Recent::new();
        for _ in 0..200 {
            recent.record(&sample(1));
            pass(60).await;
        }
        // The current minute is empty; the sixty before it are kept.
        assert_eq!(count(&recent, HOUR), 60);
        assert_eq!(count(&recent, Duration::from_secs(600)), 10);
        pass(60 * 59).await;
        assert_eq!(count(&recent, HOUR), 1);
        pass(60).await;
        assert_eq!(count(&recent, HOUR), 0);
        recent.record(&sample(1));
        assert_eq!(count(&recent, HOUR), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_slot_taken_over_starts_from_nothing() {
        let recent = Recent::new();
        recent.record(&Sample {
            role: Role::Chat,
            total: Duration::from_secs(9),
            messages: Some(50),
            lookup: Lookup::Hit,
            tokens: 7,
        });
        pass(61 * 60).await;
        recent.record(&Sample { role: Role::Chat, lookup: Lookup::Miss, ..sample(100) });
        let figures = Recent::summary([&recent], HOUR).metrics;
        assert_eq!((figures.llm_call_duration.count, figures.llm_call_duration.max), (1, 0.1));
        assert_eq!((figures.conversation_size.count, figures.conversation_size.max), (0, 0.0));
        assert_eq!((figures.cache_hit_rate, figures.total_tokens_used), (0.0, 0));
    }

    #[test]
    fn threads_that_begin_a_minute_together_lose_nothing() {
        let barrier = std::sync::Barrier::new(4);
        for _ in 0..100 {
            let recent = Recent::new();
            std::thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| {
                        barrier.wait();
                        recent.record(&sample(1));
                    });
                }
            });
            assert_eq!(count(&recent, HOUR), 4);
        }
    }

    #[test]
    fn the_hour_takes_less_than_half_a_mebibyte() {
        let recent = Recent::new();
        let bytes: usize =
            recent.slots.iter().map(|slot| size_of_val(slot) + buckets(slot) * size_of::<u32>()).sum();
        assert!(bytes < 512 * 1024, "{bytes}");
    }

    fn buckets(slot: &Slot) -> usize {
        [&slot.requests, &slot.searches, &slot.chats, &slot.sizes].iter().map(|h| h.len()).sum()
    }
}
