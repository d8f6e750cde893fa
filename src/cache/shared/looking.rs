//! Asking for a stored response, and bringing one.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use tokio::time::Instant;

use super::secret::hex;
use super::{Bound, STORE, Shared, entry};
use crate::cache::Policy;
use crate::cache::fence::{Scope, Stamp};
use crate::cache::key::Identity;
use crate::redis::{Failure, Reply};

/// Searches that cannot ask Redis share a fetch with those that began in the same half second: one that begins later
/// must not get an answer that may be older than a write elsewhere by more than the lease allows.
const APART: Duration = Duration::from_millis(500);

/// How a search's answer and its fences are named in Redis.
#[derive(Clone, Debug)]
pub struct Name {
    bound: Arc<Bound>,
    entry: String,
    fields: Vec<String>,
    scope: Scope,
}

/// Redis was asked when the search was sent, and said this.
#[derive(Clone, Debug)]
pub struct Asked {
    name: Name,
    /// Of the fences that messages move.
    pub mirror: Stamp,
    stamp: String,
    /// 1 if the answer may be stored, else the second of the server, below 0.
    rest: i64,
}

/// A stored response out of Redis.
#[derive(Debug)]
pub struct Found {
    /// The fields that are given again.
    pub headers: HeaderMap,
    /// The content.
    pub content: Bytes,
    /// How long ago it arrived.
    pub age: Duration,
    /// Its whole lifetime.
    pub ttl: Duration,
    /// Of the fences that messages move.
    pub mirror: Stamp,
}

/// What came of asking Redis.
#[derive(Debug)]
pub enum Looked {
    /// An answer.
    Found(Found),
    /// None, but what its search is sent under.
    Asked(Asked),
    /// Redis could not be asked, or may not be believed.
    Unavailable,
}

impl Asked {
    /// No write under way elsewhere, none settling: the answer may be stored.
    pub fn is_quiet(&self) -> bool {
        self.rest == 1
    }

    /// A value that differs whenever Redis knew of other writes, and from second to second while the store settles, as
    /// [`Stamp::generation`] does.
    pub fn generation(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        (&self.stamp, self.rest).hash(&mut hasher);
        hasher.finish()
    }
}

impl Shared {
    /// The name of a search: a second hash, because the process's own names are under a secret of its own. `None` as
    /// long as the shared one is not known.
    pub fn name<'a>(
        &self,
        upstream: &str,
        policy: &Policy,
        request: &Identity<'_>,
        store: &str,
        levels: impl IntoIterator<Item = Option<&'a str>>,
    ) -> Option<Name> {
        let bound = self.bound().filter(|_| self.keeper.is_up())?;
        let key = self.memo.key(&bound.keyring.names(upstream, policy), request);
        let scope = bound.slots.scope(store, levels);
        let entry = format!("{}{}", self.keys.entries, hex(&key.to_bytes()));
        Some(Name { entry, fields: scope.read().map(field).collect(), scope, bound })
    }

    /// Asks for the answer of that name, and for what a search that is sent now is sent under. With `fresh` only the
    /// latter. Takes `redis.timeout` at most.
    pub async fn look(&self, name: Option<Name>, fresh: bool) -> Looked {
        let looked = match name {
            // What could not be told is not seen by Redis: its answers may be older than a write of our own.
            Some(name) if self.writes.all_told() => self.ask(name, fresh).await.ok().flatten(),
            _ => None,
        };
        let (looked, counter) = match looked {
            Some(looked @ Looked::Found(_)) => (looked, &self.counts.hits),
            Some(looked) => (looked, &self.counts.misses),
            None => (Looked::Unavailable, &self.counts.unavailable),
        };
        counter.fetch_add(1, Relaxed);
        looked
    }

    async fn ask(&self, name: Name, fresh: bool) -> Result<Option<Looked>, Failure> {
        // Before it is sent: a message that comes meanwhile makes what is found unusable in memory.
        let mirror = self.trust.mirror.stamp(&name.scope);
        let lifetime = self.lifetime();
        let mut arguments =
            vec![name.bound.birth.as_bytes(), lifetime.as_bytes(), if fresh { b"" } else { b"1" }];
        arguments.extend(name.fields.iter().map(String::as_bytes));
        let keys = [self.keys.fences.as_str(), &name.entry];
        let reply = self.keeper.run(&self.scripts.look, &keys, &arguments, self.policy.timeout).await?;
        let Reply::List(parts) = reply else { return Ok(None) };
        let mut parts = parts.into_iter();
        let (Some(stamp), Some(Reply::Int(rest))) = (parts.next(), parts.next()) else { return Ok(None) };
        if let (Some(Reply::Bytes(bytes)), Some(Reply::Int(left))) = (parts.next(), parts.next())
            && let Ok(left @ 1..) = u64::try_from(left)
            && let Some(found) = entry::read(&name.entry, bytes, name.bound.seal.as_ref())
            // More is left of it than it ever had: the server's clock was set back, or somebody changed it.
            && let Some(age) = found.ttl.checked_sub(Duration::from_millis(left))
        {
            let entry::Entry { headers, content, ttl } = found;
            return Ok(Some(Looked::Found(Found { headers, content, age, ttl, mirror })));
        }
        let Some(stamp) = stamp.text().map(str::to_owned) else { return Ok(None) };
        Ok(Some(Looked::Asked(Asked { name, mirror, stamp, rest })))
    }

    /// For the names of flights that could not ask Redis.
    pub fn generation_unasked(&self) -> u64 {
        (self.begun.elapsed().as_nanos() / APART.as_nanos()) as u64
    }

    /// Brings an answer that has just arrived whole to Redis, in a task of its own. Redis takes it only if no write has
    /// passed since its search was sent.
    pub fn store(self: &Arc<Self>, asked: Asked, ttl: Duration, headers: HeaderMap, content: Bytes) {
        let Ok(permit) = Arc::clone(&self.storing).try_acquire_owned() else {
            self.counts.dropped.fetch_add(1, Relaxed);
            return;
        };
        let (shared, arrived) = (Arc::clone(self), Instant::now());
        tokio::spawn(async move {
            let counter = shared.bring(&asked, ttl, arrived, &headers, &content).await;
            counter.fetch_add(1, Relaxed);
            drop(permit);
        });
    }

    async fn bring(
        &self,
        asked: &Asked,
        ttl: Duration,
        arrived: Instant,
        headers: &HeaderMap,
        content: &[u8],
    ) -> &AtomicU64 {
        let name = &asked.name;
        let Some(bytes) = entry::write(&name.entry, ttl, headers, content, name.bound.seal.as_ref()) else {
            return &self.counts.failed;
        };
        let left = ttl.saturating_sub(arrived.elapsed()).as_millis();
        if left == 0 {
            return &self.counts.refused;
        }
        let left = left.to_string();
        let mut arguments = vec![asked.stamp.as_bytes(), left.as_bytes(), &bytes];
        arguments.extend(name.fields.iter().map(String::as_bytes));
        let keys = [self.keys.fences.as_str(), &name.entry];
        match self.keeper.run(&self.scripts.store, &keys, &arguments, STORE).await {
            Ok(Reply::Int(1)) => &self.counts.stored,
            Ok(_) => &self.counts.refused,
            Err(_) => &self.counts.failed,
        }
    }
}

/// The name of a fence.
pub(super) fn field(slot: u16) -> String {
    format!("f{slot}")
}
