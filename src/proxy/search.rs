//! Requests that may be answered from a stored response.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http::StatusCode;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use tokio::time::timeout_at;

use super::content::Held;
use super::forward::{Answer, Forwarded, Outbound, Terms, forward};
use super::headers::{self, CacheAsk, Seen};
use super::route::Route;
use crate::cache::fence::{Fences, Scope, Stamp};
use crate::cache::flight::Flights;
use crate::cache::key::{Identity, Key, Names};
use crate::cache::memo::Memo;
use crate::cache::store::{Hit, Store};
use crate::cache::{Policy, StoreIf};
use crate::error::{Error, Kind};
use crate::exchange::{Attempts, Bypass, CacheStatus, Exchange};
use crate::json;
use crate::plan::{Action, StopSdk};

/// Fields that a stored answer gets on its way out: `Age`, and those of the exchange.
const GIVEN_FIELDS: usize = 6;
/// The part of the cache's memory that the memo has: a sixteenth. One spelling for each 3 KB of stored answers.
const MEMO_SHARE: u64 = 16;

/// Everything the cache consists of, for every route.
#[derive(Debug)]
pub(crate) struct Cache {
    pub(crate) store: Store,
    pub(crate) fences: Arc<Fences>,
    flights: Flights<Arc<Fetched>>,
    memo: Memo,
}

impl Cache {
    /// A cache of at most so many bytes.
    pub(crate) fn new(bytes: u64, fences: Arc<Fences>) -> Self {
        let memo = bytes / MEMO_SHARE;
        let store = Store::new(bytes - memo, Arc::clone(&fences));
        Self { store, fences, flights: Flights::default(), memo: Memo::new(memo) }
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

/// Why an answer was not stored: a metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotStored {
    /// Not a 200.
    Status,
    /// Larger than `max_entry`, or the connection's end is its only end.
    Incomplete,
    /// Encoded although `identity` was asked for.
    Encoded,
    /// `Set-Cookie`, or `no-store` from the upstream (RFC 9111 section 5.2.2.5).
    Forbidden,
    /// `Vary` names a field that is not part of the key.
    Vary,
    /// The content does not look like success, or is empty.
    Content,
    /// A write came between, is under way, or the store still settles.
    Write,
}

impl NotStored {
    /// The labels, in the order of the variants.
    pub(crate) const WORDS: [&'static str; 7] =
        ["status", "incomplete", "encoded", "forbidden", "vary", "content", "write"];
}

impl Cache {
    /// The name of the answer to this request. `path` is the one forwarded behind the upstream's own, byte for byte: what
    /// rules take for one path need not be one to the store.
    pub(super) fn key(&self, names: &Names, outbound: &Outbound, path: &str, query: Option<&str>) -> Key {
        let identity = Identity {
            method: &outbound.method,
            path,
            query,
            headers: &outbound.headers,
            body: outbound.whole().map_or(&[], |content| content),
        };
        self.memo.key(names, &identity)
    }

    /// The stored answer of that name, if it may be used.
    pub(super) fn stored(&self, key: Key, exchange: &mut Exchange) -> Option<Answer> {
        let Hit { stored, age, ttl } = self.store.get(key)?;
        exchange.cache = Some(CacheStatus::Hit { ttl: ttl.as_secs() });
        let mut headers = stored.headers.clone();
        headers.insert(header::AGE, HeaderValue::from(age.as_secs()));
        Some(whole_answer(StatusCode::OK, headers, stored.content.clone()))
    }
}

/// A search that nothing stored answers.
pub(super) struct Fetch<'a> {
    pub(super) route: &'a Arc<Route>,
    pub(super) key: Key,
    pub(super) scope: Scope,
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
        let Self { route, key, scope, shared, terms } = self;
        let stamp = cache.fences.stamp(&scope);
        let generation = if shared { stamp.generation() } else { fastrand::u64(..) };
        let mut outbound = Some(outbound);
        let ticket = cache.flights.join(key, generation, || {
            let (cache, route, outbound) = (Arc::clone(cache), Arc::clone(route), outbound.take());
            fetch(cache, route, outbound, terms, key, stamp)
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
            exchange.cache = Some(if stamp.settled() {
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
    stamp: Stamp,
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
    let stored = match shareable.and_then(|policy| store(&cache.store, policy, &answer, key, stamp)) {
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

/// Whether an answer may go to anybody but who asked for it: to those who wait for it, and to those who come later.
fn is_shareable(answer: &Answer, policy: &Policy) -> Result<(), NotStored> {
    let headers = &answer.head.headers;
    let no_store = headers.get_all(header::CACHE_CONTROL).iter().any(says_no_store);
    if no_store || headers.contains_key(header::SET_COOKIE) {
        return Err(NotStored::Forbidden);
    }
    if !headers.get_all(header::VARY).iter().all(|vary| is_in_key(vary, policy)) {
        return Err(NotStored::Vary);
    }
    Ok(())
}

/// Stores an answer if everything speaks for it.
fn store(entries: &Store, policy: &Policy, answer: &Answer, key: Key, stamp: Stamp) -> Result<(), NotStored> {
    let headers = &answer.head.headers;
    if answer.head.status != StatusCode::OK {
        return Err(NotStored::Status);
    }
    let Held::Whole(content) = &answer.content else { return Err(NotStored::Incomplete) };
    if !answer.framed || content.len() > policy.max_entry {
        return Err(NotStored::Incomplete);
    }
    if headers.get(header::CONTENT_ENCODING).is_some_and(|coding| coding != "identity") {
        return Err(NotStored::Encoded);
    }
    if !looks_like_success(content, &policy.store_if) {
        return Err(NotStored::Content);
    }
    let mut kept: HeaderMap = headers
        .iter()
        .filter(|(name, _)| headers::is_stored(name))
        .filter_map(|(name, value)| Some((name.clone(), copied(value)?)))
        .collect();
    // What is said of the exchange comes to each copy: its table must not have to grow for that every time.
    kept.reserve(GIVEN_FIELDS);
    if entries.put(key, stamp, policy.ttl, kept, content) { Ok(()) } else { Err(NotStored::Write) }
}

fn says_no_store(value: &HeaderValue) -> bool {
    value.as_bytes().split(|byte| *byte == b',').any(|d| d.trim_ascii().eq_ignore_ascii_case(b"no-store"))
}

/// A value of its own. As received it is a slice of all that was read with it, which would stay in memory as long.
fn copied(value: &HeaderValue) -> Option<HeaderValue> {
    let mut copy = HeaderValue::from_bytes(value.as_bytes()).ok()?;
    copy.set_sensitive(value.is_sensitive());
    Some(copy)
}

/// Whether every field that `Vary` names is part of the key. The coding is not: `identity` was asked for.
fn is_in_key(vary: &HeaderValue, policy: &Policy) -> bool {
    vary.to_str().is_ok_and(|names| {
        names.split(',').map(str::trim).filter(|name| !name.is_empty()).all(|name| {
            let is = |known: &HeaderName| known.as_str().eq_ignore_ascii_case(name);
            is(&header::ACCEPT_ENCODING) || policy.vary.iter().chain(&policy.credentials).any(is)
        })
    })
}

/// Whether the content's top-level members are those of a success worth keeping.
fn looks_like_success(content: &[u8], expected: &StoreIf) -> bool {
    let StoreIf { present, absent, non_empty } = expected;
    if present.is_empty() && absent.is_empty() && non_empty.is_empty() {
        return true;
    }
    let (mut found, mut refused) = (vec![false; present.len()], false);
    let read = json::top_level(content, |name, value| {
        for (found, _) in found.iter_mut().zip(present).filter(|(_, expected)| name.is(expected)) {
            *found = true;
        }
        refused |= absent.iter().any(|unwanted| name.is(unwanted));
        let value = content.get(value).unwrap_or_default();
        refused |= non_empty.iter().any(|filled| name.is(filled)) && json::is_empty_array(value);
    });
    read.is_ok() && !refused && found.iter().all(|found| *found)
}

fn whole_answer(status: StatusCode, headers: HeaderMap, content: Bytes) -> Answer {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn success_is_told_by_members() {
        let expected = StoreIf {
            present: vec!["result".into()],
            absent: vec!["error".into()],
            non_empty: vec!["result".into()],
        };
        for (content, success) in [
            (r#"{"result":[{"id":"a"}]}"#, true),
            (r#"{"result":[]}"#, false),
            (r#"{"result":[ ]}"#, false),
            (r#"{"error":"x","result":[1]}"#, false),
            (r#"{"\u0065rror":"x","result":[1]}"#, false),
            (r#"[{"result":[1]}]"#, false),
            ("", false),
            (r#"{"result":[1]"#, false),
        ] {
            assert_eq!(looks_like_success(content.as_bytes(), &expected), success, "{content}");
        }
        assert!(looks_like_success(b"anything", &StoreIf::default()));
    }

    #[test]
    fn what_is_stored_keeps_nothing_else_in_memory() {
        // As hyper reads it: a field is a slice of all that came with it.
        let read = Bytes::from(vec![b'v'; 8192]);
        let received = HeaderValue::from_maybe_shared(read.slice(100..110)).unwrap();
        assert!(read.as_ptr_range().contains(&received.as_bytes().as_ptr()), "nothing is told by this test");
        let stored = copied(&received).unwrap();
        assert_eq!(stored, received);
        assert!(!read.as_ptr_range().contains(&stored.as_bytes().as_ptr()));
    }

    #[test]
    fn no_store_is_obeyed_and_no_cache_is_not() {
        assert!(says_no_store(&HeaderValue::from_static("private, No-Store")));
        assert!(!says_no_store(&HeaderValue::from_static("no-cache, max-age=0")));
    }
}
