//! What happened to one request: filled in on its way, observed once, wherever it ends.
//!
//! The observation happens when the [`Exchange`] is dropped, so that a client that hangs up during a back-off is seen
//! like one that read its answer to the last byte.

mod cache_status;
mod text;
mod timing;
mod usage;

pub use cache_status::{Bypass, CacheStatus, Compared};
pub use timing::{SERVER_TIMING, Timing, X_REQUEST_ID, X_RESPONSE_TIME};
pub use usage::Reader as UsageReader;

use std::sync::Arc;
use std::time::Duration;

use http::header::{Entry, HeaderMap, HeaderValue};
use tokio::time::Instant;

use crate::error::Kind;
use crate::metrics::{InFlight, Observation, Series, Trimmed};

/// One request, from its head read to its last byte sent.
#[derive(Debug)]
pub struct Exchange {
    started: Instant,
    /// `None` before it is routed, and after it was observed.
    in_flight: Option<InFlight>,
    /// What the upstream took.
    pub attempts: Attempts,
    /// What the cache did, on routes that cache.
    pub cache: Option<CacheStatus>,
    /// Messages forwarded after the head of the conversation.
    pub messages: Option<u64>,
    /// What was left out of the conversation.
    pub trimmed: Trimmed,
    /// Messages that would have been left out, in shadow.
    pub would_trim: u64,
    /// The identifier that the client gave it.
    pub asked_id: Option<HeaderValue>,
    /// The failure that was answered, or that cut the answer.
    pub error: Option<Kind>,
    status: u16,
    head: Option<Timing>,
    complete: bool,
    usage: Option<UsageReader>,
}

/// What the upstream took of one exchange.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attempts {
    /// Attempts made.
    pub count: u32,
    /// Waiting for the upstream, all attempts together.
    pub upstream: Duration,
    /// Waiting between attempts, and for a breaker.
    pub backoff: Duration,
    /// Waiting for a place among the calls under way.
    pub queued: Duration,
    /// The upstream may still be at work on one of them: how it ends is not known.
    pub unfinished: bool,
}

impl Attempts {
    /// An attempt has ended that took so long; if it is unfinished, for us only.
    pub fn ended(&mut self, waited: Duration, unfinished: bool) {
        self.count += 1;
        self.upstream += waited;
        self.unfinished |= unfinished;
    }

    /// Both together, as of a request that was sent once more in another form.
    #[must_use]
    pub fn and(self, more: Attempts) -> Attempts {
        Attempts {
            count: self.count + more.count,
            upstream: self.upstream + more.upstream,
            backoff: self.backoff + more.backoff,
            queued: self.queued + more.queued,
            unfinished: self.unfinished || more.unfinished,
        }
    }
}

impl Exchange {
    /// A request's head has been read. It counts from when it is routed.
    pub fn begin() -> Self {
        Self {
            started: Instant::now(),
            in_flight: None,
            attempts: Attempts::default(),
            cache: None,
            messages: None,
            trimmed: Trimmed::default(),
            would_trim: 0,
            asked_id: None,
            error: None,
            status: 0,
            head: None,
            complete: false,
            usage: None,
        }
    }

    /// When the request's head had been read.
    pub fn started(&self) -> Instant {
        self.started
    }

    /// The request belongs to this route and operation.
    pub fn routed(&mut self, series: &Arc<Series>) {
        self.in_flight = Some(series.enter());
    }

    /// The numbers it counts in.
    pub fn series(&self) -> Option<&Arc<Series>> {
        self.in_flight.as_ref().map(InFlight::series)
    }

    /// The response head is about to be sent: writes what it tells of the exchange.
    pub fn seal(&mut self, status: u16, headers: &mut HeaderMap) {
        let timing = Timing {
            total: self.started.elapsed(),
            upstream: self.attempts.upstream,
            backoff: self.attempts.backoff,
            queued: self.attempts.queued,
            attempts: self.attempts.count,
            cache: self.cache.map(CacheStatus::word),
        };
        timing.write(headers);
        if let Some(cache) = self.cache {
            headers.append(http::HeaderName::from_static("cache-status"), cache.value());
        }
        // Taken even where it is not given: it is a slice of all that was read with the request, and would keep it as long
        // as the answer streams.
        let asked_id = self.asked_id.take();
        if let Entry::Vacant(vacant) = headers.entry(X_REQUEST_ID) {
            vacant.insert(asked_id.unwrap_or_else(request_id));
        }
        self.status = status;
        self.head = Some(timing);
    }

    /// The identifier it goes by where no upstream has given it one.
    pub fn request_id(&mut self) -> &HeaderValue {
        self.asked_id.get_or_insert_with(request_id)
    }

    /// The answer tells its usage: read it while it passes.
    pub fn read_usage(&mut self, headers: &HeaderMap) {
        self.usage = UsageReader::new(headers);
    }

    /// A chunk of the answer passes.
    pub fn pass(&mut self, chunk: &bytes::Bytes) {
        if let Some(usage) = &mut self.usage {
            usage.pass(chunk);
        }
    }

    /// The last byte of the answer was handed over.
    pub fn complete(&mut self) {
        self.complete = true;
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let Some(in_flight) = self.in_flight.take() else { return };
        let total = self.started.elapsed();
        in_flight.series().observe(&Observation {
            status: self.status,
            client_gone: !self.complete && self.error.is_none(),
            error: self.error,
            total,
            head: self.head.map(|timing| timing.total),
            overhead: self.head.map(|timing| timing.own()).unwrap_or_default(),
            cache: self.cache.map(CacheStatus::index),
            messages: self.messages,
            trimmed: self.trimmed,
            would_trim: self.would_trim,
            usage: self.usage.take().map(UsageReader::finish).unwrap_or_default(),
        });
        tracing::debug!(
            status = self.status,
            complete = self.complete,
            error = self.error.map(Kind::word),
            attempts = self.attempts.count,
            cache = self.cache.map(CacheStatus::word),
            seconds = total.as_secs_f64(),
            "request"
        );
    }
}

/// A new identifier. Opaque, for finding lines in logs; nothing is protected by it.
pub fn request_id() -> HeaderValue {
    let mut text = [0; 32];
    let mut rest = fastrand::u128(..);
    for digit in &mut text {
        *digit = match (rest & 0xf) as u8 {
            value @ 0..10 => b'0' + value,
            value => b'a' + value - 10,
        };
        rest >>= 4;
    }
    HeaderValue::from_bytes(&text).unwrap_or(HeaderValue::from_static("-"))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn what_was_read_with_the_request_is_let_go_with_the_head() {
        let mut exchange = Exchange::begin();
        // As hyper gives it: a slice of all that was read.
        let read = Bytes::from(vec![b'a'; 256 << 10]);
        let (value, rest) = (read.slice(..8), read.slice(8..));
        drop(read);
        exchange.asked_id = Some(HeaderValue::from_maybe_shared(value).unwrap());
        assert!(!rest.is_unique(), "nothing is told by this test");
        let mut headers = HeaderMap::new();
        headers.insert(X_REQUEST_ID, HeaderValue::from_static("of-upstream"));
        exchange.seal(200, &mut headers);
        assert_eq!(headers[X_REQUEST_ID], "of-upstream");
        assert!(rest.is_unique());
    }
}
