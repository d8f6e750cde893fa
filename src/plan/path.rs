//! The path as rules and routes see it. The original bytes are what is forwarded.

use std::borrow::Cow;

/// The path holds dot segments or a broken escape: refused rather than guessed at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MalformedPath;

/// The normalised path: slashes collapsed, a trailing one dropped, escapes decoded where the meaning cannot change
/// (RFC 3986 section 6.2.2), so `/%75psert//n/` is seen as `/upsert/n`.
///
/// Kept encoded: controls, space, DEL, `/`, `\`, `%`, `?`, `#` and bytes that are not ASCII. Dot segments, encoded or
/// not, are refused: upstreams disagree about them, and a write must not slip past its rule.
pub fn normalise(path: &str) -> Result<Cow<'_, str>, MalformedPath> {
    let bytes = path.as_bytes();
    if is_plain(bytes) {
        return Ok(Cow::Borrowed(path));
    }
    let mut out: Vec<u8> = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        let byte = if byte == b'%' {
            let (decoded, tail) = escape(tail).ok_or(MalformedPath)?;
            if stays_encoded(decoded) {
                out.push(b'%');
                out.extend(tail_upper(rest));
                rest = tail;
                continue;
            }
            rest = tail;
            decoded
        } else {
            byte
        };
        if byte == b'/' && out.last() == Some(&b'/') {
            continue;
        }
        out.push(byte);
    }
    if out.len() > 1 && out.last() == Some(&b'/') {
        out.pop();
    }
    if out.split(|&b| b == b'/').any(|segment| segment == b"." || segment == b"..") {
        return Err(MalformedPath);
    }
    String::from_utf8(out).map(Cow::Owned).map_err(|_| MalformedPath)
}

/// Whether nothing of the path would change: no escape, no empty or dotted segment, no trailing slash. One pass, because
/// every request pays it.
fn is_plain(path: &[u8]) -> bool {
    let mut after_slash = false;
    for byte in path {
        if *byte == b'%' || after_slash && matches!(byte, b'/' | b'.') {
            return false;
        }
        after_slash = *byte == b'/';
    }
    !after_slash || path.len() == 1
}

/// All escapes decoded, for names of scopes. Bytes that are no UTF-8 are replaced, which can only make two scopes one.
pub fn percent_decode(text: &str) -> Cow<'_, str> {
    percent_encoding::percent_decode_str(text).decode_utf8_lossy()
}

fn escape(after_percent: &[u8]) -> Option<(u8, &[u8])> {
    let (&[high, low], tail) = after_percent.split_first_chunk()?;
    let digit = |b: u8| char::from(b).to_digit(16).map(|d| d as u8);
    Some((digit(high)? << 4 | digit(low)?, tail))
}

fn tail_upper(after_percent: &[u8]) -> impl Iterator<Item = u8> + '_ {
    after_percent.iter().take(2).map(u8::to_ascii_uppercase)
}

fn stays_encoded(byte: u8) -> bool {
    !byte.is_ascii() || byte.is_ascii_control() || b" /\\%?#".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_of_paths() {
        for (path, expected) in [
            ("/query-data", Ok("/query-data")),
            ("/", Ok("/")),
            ("", Ok("")),
            ("//", Ok("/")),
            ("//query-data", Ok("/query-data")),
            ("/query-data/", Ok("/query-data")),
            ("/%75psert", Ok("/upsert")),
            ("/upsert%2fns", Ok("/upsert%2Fns")),
            ("/query-data/n%20s/1", Ok("/query-data/n%20s/1")),
            ("/query/caf%c3%a9", Ok("/query/caf%C3%A9")),
            ("/v1/.well-known", Ok("/v1/.well-known")),
            ("/a/../upsert", Err(MalformedPath)),
            ("/a/%2e%2E/upsert", Err(MalformedPath)),
            ("/./upsert", Err(MalformedPath)),
            ("/bad%zz", Err(MalformedPath)),
            ("/cut%2", Err(MalformedPath)),
        ] {
            assert_eq!(normalise(path).as_deref(), expected.as_ref().map(|s| *s), "{path}");
        }
    }

    #[test]
    fn names_of_scopes_are_decoded_whole() {
        assert_eq!(percent_decode("n%20s%2F1"), "n s/1");
        assert_eq!(percent_decode("100%"), "100%");
    }
}
