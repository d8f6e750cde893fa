//! What is decided per rule about storing.

use std::time::Duration;

use http::HeaderName;

use super::key::Key;
use super::store::Lifetime;
use crate::json::pointer::{Pointer, Scalar};

/// Lifetimes are shorter than `ttl` by up to one part in so many.
const SPREAD: u32 = 20;

/// How the answers of one rule are stored.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Freshness lifetime at most, counted from the arrival of the response.
    pub ttl: Duration,
    /// How long beyond its lifetime a stored response answers while the upstream fails (RFC 5861 section 4). Zero: not.
    pub stale_if_error: Duration,
    /// Answer from the upstream always, and tell what would have been a hit.
    pub shadow: bool,
    /// The part of hits, 0 to 1, that the upstream is asked about in the background.
    pub audit: f64,
    /// Larger answers are not stored, in bytes.
    pub max_entry: usize,
    /// Request headers that change the answer, of those that are known not to otherwise. Whatever is not known to be of
    /// that kind is part of the key.
    pub vary: Vec<HeaderName>,
    /// Request headers that do not change the answer.
    pub ignore_headers: Vec<HeaderName>,
    /// Query parameters that do not change the answer.
    pub ignore_query: Vec<String>,
    /// The order of an object's members changes the answer.
    pub ordered: bool,
    /// What an answer must look like to be stored.
    pub store_if: StoreIf,
}

impl Policy {
    /// How long the response of this key may be used. Responses that are stored together do not all end together: each
    /// key gives up its own part of `ttl`, a twentieth at most.
    pub fn lifetime(&self, key: Key) -> Lifetime {
        let [low, high, ..] = key.to_bytes();
        let part = u32::from(u16::from_le_bytes([low, high]));
        let given_up = self.ttl / SPREAD * part / (u32::from(u16::MAX) + 1);
        Lifetime { fresh: self.ttl.saturating_sub(given_up), stale: self.stale_if_error }
    }
}

/// What an answer's content must look like, by top-level members: status 200 is not success everywhere.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreIf {
    /// Must be there.
    pub present: Vec<String>,
    /// Must not be there.
    pub absent: Vec<String>,
    /// Must not be an empty array: writers Pillion cannot see would stay unseen for the whole lifetime.
    pub non_empty: Vec<String>,
    /// Values that must stand at these places.
    pub equals: Vec<(Pointer, Scalar)>,
}

#[cfg(test)]
impl Policy {
    /// For tests that are about one of its lines or about none.
    pub(super) fn usual() -> Self {
        Self {
            ttl: Duration::from_secs(300),
            stale_if_error: Duration::ZERO,
            shadow: false,
            audit: 0.0,
            max_entry: 1 << 20,
            vary: Vec::new(),
            ignore_headers: Vec::new(),
            ignore_query: Vec::new(),
            ordered: false,
            store_if: StoreIf::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, Method};

    use super::super::key::{Identity, Keyring};
    use super::*;

    #[test]
    fn lifetimes_are_spread_over_a_twentieth_and_never_longer() {
        let ttl = Duration::from_secs(300);
        let policy = Policy { ttl, stale_if_error: Duration::from_secs(60), ..Policy::usual() };
        let names = Keyring::seeded([7; 16]).names("http://h:80", &policy);
        let (method, headers) = (Method::GET, HeaderMap::new());
        let lifetimes: Vec<Lifetime> = (0..1000)
            .map(|n| {
                let path = format!("/{n}");
                let identity =
                    Identity { method: &method, path: &path, query: None, headers: &headers, body: &[] };
                policy.lifetime(names.key(&identity))
            })
            .collect();
        assert!(lifetimes.iter().all(|life| life.stale == policy.stale_if_error));
        let fresh = || lifetimes.iter().map(|life| life.fresh);
        let (least, most) = (fresh().min().unwrap(), fresh().max().unwrap());
        assert!(most <= ttl && least >= ttl * 19 / 20, "{least:?} to {most:?}");
        let mean = fresh().sum::<Duration>() / 1000;
        assert!(most > least + ttl / 22 && mean > ttl * 965 / 1000 && mean < ttl * 985 / 1000, "{mean:?}");
    }
}
