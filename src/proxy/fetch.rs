//! Searches that nothing in this process answers: asked of Redis, of another search under way, of the upstream.

use std::sync::Arc;

use tokio::time::Instant;

use super::answer::Forwarded;
use super::cache::Cache;
use super::fetched::{Fetched, Nothing, land, late};
use super::forward::forward;
use super::outbound::{Outbound, Terms};
use super::route::Route;
use super::shared::{self, Known};
use super::storing::{NotStored, is_shareable, store};
use crate::cache::Policy;
use crate::cache::fence::Scope;
use crate::cache::key::Key;
use crate::cache::shared::Name;
use crate::error::{Error, Kind};
use crate::exchange::{Attempts, Bypass, CacheStatus, Exchange};
use crate::plan::Action;

/// A search that nothing in this process answers.
pub(super) struct Fetch<'a> {
    pub(super) route: &'a Arc<Route>,
    pub(super) policy: &'a Policy,
    pub(super) key: Key,
    pub(super) scope: Scope,
    /// The request asks for an answer that has every write in it.
    pub(super) sees_all: bool,
    /// Its name among instances; `None` without Redis, or while nothing is known of it.
    pub(super) name: Option<Name>,
    pub(super) refresh: bool,
    /// What it says of its patience, which is no part of its key: an answer cut short by another's is not its own.
    pub(super) patience: u64,
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
        let Self { route, policy, key, scope, sees_all, name, refresh, patience, terms } = self;
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
            let generation = if shared { known.generation() ^ patience } else { fastrand::u64(..) };
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
            match fetched.take(leads, &terms) {
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
