//! The window against the rules of the vendors.

#[cfg(test)]
#[path = "../support/strict/mod.rs"]
mod strict;
