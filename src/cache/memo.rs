//! The memo: requests whose key is known already, by their exact bytes.
//!
//! To read a content as JSON costs more than all else that a hit needs, and a search that is asked again mostly comes
//! byte for byte as before. So a key is calculated once for each spelling.
//!
//! An entry is never wrong and never grows old. A key is a pure function of a request's identity under one rule, and
//! the exact name is a hash of all that this function is given: both names begin with the same head (secret,
//! upstream, the policy's lists, method, path, the headers that count), and what is behind it, query and content, is in
//! the exact name byte for byte. Two requests of one exact name hence have one key. What a write or time makes
//! unusable is the store's to know, which is asked by that key every time: here nothing has to be dropped, ever, and
//! what falls out for want of room is calculated again.

use quick_cache::sync::Cache;

use super::key::{Exact, Identity, Key, Names};

/// What one spelling takes at most, with what the table keeps of those that fell out, and with what it has grown too
/// large by.
const ENTRY: u64 = 224;

/// Keys by exact names. Bounded by bytes; spellings that come once go first.
#[derive(Debug)]
pub struct Memo {
    keys: Cache<Exact, Key>,
}

impl Memo {
    /// A memo of at most so many bytes.
    pub fn new(bytes: u64) -> Self {
        Self { keys: Cache::new((bytes / ENTRY) as usize) }
    }

    /// The key of a request that the rule of these names takes.
    pub fn key(&self, names: &Names, request: &Identity<'_>) -> Key {
        self.key_of(names, request).0
    }

    /// The key, and whether the content is JSON of one meaning, or none. Only such are remembered: others are as good as
    /// never searches.
    pub fn key_of(&self, names: &Names, request: &Identity<'_>) -> (Key, bool) {
        let head = names.head(request);
        let exact = head.exact(request);
        if let Some(key) = self.keys.get(&exact) {
            return (key, true);
        }
        let (key, read) = names.key_behind(head, request);
        if read {
            self.keys.insert(exact, key);
        }
        (key, read)
    }
}

#[cfg(test)]
mod tests;
