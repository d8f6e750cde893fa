//! What is made of the secret that instances share: the key of entries' names, that of fences, and the seal.
//!
//! With `redis.secret` nobody who reads Redis can tell what lies there. Without it a random secret lies beside what it
//! protects: names still tell nothing to who does not read that too.

use std::fmt::Write as _;

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, Tag, UnboundKey};
use ring::hmac;

use crate::cache::fence::Slots;
use crate::cache::key::Keyring;

/// Random bytes of a sealed entry: each has a key of its own, made of them, so no nonce is ever used twice.
const SALT: usize = 24;

/// What instances with one secret agree on.
pub(super) struct Derived {
    pub(super) keyring: Keyring,
    pub(super) slots: Slots,
    /// Tells two secrets apart, and nothing else of them.
    pub(super) mark: String,
    seal: Seal,
}

impl Derived {
    pub(super) fn of(secret: &[u8]) -> Self {
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
        Self {
            keyring: Keyring::seeded(half(&key, b"pillion 1 names")),
            slots: Slots::new(&half(&key, b"pillion 1 fences")),
            mark: hex(&half(&key, b"pillion 1 mark")),
            seal: Seal(hmac::Key::new(hmac::HMAC_SHA256, hmac::sign(&key, b"pillion 1 seal").as_ref())),
        }
    }

    pub(super) fn seal(&self) -> Seal {
        self.seal.clone()
    }
}

fn half(key: &hmac::Key, label: &[u8]) -> [u8; 16] {
    let mut half = [0; 16];
    for (place, byte) in half.iter_mut().zip(hmac::sign(key, label).as_ref()) {
        *place = *byte;
    }
    half
}

/// Seals and opens entries (ChaCha20-Poly1305, RFC 8439). An entry opens only under the name it was sealed for.
#[derive(Clone)]
pub(super) struct Seal(hmac::Key);

impl Seal {
    pub(super) fn seal(&self, name: &str, mut content: Vec<u8>) -> Option<Vec<u8>> {
        let mut salt = [0; SALT];
        getrandom::fill(&mut salt).ok()?;
        let tag = self.key(&salt)?.seal_in_place_separate_tag(once(), Aad::from(name), &mut content).ok()?;
        let mut sealed = Vec::with_capacity(SALT + content.len() + tag.as_ref().len());
        sealed.extend_from_slice(&salt);
        sealed.extend_from_slice(&content);
        sealed.extend_from_slice(tag.as_ref());
        Some(sealed)
    }

    pub(super) fn open(&self, name: &str, sealed: &[u8]) -> Option<Vec<u8>> {
        let (salt, rest) = sealed.split_first_chunk::<SALT>()?;
        let (content, tag) = rest.split_last_chunk::<16>()?;
        let mut content = content.to_vec();
        let tag = Tag::from(*tag);
        self.key(salt)?.open_in_place_separate_tag(once(), Aad::from(name), tag, &mut content, 0..).ok()?;
        Some(content)
    }

    fn key(&self, salt: &[u8; SALT]) -> Option<LessSafeKey> {
        let key = UnboundKey::new(&CHACHA20_POLY1305, hmac::sign(&self.0, salt).as_ref()).ok()?;
        Some(LessSafeKey::new(key))
    }
}

/// The nonce of a key that is used once.
fn once() -> Nonce {
    Nonce::assume_unique_for_key([0; NONCE_LEN])
}

/// So many random bytes, in hexadecimal.
pub(super) fn random<const N: usize>() -> Result<String, getrandom::Error> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)?;
    Ok(hex(&bytes))
}

pub(super) fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_opens_with_the_same_secret_and_name_only() {
        let (one, two) = (Derived::of(b"one").seal(), Derived::of(b"two").seal());
        let sealed = one.seal("name", b"content".to_vec()).unwrap();
        assert_eq!(one.open("name", &sealed).as_deref(), Some(&b"content"[..]));
        assert_eq!(two.open("name", &sealed), None);
        assert_eq!(one.open("other", &sealed), None);
        assert_ne!(one.seal("name", b"content".to_vec()).unwrap(), sealed);
        for index in 0..sealed.len() {
            let mut broken = sealed.clone();
            broken[index] ^= 1;
            assert_eq!(one.open("name", &broken), None, "byte {index}");
            assert_eq!(one.open("name", &sealed[..index]), None);
        }
    }

    #[test]
    fn one_secret_agrees_and_two_do_not() {
        let scope = |secret: &[u8]| Derived::of(secret).slots.scope("h:1", [Some("n")]);
        assert_eq!(scope(b"one"), scope(b"one"));
        assert_ne!(scope(b"one"), scope(b"two"));
        assert_eq!(Derived::of(b"one").mark, Derived::of(b"one").mark);
        assert_ne!(Derived::of(b"one").mark, Derived::of(b"two").mark);
    }
}
