//! The cache key: when two requests may share one stored response.
//!
//! It decides which differences between requests do not matter (RFC 9111 section 4 knows the URI only; a search is
//! what its content says). It must never make two requests one that the store could answer differently: where in
//! doubt they stay apart, and a hit is missed. Credentials are part of it, so no tenant meets another's answers; the
//! hash is keyed with a secret, so nobody who chooses bodies can aim at another's key.
//!
//! A request has two names. Its [`Key`] says what it means; to write it, the content is read as JSON. Its [`Exact`]
//! name says which bytes it consists of, which costs a tenth, and is what the [`memo`](super::memo) goes by. Both
//! begin with the same *head*, written by one function: the rule, the method, the path, the headers that count. What
//! is left, query and content, the exact name takes byte for byte.

mod canonical;
mod elements;
mod fields;
mod stream;

use std::fmt;

use http::{HeaderMap, Method};

pub use elements::Elements;

use super::Policy;
use fields::Fields;
use stream::Stream;

/// Ends a list of which each part begins with a length or an index. Nothing is so long.
const END: usize = usize::MAX;

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

/// Names one request as it is spelled. Requests of one exact name have one key; the reverse does not hold.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Exact(u128);

impl fmt::Debug for Exact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Exact(..)")
    }
}

/// All of a request that its answer can depend on, besides the rule that takes it.
#[derive(Clone, Copy)]
pub struct Identity<'a> {
    /// As received.
    pub method: &'a Method,
    /// As forwarded behind the upstream's own path, byte for byte: two spellings that one rule takes need not be one to
    /// the store.
    pub path: &'a str,
    /// As received, behind the `?`.
    pub query: Option<&'a str>,
    /// As forwarded.
    pub headers: &'a HeaderMap,
    /// The content, whole and without content coding.
    pub body: &'a [u8],
}

/// The secret that keys are made with. Keys of two keyrings never meet.
#[derive(Clone)]
pub struct Keyring {
    seeded: Stream,
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
        Keyring { seeded: Stream::new(&secret) }
    }

    /// The names of requests that one rule takes. `upstream` is where they are forwarded to, from the configuration.
    pub fn names(&self, upstream: &str, policy: &Policy) -> Names {
        let mut begun = self.stream();
        begun.bytes(upstream.as_bytes());
        write_policy(&mut begun, policy);
        Names {
            keyring: self.clone(),
            begun,
            fields: Fields::of(policy),
            ignore_query: policy.ignore_query.clone(),
            ordered: policy.ordered,
        }
    }

    fn stream(&self) -> Stream {
        self.seeded.clone()
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keyring(..)")
    }
}

/// Names requests that one rule takes: made once, so that what the rule says is not hashed again for each of them.
#[derive(Clone)]
pub struct Names {
    keyring: Keyring,
    /// Has the upstream and what the policy says in it: rules that differ in any of that share no name.
    begun: Stream,
    fields: Fields,
    ignore_query: Vec<String>,
    /// The order of an object's members counts.
    ordered: bool,
}

/// The head of a request's names: what both begin with.
#[derive(Clone)]
pub(super) struct Head(Stream);

impl Names {
    /// The key of a request.
    pub fn key(&self, request: &Identity<'_>) -> Key {
        self.key_behind(self.head(request), request).0
    }

    pub(super) fn head(&self, request: &Identity<'_>) -> Head {
        let mut out = self.begun.clone();
        out.bytes(request.method.as_str().as_bytes());
        out.bytes(request.path.as_bytes());
        self.fields.write(&mut out, request.headers);
        Head(out)
    }

    /// The key of the request whose head this is, and whether its content was read: JSON of one meaning, or none.
    pub(super) fn key_behind(&self, Head(mut out): Head, request: &Identity<'_>) -> (Key, bool) {
        out.raw(b"K");
        write_query(&mut out, request.query, &self.ignore_query);
        let read = self.write_body(&mut out, request.body);
        (Key(out.digest()), read)
    }

    /// The three kinds of body are told apart by a tag: a body that is not JSON never meets one that is. `false` where it
    /// could not be read.
    fn write_body(&self, out: &mut Stream, body: &[u8]) -> bool {
        let digest = if self.ordered { canonical::ordered_digest } else { canonical::digest };
        if body.is_empty() {
            out.raw(b"E");
        } else if let Some(digest) = digest(&self.keyring, body) {
            out.raw(b"J");
            out.raw(&digest.to_le_bytes());
        } else {
            out.raw(b"R");
            out.bytes(body);
            return false;
        }
        true
    }
}

impl Head {
    /// The exact name of the request whose head this is.
    pub(super) fn exact(&self, request: &Identity<'_>) -> Exact {
        let Head(mut out) = self.clone();
        out.raw(b"X");
        out.length(request.query.map_or(END, str::len));
        out.raw(request.query.unwrap_or_default().as_bytes());
        out.bytes(request.body);
        Exact(out.digest())
    }
}

impl fmt::Debug for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Names(..)")
    }
}

/// All that a policy says of what is stored, and of which requests are one: what one rule would not have stored, or not
/// for so long, is no answer to another.
fn write_policy(out: &mut Stream, policy: &Policy) {
    // Whether the cache only watches, and how often it is checked, is nothing that an entry has in it.
    let Policy {
        ttl, stale_if_error, max_entry, vary, ignore_headers, ignore_query, ordered, store_if, ..
    } = policy;
    for span in [ttl, stale_if_error] {
        out.raw(&span.as_nanos().to_le_bytes());
    }
    out.length(*max_entry);
    for list in [vary, ignore_headers] {
        out.length(list.len());
        for name in list {
            out.bytes(name.as_str().as_bytes());
        }
    }
    out.length(ignore_query.len());
    for name in ignore_query {
        out.bytes(name.as_bytes());
    }
    out.length(usize::from(*ordered));
    out.bytes(format!("{store_if:?}").as_bytes());
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

#[cfg(test)]
mod isolation;
#[cfg(test)]
mod tests;
