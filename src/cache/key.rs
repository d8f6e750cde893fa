//! The cache key: when two requests may share one stored response.
//!
//! It decides which differences between requests do not matter (RFC 9111 section 4 knows the URI only; a search is
//! what its content says). It must never make two requests one that the store could answer differently: where in
//! doubt they stay apart, and a hit is missed. Credentials are part of it, so no tenant meets another's answers; the
//! hash is keyed with a secret, so nobody who chooses bodies can aim at another's key.

mod canonical;

use std::fmt;
use std::hash::Hasher;

use http::{HeaderMap, HeaderName, Method};
use siphasher::sip128::{Hasher128, SipHasher24};

use super::Policy;

/// Names one stored response. Tells nothing about the request to who lacks the secret; still, it is never logged.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key(u128);

impl Key {
    /// For a tier outside of this process.
    pub const fn to_bytes(self) -> [u8; 16] {
        self.0.to_le_bytes()
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}

/// All of a request that its answer can depend on.
#[derive(Clone, Copy)]
pub struct Identity<'a> {
    /// The authority requests are forwarded to, from the configuration.
    pub upstream: &'a str,
    /// As received.
    pub method: &'a Method,
    /// As forwarded, byte for byte: two spellings that one rule takes need not be one to the store.
    pub path: &'a str,
    /// As received, behind the `?`.
    pub query: Option<&'a str>,
    /// Of these, what the policy names.
    pub headers: &'a HeaderMap,
    /// The content, whole and without content coding.
    pub body: &'a [u8],
}

/// The secret that keys are made with. Keys of two keyrings never meet.
#[derive(Clone)]
pub struct Keyring {
    seeded: SipHasher24,
}

impl Keyring {
    /// A secret of the operating system's randomness.
    pub fn random() -> Result<Self, getrandom::Error> {
        let mut secret = [0; 16];
        getrandom::fill(&mut secret)?;
        Ok(Keyring::seeded(secret))
    }

    /// A given secret: for tests, and for instances that share a tier.
    pub fn seeded(secret: [u8; 16]) -> Self {
        Keyring { seeded: SipHasher24::new_with_key(&secret) }
    }

    /// The key of a request. `policy` names what of its query and headers counts.
    pub fn key(&self, request: &Identity<'_>, policy: &Policy) -> Key {
        let mut out = self.stream();
        out.bytes(request.upstream.as_bytes());
        out.bytes(request.method.as_str().as_bytes());
        out.bytes(request.path.as_bytes());
        out.length(policy.ignore_query.len());
        policy.ignore_query.iter().for_each(|name| out.bytes(name.as_bytes()));
        write_query(&mut out, request.query, &policy.ignore_query);
        write_headers(&mut out, request.headers, &policy.vary);
        write_headers(&mut out, request.headers, &policy.credentials);
        write_likely_credentials(&mut out, request.headers, policy);
        self.write_body(&mut out, request.body);
        Key(out.digest())
    }

    /// The three kinds of body are told apart by a tag: a body that is not JSON never meets one that is.
    fn write_body(&self, out: &mut Stream, body: &[u8]) {
        if body.is_empty() {
            out.raw(b"E");
        } else if let Some(digest) = canonical::digest(self, body) {
            out.raw(b"J");
            out.raw(&digest.to_le_bytes());
        } else {
            out.raw(b"R");
            out.bytes(body);
        }
    }

    fn stream(&self) -> Stream {
        Stream(self.seeded)
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keyring(..)")
    }
}

/// What is hashed. All that is written is either of fixed length or preceded by its length, in one fixed order, so two
/// requests that differ never write the same bytes.
struct Stream(SipHasher24);

impl Stream {
    fn raw(&mut self, bytes: &[u8]) {
        self.0.write(bytes);
    }

    fn length(&mut self, length: usize) {
        self.raw(&(length as u64).to_le_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.length(bytes.len());
        self.raw(bytes);
    }

    fn digest(&self) -> u128 {
        self.0.finish128().as_u128()
    }
}

/// The parameters, sorted by name. Values of one name keep their order; names count as one when they are the same
/// decoded and in any case, because some frameworks take them as one and then the order is theirs to read.
fn write_query(out: &mut Stream, query: Option<&str>, ignore: &[String]) {
    let ignored = |parameter: &&str| ignore.iter().any(|name| decoded(parameter).eq(name.bytes()));
    let mut parameters: Vec<&str> = query
        .into_iter()
        .flat_map(|query| query.split('&'))
        .filter(|parameter| !ignored(parameter))
        .collect();
    let folded = |parameter| decoded(parameter).map(|byte| byte.to_ascii_lowercase());
    parameters.sort_by(|a, b| folded(a).cmp(folded(b)));
    out.length(parameters.len());
    for parameter in parameters {
        out.bytes(parameter.as_bytes());
    }
}

/// The name of a parameter as form decoding reads it. A broken escape stands for itself.
fn decoded(parameter: &str) -> impl Iterator<Item = u8> + '_ {
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    let mut rest = parameter.split_once('=').map_or(parameter, |(name, _)| name).as_bytes();
    std::iter::from_fn(move || {
        let (&byte, tail) = rest.split_first()?;
        rest = tail;
        Some(match (byte, tail) {
            (b'+', _) => b' ',
            (b'%', [high, low, tail @ ..]) => match (digit(*high), digit(*low)) {
                (Some(high), Some(low)) => {
                    rest = tail;
                    high << 4 | low
                }
                _ => byte,
            },
            _ => byte,
        })
    })
}

/// Fields that no list names and that, by their name, may still tell who asks: every service has a header of its own for
/// that, and a list that has forgotten one must cost a hit, not show one tenant another's answers.
fn write_likely_credentials(out: &mut Stream, headers: &HeaderMap, policy: &Policy) {
    const SIGNS: [&str; 9] =
        ["auth", "token", "key", "secret", "credential", "session", "tenant", "signature", "account"];
    for (name, value) in headers {
        let text = name.as_str();
        let likely = (SIGNS.iter().any(|sign| text.contains(sign)) || text.ends_with("user"))
            // Differs with every request, and says nothing of who asks.
            && text != "idempotency-key";
        if likely && !policy.credentials.contains(name) && !policy.vary.contains(name) {
            out.bytes(text.as_bytes());
            out.bytes(value.as_bytes());
        }
    }
    out.length(usize::MAX);
}

/// All values of each header, in order. None at all is not the same as an empty one.
fn write_headers(out: &mut Stream, headers: &HeaderMap, names: &[HeaderName]) {
    out.length(names.len());
    for name in names {
        out.bytes(name.as_str().as_bytes());
        let values = headers.get_all(name);
        out.length(values.iter().count());
        for value in values {
            out.bytes(value.as_bytes());
        }
    }
}

#[cfg(test)]
mod tests;
