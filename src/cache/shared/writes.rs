//! Telling others of writes: before one is forwarded, and when its outcome is known.
//!
//! Once its beginning is told, nothing stored in its scope counts anywhere, and nothing is stored there until its end is
//! told or it has been under way for longer than it may. So the end need not be waited for; a write whose beginning
//! cannot be told within a second goes on all the same. What was not told is kept and told as soon as Redis takes it;
//! until then this instance believes nothing that Redis has.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout_at};

use super::looking::field;
use super::{Bound, Shared, lock, secret};
use crate::cache::fence::Scope;
use crate::redis::Failure;

/// How long a write waits to be told of, in all.
const PATIENCE: Duration = Duration::from_secs(1);
/// Between two attempts.
const AGAIN: Duration = Duration::from_millis(20);
/// Writes kept because they could not be told; beyond that everything is dropped once Redis is back.
const KEPT: usize = 1024;

/// What is known of this process's writes.
#[derive(Debug)]
pub(super) struct Writes {
    kept: Mutex<VecDeque<Shift>>,
    /// Of `kept`, and 1 more if everything is to be dropped.
    untold: AtomicUsize,
    /// More than could be kept, or what was kept has lost its meaning.
    all: AtomicBool,
    news: Notify,
    begun: Instant,
    /// Nanoseconds since `begun`.
    settled_by: AtomicU64,
    /// The same, of those that take longer than anybody allows for who does not know of them.
    watched_by: AtomicU64,
    under_way: AtomicUsize,
}

impl Default for Writes {
    fn default() -> Self {
        Self {
            kept: Mutex::default(),
            untold: AtomicUsize::new(0),
            all: AtomicBool::new(false),
            news: Notify::new(),
            begun: Instant::now(),
            settled_by: AtomicU64::new(0),
            watched_by: AtomicU64::new(0),
            under_way: AtomicUsize::new(0),
        }
    }
}

impl Writes {
    /// Whether Redis knows of all writes that went through this process.
    pub(super) fn all_told(&self) -> bool {
        self.untold.load(SeqCst) == 0
    }

    /// For how long a write of this process that is over may still take effect: nothing may be stored until then where
    /// Redis has forgotten it. One that is under way will tell of its end.
    pub(super) fn unsettled(&self, now: Instant) -> Duration {
        Duration::from_nanos(self.settled_by.load(SeqCst)).saturating_sub(now - self.begun)
    }

    /// Whether others would have to know of a write of this process, should Redis have forgotten it.
    pub(super) fn matter(&self, now: Instant) -> bool {
        self.under_way.load(SeqCst) > 0 || !self.unsettled(now).is_zero()
    }

    /// Whether to look if Redis still knows of them.
    pub(super) fn are_watched(&self, now: Instant) -> bool {
        Duration::from_nanos(self.watched_by.load(SeqCst)) > now - self.begun
    }

    fn nanos_in(&self, span: Duration) -> u64 {
        (self.begun.elapsed() + span).as_nanos() as u64
    }

    fn keep(&self, shift: Shift) {
        let mut kept = lock(&self.kept);
        if shift.bound.is_some() && kept.len() < KEPT {
            kept.push_back(shift);
        } else {
            kept.clear();
            self.all.store(true, SeqCst);
        }
        self.count(&kept);
        drop(kept);
        self.news.notify_one();
    }

    /// Puts a write's end in the place of its beginning, if that is still kept.
    fn replace(&self, shift: &Shift) -> bool {
        let mut kept = lock(&self.kept);
        let Some(place) = kept.iter_mut().find(|kept| kept.id == shift.id) else { return false };
        *place = shift.clone();
        true
    }

    fn count(&self, kept: &VecDeque<Shift>) {
        self.untold.store(kept.len() + usize::from(self.all.load(SeqCst)), SeqCst);
    }
}

/// Fences to move.
#[derive(Clone, Debug)]
struct Shift {
    /// Who named the fences; `None`: nobody could.
    bound: Option<Arc<Bound>>,
    fields: Vec<String>,
    id: String,
    /// When it can no longer be under way; `None`: it is over.
    over_by: Option<Instant>,
    settled_by: Instant,
}

/// A write under way. Dropping it tells of its end, some time later; [`Writing::end`] waits for that a little.
#[derive(Debug)]
pub struct Writing {
    shared: Arc<Shared>,
    shift: Shift,
    settle: Duration,
    ended: bool,
}

impl Shared {
    /// A write that is about to be forwarded: [`Writing::begin`] tells of it.
    pub fn write<'a>(
        self: &Arc<Self>,
        store: &str,
        levels: impl IntoIterator<Item = Option<&'a str>>,
        total: Duration,
        settle: Duration,
    ) -> Writing {
        let now = Instant::now();
        let bound = self.bound();
        let scope = bound.as_ref().map(|bound| bound.slots.scope(store, levels));
        let fields = scope.iter().flat_map(Scope::write).map(field).collect();
        // If its end is never told: it may have been applied at the very end of its time, and have settled then.
        let span = total + settle.max(total);
        let id = format!("{:016x}", fastrand::u64(..));
        let shift = Shift { bound, fields, id, over_by: Some(now + span), settled_by: now };
        self.writes.under_way.fetch_add(1, SeqCst);
        Writing { shared: Arc::clone(self), shift, settle, ended: false }
    }

    async fn tell_until(&self, shift: &Shift, deadline: Instant) -> bool {
        let mut changes = self.keeper.changes();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            match self.tell(shift, left).await {
                Ok(()) => return true,
                Err(Failure::Down) => {
                    let _ = timeout_at(deadline, changes.wait_for(|up| *up)).await;
                }
                Err(_) => sleep(AGAIN.min(left)).await,
            }
        }
    }

    /// Once.
    async fn tell(&self, shift: &Shift, within: Duration) -> Result<(), Failure> {
        let current = self.bound().filter(|_| self.keeper.is_up()).ok_or(Failure::Down)?;
        match &shift.bound {
            Some(bound) if bound.birth == current.birth => {
                let now = Instant::now();
                let left = |until: Instant| until.saturating_duration_since(now).as_millis().to_string();
                let over_by = shift.over_by.map_or("0".to_owned(), left);
                let settled_by = left(shift.settled_by);
                let token = format!("{:016x}", fastrand::u64(..));
                let lifetime = self.lifetime();
                let mut arguments = vec![
                    current.birth.as_bytes(),
                    lifetime.as_bytes(),
                    self.keys.writes.as_bytes(),
                    token.as_bytes(),
                    shift.id.as_bytes(),
                    over_by.as_bytes(),
                    settled_by.as_bytes(),
                ];
                arguments.extend(shift.fields.iter().map(String::as_bytes));
                let keys = [self.keys.fences.as_str()];
                self.keeper.run(&self.scripts.shift, &keys, &arguments, within).await.map(|_| ())
            }
            // Its fences have other names now, or never had any.
            _ => self.forget(within).await,
        }
    }

    /// Everything stored is unusable from now on.
    async fn forget(&self, within: Duration) -> Result<(), Failure> {
        let bound = self.bound().ok_or(Failure::Down)?;
        let random = |_| Failure::Lost("no randomness from the system".into());
        let epoch = secret::random::<12>().map_err(random)?;
        let hold = self.writes.unsettled(Instant::now()).as_millis().to_string();
        let lifetime = self.lifetime();
        let arguments = [&bound.birth, &lifetime, &self.keys.writes, &epoch, &hold].map(String::as_bytes);
        self.keeper.run(&self.scripts.forget, &[&self.keys.fences], &arguments, within).await.map(|_| ())
    }

    /// Tells what could not be told, as soon as it can be. Never ends.
    pub(super) async fn tell_kept(&self) {
        let mut changes = self.keeper.changes();
        loop {
            if self.writes.all_told() {
                self.writes.news.notified().await;
                continue;
            }
            let _ = changes.wait_for(|up| *up).await;
            if !self.tell_first().await {
                sleep(AGAIN).await;
            }
        }
    }

    /// Tells one of what is kept.
    async fn tell_first(&self) -> bool {
        let writes = &self.writes;
        let first = {
            let mut kept = lock(&writes.kept);
            let before = kept.len();
            let birth = self.bound().map(|bound| bound.birth.clone());
            kept.retain(|shift| shift.bound.as_ref().map(|bound| &bound.birth) == birth.as_ref());
            if kept.len() < before {
                writes.all.store(true, SeqCst);
            }
            kept.front().cloned()
        };
        let told = if writes.all.swap(false, SeqCst) {
            let told = self.forget(PATIENCE).await.is_ok();
            if !told {
                writes.all.store(true, SeqCst);
            }
            told
        } else if let Some(first) = first {
            let told = self.tell(&first, PATIENCE).await.is_ok();
            let mut kept = lock(&writes.kept);
            // It may have come to its end meanwhile.
            if told
                && kept.front().is_some_and(|front| front.id == first.id && front.over_by == first.over_by)
            {
                kept.pop_front();
            }
            told
        } else {
            true
        };
        writes.count(&lock(&writes.kept));
        told
    }
}

impl Writing {
    /// Tells of it. Waits for a second at most, and not for a Redis that has been away for longer.
    pub async fn begin(&self) {
        self.publish(self.shift.clone()).await;
    }

    /// Tells, as patiently, of one that is over as it begins. Whether others know of it now.
    pub async fn tell(mut self) -> bool {
        let shift = self.over();
        self.publish(shift).await
    }

    async fn publish(&self, shift: Shift) -> bool {
        let (shared, now) = (&self.shared, Instant::now());
        let patience = shared.keeper.down_since().map_or(now, |since| since.min(now)) + PATIENCE;
        let told = shared.tell_until(&shift, patience).await;
        if !told {
            shared.counts.unpublished.fetch_add(1, Relaxed);
            shared.writes.keep(shift);
        }
        told
    }

    /// Every search sees it once it is answered: nothing is left to settle.
    pub fn is_visible(&mut self) {
        self.settle = Duration::ZERO;
    }

    /// The outcome is unknown: the store may still apply it within this time.
    pub fn may_come_later(&mut self, within: Duration) {
        self.settle = self.settle.max(within);
    }

    /// Its outcome is known. Waits as long as a search would for Redis; what is not told by then is told later.
    pub async fn end(mut self) {
        let shift = self.over();
        let shared = &self.shared;
        if !shared.writes.replace(&shift) && shared.tell(&shift, shared.policy.timeout).await.is_err() {
            shared.writes.keep(shift);
        }
    }

    fn over(&mut self) -> Shift {
        self.ended = true;
        let (shared, writes) = (&self.shared, &self.shared.writes);
        let settled_by = writes.nanos_in(self.settle);
        // In this order: it is known of at any time.
        writes.settled_by.fetch_max(settled_by, SeqCst);
        writes.under_way.fetch_sub(1, SeqCst);
        if self.settle > shared.policy.settle {
            writes.watched_by.fetch_max(settled_by, SeqCst);
            shared.trust.woken.notify_one();
        }
        Shift { over_by: None, settled_by: Instant::now() + self.settle, ..self.shift.clone() }
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        if !self.ended {
            let shift = self.over();
            if !self.shared.writes.replace(&shift) {
                self.shared.writes.keep(shift);
            }
        }
    }
}
