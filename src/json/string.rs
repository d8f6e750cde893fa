//! Where a string ends, and whether all of it may stand in one (RFC 8259 section 7).
//!
//! A long conversation is almost nothing but the insides of strings, so this is what reading one costs. Text is dense
//! with escapes, and a branch on each would be mispredicted: blocks are weighed whole, by words of one bit a byte.

use std::ops::BitOr as _;

use super::Invalid;
use super::block::{BLOCK, Block, Lane, any_set, equal, upto};

/// A string is longer than this where it pays to look at blocks.
const SHORT: usize = 16;

/// The inside of a string, seen from behind its opening quote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Inside {
    /// Bytes before the closing quote.
    pub(super) len: usize,
    /// Some character is escaped.
    pub(super) escaped: bool,
    /// Nothing but ASCII. Also false where only bytes behind the string are not.
    pub(super) ascii: bool,
}

/// Fails where the string does not end, holds a control character or an escape that there is not.
#[inline]
pub(super) fn inside(bytes: &[u8]) -> Result<Inside, Invalid> {
    let mut len = 0;
    // Names and roles end in here, and a call for each would cost more than they do.
    while len < SHORT {
        let Some(word) = bytes.get(len..).and_then(|rest| rest.first_chunk()) else { break };
        let word = u64::from_le_bytes(*word);
        let found = special(word);
        if found != 0 {
            let at = found.trailing_zeros() / 8;
            if (word >> (at * 8)) as u8 != b'"' {
                break;
            }
            return Ok(Inside { len: len + at as usize, escaped: false, ascii: true });
        }
        len += 8;
    }
    long(bytes)
}

/// Has the high bit of the first byte set that is a quote, a backslash, a control character or not ASCII. Behind it,
/// others may be set that are none of these: a borrow runs on.
fn special(word: u64) -> u64 {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    const HIGH: u64 = u64::from_ne_bytes([0x80; 8]);
    const SLASHES: u64 = u64::from_ne_bytes([b'\\'; 8]);
    // Puts the quote next to the control characters.
    let low = word ^ (ONES * 2);
    let slash = word ^ SLASHES;
    let low = low.wrapping_sub(ONES * 0x21) & !low;
    let slash = slash.wrapping_sub(ONES) & !slash;
    (low | slash | word) & HIGH
}

#[inline(never)]
fn long(bytes: &[u8]) -> Result<Inside, Invalid> {
    let mut walk = Walk::default();
    let mut rest = bytes;
    let mut last = [0; BLOCK];
    loop {
        let (block, behind) = if let Some(split) = rest.split_first_chunk() {
            split
        } else {
            // Filled up with what may not stand in a string: there is no next block.
            last.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
            (&last, [].as_slice())
        };
        if let Some(end) = walk.read(block)? {
            let len = bytes.len() - rest.len() + end;
            return Ok(Inside { len, escaped: walk.escaped, ascii: walk.ascii });
        }
        rest = behind;
    }
}

/// What one block leaves to the next.
struct Walk {
    /// 1 where the first byte is escaped by the last one of the block before.
    escape: u64,
    /// Which of the first bytes are digits of a `\u` that began before.
    digits: u64,
    /// The block before had a backslash, so most likely this one has one.
    dense: bool,
    escaped: bool,
    ascii: bool,
}

impl Default for Walk {
    fn default() -> Self {
        Walk { escape: 0, digits: 0, dense: false, escaped: false, ascii: true }
    }
}

impl Walk {
    /// Where the string ends in this block, if it does.
    #[inline]
    fn read(&mut self, bytes: &[u8; BLOCK]) -> Result<Option<usize>, Invalid> {
        let block = Block::load(bytes);
        if !self.dense {
            let slash = block.map(|lane| equal(lane, b'\\')).fold(Lane::bitor);
            // Puts what is not ASCII below the control characters, and the quote next to these.
            let low = block.map(|lane| lane ^ Lane::splat(0x82)).fold(Lane::min);
            if !any_set(upto(low, 0xa0) | slash) {
                return Ok(None);
            }
            let low = block.map(|lane| lane ^ Lane::splat(2)).fold(Lane::min);
            if !any_set(upto(low, 0x20) | slash) {
                self.ascii = false;
                return Ok(None);
            }
        }
        self.ascii &= !any_set(block.fold(Lane::bitor));
        self.weigh(bytes, block)
    }

    #[inline]
    fn weigh(&mut self, bytes: &[u8; BLOCK], block: Block) -> Result<Option<usize>, Invalid> {
        let quotes = block.bits(|lane| equal(lane, b'"'));
        let slashes = block.bits(|lane| equal(lane, b'\\'));
        let (mut ends, mut wrong) = (quotes, 0);
        self.dense = slashes != 0;
        if slashes | self.escape | self.digits != 0 {
            let escapes = self.escapes(slashes);
            ends = quotes & !escapes;
            // A line's end, a quote and a backslash are nearly all there is.
            let others = escapes & !(quotes | slashes | block.bits(|lane| equal(lane, b'n')));
            if others | self.digits != 0 {
                (wrong, self.digits) = broken(bytes, others, self.digits);
            }
            self.dense |= self.escape | self.digits != 0;
        }
        if any_set(upto(block.fold(Lane::min), 0x1f)) {
            wrong |= block.bits(|lane| upto(lane, 0x1f));
        }
        // All bits up to the first end; all there are where there is none. What stands behind is not the string's.
        let ours = ends ^ ends.wrapping_sub(1);
        if wrong & ours != 0 {
            return Err(Invalid::Syntax);
        }
        self.escaped |= slashes & ours != 0;
        Ok((ends != 0).then_some(ends.trailing_zeros() as usize))
    }

    /// The bytes that are escaped. In a run of backslashes every other one escapes, from its beginning on; the
    /// subtraction carries where a run began to where it ends.
    #[inline]
    fn escapes(&mut self, slashes: u64) -> u64 {
        const ODD: u64 = 0xaaaa_aaaa_aaaa_aaaa;
        let first = slashes & !self.escape;
        let runs = (first << 1 | ODD).wrapping_sub(first) ^ ODD;
        let escaped = runs ^ (slashes | self.escape);
        self.escape = (runs & slashes) >> 63;
        escaped
    }
}

/// Of `escapes`, and of the digits that are wanted behind each `\u`, those that are something else. Then the digits
/// that are wanted of the next block.
#[inline(never)]
fn broken(bytes: &[u8; BLOCK], escapes: u64, digits: u64) -> (u64, u64) {
    let block = Block::load(bytes);
    let unicode = escapes & block.bits(|lane| equal(lane, b'u'));
    let wanted = unicode << 1 | unicode << 2 | unicode << 3 | unicode << 4 | digits;
    let mut wrong = escapes & !unicode;
    if wrong != 0 {
        // Without bit 2, `f` is `b`.
        let letter = |lane| equal(lane & Lane::splat(!4), b'b') | equal(lane, b'r') | equal(lane, b't');
        wrong &= !block.bits(|lane| letter(lane) | equal(lane, b'/'));
    }
    if wanted != 0 {
        let numeral = |lane| upto(lane - Lane::splat(b'0'), 9);
        let letter = |lane| upto((lane | Lane::splat(0x20)) - Lane::splat(b'a'), 5);
        wrong |= wanted & !block.bits(|lane| numeral(lane) | letter(lane));
    }
    (wrong, unicode >> 63 | unicode >> 62 | unicode >> 61 | unicode >> 60)
}

#[cfg(test)]
mod tests;
