//! Scripts that Redis runs as one step.

use std::fmt::Write as _;
use std::sync::Arc;

use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};

/// A Lua script, and the name that Redis knows it by once it has seen it.
#[derive(Clone, Debug)]
pub struct Script {
    pub(super) text: &'static str,
    /// SHA-1 in hexadecimal: what `EVALSHA` takes.
    pub(super) name: Arc<str>,
}

impl Script {
    /// A script by its text.
    pub fn new(text: &'static str) -> Self {
        let mut name = String::with_capacity(40);
        for byte in digest(&SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes()).as_ref() {
            // Writing to a String cannot fail.
            let _ = write!(name, "{byte:02x}");
        }
        Self { text, name: name.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_is_the_one_that_redis_gives() {
        // As `SCRIPT LOAD "return 1"` answers.
        assert_eq!(&*Script::new("return 1").name, "e0e1f9fabfc9d4800c877a703b823ac0578ff8db");
    }
}
