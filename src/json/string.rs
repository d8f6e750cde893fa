//! Where a string ends, and whether all of it may stand in one (RFC 8259 section 7).
//!
//! A long conversation is almost nothing but the insides of strings, so this is what reading one costs. Text is dense
//! with escapes, and a branch on each, or on each block with one, would be mispredicted: blocks are weighed whole, by
//! words of one bit a byte, and nothing branches before something rare.

#![expect(clippy::inline_always, reason = "only what is inlined is compiled for the CPU that was found")]

use fearless_simd::prelude::*;
use fearless_simd::{Level, dispatch, u8x64};

use super::BLOCK;

/// A string is longer than this where it pays to look at blocks.
const SHORT: usize = 16;

/// The inside of a string, seen from behind its opening quote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Inside {
    /// Bytes before the closing quote.
    pub(super) len: usize,
    /// Nothing but ASCII. Also false where only bytes behind the string are not.
    pub(super) ascii: bool,
    /// Bytes that escapes take beyond one for each.
    pub(super) beyond: u32,
}

/// `None` where the string does not end, holds a control character or an escape that there is not.
#[inline]
pub(super) fn inside(bytes: &[u8]) -> Option<Inside> {
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
            return Some(Inside { len: len + at as usize, ascii: true, beyond: 0 });
        }
        len += 8;
    }
    long(Level::new(), bytes)
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
fn long(level: Level, bytes: &[u8]) -> Option<Inside> {
    dispatch!(level, simd => walk(simd, bytes))
}

#[inline(always)]
fn walk<S: Simd>(simd: S, bytes: &[u8]) -> Option<Inside> {
    let (mut blocks, rest) = bytes.as_chunks();
    let (mut before, mut rest, mut filled) = (0, Some(rest), [[0; BLOCK]]);
    // The first byte is escaped by the last one before; which of the first are digits of a `\u` that began before.
    let (mut escape, mut digits) = (0, 0);
    let mut passing = true;
    let mut beyond = 0;
    // Asked once, where the string ends: what is wrong stays wrong.
    let (mut least, mut most) = (u8x64::splat(simd, u8::MAX), u8x64::splat(simd, 0));
    loop {
        let mut plain = 0;
        if passing {
            // A picture, as text, is megabytes without an escape.
            for bytes in blocks {
                let block = u8x64::simd_from(simd, *bytes);
                if (block.simd_eq(b'"') | block.simd_eq(b'\\')).any_true() {
                    break;
                }
                least = least.min(block);
                most |= block;
                plain += 1;
            }
        }
        passing = plain == blocks.len();
        for (at, bytes) in blocks.iter().enumerate().skip(plain) {
            let block = u8x64::simd_from(simd, *bytes);
            most |= block;
            let quotes = block.simd_eq(b'"').to_bitmask();
            let slashes = block.simd_eq(b'\\').to_bitmask();
            // A line's end, a quote and a backslash are nearly all that is ever escaped.
            let usual = (block.simd_eq(b'\\') | block.simd_eq(b'n')).to_bitmask();
            let (escapes, next) = escapes(slashes, escape);
            escape = next;
            // Leaves out the quotes that are escaped.
            if quotes ^ (escapes & !usual) | digits == 0 {
                least = least.min(block);
                beyond += escapes.count_ones();
                continue;
            }
            let mut wrong = block.simd_lt(0x20).to_bitmask();
            let ends = quotes & !escapes;
            // All bits up to the first end; all there are where there is none. What stands behind is not the string's.
            let ours = ends ^ ends.wrapping_sub(1);
            beyond += (escapes & ours).count_ones();
            let others = escapes & !(quotes | usual);
            if others | digits != 0 {
                let broken = broken(simd, bytes, others, digits);
                wrong |= broken.wrong;
                digits = broken.wanted;
                beyond += 4 * (broken.unicode & ours).count_ones();
            }
            if wrong & ours != 0 {
                return None;
            }
            if ends != 0 {
                if least.simd_lt(0x20).any_true() {
                    return None;
                }
                let len = before + at * BLOCK + ends.trailing_zeros() as usize;
                return Some(Inside { len, ascii: !most.simd_ge(0x80).any_true(), beyond });
            }
        }
        let rest = rest.take()?;
        before = bytes.len() - rest.len();
        filled.as_flattened_mut().iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
        blocks = &filled;
    }
}

/// The bytes that are escaped, and 1 if the first of the next block is. In a run of backslashes every other one escapes,
/// from its beginning on; the subtraction carries where a run began to where it ends.
#[inline(always)]
fn escapes(slashes: u64, escape: u64) -> (u64, u64) {
    const ODD: u64 = 0xaaaa_aaaa_aaaa_aaaa;
    let first = slashes & !escape;
    let runs = (first << 1 | ODD).wrapping_sub(first) ^ ODD;
    (runs ^ (slashes | escape), (runs & slashes) >> 63)
}

/// What rare escapes come to in a block.
struct Broken {
    /// Those that there are not, and what stands in the place of digits.
    wrong: u64,
    /// The digits that are wanted of the next block.
    wanted: u64,
    /// Each `u` behind a backslash.
    unicode: u64,
}

/// Looks at `escapes`, and at the digits that are wanted behind each `\u`.
// Cold: a call empties the vector registers, and they would be kept in memory for it in every block.
#[cold]
#[inline(never)]
fn broken<S: Simd>(simd: S, bytes: &[u8; BLOCK], escapes: u64, digits: u64) -> Broken {
    simd.vectorize(
        #[inline(always)]
        || {
            let block = u8x64::simd_from(simd, *bytes);
            let unicode = escapes & block.simd_eq(b'u').to_bitmask();
            let wanted = unicode << 1 | unicode << 2 | unicode << 3 | unicode << 4 | digits;
            let mut wrong = escapes & !unicode;
            if wrong != 0 {
                // Without bit 2, `f` is `b`.
                let letter = (block & !4).simd_eq(b'b') | block.simd_eq(b'r') | block.simd_eq(b't');
                wrong &= !(letter | block.simd_eq(b'/')).to_bitmask();
            }
            if wanted != 0 {
                let numeral = (block - b'0').simd_le(9);
                let letter = ((block | 0x20) - b'a').simd_le(5);
                wrong |= wanted & !(numeral | letter).to_bitmask();
            }
            let wanted = unicode >> 63 | unicode >> 62 | unicode >> 61 | unicode >> 60;
            Broken { wrong, wanted, unicode }
        },
    )
}

#[cfg(test)]
mod tests;
