//! What Pillion counts and times, for Prometheus and for the summary of the last hour.
//!
//! Every series exists from the start: label values come from the configuration's routes and from closed sets in the
//! code, never from a request, so traffic cannot make new ones. Nothing that identifies a caller is ever a label.
//! Counting never waits: no look-up, no lock (but for one a minute in the summary), and with a shard of all numbers for
//! each worker no cache line that another core writes. Who reads the numbers adds the shards up. This is the only
//! module that names the `prometheus` crate.

mod catalogue;
mod histogram;
mod merge;
mod redis;
mod series;
mod summary;
mod upstreams;

pub use catalogue::{CATALOGUE, Metric, Type, Unit};
pub use series::{InFlight, Observation, Series, Trimmed, Usage};
pub use summary::{Distribution, Figures, Status, Summary};

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use prometheus::{IntCounter, IntGauge, Registry, TextEncoder};

use self::redis::Redis;
use crate::shard::Sharded;
use catalogue::Families;
use summary::Recent;
use upstreams::Upstreams;

/// The label of requests that match no route, for route and operation.
const NO_ROUTE: &str = "none";

/// The words other concerns have for what they decide, as closed label sets. They are counted by index.
#[derive(Clone, Copy, Debug, Default)]
pub struct Vocabulary {
    /// Why an attempt was made again.
    pub retry_reasons: &'static [&'static str],
    /// Why a failure was not attempted again.
    pub not_retried_reasons: &'static [&'static str],
    /// What came of asking the cache. `hit`, `miss`, `collapsed` and `stale` have a meaning to the hit rate: the
    /// first is a hit, the others are misses, any other word is neither.
    pub cache_results: &'static [&'static str],
    /// How a hit that would have been compares with the answer given.
    pub shadow_results: &'static [&'static str],
    /// How an audited hit compares with the upstream's answer.
    pub audit_results: &'static [&'static str],
    /// Why an answer was not stored.
    pub not_stored_reasons: &'static [&'static str],
    /// Why a conversation was forwarded as it came.
    pub window_reasons: &'static [&'static str],
}

/// What others keep count of themselves, read when somebody asks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Gauges {
    /// Stored responses.
    pub cache_entries: u64,
    /// Memory of stored responses, in bytes.
    pub cache_bytes: u64,
    /// Memory of request content held for replay, in bytes.
    pub buffers_bytes: u64,
    /// Identifiers of conversations that are known.
    pub conversations: u64,
    /// Memory of what is known of them, in bytes.
    pub conversations_bytes: u64,
    /// Requests whose conversation Redis could not be told of, since the start.
    pub conversations_untold: u64,
    /// What is done with Redis.
    pub redis: RedisFigures,
    /// What is done about upstreams, by route.
    pub upstreams: Vec<UpstreamFigures>,
}

/// What is done about an upstream that fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UpstreamFigures {
    /// Retries that its budget allows now; `None` where it has no bound.
    pub budget_remaining: Option<u64>,
    /// It is left alone.
    pub breaker_open: bool,
    /// How often that has begun.
    pub breaker_opened: u64,
    /// Calls under way.
    pub in_flight: u64,
}

/// What is done with Redis, since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RedisFigures {
    /// It is in use.
    pub up: bool,
    /// The process's own memory may be used.
    pub lease: bool,
    /// Searches, in the order of the labels `hit`, `miss`, `unavailable`.
    pub lookups: [u64; 3],
    /// Answers, in the order of the labels `stored`, `refused`, `failed`, `dropped`.
    pub stores: [u64; 4],
    /// Messages of writes that were heard.
    pub messages: u64,
    /// Writes that went on although they could not be told.
    pub unpublished: u64,
}

/// All numbers of this process.
pub struct Metrics {
    shards: Sharded<Shard>,
    /// Has what there is one of, however many shards there are.
    registry: Registry,
    cache_entries: IntGauge,
    cache_bytes: IntGauge,
    buffers_bytes: IntGauge,
    conversations: IntGauge,
    conversations_bytes: IntGauge,
    conversations_untold: Mutex<IntCounter>,
    redis: Redis,
    upstreams: Upstreams,
}

/// What there is a series for.
struct Labels<'a> {
    routes: &'a [&'a str],
    operations: &'a [&'static str],
    vocabulary: &'a Vocabulary,
}

/// Every series once, to count in from one thread.
struct Shard {
    registry: Registry,
    /// By route, then by operation.
    series: Vec<Arc<Series>>,
    no_route: Arc<Series>,
    operations: usize,
    recent: Arc<Recent>,
}

impl Shard {
    #[expect(
        clippy::expect_used,
        reason = "the catalogue is a constant and label values may be any text: it fails in every test or never"
    )]
    fn new(labels: &Labels<'_>) -> Self {
        Self::build(labels).expect("the catalogue is consistent")
    }

    fn build(labels: &Labels<'_>) -> prometheus::Result<Self> {
        let Labels { routes, operations, vocabulary } = labels;
        let registry = Registry::new();
        let families = Families::register(&registry)?;
        let recent = Arc::new(Recent::new());
        let make = |route: &str, operation: &str| -> prometheus::Result<Arc<Series>> {
            Series::new(&families, (route, operation), vocabulary, Arc::clone(&recent)).map(Arc::new)
        };
        let series = routes
            .iter()
            .flat_map(|route| operations.iter().map(move |operation| (*route, *operation)))
            .map(|(route, operation)| make(route, operation))
            .collect::<prometheus::Result<_>>()?;
        let no_route = make(NO_ROUTE, NO_ROUTE)?;
        Ok(Self { registry, series, no_route, operations: operations.len(), recent })
    }

    fn series(&self, route: usize, operation: usize) -> &Arc<Series> {
        let known = if operation < self.operations {
            self.series.get(route * self.operations + operation)
        } else {
            None
        };
        debug_assert!(known.is_some(), "no series has the places {route} and {operation}");
        known.unwrap_or(&self.no_route)
    }
}

impl Metrics {
    /// Makes every series there will be: one for each route and operation, and one for requests without a route. There
    /// is a shard of all numbers for each of so many threads.
    #[expect(
        clippy::expect_used,
        clippy::missing_panics_doc,
        reason = "the catalogue is a constant and label values may be any text: it fails in every test or never"
    )]
    pub fn new(
        routes: &[&str],
        operations: &[&'static str],
        vocabulary: &Vocabulary,
        threads: usize,
    ) -> Self {
        let labels = Labels { routes, operations, vocabulary };
        Self::build(&labels, threads).expect("the catalogue is consistent")
    }

    fn build(labels: &Labels<'_>, threads: usize) -> prometheus::Result<Self> {
        let registry = Registry::new();
        let families = Families::register(&registry)?;
        let no_labels: [&str; 0] = [];
        families.build_info.get_metric_with_label_values(&[env!("CARGO_PKG_VERSION")])?.set(1);
        Ok(Self {
            shards: Sharded::new(threads, || Shard::new(labels)),
            cache_entries: families.cache_entries.get_metric_with_label_values(&no_labels)?,
            cache_bytes: families.cache_bytes.get_metric_with_label_values(&no_labels)?,
            buffers_bytes: families.buffers_bytes.get_metric_with_label_values(&no_labels)?,
            conversations: families.conversations.get_metric_with_label_values(&no_labels)?,
            conversations_bytes: families.conversations_bytes.get_metric_with_label_values(&no_labels)?,
            conversations_untold: Mutex::new(
                families.conversations_untold.get_metric_with_label_values(&no_labels)?,
            ),
            redis: Redis::new(&families)?,
            upstreams: Upstreams::new(&families, labels.routes)?,
            registry,
        })
    }

    /// How many threads count apart.
    pub fn shards(&self) -> usize {
        self.shards.shards()
    }

    fn here(&self) -> &Shard {
        self.shards.here()
    }

    /// The numbers of a route and an operation, by their places in the lists given to [`Metrics::new`], to count in
    /// from this thread. Whoever holds on to them may count from any.
    pub fn series(&self, route: usize, operation: usize) -> &Arc<Series> {
        self.here().series(route, operation)
    }

    /// The numbers of requests that match no route.
    pub fn no_route(&self) -> &Arc<Series> {
        &self.here().no_route
    }

    /// Everything in the Prometheus text format (`text/plain; version=0.0.4`), with what others keep count of.
    pub fn gather(&self, gauges: Gauges) -> String {
        let Gauges {
            cache_entries,
            cache_bytes,
            buffers_bytes,
            conversations,
            conversations_bytes,
            conversations_untold,
            redis,
            upstreams,
        } = gauges;
        {
            // One at a time: a counter can only be told by how much it is behind.
            let untold = self.conversations_untold.lock();
            untold.inc_by(conversations_untold.saturating_sub(untold.get()));
        }
        self.redis.set(&redis);
        self.upstreams.set(&upstreams);
        let of_others = [
            (&self.cache_entries, cache_entries),
            (&self.cache_bytes, cache_bytes),
            (&self.buffers_bytes, buffers_bytes),
            (&self.conversations, conversations),
            (&self.conversations_bytes, conversations_bytes),
        ];
        for (gauge, value) in of_others {
            gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        }
        let registries =
            std::iter::once(&self.registry).chain(self.shards.iter().map(|shard| &shard.registry));
        let mut text = String::new();
        if let Err(error) = TextEncoder::new().encode_utf8(&merge::gather(registries), &mut text) {
            // Would be a family without children. What was written so far is still worth reading.
            tracing::error!(%error, "the metrics are incomplete");
        }
        text
    }

    /// Figures of the last `window`, to the minute, one hour at most.
    pub fn summary(&self, window: Duration) -> Summary {
        Recent::summary(self.shards.iter().map(|shard| &*shard.recent), window)
    }
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metrics").field("shards", &self.shards()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
