//! A stored response as it lies in Redis, behind the stamp that scripts compare.
//!
//! `kind (0 clear, 1 sealed)`, then: its own name behind its length (2 bytes), lifetime in milliseconds (8), number of
//! fields (2), each field as name and value behind their lengths (2 and 4), and the content behind its length (8), which
//! is the end. Numbers are little-endian. Whatever is not quite so is no entry: a newer version writes under another
//! version in front of the stamp.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::secret::Seal;

const CLEAR: u8 = 0;
const SEALED: u8 = 1;

/// What an entry says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// The whole lifetime, counted from the arrival of the answer.
    pub(super) ttl: Duration,
    pub(super) headers: HeaderMap,
    pub(super) content: Bytes,
}

/// The bytes of an entry; `None` where it has more than there is room to count.
pub(super) fn write(
    name: &str,
    ttl: Duration,
    headers: &HeaderMap,
    content: &[u8],
    seal: Option<&Seal>,
) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(content.len() + 64 * headers.len() + name.len() + 32);
    if seal.is_none() {
        out.push(CLEAR);
    }
    out.extend_from_slice(&u16::try_from(name.len()).ok()?.to_le_bytes());
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(&u64::try_from(ttl.as_millis()).ok()?.to_le_bytes());
    out.extend_from_slice(&u16::try_from(headers.len()).ok()?.to_le_bytes());
    for (field, value) in headers {
        let field = field.as_str().as_bytes();
        out.extend_from_slice(&u16::try_from(field.len()).ok()?.to_le_bytes());
        out.extend_from_slice(field);
        out.extend_from_slice(&u32::try_from(value.len()).ok()?.to_le_bytes());
        out.extend_from_slice(value.as_bytes());
    }
    out.extend_from_slice(&u64::try_from(content.len()).ok()?.to_le_bytes());
    out.extend_from_slice(content);
    let Some(seal) = seal else { return Some(out) };
    let mut sealed = seal.seal(name, out)?;
    sealed.insert(0, SEALED);
    Some(sealed)
}

/// Reads an entry. One in clear counts only where no secret is set, and the reverse.
pub(super) fn read(name: &str, bytes: Vec<u8>, seal: Option<&Seal>) -> Option<Entry> {
    let bytes = match (bytes.first()?, seal) {
        (&CLEAR, None) => Bytes::from(bytes).slice(1..),
        (&SEALED, Some(seal)) => Bytes::from(seal.open(name, bytes.get(1..)?)?),
        _ => return None,
    };
    let mut rest = bytes.as_ref();
    let length = u16::from_le_bytes(take(&mut rest)?);
    if piece(&mut rest, usize::from(length))? != name.as_bytes() {
        return None;
    }
    let ttl = Duration::from_millis(u64::from_le_bytes(take(&mut rest)?));
    let count = u16::from_le_bytes(take(&mut rest)?);
    let mut headers = HeaderMap::with_capacity(usize::from(count).min(64));
    for _ in 0..count {
        let length = u16::from_le_bytes(take(&mut rest)?);
        let field = HeaderName::from_bytes(piece(&mut rest, usize::from(length))?).ok()?;
        let length = u32::from_le_bytes(take(&mut rest)?);
        let value = HeaderValue::from_bytes(piece(&mut rest, length as usize)?).ok()?;
        headers.append(field, value);
    }
    let length = u64::from_le_bytes(take(&mut rest)?);
    if usize::try_from(length) != Ok(rest.len()) {
        return None;
    }
    let content = bytes.slice(bytes.len() - rest.len()..);
    Some(Entry { ttl, headers, content })
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, left) = rest.split_first_chunk()?;
    *rest = left;
    Some(*taken)
}

fn piece<'a>(rest: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(length)?;
    *rest = left;
    Some(taken)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::secret::Derived;
    use super::*;

    fn sample() -> (HeaderMap, &'static [u8]) {
        let mut headers = HeaderMap::new();
        headers.append("content-type", HeaderValue::from_static("application/json"));
        headers.append("x-two", HeaderValue::from_static("1"));
        headers.append("x-two", HeaderValue::from_bytes(b"\xff").unwrap());
        (headers, br#"{"result":[]}"#)
    }

    #[test]
    fn what_is_written_is_read() {
        let (headers, content) = sample();
        let ttl = Duration::from_secs(300);
        let seal = Derived::of(b"secret").seal();
        for seal in [None, Some(&seal)] {
            let bytes = write("n", ttl, &headers, content, seal).unwrap();
            let entry = read("n", bytes.clone(), seal).unwrap();
            assert_eq!((entry.ttl, &entry.headers, entry.content.as_ref()), (ttl, &headers, content));
            let found = |part: &[u8]| memchr::memmem::find(&bytes, part).is_some();
            assert_eq!(found(b"result"), seal.is_none());
            assert_eq!(found(b"application"), seal.is_none());
        }
        let clear = write("n", ttl, &headers, content, None).unwrap();
        assert_eq!(read("n", clear, Some(&seal)), None, "what is not sealed is not believed");
        let sealed = write("n", ttl, &headers, content, Some(&seal)).unwrap();
        assert_eq!(read("n", sealed, None), None);
        let clear = write("n", ttl, &headers, content, None).unwrap();
        assert_eq!(read("m", clear, None), None, "it was stored under another name");
    }

    proptest! {
        #[test]
        fn nothing_is_read_amiss(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = read("n", bytes, None);
        }

        #[test]
        fn what_is_cut_or_grew_is_none(cut in any::<prop::sample::Index>(), more in 1_usize..9) {
            let (headers, content) = sample();
            let bytes = write("n", Duration::ZERO, &headers, content, None).unwrap();
            prop_assert_eq!(read("n", bytes[..cut.index(bytes.len())].to_vec(), None), None);
            prop_assert_eq!(read("n", [bytes, vec![b' '; more]].concat(), None), None);
        }
    }
}
