//! The tier that instances share, in Redis.
//!
//! There are stored responses and, in one key, the *fences* of every store: per fence a token that each write changes,
//! until when the store settles, and which writes are under way. An answer carries the tokens that its search was sent
//! under and counts only while all of them are still the same, which Redis compares in the same step in which it hands
//! the answer over ([`scripts`](self::scripts)). All fences are one key, so that they are lost together or not at all,
//! and whoever finds them gone begins anew under another *birth*: nothing stored before counts. A new *epoch* does the
//! same without forgetting what is under way; it begins whenever Redis may have forgotten writes (another server, after
//! a restart or a failover).
//!
//! Before it answers out of its own memory an instance has to know that it has heard of every write: [`trust`].
//! Writes are told before they are forwarded: [`writes`]. Where Redis cannot be asked a search goes upstream, and its
//! answer is stored nowhere.

mod entry;
mod looking;
mod scripts;
mod secret;
mod tasks;
pub mod trust;
pub mod writes;

pub use looking::{Asked, Found, Looked, Name};

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use self::scripts::Scripts;
use self::secret::{Derived, Seal};
use self::trust::{LENGTH, Trust};
use self::writes::Writes;
use super::fence::Slots;
use super::key::Keyring;
use super::memo::Memo;
use crate::redis::{Address, CONNECT, Failure, Join, Keeper, Link, Reply, Tls};

/// The fences outlive every entry, and a week without a search.
const LIFETIME: Duration = Duration::from_secs(7 * 86_400);
/// Answers on their way to Redis at a time; more are not stored there.
const STORING: usize = 64;
/// How long one of them may take.
const STORE: Duration = Duration::from_secs(1);
/// What the names take that spellings of searches have in Redis, in bytes.
const MEMO: u64 = 1024 * 1024;

/// How the tier is used.
#[derive(Clone)]
pub struct Policy {
    /// Where Redis is.
    pub address: Address,
    /// What a search waits for it, at most.
    pub timeout: Duration,
    /// Begins every key and channel.
    pub prefix: String,
    /// Names and seals what lies there; `None`: one that lies there too, and nothing is sealed.
    pub secret: Option<String>,
    /// The longest lifetime of an entry.
    pub longest_ttl: Duration,
    /// The longest that a store takes to settle.
    pub settle: Duration,
    /// The longest that a write of any route may be under way or unsettled.
    pub longest_write: Duration,
}

impl std::fmt::Debug for Policy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Policy")
            .field("address", &self.address)
            .field("prefix", &self.prefix)
            .finish_non_exhaustive()
    }
}

/// What has been done, for the metrics.
#[derive(Debug, Default)]
pub struct Counts {
    hits: AtomicU64,
    misses: AtomicU64,
    unavailable: AtomicU64,
    stored: AtomicU64,
    refused: AtomicU64,
    failed: AtomicU64,
    dropped: AtomicU64,
    messages: AtomicU64,
    unpublished: AtomicU64,
}

/// [`Counts`] as they are now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Redis is connected and takes part.
    pub up: bool,
    /// The process's own memory may be used.
    pub lease: bool,
    /// Searches that Redis answered, that it did not, and for which it could not be asked.
    pub lookups: [u64; 3],
    /// Answers stored, refused because a write had passed, failed, and dropped because too many were on their way.
    pub stores: [u64; 4],
    /// Messages of writes that were heard.
    pub messages: u64,
    /// Writes that went on although they could not be told.
    pub unpublished: u64,
}

/// The names of keys and channels. All keys have one hash tag.
#[derive(Debug)]
struct Keys {
    fences: String,
    entries: String,
    writes: String,
    ticks: String,
}

impl Keys {
    fn new(prefix: &str) -> Self {
        let own = fastrand::u64(..);
        Self {
            fences: format!("{prefix}{{cache}}:fences"),
            entries: format!("{prefix}{{cache}}:e:"),
            writes: format!("{prefix}{{cache}}:writes"),
            ticks: format!("{prefix}{{cache}}:ticks:{own:016x}"),
        }
    }
}

/// What was found in Redis, or made there: how things are named there from now on.
#[derive(Clone)]
struct Bound {
    /// Names the fences that are there.
    birth: String,
    /// The server they were found on.
    server: String,
    /// The secret that lies there, if that is the one.
    lying: Option<String>,
    keyring: Keyring,
    slots: Slots,
    seal: Option<Seal>,
}

impl std::fmt::Debug for Bound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Bound(..)")
    }
}

/// The tier.
#[derive(Debug)]
pub struct Shared {
    policy: Policy,
    keys: Keys,
    scripts: Scripts,
    keeper: Arc<Keeper>,
    trust: Arc<Trust>,
    bound: RwLock<Option<Arc<Bound>>>,
    /// To read a search as JSON costs more than to ask Redis about it. Another secret is another spelling.
    memo: Memo,
    writes: Writes,
    storing: Arc<Semaphore>,
    counts: Counts,
    /// Searches of one flight that could not ask Redis: no longer than this apart.
    begun: Instant,
    /// The tasks, while they run.
    running: Mutex<Option<tokio::task::JoinSet<()>>>,
}

impl Shared {
    /// A tier that nothing is known of yet; [`Shared::start`] makes it work.
    pub fn new(policy: Policy, tls: Tls) -> Result<Arc<Self>, getrandom::Error> {
        let mut key = [0; 16];
        getrandom::fill(&mut key)?;
        let keeper = Arc::new(Keeper::new(policy.address.clone(), tls, Some("searches go upstream")));
        Ok(Arc::new(Self {
            keys: Keys::new(&policy.prefix),
            scripts: Scripts::new(),
            keeper,
            trust: Arc::new(Trust::new(key)),
            bound: RwLock::new(None),
            memo: Memo::new(MEMO),
            writes: Writes::default(),
            storing: Arc::new(Semaphore::new(STORING)),
            counts: Counts::default(),
            begun: Instant::now(),
            running: Mutex::new(None),
            policy,
        }))
    }

    /// Connects, listens and keeps at it, until it is dropped by everybody else or stopped.
    pub fn start(self: &Arc<Self>) {
        if self.policy.secret.is_none() {
            tracing::warn!(
                redis = %self.policy.address,
                "redis.secret is not set: searches' answers, documents among them, lie in Redis in clear"
            );
        }
        let mut running = lock(&self.running);
        if running.is_none() {
            *running = Some(tasks::spawn(self));
        }
    }

    /// Ends its tasks.
    pub fn stop(&self) {
        drop(lock(&self.running).take());
        self.trust.revoke();
    }

    /// What the process's own memory goes by.
    pub fn trust(&self) -> Arc<Trust> {
        Arc::clone(&self.trust)
    }

    /// The numbers of now.
    pub fn figures(&self) -> Figures {
        let Counts { hits, misses, unavailable, stored, refused, failed, dropped, messages, unpublished } =
            &self.counts;
        Figures {
            up: self.keeper.is_up(),
            lease: self.trust.holds(Instant::now()),
            lookups: [hits, misses, unavailable].map(|count| count.load(Relaxed)),
            stores: [stored, refused, failed, dropped].map(|count| count.load(Relaxed)),
            messages: messages.load(Relaxed),
            unpublished: unpublished.load(Relaxed),
        }
    }

    fn bound(&self) -> Option<Arc<Bound>> {
        self.bound.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How long the fences live, in milliseconds: longer than any entry.
    fn lifetime(&self) -> String {
        LIFETIME.max(self.policy.longest_ttl * 2).as_millis().to_string()
    }

    fn derive(&self, birth: &str, server: &str, lying: Option<&str>) -> Bound {
        let secret = self.policy.secret.as_deref().or(lying).unwrap_or_default();
        let derived = Derived::of(secret.as_bytes());
        Bound {
            birth: birth.to_owned(),
            server: server.to_owned(),
            lying: lying.map(str::to_owned),
            seal: self.policy.secret.is_some().then(|| derived.seal()),
            keyring: derived.keyring,
            slots: derived.slots,
        }
    }
}

#[async_trait]
impl Join for Shared {
    /// Takes over the fences that are there, or makes them.
    async fn join(&self, link: &Link) -> Result<(), Failure> {
        let random = |_| Failure::Lost("no randomness from the system".into());
        let known = self.bound();
        let server = link.server().unwrap_or_default();
        let (birth, epoch) =
            (secret::random::<12>().map_err(random)?, secret::random::<12>().map_err(random)?);
        let lying = match known.as_ref().and_then(|known| known.lying.clone()) {
            Some(lying) => lying,
            None => secret::random::<32>().map_err(random)?,
        };
        let mark =
            self.policy.secret.as_ref().map(|secret| Derived::of(secret.as_bytes()).mark).unwrap_or_default();
        let hold = self.writes.unsettled(Instant::now()).as_millis().to_string();
        // Others that still run tell of what they know within a second; of those that do not, the last write may have
        // been a moment ago. A first start is not held up for the former.
        let others = known.as_ref().map_or(Duration::ZERO, |_| LENGTH).max(self.policy.settle);
        let arguments = [
            birth.as_str(),
            &epoch,
            if mark.is_empty() { &lying } else { "" },
            &mark,
            server,
            &hold,
            known.as_ref().map_or("", |known| &known.birth),
            known.as_ref().map_or("", |known| &known.server),
            &others.as_millis().to_string(),
            &self.lifetime(),
            &self.keys.writes,
            &self.policy.longest_write.as_millis().to_string(),
            &self.keys.ticks,
        ];
        let arguments = arguments.map(str::as_bytes);
        let reply = link.run(&self.scripts.join, &[&self.keys.fences], &arguments, CONNECT).await?;
        let Reply::List(parts) = &reply else { return Err(unexpected()) };
        let birth = parts.first().and_then(Reply::text).ok_or_else(unexpected)?;
        let lying = parts.get(1).and_then(Reply::text);
        if mark.is_empty() && lying.is_none() {
            return Err(unexpected());
        }
        let anew = known.as_ref().is_some_and(|known| known.birth != birth);
        let bound = self.derive(birth, server, lying.filter(|_| mark.is_empty()));
        *self.bound.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(bound));
        if anew {
            tracing::warn!(redis = %self.policy.address, "what was stored in Redis is gone: the tier begins anew");
            // What is in memory was stored under fences that messages may name otherwise now.
            self.trust.mirror.shift_all();
        }
        Ok(())
    }
}

fn unexpected() -> Failure {
    Failure::Lost("an answer that no script gives".into())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic while it was held cannot have left it half changed.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
