//! A route at work, and how a request finds it.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use http::uri::PathAndQuery;
use tokio::time::Instant;

use super::outbound::Outbound;
use crate::cache::key::{Identity, Keyring, Names};
use crate::error::{Error, Kind};
use crate::metrics::{Metrics, Series, UpstreamFigures};
use crate::plan::{self, Action, Operation, Plan, Rule, RuleRef, normalise};
use crate::retry::breaker::{Change, Health};
use crate::retry::{Guard, Probe};
use crate::upstream::{Limit, Resolver, Tls, Upstream};

/// A route at work: its plan, its upstream's connections, its numbers.
#[derive(Debug)]
pub(crate) struct Route {
    pub(crate) plan: Plan,
    pub(crate) upstream: Upstream,
    /// Shared with the other routes to it.
    pub(crate) guard: Arc<Guard>,
    /// The upstream's name in fences: all routes to one store share its fences.
    pub(crate) store: String,
    /// The upstream's name in keys.
    pub(crate) identity: String,
    /// The names of requests, by rule; of rules that store only.
    names: Vec<Option<Names>>,
    metrics: Arc<Metrics>,
    /// Its place among all routes.
    index: usize,
}

impl Route {
    pub(crate) fn new(
        plan: Plan,
        tls: &Tls,
        metrics: Arc<Metrics>,
        index: usize,
        keyring: &Keyring,
        guards: &mut Guards,
    ) -> Self {
        let target = &plan.upstream;
        let store = format!("{}:{}", target.host().to_ascii_lowercase(), target.port());
        let guard = guards.of(&store, &plan, metrics.shards());
        let limit = guards.limit(&store);
        let upstream = Upstream::new(target.clone(), tls.clone(), limit, Resolver::system());
        // Whatever else is part of the forwarded URL.
        let identity = format!("{}://{store}{}", target.scheme, target.base_path);
        let names = plan.rules.iter().map(|rule| match &rule.action {
            Action::Cache(policy) | Action::Embeddings(policy) => Some(keyring.names(&identity, policy)),
            Action::Invalidate(_) | Action::Pass => None,
        });
        Self { upstream, guard, store, names: names.collect(), identity, metrics, index, plan }
    }

    /// Whether an attempt may begin; if not, how long none may.
    pub(crate) fn admit(&self, now: Instant) -> Result<Option<Probe<'_>>, Duration> {
        let (probe, change) = self.guard.admit(now)?;
        self.tell(change);
        Ok(probe)
    }

    /// An attempt has ended, and tells of the upstream's health.
    pub(crate) fn note(&self, first: bool, health: Health, begun: Instant, now: Instant) {
        self.tell(self.guard.note(first, health, begun, now));
    }

    fn tell(&self, change: Option<Change>) {
        let authority = &self.plan.upstream.authority;
        match change {
            Some(Change::Opened) => tracing::warn!(
                route = self.plan.name,
                "{authority} fails again and again: its requests are answered with 503 until it is back"
            ),
            Some(Change::Closed) => tracing::info!(route = self.plan.name, "{authority} is back"),
            None => {}
        }
    }

    /// What is done about its upstream.
    pub(crate) fn figures(&self) -> UpstreamFigures {
        let (breaker_open, breaker_opened) = self.guard.breaker();
        let budget_remaining = self.guard.budget(Instant::now()).remaining();
        let in_flight = self.upstream.limit().in_flight() as u64;
        UpstreamFigures { budget_remaining, breaker_open, breaker_opened, in_flight }
    }

    pub(crate) fn rule(&self, rule: RuleRef) -> &Rule {
        self.plan.rule(rule)
    }

    /// The names of requests that this rule takes; `None` where it stores nothing.
    pub(crate) fn names(&self, rule: RuleRef) -> Option<&Names> {
        match rule {
            RuleRef::Listed(index) => self.names.get(index)?.as_ref(),
            RuleRef::Safe | RuleRef::Unsafe => None,
        }
    }

    /// The numbers of one of its operations, to count in from this thread.
    pub(crate) fn series(&self, operation: Operation) -> &Arc<Series> {
        self.metrics.series(self.index, operation as usize)
    }
}

/// What routes to one upstream share: its limit, and its guard if they say the same of it.
#[derive(Debug)]
pub(crate) struct Guards {
    known: Vec<(String, Arc<Guard>)>,
    limits: BTreeMap<String, Arc<Limit>>,
    max_in_flight: u32,
    /// From the operating system.
    random: fastrand::Rng,
}

impl Guards {
    pub(crate) fn new(max_in_flight: u32) -> Result<Self, getrandom::Error> {
        let random = fastrand::Rng::with_seed(getrandom::u64()?);
        Ok(Self { known: Vec::new(), limits: BTreeMap::new(), max_in_flight, random })
    }

    fn limit(&mut self, store: &str) -> Arc<Limit> {
        let new = || Limit::new(self.max_in_flight as usize);
        Arc::clone(self.limits.entry(store.to_owned()).or_insert_with(new))
    }

    fn of(&mut self, store: &str, plan: &Plan, shards: usize) -> Arc<Guard> {
        let known = self.known.iter().find(|(known, guard)| known == store && *guard.policy() == plan.guard);
        if let Some((_, guard)) = known {
            return Arc::clone(guard);
        }
        let guard = Arc::new(Guard::new(plan.guard, shards, self.random.u64(..)));
        self.known.push((store.to_owned(), Arc::clone(&guard)));
        guard
    }
}

/// What one listener serves: prefixes, the longest first.
#[derive(Debug, Default)]
pub(crate) struct Table(Vec<(String, Arc<Route>)>);

/// A request's place in a route.
#[derive(Debug)]
pub(crate) struct Found<'a> {
    pub(crate) route: &'a Arc<Route>,
    /// Normalised, behind the prefix: what rules match and keys contain.
    pub(crate) path: Cow<'a, str>,
    /// As received, behind the prefix: what is forwarded.
    pub(crate) raw_path: &'a str,
    /// As received, behind the `?`.
    pub(crate) query: Option<&'a str>,
}

impl Found<'_> {
    /// What of a request here decides what it means.
    pub(super) fn facts<'a>(&'a self, outbound: &'a Outbound) -> plan::Request<'a> {
        let content = outbound.whole().filter(|_| !outbound.is_encoded()).map(|content| &**content);
        plan::Request { path: &self.path, query: self.query, headers: &outbound.headers, content }
    }

    /// What the name of its answer is made of. The path is the one forwarded behind the upstream's own, byte for byte:
    /// what rules take for one path need not be one to the store.
    pub(super) fn identity<'a>(&'a self, outbound: &'a Outbound) -> Identity<'a> {
        let Outbound { method, headers, .. } = outbound;
        let body = outbound.whole().map_or(&[][..], |content| content);
        Identity { method, path: self.raw_path, query: self.query, headers, body }
    }

    /// The part of a store that it is about, level by level. A write whose content is not at hand is about all of it.
    pub(super) fn levels<'a>(&'a self, rule: &'a Rule, outbound: &'a Outbound) -> Vec<Option<Cow<'a, str>>> {
        let unread = matches!(rule.action, Action::Invalidate(_)) && outbound.whole().is_none();
        if unread { Vec::new() } else { self.route.plan.scope_levels(rule, &self.facts(outbound)) }
    }

    /// Whether it asks for an answer that has every write in it. Of what cannot be read, no write is thought to be visible.
    pub(super) fn is_settled(&self, rule: &Rule, outbound: &Outbound) -> bool {
        rule.settled_if.as_ref().is_some_and(|condition| condition.holds(&self.facts(outbound), false))
    }

    /// Where it goes: the upstream's base path, then what is left of the path, byte for byte.
    pub(super) fn upstream_uri(&self) -> Result<Uri, Error> {
        let base = self.route.plan.upstream.base_path.as_str();
        let slash = if base.is_empty() && self.raw_path.is_empty() { "/" } else { "" };
        let (mark, query) = self.query.map_or(("", ""), |query| ("?", query));
        let text = [base, self.raw_path, slash, mark, query].concat();
        let malformed = |_| Error::new(Kind::Malformed, "the path cannot be forwarded");
        PathAndQuery::from_maybe_shared(text).map(Uri::from).map_err(malformed)
    }
}

impl Table {
    pub(crate) fn new(routes: impl IntoIterator<Item = Arc<Route>>) -> Self {
        let mut table: Vec<_> = routes.into_iter().map(|route| (route.plan.prefix.clone(), route)).collect();
        table.sort_by_key(|(prefix, _)| std::cmp::Reverse(prefix.len()));
        Self(table)
    }

    /// The route with the longest prefix that matches whole segments.
    pub(crate) fn find<'a>(&'a self, uri: &'a Uri) -> Result<Found<'a>, Error> {
        let raw = uri.path();
        let path = normalise(raw)
            .map_err(|_| Error::new(Kind::Malformed, "the path has dot segments or a broken escape"))?;
        for (prefix, route) in &self.0 {
            let Some(rest) = path.strip_prefix(prefix.as_str()) else { continue };
            if rest.is_empty() || rest.starts_with('/') {
                let path = match &path {
                    _ if rest.is_empty() => Cow::Borrowed("/"),
                    Cow::Borrowed(whole) => Cow::Borrowed(whole.get(prefix.len()..).unwrap_or("/")),
                    Cow::Owned(_) => Cow::Owned(rest.to_owned()),
                };
                return Ok(Found {
                    route,
                    path,
                    raw_path: without_segments(raw, prefix),
                    query: uri.query(),
                });
            }
        }
        // Helps whoever forgot the prefix in a base URL: the routes' own paths are no secret to their clients.
        let known: Vec<&str> =
            self.0.iter().map(|(prefix, _)| if prefix.is_empty() { "/" } else { prefix.as_str() }).collect();
        let detail = format!("no route has this path; a base URL begins with one of: {}", known.join(", "));
        Err(Error::new(Kind::NoRoute, detail))
    }
}

/// The raw path behind as many segments as the prefix has. Equal to cutting the prefix off, except where the client
/// wrote the prefix itself with doubled slashes or escapes.
fn without_segments<'a>(raw: &'a str, prefix: &str) -> &'a str {
    if let Some(rest) = raw.strip_prefix(prefix)
        && (rest.is_empty() || rest.starts_with('/'))
    {
        return rest;
    }
    let mut rest = raw;
    for _ in prefix.split('/').skip(1) {
        rest = rest.trim_start_matches('/');
        rest = rest.find('/').and_then(|end| rest.get(end..)).unwrap_or("");
    }
    rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_raw_path_loses_the_prefix_and_nothing_else() {
        for (raw, prefix, rest) in [
            ("/vector/query-data/n%20s", "/vector", "/query-data/n%20s"),
            ("/vector//query-data", "/vector", "//query-data"),
            ("//vector/query-data/", "/vector", "/query-data/"),
            ("/%76ector/query", "/vector", "/query"),
            ("/a//b/c", "/a/b", "/c"),
            ("/vector", "/vector", ""),
            ("/x/y", "", "/x/y"),
            ("//x", "", "//x"),
        ] {
            assert_eq!(without_segments(raw, prefix), rest, "{raw} behind {prefix}");
        }
    }
}
