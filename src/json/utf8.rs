//! Whether bytes are UTF-8 (RFC 3629 section 4), as the standard library decides it, but in text of any script.
//!
//! Every byte is held against the three before it: it continues a character exactly where one of these wants it to.

#![expect(clippy::inline_always, reason = "only what is inlined is compiled for the CPU that was found")]

use fearless_simd::prelude::*;
use fearless_simd::{Level, dispatch, mask8x64, u8x64};

use super::BLOCK;

/// So far back stands the first byte of a character at most.
const BEFORE: usize = 3;
const WINDOW: usize = BEFORE + BLOCK;

/// Whether all of `bytes` are UTF-8.
pub fn is_utf8(bytes: &[u8]) -> bool {
    valid(Level::new(), bytes)
}

fn valid(level: Level, bytes: &[u8]) -> bool {
    dispatch!(level, simd => walk(simd, bytes))
}

/// How many bytes continue a character that began before them (RFC 3629 section 3).
pub(super) fn continuations(bytes: &[u8]) -> u64 {
    count(Level::new(), bytes)
}

fn count(level: Level, bytes: &[u8]) -> u64 {
    dispatch!(level, simd => count_in(simd, bytes))
}

#[inline(always)]
fn count_in<S: Simd>(simd: S, bytes: &[u8]) -> u64 {
    let (blocks, rest) = bytes.as_chunks::<BLOCK>();
    let whole: u64 = blocks
        .iter()
        .map(|bytes| {
            let block = u8x64::simd_from(simd, *bytes);
            u64::from((block & 0xc0).simd_eq(0x80).to_bitmask().count_ones())
        })
        .sum();
    whole + rest.iter().filter(|byte| **byte & 0xc0 == 0x80).count() as u64
}

#[inline(always)]
fn walk<S: Simd>(simd: S, bytes: &[u8]) -> bool {
    // Before the first byte and behind the last there is as good as ASCII, which nothing may be left wanting at.
    let mut wrong = check(simd, &filled(BEFORE, bytes));
    let Some(mut rest) = bytes.get(BLOCK - BEFORE..) else { return !wrong.any_true() };
    while let Some(window) = rest.first_chunk() {
        wrong |= check(simd, window);
        rest = rest.get(BLOCK..).unwrap_or_default();
    }
    !(wrong | check(simd, &filled(0, rest))).any_true()
}

#[inline(always)]
fn filled(from: usize, bytes: &[u8]) -> [u8; WINDOW] {
    let mut window = [0; WINDOW];
    window.iter_mut().skip(from).zip(bytes).for_each(|(to, byte)| *to = *byte);
    window
}

/// Where a byte of the last [`BLOCK`] is wrong. Where no character is longer, less has to be asked.
#[inline(always)]
fn check<S: Simd>(simd: S, window: &[u8; WINDOW]) -> mask8x64<S> {
    let [third @ .., _, _, _] = window;
    let [_, second @ .., _, _] = window;
    let [_, _, first @ .., _] = window;
    let [_, _, _, here @ ..] = window;
    let [here, first, second, third] =
        [here, first, second, third].map(|bytes| u8x64::simd_from(simd, *bytes));
    let most = here.max(third);
    if !most.simd_ge(0x80).any_true() {
        return mask8x64::splat(simd, false);
    }
    let continues = (here & 0xc0).simd_eq(0x80);
    let mut wanted = first.saturating_sub(0xbf);
    // C0 and C1 could only spell what one byte does.
    let mut wrong = (here & 0xfe).simd_eq(0xc0);
    if most.simd_ge(0xe0).any_true() {
        wanted |= second.saturating_sub(0xdf);
        // Spelled too long; surrogates.
        wrong |= first.simd_eq(0xe0) & here.simd_lt(0xa0);
        wrong |= first.simd_eq(0xed) & here.simd_ge(0xa0);
        if most.simd_ge(0xf0).any_true() {
            wanted |= third.saturating_sub(0xef);
            // Spelled too long; beyond U+10FFFF, which nothing that begins with F5 or above would not be.
            wrong |= first.simd_eq(0xf0) & here.simd_lt(0x90);
            wrong |= first.simd_eq(0xf4) & here.simd_ge(0x90);
            wrong |= here.simd_ge(0xf5);
        }
    }
    wrong | !(wanted.simd_eq(0) ^ continues)
}

#[cfg(test)]
mod tests;
