//! Whether hits are true: what is stored, held against what the upstream answers now.
//!
//! In *shadow* the cache answers nothing: the upstream does, and what would have been a hit is compared with its answer.
//! An *audit* asks the upstream about a hit that was given, in the background, once and with nobody waiting. A
//! difference counts only if no write that Pillion has seen explains it: the fences have not moved when the upstream's
//! answer is here.

use std::sync::Arc;

use http::{StatusCode, header};
use serde_json::Value;
use tokio::time::Instant;

use super::answer::{Answer, Forwarded};
use super::cache::Cache;
use super::content::Held;
use super::fetch::Fetch;
use super::forward::forward;
use super::outbound::{Outbound, Terms};
use super::route::Route;
use crate::cache::store::Stored;
use crate::exchange::{Attempts, Bypass, CacheStatus, Compared, Exchange};

/// Top-level members that say how long an answer took or what it cost: they differ each time.
const OF_THE_MOMENT: [&str; 5] = ["billing", "performance", "time", "took", "usage"];

/// Answers from the upstream, and tells what the cache would have done. What is stored stays until it would have been
/// replaced.
pub(super) async fn shadow(
    fetch: Fetch<'_>,
    cache: &Arc<Cache>,
    mut outbound: Outbound,
    exchange: &mut Exchange,
) -> Forwarded {
    let (route, terms) = (fetch.route, fetch.terms);
    let (forwarded, compared) = match cache.store.get(fetch.key) {
        Some(hit) => {
            let forwarded = forward(route, &mut outbound, &terms, &mut exchange.attempts).await;
            let compared = compare(cache, &hit.stored, &forwarded);
            (forwarded, Some(compared))
        }
        None => (fetch.search(cache, outbound, exchange).await, None),
    };
    if let Some(series) = exchange.series() {
        series.shadowed(compared.map_or(Compared::NONE, |compared| compared as usize));
    }
    exchange.cache = Some(CacheStatus::Bypass(Bypass::Shadow(compared)));
    forwarded
}

/// Asks the upstream about a hit that is being given: one attempt, and not more at a time than there are permits.
pub(super) fn audit(
    cache: &Arc<Cache>,
    route: &Arc<Route>,
    mut outbound: Outbound,
    terms: Terms,
    stored: Arc<Stored>,
) {
    let series = Arc::clone(route.series(route.rule(terms.rule).operation));
    let Ok(permit) = Arc::clone(&cache.audits).try_acquire_owned() else {
        series.audited(Compared::NONE);
        return;
    };
    let (cache, route) = (Arc::clone(cache), Arc::clone(route));
    // Not one of the tasks that the drain waits for: nobody misses its answer.
    tokio::spawn(async move {
        // In its own time, not in what the client that has its answer would have waited.
        let deadline = Instant::now() + route.rule(terms.rule).timeouts.total;
        let terms = Terms { deadline, no_retry: true, client_retries: 0, ..terms };
        let forwarded = forward(&route, &mut outbound, &terms, &mut Attempts::default()).await;
        let compared = compare(&cache, &stored, &forwarded);
        series.audited(compared as usize);
        if compared == Compared::Different {
            series.hit_was_stale();
        }
        drop(permit);
    });
}

fn compare(cache: &Cache, stored: &Stored, forwarded: &Forwarded) -> Compared {
    let Ok(Answer { head, content: Held::Whole(content), .. }) = &forwarded.result else {
        return Compared::Incomparable;
    };
    let encoded = head.headers.get(header::CONTENT_ENCODING).is_some_and(|coding| coding != "identity");
    if head.status != StatusCode::OK || encoded {
        return Compared::Incomparable;
    }
    if says_the_same(&stored.content, content) {
        Compared::Equal
    } else if cache.store.is_current(stored) {
        Compared::Different
    } else {
        Compared::Overtaken
    }
}

/// Whether two answers say the same: byte for byte, or as JSON without what is of the moment.
fn says_the_same(one: &[u8], other: &[u8]) -> bool {
    let meaning = |content| {
        let mut value: Value = serde_json::from_slice(content).ok()?;
        for name in OF_THE_MOMENT {
            value.as_object_mut().map(|members| members.remove(name));
        }
        Some(value)
    };
    one == other || meaning(one).is_some_and(|value| Some(value) == meaning(other))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_compared_by_what_they_say() {
        for (one, other, same) in [
            (r#"{"result":[1]}"#, r#"{"result":[1]}"#, true),
            (r#"{"result":[1],"time":0.1}"#, r#"{ "time": 0.2, "result": [1] }"#, true),
            (r#"{"result":[1]}"#, r#"{"result":[2]}"#, false),
            (r#"{"result":[{"time":1}]}"#, r#"{"result":[{"time":2}]}"#, false),
            (r#"{"n":9007199254740992}"#, r#"{"n":9007199254740993}"#, false),
            (r#"{"result":[1,2]}"#, r#"{"result":[2,1]}"#, false),
            ("[1]", "[ 1 ]", true),
            ("not JSON", "not JSON", true),
            ("not JSON", "not json", false),
            ("", "", true),
            (r#"{"result":[1]}"#, "", false),
        ] {
            assert_eq!(says_the_same(one.as_bytes(), other.as_bytes()), same, "{one} {other}");
        }
    }
}
