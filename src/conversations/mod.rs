//! What is known of conversations: how long they are, what of them was forwarded, and when they were last heard of.
//!
//! Never content. A conversation goes by a keyed hash of its identifier, together with one of its route and the
//! credentials it comes with: who shows another's identifier shows another conversation. What is known here is bounded
//! by bytes, is forgotten after the route's `idle_ttl`, and lies in Redis as well where there is one ([`shared`]).

mod account;
mod names;
mod refused;
mod shared;

pub use account::{Account, Amount, Snapshot, Told};
pub use names::{Name, Whose};
pub use refused::{Form, Refusal, Refused};
pub use shared::Policy;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use quick_cache::Weighter;
use quick_cache::sync::Cache;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};

use self::names::{Id, Key};
use self::shared::Shared;
use crate::redis::Tls;

/// How often those that are over are looked for.
const SWEEP: Duration = Duration::from_secs(60);
/// What one takes, in bytes: what is known, its name, and the cache's own bookkeeping.
const SIZE: u64 = size_of::<Known>() as u64 + 160;

/// All that are known.
#[derive(Debug)]
pub struct Conversations {
    key: Key,
    /// `None`: nothing is tracked.
    known: Option<Cache<Id, Arc<Mutex<Known>>, ByBytes>>,
    shared: Option<Arc<Shared>>,
    running: Mutex<Option<JoinSet<()>>>,
}

#[derive(Debug)]
struct Known {
    last: Instant,
    idle: Duration,
    route: Box<str>,
    snapshot: Snapshot,
    account: Account,
    /// Redis was told of the last request.
    shared: bool,
}

#[derive(Clone, Debug)]
struct ByBytes;

impl Weighter<Id, Arc<Mutex<Known>>> for ByBytes {
    fn weight(&self, _: &Id, _: &Arc<Mutex<Known>>) -> u64 {
        SIZE
    }
}

/// What a conversation was found to be.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// Those of an identifier, the last active first.
    pub conversations: Vec<Told>,
    /// Redis told, so that every instance tells the same.
    pub shared: bool,
}

impl Conversations {
    /// Room for so many bytes of them; none where it is 0.
    pub fn new(bytes: u64, policy: Option<(Policy, Tls)>) -> Result<Self, getrandom::Error> {
        let estimate = (bytes / SIZE).clamp(16, 1 << 20) as usize;
        let known = (bytes > 0).then(|| Cache::with_weighter(estimate, bytes, ByBytes));
        let shared = policy.filter(|_| bytes > 0).map(|(policy, tls)| Arc::new(Shared::new(policy, tls)));
        Ok(Self { key: Key::random()?, known, shared, running: Mutex::new(None) })
    }

    /// Whether anything is tracked.
    pub fn are_tracked(&self) -> bool {
        self.known.is_some()
    }

    /// The name of a conversation.
    pub fn name(&self, whose: &Whose<'_>) -> Name {
        let shared = self.shared.as_ref().and_then(|shared| shared.name(whose));
        Name { id: self.key.id(whose), shared }
    }

    /// A conversation was heard of. Without a snapshot what is known of it stays.
    pub fn note(
        &self,
        name: &Name,
        route: &str,
        idle: Duration,
        snapshot: Option<Snapshot>,
        change: Account,
    ) {
        let Some(known) = &self.known else { return };
        let one = Self::add(known, name.id, (route, idle), snapshot, change);
        if let (Some(shared), Some(name)) = (&self.shared, &name.shared) {
            let told = move || lock(&one).shared = true;
            shared.note(name, idle, snapshot.map(|snapshot| (route, snapshot)), change, told);
        }
    }

    fn add(
        known: &Cache<Id, Arc<Mutex<Known>>, ByBytes>,
        id: Id,
        (route, idle): (&str, Duration),
        snapshot: Option<Snapshot>,
        change: Account,
    ) -> Arc<Mutex<Known>> {
        let now = Instant::now();
        if let Some(known) = known.get(&id) {
            let mut one = lock(&known);
            if one.is_over(now) {
                (one.snapshot, one.account) = Default::default();
            }
            (one.last, one.idle) = (now, idle);
            one.snapshot = snapshot.unwrap_or(one.snapshot);
            // Until it is told: Redis may have lost what was told before.
            one.shared = false;
            one.account.add(change);
            drop(one);
            return known;
        }
        let (route, snapshot) = (route.into(), snapshot.unwrap_or_default());
        let one = Known { last: now, idle, route, snapshot, account: change, shared: false };
        let one = Arc::new(Mutex::new(one));
        known.insert(id, Arc::clone(&one));
        one
    }

    /// What is known of an identifier's conversations: by Redis if it can be asked, else here.
    pub async fn tell(&self, id: &str) -> Found {
        let shared = match &self.shared {
            Some(shared) => shared.tell(id).await,
            None => None,
        };
        if let Some(conversations) = shared.as_ref().filter(|told| !told.is_empty()) {
            return Found { conversations: conversations.clone(), shared: true };
        }
        // Where Redis knows nothing, what it was told of is not known any more.
        let (now, id, all) = (Instant::now(), self.key.identifier(id.as_bytes()), shared.is_none());
        let known = self.known.iter().flat_map(Cache::iter);
        let mut conversations: Vec<Told> = known
            .filter(|(known, _)| known.identifier == id)
            .filter_map(|(_, one)| {
                let one = lock(&one);
                let silent = now.saturating_duration_since(one.last);
                (!one.is_over(now) && (all || !one.shared))
                    .then(|| Told::of(&one.route, one.snapshot, one.account, silent))
            })
            .collect();
        conversations.sort_by(|a, b| a.idle_seconds.total_cmp(&b.idle_seconds));
        Found { conversations, shared: false }
    }

    /// Forgets the conversations of an identifier. Tells whether Redis has as well.
    pub async fn forget(&self, id: &str) -> bool {
        if let Some(known) = &self.known {
            let id = self.key.identifier(id.as_bytes());
            known.retain(|known, _| known.identifier != id);
        }
        match &self.shared {
            Some(shared) => shared.forget(id).await,
            None => false,
        }
    }

    /// Forgets those that are over.
    fn sweep(&self, now: Instant) {
        let Some(known) = &self.known else { return };
        known.retain(|_, one| !lock(one).is_over(now));
    }

    /// How many are known, and the bytes they take.
    pub fn figures(&self) -> (u64, u64) {
        self.known.as_ref().map_or((0, 0), |known| (known.len() as u64, known.weight()))
    }

    /// Requests whose conversation Redis could not be told of.
    pub fn untold(&self) -> u64 {
        self.shared.as_ref().map_or(0, |shared| shared.untold())
    }

    /// Begins to look for those that are over, and to keep the connection to Redis.
    pub fn start(self: &Arc<Self>) {
        let mut running = lock(&self.running);
        if running.is_some() || self.known.is_none() {
            return;
        }
        let mut tasks = JoinSet::new();
        if let Some(shared) = &self.shared {
            tasks.spawn(Arc::clone(shared).keep());
        }
        let this = Arc::downgrade(self);
        tasks.spawn(async move {
            let mut interval = interval(SWEEP);
            interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                interval.tick().await;
                let Some(this) = this.upgrade() else { return };
                this.sweep(Instant::now());
            }
        });
        *running = Some(tasks);
    }

    /// Ends what [`Conversations::start`] began.
    pub fn stop(&self) {
        drop(lock(&self.running).take());
    }
}

impl Known {
    fn is_over(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.last) >= self.idle
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic while it was held cannot have left it half changed.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
