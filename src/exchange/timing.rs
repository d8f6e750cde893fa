//! The headers that tell the time, on every response.

use std::time::Duration;

use http::header::{HeaderMap, HeaderName};

use super::text::Text;

/// Seconds from request head read to response head sent.
pub const X_RESPONSE_TIME: HeaderName = HeaderName::from_static("x-response-time");
/// Where they went: <https://www.w3.org/TR/server-timing/>.
pub const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");
/// Names the exchange in both sides' logs.
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Where the time until the response head went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timing {
    /// All of it.
    pub total: Duration,
    /// Waiting for the upstream, all attempts together.
    pub upstream: Duration,
    /// Waiting between attempts.
    pub backoff: Duration,
    /// Waiting for a place among the calls under way.
    pub queued: Duration,
    /// Attempts made; 0 when no upstream was asked.
    pub attempts: u32,
    /// What the cache did, on routes that cache.
    pub cache: Option<&'static str>,
}

impl Timing {
    /// What Pillion itself took: all that is neither upstream nor waiting.
    pub fn own(&self) -> Duration {
        self.total.saturating_sub(self.upstream + self.backoff + self.queued)
    }

    /// Writes `X-Response-Time`, and our part of `Server-Timing` behind the upstream's.
    pub fn write(&self, headers: &mut HeaderMap) {
        let mut text = Text::default();
        text.seconds(self.total);
        if let Some(value) = text.value() {
            headers.insert(X_RESPONSE_TIME, value);
        }
        let mut text = Text::default();
        text.metric("pillion;dur=", self.own());
        if self.attempts > 0 {
            text.metric(", upstream;dur=", self.upstream);
        }
        if let Some(word) = self.cache {
            text.push(", cache;desc=");
            text.push(word);
        }
        if self.attempts > 0 {
            text.push(", attempts;desc=");
            text.digits(u64::from(self.attempts), 1);
        }
        if !self.backoff.is_zero() {
            text.metric(", backoff;dur=", self.backoff);
        }
        if !self.queued.is_zero() {
            text.metric(", queue;dur=", self.queued);
        }
        if let Some(value) = text.value() {
            headers.append(SERVER_TIMING, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn written(timing: Timing) -> (String, String) {
        let mut headers = HeaderMap::new();
        timing.write(&mut headers);
        let text = |name| headers.get(name).unwrap().to_str().unwrap().to_owned();
        (text(X_RESPONSE_TIME), text(SERVER_TIMING))
    }

    #[test]
    fn a_hit_is_ours_alone() {
        let timing = Timing { total: Duration::from_nanos(412_900), cache: Some("hit"), ..Timing::default() };
        assert_eq!(written(timing), ("0.000412".into(), "pillion;dur=0.41, cache;desc=hit".into()));
    }

    #[test]
    fn a_retried_miss_tells_all_parts() {
        let timing = Timing {
            total: Duration::from_micros(1_262_490),
            upstream: Duration::from_micros(212_400),
            backoff: Duration::from_secs(1),
            queued: Duration::from_millis(50),
            attempts: 2,
            cache: Some("miss"),
        };
        assert_eq!(
            written(timing),
            (
                "1.262490".into(),
                "pillion;dur=0.09, upstream;dur=212.40, cache;desc=miss, attempts;desc=2, backoff;dur=1000.00, queue;dur=50.00".into()
            )
        );
    }

    #[test]
    fn ours_comes_behind_the_upstreams() {
        let mut headers = HeaderMap::new();
        headers.insert(SERVER_TIMING, HeaderValue::from_static("db;dur=5"));
        Timing::default().write(&mut headers);
        let all: Vec<_> = headers.get_all(SERVER_TIMING).iter().map(|v| v.to_str().unwrap()).collect();
        assert_eq!(all, ["db;dur=5", "pillion;dur=0.00"]);
    }
}
