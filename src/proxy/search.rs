//! Requests that may be answered from a stored response.

use std::sync::Arc;

use http::StatusCode;
use http::header::{self, HeaderValue};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::compare::{audit, shadow};
use super::content::Held;
use super::fetched::{Fetched, Nothing, land, late, whole_answer};
use super::forward::{Answer, Forwarded, Outbound, Terms, forward};
use super::headers::{CacheAsk, Seen};
use super::route::{Found, Route};
use super::shared::{self, Known};
use super::storing::{NotStored, is_shareable, store};
use crate::cache::Policy;
use crate::cache::fence::{Fences, Scope};
use crate::cache::flight::Flights;
use crate::cache::key::Key;
use crate::cache::memo::Memo;
use crate::cache::shared::{Name, Shared};
use crate::cache::store::{Hit, Store, Stored};
use crate::cache::unshared::Unshared;
use crate::error::{Error, Kind};
use crate::exchange::{Attempts, Bypass, CacheStatus, Exchange};
use crate::plan::{Action, Condition, Rule};

/// The part of the cache's memory that the memo has: a sixteenth. One spelling for each 3 KB of stored answers.
const MEMO_SHARE: u64 = 16;

/// Audits under way at most, of all routes together: each holds an answer, and an upstream that is slow should not get
/// more and more of them.
const AUDITS: usize = 4;

/// Everything the cache consists of, for every route.
#[derive(Debug)]
pub(crate) struct Cache {
    pub(crate) store: Store,
    pub(crate) fences: Arc<Fences>,
    /// What other instances share; `None` without Redis.
    pub(crate) shared: Option<Arc<Shared>>,
    pub(super) flights: Flights<Arc<Fetched>>,
    unshared: Unshared,
    memo: Memo,
    /// What audits may be under way.
    pub(super) audits: Arc<Semaphore>,
}

impl Cache {
    /// A cache of at most so many bytes.
    pub(crate) fn new(bytes: u64, fences: Arc<Fences>, shared: Option<Arc<Shared>>) -> Self {
        let memo = bytes / MEMO_SHARE;
        let trust = shared.as_ref().map(|shared| shared.trust());
        let store = Store::new(bytes - memo, Arc::clone(&fences), trust);
        Self {
            store,
            fences,
            shared,
            flights: Flights::default(),
            unshared: Unshared::default(),
            memo: Memo::new(memo),
            audits: Arc::new(Semaphore::new(AUDITS)),
        }
    }
}

impl Cache {
    /// The stored answer in place of a failure, if no write has passed it (RFC 5861 section 4).
    fn instead_of(&self, failed: &Forwarded, key: Key, exchange: &mut Exchange) -> Option<Answer> {
        let status = match &failed.result {
            Ok(answer) if answer.head.status.is_server_error() => Some(answer.head.status.as_u16()),
            Err(error) if error.kind.is_upstreams() => None,
            _ => return None,
        };
        let hit = self.store.get_stale(key)?;
        exchange.cache = Some(CacheStatus::Stale { status });
        Some(given(&hit))
    }
}

/// A stored answer as it is given again.
fn given(Hit { stored, age, .. }: &Hit) -> Answer {
    let mut headers = stored.headers.clone();
    headers.insert(header::AGE, HeaderValue::from(age.as_secs()));
    whole_answer(StatusCode::OK, headers, Held::Whole(stored.content.clone()))
}

/// A search that a stored response may answer.
pub(super) struct Search<'a> {
    at: &'a Found<'a>,
    policy: &'a Policy,
    /// The name of its answer.
    key: Key,
    /// The answer has to be a new one.
    refresh: bool,
    terms: Terms,
}

impl<'a> Search<'a> {
    /// `None` where its rule stores nothing, or the cache is not asked for it.
    pub(super) fn of(
        at: &'a Found<'a>,
        cache: &Cache,
        seen: &Seen,
        outbound: &Outbound,
        terms: Terms,
        exchange: &mut Exchange,
    ) -> Option<Self> {
        let rule = at.route.rule(terms.rule);
        let Action::Cache(policy) = &rule.action else { return None };
        // Nothing is ever stored of an upstream without fences.
        let names = at.route.names(terms.rule).filter(|_| at.route.plan.fenced)?;
        if !may_look_up(seen, at, rule, outbound, exchange) {
            return None;
        }
        let (key, is_json) = cache.memo.key_of(names, &at.identity(outbound));
        if !is_json && rule.pass_if.as_ref().is_some_and(Condition::wants_json) {
            exchange.cache = Some(CacheStatus::Bypass(Bypass::Rule));
            return None;
        }
        let terms = Terms { hold: policy.max_entry, ..terms };
        Some(Self { at, policy, key, refresh: seen.asks.cache == CacheAsk::Refresh, terms })
    }

    /// The stored answer, if it may be used.
    pub(super) fn stored(&self, cache: &Cache, exchange: &mut Exchange) -> Option<(Answer, Arc<Stored>)> {
        if self.refresh || self.policy.shadow {
            return None;
        }
        let hit = cache.store.get(self.key)?;
        exchange.cache = Some(CacheStatus::Hit { ttl: hit.ttl.as_secs(), shared: false });
        Some((given(&hit), hit.stored))
    }

    /// Every now and then a hit is held against what the upstream answers now.
    pub(super) fn is_audited(&self) -> bool {
        self.policy.audit > 0.0 && fastrand::f64() < self.policy.audit
    }

    /// Asks the upstream about the hit that is being given.
    pub(super) fn audit(&self, cache: &Arc<Cache>, outbound: Outbound, stored: Arc<Stored>) {
        audit(cache, self.at.route, outbound, self.terms, stored);
    }

    /// The answer that nothing in this process has.
    pub(super) async fn fetch(
        self,
        cache: &Arc<Cache>,
        outbound: Outbound,
        exchange: &mut Exchange,
    ) -> Forwarded {
        let Self { at, policy, key, refresh, terms } = self;
        let (route, rule) = (at.route, at.route.rule(terms.rule));
        let levels = at.levels(rule, &outbound);
        let scope = cache.fences.scope(&route.store, levels.iter().map(Option::as_deref));
        let name = cache.name(route, policy, &at.identity(&outbound), &levels);
        drop(levels);
        let sees_all = at.is_settled(rule, &outbound);
        let fetch = Fetch { route, policy, key, scope, sees_all, name, refresh, terms };
        if policy.shadow && !refresh {
            shadow(fetch, cache, outbound, exchange).await
        } else {
            fetch.search(cache, outbound, exchange).await
        }
    }
}

/// A search that nothing in this process answers.
pub(super) struct Fetch<'a> {
    pub(super) route: &'a Arc<Route>,
    policy: &'a Policy,
    pub(super) key: Key,
    scope: Scope,
    /// The request asks for an answer that has every write in it.
    sees_all: bool,
    /// Its name among instances; `None` without Redis, or while nothing is known of it.
    name: Option<Name>,
    refresh: bool,
    pub(super) terms: Terms,
}

impl Fetch<'_> {
    /// The upstream's answer, or what is stored where that is a failure.
    pub(super) async fn search(
        self,
        cache: &Arc<Cache>,
        outbound: Outbound,
        exchange: &mut Exchange,
    ) -> Forwarded {
        let (key, policy) = (self.key, self.policy);
        let stale_if_error = !self.refresh && !policy.shadow && !policy.stale_if_error.is_zero();
        let forwarded = self.fetch(cache, outbound, exchange).await;
        if stale_if_error && let Some(answer) = cache.instead_of(&forwarded, key, exchange) {
            return Forwarded { result: Ok(answer), stop_sdk: false };
        }
        forwarded
    }

    /// An answer shared with others who ask the same now, or one of its own.
    async fn fetch(self, cache: &Arc<Cache>, outbound: Outbound, exchange: &mut Exchange) -> Forwarded {
        let Self { route, policy, key, scope, sees_all, name, refresh, terms } = self;
        let anew = refresh || policy.shadow;
        // Who asks for something else than what everybody gets flies alone.
        let shared = !anew && !terms.no_retry && !cache.unshared.contains(key);
        let mut outbound = Some(outbound);
        loop {
            // Before Redis is asked: a write that passes meanwhile makes what it says unusable here.
            let stamp = cache.fences.stamp_of(&scope, sees_all);
            let under = (key, stamp, policy.stale_if_error);
            let known = match shared::ask(cache, name.clone(), anew, under, exchange).await {
                Ok(answer) => return Forwarded { result: Ok(answer), stop_sdk: false },
                Err(known) => known,
            };
            let settled = known.settled();
            let generation = if shared { known.generation() } else { fastrand::u64(..) };
            let ticket = cache.flights.join(key, generation, || {
                let (cache, route, outbound) = (Arc::clone(cache), Arc::clone(route), outbound.take());
                fetch(cache, route, outbound, terms, key, known)
            });
            let leads = ticket.leads;
            let fetched = match land(ticket, route, &terms, exchange).await {
                Ok(fetched) => fetched,
                Err(instead) => return instead,
            };
            if leads {
                exchange.attempts = fetched.attempts;
                exchange.cache = Some(if settled {
                    CacheStatus::Miss { stored: fetched.stored }
                } else {
                    CacheStatus::Bypass(Bypass::Settle)
                });
            }
            match fetched.take(leads) {
                Ok(result) => return Forwarded { result, stop_sdk: fetched.stop_sdk },
                Err(Nothing::AnothersAnswer) => return alone(route, outbound, &terms, exchange).await,
                // One of those who waited takes the lead: an upstream that was too slow for one does not get a call of
                // each of them.
                Err(Nothing::AnothersFailure) if Instant::now() < terms.deadline => {}
                Err(Nothing::AnothersFailure) => return late(route),
            }
        }
    }
}

/// Asks for itself: what the flight brought was not to be shared.
async fn alone(
    route: &Arc<Route>,
    outbound: Option<Outbound>,
    terms: &Terms,
    exchange: &mut Exchange,
) -> Forwarded {
    let Some(mut outbound) = outbound else {
        return Error::new(Kind::Internal, "the answer was taken").into();
    };
    exchange.cache = Some(CacheStatus::Miss { stored: false });
    forward(route, &mut outbound, terms, &mut exchange.attempts).await
}

/// Runs in a task of its own, so that whoever began it may leave.
async fn fetch(
    cache: Arc<Cache>,
    route: Arc<Route>,
    outbound: Option<Outbound>,
    terms: Terms,
    key: Key,
    known: Known,
) -> Arc<Fetched> {
    let mut attempts = Attempts::default();
    let Some(mut outbound) = outbound else {
        let lost = Error::new(Kind::Internal, "the search was lost").into();
        return Arc::new(Fetched::new(lost, &terms, attempts, false, false));
    };
    let forwarded = forward(&route, &mut outbound, &terms, &mut attempts).await;
    let Ok(answer) = &forwarded.result else {
        return Arc::new(Fetched::new(forwarded, &terms, attempts, false, false));
    };
    let policy = match &route.rule(terms.rule).action {
        Action::Cache(policy) => Ok(policy),
        Action::Embeddings(_) | Action::Invalidate(_) | Action::Pass => Err(NotStored::Forbidden),
    };
    let shareable = policy.and_then(|policy| is_shareable(answer, policy).map(|()| policy));
    let stored = shareable.and_then(|policy| {
        let stored = store(&cache.store, policy, answer, key, known.under()?)?;
        known.share(&cache, policy.lifetime(key).fresh, &stored);
        Ok(())
    });
    if let Err(why) = stored {
        route.series(route.rule(terms.rule).operation).not_stored(why as usize);
    }
    let fetched = Fetched::new(forwarded, &terms, attempts, stored.is_ok(), shareable.is_ok());
    cache.unshared.note(key, fetched.is_for_all());
    Arc::new(fetched)
}

/// Whether the cache is asked at all: the content says all there is to say, the whole answer is wanted, and the rule does
/// not pass it by what it says. Where not, the exchange learns why.
pub(super) fn may_look_up(
    seen: &Seen,
    at: &Found<'_>,
    rule: &Rule,
    outbound: &Outbound,
    exchange: &mut Exchange,
) -> bool {
    let why = if seen.asks.cache == CacheAsk::Bypass {
        Bypass::Request
    } else if outbound.whole().is_none() {
        Bypass::Size
    } else if seen.conditional {
        Bypass::Encoded
    } else if rule.pass_if.as_ref().is_some_and(|c| c.holds_of_json(&at.facts(outbound), true)) {
        // What cannot be read is not stored. Whether it is JSON is told by who makes the key.
        Bypass::Rule
    } else {
        return true;
    };
    exchange.cache = Some(CacheStatus::Bypass(why));
    false
}
