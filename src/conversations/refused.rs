//! Conversations that an upstream has refused in one form, trimmed or whole, and taken in the other: for a while they come in
//! that one first.

use std::time::Duration;

use quick_cache::sync::Cache;
use tokio::time::Instant;

use super::names::{Key, Whose};

/// How long. When it is over, the next request is tried in the usual form.
const WHILE: Duration = Duration::from_secs(600);
/// Of so many it is known; of the others the next request finds out again.
const MOST: usize = 4096;

/// Those that were refused.
#[derive(Debug)]
pub struct Refused {
    key: Key,
    taken: Cache<u128, (Form, Instant)>,
}

/// How a conversation is forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// As it came.
    Whole,
    /// Without its oldest turns.
    Trimmed,
}

/// What a conversation goes by here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal(u128);

impl Refused {
    /// None yet.
    pub fn new() -> Result<Self, getrandom::Error> {
        Ok(Self { key: Key::random()?, taken: Cache::new(MOST) })
    }

    /// What a conversation goes by: whose it is, and how it begins. A name may be that of a whole bot.
    pub fn name(&self, whose: &Whose<'_>, beginning: &[u8]) -> Refusal {
        Refusal(self.key.beginning(whose, beginning))
    }

    /// It was refused in the other form, and taken in this one.
    pub fn note(&self, refusal: Refusal, form: Form) {
        self.taken.insert(refusal.0, (form, Instant::now() + WHILE));
    }

    /// The form in which it was taken lately, after it was refused in the other.
    pub fn taken(&self, refusal: Refusal) -> Option<Form> {
        let (form, until) = self.taken.get(&refusal.0)?;
        if Instant::now() < until {
            return Some(form);
        }
        self.taken.remove(&refusal.0);
        None
    }
}
