//! Whether bytes are UTF-8 (RFC 3629 section 4), as the standard library decides it, but in text of any script.
//!
//! Every byte is held against the three before it: it continues a character exactly where one of these wants it to.

use super::block::{BLOCK, Block, Lane, any_set, equal, from, upto};

/// So far back stands the first byte of a character at most.
const BEFORE: usize = 3;
const WINDOW: usize = BEFORE + BLOCK;

/// Whether all of `bytes` are UTF-8.
pub fn is_utf8(bytes: &[u8]) -> bool {
    // Before the first byte and behind the last there is as good as ASCII, which nothing may be left wanting at.
    let mut wrong = check(&filled(BEFORE, bytes));
    let Some(mut rest) = bytes.get(BLOCK - BEFORE..) else { return !any_set(wrong) };
    while let Some(window) = rest.first_chunk() {
        wrong |= check(window);
        rest = rest.get(BLOCK..).unwrap_or_default();
    }
    !any_set(wrong | check(&filled(0, rest)))
}

fn filled(from: usize, bytes: &[u8]) -> [u8; WINDOW] {
    let mut window = [0; WINDOW];
    window.iter_mut().skip(from).zip(bytes).for_each(|(to, byte)| *to = *byte);
    window
}

/// Sets the high bit where a byte of the last [`BLOCK`] is wrong.
#[inline]
fn check(window: &[u8; WINDOW]) -> Lane {
    let [_, _, _, here @ ..] = window;
    let [before @ .., _, _, _] = window;
    let [before, ..] = Block::load(before).lanes();
    let most = Block::load(here).fold(Lane::max).max(before);
    if !any_set(most) {
        Lane::ZERO
    } else if any_set(from(most, 0xe0)) {
        // Nothing begins with F5 or what is above.
        let above = from(most, 0xf5);
        above | if any_set(from(most, 0xf0)) { compare::<4>(window) } else { compare::<3>(window) }
    } else {
        compare::<2>(window)
    }
}

/// Where no character is longer than `LONGEST`, less has to be asked.
#[inline(never)]
fn compare<const LONGEST: usize>(window: &[u8; WINDOW]) -> Lane {
    let [third @ .., _, _, _] = window;
    let [_, second @ .., _, _] = window;
    let [_, _, first @ .., _] = window;
    let [_, _, _, here @ ..] = window;
    let [here, first, second, third] = [here, first, second, third].map(|bytes| Block::load(bytes).lanes());
    let mut wrong = Lane::ZERO;
    for (((here, first), second), third) in here.into_iter().zip(first).zip(second).zip(third) {
        let continues = equal(here & Lane::splat(0xc0), 0x80);
        let mut wanted = first.saturating_sub(Lane::splat(0xbf));
        // C0 and C1 could only spell what one byte does.
        wrong |= equal(here & Lane::splat(0xfe), 0xc0);
        if LONGEST > 2 {
            wanted |= second.saturating_sub(Lane::splat(0xdf));
            // Spelled too long; surrogates.
            wrong |= equal(first, 0xe0) & upto(here, 0x9f);
            wrong |= equal(first, 0xed) & from(here, 0xa0);
        }
        if LONGEST > 3 {
            wanted |= third.saturating_sub(Lane::splat(0xef));
            // Spelled too long; beyond U+10FFFF.
            wrong |= equal(first, 0xf0) & upto(here, 0x8f);
            wrong |= equal(first, 0xf4) & from(here, 0x90);
        }
        wrong |= !(equal(wanted, 0) ^ continues);
    }
    wrong
}

#[cfg(test)]
mod tests;
