//! Keys of elements: what is asked in batches, and stored one by one.
//!
//! An element's key has in it all that the batch says but what is about the other elements, and what it is itself. A
//! batch's parts are canonical as a search's content is: spelling does not count, numbers do.

use std::borrow::Cow;

use super::stream::Stream;
use super::{Identity, Key, Keyring, Names, canonical, write_query};

/// Names the elements of one batch.
pub struct Elements<'a> {
    keyring: &'a Keyring,
    /// Has in it what all of them share.
    begun: Stream,
}

impl Names {
    /// The keys of the elements of a batch. Of `request` everything but the content counts, and of the content these
    /// members, which are sorted by name. `None` where they do not mean one thing to every parser.
    pub fn elements(
        &self,
        request: &Identity<'_>,
        members: &[(Cow<'_, [u8]>, &[u8])],
    ) -> Option<Elements<'_>> {
        let mut begun = self.head(request).0;
        begun.raw(b"B");
        write_query(&mut begun, request.query, &self.ignore_query);
        begun.length(members.len());
        for (name, value) in members {
            begun.bytes(name);
            begun.raw(&canonical::digest(&self.keyring, value)?.to_le_bytes());
        }
        Some(Elements { keyring: &self.keyring, begun })
    }
}

impl Elements<'_> {
    /// The key of an element, by its JSON.
    pub fn key(&self, element: &[u8]) -> Option<Key> {
        let mut out = self.begun.clone();
        out.raw(b"1");
        out.raw(&canonical::digest(self.keyring, element)?.to_le_bytes());
        Some(Key(out.digest()))
    }

    /// The key of all of them together, in their order.
    pub fn all(&self, keys: &[Key]) -> Key {
        let mut out = self.begun.clone();
        out.raw(b"*");
        for key in keys {
            out.raw(&key.to_bytes());
        }
        Key(out.digest())
    }
}

#[cfg(test)]
mod tests;
