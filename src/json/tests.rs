use proptest::prelude::*;
use serde::de::IgnoredAny;

use super::*;

fn check(text: &[u8]) -> Result<(), Invalid> {
    let mut scanner = Scanner::new(text);
    scanner.skip()?;
    scanner.end()
}

fn nested(depth: usize) -> String {
    let mut text = String::new();
    for level in 0..depth {
        text.push_str(if level % 2 == 0 { "[" } else { "{\"a\":" });
    }
    text.push('1');
    for level in (0..depth).rev() {
        text.push(if level % 2 == 0 { ']' } else { '}' });
    }
    text
}

#[test]
fn rfc_8259_a_table_of_texts() {
    for good in [
        "0",
        "-0",
        "-0.0e+10",
        "1E5",
        "123456789012345678901234567890",
        "true",
        "false",
        "null",
        "\"\"",
        "\"\\u00e9\"",
        "\"\\ud800\"",
        "[]",
        "{}",
        " [ ] ",
        "\t{\r\n} ",
        "[1,2 , 3]",
        "{\"a\" : [ {} , [] ] , \"b\":null}",
        "[[],[]]",
        "{\"\":{\"\":[]}}",
        "\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"",
        "\"é\u{7f}\"",
    ] {
        assert_eq!(check(good.as_bytes()), Ok(()), "{good}");
    }
    for bad in [
        "",
        " ",
        "1 2",
        "01",
        "-",
        "+1",
        "1.",
        ".5",
        "1e",
        "1e+",
        "0x1",
        "1_0",
        "NaN",
        "Infinity",
        "tru",
        "truee",
        "nul",
        "[1,]",
        "[,1]",
        "[1 2]",
        "[",
        "[1",
        "[1,",
        "]",
        "{",
        "}",
        "{\"a\"}",
        "{\"a\":}",
        "{\"a\":1,}",
        "{,}",
        "{a:1}",
        "{1:2}",
        "{\"a\":1 \"b\":2}",
        "{\"a\":1]",
        "[1}",
        "[[1]",
        "{\"a\"",
        "{\"a\":1,,\"b\":2}",
        "\"",
        "\"\\\"",
        "\"\\x\"",
        "\"\\u12g4\"",
        "\"\\u12",
        "\"a\nb\"",
        "\"\0\"",
        "'a'",
        "\u{feff}{}",
        "{}\u{feff}",
        "{} {}",
        "[]x",
        "// c\n1",
        "\u{a0}1",
        "\u{c}1",
        "[1]]",
        "\"a\\\u{1}\"",
    ] {
        assert_eq!(check(bad.as_bytes()), Err(Invalid::Syntax), "{bad:?}");
    }
}

#[test]
fn depth_is_limited_and_counts_every_container() {
    assert_eq!(check(nested(128).as_bytes()), Ok(()));
    assert_eq!(check(nested(129).as_bytes()), Err(Invalid::TooDeep));
    assert_eq!(check("[".repeat(1_000_000).as_bytes()), Err(Invalid::TooDeep));
    let siblings = format!("[{}]", vec![nested(127); 3].join(","));
    assert_eq!(check(siblings.as_bytes()), Ok(()));
    // The same limit holds where part of the way was walked with cursors.
    for (depth, expected) in [(127, Ok(())), (128, Err(Invalid::TooDeep))] {
        assert_eq!(top_level(format!("{{\"a\":{}}}", nested(depth)).as_bytes(), |_, _| ()), expected);
    }
}

#[test]
fn top_level_members_are_spanned_without_their_white_space() {
    let body = br#" { "a" : [ 1, {"b":2} ] ,"m\u0065ssages":"x" , "a":null}  "#;
    let mut seen = Vec::new();
    top_level(body, |name, span| {
        seen.push((name.is("a"), name.is("messages"), std::str::from_utf8(&body[span]).unwrap()));
    })
    .unwrap();
    assert_eq!(seen, [(true, false, r#"[ 1, {"b":2} ]"#), (false, true, r#""x""#), (true, false, "null")]);
    assert_eq!(top_level(b"[1]", |_, _| ()), Err(Invalid::NotObject));
    assert_eq!(top_level(b"[1", |_, _| ()), Err(Invalid::Syntax));
    assert_eq!(top_level(b"{\"a\":1}}", |_, _| ()), Err(Invalid::Syntax));
}

#[test]
fn values_that_stores_and_options_hang_on() {
    for (value, empty) in
        [("[]", true), ("[ \n]", true), ("[0]", false), ("[[]]", false), ("{}", false), ("null", false)]
    {
        assert_eq!(is_empty_array(value.as_bytes()), empty, "{value}");
    }
    for (value, off) in
        [("null", true), ("false", true), (" null ", true), ("0", false), ("\"\"", false), ("{}", false)]
    {
        assert_eq!(is_null_or_false(value.as_bytes()), off, "{value}");
    }
}

#[test]
fn rfc_8259_section_7_escapes() {
    for (raw, text) in [
        ("plain é", Some("plain é")),
        (r"\u00e9\u00E9", Some("éé")),
        (r"a\n\t\r\b\f\/\\\u0000z", Some("a\n\t\r\u{8}\u{c}/\\\0z")),
        (r"\ud83d\ude00!", Some("😀!")),
        (r"\ud83d", None),
        (r"\ud83dx", None),
        (r"\ud83d\n", None),
        (r"\ud83d\ud83d", None),
        (r"\ude00\ud83d", None),
        (r"\x", None),
        (r"\u12", None),
        ("\\", None),
    ] {
        assert_eq!(unescape(raw.as_bytes()).as_deref(), text, "{raw}");
    }
    assert_eq!(unescape(b"\xff"), None);
    assert_eq!(unescape(b"\\n\xff"), None);
}

/// A name with a backslash is spelled with two.
#[test]
fn names_are_what_they_mean_however_they_are_spelled() {
    for (raw, name, same) in [
        (r"role", "role", true),
        (r"r\u006fle", "role", true),
        (r"\u0072\u006f\u006c\u0065", "role", true),
        (r"roles", "role", false),
        (r"rol", "role", false),
        (r"a\n", r"a\n", false),
        (r"a\\n", r"a\n", true),
        (r"a\n", "a\n", true),
        (r"\ud800", "role", false),
        ("", "", true),
    ] {
        assert_eq!(Text { raw: raw.as_bytes() }.is(name), same, "{raw} {name}");
    }
}

#[test]
fn digits_end_at_any_other_byte_wherever_it_stands() {
    for at in 0..20 {
        for other in (0..=u8::MAX).filter(|byte| !byte.is_ascii_digit()) {
            let mut text: Vec<u8> = (b'0'..=b'9').cycle().take(24).collect();
            text[at] = other;
            assert_eq!(digits(&text), at, "{other}");
            assert_eq!(digits(&text[..=at]), at, "{other}");
        }
    }
    assert_eq!(digits(b"01234567890"), 11);
}

#[test]
fn numbers_are_read_in_runs_without_changing_their_spelling() {
    let mut scanner = Scanner::new(b"[1.50,-2,3e1 ,4]");
    let mut elements = scanner.array().unwrap();
    assert!(elements.next(&mut scanner).unwrap());
    assert_eq!(scanner.numbers().unwrap(), b"1.50,-2,3e1");
    assert!(elements.next(&mut scanner).unwrap());
    assert_eq!(scanner.numbers().unwrap(), b"4");
    assert!(!elements.next(&mut scanner).unwrap());
    assert_eq!(scanner.end(), Ok(()));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn accepts_exactly_what_serde_json_accepts(text in r#"([\[\]{},:" \\0-9eE.+-]|"a"|"\\u00e9"|true|null|\[1,2\]|\{"k":0\}|\n){0,14}"#) {
        let oracle = serde_json::from_slice::<IgnoredAny>(text.as_bytes()).is_ok();
        prop_assert_eq!(check(text.as_bytes()).is_ok(), oracle, "{}", text);
    }

    #[test]
    fn never_panics_and_agrees_on_any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        let oracle = serde_json::from_slice::<IgnoredAny>(&bytes).is_ok();
        prop_assert_eq!(check(&bytes).is_ok(), oracle);
    }

    #[test]
    fn agrees_on_damaged_texts(cut in any::<prop::sample::Index>(), byte in any::<u8>(), replace in any::<bool>()) {
        let mut text = br#"{"a":[1,-2.5e3,"x\ud83d\ude00\n",{"b":null,"c":[]}],"d":{},"e":true , "f" : "g"}"#.to_vec();
        let at = cut.index(text.len());
        if replace { text[at] = byte } else { text.truncate(at) }
        let oracle = serde_json::from_slice::<IgnoredAny>(&text).is_ok();
        prop_assert_eq!(check(&text).is_ok(), oracle, "{}", String::from_utf8_lossy(&text));
    }

    #[test]
    fn unescape_reads_what_serde_json_writes(text in any::<String>()) {
        let quoted = serde_json::to_string(&text).unwrap();
        let mut scanner = Scanner::new(quoted.as_bytes());
        let read = scanner.string().unwrap();
        prop_assert_eq!(unescape(read.raw).unwrap(), text.as_str());
        prop_assert!(read.is(&text));
    }
}
