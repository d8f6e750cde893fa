//! Values by their place (RFC 6901), read where they lie.
//!
//! What is found decides which stored answers a write drops and what may be stored, so a value counts only where every
//! parser would find the same one: a member that comes twice, or once in another case as well (Go's parser takes
//! either), is [`Found::Unclear`], and so is everything in content that is not JSON as the [`Scanner`] reads it.

use super::{Invalid, Kind, Scanner, Text, unescape};

/// Pointers that one reading can look for. Those beyond are unclear.
const MOST: usize = u64::BITS as usize;

/// A place in a JSON text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pointer {
    tokens: Vec<String>,
}

/// What stands at a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found<'a> {
    /// Nothing, for every reader.
    Absent,
    /// This value, as it is spelled.
    Value(&'a [u8]),
    /// Readers may differ.
    Unclear,
}

/// A value without parts, to compare with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scalar {
    /// A string, by what it stands for.
    Text(String),
    /// A number, `true`, `false` or `null`, by its spelling.
    Word(String),
}

impl Scalar {
    /// Whether the spelled value is this one.
    pub fn is(&self, value: &[u8]) -> bool {
        match self {
            Scalar::Text(text) => string(value).is_some_and(|found| found == *text),
            Scalar::Word(word) => value == word.as_bytes(),
        }
    }

    /// The value as text, as a query parameter carries it.
    pub fn text(&self) -> &str {
        match self {
            Scalar::Text(text) | Scalar::Word(text) => text,
        }
    }
}

/// The text of a spelled string; `None` for any other value, and for a string without a text.
pub fn string(value: &[u8]) -> Option<std::borrow::Cow<'_, str>> {
    unescape(value.strip_prefix(b"\"")?.strip_suffix(b"\"")?)
}

impl Pointer {
    /// Reads the text of a pointer (section 3): empty, or names behind slashes, `~1` for a slash and `~0` for a tilde.
    pub fn parse(text: &str) -> Option<Self> {
        if text.is_empty() {
            return Some(Self { tokens: Vec::new() });
        }
        let tokens = text.strip_prefix('/')?.split('/').map(|token| {
            let good = token.split('~').skip(1).all(|rest| rest.starts_with(['0', '1']));
            // In this order, or `~01` would become a slash (section 4).
            good.then(|| token.replace("~1", "/").replace("~0", "~"))
        });
        Some(Self { tokens: tokens.collect::<Option<_>>()? })
    }
}

impl std::fmt::Display for Pointer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.tokens.iter().try_for_each(|token| write!(f, "/{}", token.replace('~', "~0").replace('/', "~1")))
    }
}

/// What stands at each of these places, in one reading of the content.
pub fn find<'a>(content: &'a [u8], pointers: &[&Pointer]) -> Vec<Found<'a>> {
    let mut search = Search {
        pointers,
        content,
        scanner: Scanner::new(content),
        found: (0..pointers.len())
            .map(|index| if index < MOST { Found::Absent } else { Found::Unclear })
            .collect(),
    };
    let wanted = (0..pointers.len().min(MOST)).fold(0, |wanted, index| wanted | 1 << index);
    if search.value(wanted, 0).and_then(|()| search.scanner.end()).is_err() {
        search.found.fill(Found::Unclear);
    }
    search.found
}

struct Search<'p, 'a> {
    pointers: &'p [&'p Pointer],
    content: &'a [u8],
    scanner: Scanner<'a>,
    found: Vec<Found<'a>>,
}

/// The pointers whose bits are set.
fn each<'p>(pointers: &'p [&'p Pointer], bits: u64) -> impl Iterator<Item = (usize, &'p Pointer)> {
    pointers.iter().copied().enumerate().take(MOST).filter(move |(index, _)| bits >> index & 1 == 1)
}

impl<'a> Search<'_, 'a> {
    /// Reads the next value, which stands `depth` names deep on the way of the pointers in `wanted`, one bit each.
    /// Goes as deep as the longest pointer: what nobody wants is passed over.
    fn value(&mut self, wanted: u64, depth: usize) -> Result<(), Invalid> {
        let ends = |pointer: &Pointer| pointer.tokens.len() == depth;
        let here = each(self.pointers, wanted)
            .filter(|(_, p)| ends(p))
            .fold(0, |bits, (index, _)| bits | 1 << index);
        let kind = self.scanner.kind()?;
        let start = self.scanner.position();
        match (kind, wanted & !here) {
            (Kind::Object, below) if below != 0 => self.object(below, depth)?,
            (Kind::Array, below) if below != 0 => self.array(below, depth)?,
            _ => {
                self.scanner.skip()?;
            }
        }
        let span = self.content.get(start..self.scanner.position()).unwrap_or_default();
        self.note(here, Found::Value(span));
        Ok(())
    }

    fn object(&mut self, wanted: u64, depth: usize) -> Result<(), Invalid> {
        let (mut seen, mut twice) = (0, 0);
        let mut members = self.scanner.object()?;
        while let Some(name) = members.next(&mut self.scanner)? {
            let mut same = 0;
            for (index, pointer) in each(self.pointers, wanted) {
                match pointer.tokens.get(depth).map(|token| likeness(&name, token)) {
                    Some(Likeness::Same) => same |= 1 << index,
                    Some(Likeness::Near) => twice |= 1 << index,
                    Some(Likeness::None) | None => {}
                }
            }
            twice |= seen & same;
            seen |= same;
            self.step(same, depth)?;
        }
        self.note(twice, Found::Unclear);
        Ok(())
    }

    fn array(&mut self, wanted: u64, depth: usize) -> Result<(), Invalid> {
        let mut elements = self.scanner.array()?;
        let mut place = 0_usize;
        while elements.next(&mut self.scanner)? {
            let stands = |pointer: &Pointer| pointer.tokens.get(depth).and_then(|token| element(token));
            let same = each(self.pointers, wanted)
                .filter(|(_, pointer)| stands(pointer) == Some(place))
                .fold(0, |bits, (index, _)| bits | 1 << index);
            self.step(same, depth)?;
            place += 1;
        }
        Ok(())
    }

    fn step(&mut self, same: u64, depth: usize) -> Result<(), Invalid> {
        if same == 0 { self.scanner.skip().map(|_| ()) } else { self.value(same, depth + 1) }
    }

    /// What was unclear stays so.
    fn note(&mut self, bits: u64, what: Found<'a>) {
        for (index, found) in self.found.iter_mut().enumerate().take(MOST) {
            if bits >> index & 1 == 1 && *found != Found::Unclear {
                *found = what;
            }
        }
    }
}

/// Which element a token stands for (section 4): digits without a leading zero.
fn element(token: &str) -> Option<usize> {
    let plain = token == "0" || !token.starts_with(['0', '+']);
    token.parse().ok().filter(|_| plain)
}

enum Likeness {
    Same,
    /// Some parsers take one for the other.
    Near,
    None,
}

fn likeness(name: &Text<'_>, token: &str) -> Likeness {
    if name.is(token) {
        return Likeness::Same;
    }
    // The common case pays for no text: names of other lengths that are plain ASCII.
    if name.raw.is_ascii() && memchr::memchr(b'\\', name.raw).is_none() {
        return if name.raw.eq_ignore_ascii_case(token.as_bytes()) { Likeness::Near } else { Likeness::None };
    }
    let folded = |text: &str| text.to_uppercase().to_lowercase();
    match unescape(name.raw) {
        Some(text) if folded(&text) != folded(token) => Likeness::None,
        // A name without a text: who knows what a parser makes of it.
        _ => Likeness::Near,
    }
}

#[cfg(test)]
mod tests;
