//! When an upstream is left alone, and when it is tried again.
//!
//! Open, every request is refused but one in each open time: the probe. The first success closes it; each failure makes
//! the open time longer. A probe that lasts, and much longer than the failures did, has passed as well: where failing
//! takes a moment and an answer half a minute, nobody waits for the answer.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::sync::futures::Notified;
use tokio::time::Instant;

/// A probe that ends sooner proves nothing by lasting: an upstream that takes connections and says nothing is not back.
const LASTING: Duration = Duration::from_secs(3);

/// When the breaker of an upstream opens, and for how long.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Policy {
    /// Share of failures among recent attempts.
    pub errors: f64,
    /// Attempts below which no share is told. As many failures in a row open it as well, whatever came before them.
    pub requests: u32,
    /// Connections in a row that could not be made.
    pub connects: u32,
    /// The first open time.
    pub open: Duration,
    /// The longest.
    pub max_open: Duration,
}

/// How an attempt ended, as far as it tells of its upstream's health.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// It answers; 4xx too, 429 among them.
    Up,
    /// It was reached, and failed: 5xx, reset, no answer in time.
    Failed,
    /// It could not be reached.
    Unreachable,
    /// Nothing is told: the client left or allowed too little, or a kept connection had ended.
    Unknown,
}

/// As what an attempt may begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admitted {
    /// The upstream is well.
    AsEver,
    /// It finds out whether the upstream is.
    Probes,
    /// The upstream is taken to be well from here on.
    Closes,
}

/// What an attempt's end has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Requests are refused from here on.
    Opened,
    /// Requests pass again.
    Closed,
}

#[derive(Debug)]
pub(super) struct Breaker {
    policy: Policy,
    /// Spares requests the lock while all is well.
    open: AtomicBool,
    /// Failures in a row.
    failures: AtomicU32,
    /// Of them those that did not reach the upstream.
    unreachable: AtomicU32,
    opened: AtomicU64,
    state: Mutex<Option<Open>>,
    closed: Notify,
}

#[derive(Clone, Copy, Debug)]
struct Open {
    /// Attempts begun before say nothing any more.
    since: Instant,
    /// When the next probe is let through.
    until: Instant,
    interval: Duration,
    /// What the slowest failure took.
    failing_takes: Duration,
    /// When the last probe began of which nothing is known yet.
    probe: Option<Instant>,
}

impl Breaker {
    pub(super) fn new(policy: Policy) -> Self {
        Self {
            policy,
            open: AtomicBool::new(false),
            failures: AtomicU32::new(0),
            unreachable: AtomicU32::new(0),
            opened: AtomicU64::new(0),
            state: Mutex::new(None),
            closed: Notify::new(),
        }
    }

    /// Whether an attempt may begin; if not, when the next probe may. `random` is in `0..1`.
    pub(super) fn admit(&self, now: Instant, random: impl FnOnce() -> f64) -> Result<Admitted, Duration> {
        if !self.open.load(Relaxed) {
            return Ok(Admitted::AsEver);
        }
        let mut state = self.lock();
        let Some(open) = state.as_mut() else { return Ok(Admitted::AsEver) };
        if now < open.until {
            return Err(open.until - now);
        }
        let patience = (open.interval + open.failing_takes * 2).max(LASTING);
        if open.probe.is_some_and(|begun| now.saturating_duration_since(begun) >= patience) {
            self.close(&mut state);
            return Ok(Admitted::Closes);
        }
        open.probe.get_or_insert(now);
        open.until = now + jittered(open.interval, random());
        Ok(Admitted::Probes)
    }

    /// A probe has ended, whatever it met: by lasting it proves nothing any more.
    pub(super) fn probe_ended(&self) {
        if let Some(open) = self.lock().as_mut() {
            open.probe = None;
        }
    }

    /// Comes when it closes from now on.
    pub(super) fn closed(&self) -> Notified<'_> {
        self.closed.notified()
    }

    /// Takes in how an attempt ended. `too_many` tells whether too many recent ones failed.
    pub(super) fn note(
        &self,
        health: Health,
        (begun, now): (Instant, Instant),
        too_many: impl FnOnce(&Policy) -> bool,
        random: impl FnOnce() -> f64,
    ) -> Option<Change> {
        match health {
            Health::Unknown => return None,
            Health::Up => {
                for run in [&self.failures, &self.unreachable] {
                    if run.load(Relaxed) > 0 {
                        run.store(0, Relaxed);
                    }
                }
                let passed = self.open.load(Relaxed) && self.passed(begun);
                return passed.then_some(Change::Closed);
            }
            Health::Failed => self.unreachable.store(0, Relaxed),
            Health::Unreachable => _ = self.unreachable.fetch_add(1, Relaxed),
        }
        let failures = self.failures.fetch_add(1, Relaxed) + 1;
        let took = now.saturating_duration_since(begun);
        let mut state = self.lock();
        match state.as_mut() {
            Some(open) if begun >= open.since => {
                open.interval = (open.interval * 2).min(self.policy.max_open);
                open.until = now + jittered(open.interval, random());
                open.failing_takes = open.failing_takes.max(took);
                open.probe = None;
            }
            Some(_) => {}
            None => {
                let opens = self.unreachable.load(Relaxed) >= self.policy.connects
                    || failures >= self.policy.requests
                    || too_many(&self.policy);
                if opens {
                    let interval = self.policy.open.min(self.policy.max_open);
                    let until = now + jittered(interval, random());
                    *state = Some(Open { since: now, until, interval, failing_takes: took, probe: None });
                    self.open.store(true, Relaxed);
                    self.opened.fetch_add(1, Relaxed);
                    return Some(Change::Opened);
                }
            }
        }
        None
    }

    pub(super) fn is_open(&self) -> bool {
        self.open.load(Relaxed)
    }

    /// How often it has opened.
    pub(super) fn opened(&self) -> u64 {
        self.opened.load(Relaxed)
    }

    /// An attempt begun then has succeeded.
    fn passed(&self, begun: Instant) -> bool {
        let mut state = self.lock();
        let passed = state.is_some_and(|open| begun >= open.since);
        if passed {
            self.close(&mut state);
        }
        passed
    }

    fn close(&self, state: &mut Option<Open>) {
        *state = None;
        self.failures.store(0, Relaxed);
        self.unreachable.store(0, Relaxed);
        self.open.store(false, Relaxed);
        self.closed.notify_waiters();
    }

    fn lock(&self) -> MutexGuard<'_, Option<Open>> {
        // A panic while it was held cannot have left it half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A fifth more or less: processes that lost an upstream together do not come back together.
fn jittered(interval: Duration, random: f64) -> Duration {
    interval.mul_f64(0.8 + 0.4 * random.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const POLICY: Policy = Policy {
        errors: 0.8,
        requests: 20,
        connects: 5,
        open: Duration::from_millis(250),
        max_open: Duration::from_millis(1500),
    };

    /// A breaker, and a clock that stands at the milliseconds given.
    struct Case(Breaker, Instant);

    impl Case {
        fn new() -> Self {
            Self(Breaker::new(POLICY), Instant::now())
        }

        fn at(&self, millis: u64) -> Instant {
            self.1 + Duration::from_millis(millis)
        }

        /// Without jitter.
        fn admits(&self, millis: u64) -> bool {
            self.0.admit(self.at(millis), || 0.5).is_ok()
        }

        /// An attempt from one moment to the other.
        fn ends(&self, health: Health, begun: u64, ended: u64) -> Option<Change> {
            self.0.note(health, (self.at(begun), self.at(ended)), |_| false, || 0.5)
        }

        fn opened(at: u64) -> Self {
            let case = Self::new();
            for n in 1..=POLICY.connects {
                let change = (n == POLICY.connects).then_some(Change::Opened);
                assert_eq!(case.ends(Health::Unreachable, at, at), change);
            }
            case
        }
    }

    #[test]
    fn it_opens_by_connections_by_failures_in_a_row_or_by_their_share() {
        let case = Case::opened(0);
        assert!(case.0.is_open() && case.0.opened() == 1 && !case.admits(1));
        let case = Case::new();
        for n in 0..19 {
            assert_eq!(case.ends(Health::Failed, n, n), None);
        }
        assert!(case.admits(20));
        assert_eq!(case.ends(Health::Failed, 20, 20), Some(Change::Opened));
        let case = Case::new();
        let begun = (case.at(0), case.at(1));
        assert_eq!(case.0.note(Health::Failed, begun, |_| true, || 0.5), Some(Change::Opened));
    }

    #[test]
    fn an_answer_ends_a_run_and_what_tells_nothing_does_not() {
        let case = Case::new();
        for n in 0..100 {
            case.ends(Health::Unreachable, n, n);
            case.ends(Health::Unknown, n, n);
            if n % 4 == 3 {
                case.ends(Health::Up, n, n);
            }
        }
        assert!(!case.0.is_open());
        for n in 0..19 {
            case.ends(if n % 4 == 3 { Health::Failed } else { Health::Unreachable }, n, n);
        }
        assert!(!case.0.is_open(), "reached now and then");
    }

    #[test]
    fn one_probe_in_each_open_time_which_doubles_to_its_bound() {
        let case = Case::opened(0);
        let (mut at, mut waits) = (0, Vec::new());
        for _ in 0..6 {
            let next = (at..at + 2000).find(|millis| case.admits(*millis)).unwrap();
            assert!(!case.admits(next), "one");
            waits.push(next - at);
            at = next;
            case.ends(Health::Failed, at, at);
        }
        assert_eq!(waits, [250, 500, 1000, 1500, 1500, 1500]);
    }

    #[test]
    fn the_first_success_begun_since_closes_it() {
        let case = Case::opened(1000);
        assert_eq!(case.ends(Health::Up, 999, 1001), None, "begun before");
        assert!(!case.admits(1001) && case.admits(1250));
        assert_eq!(case.ends(Health::Up, 1250, 1260), Some(Change::Closed));
        assert!(case.admits(1261) && case.admits(1261));
        assert_eq!(case.ends(Health::Unreachable, 1261, 1262), None, "counted anew");
    }

    #[test]
    fn a_failure_begun_before_it_opened_makes_nothing_longer() {
        let case = Case::opened(1000);
        for n in 0..50 {
            case.ends(Health::Failed, 900, 1000 + n);
        }
        assert!(case.admits(1250));
    }

    #[test]
    fn a_probe_that_ended_unseen_is_followed_by_another_and_closes_nothing() {
        let case = Case::opened(0);
        for at in (250..20_000).step_by(250) {
            assert!(case.admits(at));
            case.0.probe_ended();
        }
        assert!(case.0.is_open());
    }

    #[test]
    fn a_probe_that_outlasts_the_failures_has_passed() {
        // They took 400 ms each; the probe is a long chat.
        let case = Case::new();
        for n in 0..20 {
            case.ends(Health::Failed, n, n + 400);
        }
        assert!(case.0.is_open() && !case.admits(600) && case.admits(670));
        for at in (920..3670).step_by(250) {
            assert!(case.admits(at) && case.0.is_open(), "not yet long enough: {at}");
        }
        assert!(case.admits(3670) && !case.0.is_open());
        // Where failing is slow, so is passing.
        let case = Case::new();
        for n in 0..20 {
            case.ends(Health::Failed, n, n + 5000);
        }
        for at in (5300..15_000).step_by(300) {
            case.admits(at);
        }
        assert!(case.0.is_open());
    }

    #[test]
    fn open_times_are_spread_by_a_fifth() {
        assert_eq!((jittered(1000 * MS, 0.0), jittered(1000 * MS, 1.0)), (800 * MS, 1200 * MS));
    }
}
