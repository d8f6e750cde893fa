//! Whether a failed attempt is made again, and when.
//!
//! [`Policy::decide`] is pure: the time left and the randomness come in as values. It never allows a second attempt
//! once a byte of a response was forwarded: by then nobody asks it.

mod push_back;

pub use push_back::retry_after;

use std::time::Duration;

use http::StatusCode;

use crate::error::Kind;

/// What may be attempted again without harm (RFC 9110 section 9.2.2, and what the official SDKs do).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Searches, embeddings, upserts and deletes by id: any failure before the first forwarded byte.
    Idempotent,
    /// As its official SDK would, except that a first-byte timeout is final.
    Chat,
    /// Leaves state: only if never sent, or on an explicit 429 or 503.
    ChatStateful,
    /// Only if never sent.
    Other,
}

/// What is decided per rule about retries.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// Off: one attempt.
    pub enabled: bool,
    /// What may be attempted again.
    pub class: Class,
    /// Attempts in all, the first included.
    pub attempts: u32,
    /// Back-off before the second attempt, at most.
    pub base: Duration,
    /// Growth of the back-off per attempt.
    pub factor: f64,
    /// One back-off, at most.
    pub max: Duration,
    /// All back-offs of a request together, at most.
    pub max_wait: Duration,
}

/// How an attempt failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// No byte of the request reached the upstream: not resolved, not connected, no TLS, refused stream.
    NeverSent(Kind),
    /// The connection ended after the request was sent and before its answer was complete.
    Reset,
    /// No response head within `first_byte`.
    FirstByteTimeout,
    /// The answer has this status.
    Status(StatusCode),
    /// The answer has this status and says that paying would help: no attempt will.
    Billing,
}

/// What is known when an attempt has failed.
#[derive(Clone, Copy, Debug)]
pub struct Situation {
    /// What the request may bear; a chat that leaves state is told by its content, not by its rule.
    pub class: Class,
    /// Attempts made, the failed one included.
    pub attempt: u32,
    /// How the last one failed.
    pub failure: Failure,
    /// The upstream's own word (`x-should-retry`), where it gave one.
    pub upstream_says: Option<bool>,
    /// The upstream's `Retry-After` or `retry-after-ms`: a floor under the back-off.
    pub push_back: Option<Duration>,
    /// Time until the deadline.
    pub remaining: Duration,
    /// Back-off waited so far.
    pub waited: Duration,
    /// How often the client's own SDK has tried this request before (`x-stainless-retry-count`).
    pub client_retries: u32,
    /// Uniform in `0.0..1.0`.
    pub random: f64,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Decision {
    /// Wait, then attempt again.
    Retry {
        /// The back-off.
        after: Duration,
        /// Why, for the metric.
        reason: Reason,
    },
    /// The last answer or failure stands.
    GiveUp(GiveUp),
}

/// Why an attempt is made again: a metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The request had not been sent.
    NeverSent,
    /// The connection was lost before the answer was complete.
    Reset,
    /// No response head in time.
    Timeout,
    /// 429.
    TooManyRequests,
    /// 408, 409, 500, 502, 503, 504, 529.
    Status,
}

impl Reason {
    /// The labels, in the order of the variants.
    pub const WORDS: [&'static str; 5] = ["never_sent", "reset", "timeout", "too_many_requests", "status"];
}

/// Why no further attempt is made: a metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GiveUp {
    /// Nothing here that an attempt would mend, such as a 400.
    NotRetryable,
    /// Retries are off.
    Disabled,
    /// All attempts are spent.
    Spent,
    /// The class forbids it.
    Class,
    /// The back-off would not end before the deadline.
    Deadline,
    /// The back-off would exceed `max_wait`.
    MaxWait,
    /// A 429 that means: pay first.
    Billing,
    /// The upstream asked not to.
    UpstreamSaysNo,
    /// Nobody waits for the answer any more.
    Abandoned,
}

impl GiveUp {
    /// The labels, in the order of the variants.
    pub const WORDS: [&'static str; 9] = [
        "not_retryable",
        "disabled",
        "spent",
        "class",
        "deadline",
        "max_wait",
        "billing",
        "upstream_says_no",
        "abandoned",
    ];

    /// Whether the client's SDK is told to stop too: retrying was ours, and it is over.
    pub const fn stops_sdk(self) -> bool {
        matches!(self, GiveUp::Spent | GiveUp::Deadline | GiveUp::Billing)
    }
}

/// Statuses worth another attempt: what the official OpenAI and Anthropic SDKs retry, less the 5xx that another
/// attempt cannot mend (501, 505, 511).
pub fn retryable_status(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 409 | 429 | 500 | 502 | 503 | 504 | 529)
}

impl Policy {
    /// Whether the failed attempt is made again.
    pub fn decide(&self, s: &Situation) -> Decision {
        let Some(reason) = reason(s) else {
            return Decision::GiveUp(if s.failure == Failure::Billing {
                GiveUp::Billing
            } else {
                GiveUp::NotRetryable
            });
        };
        if !self.enabled {
            return Decision::GiveUp(GiveUp::Disabled);
        }
        if s.upstream_says == Some(false) {
            return Decision::GiveUp(GiveUp::UpstreamSaysNo);
        }
        if !class_allows(s.class, s.failure) {
            return Decision::GiveUp(GiveUp::Class);
        }
        // The SDK counts its tries for us: without this, 3 of its and 4 of ours are 12.
        let attempts = self.attempts.saturating_sub(s.client_retries).max(1);
        if s.attempt >= attempts {
            return Decision::GiveUp(GiveUp::Spent);
        }
        let after = self.back_off(s.attempt, s.random).max(s.push_back.unwrap_or_default());
        if after >= s.remaining {
            return Decision::GiveUp(GiveUp::Deadline);
        }
        if s.waited + after > self.max_wait {
            return Decision::GiveUp(GiveUp::MaxWait);
        }
        Decision::Retry { after, reason }
    }

    /// Full jitter: uniform between nothing and the exponential ceiling
    /// (<https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/>).
    fn back_off(&self, attempt: u32, random: f64) -> Duration {
        let growth = self.factor.powf(f64::from(attempt.saturating_sub(1).min(64)));
        let ceiling = (self.base.as_secs_f64() * growth).min(self.max.as_secs_f64());
        Duration::try_from_secs_f64(ceiling * random).unwrap_or(self.max)
    }
}

fn reason(s: &Situation) -> Option<Reason> {
    match s.failure {
        Failure::NeverSent(_) => Some(Reason::NeverSent),
        Failure::Reset => Some(Reason::Reset),
        Failure::FirstByteTimeout => Some(Reason::Timeout),
        Failure::Status(StatusCode::TOO_MANY_REQUESTS) => Some(Reason::TooManyRequests),
        Failure::Status(status) if retryable_status(status) => Some(Reason::Status),
        Failure::Billing | Failure::Status(_) => None,
    }
}

fn class_allows(class: Class, failure: Failure) -> bool {
    match (class, failure) {
        (_, Failure::NeverSent(_)) | (Class::Idempotent, _) => true,
        (Class::Chat, failure) => failure != Failure::FirstByteTimeout,
        (Class::ChatStateful, Failure::Status(status)) => {
            status == StatusCode::TOO_MANY_REQUESTS || status == StatusCode::SERVICE_UNAVAILABLE
        }
        (Class::ChatStateful | Class::Other, _) => false,
    }
}

#[cfg(test)]
mod tests;
