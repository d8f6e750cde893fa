//! Whether a failed attempt is made again, and when.
//!
//! [`Policy::decide`] is pure: the time left, what others have used of the budget and the randomness come in as values.
//! It never allows a second attempt once a byte of a response was forwarded: by then nobody asks it. What keeps many
//! requests from retrying at once is the [`Guard`], which they share.

pub mod breaker;
mod first_event;
mod guard;
mod push_back;
mod recent;

pub use first_event::{FirstEvent, first_event};
pub use guard::{Budget, Guard, Policy as GuardPolicy, Probe};
pub use push_back::push_back;

use std::time::Duration;

use breaker::Health;
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
    /// No byte of the request reached the upstream: not resolved, not connected, no TLS.
    NeverSent(Kind),
    /// The upstream has said that it did not look at the request (RFC 9113 section 8.7).
    Refused,
    /// A connection that had been used before ended without a byte of an answer: most likely it was being closed when
    /// the request was sent (RFC 9112 section 9.3.1).
    Reused,
    /// The connection ended after the request was sent and before its answer was complete, or what came was not HTTP.
    Reset,
    /// No response head within `first_byte`.
    FirstByteTimeout,
    /// No further chunk within `idle` of an answer that is held until it is complete.
    IdleTimeout,
    /// The deadline of the whole request is over.
    Deadline,
    /// The answer has this status.
    Status(StatusCode),
    /// The answer has this status or event and says that paying would help: no attempt will.
    Billing,
    /// The first event of a stream is an error that another attempt may not meet.
    StreamError,
}

impl Failure {
    /// Whether the upstream has failed, rather than refused what nobody would grant.
    pub fn is_upstreams(self) -> bool {
        match self {
            Failure::Status(status) => retryable_status(status),
            _ => true,
        }
    }

    /// Whether a connection was ending when the request came to it. If it is the first attempt, the next is made on another
    /// at once, whatever the budget says, as gRPC's transparent retry
    /// (<https://github.com/grpc/proposal/blob/master/A6-client-retries.md>).
    pub fn is_ending(self) -> bool {
        matches!(self, Failure::Refused | Failure::Reused)
    }

    /// What it tells of the upstream's health. 429 is an answer, and 408 and 409 are of one request.
    pub fn health(self) -> Health {
        match self {
            Failure::Refused | Failure::Reused | Failure::Deadline => Health::Unknown,
            Failure::NeverSent(_) => Health::Unreachable,
            Failure::Reset | Failure::FirstByteTimeout | Failure::IdleTimeout | Failure::StreamError => {
                Health::Failed
            }
            Failure::Status(status) if status.is_server_error() && retryable_status(status) => Health::Failed,
            Failure::Status(_) | Failure::Billing => Health::Up,
        }
    }
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
    /// When the upstream wishes to be asked again, and its breaker would let it be: a floor under the back-off.
    pub push_back: Duration,
    /// What all requests to the upstream have used of their budget.
    pub budget: Budget,
    /// Time until the deadline.
    pub remaining: Duration,
    /// The quickest answer to an attempt of this request; nothing when there was none. One that has less time left cannot
    /// end in time.
    pub quickest: Duration,
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
    /// A kept connection had ended.
    Reused,
    /// The connection was lost before the answer was complete.
    Reset,
    /// No response head in time, or not the next piece of content.
    Timeout,
    /// 429.
    TooManyRequests,
    /// 408, 409, 500, 502, 503, 504, 529, and whatever the upstream asks to be tried again.
    Status,
    /// A stream began with an error.
    StreamError,
}

impl Reason {
    /// The labels, in the order of the variants.
    pub const WORDS: [&'static str; 7] =
        ["never_sent", "reused", "reset", "timeout", "too_many_requests", "status", "stream_error"];
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
    /// All requests to the upstream together have retried enough.
    Budget,
    /// The breaker of the upstream is open.
    Breaker,
    /// The content is larger than `limits.replay_body`, so that it could be sent once only.
    Size,
    /// There was no room left in `memory.buffers` to hold the content.
    Memory,
}

impl GiveUp {
    /// The labels, in the order of the variants.
    pub const WORDS: [&'static str; 13] = [
        "not_retryable",
        "disabled",
        "spent",
        "class",
        "deadline",
        "max_wait",
        "billing",
        "upstream_says_no",
        "abandoned",
        "budget",
        "breaker",
        "size",
        "memory",
    ];

    /// Whether the client's SDK is told to stop too: retrying was ours, and it is over.
    pub const fn stops_sdk(self) -> bool {
        matches!(self, GiveUp::Spent | GiveUp::Deadline | GiveUp::Billing | GiveUp::Budget | GiveUp::Breaker)
    }
}

/// Statuses worth another attempt: what the official OpenAI and Anthropic SDKs retry, less the 5xx that another
/// attempt cannot mend (501, 505, 511).
pub fn retryable_status(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 409 | 429 | 500 | 502 | 503 | 504 | 529)
}

impl Policy {
    /// Attempts that are ours. The SDK counts its tries for us: without this, 3 of its and 4 of ours are 12.
    fn attempts(&self, client_retries: u32) -> u32 {
        self.attempts.saturating_sub(client_retries).max(1)
    }

    /// Whether an answer that looks well is waited for until it has begun, because it may turn out an error. Of a request
    /// that may be attempted again every attempt is, the last one too: it would count as a success otherwise.
    pub fn awaits_first_event(&self, class: Class, client_retries: u32) -> bool {
        self.enabled && self.attempts(client_retries) > 1 && class_allows(class, Failure::StreamError)
    }

    /// Whether the failed attempt is made again.
    pub fn decide(&self, s: &Situation) -> Decision {
        let reason = match reason(s) {
            Ok(reason) => reason,
            Err(why) => return Decision::GiveUp(why),
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
        if s.attempt >= self.attempts(s.client_retries) {
            return Decision::GiveUp(GiveUp::Spent);
        }
        if s.attempt == 1 && s.failure.is_ending() {
            return Decision::Retry { after: Duration::ZERO, reason };
        }
        let after = self.back_off(s.attempt, s.random).max(s.push_back);
        if after.saturating_add(s.quickest) >= s.remaining {
            return Decision::GiveUp(GiveUp::Deadline);
        }
        if s.waited.saturating_add(after) > self.max_wait {
            return Decision::GiveUp(GiveUp::MaxWait);
        }
        if !s.budget.allows() {
            return Decision::GiveUp(GiveUp::Budget);
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

/// Why an attempt might be made again, or why none would help whatever the request.
fn reason(s: &Situation) -> Result<Reason, GiveUp> {
    match s.failure {
        // A certificate does not become valid by waiting.
        Failure::NeverSent(Kind::TlsCertificate) => Err(GiveUp::NotRetryable),
        Failure::NeverSent(_) | Failure::Refused => Ok(Reason::NeverSent),
        Failure::Reused => Ok(Reason::Reused),
        Failure::Reset => Ok(Reason::Reset),
        Failure::FirstByteTimeout | Failure::IdleTimeout => Ok(Reason::Timeout),
        Failure::Deadline => Err(GiveUp::Deadline),
        Failure::Status(StatusCode::TOO_MANY_REQUESTS) => Ok(Reason::TooManyRequests),
        Failure::Status(status) if retryable_status(status) || s.upstream_says == Some(true) => {
            Ok(Reason::Status)
        }
        Failure::Status(_) => Err(GiveUp::NotRetryable),
        Failure::Billing => Err(GiveUp::Billing),
        Failure::StreamError => Ok(Reason::StreamError),
    }
}

fn class_allows(class: Class, failure: Failure) -> bool {
    match (class, failure) {
        (_, Failure::NeverSent(_) | Failure::Refused) | (Class::Idempotent, _) => true,
        (Class::Chat, failure) => failure != Failure::FirstByteTimeout,
        (Class::ChatStateful, Failure::Status(status)) => {
            status == StatusCode::TOO_MANY_REQUESTS || status == StatusCode::SERVICE_UNAVAILABLE
        }
        (Class::ChatStateful | Class::Other, _) => false,
    }
}

#[cfg(test)]
mod tests;
