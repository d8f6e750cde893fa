//! Requests that may be answered from a stored response.

use std::borrow::Cow;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http::StatusCode;
use http::header::{self, HeaderMap, HeaderValue};
use tokio::time::timeout_at;

use super::content::Held;
use super::forward::{Answer, Forwarded, Outbound, Terms, forward};
use super::headers::{CacheAsk, Seen};
use super::route::Route;
use super::shared::{self, Known};
use super::storing::{NotStored, is_shareable, store};
use crate::cache::Policy;
use crate::cache::fence::{Fences, Scope};
use crate::cache::flight::Flights;
use crate::cache::key::{Identity, Key, Names};
use crate::cache::memo::Memo;
use crate::cache::shared::{Name, Shared};
use crate::cache::store::{Hit, Store};
use crate::error::{Error, Kind};
use crate::exchange::{Attempts, Bypass, CacheStatus, Exchange};
use crate::plan::{Action, StopSdk};

/// The part of the cache's memory that the memo has: a sixteenth. One spelling for each 3 KB of stored answers.
const MEMO_SHARE: u64 = 16;

/// Everything the cache consists of, for every route.
#[derive(Debug)]
pub(crate) struct Cache {
    pub(crate) store: Store,
    pub(crate) fences: Arc<Fences>,
    /// What other instances share; `None` without Redis.
    pub(crate) shared: Option<Arc<Shared>>,
    flights: Flights<Arc<Fetched>>,
    memo: Memo,
}

impl Cache {
    /// A cache of at most so many bytes.
    pub(crate) fn new(bytes: u64, fences: Arc<Fences>, shared: Option<Arc<Shared>>) -> Self {
        let memo = bytes / MEMO_SHARE;
        let trust = shared.as_ref().map(|shared| shared.trust());
        let store = Store::new(bytes - memo, Arc::clone(&fences), trust);
        Self { store, fences, shared, flights: Flights::default(), memo: Memo::new(memo) }
    }
}

/// What a fetch brought, for all who wait for it.
#[derive(Debug)]
struct Fetched {
    attempts: Attempts,
    stored: bool,
    stop_sdk: bool,
    /// The leader allowed itself less than others may: its failure is its own.
    hurried: bool,
    brought: Brought,
}

#[derive(Debug)]
enum Brought {
    /// A complete answer, whatever its status: everybody who waited gets it.
    Whole {
        status: StatusCode,
        headers: HeaderMap,
        content: Bytes,
    },
    /// An answer that only one of them can have: too large to hold, or not to be shared. The others ask for themselves.
    ForOne(Mutex<Option<Box<Answer>>>),
    Failed(Error),
}

impl Cache {
    /// The name of the answer to this request. `path` is the one forwarded behind the upstream's own, byte for byte: what
    /// rules take for one path need not be one to the store.
    pub(super) fn key(&self, names: &Names, outbound: &Outbound, path: &str, query: Option<&str>) -> Key {
        self.memo.key(names, &identity(outbound, path, query))
    }

    /// Its name among instances, if there are others.
    pub(super) fn name(
        &self,
        route: &Route,
        policy: &Policy,
        outbound: &Outbound,
        (path, query): (&str, Option<&str>),
        levels: &[Option<Cow<'_, str>>],
    ) -> Option<Name> {
        let request = identity(outbound, path, query);
        let levels = levels.iter().map(Option::as_deref);
        self.shared.as_ref()?.name(&route.identity, policy, &request, &route.store, levels)
    }

    /// The stored answer of that name, if it may be used.
    pub(super) fn stored(&self, key: Key, exchange: &mut Exchange) -> Option<Answer> {
        let Hit { stored, age, ttl } = self.store.get(key)?;
        exchange.cache = Some(CacheStatus::Hit { ttl: ttl.as_secs(), shared: false });
        let mut headers = stored.headers.clone();
        headers.insert(header::AGE, HeaderValue::from(age.as_secs()));
        Some(whole_answer(StatusCode::OK, headers, stored.content.clone()))
    }
}

fn identity<'a>(outbound: &'a Outbound, path: &'a str, query: Option<&'a str>) -> Identity<'a> {
    let Outbound { method, headers, .. } = outbound;
    let body = outbound.whole().map_or(&[][..], |content| content);
    Identity { method, path, query, headers, body }
}

/// A search that nothing in this process answers.
pub(super) struct Fetch<'a> {
    pub(super) route: &'a Arc<Route>,
    pub(super) key: Key,
    pub(super) scope: Scope,
    /// Its name among instances; `None` without Redis, or while nothing is known of it.
    pub(super) name: Option<Name>,
    /// The answer has to be a new one.
    pub(super) refresh: bool,
    /// Who asks for something else than what everybody gets flies alone.
    pub(super) shared: bool,
    pub(super) terms: Terms,
}

impl Fetch<'_> {
    /// An answer shared with others who ask the same now, or one of its own.
    pub(super) async fn search(
        self,
        cache: &Arc<Cache>,
        outbound: Outbound,
        exchange: &mut Exchange,
    ) -> Forwarded {
        let Self { route, key, scope, name, refresh, shared, terms } = self;
        // Before Redis is asked: a write that passes meanwhile makes what it says unusable here.
        let stamp = cache.fences.stamp(&scope);
        let known = match shared::ask(cache, name, refresh, (key, stamp), exchange).await {
            Ok(answer) => return Forwarded { result: Ok(answer), stop_sdk: false },
            Err(known) => known,
        };
        let settled = known.settled();
        let generation = if shared { known.generation() } else { fastrand::u64(..) };
        let mut outbound = Some(outbound);
        let ticket = cache.flights.join(key, generation, || {
            let (cache, route, outbound) = (Arc::clone(cache), Arc::clone(route), outbound.take());
            fetch(cache, route, outbound, terms, key, known)
        });
        let leads = ticket.leads;
        // A leader's deadline is its fetch's own, which ends with more to tell.
        let landed =
            if leads { Ok(ticket.land().await) } else { timeout_at(terms.deadline, ticket.land()).await };
        let fetched = match landed {
            Ok(Some(fetched)) => fetched,
            Ok(None) => return Error::new(Kind::Internal, "the search was interrupted").into(),
            Err(_) => {
                exchange.cache = Some(CacheStatus::Collapsed);
                let error = Error::new(Kind::ResponseTimeout, "no response in time");
                return Forwarded { result: Err(error), stop_sdk: route.plan.stop_sdk != StopSdk::Never };
            }
        };
        if leads {
            exchange.attempts = fetched.attempts;
            exchange.cache = Some(if settled {
                CacheStatus::Miss { stored: fetched.stored }
            } else {
                CacheStatus::Bypass(Bypass::Settle)
            });
        } else {
            exchange.cache = Some(CacheStatus::Collapsed);
        }
        match fetched.take(leads) {
            Some(result) => Forwarded { result, stop_sdk: fetched.stop_sdk },
            None => alone(route, outbound, &terms, exchange).await,
        }
    }
}

/// Asks for itself: what the flight brought was not to be shared, or failed by its leader's own deadline.
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

impl Fetched {
    /// This request's part of what was brought; `None` if there is none for it.
    fn take(&self, leads: bool) -> Option<Result<Answer, Error>> {
        match &self.brought {
            Brought::Whole { status, .. } if !leads && self.hurried && !status.is_success() => None,
            Brought::Failed(_) if !leads && self.hurried => None,
            Brought::Whole { status, headers, content } => {
                Some(Ok(whole_answer(*status, headers.clone(), content.clone())))
            }
            Brought::ForOne(answer) => answer
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take_if(|_| leads)
                .map(|answer| Ok(*answer)),
            Brought::Failed(error) if leads || error.kind != Kind::ResponseTimeout => {
                Some(Err(error.clone()))
            }
            Brought::Failed(_) => None,
        }
    }
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
        let brought = Brought::Failed(Error::new(Kind::Internal, "the search was lost"));
        return Arc::new(Fetched { attempts, stored: false, stop_sdk: false, hurried: false, brought });
    };
    let hurried = terms.client_retries > 0;
    let Forwarded { result, stop_sdk } = forward(&route, &mut outbound, &terms, &mut attempts).await;
    let answer = match result {
        Ok(answer) => answer,
        Err(error) => {
            return Arc::new(Fetched {
                attempts,
                stored: false,
                stop_sdk,
                hurried,
                brought: Brought::Failed(error),
            });
        }
    };
    let policy = match &route.rule(terms.rule).action {
        Action::Cache(policy) => Ok(policy),
        Action::Invalidate(_) | Action::Pass => Err(NotStored::Forbidden),
    };
    let shareable = policy.and_then(|policy| is_shareable(&answer, policy).map(|()| policy));
    let stored = shareable.and_then(|policy| {
        let stored = store(&cache.store, policy, &answer, key, known.under()?)?;
        known.share(&cache, policy.ttl, &stored);
        Ok(())
    });
    let stored = match stored {
        Ok(()) => true,
        Err(why) => {
            if let Some(series) = route.series(route.rule(terms.rule).operation) {
                series.not_stored(why as usize);
            }
            false
        }
    };
    let brought = match answer.content {
        Held::Whole(content) if shareable.is_ok() => {
            Brought::Whole { status: answer.head.status, headers: answer.head.headers, content }
        }
        _ => Brought::ForOne(Mutex::new(Some(Box::new(answer)))),
    };
    Arc::new(Fetched { attempts, stored, stop_sdk, hurried, brought })
}

pub(super) fn whole_answer(status: StatusCode, headers: HeaderMap, content: Bytes) -> Answer {
    let (mut head, ()) = http::Response::new(()).into_parts();
    head.status = status;
    head.headers = headers;
    Answer { head, content: Held::Whole(content), framed: true, write: None }
}

/// Whether the cache is asked at all: the content says all there is to say, and the whole answer is wanted. Where not,
/// the exchange learns why.
pub(super) fn may_look_up(seen: &Seen, outbound: &Outbound, exchange: &mut Exchange) -> bool {
    let why = if seen.asks.cache == CacheAsk::Bypass {
        Bypass::Request
    } else if outbound.whole().is_none() {
        Bypass::Size
    } else if seen.conditional {
        Bypass::Encoded
    } else {
        return true;
    };
    exchange.cache = Some(CacheStatus::Bypass(why));
    false
}
