//! The path of a request.
//!
//! ```text
//! begin (the clock starts) -> admit headers -> route and rule -> read content -> trim -> cache lookup
//!        -> forward { attempt -> decide -> back off } -> store -> respond -> observe (once, wherever it ends)
//! ```
//!
//! [`Proxy::handle`] never fails: `respond` uses `?`, and a failure becomes a response in one place.

mod answer;
mod attempt;
mod buffers;
mod cache;
mod compare;
mod content;
mod downstream;
mod embeddings;
mod failure;
mod fenced;
mod fetch;
mod fetched;
mod first_event;
mod forward;
mod headers;
mod invalidate;
mod outbound;
mod pass;
mod pieces;
mod room;
mod route;
mod search;
mod shared;
mod storing;
mod trim;
mod turn;
mod write;

pub use downstream::Downstream;
pub use invalidate::{Dropped, NoSuchRoute};

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use http::header::{self, HeaderName, HeaderValue};
use http::{Request, Response, Uri, request};
use hyper::body::Incoming;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use crate::cache::fence::{Fences, Settle};
use crate::cache::key::Keyring;
use crate::cache::shared::Shared;
use crate::conversations::Conversations;
use crate::error::{Dialect, Error, Kind};
use crate::exchange::{Bypass, CacheStatus, Compared, Exchange};
use crate::metrics::{Gauges, Metrics, Vocabulary};
use crate::plan::{Action, Operation, Plan, Rule};
use crate::retry::{GiveUp, Reason};
use crate::upstream::Tls;
use crate::window;
use answer::Forwarded;
use buffers::Buffers;
use cache::Cache;
use content::{Content, Held};
use embeddings::Embed;
use failure::{catch_panic, error_answer};
use headers::Seen;
use outbound::{Outbound, Terms};
use pass::pass;
use route::{Guards, Route, Table};
use search::Search;
use storing::NotStored;
use trim::{Trimmed, Trimming};
use write::{Begun, write};

/// Content of a search's answer that is read before the client gets any of it, in bytes: what breaks off meanwhile is
/// attempted again. What may be stored is read as far as it may be stored.
const SEARCH_ANSWER: usize = 1024 * 1024;
/// How many messages were left out.
const PILLION_TRIMMED: HeaderName = HeaderName::from_static("pillion-trimmed");
/// Tells the official SDKs whether to retry.
const X_SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");

/// The words of every closed label set.
pub const VOCABULARY: Vocabulary = Vocabulary {
    retry_reasons: &Reason::WORDS,
    not_retried_reasons: &GiveUp::WORDS,
    cache_results: &CacheStatus::WORDS,
    shadow_results: &Compared::SHADOW_WORDS,
    audit_results: &Compared::AUDIT_WORDS,
    not_stored_reasons: &NotStored::WORDS,
    window_reasons: &window::Untouched::WORDS,
};

/// All that requests need, made once.
#[derive(Debug)]
pub struct Proxy {
    /// All of them, in the order of the configuration.
    routes: Vec<Arc<Route>>,
    /// By listener.
    tables: Vec<Table>,
    cache: Arc<Cache>,
    buffers: Arc<Buffers>,
    trimming: Trimming,
    metrics: Arc<Metrics>,
    /// Tells our own requests when they come back to us; random per process, so that two instances may stand in line.
    pseudonym: String,
    via: HeaderValue,
    /// What the drain waits for: connections, and writes whose client has left.
    tasks: TaskTracker,
    begun: Instant,
    /// The last second, counted from `begun`, in which a failure was logged.
    told: AtomicU64,
}

/// What all requests together may take.
#[derive(Clone, Copy, Debug)]
pub struct Budgets {
    /// Stored responses, in bytes.
    pub cache: u64,
    /// Request content held for replay, in bytes.
    pub buffers: u64,
    /// Calls of one upstream at a time; 0 is no limit.
    pub max_in_flight: u32,
}

impl Proxy {
    /// Puts plans to work. `listeners` says for each listener which of the plans it serves.
    pub fn new(
        plans: Vec<Plan>,
        listeners: &[Vec<usize>],
        budgets: Budgets,
        tls: &Tls,
        metrics: Arc<Metrics>,
        shared: Option<Arc<Shared>>,
        conversations: Arc<Conversations>,
    ) -> Result<Self, getrandom::Error> {
        let keyring = Keyring::random()?;
        let mut guards = Guards::new(budgets.max_in_flight)?;
        let routes: Vec<Arc<Route>> = plans
            .into_iter()
            .enumerate()
            .map(|(index, plan)| {
                Arc::new(Route::new(plan, tls, Arc::clone(&metrics), index, &keyring, &mut guards))
            })
            .collect();
        let tables = listeners
            .iter()
            .map(|served| Table::new(served.iter().filter_map(|index| routes.get(*index).cloned())))
            .collect();
        let mut secret = [0; 16];
        getrandom::fill(&mut secret)?;
        let fences = Arc::new(Fences::new(secret));
        if shared.is_none() {
            // Nobody knows of the writes of whoever ran here before, and the last may have been a moment ago.
            for route in routes.iter().filter(|route| route.plan.fenced) {
                drop(fences.write(&fences.scope(&route.store, []), Settle::lagging(route.plan.settle)));
            }
        }
        let cache = Cache::new(budgets.cache, fences, shared);
        let pseudonym = format!("pillion-{:012x}", fastrand::u64(..) >> 16);
        // Never freed, and so without a reference count that the threads of all requests would write to.
        let via = HeaderValue::from_static(format!("1.1 {pseudonym}").leak());
        let buffers = Buffers::new(budgets.buffers, metrics.shards());
        Ok(Self {
            routes,
            tables,
            cache: Arc::new(cache),
            buffers,
            trimming: Trimming::new(conversations)?,
            metrics,
            pseudonym,
            via,
            tasks: TaskTracker::new(),
            begun: Instant::now(),
            told: AtomicU64::new(0),
        })
    }

    /// What the drain waits for.
    pub fn tasks(&self) -> &TaskTracker {
        &self.tasks
    }

    /// The numbers that are kept here, for those who ask.
    pub fn gauges(&self) -> Gauges {
        let (conversations, conversations_bytes) = self.trimming.conversations.figures();
        Gauges {
            conversations,
            conversations_bytes,
            conversations_untold: self.trimming.conversations.untold(),
            cache_entries: self.cache.store.entries() as u64,
            cache_bytes: self.cache.store.bytes(),
            buffers_bytes: self.buffers.used(),
            upstreams: self.routes.iter().map(|route| route.figures()).collect(),
            redis: self.cache.shared.as_ref().map(|shared| shared::figures(shared)).unwrap_or_default(),
        }
    }

    /// What is known of conversations.
    pub fn conversations(&self) -> &Arc<Conversations> {
        &self.trimming.conversations
    }

    /// What instances share, if they do.
    pub fn shared(&self) -> Option<&Arc<Shared>> {
        self.cache.shared.as_ref()
    }

    /// Answers one request that came in on a listener. Dropped when the client leaves: then the upstream is cancelled,
    /// unless it is a write or others share the fetch.
    pub async fn handle(&self, listener: usize, request: Request<Incoming>) -> Response<Downstream> {
        let mut exchange = Exchange::begin();
        let mut dialect = Dialect::default();
        let responded = {
            let responding = pin!(self.respond(listener, request, &mut exchange, &mut dialect));
            catch_panic(responding).await
        };
        if exchange.series().is_none() {
            exchange.routed(self.metrics.no_route());
        }
        let Forwarded { result, stop_sdk } = responded.unwrap_or_else(Forwarded::from);
        let mut answer = result.unwrap_or_else(|error| {
            exchange.error = Some(error.kind);
            self.tell(&error);
            error_answer(&error, dialect, exchange.request_id())
        });
        let headers = &mut answer.head.headers;
        if stop_sdk {
            headers.insert(X_SHOULD_RETRY, HeaderValue::from_static("false"));
        }
        if exchange.trimmed.messages > 0 {
            headers.insert(PILLION_TRIMMED, HeaderValue::from(exchange.trimmed.messages));
        } else if exchange.would_trim > 0
            && let Ok(value) = HeaderValue::try_from(format!("{}; shadow", exchange.would_trim))
        {
            headers.insert(PILLION_TRIMMED, value);
        }
        exchange.seal(answer.head.status.as_u16(), headers);
        Response::from_parts(answer.head, Downstream::new(answer.content, exchange, answer.write))
    }

    /// Logs a failure that is not the client's, once a second at most: an upstream that is down fails every request.
    fn tell(&self, error: &Error) {
        if !error.kind.status().is_server_error() {
            return;
        }
        let now = self.begun.elapsed().as_secs() + 1;
        if self.told.swap(now, Relaxed) < now {
            tracing::warn!(error = error.kind.word(), "{}", error.detail);
        }
    }

    /// The path of a request, from its head to the head of its answer.
    async fn respond(
        &self,
        listener: usize,
        request: Request<Incoming>,
        exchange: &mut Exchange,
        dialect: &mut Dialect,
    ) -> Result<Forwarded, Error> {
        let (mut head, incoming) = request.into_parts();
        let mut seen = Seen::of(&head.headers, &self.pseudonym);
        exchange.asked_id = seen.request_id.take();
        seen.admit(&head.method, head.version)?;
        let table = self.tables.get(listener).ok_or_else(|| Error::new(Kind::NoRoute, "no such listener"))?;
        let uri = std::mem::take(&mut head.uri);
        let at = table.find(&uri)?;
        let route = at.route;
        *dialect = route.plan.dialect;

        let found = route.plan.find_rule(&head.method, &at.path, at.query);
        let rule = route.rule(found);
        exchange.routed(route.series(rule.operation));
        let asks = seen.asks;
        let total = asks.client_timeout.map_or(rule.timeouts.total, |t| t.min(rule.timeouts.total));
        let deadline = exchange.started() + total;
        let (limits, idle) = (&route.plan.limits, rule.timeouts.idle);
        let (content, reservation) = content::read(incoming, limits, &self.buffers, idle, deadline).await?;
        if let (Content::Streaming { .. }, Some(series)) = (&content, exchange.series()) {
            series.body_streamed();
        }
        let Trimmed { content, other, class } =
            self.trimming.trim((&route.plan, rule), &seen, &head.headers, content, exchange);
        let (no_retry, client_retries) = (asks.no_retry, asks.client_retries);
        let hold = if rule.operation == Operation::Search { SEARCH_ANSWER } else { 0 };
        let terms = Terms { rule: found, class, deadline, total, no_retry, client_retries, hold };
        let mut outbound = self.outbound(route, head, &seen, rule, content);

        let search = Search::of(&at, &self.cache, &seen, &outbound, terms, exchange);
        let stored = search.as_ref().and_then(|search| search.stored(&self.cache, exchange));
        if let (Some(search), Some((answer, stored))) = (&search, stored) {
            if search.is_audited() {
                outbound.uri = at.upstream_uri()?;
                outbound.reservation = reservation;
                search.audit(&self.cache, outbound, stored);
            }
            return Ok(finish(Forwarded { result: Ok(answer), stop_sdk: false }, rule, exchange));
        }

        outbound.uri = at.upstream_uri()?;
        outbound.reservation = reservation;
        // Boxed: a request that passes through must not carry the size of the others.
        let forwarded = if let Some(search) = search {
            Box::pin(search.fetch(&self.cache, outbound, exchange)).await
        } else if let Some(embed) = Embed::of(&at, &seen, &outbound, terms, exchange) {
            Box::pin(embed.answer(&self.cache, outbound, exchange)).await
        } else if let (Action::Invalidate(settle), true) = (&rule.action, route.plan.fenced) {
            let fences = self.cache.raise(route, &at.levels(rule, &outbound), rule.timeouts.total, *settle);
            let begun = Begun { fences, waits: at.is_settled(rule, &outbound) };
            Box::pin(write(begun, &self.tasks, route, outbound, terms, exchange)).await
        } else {
            if route.plan.fenced {
                exchange.cache.get_or_insert(CacheStatus::Bypass(Bypass::Rule));
            }
            pass(&self.trimming, route, outbound, other, &terms, exchange).await
        };
        Ok(finish(forwarded, rule, exchange))
    }

    /// The request as it is forwarded, all but its URI.
    fn outbound(
        &self,
        route: &Route,
        head: request::Parts,
        seen: &Seen,
        rule: &Rule,
        content: Content,
    ) -> Outbound {
        let request::Parts { method, mut headers, .. } = head;
        let length = match &content {
            Content::Whole(content) => Some(content.len() as u64),
            Content::Spliced([head, tail]) => Some((head.len() + tail.len()) as u64),
            Content::Streaming { .. } => None,
        };
        seen.forward(&mut headers, &route.plan.id_header, route.upstream.host(), &self.via, length);
        if rule.reads_usage || matches!(rule.action, Action::Cache(_) | Action::Embeddings(_)) {
            headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        }
        Outbound {
            method,
            uri: Uri::default(),
            headers,
            content: Some(content),
            unheld: None,
            reservation: None,
            asked: None,
        }
    }
}

/// The last step before the answer goes out.
fn finish(mut forwarded: Forwarded, rule: &Rule, exchange: &mut Exchange) -> Forwarded {
    if let Ok(answer) = &mut forwarded.result {
        let is_here = match &answer.content {
            Held::Whole(content) => !content.is_empty(),
            Held::Pieces(_) => true,
            Held::Streaming { .. } => false,
        };
        if is_here {
            // The content is what it is; hyper writes its length.
            answer.head.headers.remove(header::CONTENT_LENGTH);
        }
        answer.head.version = http::Version::HTTP_11;
        // Told already, to whom the upstream was asked for.
        let told = matches!(
            exchange.cache,
            Some(CacheStatus::Hit { .. } | CacheStatus::Collapsed | CacheStatus::Stale { .. })
        );
        if rule.reads_usage && !told && answer.head.status.is_success() {
            exchange.read_usage(&answer.head.headers);
        }
    }
    forwarded
}
