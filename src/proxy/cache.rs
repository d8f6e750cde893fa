//! Everything the cache consists of, for every route.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use http::header::{self, HeaderValue};
use tokio::sync::Semaphore;

use super::answer::{Answer, Forwarded, whole_answer};
use super::content::Held;
use super::fenced::Fenced;
use super::fetched::Fetched;
use super::route::Route;
use crate::cache::Policy;
use crate::cache::fence::{Fences, Settle};
use crate::cache::flight::Flights;
use crate::cache::key::{Identity, Key};
use crate::cache::memo::Memo;
use crate::cache::shared::{Name, Shared};
use crate::cache::store::{Hit, Store};
use crate::cache::unshared::Unshared;
use crate::exchange::{CacheStatus, Exchange};

/// The levels of a scope, as [`crate::plan::Plan::scope_levels`] tells them.
type Levels<'a> = [Option<Cow<'a, str>>];

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
    pub(super) unshared: Unshared,
    pub(super) memo: Memo,
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

    /// The stored answer in place of a failure, if no write has passed it (RFC 5861 section 4).
    pub(super) fn instead_of(&self, failed: &Forwarded, key: Key, exchange: &mut Exchange) -> Option<Answer> {
        let status = match &failed.result {
            Ok(answer) if answer.head.status.is_server_error() => Some(answer.head.status.as_u16()),
            Err(error) if error.kind.is_upstreams() => None,
            _ => return None,
        };
        let hit = self.store.get_stale(key)?;
        exchange.cache = Some(CacheStatus::Stale { status });
        Some(given(&hit))
    }

    /// The name of the answer to this request among instances, if there are others.
    pub(super) fn name(
        &self,
        route: &Route,
        policy: &Policy,
        request: &Identity<'_>,
        levels: &Levels<'_>,
    ) -> Option<Name> {
        let levels = levels.iter().map(Option::as_deref);
        self.shared.as_ref()?.name(&route.identity, policy, request, &route.store, levels)
    }

    /// The fences of a part of a store go up, of a write that may be under way for so long.
    pub(super) fn raise(
        &self,
        route: &Route,
        levels: &Levels<'_>,
        total: Duration,
        settle: Settle,
    ) -> Fenced {
        let levels = || levels.iter().map(Option::as_deref);
        let own = self.fences.write(&self.fences.scope(&route.store, levels()), settle);
        let others = self.shared.as_ref();
        let others = others.map(|others| others.write(&route.store, levels(), total, settle.longest()));
        Fenced { own, others }
    }
}

/// A stored answer as it is given again.
pub(super) fn given(Hit { stored, age, .. }: &Hit) -> Answer {
    let mut headers = stored.headers.clone();
    headers.insert(header::AGE, HeaderValue::from(age.as_secs()));
    whole_answer(StatusCode::OK, headers, Held::Whole(stored.content.clone()))
}
