//! Fields that no list names and that, by their name, may still tell who asks. Every service has a header of its own for
//! that, and a list that has forgotten one must cost a hit, not show one tenant another's answers.

/// Names that have one of these in them.
const SIGNS: [&str; 9] =
    ["auth", "token", "key", "secret", "credential", "session", "tenant", "signature", "account"];
/// And those that end in this.
const ENDING: &str = "user";

/// Every name of every request is looked at: all signs are searched for in one pass (the shift-and method of
/// Baeza-Yates and Gonnet). Laid end to end, each of their characters has a bit; a bit of the state is set while the name
/// has, up to here, the sign's characters up to there.
static PLACES: Places = Places::of_signs();

struct Places {
    /// By byte: where it stands in the signs.
    of: [u64; 256],
    /// First characters.
    first: u64,
    /// Last characters.
    last: u64,
    /// The last character of the ending.
    ending: u64,
}

impl Places {
    const fn of_signs() -> Self {
        let mut places = Places { of: [0; 256], first: 0, last: 0, ending: 0 };
        let (mut bit, mut signs) = (1, SIGNS.as_slice());
        while let [sign, rest @ ..] = signs {
            bit = places.lay(bit, sign);
            places.last |= bit >> 1;
            signs = rest;
        }
        places.ending = places.lay(bit, ENDING) >> 1;
        places
    }

    /// Lays out a sign from this bit on; gives the bit behind it. More than 64 characters do not compile.
    #[expect(clippy::indexing_slicing, reason = "no byte is above 255, and the compiler runs it")]
    const fn lay(&mut self, mut bit: u64, sign: &str) -> u64 {
        self.first |= bit;
        let mut characters = sign.as_bytes();
        while let [character, rest @ ..] = characters {
            assert!(bit != 1 << 63, "there is a bit left for each character");
            self.of[*character as usize] |= bit;
            bit <<= 1;
            characters = rest;
        }
        bit
    }
}

/// Whether a field of this name, in lower case, may tell who asks.
pub(super) fn may_tell_who_asks(name: &str) -> bool {
    let (mut state, mut seen) = (0, 0);
    for byte in name.bytes() {
        state = (state << 1 | PLACES.first) & PLACES.of.get(usize::from(byte)).copied().unwrap_or_default();
        seen |= state;
    }
    let found = seen & PLACES.last | state & PLACES.ending != 0;
    // That one differs with every request, and says nothing of who asks.
    found && name != "idempotency-key"
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// As it is written in the documentation.
    fn by_the_list(name: &str) -> bool {
        (SIGNS.iter().any(|sign| name.contains(sign)) || name.ends_with(ENDING)) && name != "idempotency-key"
    }

    #[test]
    fn a_table_of_names() {
        for (name, likely) in [
            ("x-goog-iam-authority-selector", true),
            ("chroma-token", true),
            ("x-key-id", true),
            ("client-secret", true),
            ("x-amz-credential", true),
            ("my-session-id", true),
            ("x-tenant", true),
            ("x-hub-signature", true),
            ("x-account", true),
            ("openai-user", true),
            ("user", true),
            ("author", true),
            ("idempotency-key", false),
            ("x-idempotency-key", true),
            ("user-agent", false),
            ("x-stainless-runtime-version", false),
            ("accept-encoding", false),
            ("content-type", false),
            ("traceparent", false),
            ("", false),
        ] {
            assert_eq!(may_tell_who_asks(name), likely, "{name}");
            assert_eq!(by_the_list(name), likely, "{name}");
        }
        for sign in SIGNS {
            assert!(may_tell_who_asks(sign) && may_tell_who_asks(&format!("x-{sign}s")), "{sign}");
        }
    }

    proptest! {
        #[test]
        fn one_pass_finds_what_a_search_for_each_sign_finds(
            name in "(x|-|a|au|auth|th|tok|token|en|k|ke|key|y|sec|secret|ret|cred|credential|ial|ses|session|\
                     ion|ten|tenant|ant|sig|signature|acc|account|us|user|er|ss|c|s){0,6}",
            other in "\\PC{0,20}",
        ) {
            prop_assert_eq!(may_tell_who_asks(&name), by_the_list(&name), "{}", name);
            prop_assert_eq!(may_tell_who_asks(&other), by_the_list(&other), "{}", other);
        }
    }
}
