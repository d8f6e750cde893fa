//! Fences: what a write makes unusable.
//!
//! Every part of a store has a fence: an opaque generation, a count of writes in flight, and two times. Until the one the
//! store may still be at work on a write: one that it only queued, or whose outcome nobody knows. Until the other it may
//! answer with what was before, though the write is done: that one does not bind a search that asks for the newest,
//! which sees every write that was answered before it was sent. Both are at the turn of a second, a little late rather
//! than early. They live in a fixed hashed table that is never evicted, so a collision can only invalidate too much. A
//! stored response carries the generations its request was sent under, and a hit compares them: invalidation is a handful
//! of stores, whatever the number of entries.
//!
//! A scope is a path of names (tenant, database, collection). A read must be dropped by a write to its own scope, to
//! any scope around it, and by any write below, since a level of the read's own scope may not have been told. So each
//! scope has two fences: *own* (writes to exactly this scope, covering all below it) and *any* (writes to it or to
//! anything below).

use std::hash::Hasher;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use siphasher::sip::SipHasher13;

use super::sync::{AtomicU32, AtomicU64, Instant};

/// Fences in the table, 24 bytes each: a write drops a bystander once in some ten thousand times.
const SLOTS: usize = 65_536;
/// Levels of a scope that are told apart; what lies deeper shares a fence with its parent.
const MAX_LEVELS: usize = 5;
/// Fences one scope can touch: one more than levels, for the store as a whole, and `any` beside `own`.
const MAX_TOUCHED: usize = MAX_LEVELS + 2;

/// Ends a name in the hash. No `char` has this value.
const END_OF_NAME: u32 = u32::MAX;

/// The fences of every store.
#[derive(Debug)]
pub struct Fences {
    table: Box<[Fence]>,
    slots: Slots,
    /// Never the same token twice: a counter, scrambled by [`token`].
    next: AtomicU64,
    /// The generation of what has no scope. No write moves it; a command does.
    unscoped: AtomicU64,
    epoch: Instant,
}

/// Finds the fences of a scope. Names are hashed with a key, so that nobody can choose collisions.
#[derive(Clone)]
pub struct Slots(SipHasher13);

#[derive(Debug, Default)]
struct Fence {
    generation: AtomicU64,
    in_flight: AtomicU32,
    /// When the store has done what it acknowledged, in seconds since `Fences::epoch`, rounded up.
    done_at: AtomicU32,
    /// When every search sees it, likewise.
    settled_at: AtomicU32,
}

/// A part of a store: the fences its reads compare and its writes move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scope {
    /// Compared by reads.
    read: Touched,
    /// Moved by writes.
    write: Touched,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Touched {
    slots: [u16; MAX_TOUCHED],
    len: u8,
}

impl Scope {
    /// What its reads compare, in an order that is the scope's own.
    pub(super) fn read(&self) -> impl Iterator<Item = u16> + '_ {
        self.read.iter()
    }

    /// What its writes move.
    pub(super) fn write(&self) -> impl Iterator<Item = u16> + '_ {
        self.write.iter()
    }
}

impl Touched {
    const NONE: Touched = Touched { slots: [0; MAX_TOUCHED], len: 0 };

    fn push(&mut self, slot: u16) {
        if let Some(place) = self.slots.get_mut(usize::from(self.len)) {
            *place = slot;
            self.len += 1;
        }
    }

    fn iter(&self) -> impl Iterator<Item = u16> + '_ {
        self.slots.iter().copied().take(usize::from(self.len))
    }
}

/// The state of a read's fences when its request was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    read: Touched,
    generations: [u64; MAX_TOUCHED],
    /// The store was at rest, for this read: no write under way, none settling.
    settled: bool,
    /// While the store settles: the second in which this was taken, and 1 more. Else 0.
    settling: u32,
    /// When it was taken.
    pub(super) taken: Instant,
}

impl Stamp {
    /// Whether there are writes that can change it.
    pub fn is_fenced(&self) -> bool {
        self.read.len > 0
    }

    /// Whether the answer to a request sent now may be stored at all.
    pub fn settled(&self) -> bool {
        self.settled
    }

    /// A value that differs whenever the generations differ: requests share a flight only within one. While the store
    /// settles it differs also from second to second: what was asked before a write's time was over is no answer to who
    /// asks later. Of several writes only the last such time is known, but all of them are at the turn of a second.
    pub fn generation(&self) -> u64 {
        let settling = token(self.settling.into());
        self.generations.iter().fold(settling, |all, one| all.rotate_left(9) ^ token(*one))
    }
}

/// How long after a write's answer nothing is stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settle {
    /// The store may still answer searches with what was before. A search that asks for the newest is stored all the
    /// same.
    pub lag: Duration,
    /// The store may still be at work on what it acknowledged, such as an import: no search can see the outcome yet.
    pub work: Duration,
}

impl Settle {
    /// Of a store that has done what it acknowledges.
    pub fn lagging(lag: Duration) -> Self {
        Self { lag, work: Duration::ZERO }
    }

    /// Until nothing at all is left to wait for.
    pub fn longest(&self) -> Duration {
        self.lag.max(self.work)
    }
}

/// A write under way. Dropping it, on whatever path, ends it: the fences move once more.
#[derive(Debug)]
pub struct Write {
    fences: Arc<Fences>,
    touched: Touched,
    settle: Settle,
}

impl Slots {
    /// With a key of whoever is to find the same ones.
    pub fn new(key: &[u8; 16]) -> Self {
        Self(SipHasher13::new_with_key(key))
    }

    /// The fences of a scope of the store at `authority`. A level that is `None` stands for everything below, and
    /// nothing after it counts.
    ///
    /// Of a name only letters and digits count, in any case: stores take several spellings of one identifier (a UUID
    /// without hyphens or in capitals), and a write under one of them must be seen by reads under another. Names that
    /// differ in nothing else drop each other's entries needlessly, and no more.
    pub fn scope<'a>(&self, authority: &str, levels: impl IntoIterator<Item = Option<&'a str>>) -> Scope {
        let mut hasher = self.0;
        let mut add = |name: &str| {
            for letter in name.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase) {
                hasher.write_u32(letter.into());
            }
            hasher.write_u32(END_OF_NAME);
            hasher
        };
        let slot = |mut hasher: SipHasher13, kind: u8| {
            hasher.write_u8(kind);
            (hasher.finish() % SLOTS as u64) as u16
        };
        let mut here = add(authority);
        let mut scope = Scope { read: Touched::NONE, write: Touched::NONE };
        scope.read.push(slot(here, b'o'));
        scope.write.push(slot(here, b'a'));
        for (depth, level) in levels.into_iter().enumerate() {
            let Some(name) = level.filter(|_| depth < MAX_LEVELS - 1) else {
                break;
            };
            here = add(name);
            scope.read.push(slot(here, b'o'));
            scope.write.push(slot(here, b'a'));
        }
        // What is written below the last level known drops the read too: a level may not have been told, or the write's
        // rule may tell more of them.
        scope.read.push(slot(here, b'a'));
        scope.write.push(slot(here, b'o'));
        scope
    }
}

impl std::fmt::Debug for Slots {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Slots(..)")
    }
}

impl Fences {
    /// Fences for every store there can be. Names are hashed with the key given, so that nobody can choose collisions.
    pub fn new(key: [u8; 16]) -> Self {
        let (high, low) = key.split_at(8);
        let seed = high.iter().fold(0, |seed, byte| seed << 8 | u64::from(*byte))
            ^ low.iter().fold(0, |seed, byte| seed << 8 | u64::from(*byte));
        Self {
            table: (0..SLOTS).map(|_| Fence::default()).collect(),
            slots: Slots::new(&key),
            next: AtomicU64::new(seed),
            unscoped: AtomicU64::new(0),
            epoch: Instant::now(),
        }
    }

    /// The fences of a scope of the store at `authority`: see [`Slots::scope`].
    pub fn scope<'a>(&self, authority: &str, levels: impl IntoIterator<Item = Option<&'a str>>) -> Scope {
        self.slots.scope(authority, levels)
    }

    /// What a read must remember before it is sent. Generations are taken first: a write that ends in between is then
    /// seen by its generation, or by the settle time it set before.
    pub fn stamp(&self, scope: &Scope) -> Stamp {
        self.stamp_of(scope, false)
    }

    /// The same of a read that sees every write answered before it is sent, if `sees_all`. No write may be under way,
    /// or still be worked on by the store, when it is sent: it might see either outcome.
    pub fn stamp_of(&self, scope: &Scope, sees_all: bool) -> Stamp {
        let (generations, taken) = ([0; MAX_TOUCHED], Instant::now());
        let mut stamp = Stamp { read: scope.read, generations, settled: true, settling: 0, taken };
        for (place, fence) in stamp.generations.iter_mut().zip(self.touched(&scope.read)) {
            *place = fence.generation.load(SeqCst);
        }
        let now = self.now();
        for fence in self.touched(&scope.read) {
            let done = u64::from(fence.done_at.load(SeqCst)) <= now;
            let seen = sees_all || u64::from(fence.settled_at.load(SeqCst)) <= now;
            stamp.settled &= fence.in_flight.load(SeqCst) == 0;
            if !(done && seen) {
                stamp.settling = (now as u32).saturating_add(1);
            }
        }
        stamp.settled &= stamp.settling == 0;
        stamp
    }

    /// The stamp of what no write can change.
    pub fn stamp_unfenced(&self) -> Stamp {
        let mut generations = [0; MAX_TOUCHED];
        let [first, ..] = &mut generations;
        *first = self.unscoped.load(SeqCst);
        Stamp { read: Touched::NONE, generations, settled: true, settling: 0, taken: Instant::now() }
    }

    /// Makes what no write can change unusable, as far as it was stamped before.
    pub fn shift_unfenced(&self) {
        self.unscoped.store(self.fresh(), SeqCst);
    }

    /// Whether what was fetched under this stamp is still what the store would answer: the test of every hit.
    pub fn current(&self, stamp: &Stamp) -> bool {
        if !stamp.is_fenced() {
            return stamp.generations.first() == Some(&self.unscoped.load(SeqCst));
        }
        self.touched(&stamp.read)
            .zip(&stamp.generations)
            .all(|(fence, generation)| fence.generation.load(SeqCst) == *generation)
    }

    /// Whether an answer that has just arrived may be stored.
    pub fn may_store(&self, stamp: &Stamp) -> bool {
        stamp.settled
            && self.current(stamp)
            && self.touched(&stamp.read).all(|fence| fence.in_flight.load(SeqCst) == 0)
    }

    /// Begins a write, before it is forwarded.
    pub fn write(self: &Arc<Self>, scope: &Scope, settle: Settle) -> Write {
        for fence in self.touched(&scope.write) {
            fence.in_flight.fetch_add(1, SeqCst);
            fence.generation.store(self.fresh(), SeqCst);
        }
        Write { fences: Arc::clone(self), touched: scope.write, settle }
    }

    /// Moves one fence, as a write elsewhere that has been told of would have.
    pub(super) fn shift(&self, slot: u16) {
        if let Some(fence) = self.table.get(usize::from(slot)) {
            fence.generation.store(self.fresh(), SeqCst);
        }
    }

    /// Moves every fence: nothing that was stamped before counts any more.
    pub(super) fn shift_all(&self) {
        for fence in &self.table {
            fence.generation.store(self.fresh(), SeqCst);
        }
    }

    fn touched<'a>(&'a self, touched: &'a Touched) -> impl Iterator<Item = &'a Fence> {
        touched.iter().filter_map(|slot| self.table.get(usize::from(slot)))
    }

    fn fresh(&self) -> u64 {
        token(self.next.fetch_add(1, SeqCst))
    }

    /// Whole seconds that are over.
    fn now(&self) -> u64 {
        self.epoch.elapsed().as_secs()
    }
}

impl Write {
    /// The store has answered, and every search sees what was written: nothing is left to settle.
    pub fn is_visible(&mut self) {
        self.settle = Settle::default();
    }

    /// The outcome is unknown, or not there yet: the store may still apply it within this time.
    pub fn may_come_later(&mut self, within: Duration) {
        self.settle.work = self.settle.work.max(within);
    }
}

impl Drop for Write {
    fn drop(&mut self) {
        let now = self.fences.epoch.elapsed();
        let after = |span: Duration| {
            let at = now.saturating_add(span).as_nanos().div_ceil(Duration::from_secs(1).as_nanos());
            (!span.is_zero()).then(|| at.min(u32::MAX.into()) as u32)
        };
        let settled_at = after(self.settle.lag);
        let done_at = after(self.settle.work);
        for fence in self.fences.touched(&self.touched) {
            // In this order: whoever sees the new generation sees the times too.
            if let Some(done_at) = done_at {
                fence.done_at.fetch_max(done_at, SeqCst);
            }
            if let Some(settled_at) = settled_at {
                fence.settled_at.fetch_max(settled_at, SeqCst);
            }
            fence.generation.store(self.fences.fresh(), SeqCst);
            fence.in_flight.fetch_sub(1, SeqCst);
        }
    }
}

/// A bijection that scrambles (the finaliser of splitmix64): distinct counts give distinct, opaque tokens.
fn token(count: u64) -> u64 {
    let mut z = count.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests;
