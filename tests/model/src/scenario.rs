// Included into the module of each variant, behind its fences and its store.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64 as Count, Ordering::SeqCst};
use std::time::Duration;

use shuttle::rand::{Rng as _, thread_rng};
use shuttle::sync::{Condvar, Mutex};
use shuttle::thread;

const NAMESPACES: usize = 2;
const NAMES: [&str; NAMESPACES] = ["one", "two"];
const STORE: &str = "db:443";
const SETTLE: Duration = Duration::from_secs(30);
/// Nothing expires in a schedule.
const LIFETIME: Lifetime = Lifetime { fresh: Duration::from_secs(3600), stale: Duration::ZERO };

/// What happened in schedules, so that a model of nothing is noticed.
#[derive(Default)]
pub struct Seen {
    searches: Count,
    hits: Count,
    collapsed: Count,
    stored: Count,
    writes: Count,
}

impl Seen {
    pub fn counts(&self) -> [u64; 5] {
        [&self.searches, &self.hits, &self.collapsed, &self.stored, &self.writes].map(|count| count.load(SeqCst))
    }
}

/// One namespace of the vector store.
#[derive(Default)]
struct Namespace {
    /// What it answers now.
    version: shuttle::sync::atomic::AtomicU64,
    // What follows only judges: to read it is no step of the schedule.
    /// The last version that a write was given.
    given: Count,
    /// A client was told that this is written.
    acknowledged: Count,
    /// Acknowledged, and the store has settled; or of unknown outcome, and too late by now to be applied.
    due: Count,
    /// Some search was answered with it.
    answered: Count,
}

impl Namespace {
    fn apply(&self, version: u64) {
        self.version.fetch_max(version, SeqCst);
    }
}

/// A fetch under way, for all who wait for it.
#[derive(Default)]
struct Flight {
    landed: Mutex<Option<u64>>,
    news: Condvar,
}

struct World {
    fences: Arc<Fences>,
    store: Store,
    /// As src/cache/flight.rs: by key and generation.
    flights: Mutex<HashMap<(Key, u64), Arc<Flight>>>,
    namespaces: [Namespace; NAMESPACES],
    seen: Arc<Seen>,
}

impl World {
    fn new(seen: &Arc<Seen>) -> Arc<Self> {
        crate::clock::reset();
        let fences = Arc::new(Fences::new([7; 16]));
        Arc::new(Self {
            store: Store::new(1 << 20, Arc::clone(&fences), None),
            fences,
            flights: Mutex::default(),
            namespaces: Default::default(),
            seen: Arc::clone(seen),
        })
    }

    fn scope(&self, namespace: Option<usize>) -> Scope {
        self.fences.scope(STORE, namespace.map(|namespace| Some(NAMES[namespace])))
    }

    /// A search, as src/proxy/search.rs goes about it: stored, else shared, else fetched and stored.
    fn search(&self, namespace: usize, shared: bool) {
        let (at, key) = (&self.namespaces[namespace], Key(namespace));
        let [acknowledged, due, answered] =
            [&at.acknowledged, &at.due, &at.answered].map(|count| count.load(SeqCst));
        self.seen.searches.fetch_add(1, SeqCst);
        let judge = |hit: Hit| {
            self.seen.hits.fetch_add(1, SeqCst);
            let version = u64::from_le_bytes(hit.stored.content.as_ref().try_into().unwrap());
            assert!(version >= acknowledged, "a hit is stale: {version} after {acknowledged} was acknowledged");
            assert!(version >= answered, "a hit is stale: {version} after {answered} was seen");
            version
        };
        let version = if let Some(hit) = self.store.get(key) {
            judge(hit)
        } else if thread_rng().gen_bool(0.1) {
            // The upstream fails, and what is stored may stand in.
            on_the_way();
            let Some(hit) = self.store.get_stale(key) else { return };
            judge(hit)
        } else {
            self.fetch(namespace, shared)
        };
        assert!(version >= due, "an answer is stale: {version} after {due}");
        at.answered.fetch_max(version, SeqCst);
    }

    fn fetch(&self, namespace: usize, shared: bool) -> u64 {
        let key = Key(namespace);
        let stamp = self.fences.stamp(&self.scope(Some(namespace)));
        let name = (key, stamp.generation());
        let flight = Arc::new(Flight::default());
        if shared {
            let mut flights = self.flights.lock().unwrap();
            if let Some(flight) = flights.get(&name).cloned() {
                drop(flights);
                self.seen.collapsed.fetch_add(1, SeqCst);
                let mut landed = flight.landed.lock().unwrap();
                while landed.is_none() {
                    landed = flight.news.wait(landed).unwrap();
                }
                return landed.unwrap();
            }
            flights.insert(name, Arc::clone(&flight));
        }
        on_the_way();
        let version = self.namespaces[namespace].version.load(SeqCst);
        on_the_way();
        let content = bytes::Bytes::copy_from_slice(&version.to_le_bytes());
        let under = Under { own: stamp, mirror: None };
        if self.store.put(key, under, LIFETIME, http::HeaderMap::new(), &content).is_some() {
            self.seen.stored.fetch_add(1, SeqCst);
        }
        if shared {
            self.flights.lock().unwrap().remove(&name);
            *flight.landed.lock().unwrap() = Some(version);
            flight.news.notify_all();
        }
        version
    }

    /// A write of one namespace, or of all, that is applied before it is answered.
    fn write(&self, namespace: Option<usize>) {
        let write = self.fences.write(&self.scope(namespace), Settle::default());
        let given = self.give(namespace);
        on_the_way();
        for (at, version) in &given {
            at.apply(*version);
        }
        on_the_way();
        drop(write);
        for (at, version) in given {
            at.acknowledged.fetch_max(version, SeqCst);
            at.due.fetch_max(version, SeqCst);
        }
    }

    /// A write that is answered, and applied while the store settles.
    fn write_that_settles(&self, namespace: Option<usize>) {
        let write = self.fences.write(&self.scope(namespace), Settle { lag: SETTLE, ..Settle::default() });
        let given = self.give(namespace);
        drop(write);
        for (at, version) in &given {
            at.acknowledged.fetch_max(*version, SeqCst);
        }
        self.apply_late(given);
    }

    /// Two that settle, the second begun while the store settles after the first: what was asked for before the first is
    /// due may be under way when it is, and no write ends in between.
    fn two_that_settle(&self, first: Option<usize>, second: Option<usize>) {
        let settle = Settle { lag: SETTLE, ..Settle::default() };
        let begin = |namespace| {
            let write = self.fences.write(&self.scope(namespace), settle);
            let given = self.give(namespace);
            drop(write);
            for (at, version) in &given {
                at.acknowledged.fetch_max(*version, SeqCst);
            }
            given
        };
        let first = begin(first);
        crate::clock::advance(SETTLE / 2);
        let second = begin(second);
        for given in [first, second] {
            on_the_way();
            for (at, version) in &given {
                at.apply(*version);
            }
            on_the_way();
            crate::clock::advance(SETTLE / 2);
            for (at, version) in given {
                at.due.fetch_max(version, SeqCst);
            }
            thread::yield_now();
        }
    }

    /// A write that nobody answers, and that is applied all the same, or not.
    fn write_of_unknown_outcome(&self, namespace: Option<usize>) {
        let mut write = self.fences.write(&self.scope(namespace), Settle::default());
        let mut given = self.give(namespace);
        write.may_come_later(SETTLE);
        drop(write);
        if thread_rng().gen_bool(0.2) {
            given.clear();
        }
        self.apply_late(given);
    }

    fn apply_late(&self, given: Vec<(&Namespace, u64)>) {
        on_the_way();
        for (at, version) in &given {
            at.apply(*version);
        }
        on_the_way();
        crate::clock::advance(SETTLE);
        for (at, version) in given {
            at.due.fetch_max(version, SeqCst);
            // Nothing older may be stored from here on, whether anybody was told or not.
            at.acknowledged.fetch_max(version, SeqCst);
        }
        thread::yield_now();
    }

    fn give(&self, namespace: Option<usize>) -> Vec<(&Namespace, u64)> {
        self.seen.writes.fetch_add(1, SeqCst);
        let meant = |index: &usize| namespace.is_none_or(|namespace| namespace == *index);
        let given = |index: usize| {
            let at = &self.namespaces[index];
            (at, at.given.fetch_add(1, SeqCst) + 1)
        };
        (0..NAMESPACES).filter(meant).map(given).collect()
    }
}

/// A message takes its time: others take most of their steps while one is under way.
fn on_the_way() {
    for _ in 0..[0, 2, 20][thread_rng().gen_range(0..3)] {
        thread::yield_now();
    }
}

/// Mostly the first, so that threads meet there.
fn any_namespace() -> usize {
    usize::from(thread_rng().gen_bool(0.15))
}

fn any_scope() -> Option<usize> {
    thread_rng().gen_bool(0.75).then(any_namespace)
}

/// Searches and writes in some order.
pub fn schedule() {
    schedule_seen(&Arc::default());
}

/// The same, counted.
pub fn schedule_seen(seen: &Arc<Seen>) {
    let world = World::new(seen);
    let mut threads = Vec::new();
    for _ in 0..3 {
        let world = Arc::clone(&world);
        threads.push(thread::spawn(move || {
            for _ in 0..3 {
                // Who flies alone asks with `Pillion-Cache: refresh`, or after an answer for one.
                let shared = thread_rng().gen_bool(0.8);
                world.search(any_namespace(), shared);
            }
        }));
    }
    for _ in 0..thread_rng().gen_range(1..3) {
        let world = Arc::clone(&world);
        threads.push(thread::spawn(move || {
            for _ in 0..thread_rng().gen_range(1..3) {
                world.write(any_scope());
            }
        }));
    }
    // One thread at most moves the time on: it must not pass another's late write.
    let kind = thread_rng().gen_range(0..4);
    if kind > 0 {
        let world = Arc::clone(&world);
        threads.push(thread::spawn(move || match kind {
            1 => world.write_that_settles(any_scope()),
            2 => world.two_that_settle(any_scope(), any_scope()),
            _ => world.write_of_unknown_outcome(any_scope()),
        }));
    }
    for thread in threads {
        thread.join().unwrap();
    }
    for namespace in 0..NAMESPACES {
        world.search(namespace, true);
    }
}

/// A write of one namespace leaves the other's searches alone, also in the small table.
pub fn names_are_apart() {
    let world = World::new(&Arc::default());
    let stamp = world.fences.stamp(&world.scope(Some(0)));
    drop(world.fences.write(&world.scope(Some(1)), Settle::default()));
    assert!(world.fences.current(&stamp));
    drop(world.fences.write(&world.scope(Some(0)), Settle::default()));
    assert!(!world.fences.current(&stamp));
}
