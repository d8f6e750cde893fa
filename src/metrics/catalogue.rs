//! The catalogue: every metric Pillion has, in one table.
//!
//! Registration, documentation and the golden test read the same table, so a metric cannot exist in one of them
//! only. Names follow the Prometheus conventions (base units, `_total` for counters), label sets are closed.

use prometheus::core::Collector;
use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, Registry};

/// Upper bounds in seconds, for everything that is timed: from a hit (100 microseconds) to a long chat (10 minutes).
///
/// Own overhead shares them, so that it can be read against the whole.
const SECONDS: [f64; 21] = [
    0.0001, 0.000_25, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
    30.0, 60.0, 120.0, 300.0, 600.0,
];

/// One row of the catalogue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metric {
    /// As exposed, without the suffixes of a histogram's parts.
    pub name: &'static str,
    /// How it moves.
    pub kind: Type,
    /// What its value counts.
    pub unit: Unit,
    /// Label names, in the order in which values are given.
    pub labels: &'static [&'static str],
    /// One sentence for operators.
    pub help: &'static str,
}

/// How a metric moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// Only up.
    Counter,
    /// Up and down.
    Gauge,
    /// Counts per bucket, with sum and count.
    Histogram,
}

impl Type {
    /// The word of the exposition format's `# TYPE` line.
    pub const fn word(self) -> &'static str {
        match self {
            Type::Counter => "counter",
            Type::Gauge => "gauge",
            Type::Histogram => "histogram",
        }
    }
}

/// What a metric's value counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Seconds.
    Seconds,
    /// Bytes.
    Bytes,
    /// Plain numbers of what the name says.
    Count,
}

impl Unit {
    /// The word in documentation.
    pub const fn word(self) -> &'static str {
        match self {
            Unit::Seconds => "seconds",
            Unit::Bytes => "bytes",
            Unit::Count => "count",
        }
    }
}

/// A `prometheus` family that can be made from a row.
trait Family: Collector + Clone + 'static {
    /// What the row says about it.
    const TYPE: Type;

    /// The family without children.
    fn build(metric: &Metric) -> prometheus::Result<Self>;

    /// The family, registered.
    fn register(registry: &Registry, metric: &Metric) -> prometheus::Result<Self> {
        let family = Self::build(metric)?;
        registry.register(Box::new(family.clone()))?;
        Ok(family)
    }
}

impl Family for IntCounterVec {
    const TYPE: Type = Type::Counter;

    fn build(metric: &Metric) -> prometheus::Result<Self> {
        Self::new(Opts::new(metric.name, metric.help), metric.labels)
    }
}

impl Family for IntGaugeVec {
    const TYPE: Type = Type::Gauge;

    fn build(metric: &Metric) -> prometheus::Result<Self> {
        Self::new(Opts::new(metric.name, metric.help), metric.labels)
    }
}

impl Family for HistogramVec {
    const TYPE: Type = Type::Histogram;

    fn build(metric: &Metric) -> prometheus::Result<Self> {
        let opts = HistogramOpts::new(metric.name, metric.help).buckets(SECONDS.to_vec());
        Self::new(opts, metric.labels)
    }
}

/// One row, its type taken from the family that holds its children.
macro_rules! row {
    ($family:ty, $name:literal, $unit:ident, $labels:expr, $help:literal) => {
        Metric {
            name: $name,
            kind: <$family as Family>::TYPE,
            unit: Unit::$unit,
            labels: &$labels,
            help: $help,
        }
    };
}

/// Makes [`CATALOGUE`] and [`Families`] from one list, so that neither can lack what the other has.
macro_rules! catalogue {
    ($($field:ident: $family:ty = $name:literal, $unit:ident, $labels:expr, $help:literal;)*) => {
        /// Every metric, in the order of the documentation.
        pub const CATALOGUE: &[Metric] = &[$(row!($family, $name, $unit, $labels, $help)),*];

        /// The registered families, one field per row of [`CATALOGUE`].
        pub(super) struct Families {
            $(pub(super) $field: $family,)*
        }

        impl Families {
            /// Registers every row.
            pub(super) fn register(registry: &Registry) -> prometheus::Result<Self> {
                Ok(Self { $($field: <$family>::register(registry, &row!($family, $name, $unit, $labels, $help))?,)* })
            }
        }
    };
}

catalogue! {
    requests: IntCounterVec = "pillion_requests_total", Count, ["route", "operation", "status"],
        "Requests finished, by status class; none: the client left before a response head.";
    request_duration: HistogramVec = "pillion_request_duration_seconds", Seconds, ["route", "operation", "status"],
        "Time from the request head read to the last byte of the response, by status class.";
    time_to_first_byte: HistogramVec = "pillion_time_to_first_byte_seconds", Seconds, ["route", "operation"],
        "Time from the request head read to the response head.";
    overhead: HistogramVec = "pillion_overhead_seconds", Seconds, ["route", "operation"],
        "Own time before the response head: neither waiting for the upstream nor backing off.";
    in_flight: IntGaugeVec = "pillion_in_flight", Count, ["route", "operation"],
        "Requests begun and not finished.";
    client_gone: IntCounterVec = "pillion_client_gone_total", Count, ["route", "operation"],
        "Requests whose client left before the end of the response.";
    errors: IntCounterVec = "pillion_errors_total", Count, ["route", "operation", "error"],
        "Failures that Pillion answered or ended itself, by RFC 9209 error type.";
    streamed_bodies: IntCounterVec = "pillion_streamed_bodies_total", Count, ["route", "operation"],
        "Requests whose content was too large to hold: forwarded untrimmed, uncached and unretried.";
    upstream_duration: HistogramVec = "pillion_upstream_duration_seconds", Seconds, ["route", "operation"],
        "Time one attempt waited for the upstream's response head, or for its failure.";
    upstream_attempts: IntCounterVec = "pillion_upstream_attempts_total", Count, ["route", "operation"],
        "Attempts at the upstream, first ones included.";
    retries: IntCounterVec = "pillion_retries_total", Count, ["route", "operation", "reason"],
        "Attempts made again, by what failed before.";
    retries_not_made: IntCounterVec = "pillion_retries_not_made_total", Count, ["route", "operation", "reason"],
        "Failures that were not attempted again, by what spoke against it.";
    failures_hidden: IntCounterVec = "pillion_failures_hidden_total", Count, ["route", "operation"],
        "Calls of the upstream that failed at first, and succeeded when attempted again.";
    failures_shown: IntCounterVec = "pillion_failures_shown_total", Count, ["route", "operation"],
        "Calls of the upstream that failed in the end, after all attempts that were made.";
    budget: IntGaugeVec = "pillion_retry_budget_remaining", Count, ["route"],
        "Retries that the budget of the upstream allows at this moment; -1 where it has no bound.";
    breaker_open: IntGaugeVec = "pillion_breaker_open", Count, ["route"],
        "1 while the breaker of the upstream is open.";
    breaker_opened: IntCounterVec = "pillion_breaker_opened_total", Count, ["route"],
        "Times the breaker of the upstream has opened.";
    upstream_in_flight: IntGaugeVec = "pillion_upstream_in_flight", Count, ["route"],
        "Calls of the upstream under way, their answers' content included.";
    cache_results: IntCounterVec = "pillion_cache_results_total", Count, ["route", "operation", "result"],
        "Requests that asked the cache, by what came of it.";
    cache_not_stored: IntCounterVec = "pillion_cache_not_stored_total", Count, ["route", "operation", "reason"],
        "Answers that could have been stored and were not, by reason.";
    cache_shadow: IntCounterVec = "pillion_cache_shadow_total", Count, ["route", "operation", "result"],
        "Requests on routes with cache.shadow, by how the hit they would have been compares with the answer given.";
    cache_audits: IntCounterVec = "pillion_cache_audits_total", Count, ["route", "operation", "result"],
        "Hits that cache.audit picked, by how they compare with what the upstream answered.";
    stale_hits: IntCounterVec = "pillion_cache_stale_hits_total", Count, ["route", "operation"],
        "Audited hits that the upstream answered differently although no write had passed.";
    embedded: IntCounterVec = "pillion_embeddings_inputs_total", Count, ["route", "operation", "result"],
        "Inputs of embeddings requests, by whether their vectors were stored.";
    invalidations: IntCounterVec = "pillion_invalidations_total", Count, ["route", "operation"],
        "Times stored responses were dropped because of a write, or by command (operation other).";
    trimmed_messages: IntCounterVec = "pillion_trimmed_messages_total", Count, ["route", "operation"],
        "Messages left out of forwarded conversations.";
    trimmed_bytes: IntCounterVec = "pillion_trimmed_bytes_total", Bytes, ["route", "operation"],
        "Bytes left out of forwarded conversations.";
    trimmed_tokens: IntCounterVec = "pillion_trimmed_tokens_total", Count, ["route", "operation"],
        "Tokens left out of forwarded conversations, estimated: one for every four bytes.";
    shadow_trimmed: IntCounterVec = "pillion_window_shadow_messages_total", Count, ["route", "operation"],
        "Messages that would have been left out, on routes with window.shadow.";
    window_untouched: IntCounterVec = "pillion_window_untouched_total", Count, ["route", "operation", "reason"],
        "Conversations forwarded as they came, or longer than the limits, although a window was set, by reason.";
    original_resent: IntCounterVec = "pillion_original_resent_total", Count, ["route", "operation"],
        "Conversations sent once more in their other form, whole or trimmed, because the upstream refused the first.";
    tokens: IntCounterVec = "pillion_tokens_total", Count, ["route", "operation", "kind"],
        "Tokens the upstream reported in usage; cached ones are part of the prompt.";
    cache_entries: IntGaugeVec = "pillion_cache_entries", Count, [],
        "Stored responses.";
    cache_bytes: IntGaugeVec = "pillion_cache_bytes", Bytes, [],
        "Memory taken by stored responses.";
    buffers_bytes: IntGaugeVec = "pillion_buffers_bytes", Bytes, [],
        "Memory taken by request content that is held for replay.";
    conversations: IntGaugeVec = "pillion_conversations", Count, [],
        "Conversations that are known, by their identifiers.";
    conversations_bytes: IntGaugeVec = "pillion_conversations_bytes", Bytes, [],
        "Memory taken by what is known of conversations.";
    conversations_untold: IntCounterVec = "pillion_conversations_untold_total", Count, [],
        "Requests whose conversation Redis could not be told of.";
    redis_up: IntGaugeVec = "pillion_redis_up", Count, [],
        "1 while Redis is in use; 0 while it is not, and without redis.url.";
    redis_lease: IntGaugeVec = "pillion_redis_lease", Count, [],
        "1 while this process's own memory may be used although others write to the same stores.";
    redis_lookups: IntCounterVec = "pillion_redis_lookups_total", Count, ["result"],
        "Searches not answered from memory, by what Redis said; unavailable: it could not be asked in time.";
    redis_stores: IntCounterVec = "pillion_redis_stores_total", Count, ["result"],
        "Answers brought to Redis; refused: a write had passed, dropped: too many were on their way.";
    redis_messages: IntCounterVec = "pillion_redis_messages_total", Count, [],
        "Messages heard of writes, those through this process among them.";
    redis_unpublished: IntCounterVec = "pillion_redis_unpublished_writes_total", Count, [],
        "Writes forwarded although other processes could not be told of them within a second.";
    build_info: IntGaugeVec = "pillion_build_info", Count, ["version"],
        "Always 1, with the version that runs.";
}
