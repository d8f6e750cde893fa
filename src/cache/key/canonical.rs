//! One digest for all spellings of a JSON text that mean the same to every parser (RFC 8259).
//!
//! Ignored: the order of members (RFC 8259 section 4 leaves it without a meaning; for the stores that give it one, it
//! counts), insignificant white space, how characters of a string are escaped. Not ignored: the spelling of numbers (`1`
//! and `1.0` may be two ids), the order of elements, null against absent.
//! Where parsers disagree about the meaning there is no digest, and the bytes themselves are the identity.

use std::borrow::Cow;

use super::{Keyring, Stream};
use crate::json::{Invalid, Kind, Scanner};

/// A text with more members has no digest: their list is the one thing here that takes memory, and no search is so.
const MAX_MEMBERS: usize = 1 << 16;

/// There is no canonical form.
struct Ambiguous;

impl From<Invalid> for Ambiguous {
    fn from(_: Invalid) -> Self {
        Ambiguous
    }
}

/// `None` where the body is not one JSON text in UTF-8, is nested too deep, names a member twice at any depth (section
/// 4: parsers disagree which one holds), or holds half of a surrogate pair (section 8.2: unpredictable).
pub(super) fn digest(keyring: &Keyring, body: &[u8]) -> Option<u128> {
    walk(keyring, body, false)
}

/// As [`digest`], but the order of members counts.
pub(super) fn ordered_digest(keyring: &Keyring, body: &[u8]) -> Option<u128> {
    walk(keyring, body, true)
}

fn walk(keyring: &Keyring, body: &[u8], ordered: bool) -> Option<u128> {
    std::str::from_utf8(body).ok()?;
    let mut out = keyring.stream();
    let mut walk = Walk { keyring, ordered, scanner: Scanner::new(body), members: 0 };
    walk.value(&mut out).ok()?;
    walk.scanner.end().ok()?;
    Some(out.digest())
}

struct Walk<'a> {
    keyring: &'a Keyring,
    ordered: bool,
    scanner: Scanner<'a>,
    members: usize,
}

impl<'a> Walk<'a> {
    /// Writes a form of the next value that can be read back in one way only: each kind begins with a byte of its own,
    /// and ends by its length or by a byte that cannot continue it. As deep as the scanner lets it, which is a small
    /// stack.
    fn value(&mut self, out: &mut Stream) -> Result<(), Ambiguous> {
        match self.scanner.kind()? {
            Kind::Object => self.object(out)?,
            Kind::Array => self.array(out)?,
            Kind::String => {
                let text = self.scanner.string()?.decode().ok_or(Ambiguous)?;
                out.raw(b"\"");
                out.bytes(&text);
            }
            Kind::Number => out.raw(self.scanner.number()?),
            Kind::Literal => out.raw(self.scanner.literal()?.as_bytes()),
        }
        Ok(())
    }

    /// Each value becomes a digest of its own, so that the members can be put in order without keeping their values.
    fn object(&mut self, out: &mut Stream) -> Result<(), Ambiguous> {
        let mut members: Vec<(Cow<'a, [u8]>, u128)> = Vec::new();
        let mut entered = self.scanner.object()?;
        while let Some(name) = entered.next(&mut self.scanner)? {
            self.members += 1;
            if self.members > MAX_MEMBERS {
                return Err(Ambiguous);
            }
            let mut inner = self.keyring.stream();
            self.value(&mut inner)?;
            members.push((name.decode().ok_or(Ambiguous)?, inner.digest()));
        }
        if self.ordered {
            write_members(out, &members);
        }
        members.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        if members.windows(2).any(|pair| matches!(pair, [(a, _), (b, _)] if a == b)) {
            return Err(Ambiguous);
        }
        if !self.ordered {
            write_members(out, &members);
        }
        Ok(())
    }

    /// A comma behind every element, so that a vector's numbers are written as they lie in the body.
    fn array(&mut self, out: &mut Stream) -> Result<(), Ambiguous> {
        out.raw(b"[");
        let mut elements = self.scanner.array()?;
        while elements.next(&mut self.scanner)? {
            if self.scanner.kind()? == Kind::Number {
                out.raw(self.scanner.numbers()?);
            } else {
                self.value(out)?;
            }
            out.raw(b",");
        }
        out.raw(b"]");
        Ok(())
    }
}

fn write_members(out: &mut Stream, members: &[(Cow<'_, [u8]>, u128)]) {
    out.raw(b"{");
    out.length(members.len());
    for (name, value) in members {
        out.bytes(name);
        out.raw(&value.to_le_bytes());
    }
}
