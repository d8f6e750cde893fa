//! JSON read where it lies: a forward-only scanner over bytes (RFC 8259). No tree, no allocation, no recursion.
//!
//! It decides where values begin and end, strictly: what it accepts every conforming parser accepts, so a splice
//! or a cache key built on its spans means the same to the upstream. It must never repair, reorder or re-spell
//! anything. Whether the bytes are UTF-8 is left to callers that depend on it.

pub mod pointer;
mod string;
mod text;
mod utf8;

use std::ops::Range;

pub use text::{Text, spelled_plainly, unescape};
pub use utf8::is_utf8;

/// Containers may be nested this deep, the outermost counted (RFC 8259 section 9 lets a parser set the limit).
pub const MAX_DEPTH: u32 = 128;

/// Bytes looked at as one, in vectors as wide as the CPU has: one for each bit of a word.
const BLOCK: usize = 64;

/// Why bytes are not a JSON text that we read. As wide as what stands in its place in a result: written in one byte and
/// read in eight, it would stall every string.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Invalid {
    /// It breaks the grammar of RFC 8259, carries a byte order mark (section 8.1) or is cut short.
    Syntax,
    /// Nested deeper than [`MAX_DEPTH`].
    TooDeep,
    /// The top-level value is not an object, and an object was asked for.
    NotObject,
}

/// What a value is, by its first byte (RFC 8259 section 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `{`
    Object,
    /// `[`
    Array,
    /// `"`
    String,
    /// `-` or a digit.
    Number,
    /// `true`, `false` or `null`.
    Literal,
}

/// A position in a JSON text, moving forward only. After an error it is of no further use.
#[derive(Clone, Debug)]
pub struct Scanner<'a> {
    bytes: &'a [u8],
    at: usize,
    depth: u32,
    ascii: bool,
    escaped: u64,
}

/// The members of an object that a [`Scanner`] is inside of.
#[derive(Debug)]
pub struct Members {
    first: bool,
}

/// The elements of an array that a [`Scanner`] is inside of.
#[derive(Debug)]
pub struct Elements {
    first: bool,
}

impl Members {
    /// The name of the next member; the scanner then stands before its value, which must be read or skipped before
    /// the next call. `None` once the object is closed.
    pub fn next<'a>(&mut self, scanner: &mut Scanner<'a>) -> Result<Option<Text<'a>>, Invalid> {
        scanner.white();
        let first = std::mem::replace(&mut self.first, false);
        match scanner.peek() {
            Some(b'}') => {
                scanner.close();
                Ok(None)
            }
            Some(b'"') if first => scanner.name().map(Some),
            Some(b',') if !first => {
                scanner.at += 1;
                scanner.name().map(Some)
            }
            _ => Err(Invalid::Syntax),
        }
    }
}

impl Elements {
    /// Whether there is another element; the scanner then stands before it, and it must be read or skipped before
    /// the next call.
    pub fn next(&mut self, scanner: &mut Scanner<'_>) -> Result<bool, Invalid> {
        scanner.white();
        let first = std::mem::replace(&mut self.first, false);
        match scanner.peek() {
            Some(b']') => {
                scanner.close();
                Ok(false)
            }
            Some(b',') if !first => {
                scanner.at += 1;
                scanner.white();
                Ok(true)
            }
            Some(_) if first => Ok(true),
            _ => Err(Invalid::Syntax),
        }
    }
}

impl<'a> Scanner<'a> {
    /// Stands before the first byte.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Scanner { bytes, at: 0, depth: 0, ascii: true, escaped: 0 }
    }

    /// What the next value is; the scanner then stands at its first byte. The rest of it is not checked yet.
    pub fn kind(&mut self) -> Result<Kind, Invalid> {
        self.white();
        match self.peek() {
            Some(b'{') => Ok(Kind::Object),
            Some(b'[') => Ok(Kind::Array),
            Some(b'"') => Ok(Kind::String),
            Some(b'-' | b'0'..=b'9') => Ok(Kind::Number),
            Some(b't' | b'f' | b'n') => Ok(Kind::Literal),
            _ => Err(Invalid::Syntax),
        }
    }

    /// The offset it stands at.
    pub const fn position(&self) -> usize {
        self.at
    }

    /// All that was read or passed over is ASCII. May be false where only bytes close behind it are not.
    pub const fn is_ascii(&self) -> bool {
        self.ascii
    }

    /// Reads a string and counts its characters. A character beyond the basic plane that is escaped counts as two
    /// (RFC 8259 section 7 spells it as a pair).
    pub fn counted_string(&mut self) -> Result<(Text<'a>, u64), Invalid> {
        let before = self.escaped;
        let text = self.string()?;
        let continuations = if self.ascii { 0 } else { utf8::continuations(text.raw) };
        Ok((text, text.raw.len() as u64 - continuations - (self.escaped - before)))
    }

    /// Enters an object.
    pub fn object(&mut self) -> Result<Members, Invalid> {
        self.open(b'{')?;
        Ok(Members { first: true })
    }

    /// Enters an array.
    pub fn array(&mut self) -> Result<Elements, Invalid> {
        self.open(b'[')?;
        Ok(Elements { first: true })
    }

    /// Reads a string.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "a call would cost a name more than reading it does")]
    pub fn string(&mut self) -> Result<Text<'a>, Invalid> {
        self.white();
        if self.peek() != Some(b'"') {
            return Err(Invalid::Syntax);
        }
        self.at += 1;
        let rest = self.rest();
        let inside = string::inside(rest).ok_or(Invalid::Syntax)?;
        let raw = rest.get(..inside.len).ok_or(Invalid::Syntax)?;
        self.at += inside.len + 1;
        self.ascii &= inside.ascii;
        self.escaped += u64::from(inside.beyond);
        Ok(Text { raw })
    }

    /// Reads a number, as it is spelled (RFC 8259 section 6).
    pub fn number(&mut self) -> Result<&'a [u8], Invalid> {
        self.white();
        let rest = self.rest();
        let len = number_len(rest).ok_or(Invalid::Syntax)?;
        self.at += len;
        rest.get(..len).ok_or(Invalid::Syntax)
    }

    /// Reads a number and all that follow it with nothing but a comma between, as they are spelled: `1,2.50,-3`.
    pub fn numbers(&mut self) -> Result<&'a [u8], Invalid> {
        self.white();
        let start = self.at;
        loop {
            self.at += number_len(self.rest()).ok_or(Invalid::Syntax)?;
            match self.rest() {
                [b',', b'-' | b'0'..=b'9', ..] => self.at += 1,
                _ => return self.bytes.get(start..self.at).ok_or(Invalid::Syntax),
            }
        }
    }

    /// Reads `true`, `false` or `null`.
    pub fn literal(&mut self) -> Result<&'static str, Invalid> {
        self.white();
        let rest = self.rest();
        for word in ["true", "false", "null"] {
            if rest.starts_with(word.as_bytes()) {
                self.at += word.len();
                return Ok(word);
            }
        }
        Err(Invalid::Syntax)
    }

    /// Passes over the next value, whatever it is, and gives its span without the white space around it.
    pub fn skip(&mut self) -> Result<Range<usize>, Invalid> {
        self.white();
        let start = self.at;
        // One bit per container opened here, the innermost lowest: set for objects.
        let mut objects = 0_u128;
        let floor = self.depth;
        loop {
            match self.kind()? {
                Kind::Object => {
                    let mut members = self.object()?;
                    if members.next(self)?.is_some() {
                        objects = objects << 1 | 1;
                        continue;
                    }
                }
                Kind::Array => {
                    let mut elements = self.array()?;
                    if elements.next(self)? {
                        objects <<= 1;
                        continue;
                    }
                }
                Kind::String => {
                    self.string()?;
                }
                Kind::Number => {
                    self.number()?;
                }
                Kind::Literal => {
                    self.literal()?;
                }
            }
            loop {
                if self.depth == floor {
                    return Ok(start..self.at);
                }
                let another = if objects & 1 == 1 {
                    Members { first: false }.next(self)?.is_some()
                } else {
                    Elements { first: false }.next(self)?
                };
                if another {
                    break;
                }
                objects >>= 1;
            }
        }
    }

    /// Only white space is left.
    pub fn end(&mut self) -> Result<(), Invalid> {
        self.white();
        if self.at == self.bytes.len() { Ok(()) } else { Err(Invalid::Syntax) }
    }

    #[inline]
    fn name(&mut self) -> Result<Text<'a>, Invalid> {
        let name = self.string()?;
        self.white();
        if self.peek() != Some(b':') {
            return Err(Invalid::Syntax);
        }
        self.at += 1;
        Ok(name)
    }

    fn open(&mut self, bracket: u8) -> Result<(), Invalid> {
        self.white();
        if self.peek() != Some(bracket) {
            return Err(Invalid::Syntax);
        }
        if self.depth == MAX_DEPTH {
            return Err(Invalid::TooDeep);
        }
        self.at += 1;
        self.depth += 1;
        Ok(())
    }

    fn close(&mut self) {
        self.at += 1;
        self.depth -= 1;
    }

    fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn white(&mut self) {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.peek() {
            self.at += 1;
        }
    }
}

/// Reads a JSON text whose top-level value is an object, and hands each member's name and the span of its value to
/// `visit`. Names that come twice are handed on twice. What was visited before an error says nothing.
pub fn top_level<'a>(body: &'a [u8], mut visit: impl FnMut(&Text<'a>, Range<usize>)) -> Result<(), Invalid> {
    let mut scanner = Scanner::new(body);
    if scanner.kind()? != Kind::Object {
        scanner.skip()?;
        scanner.end()?;
        return Err(Invalid::NotObject);
    }
    let mut members = scanner.object()?;
    while let Some(name) = members.next(&mut scanner)? {
        let span = scanner.skip()?;
        visit(&name, span);
    }
    scanner.end()
}

/// Whether the bytes are one JSON text, as the [`Scanner`] reads it.
pub fn is_text(bytes: &[u8]) -> bool {
    let mut scanner = Scanner::new(bytes);
    scanner.skip().and_then(|_| scanner.end()).is_ok()
}

/// Whether a value (as spanned by the scanner) is an array without elements.
pub fn is_empty_array(value: &[u8]) -> bool {
    let mut scanner = Scanner::new(value);
    let empty = scanner.array().and_then(|mut elements| elements.next(&mut scanner)).is_ok_and(|more| !more);
    empty && scanner.end().is_ok()
}

/// Whether a value (as spanned by the scanner) is `null` or `false`: how APIs spell an option that is off.
pub fn is_null_or_false(value: &[u8]) -> bool {
    matches!(value.trim_ascii(), b"null" | b"false")
}

fn number_len(rest: &[u8]) -> Option<usize> {
    let digits = |from: usize| digits(rest.get(from..).unwrap_or_default());
    let mut at = usize::from(rest.first() == Some(&b'-'));
    at += match rest.get(at)? {
        b'0' => 1,
        b'1'..=b'9' => digits(at),
        _ => return None,
    };
    if rest.get(at) == Some(&b'.') {
        let fraction = digits(at + 1);
        if fraction == 0 {
            return None;
        }
        at += 1 + fraction;
    }
    if let Some(b'e' | b'E') = rest.get(at) {
        at += 1 + usize::from(matches!(rest.get(at + 1), Some(b'+' | b'-')));
        let exponent = digits(at);
        if exponent == 0 {
            return None;
        }
        at += exponent;
    }
    Some(at)
}

/// How many digits `bytes` begins with. Eight at a time: the digits of a vector's numbers are most of a search.
fn digits(bytes: &[u8]) -> usize {
    const ZEROS: u64 = u64::from_ne_bytes([b'0'; 8]);
    const LOW: u64 = u64::from_ne_bytes([0x7f; 8]);
    const HIGH: u64 = u64::from_ne_bytes([0x80; 8]);
    // Brings 10 and above, and nothing below, to the high bit.
    const OVER: u64 = u64::from_ne_bytes([0x80 - 10; 8]);
    let mut count = 0;
    let mut rest = bytes;
    while let Some((chunk, tail)) = rest.split_first_chunk() {
        let word = u64::from_le_bytes(*chunk);
        let others = ((((word ^ ZEROS) & LOW) + OVER) | word) & HIGH;
        if others != 0 {
            return count + others.trailing_zeros() as usize / 8;
        }
        count += 8;
        rest = tail;
    }
    count + rest.iter().take_while(|byte| byte.is_ascii_digit()).count()
}

/// What `dispatch!` may be given on this machine: not only its best.
#[cfg(test)]
fn levels() -> Vec<fearless_simd::Level> {
    let best = fearless_simd::Level::new();
    #[cfg(target_arch = "x86_64")]
    {
        use fearless_simd::Level::{Avx2, Avx512, Sse2, Sse4_2};
        let lower = [best.as_sse2().map(Sse2), best.as_sse4_2().map(Sse4_2), best.as_avx2().map(Avx2)];
        lower.into_iter().chain([best.as_avx512().map(Avx512)]).flatten().collect()
    }
    #[cfg(not(target_arch = "x86_64"))]
    vec![best]
}

#[cfg(test)]
mod tests;
