use proptest::prelude::*;
use serde::de::IgnoredAny;

use super::*;
use crate::json::levels;

/// The same, a byte at a time: where it ends, and what its escapes take.
fn plainly(bytes: &[u8]) -> Option<(usize, u32)> {
    let (mut at, mut escaped) = (0, 0);
    loop {
        match *bytes.get(at)? {
            b'"' => return Some((at, escaped)),
            b'\\' => {
                let len = match bytes.get(at + 1)? {
                    b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => 2,
                    b'u' if bytes.get(at + 2..at + 6)?.iter().all(u8::is_ascii_hexdigit) => 6,
                    _ => return None,
                };
                at += len;
                escaped += len as u32 - 1;
            }
            0..0x20 => return None,
            _ => at += 1,
        }
    }
}

#[track_caller]
fn agrees(bytes: &[u8]) {
    let expected = plainly(bytes);
    let on_each = levels().into_iter().map(|level| long(level, bytes));
    for found in on_each.chain([inside(bytes)]) {
        assert_eq!(found.map(|inside| (inside.len, inside.beyond)), expected, "{:?}", bytes.escape_ascii());
        if let Some(inside) = found {
            // Not ASCII may be said too often, never too seldom.
            assert!(!inside.ascii || bytes[..inside.len].is_ascii(), "{:?}", bytes.escape_ascii());
            assert!(inside.ascii || !bytes.is_ascii(), "{:?}", bytes.escape_ascii());
        }
    }
}

/// A text with something else put in after so many letters.
fn around(before: usize, middle: &[u8], behind: &[u8]) -> Vec<u8> {
    [&vec![b'a'; before][..], middle, behind].concat()
}

#[test]
fn runs_of_backslashes_of_every_length_at_every_place() {
    for before in 0..=2 * BLOCK {
        for run in (0..9).chain(BLOCK - 2..=BLOCK + 6) {
            let run = vec![b'\\'; run];
            for behind in [&b"\""[..], b"\" \"", b"n\"", b"u00e9\"", b"x\"", b""] {
                agrees(&around(before, &run, behind));
            }
        }
    }
}

#[test]
fn every_byte_near_the_edges_escaped_or_not() {
    for before in (0..=SHORT + 2).chain(BLOCK - 2..=BLOCK + 2).chain(2 * BLOCK - 1..=2 * BLOCK) {
        for byte in 0..=u8::MAX {
            for behind in [&b"\""[..], b"\\\\\"\n", &[b'"'; 70]] {
                agrees(&around(before, &[byte], behind));
                agrees(&around(before, &[b'\\', byte], behind));
            }
        }
    }
}

#[test]
fn strings_that_end_anywhere_before_anything() {
    for before in 0..=2 * BLOCK {
        for inner in [&b"\n"[..], b"\x1f", b"\\x", b"\\\n", b"\x7f", b"\xc3\xa9", b"\\\""] {
            agrees(&around(before, inner, b"\""));
        }
        for behind in
            [&b""[..], b"\n", b"\0", b"\\", b"\\x", b"\\u12", b"\xff", b"\"", &[b'\n'; 99], &[b'\\'; 99]]
        {
            agrees(&around(before, b"\"", behind));
            agrees(&around(before, b"\\n\"", behind));
            agrees(&around(before, b"", behind));
        }
    }
}

#[test]
fn four_digits_behind_every_u_wherever_it_stands() {
    for before in 0..=BLOCK + 2 {
        let whole = around(before, br"\ud83d\uDE00\u00e9", b"\"");
        agrees(&whole);
        for cut in before..whole.len() {
            agrees(&whole[..cut]);
            agrees(&[&whole[..cut], b"\""].concat());
            for other in [b'g', b'G', b'/', b':', b'@', b'`', b'"', b'\\', 0xe9] {
                let mut damaged = whole.clone();
                damaged[cut] = other;
                agrees(&damaged);
            }
        }
    }
}

/// What a string is made of, and in `damaged` ones also what none is.
fn pieces(damaged: bool) -> impl Strategy<Value = Vec<u8>> {
    const GOOD: [&[u8]; 14] = [
        b"\\\"",
        b"\\\\",
        b"\\/",
        b"\\b",
        b"\\f",
        b"\\n",
        b"\\r",
        b"\\t",
        b"\\u00e9",
        b"\\ud83d\\uDE00",
        b"u",
        b"n0aF",
        "\u{e9}\u{597d}\u{1f600}".as_bytes(),
        b" \x7f",
    ];
    const BAD: [&[u8]; 10] = [b"\\", b"\\", b"\"", b"\\u", b"\\u12", b"\\x", b"\n", b"\x1f", b"\xff", b"\\N"];
    let good = prop::sample::select(&GOOD[..]).prop_map(<[u8]>::to_vec);
    let letters = (0_usize..80).prop_map(|letters| vec![b'a'; letters]);
    let bad = prop::sample::select(&BAD[..]).prop_map(<[u8]>::to_vec);
    let piece = prop_oneof![12 => good, 2 => letters, u32::from(damaged) => bad];
    prop::collection::vec(piece, 0..60).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        agrees(&bytes);
    }

    #[test]
    fn what_strings_are_made_of_and_what_not(bytes in pieces(true)) {
        agrees(&bytes);
    }

    /// Valid, and one byte of it changed.
    #[test]
    fn strings_and_damaged_ones(
        text in pieces(false), at in any::<prop::sample::Index>(), byte in any::<u8>(), other in 0_usize..12,
    ) {
        let mut quoted = [b"\"", &text[..], b"\""].concat();
        prop_assert_eq!(inside(&quoted[1..]).map(|inside| inside.len), Some(quoted.len() - 2));
        let at = at.index(quoted.len());
        // Half of them with what matters.
        quoted[at] = *br#"\"ung0 "#.get(other).unwrap_or(&byte);
        agrees(&quoted[1..]);
        if let Ok(text) = std::str::from_utf8(&quoted) {
            let whole = quoted[0] == b'"' && inside(&quoted[1..]).is_some_and(|inside| inside.len == quoted.len() - 2);
            let oracle = serde_json::from_str::<IgnoredAny>(text).is_ok();
            prop_assert_eq!(whole, oracle, "{}", text);
        }
    }
}
