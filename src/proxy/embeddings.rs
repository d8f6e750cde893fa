//! Requests for embeddings: of a batch only what is not known is asked for.
//!
//! What the parts of a request and of an answer are is [`crate::cache::embeddings`]' to say. Here they are looked up,
//! asked for, stored and put together. Whatever is odd passes as it came: a request untouched; an answer to a whole
//! request untouched; and where an answer to a part of a request cannot be put together with what was known, the whole
//! request is asked once more, so that the client gets what the upstream says of it.

mod fetch;

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;
use http::header::{self, HeaderMap, HeaderValue};
use tokio::time::Instant;

use self::fetch::Fetch;
use super::answer::whole_answer;
use super::answer::{Answer, Forwarded};
use super::cache::Cache;
use super::content::Held;
use super::fetched::{Nothing, land, late};
use super::forward::forward;
use super::headers::{CacheAsk, Seen};
use super::outbound::{Outbound, Terms};
use super::route::{Found, Route};
use super::search::may_look_up;
use super::storing::is_in_full;
use crate::cache::Policy;
use crate::cache::embeddings::{self, Element, Inputs, MAX_ANSWER, merge};
use crate::cache::key::{Identity, Key, Names};
use crate::cache::store::{Hit, Store, Stored, Under};
use crate::error::{Error, Kind};
use crate::exchange::{Bypass, CacheStatus, Compared, Exchange};
use crate::plan::Action;

/// A request that was understood: its inputs, and their keys.
struct Batch {
    content: Bytes,
    inputs: Inputs,
    /// Of each input, in order.
    keys: Vec<Key>,
    /// Of all of them together.
    all: Key,
}

/// A batch on a route that stores what comes back.
pub(super) struct Embed<'a> {
    route: &'a Arc<Route>,
    policy: &'a Policy,
    batch: Batch,
    /// What is stored is not looked at.
    refresh: bool,
    terms: Terms,
}

/// What is missing of a batch, and where each of its elements comes from.
struct Gap {
    /// The content that asks for what is missing; `None` where that is everything, as it came.
    rest: Option<Bytes>,
    /// The keys of what is asked for, in its order.
    asked: Vec<Key>,
    /// By position in the batch.
    sources: Vec<Source>,
}

enum Source {
    Known(Arc<Stored>),
    /// By position among what is asked for.
    Asked(usize),
}

impl Batch {
    fn read(names: &Names, at: &Found<'_>, outbound: &Outbound) -> Option<Self> {
        let content = outbound.whole()?;
        let embeddings::Batch { members, inputs } = embeddings::Batch::read(content)?;
        let elements = names.elements(&Identity { body: &[], ..at.identity(outbound) }, &members)?;
        let keys: Option<Vec<Key>> =
            inputs.each().iter().map(|place| elements.key(content.get(place.clone())?)).collect();
        let keys = keys?;
        Some(Self { all: elements.all(&keys), keys, inputs, content: content.clone() })
    }

    /// What is stored of each input.
    fn look_up(&self, store: &Store) -> Vec<Option<Hit>> {
        self.keys.iter().map(|key| store.get_unfenced(*key)).collect()
    }

    /// All of it is to be asked for.
    fn whole(&self) -> Gap {
        let sources = (0..self.keys.len()).map(Source::Asked).collect();
        Gap { rest: None, asked: self.keys.clone(), sources }
    }

    /// What is not known is to be asked for, each input once.
    fn gap(&self, known: Vec<Option<Hit>>) -> Gap {
        let mut places: HashMap<Key, usize> = HashMap::new();
        let (mut positions, mut asked) = (Vec::new(), Vec::new());
        let each = self.keys.iter().zip(known).enumerate();
        let sources = each.map(|(position, (key, hit))| match hit {
            Some(hit) => Source::Known(hit.stored),
            None => Source::Asked(*places.entry(*key).or_insert_with(|| {
                positions.push(position);
                asked.push(*key);
                asked.len() - 1
            })),
        });
        let sources = sources.collect();
        if positions.is_empty() || positions.len() == self.keys.len() {
            return self.whole();
        }
        match self.inputs.only(&self.content, &positions) {
            Some(rest) => Gap { rest: Some(Bytes::from(rest)), asked, sources },
            None => self.whole(),
        }
    }
}

impl<'a> Embed<'a> {
    /// `None` where its rule stores no embeddings, or the cache is not asked for it. Where it is not understood, or vouched
    /// for byte by byte, the exchange learns that it passes.
    pub(super) fn of(
        at: &'a Found<'a>,
        seen: &Seen,
        outbound: &Outbound,
        terms: Terms,
        exchange: &mut Exchange,
    ) -> Option<Self> {
        let (route, rule) = (at.route, at.route.rule(terms.rule));
        let Action::Embeddings(policy) = &rule.action else { return None };
        let names = route.names(terms.rule)?;
        if !may_look_up(seen, at, rule, outbound, exchange) {
            return None;
        }
        // A part of it must not go out under the name that its client has for the whole.
        let idempotent = outbound.headers.contains_key("idempotency-key");
        let batch = Batch::read(names, at, outbound).filter(|_| !seen.sealed && !idempotent);
        if batch.is_none() {
            exchange.cache = Some(CacheStatus::Bypass(Bypass::Content));
        }
        Some(Self { route, policy, batch: batch?, refresh: seen.asks.cache == CacheAsk::Refresh, terms })
    }

    /// The answer to the batch: stored, shared with others who ask the same now, or fetched.
    pub(super) async fn answer(
        self,
        cache: &Arc<Cache>,
        outbound: Outbound,
        exchange: &mut Exchange,
    ) -> Forwarded {
        let of = self.batch.keys.len();
        // Before anything is looked up: a command that comes meanwhile is about what is found, too.
        let under = Under::unfenced(&cache.fences);
        let hits =
            if self.refresh { (0..of).map(|_| None).collect() } else { self.batch.look_up(&cache.store) };
        let known = hits.iter().flatten().count();
        if let Some(series) = exchange.series() {
            series.embedded(known as u64, (of - known) as u64);
        }
        if self.policy.shadow && !self.refresh {
            return self.shadow(&hits, under, cache, outbound, exchange).await;
        }
        if known == of
            && let Some(answer) = stored(&hits, exchange)
        {
            return Forwarded { result: Ok(answer), stop_sdk: false };
        }
        let gap = self.batch.gap(hits);
        self.ask((gap, known, under), cache, outbound, exchange).await
    }

    /// Answers from the upstream, and tells what the cache would have done.
    async fn shadow(
        self,
        hits: &[Option<Hit>],
        under: Under,
        cache: &Arc<Cache>,
        outbound: Outbound,
        exchange: &mut Exchange,
    ) -> Forwarded {
        let gap = self.batch.whole();
        let forwarded = self.ask((gap, 0, under), cache, outbound, exchange).await;
        let compared = hits.iter().any(Option::is_some).then(|| compare(hits, &forwarded));
        if let Some(series) = exchange.series() {
            series.shadowed(compared.map_or(Compared::NONE, |compared| compared as usize));
        }
        exchange.cache = Some(CacheStatus::Bypass(Bypass::Shadow(compared)));
        forwarded
    }

    /// Asks for what is missing, or shares what another asks for. So much is known, and looked up under this stamp.
    async fn ask(
        self,
        (gap, known, under): (Gap, usize, Under),
        cache: &Arc<Cache>,
        outbound: Outbound,
        exchange: &mut Exchange,
    ) -> Forwarded {
        let Self { route, policy, batch, refresh, terms } = self;
        let (all, of) = (batch.all, batch.keys.len());
        let shared = !refresh && !policy.shadow && !terms.no_retry;
        let mut own = Some((outbound, batch, gap));
        let status = |stored| Some(CacheStatus::Batch { stored, known: known as u32, of: of as u32 });
        loop {
            let generation = if shared { under.own.generation() } else { fastrand::u64(..) };
            let ticket = cache.flights.join(all, generation, || {
                let fetch = Fetch {
                    cache: Arc::clone(cache),
                    route: Arc::clone(route),
                    policy: policy.clone(),
                    terms: Terms { hold: MAX_ANSWER, ..terms },
                    under: under.clone(),
                    renews: refresh || !policy.shadow,
                };
                fetch.run(own.take())
            });
            let leads = ticket.leads;
            let fetched = match land(ticket, route, &terms, exchange).await {
                Ok(fetched) => fetched,
                Err(instead) => return instead,
            };
            if leads {
                exchange.attempts = fetched.attempts;
                exchange.cache = status(fetched.stored);
            }
            match fetched.take(leads, &terms) {
                Ok(result) => return Forwarded { result, stop_sdk: fetched.stop_sdk },
                Err(Nothing::AnothersAnswer) => {
                    exchange.cache = status(false);
                    let Some((mut outbound, ..)) = own else {
                        return Error::new(Kind::Internal, "the answer was taken").into();
                    };
                    return forward(route, &mut outbound, &terms, &mut exchange.attempts).await;
                }
                // One of those who waited takes the lead.
                Err(Nothing::AnothersFailure) if Instant::now() < terms.deadline => {}
                Err(Nothing::AnothersFailure) => return late(route),
            }
        }
    }
}

/// Whether an answer has the elements that were stored, byte for byte.
fn compare(hits: &[Option<Hit>], forwarded: &Forwarded) -> Compared {
    let content = forwarded.result.as_ref().ok().and_then(|answer| is_in_full(answer, MAX_ANSWER).ok());
    let Some(read) = content.and_then(|content| embeddings::Answer::read(content, hits.len())) else {
        return Compared::Incomparable;
    };
    let is = |(hit, given): (&Option<Hit>, &Element<'_>)| {
        hit.as_ref().is_none_or(|hit| Element::kept(&hit.stored.content).as_ref() == Some(given))
    };
    if hits.iter().zip(&read.elements).all(is) { Compared::Equal } else { Compared::Different }
}

/// The answer of stored elements alone, unless they are not of one answer.
fn stored(hits: &[Option<Hit>], exchange: &mut Exchange) -> Option<Answer> {
    let elements: Option<Vec<_>> =
        hits.iter().map(|hit| Element::kept(&hit.as_ref()?.stored.content)).collect();
    let content = merge(None, &elements?)?;
    let ttl = hits.iter().flatten().map(|hit| hit.ttl).min()?;
    let age = hits.iter().flatten().map(|hit| hit.age).max()?;
    exchange.cache = Some(CacheStatus::Hit { ttl: ttl.as_secs(), shared: false });
    let mut headers = HeaderMap::with_capacity(8);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::AGE, HeaderValue::from(age.as_secs()));
    Some(whole_answer(StatusCode::OK, headers, Held::Pieces(content)))
}
