//! Dropping what is stored by command: as a write that nobody has seen would have.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use super::Proxy;
use super::route::Route;
use crate::cache::fence::Settle;
use crate::plan::{Action, Operation, percent_decode};

/// There is no such route; these there are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoSuchRoute {
    /// The names of all routes.
    pub known: Vec<String>,
}

/// What was dropped by command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dropped<'a> {
    /// The routes whose upstreams had anything that could be.
    pub routes: Vec<&'a str>,
    /// Other instances have been told.
    told: bool,
    /// Embeddings were among it.
    vectors: bool,
}

impl Dropped<'_> {
    /// How far it reached.
    pub fn reached(&self) -> &'static str {
        match (self.told, self.vectors) {
            (false, _) => "this instance",
            (true, false) => "every instance",
            (true, true) => "every instance, of embeddings this one",
        }
    }
}

impl Proxy {
    /// Drops what is stored of a route's scope, of a route, or of all; with Redis, in every instance. As after a write,
    /// nothing is stored until the store has settled: what it was told elsewhere a moment ago may not be in its answers
    /// yet.
    ///
    /// A scope is its levels joined by `/`, the outermost first, a `/` inside of a name as `%2F`; `*` is everything
    /// below. Embeddings are of no scope: those of all routes go with the first that stores any.
    pub async fn invalidate(
        &self,
        route: Option<&str>,
        scope: Option<&str>,
    ) -> Result<Dropped<'_>, NoSuchRoute> {
        let named = |known: &&Arc<Route>| route.is_none_or(|name| known.plan.name == name);
        let mut meant = self.routes.iter().filter(named).peekable();
        if route.is_some() && meant.peek().is_none() {
            let known = self.routes.iter().map(|route| route.plan.name.clone()).collect();
            return Err(NoSuchRoute { known });
        }
        let mut dropped = Dropped { routes: Vec::new(), told: self.cache.shared.is_some(), vectors: false };
        for route in meant {
            let vectors = scope.is_none() && embeds(route);
            if !route.plan.fenced && !vectors {
                continue;
            }
            if vectors {
                self.cache.store.forget_unfenced();
                dropped.vectors = true;
            }
            if route.plan.fenced {
                let levels = scope.filter(|_| !route.plan.flush_whole).map(levels).unwrap_or_default();
                let settle = Settle::lagging(route.plan.settle);
                let fences = self.cache.raise(route, &levels, Duration::ZERO, settle);
                dropped.told &= fences.tell().await;
            }
            route.series(Operation::Other).invalidated();
            dropped.routes.push(route.plan.name.as_str());
        }
        Ok(dropped)
    }
}

fn levels(scope: &str) -> Vec<Option<Cow<'_, str>>> {
    scope.split('/').map(|level| (level != "*").then(|| percent_decode(level))).collect()
}

/// Whether the route stores embeddings.
fn embeds(route: &Route) -> bool {
    route.plan.rules.iter().any(|rule| matches!(rule.action, Action::Embeddings(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_is_read_level_by_level() {
        let read =
            |scope| levels(scope).into_iter().map(|level| level.map(Cow::into_owned)).collect::<Vec<_>>();
        let some = |name: &str| Some(name.to_owned());
        assert_eq!(read("tenant/db"), [some("tenant"), some("db")]);
        assert_eq!(read("a%2Fb"), [some("a/b")]);
        assert_eq!(read("tenant/*"), [some("tenant"), None]);
        assert_eq!(read(""), [some("")], "the namespace without a name");
    }
}
