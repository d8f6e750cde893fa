//! What a JSON string stands for (RFC 8259 sections 7 and 8).

use std::borrow::Cow;

/// A string as it stands in the body (RFC 8259 section 7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Text<'a> {
    /// Between the quotes, escapes untouched.
    pub raw: &'a [u8],
}

impl<'a> Text<'a> {
    /// Whether the string means `name`, however it is escaped (RFC 8259 section 8.3).
    #[inline]
    pub fn is(&self, name: &str) -> bool {
        // Its first byte tells nearly every other name.
        let first = self.raw.first();
        (first == name.as_bytes().first() || first == Some(&b'\\')) && self.means(name)
    }

    fn means(&self, name: &str) -> bool {
        // An escape is longer than what it stands for, and six times as long at most (`\u0061`).
        if self.raw.len() == name.len() {
            return self.raw == name.as_bytes() && !name.contains('\\');
        }
        (name.len()..=name.len() * 6).contains(&self.raw.len())
            && self.decode().is_some_and(|text| *text == *name.as_bytes())
    }

    /// The bytes the string stands for. `None` for a surrogate without its partner, which has no UTF-8 form.
    pub fn decode(&self) -> Option<Cow<'a, [u8]>> {
        if memchr::memchr(b'\\', self.raw).is_none() {
            return Some(Cow::Borrowed(self.raw));
        }
        decode(self.raw).map(Cow::Owned)
    }
}

/// The text that the inside of a string stands for. `None` for what has no such text: a surrogate without its
/// partner, bytes that are not UTF-8, a broken escape.
pub fn unescape(raw: &[u8]) -> Option<Cow<'_, str>> {
    if memchr::memchr(b'\\', raw).is_none() {
        return std::str::from_utf8(raw).ok().map(Cow::Borrowed);
    }
    String::from_utf8(decode(raw)?).ok().map(Cow::Owned)
}

/// A JSON text in which each character of a string is spelled in one way: as itself, or, where section 7 forbids that, by
/// the shortest escape. Still a JSON text, of the same meaning. Without a backslash it is that already. Left as they are:
/// controls that have no short escape, and surrogates without a partner.
pub fn spelled_plainly(text: &[u8]) -> Cow<'_, [u8]> {
    if memchr::memchr(b'\\', text).is_none() {
        return Cow::Borrowed(text);
    }
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = memchr::memchr(b'\\', rest) {
        let (plain, escaped) = rest.split_at(at);
        out.extend_from_slice(plain);
        let (escape, tail) = escaped.split_at(escaped.len().min(2));
        let (short, tail) = match (escape, character(tail)) {
            (b"\\/", _) => (&b"/"[..], tail),
            (b"\\u", Some((character, behind))) => match short_escape(character) {
                Some(short) => (short, behind),
                None if character.is_ascii_control() => (escape, tail),
                None => {
                    out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                    (&[][..], behind)
                }
            },
            _ => (escape, tail),
        };
        out.extend_from_slice(short);
        rest = tail;
    }
    out.extend_from_slice(rest);
    Cow::Owned(out)
}

fn short_escape(character: char) -> Option<&'static [u8]> {
    Some(match character {
        '"' => b"\\\"",
        '\\' => b"\\\\",
        '\n' => b"\\n",
        '\r' => b"\\r",
        '\t' => b"\\t",
        '\u{8}' => b"\\b",
        '\u{c}' => b"\\f",
        _ => return None,
    })
}

/// The bytes behind the escapes of RFC 8259 section 7.
fn decode(raw: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(raw.len());
    let mut rest = raw;
    while let Some(found) = memchr::memchr(b'\\', rest) {
        let (plain, tail) = rest.split_at_checked(found)?;
        out.extend_from_slice(plain);
        let (&[_, letter], tail) = tail.split_first_chunk()?;
        rest = tail;
        let byte = match letter {
            b'"' | b'\\' | b'/' => letter,
            b'b' => 0x08,
            b'f' => 0x0c,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'u' => {
                let (character, tail) = character(tail)?;
                rest = tail;
                out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                continue;
            }
            _ => return None,
        };
        out.push(byte);
    }
    out.extend_from_slice(rest);
    Some(out)
}

/// The character that the digits after `\u` name, joining a surrogate pair.
fn character(after_u: &[u8]) -> Option<(char, &[u8])> {
    let (high, tail) = code_unit(after_u)?;
    if let Some(plain) = char::from_u32(high) {
        return Some((plain, tail));
    }
    let (low, tail) = code_unit(tail.strip_prefix(b"\\u")?)?;
    let pair = [high as u16, low as u16];
    let character = char::decode_utf16(pair).next()?.ok()?;
    Some((character, tail))
}

fn code_unit(digits: &[u8]) -> Option<(u32, &[u8])> {
    let (digits, tail) = digits.split_first_chunk::<4>()?;
    let value = digits.iter().try_fold(0, |sum, &digit| Some(sum << 4 | char::from(digit).to_digit(16)?))?;
    Some((value, tail))
}
