//! Where stored responses are kept: in this process, bounded by bytes.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use quick_cache::Weighter;
use quick_cache::sync::Cache;

use super::fence::{Fences, Stamp};
use super::key::Key;
use super::sync::Instant;

/// What an entry costs besides its content and headers: key, stamp, times, and the cache's own bookkeeping.
const ENTRY_OVERHEAD: usize = 512;
/// What a header field costs besides its bytes.
const FIELD_OVERHEAD: usize = 64;

/// A complete 200 answer, as it is given again.
#[derive(Debug)]
pub struct Stored {
    /// The fields that are given again.
    pub headers: HeaderMap,
    /// The content, as the upstream sent it.
    pub content: Bytes,
    stamp: Stamp,
    arrived: Instant,
    lifetime: Lifetime,
}

/// How long a stored response may be used, counted from its arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetime {
    /// Instead of asking.
    pub fresh: Duration,
    /// So much longer when the upstream was asked and failed.
    pub stale: Duration,
}

/// A stored response that may be used now.
#[derive(Debug)]
pub struct Hit {
    /// The response.
    pub stored: Arc<Stored>,
    /// How long ago it arrived (RFC 9111 section 4.2.3).
    pub age: Duration,
    /// How long it is still fresh.
    pub ttl: Duration,
}

/// The stored responses of every route.
#[derive(Debug)]
pub struct Store {
    entries: Cache<Key, Arc<Stored>, ByBytes>,
    fences: Arc<Fences>,
}

#[derive(Clone, Debug)]
struct ByBytes;

impl Weighter<Key, Arc<Stored>> for ByBytes {
    fn weight(&self, _: &Key, stored: &Arc<Stored>) -> u64 {
        let fields: usize = stored
            .headers
            .iter()
            .map(|(name, value)| name.as_str().len() + value.len() + FIELD_OVERHEAD)
            .sum();
        (stored.content.len() + fields + ENTRY_OVERHEAD) as u64
    }
}

impl Store {
    /// A store of at most so many bytes.
    pub fn new(bytes: u64, fences: Arc<Fences>) -> Self {
        // An estimate only sizes the tables: 8 KiB is a usual search answer.
        let estimate = (bytes / 8192).clamp(16, 1 << 20) as usize;
        let entries = Cache::with_weighter(estimate, bytes, ByBytes);
        Self { entries, fences }
    }

    /// The stored response for this key, if it is fresh and no write has passed it.
    pub fn get(&self, key: Key) -> Option<Hit> {
        self.usable(key).filter(|hit| !hit.ttl.is_zero())
    }

    /// The stored response for this key, if it may be used now that the upstream has failed: fresh or not, no write has
    /// passed it.
    pub fn get_stale(&self, key: Key) -> Option<Hit> {
        self.usable(key)
    }

    /// The stored response, if it is of any use still; else it is removed.
    fn usable(&self, key: Key) -> Option<Hit> {
        let stored = self.entries.get(&key)?;
        let (age, Lifetime { fresh, stale }) = (stored.arrived.elapsed(), stored.lifetime);
        if age < fresh.saturating_add(stale) && self.fences.current(&stored.stamp) {
            return Some(Hit { ttl: fresh.saturating_sub(age), stored, age });
        }
        // Not what came in its place meanwhile.
        self.entries.remove_if(&key, |known| Arc::ptr_eq(known, &stored));
        None
    }

    /// Whether no write has passed this response, wherever it is now.
    pub fn is_current(&self, stored: &Stored) -> bool {
        self.fences.current(&stored.stamp)
    }

    /// Stores an answer that has just arrived whole, unless a write has passed it. Tells whether it did.
    pub fn put(
        &self,
        key: Key,
        stamp: Stamp,
        lifetime: Lifetime,
        headers: HeaderMap,
        content: &Bytes,
    ) -> bool {
        if !self.fences.may_store(&stamp) {
            return false;
        }
        // An answer that was asked for later is newer, whichever arrives first.
        if self.entries.peek(&key).is_some_and(|known| known.stamp.taken > stamp.taken) {
            return false;
        }
        // A copy, because the content as read may be a small slice of a large buffer that would stay alive with it.
        let content = Bytes::copy_from_slice(content);
        let stored = Stored { headers, content, stamp, arrived: Instant::now(), lifetime };
        self.entries.insert(key, Arc::new(stored));
        true
    }

    /// Drops what no write drops.
    pub fn forget_unfenced(&self) {
        self.entries.retain(|_, stored| stored.stamp.is_fenced());
    }

    /// Stored responses, usable or not.
    pub fn entries(&self) -> usize {
        self.entries.len()
    }

    /// Bytes they take.
    pub fn bytes(&self) -> u64 {
        self.entries.weight()
    }
}
