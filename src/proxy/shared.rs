//! What a search and a write have to do with the tier that instances share. Without Redis: nothing.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use http::header::{self, HeaderValue};

use super::answer::{Answer, whole_answer};
use super::cache::Cache;
use super::content::Held;
use super::storing::NotStored;
use crate::cache::fence::Stamp;
use crate::cache::key::Key;
use crate::cache::shared::{Asked, Figures, Looked, Name, Shared};
use crate::cache::store::{Lifetime, Stored, Under};
use crate::exchange::{CacheStatus, Exchange};
use crate::metrics::RedisFigures;

/// What is known of writes when a search is sent.
#[derive(Debug)]
pub(super) struct Known {
    own: Stamp,
    others: Others,
}

#[derive(Debug)]
enum Others {
    /// There are none.
    None,
    /// Redis told.
    Told(Box<Asked>),
    /// There may be some, and Redis could not be asked. The number is that of the flight.
    Unknown(u64),
}

/// The numbers of the tier, for the metrics.
pub(super) fn figures(shared: &Shared) -> RedisFigures {
    let Figures { up, lease, lookups, stores, messages, unpublished } = shared.figures();
    RedisFigures { up, lease, lookups, stores, messages, unpublished }
}

/// Asks Redis, where there is one: for a stored answer, else for what the search is sent under. With `anew` only the
/// latter. What is found may be used for `stale` longer here.
pub(super) async fn ask(
    cache: &Cache,
    name: Option<Name>,
    anew: bool,
    (key, own, stale): (Key, Stamp, Duration),
    exchange: &mut Exchange,
) -> Result<Answer, Known> {
    let Some(shared) = &cache.shared else { return Err(Known { own, others: Others::None }) };
    // Boxed: who has no Redis must not carry its size.
    let others = match Box::pin(shared.look(name, anew)).await {
        Looked::Found(found) => {
            let ttl = found.ttl.saturating_sub(found.age);
            exchange.cache = Some(CacheStatus::Hit { ttl: ttl.as_secs(), shared: true });
            let under = Under { own, mirror: Some(Box::new(found.mirror)) };
            let (kept, content) = (found.headers.clone(), found.content.clone());
            let lifetime = Lifetime { fresh: found.ttl, stale };
            cache.store.put_aged(key, under, (lifetime, found.age), kept, content);
            let mut headers = found.headers;
            headers.insert(header::AGE, HeaderValue::from(found.age.as_secs()));
            return Ok(whole_answer(StatusCode::OK, headers, Held::Whole(found.content)));
        }
        Looked::Asked(asked) => Others::Told(Box::new(asked)),
        Looked::Unavailable => Others::Unknown(shared.generation_unasked()),
    };
    Err(Known { own, others })
}

impl Known {
    /// Whether the answer to the search may be stored as far as writes go.
    pub(super) fn settled(&self) -> bool {
        self.own.settled()
            && match &self.others {
                Others::Told(asked) => asked.is_quiet(),
                Others::None | Others::Unknown(_) => true,
            }
    }

    /// A value that differs whenever other writes were known of: searches share a flight only within one.
    pub(super) fn generation(&self) -> u64 {
        let others = match &self.others {
            Others::None => 0,
            Others::Told(asked) => asked.generation(),
            Others::Unknown(generation) => *generation,
        };
        self.own.generation() ^ others.rotate_left(1)
    }

    /// What the answer is stored under here.
    pub(super) fn under(&self) -> Result<Under, NotStored> {
        let mirror = match &self.others {
            Others::None => None,
            Others::Told(asked) if asked.is_quiet() => Some(Box::new(asked.mirror)),
            Others::Told(_) => return Err(NotStored::Write),
            Others::Unknown(_) => return Err(NotStored::Redis),
        };
        Ok(Under { own: self.own, mirror })
    }

    /// Brings what was stored here to Redis.
    pub(super) fn share(self, cache: &Cache, ttl: Duration, stored: &Arc<Stored>) {
        if let (Some(shared), Others::Told(asked)) = (&cache.shared, self.others) {
            shared.store(*asked, ttl, stored.headers.clone(), stored.content.clone());
        }
    }
}
