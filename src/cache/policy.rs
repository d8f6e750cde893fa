//! What is decided per rule about storing.

use std::time::Duration;

use http::HeaderName;

use crate::json::pointer::{Pointer, Scalar};

/// How the answers of one rule are stored.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Freshness lifetime, counted from the arrival of the response.
    pub ttl: Duration,
    /// Larger answers are not stored, in bytes.
    pub max_entry: usize,
    /// Request headers that are part of the key besides the credentials.
    pub vary: Vec<HeaderName>,
    /// Request headers that carry credentials: part of the key, hashed.
    pub credentials: Vec<HeaderName>,
    /// Query parameters that do not change the answer.
    pub ignore_query: Vec<String>,
    /// What an answer must look like to be stored.
    pub store_if: StoreIf,
}

/// What an answer's content must look like, by top-level members: status 200 is not success everywhere.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreIf {
    /// Must be there.
    pub present: Vec<String>,
    /// Must not be there.
    pub absent: Vec<String>,
    /// Must not be an empty array: writers Pillion cannot see would stay unseen for the whole lifetime.
    pub non_empty: Vec<String>,
    /// Values that must stand at these places.
    pub equals: Vec<(Pointer, Scalar)>,
}

/// How long after a write's answer nothing is stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settle {
    /// The store may still answer searches with what was before. A search that asks for the newest is stored all the
    /// same.
    pub lag: Duration,
    /// The store may still be at work on what it acknowledged, such as an import: no search can see the outcome yet.
    pub work: Duration,
}
