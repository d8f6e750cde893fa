//! Requests that may be answered from a stored response.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use http::HeaderValue;

use super::answer::{Answer, Forwarded};
use super::cache::{Cache, given};
use super::compare::{audit, shadow};
use super::fetch::Fetch;
use super::headers::{CacheAsk, Seen};
use super::outbound::{Outbound, Terms};
use super::route::Found;
use crate::cache::Policy;
use crate::cache::key::Key;
use crate::cache::store::Stored;
use crate::exchange::{Bypass, CacheStatus, Exchange};
use crate::plan::{Action, Condition, Rule};

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
        let patience = patience(at, policy, &outbound);
        let fetch = Fetch { route, policy, key, scope, sees_all, name, refresh, patience, terms };
        if policy.shadow && !refresh {
            shadow(fetch, cache, outbound, exchange).await
        } else {
            fetch.search(cache, outbound, exchange).await
        }
    }
}

/// A value that differs where requests of one key say something else of how long the store may take.
fn patience(at: &Found<'_>, policy: &Policy, outbound: &Outbound) -> u64 {
    let limit = outbound.headers.get("request-timeout");
    let query = at.query.filter(|_| !policy.ignore_query.is_empty());
    if limit.is_none() && query.is_none() {
        return 0;
    }
    let mut hasher = DefaultHasher::new();
    (limit.map(HeaderValue::as_bytes), query).hash(&mut hasher);
    hasher.finish()
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
