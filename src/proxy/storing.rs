//! Whether an answer may be stored, and what of it is.

use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};

use super::answer::Answer;
use super::content::Held;
use super::headers;
use crate::cache::key::Key;
use crate::cache::store::{Store, Stored, Under};
use crate::cache::{Policy, StoreIf};
use crate::json;
use crate::json::pointer::{self, Found, Pointer, Scalar};

/// Fields that a stored answer gets on its way out: `Age`, and those of the exchange.
const GIVEN_FIELDS: usize = 6;

/// Why an answer was not stored: a metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotStored {
    /// Not a 200.
    Status,
    /// Larger than `max_entry`, or the connection's end is its only end.
    Incomplete,
    /// Encoded although `identity` was asked for.
    Encoded,
    /// `Set-Cookie`, or `no-store` from the upstream (RFC 9111 section 5.2.2.5).
    Forbidden,
    /// `Vary` names a field that is not part of the key.
    Vary,
    /// The content does not look like success, or is empty.
    Content,
    /// A write came between, is under way, or the store still settles.
    Write,
    /// Redis could not be asked when the search was sent: whether others write is not known.
    Redis,
}

impl NotStored {
    /// The labels, in the order of the variants.
    pub(crate) const WORDS: [&'static str; 8] =
        ["status", "incomplete", "encoded", "forbidden", "vary", "content", "write", "redis"];
}

/// Whether an answer may go to anybody but who asked for it: to those who wait for it, and to those who come later.
pub(super) fn is_shareable(answer: &Answer, policy: &Policy) -> Result<(), NotStored> {
    if answer.head.headers.contains_key(header::SET_COOKIE) {
        return Err(NotStored::Forbidden);
    }
    may_be_kept(&answer.head.headers, policy)
}

/// Whether the fields of an answer allow its content to be given to others, whatever they get of the fields.
pub(super) fn may_be_kept(headers: &HeaderMap, policy: &Policy) -> Result<(), NotStored> {
    if headers.get_all(header::CACHE_CONTROL).iter().any(says_no_store) {
        return Err(NotStored::Forbidden);
    }
    if !headers.get_all(header::VARY).iter().all(|vary| is_in_key(vary, policy)) {
        return Err(NotStored::Vary);
    }
    Ok(())
}

/// The content of a 200 answer that came in full and as it is.
pub(super) fn is_in_full(answer: &Answer, max_entry: usize) -> Result<&Bytes, NotStored> {
    if answer.head.status != StatusCode::OK {
        return Err(NotStored::Status);
    }
    let Held::Whole(content) = &answer.content else { return Err(NotStored::Incomplete) };
    if !answer.framed || content.len() > max_entry {
        return Err(NotStored::Incomplete);
    }
    if answer.head.headers.get(header::CONTENT_ENCODING).is_some_and(|coding| coding != "identity") {
        return Err(NotStored::Encoded);
    }
    Ok(content)
}

/// Stores an answer if everything speaks for it, and tells what is stored.
pub(super) fn store(
    entries: &Store,
    policy: &Policy,
    answer: &Answer,
    key: Key,
    under: Under,
) -> Result<Arc<Stored>, NotStored> {
    let content = is_in_full(answer, policy.max_entry)?;
    if !looks_like_success(content, &policy.store_if) {
        return Err(NotStored::Content);
    }
    let mut kept: HeaderMap = answer
        .head
        .headers
        .iter()
        .filter(|(name, _)| headers::is_stored(name))
        .filter_map(|(name, value)| Some((name.clone(), copied(value)?)))
        .collect();
    // What is said of the exchange comes to each copy: its table must not have to grow for that every time.
    kept.reserve(GIVEN_FIELDS);
    entries.put(key, under, policy.lifetime(key), kept, content).ok_or(NotStored::Write)
}

fn says_no_store(value: &HeaderValue) -> bool {
    value.as_bytes().split(|byte| *byte == b',').any(|d| d.trim_ascii().eq_ignore_ascii_case(b"no-store"))
}

/// A value of its own. As received it is a slice of all that was read with it, which would stay in memory as long.
fn copied(value: &HeaderValue) -> Option<HeaderValue> {
    let mut copy = HeaderValue::from_bytes(value.as_bytes()).ok()?;
    copy.set_sensitive(value.is_sensitive());
    Some(copy)
}

/// Whether every field that `Vary` names is part of the key. The coding is not: `identity` was asked for.
fn is_in_key(vary: &HeaderValue, policy: &Policy) -> bool {
    let mut names = vary.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
    // `*` is spelled as a name is, and stands for what no field tells.
    names.all(|name| match HeaderName::from_bytes(name) {
        Ok(name) => name != "*" && (name == header::ACCEPT_ENCODING || policy.is_in_key(&name)),
        Err(_) => name.is_empty(),
    })
}

/// Whether the content's top-level members are those of a success worth keeping.
fn looks_like_success(content: &[u8], expected: &StoreIf) -> bool {
    let StoreIf { present, absent, non_empty, equals } = expected;
    if !equals.is_empty() {
        let places: Vec<_> = equals.iter().map(|(place, _)| place).collect();
        let found = pointer::find(content, &places);
        let is = |(found, (_, scalar)): (&Found<'_>, &(Pointer, Scalar))| matches!(found, Found::Value(value) if scalar.is(value));
        if !found.iter().zip(equals).all(is) {
            return false;
        }
    }
    if present.is_empty() && absent.is_empty() && non_empty.is_empty() {
        return true;
    }
    let (mut found, mut refused) = (vec![false; present.len()], false);
    let read = json::top_level(content, |name, value| {
        for (found, _) in found.iter_mut().zip(present).filter(|(_, expected)| name.is(expected)) {
            *found = true;
        }
        refused |= absent.iter().any(|unwanted| name.is(unwanted));
        let value = content.get(value).unwrap_or_default();
        refused |= non_empty.iter().any(|filled| name.is(filled)) && json::is_empty_array(value);
    });
    read.is_ok() && !refused && found.iter().all(|found| *found)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn success_is_told_by_members() {
        let expected = StoreIf {
            present: vec!["result".into()],
            absent: vec!["error".into()],
            non_empty: vec!["result".into()],
            equals: Vec::new(),
        };
        for (content, success) in [
            (r#"{"result":[{"id":"a"}]}"#, true),
            (r#"{"result":[]}"#, false),
            (r#"{"result":[ ]}"#, false),
            (r#"{"error":"x","result":[1]}"#, false),
            (r#"{"\u0065rror":"x","result":[1]}"#, false),
            (r#"[{"result":[1]}]"#, false),
            ("", false),
            (r#"{"result":[1]"#, false),
        ] {
            assert_eq!(looks_like_success(content.as_bytes(), &expected), success, "{content}");
        }
        assert!(looks_like_success(b"anything", &StoreIf::default()));
    }

    #[test]
    fn success_is_told_by_values() {
        let place = |text| Pointer::parse(text).unwrap();
        let word = |text: &str| Scalar::Word(text.to_owned());
        let equals = vec![(place("/timed_out"), word("false")), (place("/_shards/failed"), word("0"))];
        let expected = StoreIf { absent: vec!["error".into()], equals, ..StoreIf::default() };
        for (content, success) in [
            (r#"{"took":3,"timed_out":false,"_shards":{"total":1,"failed":0}}"#, true),
            (r#"{"timed_out":true,"_shards":{"failed":0}}"#, false),
            (r#"{"timed_out":"false","_shards":{"failed":0}}"#, false),
            (r#"{"timed_out":false,"_shards":{"failed":1}}"#, false),
            (r#"{"timed_out":false,"_shards":{}}"#, false),
            (r#"{"timed_out":false,"timed_out":false,"_shards":{"failed":0}}"#, false),
            (r#"{"timed_out":false,"_shards":{"failed":0},"error":{}}"#, false),
            (r#"{"timed_out":false,"_shards":{"failed":0}"#, false),
            ("", false),
        ] {
            assert_eq!(looks_like_success(content.as_bytes(), &expected), success, "{content}");
        }
    }

    #[test]
    fn what_is_stored_keeps_nothing_else_in_memory() {
        // As hyper reads it: a field is a slice of all that came with it.
        let read = Bytes::from(vec![b'v'; 8192]);
        let received = HeaderValue::from_maybe_shared(read.slice(100..110)).unwrap();
        assert!(read.as_ptr_range().contains(&received.as_bytes().as_ptr()), "nothing is told by this test");
        let stored = copied(&received).unwrap();
        assert_eq!(stored, received);
        assert!(!read.as_ptr_range().contains(&stored.as_bytes().as_ptr()));
    }

    #[test]
    fn no_store_is_obeyed_and_no_cache_is_not() {
        assert!(says_no_store(&HeaderValue::from_static("private, No-Store")));
        assert!(!says_no_store(&HeaderValue::from_static("no-cache, max-age=0")));
    }
}
