//! Where stored responses are kept: in this process, bounded by bytes.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use quick_cache::Weighter;
use quick_cache::sync::Cache;

use super::fence::{Fences, Stamp};
use super::key::Key;
use super::shared::trust::Trust;
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
    under: Under,
    arrived: Instant,
    /// How old it was then.
    aged: Duration,
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

/// What an answer was fetched under.
#[derive(Clone, Debug)]
pub struct Under {
    /// Of the process's own fences.
    pub own: Stamp,
    /// Of the fences that other instances move, where there are others.
    pub mirror: Option<Box<Stamp>>,
}

impl Under {
    /// Of what no write can change.
    pub fn unfenced(fences: &Fences) -> Self {
        Self { own: fences.stamp_unfenced(), mirror: None }
    }
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
    /// Where other instances write, too: what is here counts only under a lease.
    trust: Option<Arc<Trust>>,
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
    pub fn new(bytes: u64, fences: Arc<Fences>, trust: Option<Arc<Trust>>) -> Self {
        // An estimate only sizes the tables: 8 KiB is a usual search answer.
        let estimate = (bytes / 8192).clamp(16, 1 << 20) as usize;
        let entries = Cache::with_weighter(estimate, bytes, ByBytes);
        Self { entries, fences, trust }
    }

    /// The stored response for this key, if it is fresh and no write has passed it.
    pub fn get(&self, key: Key) -> Option<Hit> {
        let now = Instant::now();
        if let Some(trust) = &self.trust {
            trust.touch(now);
        }
        self.usable(key, now).filter(|hit| !hit.ttl.is_zero())
    }

    /// The same of what no write can change: it needs no lease, and keeps none.
    pub fn get_unfenced(&self, key: Key) -> Option<Hit> {
        self.usable(key, Instant::now()).filter(|hit| !hit.ttl.is_zero())
    }

    /// The stored response for this key, if it may be used now that the upstream has failed: fresh or not, no write has
    /// passed it.
    pub fn get_stale(&self, key: Key) -> Option<Hit> {
        self.usable(key, Instant::now())
    }

    /// The stored response, if it is of any use still; else it is removed.
    fn usable(&self, key: Key, now: Instant) -> Option<Hit> {
        let stored = self.entries.get(&key)?;
        // It may be true all the same: who hears of writes again finds that out.
        if !self.hears_of_writes(&stored.under, now) {
            return None;
        }
        let Lifetime { fresh, stale } = stored.lifetime;
        let age = stored.aged + now.saturating_duration_since(stored.arrived);
        if age < fresh.saturating_add(stale) && self.no_write_passed(&stored.under) {
            return Some(Hit { ttl: fresh.saturating_sub(age), stored, age });
        }
        // Not what came in its place meanwhile.
        self.entries.remove_if(&key, |known| Arc::ptr_eq(known, &stored));
        None
    }

    /// Whether no write has passed this response, wherever it is now.
    pub fn is_current(&self, stored: &Stored) -> bool {
        self.hears_of_writes(&stored.under, Instant::now()) && self.no_write_passed(&stored.under)
    }

    /// Whether no write can have passed it unheard.
    fn hears_of_writes(&self, under: &Under, now: Instant) -> bool {
        !under.own.is_fenced() || self.trust.as_ref().is_none_or(|trust| trust.holds(now))
    }

    fn no_write_passed(&self, under: &Under) -> bool {
        let mirrored = |trust: &Arc<Trust>| under.mirror.as_ref().is_some_and(|stamp| trust.current(stamp));
        self.fences.current(&under.own)
            && (!under.own.is_fenced() || self.trust.as_ref().is_none_or(mirrored))
    }

    /// Stores an answer that has just arrived whole, unless a write has passed it. Tells what is stored.
    pub fn put(
        &self,
        key: Key,
        under: Under,
        lifetime: Lifetime,
        headers: HeaderMap,
        content: &Bytes,
    ) -> Option<Arc<Stored>> {
        // A copy, because the content as read may be a small slice of a large buffer that would stay alive with it.
        let content = || Bytes::copy_from_slice(content);
        self.insert(key, under, (lifetime, Duration::ZERO), headers, content)
    }

    /// The same of an answer that has been stored elsewhere, and has this age.
    pub fn put_aged(
        &self,
        key: Key,
        under: Under,
        aging: (Lifetime, Duration),
        headers: HeaderMap,
        content: Bytes,
    ) -> Option<Arc<Stored>> {
        self.insert(key, under, aging, headers, || content)
    }

    fn insert(
        &self,
        key: Key,
        under: Under,
        (lifetime, aged): (Lifetime, Duration),
        headers: HeaderMap,
        content: impl FnOnce() -> Bytes,
    ) -> Option<Arc<Stored>> {
        // Not what others have written meanwhile: a hit asks that, and Redis asks it for itself.
        if !self.fences.may_store(&under.own) {
            return None;
        }
        // An answer that was asked for later is newer, whichever arrives first.
        if self.entries.peek(&key).is_some_and(|known| known.under.own.taken > under.own.taken) {
            return None;
        }
        let (content, arrived) = (content(), Instant::now());
        let stored = Arc::new(Stored { headers, content, under, arrived, aged, lifetime });
        self.entries.insert(key, Arc::clone(&stored));
        Some(stored)
    }

    /// Drops what no write drops, and what is being fetched of it.
    pub fn forget_unfenced(&self) {
        self.fences.shift_unfenced();
        self.entries.retain(|_, stored| stored.under.own.is_fenced());
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
