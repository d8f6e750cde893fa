//! Searches whose answers cannot be shared: for a short while they do not wait for each other.
//!
//! An answer with a cookie, or one too large to hold, is for who asked. Whoever waited for it has waited in vain and
//! asks after all; if the next ones waited as well, every one of them would take twice as long as without a cache. So
//! the key is remembered (Varnish calls it hit-for-miss), and forgotten as soon as an answer can be shared again.

use std::time::Duration;

use quick_cache::sync::Cache;
use tokio::time::Instant;

use super::key::Key;

/// How long a key is remembered: short, since meanwhile identical searches all go upstream.
const MEMORY: Duration = Duration::from_secs(10);

/// Keys remembered at most, some 100 bytes each. One that falls out costs its next waiters their time, once.
const KEYS: usize = 4096;

/// Keys of answers that could not be shared.
#[derive(Debug)]
pub struct Unshared(Cache<Key, Instant>);

impl Default for Unshared {
    fn default() -> Self {
        Self(Cache::new(KEYS))
    }
}

impl Unshared {
    /// The answer of this key has turned out not to be for everybody, or to be.
    pub fn note(&self, key: Key, shared: bool) {
        if !shared {
            self.0.insert(key, Instant::now());
        } else if !self.0.is_empty() {
            self.0.remove(&key);
        }
    }

    /// Whether the last answer of this key could not be shared, a short while ago.
    pub fn contains(&self, key: Key) -> bool {
        !self.0.is_empty() && self.0.peek(&key).is_some_and(|since| since.elapsed() < MEMORY)
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, Method};

    use super::super::Policy;
    use super::super::key::{Identity, Keyring};
    use super::*;

    fn keys(count: usize) -> Vec<Key> {
        let policy = Policy::usual();
        let names = Keyring::seeded([7; 16]).names("http://h:80", &policy);
        let (method, headers) = (Method::GET, HeaderMap::new());
        let key = |path: &str| {
            names.key(&Identity { method: &method, path, query: None, headers: &headers, body: &[] })
        };
        (0..count).map(|n| key(&format!("/{n}"))).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_is_remembered_until_it_can_be_shared_or_the_while_is_over() {
        let (unshared, keys) = (Unshared::default(), keys(2));
        unshared.note(keys[0], false);
        assert!(unshared.contains(keys[0]) && !unshared.contains(keys[1]));
        tokio::time::advance(MEMORY * 99 / 100).await;
        assert!(unshared.contains(keys[0]));
        tokio::time::advance(MEMORY / 100).await;
        assert!(!unshared.contains(keys[0]));
        unshared.note(keys[0], false);
        assert!(unshared.contains(keys[0]), "again");
        unshared.note(keys[0], true);
        assert!(!unshared.contains(keys[0]), "forgotten");
    }

    #[tokio::test(start_paused = true)]
    async fn the_memory_is_bounded() {
        let unshared = Unshared::default();
        for key in keys(4 * KEYS) {
            unshared.note(key, false);
        }
        assert!(unshared.0.len() <= KEYS, "{}", unshared.0.len());
    }
}
