//! A route at work, and how a request finds it.

use std::borrow::Cow;
use std::sync::Arc;

use http::uri::PathAndQuery;
use http::{Method, Uri};

use crate::cache::key::{Keyring, Names};
use crate::error::{Error, Kind};
use crate::metrics::{Metrics, Series};
use crate::plan::{Action, Level, Operation, Plan, Rule, normalise, percent_decode};
use crate::upstream::{Tls, Upstream};

/// A route at work: its plan, its upstream's connections, its numbers.
#[derive(Debug)]
pub(crate) struct Route {
    pub(crate) plan: Plan,
    pub(crate) upstream: Upstream,
    /// The upstream's name in fences: all routes to one store share its fences.
    pub(crate) store: String,
    /// The upstream's name in keys.
    pub(crate) identity: String,
    /// The names of requests, by rule; of rules that store only.
    names: Vec<Option<Names>>,
    /// By operation, in the order of [`Operation::ALL`].
    series: Vec<Arc<Series>>,
}

/// Which of a route's rules holds. An index, so that tasks can carry it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RuleRef {
    Listed(usize),
    Safe,
    Unsafe,
}

impl Route {
    pub(crate) fn new(plan: Plan, tls: &Tls, metrics: &Metrics, index: usize, keyring: &Keyring) -> Self {
        let upstream = Upstream::new(plan.upstream.clone(), tls.clone());
        let series = (0..Operation::ALL.len()).map(|operation| metrics.series(index, operation)).collect();
        let target = &plan.upstream;
        let store = format!("{}:{}", target.host().to_ascii_lowercase(), target.port());
        // Whatever else is part of the forwarded URL.
        let identity = format!("{}://{store}{}", target.scheme, target.base_path);
        let names = plan.rules.iter().map(|rule| match &rule.action {
            Action::Cache(policy) => Some(keyring.names(&identity, policy)),
            Action::Invalidate(_) | Action::Pass => None,
        });
        Self { upstream, store, names: names.collect(), identity, series, plan }
    }

    pub(crate) fn rule(&self, rule: RuleRef) -> &Rule {
        match rule {
            RuleRef::Listed(index) => self.plan.rules.get(index).unwrap_or(&self.plan.unmatched_unsafe),
            RuleRef::Safe => &self.plan.unmatched_safe,
            RuleRef::Unsafe => &self.plan.unmatched_unsafe,
        }
    }

    /// The names of requests that this rule takes; `None` where it stores nothing.
    pub(crate) fn names(&self, rule: RuleRef) -> Option<&Names> {
        match rule {
            RuleRef::Listed(index) => self.names.get(index)?.as_ref(),
            RuleRef::Safe | RuleRef::Unsafe => None,
        }
    }

    pub(crate) fn series(&self, operation: Operation) -> Option<&Arc<Series>> {
        self.series.get(operation as usize)
    }

    /// The first rule that takes the request.
    pub(crate) fn find_rule(&self, method: &Method, path: &str, query: Option<&str>) -> RuleRef {
        let takes = |rule: &Rule| {
            let matcher = &rule.matcher;
            (matcher.methods.is_empty() || matcher.methods.contains(method))
                && matcher.path.as_ref().is_none_or(|pattern| pattern.is_match(path))
                && matcher.query_has.as_ref().is_none_or(|name| has_parameter(query, name))
        };
        match self.plan.rules.iter().position(takes) {
            Some(index) => RuleRef::Listed(index),
            // TRACE is safe by RFC 9110 section 9.2.1, but nothing here has a use for it.
            None if matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS) => RuleRef::Safe,
            None => RuleRef::Unsafe,
        }
    }

    /// Where a request goes: the upstream's base path, then what is left of the path, byte for byte.
    pub(crate) fn upstream_uri(&self, raw_path: &str, query: Option<&str>) -> Result<Uri, Error> {
        let base = self.plan.upstream.base_path.as_str();
        let slash = if base.is_empty() && raw_path.is_empty() { "/" } else { "" };
        let (mark, query) = query.map_or(("", ""), |query| ("?", query));
        let text = [base, raw_path, slash, mark, query].concat();
        let malformed = |_| Error::new(Kind::Malformed, "the path cannot be forwarded");
        PathAndQuery::from_maybe_shared(text).map(Uri::from).map_err(malformed)
    }

    /// The names of the levels of a rule's scope in this path. A level that cannot be told ends it with `None`.
    pub(crate) fn scope_levels<'a>(rule: &'a Rule, path: &'a str) -> Vec<Option<Cow<'a, str>>> {
        let mut levels = Vec::with_capacity(rule.scope.len());
        let captures = rule.matcher.path.as_ref().and_then(|pattern| pattern.captures(path));
        for level in &rule.scope {
            let name = match level {
                Level::Any => None,
                Level::Const(name) => Some(Cow::Borrowed(name.as_str())),
                Level::Path { group, default } => captures
                    .as_ref()
                    .and_then(|captures| captures.name(group))
                    .map(|found| percent_decode(found.as_str()))
                    .or(default.as_deref().map(Cow::Borrowed)),
            };
            let known = name.is_some();
            levels.push(name);
            if !known {
                break;
            }
        }
        levels
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
                return Ok(Found { route, path, raw_path: without_segments(raw, prefix) });
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

fn has_parameter(query: Option<&str>, name: &str) -> bool {
    query.is_some_and(|query| {
        query.split('&').any(|p| p.split('=').next().is_some_and(|found| percent_decode(found) == name))
    })
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

    #[test]
    fn a_parameter_counts_with_or_without_a_value() {
        assert!(has_parameter(Some("all"), "all"));
        assert!(has_parameter(Some("x=1&all=true"), "all"));
        assert!(has_parameter(Some("%61ll"), "all"));
        assert!(!has_parameter(Some("allx=1"), "all"));
        assert!(!has_parameter(None, "all"));
    }
}
