//! What keeps retries from becoming a storm: shared by all requests to one upstream.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use tokio::sync::futures::Notified;
use tokio::time::Instant;

use super::breaker::{self, Admitted, Breaker, Change, Health};
use super::recent::Recent;
use crate::shard::Sharded;

/// Retries that are allowed in ten seconds however few the requests are: a bot with one call a minute gets all of its
/// own, and so does one with five calls at a time. Beyond twenty requests a second it is the share that counts (Finagle
/// and linkerd allow ten *a second*, a hundred in this time).
const FLOOR: f64 = 20.0;

/// Requests that may wait at a time for a breaker to let them through. All of a small bot's may, so that a store that
/// restarts costs it nothing; of a thousand a second nearly all hear at once.
const WAITING: usize = 5;

/// What of an upstream's protection is configured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Policy {
    /// Retries as a share of recent requests; 1 is no bound
    /// (<https://sre.google/sre-book/handling-overload/>, "a per-client retry budget").
    pub budget: f64,
    /// `None`: requests are never refused.
    pub breaker: Option<breaker::Policy>,
}

/// The budget and the breaker of one upstream, and chance.
#[derive(Debug)]
pub struct Guard {
    policy: Policy,
    begun: Instant,
    /// Requests of which a first attempt has ended.
    requests: Sharded<Recent>,
    retries: Recent,
    failures: Recent,
    breaker: Option<Breaker>,
    waiting: AtomicUsize,
    /// The second before which attempts do not count for the breaker: it has closed since.
    counts_from: AtomicU64,
    chance: AtomicU64,
}

/// An attempt that finds out whether its upstream is back. Dropped when it has ended, by whatever.
#[derive(Debug)]
#[must_use = "dropping it ends the probe"]
pub struct Probe<'a>(&'a Breaker);

impl Drop for Probe<'_> {
    fn drop(&mut self) {
        self.0.probe_ended();
    }
}

/// A place among those who wait, given back when dropped.
#[derive(Debug)]
pub struct Waiting<'a> {
    breaker: &'a Breaker,
    waiting: &'a AtomicUsize,
}

impl Waiting<'_> {
    /// Comes when the breaker closes from now on, which is before the wait for the next probe is over.
    pub fn closed(&self) -> Notified<'_> {
        self.breaker.closed()
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.waiting.fetch_sub(1, Relaxed);
    }
}

/// How much of a budget is used.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Budget {
    /// Retries made in the last ten seconds.
    pub used: u64,
    /// Retries that the requests of the last ten seconds allow.
    pub allowed: f64,
}

impl Budget {
    /// Whether one more fits.
    pub fn allows(&self) -> bool {
        self.used as f64 + 1.0 <= self.allowed
    }

    /// How many more fit; `None` where there is no bound.
    pub fn remaining(&self) -> Option<u64> {
        self.allowed.is_finite().then(|| (self.allowed - self.used as f64).max(0.0) as u64)
    }
}

impl Guard {
    /// `seed` is from the operating system: with it, no two processes wait alike. `shards` threads count apart.
    pub fn new(policy: Policy, shards: usize, seed: u64) -> Self {
        Self {
            policy,
            begun: Instant::now(),
            requests: Sharded::new(shards, Recent::default),
            retries: Recent::default(),
            failures: Recent::default(),
            breaker: policy.breaker.map(Breaker::new),
            waiting: AtomicUsize::new(0),
            counts_from: AtomicU64::new(0),
            chance: AtomicU64::new(seed),
        }
    }

    /// What was configured.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Whether an attempt may begin: as what, and what changes by that. If not, how long none may.
    pub fn admit(&self, now: Instant) -> Result<(Option<Probe<'_>>, Option<Change>), Duration> {
        let Some(breaker) = &self.breaker else { return Ok((None, None)) };
        match breaker.admit(now, || self.random())? {
            Admitted::AsEver => Ok((None, None)),
            Admitted::Probes => Ok((Some(Probe(breaker)), None)),
            Admitted::Closes => {
                self.counts_from.store(self.second(now) + 1, Relaxed);
                Ok((None, Some(Change::Closed)))
            }
        }
    }

    /// A place among those who wait for the breaker, if there is one left.
    pub fn wait(&self) -> Option<Waiting<'_>> {
        let breaker = self.breaker.as_ref()?;
        let fits = |waiting: usize| (waiting < WAITING).then_some(waiting + 1);
        self.waiting.fetch_update(Relaxed, Relaxed, fits).ok()?;
        Some(Waiting { breaker, waiting: &self.waiting })
    }

    /// An attempt that began then has ended; `first` of its request.
    pub fn note(&self, first: bool, health: Health, begun: Instant, now: Instant) -> Option<Change> {
        let second = self.second(now);
        if first {
            self.requests.here().count(second);
        }
        let breaker = self.breaker.as_ref()?;
        if matches!(health, Health::Failed | Health::Unreachable) {
            self.failures.count(second);
        }
        let too_many = |policy: &breaker::Policy| {
            let since = self.counts_from.load(Relaxed);
            let attempts = self.requests(second, since) + self.retries.sum(second, since);
            let failed = self.failures.sum(second, since);
            attempts >= u64::from(policy.requests) && failed as f64 >= policy.errors * attempts as f64
        };
        let change = breaker.note(health, (begun, now), too_many, || self.random());
        if change == Some(Change::Closed) {
            self.counts_from.store(second + 1, Relaxed);
        }
        change
    }

    /// How much of the budget is used now.
    pub fn budget(&self, now: Instant) -> Budget {
        let second = self.second(now);
        if self.policy.budget >= 1.0 {
            return Budget { used: self.retries.sum(second, 0), allowed: f64::INFINITY };
        }
        let allowed = self.policy.budget * self.requests(second, 0) as f64;
        Budget { used: self.retries.sum(second, 0), allowed: allowed.max(FLOOR) }
    }

    /// A retry is being made.
    pub fn retried(&self, now: Instant) {
        self.retries.count(self.second(now));
    }

    /// Uniform in `0.0..1.0`. Not a generator for each thread: what is called once a failure may write to one place.
    pub fn random(&self) -> f64 {
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        fastrand::Rng::with_seed(self.chance.fetch_add(STEP, Relaxed)).f64()
    }

    /// Whether requests are refused now, and how often that has begun.
    pub fn breaker(&self) -> (bool, u64) {
        self.breaker.as_ref().map_or((false, 0), |breaker| (breaker.is_open(), breaker.opened()))
    }

    fn requests(&self, second: u64, since: u64) -> u64 {
        self.requests.iter().map(|shard| shard.sum(second, since)).sum()
    }

    fn second(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.begun).as_secs()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BREAKER: breaker::Policy = breaker::Policy {
        errors: 0.8,
        requests: 20,
        connects: 5,
        open: Duration::from_millis(250),
        max_open: Duration::from_millis(1500),
    };

    fn guard(budget: f64) -> Guard {
        Guard::new(Policy { budget, breaker: Some(BREAKER) }, 2, 7)
    }

    #[test]
    fn few_requests_have_twenty_retries_and_many_their_share() {
        let guard = guard(0.1);
        let now = guard.begun;
        assert_eq!(guard.budget(now), Budget { used: 0, allowed: 20.0 });
        for _ in 0..200 {
            guard.note(true, Health::Up, now, now);
        }
        assert_eq!(guard.budget(now).remaining(), Some(20));
        for _ in 0..100 {
            guard.note(true, Health::Up, now, now);
            guard.note(false, Health::Up, now, now);
        }
        assert_eq!(guard.budget(now).remaining(), Some(30), "retries are no requests");
        for _ in 0..30 {
            assert!(guard.budget(now).allows());
            guard.retried(now);
        }
        assert!(!guard.budget(now).allows());
        assert_eq!(guard.budget(now + Duration::from_secs(10)).remaining(), Some(20), "ten seconds later");
    }

    /// The promise of docs/retries.md: over any time, with any traffic, no more than the share and ten in ten seconds.
    #[test]
    fn an_outage_costs_no_more_than_the_share() {
        for rate in [1, 7, 50, 1000] {
            let guard = guard(0.1);
            let (mut requests, mut retries) = (0_u32, 0_u32);
            for millis in (0..60_000).step_by(1000 / rate) {
                let now = guard.begun + Duration::from_millis(millis);
                requests += 1;
                guard.note(true, Health::Unknown, now, now);
                for _ in 0..3 {
                    if guard.budget(now).allows() {
                        guard.retried(now);
                        retries += 1;
                    }
                }
            }
            let most = (f64::from(requests) * 0.1).max(140.0);
            assert!(f64::from(retries) <= most, "{rate}: {retries} of {requests}");
            assert!(
                f64::from(retries) >= 0.9 * most.min(f64::from(requests) * 3.0) - 20.0,
                "{rate}: {retries}"
            );
        }
    }

    #[test]
    fn all_of_them_is_no_bound() {
        let guard = guard(1.0);
        for _ in 0..1000 {
            guard.retried(guard.begun);
        }
        assert!(guard.budget(guard.begun).allows() && guard.budget(guard.begun).remaining().is_none());
    }

    #[test]
    fn the_share_of_failures_is_judged_over_ten_seconds_and_forgotten_when_it_closes() {
        let guard = guard(0.1);
        let at = |millis| guard.begun + Duration::from_millis(millis);
        let fails = |one_in: u64, n: u64| if n.is_multiple_of(one_in) { Health::Up } else { Health::Failed };
        // Three of four fail, in runs of three; then nine of ten.
        for n in 0..100 {
            assert_eq!(guard.note(true, fails(4, n), at(n), at(n)), None, "{n}");
        }
        let opened = (100..200).find(|n| guard.note(true, fails(10, *n), at(*n), at(*n)).is_some()).unwrap();
        assert!((140..160).contains(&opened), "{opened}");
        assert!(guard.admit(at(160)).is_err());
        assert_eq!(guard.breaker(), (true, 1));
        assert!(guard.admit(at(900)).is_ok(), "the probe");
        assert_eq!(guard.note(true, Health::Up, at(900), at(901)), Some(Change::Closed));
        for n in 1000..1019 {
            assert_eq!(guard.note(true, Health::Failed, at(n), at(n)), None, "what was before is forgotten");
        }
    }

    #[test]
    fn without_a_breaker_nothing_is_refused() {
        let guard = Guard::new(Policy { budget: 0.1, breaker: None }, 1, 7);
        for _ in 0..1000 {
            guard.note(true, Health::Unreachable, guard.begun, guard.begun);
        }
        assert!(guard.admit(guard.begun).is_ok() && guard.breaker() == (false, 0));
    }

    #[test]
    fn chance_is_even_and_differs_by_seed() {
        let sample = |seed| {
            let guard = Guard::new(Policy { budget: 0.0, breaker: None }, 1, seed);
            (0..10_000).map(|_| guard.random()).collect::<Vec<_>>()
        };
        let (one, other) = (sample(1), sample(2));
        assert_ne!(one, other);
        let tenth = |n: f64| one.iter().filter(|value| (n / 10.0..(n + 1.0) / 10.0).contains(*value)).count();
        for n in 0..10 {
            assert!((900..1100).contains(&tenth(f64::from(n))), "{n}: {}", tenth(f64::from(n)));
        }
    }
}
