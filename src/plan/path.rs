//! The path as rules and routes see it. The original bytes are what is forwarded.

use std::borrow::Cow;

/// The path holds dot segments or a broken escape: refused rather than guessed at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MalformedPath;

/// The normalised path: slashes collapsed, a trailing one dropped, escapes decoded where the meaning cannot change
/// (RFC 3986 section 6.2.2), so `/%75psert//n/` is seen as `/upsert/n`.
///
/// Kept encoded: controls, space, DEL, `/`, `\`, `%`, `?`, `#` and bytes that are not ASCII. Dot segments, encoded or
/// not, are refused: upstreams disagree about them, and a write must not slip past its rule. What is behind an encoded slash
/// or a backslash counts as a segment (nginx decodes first and then takes the dots away), and what is behind a `;` does not
/// (Tomcat). An upstream that decodes twice is not looked out for: `%252E` is the name `%2E`.
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
    let out = String::from_utf8(out).map_err(|_| MalformedPath)?;
    if has_dots(&out) { Err(MalformedPath) } else { Ok(Cow::Owned(out)) }
}

/// Whether a segment is dots for any upstream. Of the escapes, the decodable are gone, and the others in capitals.
fn has_dots(path: &str) -> bool {
    path.contains('.')
        && path
            .split(['/', '\\'])
            .flat_map(|part| part.split("%2F"))
            .flat_map(|part| part.split("%5C"))
            .any(|segment| matches!(segment.split(';').next(), Some("." | "..")))
}

/// Whether nothing of the path would change: no escape, no empty or dotted segment, no trailing slash. A backslash counts
/// where dots are behind it. One pass, because every request pays it.
fn is_plain(path: &[u8]) -> bool {
    let mut last = 0;
    for &byte in path {
        match byte {
            b'%' => return false,
            b'/' if last == b'/' => return false,
            b'.' if matches!(last, b'/' | b'\\') => return false,
            _ => last = byte,
        }
    }
    last != b'/' || path.len() == 1
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
            ("/query/x%2F..%2F..%2Freset", Err(MalformedPath)),
            ("/query/x%2f%2e%2e%2f%2e%2e%2freset", Err(MalformedPath)),
            ("/query/..%2Freset", Err(MalformedPath)),
            ("/query/x%2F.", Err(MalformedPath)),
            ("/query/..%5creset", Err(MalformedPath)),
            ("/query\\..\\reset", Err(MalformedPath)),
            ("/query%5C..", Err(MalformedPath)),
            ("/query/..;/reset", Err(MalformedPath)),
            ("/query/.;x=1/reset", Err(MalformedPath)),
            ("/query/..%3B/reset", Err(MalformedPath)),
            ("/query%2F..;%2Freset", Err(MalformedPath)),
            ("/query/...%2F.x/x..", Ok("/query/...%2F.x/x..")),
            ("/query/x;..", Ok("/query/x;..")),
            ("/query\\x", Ok("/query\\x")),
            ("/query/%252E%252e", Ok("/query/%252E%252e")),
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
