use proptest::prelude::*;

use super::*;
use crate::json::levels;

#[track_caller]
fn agrees(bytes: &[u8]) {
    let expected = std::str::from_utf8(bytes).is_ok();
    for level in levels() {
        assert_eq!(valid(level, bytes), expected, "{:?}", bytes.escape_ascii());
    }
}

#[test]
fn every_length_of_text() {
    for script in ["a", "é", "好", "😀", "aé好😀"] {
        let text = script.repeat(70);
        for end in 0..text.len() {
            agrees(&text.as_bytes()[..end]);
        }
    }
}

/// Each first byte, with what comes behind it on either side of every bound of RFC 3629 section 4.
#[test]
fn first_bytes_and_what_may_follow() {
    let bounds = [0, 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc0, 0xe0, 0xff];
    let behind = [0x7f, 0x80, 0xbf, 0xc0];
    for before in [0, BLOCK - 2] {
        let mut bytes = vec![b'a'; before + 4];
        for first in 0xbf..=u8::MAX {
            for second in bounds {
                for third in behind {
                    for fourth in behind {
                        bytes[before..].copy_from_slice(&[first, second, third, fourth]);
                        agrees(&bytes);
                        agrees(&bytes[..=before]);
                        agrees(&bytes[..before + 2]);
                        agrees(&bytes[..before + 3]);
                    }
                }
            }
        }
    }
}

/// On either side of every bound between the lengths, and around the surrogates.
const OTHERS: [&str; 9] =
    ["\u{7f}", "\u{80}", "\u{7ff}", "\u{800}", "\u{d7ff}", "\u{e000}", "\u{ffff}", "\u{10000}", "\u{10ffff}"];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..8)) {
        agrees(&bytes);
    }

    #[test]
    fn text_and_damaged_text(
        pieces in prop::collection::vec((0_usize..60, prop::sample::select(&OTHERS[..])), 0..40),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        cut in any::<bool>(),
    ) {
        let text: String = pieces.iter().map(|(letters, other)| "a".repeat(letters.saturating_sub(30)) + other).collect();
        prop_assert!(is_utf8(text.as_bytes()));
        let mut bytes = text.into_bytes();
        if bytes.is_empty() {
            return Ok(());
        }
        let at = at.index(bytes.len());
        if cut { bytes.truncate(at) } else { bytes[at] = byte }
        agrees(&bytes);
    }
}

#[test]
fn continuations_are_all_but_the_first_bytes_of_characters() {
    for text in [
        "",
        "a",
        "é",
        "你好",
        "😀",
        "so 😀 it said, ünd 你好，世界 and so on and on until the block has ended 😀é",
    ] {
        for times in [1, 2, 7] {
            let text = text.repeat(times);
            assert_eq!(continuations(text.as_bytes()), (text.len() - text.chars().count()) as u64, "{text}");
        }
    }
}
