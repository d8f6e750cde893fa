//! What one request counts in: the children of its route and operation, resolved at start.
//!
//! Counting is atomic additions only: no look-up by label and no lock.

use std::sync::Arc;
use std::time::Duration;

use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge};

use super::Vocabulary;
use super::catalogue::Families;
use super::summary::{Lookup, Recent, Role, Sample};
use crate::error::Kind;

/// Status classes, as labels. No final answer is 1xx; what is outside of 2xx to 5xx counts as 5xx, as clients must
/// treat it (RFC 9110 section 15).
const STATUSES: [&str; 5] = ["2xx", "3xx", "4xx", "5xx", "none"];

/// Kinds of tokens, as labels.
const TOKENS: [&str; 3] = ["prompt", "completion", "cached"];

/// What was found of an input of an embeddings request, as labels.
const EMBEDDED: [&str; 2] = ["hit", "miss"];

/// What one finished request tells. Observed exactly once, wherever the request ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Observation {
    /// Of the response head that was sent; 0 when the client left before there was one.
    pub status: u16,
    /// The client left before the end of the response.
    pub client_gone: bool,
    /// Pillion answered with this failure, or cut the response because of it.
    pub error: Option<Kind>,
    /// From the request head read to the last byte of the response, or to where it ended.
    pub total: Duration,
    /// From the request head read to the response head; `None` when there was none.
    pub head: Option<Duration>,
    /// The part of `head` that was neither waiting for the upstream nor back-off.
    pub overhead: Duration,
    /// What came of asking the cache: an index into [`Vocabulary::cache_results`].
    pub cache: Option<usize>,
    /// Messages forwarded after the head of the conversation, when the request carried one that was understood.
    pub messages: Option<u64>,
    /// What was left out of it.
    pub trimmed: Trimmed,
    /// Messages that would have been left out.
    pub would_trim: u64,
    /// What the upstream reported.
    pub usage: Usage,
}

/// What was left out of a conversation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Trimmed {
    /// Messages.
    pub messages: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Their tokens, estimated.
    pub tokens: u64,
}

/// Tokens of one request, from its `usage`; zeros when it had none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Read by the model, cached ones included whatever the dialect.
    pub prompt: u64,
    /// Written by the model.
    pub completion: u64,
    /// The part of the prompt that came from the provider's cache.
    pub cached: u64,
}

/// The numbers of one route and operation. Cheap to share; every method may be called from any thread.
#[derive(Debug)]
pub struct Series {
    requests: Box<[IntCounter]>,
    request_duration: Box<[Histogram]>,
    time_to_first_byte: Histogram,
    overhead: Histogram,
    in_flight: IntGauge,
    client_gone: IntCounter,
    errors: Box<[IntCounter]>,
    streamed_bodies: IntCounter,
    upstream_duration: Histogram,
    upstream_attempts: IntCounter,
    retries: Box<[IntCounter]>,
    retries_not_made: Box<[IntCounter]>,
    failures_hidden: IntCounter,
    failures_shown: IntCounter,
    cache_results: Box<[IntCounter]>,
    cache_not_stored: Box<[IntCounter]>,
    cache_shadow: Box<[IntCounter]>,
    cache_audits: Box<[IntCounter]>,
    stale_hits: IntCounter,
    embedded: Box<[IntCounter]>,
    invalidations: IntCounter,
    trimmed_messages: IntCounter,
    trimmed_bytes: IntCounter,
    trimmed_tokens: IntCounter,
    shadow_trimmed: IntCounter,
    window_untouched: Box<[IntCounter]>,
    original_resent: IntCounter,
    tokens: Box<[IntCounter]>,
    role: Role,
    lookups: Box<[Lookup]>,
    recent: Arc<Recent>,
}

impl Series {
    /// Resolves the children of one route and operation.
    pub(super) fn new(
        families: &Families,
        (route, operation): (&str, &str),
        vocabulary: &Vocabulary,
        recent: Arc<Recent>,
    ) -> prometheus::Result<Self> {
        let labels = [route, operation];
        let one = |family: &IntCounterVec| family.get_metric_with_label_values(&labels);
        let timed = |family: &HistogramVec| family.get_metric_with_label_values(&labels);
        let each = |family: &IntCounterVec, words: &[&str]| -> prometheus::Result<Box<[IntCounter]>> {
            words.iter().map(|word| family.get_metric_with_label_values(&[route, operation, word])).collect()
        };
        Ok(Self {
            requests: each(&families.requests, &STATUSES)?,
            request_duration: STATUSES
                .iter()
                .map(|word| families.request_duration.get_metric_with_label_values(&[route, operation, word]))
                .collect::<prometheus::Result<_>>()?,
            time_to_first_byte: timed(&families.time_to_first_byte)?,
            overhead: timed(&families.overhead)?,
            in_flight: families.in_flight.get_metric_with_label_values(&labels)?,
            client_gone: one(&families.client_gone)?,
            // Kinds that share a word share the child.
            errors: each(&families.errors, &Kind::ALL.map(Kind::word))?,
            streamed_bodies: one(&families.streamed_bodies)?,
            upstream_duration: timed(&families.upstream_duration)?,
            upstream_attempts: one(&families.upstream_attempts)?,
            retries: each(&families.retries, vocabulary.retry_reasons)?,
            retries_not_made: each(&families.retries_not_made, vocabulary.not_retried_reasons)?,
            failures_hidden: one(&families.failures_hidden)?,
            failures_shown: one(&families.failures_shown)?,
            cache_results: each(&families.cache_results, vocabulary.cache_results)?,
            cache_not_stored: each(&families.cache_not_stored, vocabulary.not_stored_reasons)?,
            cache_shadow: each(&families.cache_shadow, vocabulary.shadow_results)?,
            cache_audits: each(&families.cache_audits, vocabulary.audit_results)?,
            stale_hits: one(&families.stale_hits)?,
            embedded: each(&families.embedded, &EMBEDDED)?,
            invalidations: one(&families.invalidations)?,
            trimmed_messages: one(&families.trimmed_messages)?,
            trimmed_bytes: one(&families.trimmed_bytes)?,
            trimmed_tokens: one(&families.trimmed_tokens)?,
            shadow_trimmed: one(&families.shadow_trimmed)?,
            window_untouched: each(&families.window_untouched, vocabulary.window_reasons)?,
            original_resent: one(&families.original_resent)?,
            tokens: each(&families.tokens, &TOKENS)?,
            role: Role::of(operation),
            lookups: vocabulary.cache_results.iter().map(|word| Lookup::of(word)).collect(),
            recent,
        })
    }

    /// Counts a request as in flight until the guard is dropped.
    pub fn enter(self: &Arc<Self>) -> InFlight {
        self.in_flight.inc();
        InFlight(Arc::clone(self))
    }

    /// Counts a finished request: call it once for each.
    pub fn observe(&self, seen: &Observation) {
        let class = status_class(seen.status);
        increase(&self.requests, class, 1);
        if let Some(durations) = self.request_duration.get(class) {
            durations.observe(seen.total.as_secs_f64());
        }
        if let Some(head) = seen.head {
            self.time_to_first_byte.observe(head.as_secs_f64());
            self.overhead.observe(seen.overhead.as_secs_f64());
        }
        if seen.client_gone {
            self.client_gone.inc();
        }
        if let Some(index) = seen.error.and_then(|error| Kind::ALL.iter().position(|kind| *kind == error)) {
            increase(&self.errors, index, 1);
        }
        if let Some(result) = seen.cache {
            increase(&self.cache_results, result, 1);
        }
        if seen.trimmed.messages > 0 {
            let Trimmed { messages, bytes, tokens } = seen.trimmed;
            self.trimmed_messages.inc_by(messages);
            self.trimmed_bytes.inc_by(bytes);
            self.trimmed_tokens.inc_by(tokens);
        } else if seen.would_trim > 0 {
            self.shadow_trimmed.inc_by(seen.would_trim);
        }
        let Usage { prompt, completion, cached } = seen.usage;
        for (kind, count) in [prompt, completion, cached].into_iter().enumerate() {
            if count > 0 {
                increase(&self.tokens, kind, count);
            }
        }
        self.recent.record(&Sample {
            role: self.role,
            total: seen.total,
            messages: seen.messages,
            lookup: seen
                .cache
                .and_then(|result| self.lookups.get(result).copied())
                .unwrap_or(Lookup::Neither),
            tokens: prompt.saturating_add(completion),
        });
    }

    /// Counts an attempt that ended, with the time it waited for the upstream's response head or its failure.
    pub fn attempt(&self, waited: Duration) {
        self.upstream_attempts.inc();
        self.upstream_duration.observe(waited.as_secs_f64());
    }

    /// Counts an attempt made again; an index into [`Vocabulary::retry_reasons`].
    pub fn retry(&self, reason: usize) {
        increase(&self.retries, reason, 1);
    }

    /// Counts a failure that was not attempted again; an index into [`Vocabulary::not_retried_reasons`].
    pub fn retry_not_made(&self, reason: usize) {
        increase(&self.retries_not_made, reason, 1);
    }

    /// Counts a call of the upstream that succeeded only when attempted again.
    pub fn failure_hidden(&self) {
        self.failures_hidden.inc();
    }

    /// Counts a call of the upstream that failed in the end.
    pub fn failure_shown(&self) {
        self.failures_shown.inc();
    }

    /// Counts an answer that could have been stored and was not; an index into [`Vocabulary::not_stored_reasons`].
    pub fn not_stored(&self, reason: usize) {
        increase(&self.cache_not_stored, reason, 1);
    }

    /// Counts the inputs of an embeddings request whose vectors were stored, and those whose were not.
    pub fn embedded(&self, known: u64, unknown: u64) {
        for (result, count) in [known, unknown].into_iter().enumerate() {
            increase(&self.embedded, result, count);
        }
    }

    /// Counts a request that the cache only watched; an index into [`Vocabulary::shadow_results`].
    pub fn shadowed(&self, result: usize) {
        increase(&self.cache_shadow, result, 1);
    }

    /// Counts a hit that was to be audited; an index into [`Vocabulary::audit_results`].
    pub fn audited(&self, result: usize) {
        increase(&self.cache_audits, result, 1);
    }

    /// Counts a hit that the upstream answers differently.
    pub fn hit_was_stale(&self) {
        self.stale_hits.inc();
    }

    /// Counts stored responses being dropped because of a write, or by command.
    pub fn invalidated(&self) {
        self.invalidations.inc();
    }

    /// Counts a conversation forwarded as it came; an index into [`Vocabulary::window_reasons`].
    pub fn window_untouched(&self, reason: usize) {
        increase(&self.window_untouched, reason, 1);
    }

    /// Counts a conversation sent once more in full because its trimmed form was refused.
    pub fn original_resent(&self) {
        self.original_resent.inc();
    }

    /// Counts content too large to be held: it streams through untrimmed, uncached and unretried.
    pub fn body_streamed(&self) {
        self.streamed_bodies.inc();
    }
}

/// A request that has begun. Dropping it ends the request's being in flight.
#[derive(Debug)]
#[must_use = "dropping it ends the request's being in flight"]
pub struct InFlight(Arc<Series>);

impl InFlight {
    /// The numbers it counts in.
    pub fn series(&self) -> &Arc<Series> {
        &self.0
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.dec();
    }
}

/// Adds to the counter of a word. An index from another vocabulary would be a defect, but not one to die of.
fn increase(counters: &[IntCounter], index: usize, by: u64) {
    debug_assert!(index < counters.len(), "no word has the index {index}");
    if let Some(counter) = counters.get(index) {
        counter.inc_by(by);
    }
}

/// The index of a status into [`STATUSES`].
const fn status_class(status: u16) -> usize {
    match status {
        0 => 4,
        200..300 => 0,
        300..400 => 1,
        400..500 => 2,
        _ => 3,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_has_a_class() {
        let cases = [
            (0, "none"),
            (200, "2xx"),
            (299, "2xx"),
            (304, "3xx"),
            (404, "4xx"),
            (499, "4xx"),
            (500, "5xx"),
            (529, "5xx"),
            (103, "5xx"),
            (777, "5xx"),
        ];
        for (status, word) in cases {
            assert_eq!(STATUSES[status_class(status)], word, "{status}");
        }
    }
}
