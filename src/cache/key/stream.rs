//! What is hashed, and how.

use std::hash::Hasher;

use siphasher::sip128::{Hasher128, SipHasher13};

/// Bytes that are gathered before they are hashed: most of what is written is a few bytes long, and the hash takes
/// eight at a time.
const GATHERED: usize = 128;

/// A hash under way. All that is written is either of fixed length or preceded by its length, in one fixed order, so two
/// requests that differ never write the same bytes.
///
/// SipHash-1-3 with 128 bits. What is needed is that nobody who chooses content, but knows neither the secret nor any
/// digest, makes two requests one: nothing published comes near it for one round a word, and two rounds would be half
/// of what a hit costs.
#[derive(Clone)]
pub(super) struct Stream {
    hasher: SipHasher13,
    gathered: [u8; GATHERED],
    len: usize,
}

impl Stream {
    pub(super) fn new(secret: &[u8; 16]) -> Self {
        Self { hasher: SipHasher13::new_with_key(secret), gathered: [0; GATHERED], len: 0 }
    }

    pub(super) fn raw(&mut self, bytes: &[u8]) {
        let end = self.len + bytes.len();
        if let Some(place) = self.gathered.get_mut(self.len..end) {
            place.copy_from_slice(bytes);
            self.len = end;
        } else {
            self.hash_gathered();
            self.hasher.write(bytes);
        }
    }

    pub(super) fn length(&mut self, length: usize) {
        self.raw(&(length as u64).to_le_bytes());
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.length(bytes.len());
        self.raw(bytes);
    }

    pub(super) fn digest(mut self) -> u128 {
        self.hash_gathered();
        self.hasher.finish128().as_u128()
    }

    fn hash_gathered(&mut self) {
        self.hasher.write(self.gathered.get(..self.len).unwrap_or_default());
        self.len = 0;
    }
}
