//! The window against the rules of the vendors: what is left of a conversation is one that they take, and the longest
//! one that the limits allow.
//!
//! `PILLION_WINDOW_HISTORIES` says how many conversations of each dialect; what came of them is printed.

#![expect(clippy::format_push_string, reason = "a test may take the short way")]

// The lints that are lifted in tests know them by this attribute; the crate itself is one all the same.
#[cfg(test)]
#[path = "../support/histories/mod.rs"]
mod histories;
#[cfg(test)]
#[path = "../support/strict/mod.rs"]
mod strict;

#[cfg(test)]
mod expected;
#[cfg(test)]
mod growing;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod python;
#[cfg(test)]
mod signing;
#[cfg(test)]
mod steps;
#[cfg(test)]
mod tally;
#[cfg(test)]
mod tokens;
