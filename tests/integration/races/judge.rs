//! What a search may be answered, by what docs/cache.md promises, and how much was tried.
//!
//! - A hit has every write in it that was acknowledged before the search began: through the same instance always,
//!   through another unless the hit is from memory and the write less than a second old. It has also what another
//!   search saw of a write that was not acknowledged then.
//! - What was asked upstream has all that the store had. Who shares a call has every write that has settled.
//! - Nothing is stored, and no hit given, while the store settles.
//! - The one exception: a write that its instance could not tell of within a second is unseen by others' hits until it
//!   is told. It is told when its instance uses Redis again, which it does not before.

use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use super::{LAG, SETTLE, Scene};
use crate::support::Response;

/// How long another's write may be unseen in memory, or while Redis is away.
const LEASE: Duration = Duration::from_secs(1);
/// A settle time ends at the turn of a second.
const SECOND: Duration = Duration::from_secs(1);

/// A write that was acknowledged.
#[derive(Clone, Copy, Debug)]
struct Write {
    sent: Instant,
    /// When its answer was there, or when it was told to others, if that was later.
    at: Instant,
    by: usize,
    version: u64,
    /// Others may not have been told of it yet.
    untold: bool,
}

#[derive(Default)]
struct Namespace {
    /// Of all that is older than what `recent` has.
    floor: u64,
    recent: Vec<Write>,
    /// What was answered, and when.
    answered: u64,
    newest: Vec<(u64, Instant)>,
    begun: u64,
    ended: u64,
    next: Option<Instant>,
}

/// What a search that begins now has to see, by where its answer comes from.
#[derive(Debug)]
pub(super) struct Floors {
    instance: usize,
    began: Instant,
    begun: u64,
    raced: bool,
    memory: u64,
    redis: u64,
    shared: u64,
    fetched: u64,
    /// Nothing is stored before, because of a write through this instance, or any.
    settles: [Option<Instant>; 2],
}

pub(super) struct Judge {
    scene: Scene,
    wanted: usize,
    begun: Instant,
    namespaces: Vec<Mutex<Namespace>>,
    /// Writes through each instance that could not be told in time, as far as is known.
    pub(super) unpublished: [AtomicU64; 2],
    operations: AtomicUsize,
    raced: AtomicUsize,
    writes: AtomicUsize,
    untold: AtomicUsize,
    pub(super) broken: AtomicUsize,
    memory: AtomicUsize,
    redis: AtomicUsize,
    collapsed: AtomicUsize,
    stale: Mutex<Vec<String>>,
}

impl Judge {
    pub(super) fn new(scene: Scene, wanted: usize) -> Self {
        Self {
            scene,
            wanted,
            begun: Instant::now(),
            namespaces: (0..scene.namespaces).map(|_| Mutex::default()).collect(),
            unpublished: Default::default(),
            operations: AtomicUsize::new(0),
            raced: AtomicUsize::new(0),
            writes: AtomicUsize::new(0),
            untold: AtomicUsize::new(0),
            broken: AtomicUsize::new(0),
            memory: AtomicUsize::new(0),
            redis: AtomicUsize::new(0),
            collapsed: AtomicUsize::new(0),
            stale: Mutex::default(),
        }
    }

    /// Whether so much was tried that it means something.
    pub(super) fn enough(&self) -> bool {
        let [raced, writes, memory, redis, collapsed] =
            [&self.raced, &self.writes, &self.memory, &self.redis, &self.collapsed]
                .map(|count| count.load(SeqCst));
        let (wanted, shares) = (self.wanted, self.scene.instances > 1);
        // What breaks all the time has little in memory.
        let hits = if self.scene.breaks { wanted / 100 } else { wanted / 20 };
        let done = raced >= wanted
            && writes >= wanted / 50
            && memory >= hits
            && (!shares || redis >= hits / 5)
            && collapsed >= wanted / 50
            && (!self.scene.breaks || self.broken.load(SeqCst) >= (wanted / 50).min(100));
        done || !self.stale.lock().unwrap().is_empty() || self.begun.elapsed() > super::LONGEST
    }

    /// Before a request of this namespace: whether it is time for a write, where writes are rare.
    pub(super) fn is_due(&self, namespace: usize, wait: Duration) -> bool {
        let (mut namespace, now) = (self.namespaces[namespace].lock().unwrap(), Instant::now());
        let due = namespace.next.is_some_and(|next| next <= now);
        if due || namespace.next.is_none() {
            namespace.next = Some(now + wait);
        }
        due
    }

    pub(super) fn write_begins(&self, namespace: usize) -> Instant {
        self.operations.fetch_add(1, SeqCst);
        self.namespaces[namespace].lock().unwrap().begun += 1;
        Instant::now()
    }

    /// `version`: it was acknowledged.
    pub(super) fn write_ends(
        &self,
        namespace: usize,
        by: usize,
        sent: Instant,
        untold: bool,
        version: Option<u64>,
    ) {
        let (mut namespace, at) = (self.namespaces[namespace].lock().unwrap(), Instant::now());
        namespace.ended += 1;
        let Some(version) = version else { return };
        self.writes.fetch_add(1, SeqCst);
        self.untold.fetch_add(usize::from(untold), SeqCst);
        namespace.recent.push(Write { sent, at, by, version, untold });
        // What counts for everybody by now.
        let old = |write: &Write| !write.untold && at - write.at > SETTLE + 2 * SECOND;
        let floor = namespace.recent.iter().filter(|write| old(write)).map(|write| write.version).max();
        namespace.floor = namespace.floor.max(floor.unwrap_or(0));
        namespace.recent.retain(|write| !old(write));
    }

    pub(super) fn search_begins(&self, namespace: usize, instance: usize) -> Floors {
        let (namespace, now) = (self.namespaces[namespace].lock().unwrap(), Instant::now());
        let own = |write: &Write| write.by == instance;
        let known = |write: &Write| own(write) || !write.untold;
        let floor = |counts: &dyn Fn(&Write) -> bool| {
            let counted = namespace.recent.iter().filter(|write| counts(write)).map(|write| write.version);
            counted.max().unwrap_or(0).max(namespace.floor)
        };
        let age = |write: &Write| now - write.at;
        let in_memory = |write: &Write| own(write) || !write.untold && age(write) >= LEASE;
        let Scene { late, breaks, instances, .. } = self.scene;
        let until = |counts: &dyn Fn(&Write) -> bool| {
            let counted = namespace.recent.iter().filter(|write| late && counts(write));
            counted.map(|write| write.sent + SETTLE).max()
        };
        let settles = [until(&own), until(&known)];
        // A write that is told late may be seen upstream before it is told.
        let seen = |age: Duration| {
            let newest = namespace.newest.iter().filter(|(_, at)| !breaks && now - *at >= age);
            newest.map(|(version, _)| *version).max().unwrap_or(0).max(if breaks {
                0
            } else {
                namespace.answered
            })
        };
        let lease = if instances > 1 { LEASE } else { Duration::ZERO };
        Floors {
            instance,
            began: now,
            begun: namespace.begun,
            raced: namespace.begun > namespace.ended || settles[1].is_some_and(|until| now < until),
            memory: floor(&in_memory).max(seen(lease)),
            redis: floor(&known).max(seen(Duration::ZERO)),
            shared: floor(&|write| match (late, breaks) {
                (true, _) => known(write) && age(write) >= SETTLE + SECOND,
                // Without Redis, a call that is under way may be shared for half a second.
                (false, true) => in_memory(write),
                (false, false) => known(write),
            }),
            fetched: floor(&|write| !late || age(write) >= LAG),
            settles,
        }
    }

    pub(super) fn search_ends(&self, namespace: usize, floors: &Floors, answer: &Response) {
        let now = Instant::now();
        self.operations.fetch_add(1, SeqCst);
        if answer.status != 200 {
            assert!(answer.status >= 500, "{answer:?}");
            return;
        }
        let version = answer.json()["result"][0].as_u64().unwrap();
        let status = answer.cache();
        self.answered(namespace, version, now);
        let [from_redis, stored, collapsed] =
            ["detail=redis", "fwd=miss; stored", "collapsed"].map(|end| status.ends_with(end));
        let from_memory = answer.is_hit() && !from_redis;
        let (floor, settles, count) = if from_memory {
            (floors.memory, floors.settles[0], Some(&self.memory))
        } else if from_redis {
            (floors.redis, floors.settles[1], Some(&self.redis))
        } else if collapsed {
            (floors.shared, None, Some(&self.collapsed))
        } else {
            (floors.fetched, floors.settles[1].filter(|_| stored), None)
        };
        if let Some(count) = count {
            count.fetch_add(1, SeqCst);
        }
        let raced = floors.raced || self.namespaces[namespace].lock().unwrap().begun > floors.begun;
        self.raced.fetch_add(usize::from(raced), SeqCst);
        if version < floor {
            self.object(&format!("{version} after {floor}"), namespace, floors, status);
        }
        if settles.is_some_and(|until| now < until) {
            self.object("while the store settles", namespace, floors, status);
        }
        if from_redis || stored {
            self.uses_redis(floors, now);
        }
    }

    fn answered(&self, namespace: usize, version: u64, now: Instant) {
        let mut namespace = self.namespaces[namespace].lock().unwrap();
        let Namespace { answered, newest, .. } = &mut *namespace;
        if newest.last().is_none_or(|(known, _)| *known < version) {
            newest.push((version, now));
        }
        newest.retain(|(version, at)| {
            let recent = now - *at < LEASE;
            *answered = if recent { *answered } else { (*answered).max(*version) };
            recent
        });
    }

    /// Its instance has used Redis for a search that began then, so all that was written before is told.
    fn uses_redis(&self, floors: &Floors, now: Instant) {
        if !self.scene.breaks || self.untold.load(SeqCst) == 0 {
            return;
        }
        for namespace in &self.namespaces {
            for write in &mut namespace.lock().unwrap().recent {
                if write.untold && write.by == floors.instance && write.at <= floors.began {
                    (write.untold, write.at) = (false, now);
                }
            }
        }
    }

    fn object(&self, what: &str, namespace: usize, floors: &Floors, status: &str) {
        let recent = &self.namespaces[namespace].lock().unwrap().recent;
        let after = self.operations.load(SeqCst);
        let line =
            format!("{what}, namespace {namespace}, operation {after}: {status}: {floors:?}, {recent:?}");
        self.stale.lock().unwrap().push(line);
    }

    /// Fails if the promise was broken, or too little was tried.
    pub(super) fn verdict(&self) {
        let first = self.stale.lock().unwrap().first().cloned();
        assert_eq!(first, None, "{self}");
        assert!(self.begun.elapsed() <= super::LONGEST, "little was tried: {self}");
    }
}

impl fmt::Display for Judge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = [
            (&self.operations, "operations"),
            (&self.raced, "races"),
            (&self.writes, "writes"),
            (&self.untold, "of them maybe told late"),
            (&self.broken, "failures of Redis"),
            (&self.memory, "hits from memory"),
            (&self.redis, "hits from Redis"),
            (&self.collapsed, "collapsed"),
        ];
        for (count, what) in counts {
            write!(f, "{} {what}, ", count.load(SeqCst))?;
        }
        write!(f, "{} stale", self.stale.lock().unwrap().len())
    }
}
