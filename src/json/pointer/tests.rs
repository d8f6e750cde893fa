use proptest::prelude::*;
use serde_json::Value as Json;

use super::*;

fn pointer(text: &str) -> Pointer {
    Pointer::parse(text).unwrap()
}

fn one<'a>(content: &'a str, place: &str) -> Found<'a> {
    find(content.as_bytes(), &[&pointer(place)])[0]
}

fn value(text: &str) -> Found<'_> {
    Found::Value(text.as_bytes())
}

#[test]
fn the_examples_of_rfc_6901_section_5() {
    let content = r#"{"foo": ["bar", "baz"], "": 0, "a/b": 1, "c%d": 2, "e^f": 3, "g|h": 4, "i\\j": 5, "k\"l": 6,
        " ": 7, "m~n": 8}"#;
    for (place, expected) in [
        ("", value(content)),
        ("/foo", value(r#"["bar", "baz"]"#)),
        ("/foo/0", value(r#""bar""#)),
        ("/", value("0")),
        ("/a~1b", value("1")),
        ("/c%d", value("2")),
        ("/e^f", value("3")),
        ("/g|h", value("4")),
        ("/i\\j", value("5")),
        ("/k\"l", value("6")),
        ("/ ", value("7")),
        ("/m~0n", value("8")),
    ] {
        assert_eq!(one(content, place), expected, "{place}");
    }
}

#[test]
fn pointers_are_read_and_written() {
    for text in ["", "/", "/a", "/a/0/b", "/a~1b/~0~01", "//"] {
        assert_eq!(pointer(text).to_string(), text);
    }
    assert_eq!(pointer("/~01").tokens, ["~1"]);
    for text in ["a", "a/b", "/~", "/~2", "/a~", "#/a"] {
        assert_eq!(Pointer::parse(text), None, "{text}");
    }
}

#[test]
fn what_stands_where() {
    let table = [
        (r#"{"a":{"b":[1,{"c":"x"}]}}"#, "/a/b/1/c", value(r#""x""#)),
        (r#"{"a":[1,2]}"#, "/a/2", Found::Absent),
        (r#"{"a":[1,2]}"#, "/a/01", Found::Absent),
        (r#"{"a":[1,2]}"#, "/a/-", Found::Absent),
        (r#"{"a":[1,2]}"#, "/a/+1", Found::Absent),
        (r#"{"a":"text"}"#, "/a/b", Found::Absent),
        (r#"{"0":true}"#, "/0", value("true")),
        (r#" { "a" : null } "#, "/a", value("null")),
        ("[]", "/a", Found::Absent),
        ("7", "", value("7")),
        ("7", "/a", Found::Absent),
        (r#"{"\u0061":1}"#, "/a", value("1")),
        (r#"{"other":{"a":1}}"#, "/a", Found::Absent),
    ];
    for (content, place, expected) in table {
        assert_eq!(one(content, place), expected, "{content} {place}");
    }
}

#[test]
fn where_readers_may_differ_nothing_is_told() {
    let table = [
        (r#"{"a":1,"a":1}"#, "/a"),
        (r#"{"a":{"b":1},"a":{}}"#, "/a/b"),
        (r#"{"a":{},"a":{"b":1}}"#, "/a/b"),
        (r#"{"a":{},"a":{}}"#, "/a/b"),
        (r#"{"a":1,"\u0061":2}"#, "/a"),
        (r#"{"a":1,"A":2}"#, "/a"),
        (r#"{"A":2}"#, "/a"),
        (r#"{"\u0041":2}"#, "/a"),
        ("{\"cla\u{17f}s\":\"x\"}", "/class"),
        (r#"{"\ud800":2}"#, "/a"),
        (r#"{"a":1"#, "/a"),
        (r#"{"a":1} {}"#, "/a"),
        (r#"{"a":1,}"#, "/a"),
        ("", "/a"),
        ("\u{feff}{\"a\":1}", "/a"),
        (r#"{"a":01}"#, "/a"),
    ];
    for (content, place) in table {
        assert_eq!(one(content, place), Found::Unclear, "{content} {place}");
    }
    let deep = format!("{{\"a\":{}1{}}}", "[".repeat(200), "]".repeat(200));
    assert_eq!(one(&deep, "/b"), Found::Unclear);
    // Somebody else's members may come twice.
    assert_eq!(one(r#"{"b":1,"b":2,"a":3}"#, "/a"), value("3"));
}

#[test]
fn many_are_found_in_one_reading() {
    let places = ["/a", "/a/b", "/c/0", "/d", "/a", "/c"].map(pointer);
    let found = find(br#"{"a":{"b":"x"},"c":[1,2]}"#, &places.each_ref());
    let expected = [
        value(r#"{"b":"x"}"#),
        value(r#""x""#),
        value("1"),
        Found::Absent,
        value(r#"{"b":"x"}"#),
        value("[1,2]"),
    ];
    assert_eq!(found, expected);
    let crowd: Vec<Pointer> = (0..70).map(|_| pointer("/a")).collect();
    let found = find(br#"{"a":1}"#, &crowd.iter().collect::<Vec<_>>());
    assert!(found[..64].iter().all(|found| *found == value("1")));
    assert!(found[64..].iter().all(|found| *found == Found::Unclear), "not looked for, so nothing is known");
}

#[test]
fn scalars_are_compared_by_what_they_mean() {
    let text = Scalar::Text("ok".to_owned());
    assert!(text.is(br#""ok""#) && text.is(br#""\u006fk""#));
    assert!(!text.is(b"ok") && !text.is(br#""okay""#) && !text.is(b"\""));
    let zero = Scalar::Word("0".to_owned());
    assert!(zero.is(b"0") && !zero.is(br#""0""#) && !zero.is(b"0.0"));
    assert!(Scalar::Word("false".to_owned()).is(b"false"));
}

/// Trees of few names, so that pointers hit.
fn trees() -> impl Strategy<Value = Json> {
    let leaf =
        prop_oneof![Just(Json::Null), any::<bool>().prop_map(Json::from), any::<i32>().prop_map(Json::from)];
    leaf.prop_recursive(4, 32, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Json::from),
            prop::collection::btree_map("[ab~/0]", inner, 0..4)
                .prop_map(|members| Json::Object(members.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn it_finds_what_a_parser_with_a_tree_finds(
        tree in trees(),
        tokens in prop::collection::vec("[ab~/0-2]", 0..4),
    ) {
        let pointer = Pointer { tokens };
        let content = tree.to_string();
        let found = match find(content.as_bytes(), &[&pointer])[0] {
            Found::Value(value) => Some(serde_json::from_slice::<Json>(value).unwrap()),
            Found::Absent => None,
            Found::Unclear => panic!("{content} {pointer}"),
        };
        prop_assert_eq!(found.as_ref(), tree.pointer(&pointer.to_string()));
    }
}
