//! Whether a failed attempt is made again, and when.

use std::time::Duration;

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
