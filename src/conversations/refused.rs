//! Conversations that an upstream has refused trimmed and took whole: for a while they are not trimmed.

use std::time::Duration;

use quick_cache::sync::Cache;
use tokio::time::Instant;

use super::names::{Id, Key, Whose};

/// How long one is left whole. When it is over, the next request is tried trimmed.
const WHILE: Duration = Duration::from_secs(600);
/// Of so many it is known; of the others the next request finds out again.
const MOST: usize = 4096;

/// Those that were refused.
#[derive(Debug)]
pub struct Refused {
    key: Key,
    until: Cache<Id, Instant>,
}

/// What a conversation goes by here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal(Id);

impl Refused {
    /// None yet.
    pub fn new() -> Result<Self, getrandom::Error> {
        Ok(Self { key: Key::random()?, until: Cache::new(MOST) })
    }

    /// What a conversation goes by. One without an identifier may go by how it begins.
    pub fn name(&self, whose: &Whose<'_>) -> Refusal {
        Refusal(self.key.id(whose))
    }

    /// It was refused trimmed, and taken whole.
    pub fn note(&self, refusal: Refusal) {
        self.until.insert(refusal.0, Instant::now() + WHILE);
    }

    /// Whether it is left whole.
    pub fn has(&self, refusal: Refusal) -> bool {
        match self.until.get(&refusal.0) {
            Some(until) if Instant::now() < until => true,
            Some(_) => {
                self.until.remove(&refusal.0);
                false
            }
            None => false,
        }
    }
}
