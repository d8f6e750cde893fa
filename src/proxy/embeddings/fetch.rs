//! Asking for what is missing of a batch, in a task of its own; what came of it is for all who wait.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};

use super::{Batch, Gap, Source};
use crate::cache::Policy;
use crate::cache::embeddings::{self, Element, MAX_ANSWER, merge};
use crate::cache::key::Key;
use crate::cache::store::{Store, Under};
use crate::error::{Error, Kind};
use crate::exchange::Attempts;
use crate::proxy::answer::Answer;
use crate::proxy::cache::Cache;
use crate::proxy::content::{Content, Held};
use crate::proxy::fetched::Fetched;
use crate::proxy::forward::forward;
use crate::proxy::outbound::{Outbound, Terms};
use crate::proxy::route::Route;
use crate::proxy::storing::{NotStored, is_in_full, may_be_kept};

/// Fields that speak of the bytes of one content: not true of one that was put together.
const OF_THE_BYTES: [HeaderName; 8] = [
    header::ACCEPT_RANGES,
    header::ETAG,
    header::LAST_MODIFIED,
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("content-md5"),
    HeaderName::from_static("digest"),
    HeaderName::from_static("repr-digest"),
    HeaderName::from_static("signature"),
];

/// What a fetch needs, in a task of its own, so that whoever began it may leave.
pub(super) struct Fetch {
    pub(super) cache: Arc<Cache>,
    pub(super) route: Arc<Route>,
    pub(super) policy: Policy,
    pub(super) terms: Terms,
    pub(super) under: Under,
    /// What is stored already is replaced.
    pub(super) renews: bool,
}

impl Fetch {
    pub(super) async fn run(self, own: Option<(Outbound, Batch, Gap)>) -> Arc<Fetched> {
        let (mut attempts, terms) = (Attempts::default(), self.terms);
        let Some((mut outbound, batch, mut gap)) = own else {
            let lost = Error::new(Kind::Internal, "the request was lost").into();
            return Arc::new(Fetched::new(lost, &terms, attempts, false, false));
        };
        loop {
            let content = gap.rest.as_ref().unwrap_or(&batch.content);
            outbound.content = Some(Content::Whole(content.clone()));
            if gap.rest.is_some() {
                // That of what was received; hyper writes the right one.
                outbound.headers.remove(header::CONTENT_LENGTH);
            }
            let mut forwarded = forward(&self.route, &mut outbound, &terms, &mut attempts).await;
            let (mut stored, mut shareable) = (false, false);
            if let Ok(answer) = &mut forwarded.result {
                stored = match gap.close(&self, answer) {
                    Ok(closed) => closed.map_err(|why| self.count(why)).is_ok(),
                    Err(why) => {
                        self.count(why);
                        // What it says of a part is no answer to the whole, but for what is wrong with the part.
                        if gap.rest.is_some() && answer.head.status.is_success() {
                            gap = batch.whole();
                            continue;
                        }
                        false
                    }
                };
                shareable = may_be_kept(&answer.head.headers, &self.policy).is_ok();
            }
            return Arc::new(Fetched::new(forwarded, &terms, attempts, stored, shareable));
        }
    }

    fn count(&self, why: NotStored) {
        self.route.series(self.route.rule(self.terms.rule).operation).not_stored(why as usize);
    }
}

impl Gap {
    /// Stores the elements of an answer, and makes it the answer to the whole batch. The error says why it is not: it was
    /// left as it came. Inside: why nothing of it, or not all, is stored.
    fn close(&self, fetch: &Fetch, answer: &mut Answer) -> Result<Result<(), NotStored>, NotStored> {
        let Fetch { cache, policy, under, .. } = fetch;
        let content = is_in_full(answer, MAX_ANSWER)?.clone();
        let media = answer.head.headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
        if !media.is_some_and(|media| media.starts_with(b"application/json")) {
            return Err(NotStored::Content);
        }
        let read = embeddings::Answer::read(&content, self.asked.len()).ok_or(NotStored::Content)?;
        let kept = may_be_kept(&answer.head.headers, policy).and_then(|()| {
            let each = self.asked.iter().zip(&read.elements);
            let mut stored = Ok(());
            for (key, element) in
                each.filter(|(key, _)| fetch.renews || cache.store.get_unfenced(**key).is_none())
            {
                stored = stored.and(keep(&cache.store, policy, *key, element, under.clone()));
            }
            stored
        });
        if self.rest.is_some() {
            let elements: Option<Vec<Element<'_>>> = self
                .sources
                .iter()
                .map(|source| match source {
                    Source::Known(stored) => Element::kept(&stored.content),
                    Source::Asked(place) => read.elements.get(*place).copied(),
                })
                .collect();
            let merged = elements.and_then(|elements| merge(Some(&read), &elements));
            answer.content = Held::Pieces(merged.ok_or(NotStored::Content)?);
            for name in OF_THE_BYTES {
                answer.head.headers.remove(name);
            }
        }
        Ok(kept)
    }
}

/// Stores one element. Nothing but its lifetime ends it, and no field of the answer is stored with it.
fn keep(
    store: &Store,
    policy: &Policy,
    key: Key,
    element: &Element<'_>,
    under: Under,
) -> Result<(), NotStored> {
    if !element.sound {
        return Err(NotStored::Content);
    }
    let content = Bytes::from(element.keep());
    if content.len() > policy.max_entry {
        return Err(NotStored::Incomplete);
    }
    // Where it is refused, the answer to a request that was sent later is there already, which is as good, or a command
    // has dropped what was asked for before.
    store.put(key, under, policy.lifetime(key), HeaderMap::new(), &content);
    Ok(())
}
