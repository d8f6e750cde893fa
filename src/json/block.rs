//! Sixty-four bytes in vector registers: what is asked of each becomes one bit of a word.
//!
//! Plain loops do become vector instructions, but which ones changes with what stands around them, by a factor of three.

use wide::u8x16;

/// As many bytes as a word has bits.
pub(super) const BLOCK: usize = 64;

/// What every x86-64 and every aarch64 has instructions for.
pub(super) type Lane = u8x16;

#[derive(Clone, Copy)]
pub(super) struct Block([Lane; 4]);

impl Block {
    #[inline]
    pub(super) fn load(bytes: &[u8; BLOCK]) -> Self {
        match bytes.as_chunks().0 {
            [a, b, c, d] => Block([Lane::new(*a), Lane::new(*b), Lane::new(*c), Lane::new(*d)]),
            _ => Block([Lane::ZERO; 4]), // Never: four times sixteen are there.
        }
    }

    #[inline]
    pub(super) fn lanes(self) -> [Lane; 4] {
        self.0
    }

    #[inline]
    pub(super) fn map(self, f: impl Fn(Lane) -> Lane) -> Self {
        Block(self.0.map(f))
    }

    /// One bit for each byte where `is` is set, the first byte lowest.
    #[inline]
    pub(super) fn bits(self, is: impl Fn(Lane) -> Lane) -> u64 {
        let [first, second, third, fourth] = self.0.map(|lane| u64::from(is(lane).to_bitmask()));
        first | second << 16 | (third | fourth << 16) << 32
    }

    /// The four lanes made one.
    #[inline]
    pub(super) fn fold(self, f: impl Fn(Lane, Lane) -> Lane) -> Lane {
        let [first, second, third, fourth] = self.0;
        f(f(first, second), f(third, fourth))
    }
}

/// Where a byte is `other`.
#[inline]
pub(super) fn equal(lane: Lane, other: u8) -> Lane {
    lane.simd_eq(Lane::splat(other))
}

/// Where a byte is `most` or less.
#[inline]
pub(super) fn upto(lane: Lane, most: u8) -> Lane {
    lane.min(Lane::splat(most)).simd_eq(lane)
}

/// Where a byte is `least` or more.
#[inline]
pub(super) fn from(lane: Lane, least: u8) -> Lane {
    lane.max(Lane::splat(least)).simd_eq(lane)
}

/// Whether the high bit of any byte is set: what the comparisons above set, and what bytes beyond ASCII have.
#[inline]
pub(super) fn any_set(lane: Lane) -> bool {
    lane.to_bitmask() != 0
}
