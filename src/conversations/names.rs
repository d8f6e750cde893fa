//! What conversations go by: keyed hashes, in this process under a key of its own, in Redis under one that instances share.

use std::fmt::Write as _;
use std::hash::Hasher;
use std::sync::Arc;

use ring::hmac;
use siphasher::sip128::{Hasher128, SipHasher13};

/// What tells one conversation from all others.
#[derive(Clone, Copy, Debug)]
pub struct Whose<'a> {
    /// As the bot names it.
    pub id: &'a [u8],
    /// The route it takes.
    pub route: &'a str,
    /// The credentials it comes with, each with the name of its field.
    pub credentials: &'a [(&'a str, &'a [u8])],
}

impl Whose<'_> {
    /// Every part behind its length, so that no two are alike.
    fn parts(&self, mut part: impl FnMut(&[u8])) {
        let mut sized = |bytes: &[u8]| {
            part(&(bytes.len() as u64).to_le_bytes());
            part(bytes);
        };
        sized(self.route.as_bytes());
        for (name, value) in self.credentials {
            sized(name.as_bytes());
            sized(value);
        }
    }
}

/// The name of a conversation.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Name {
    pub(super) id: Id,
    /// What it goes by in Redis.
    pub(super) shared: Option<Arc<SharedName>>,
}

/// What a conversation goes by in this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Id {
    pub(super) identifier: u128,
    /// Its route and credentials.
    whose: u64,
}

/// What a conversation goes by in Redis.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct SharedName {
    pub(super) id: String,
    pub(super) whose: String,
}

/// The key of names in this process.
#[derive(Clone, Copy)]
pub(super) struct Key([u64; 2]);

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key(..)")
    }
}

impl Key {
    pub(super) fn random() -> Result<Self, getrandom::Error> {
        Ok(Self([getrandom::u64()?, getrandom::u64()?]))
    }

    fn hasher(self) -> SipHasher13 {
        let [a, b] = self.0;
        SipHasher13::new_with_keys(a, b)
    }

    pub(super) fn identifier(self, id: &[u8]) -> u128 {
        let mut hasher = self.hasher();
        hasher.write(id);
        hasher.finish128().as_u128()
    }

    pub(super) fn id(self, whose: &Whose<'_>) -> Id {
        let mut hasher = self.hasher();
        whose.parts(|part| hasher.write(part));
        Id { identifier: self.identifier(whose.id), whose: hasher.finish() }
    }

    /// Of a conversation, and how its history begins.
    pub(super) fn beginning(self, whose: &Whose<'_>, beginning: &[u8]) -> u128 {
        let Id { identifier, whose } = self.id(whose);
        let mut hasher = self.hasher();
        hasher.write(&identifier.to_le_bytes());
        hasher.write(&whose.to_le_bytes());
        hasher.write(beginning);
        hasher.finish128().as_u128()
    }
}

/// The key of names in Redis.
#[derive(Clone)]
pub(super) struct SharedKey(hmac::Key);

impl SharedKey {
    pub(super) fn of(secret: &[u8]) -> Self {
        let secret = hmac::Key::new(hmac::HMAC_SHA256, secret);
        let own = hmac::sign(&secret, b"pillion 1 conversations");
        Self(hmac::Key::new(hmac::HMAC_SHA256, own.as_ref()))
    }

    pub(super) fn name(&self, whose: &Whose<'_>) -> SharedName {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(b"whose");
        whose.parts(|part| context.update(part));
        SharedName { id: self.id(whose.id), whose: hex(context.sign().as_ref(), 8) }
    }

    pub(super) fn id(&self, id: &[u8]) -> String {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(b"id");
        context.update(id);
        hex(context.sign().as_ref(), 16)
    }
}

/// So many bytes, in hexadecimal.
pub(super) fn hex(bytes: &[u8], most: usize) -> String {
    bytes.iter().take(most).fold(String::with_capacity(2 * most), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
