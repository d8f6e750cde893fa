use std::collections::HashMap;
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use proptest::prelude::*;

use super::*;
use crate::cache::StoreIf;

fn policy() -> Policy {
    Policy {
        vary: vec![HeaderName::from_static("user-agent")],
        ignore_headers: vec![HeaderName::from_static("x-nonce")],
        ignore_query: vec!["timeout".to_owned(), "trace id".to_owned()],
        ..Policy::usual()
    }
}

#[derive(Clone)]
struct Given {
    upstream: &'static str,
    method: Method,
    path: String,
    query: Option<String>,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Given {
    fn search() -> Self {
        let mut headers = HeaderMap::new();
        headers.insert("authorization", HeaderValue::from_static("Bearer one"));
        Given {
            upstream: "https://vector.test",
            method: Method::POST,
            path: "/query".to_owned(),
            query: None,
            headers,
            body: br#"{"vector":[0.1,0.2],"topK":3}"#.to_vec(),
        }
    }

    fn key(&self) -> Key {
        Keyring::seeded([7; 16]).names(self.upstream, &policy()).key(&self.identity())
    }

    fn identity(&self) -> Identity<'_> {
        Identity {
            method: &self.method,
            path: &self.path,
            query: self.query.as_deref(),
            headers: &self.headers,
            body: &self.body,
        }
    }
}

fn of_body(body: impl AsRef<[u8]>) -> Key {
    Given { body: body.as_ref().to_vec(), ..Given::search() }.key()
}

fn of_query(query: Option<&str>) -> Key {
    Given { query: query.map(str::to_owned), ..Given::search() }.key()
}

fn of_headers(headers: &[(&'static str, &str)]) -> Key {
    let mut given = Given::search();
    given.headers.clear();
    for (name, value) in headers {
        given.headers.append(*name, HeaderValue::from_str(value).unwrap());
    }
    given.key()
}

#[track_caller]
fn assert_distinct(keys: impl IntoIterator<Item = (String, Key)>) {
    let mut seen = HashMap::new();
    for (name, key) in keys {
        if let Some(other) = seen.insert(key, name.clone()) {
            panic!("{name} has the key of {other}");
        }
    }
}

#[test]
fn bodies_that_mean_the_same_share_a_key() {
    for group in [
        &[r#"{"a":1,"b":[1,2]}"#, "{\"b\":[1, 2],\"a\":1}", " { \"b\" : [ 1 ,\n2 ] , \"a\" : 1 }\r\n"][..],
        &[r#"{"q":"caf\u00e9"}"#, r#"{"q":"café"}"#, r#"{"\u0071":"caf\u00E9"}"#],
        &[r#""\ud83d\ude00\/\n""#, "\"\u{1f600}/\\u000a\""],
        &[r#"[{"x":{"b":null,"a":{}}},[]]"#, r#"[ { "x":{"a":{ },"b":null}}, [ ] ]"#],
        &["1", " 1 "],
        &["[1,2,3]", "[1, 2,3]", "[ 1,2 ,3 ]"],
    ] {
        for other in group {
            assert_eq!(of_body(group[0]), of_body(other), "{other}");
        }
    }
}

#[test]
fn bodies_that_may_differ_do_not_share_a_key() {
    let deep = |depth: usize, white: &str| format!("{}{white}{}", "[".repeat(depth), "]".repeat(depth));
    let table = [
        "",
        " ",
        "{}",
        "[]",
        "null",
        "\"null\"",
        "nul",
        "0",
        "-0",
        "0.0",
        "0e0",
        "1",
        "1.0",
        "1e0",
        "1E0",
        "[1]",
        "[[1]]",
        "[1,2]",
        "[2,1]",
        "[12]",
        "[1,[2]]",
        "[[1],2]",
        "[1,[],2]",
        "[\"1\",2]",
        "[\"1,2\"]",
        "[\"1\",\"2\"]",
        r#"{"a":1}"#,
        r#"{"a":1.0}"#,
        r#"{"a":"1"}"#,
        r#"{"A":1}"#,
        r#"{"a":[1]}"#,
        r#"{"a":{}}"#,
        r#"{"a":null}"#,
        r#"{"a":1,"b":2}"#,
        r#"{"a":2,"b":1}"#,
        r#"{"ab":1,"":2}"#,
        r#"{"a":{"b":1}}"#,
        r#"{"a":{"b":1},"c":1}"#,
        r#"{"a":{"b":1,"c":1}}"#,
        r#"["a",{"b":1}]"#,
        r#"[{"a":1},{"b":2}]"#,
        r#"[{"a":1,"b":2}]"#,
        // Unicode normal forms are other texts.
        "\"é\"",
        "\"e\u{301}\"",
        r#""\\u00e9""#,
        // 64 bits and beyond are ids.
        "18446744073709551616",
        "18446744073709551617",
        // Parsers disagree: the bytes hold.
        r#"{"a":1,"a":1}"#,
        r#"{"a":1,"a":2}"#,
        r#"{"a":2,"a":1}"#,
        r#"{"a":1, "a":2}"#,
        r#"{"a":1,"\u0061":2}"#,
        r#"[{"x":{"a":1,"a":2}}]"#,
        r#""\ud800""#,
        r#""\uD800""#,
        r#""\ufffd""#,
        r#""\udc00\ud800""#,
        r#"{"\ud800":1}"#,
        "\u{feff}{}",
        "{} {}",
        "{},",
        "{\"a\":1,}",
        "'a'",
        "\"a\nb\"",
        "\"a\\nb\"",
        &deep(128, ""),
        &deep(129, ""),
        &deep(129, " "),
        "a=1&b=2",
        "b=2&a=1",
    ];
    assert_distinct(table.iter().map(|body| ((*body).to_owned(), of_body(body))));
    assert_ne!(of_body(b"\"\xff\""), of_body(b"\"\xfe\""));
    assert_ne!(of_body(b"\"\xed\xa0\x80\""), of_body(br#""\ud800""#));
    assert_eq!(of_body(deep(128, "")), of_body(deep(128, " ")));
    // A raw body never meets a canonical one that is written alike.
    assert_ne!(of_body(b"{\x01"), of_body(b"{"));
}

#[test]
fn the_order_of_members_counts_where_the_policy_says_so() {
    let names = Keyring::seeded([7; 16]).names("https://vector.test", &Policy { ordered: true, ..policy() });
    let of = |body: &str| names.key(&Given { body: body.as_bytes().to_vec(), ..Given::search() }.identity());
    let table = [
        r#"{"a":1,"b":2}"#,
        r#"{"b":2,"a":1}"#,
        r#"{"b":1,"a":2}"#,
        r#"{"sort":{"a":"asc","b":"asc"}}"#,
        r#"{"sort":{"b":"asc","a":"asc"}}"#,
        r#"[{"x":[{"a":{},"b":[]}]}]"#,
        r#"[{"x":[{"b":[],"a":{}}]}]"#,
        // Still the bytes, where parsers disagree.
        r#"{"a":1,"b":2,"a":1}"#,
        r#"{"a":1,"b":2, "a":1}"#,
    ];
    assert_distinct(table.iter().map(|body| ((*body).to_owned(), of(body))));
    assert_eq!(of(table[0]), of("{ \"\\u0061\" : 1,\n\"b\":2 }"), "white space and escapes do not");
    assert_ne!(of(table[0]), of_body(table[0]), "another rule's");
}

#[test]
fn an_object_with_too_many_members_is_its_bytes() {
    let object = |count: usize, end: &str| {
        let members: Vec<String> = (0..count).map(|n| format!("\"{n}\":0")).collect();
        format!("{{{}{end}}}", members.join(","))
    };
    assert_eq!(of_body(object(1 << 16, "")), of_body(object(1 << 16, " ")));
    assert_ne!(of_body(object((1 << 16) + 1, "")), of_body(object((1 << 16) + 1, " ")));
}

#[test]
fn parameters_are_sorted_by_name_and_ignored_ones_dropped() {
    for (a, b) in [
        ("a=1&b=2", "b=2&a=1"),
        ("a=1&a=2&b", "a=1&b&a=2"),
        ("a=1&timeout=5", "a=1"),
        ("a=1&%74imeout", "a=1"),
        ("trace+id=5&a=1", "a=1&trace%20id=6"),
    ] {
        assert_eq!(of_query(Some(a)), of_query(Some(b)), "{a} {b}");
    }
    assert_eq!(of_query(None), of_query(Some("timeout=1")));
    let table = [
        None,
        Some(""),
        Some("a"),
        Some("a="),
        Some("a=1"),
        Some("a=1&a=2"),
        Some("a=2&a=1"),
        Some("a=1&A=2"),
        Some("A=2&a=1"),
        Some("%61=1&a=2"),
        Some("a=2&%61=1"),
        Some("a=1&b=2"),
        Some("a=2&b=1"),
        Some("a=1%26b=2"),
        Some("A=1"),
        Some("a=1&"),
        Some("Timeout=1"),
        Some("timeouts=1"),
        Some("a=%zz"),
        Some("%"),
        Some("%6"),
        Some("a=1;b=2"),
        Some("b=2;a=1"),
    ];
    assert_distinct(table.iter().map(|query| (format!("{query:?}"), of_query(*query))));
}

#[test]
fn credentials_and_varying_headers_are_told_apart() {
    let table: &[&[(&'static str, &str)]] = &[
        &[],
        &[("authorization", "")],
        &[("authorization", "Bearer one")],
        &[("authorization", "Bearer two")],
        &[("api-key", "Bearer one")],
        &[("x-tenant", "Bearer one")],
        &[("authorization", "Bearer one"), ("api-key", "")],
        &[("authorization", "Bearer one"), ("authorization", "Bearer two")],
        &[("authorization", "Bearer two"), ("authorization", "Bearer one")],
        &[("authorization", "Bearer oneBearer two")],
        &[("x-tenant", "a"), ("accept", "b")],
        &[("x-tenant", "b"), ("accept", "a")],
        &[("x-tenant", "ab")],
    ];
    assert_distinct(table.iter().map(|headers| (format!("{headers:?}"), of_headers(headers))));
    assert_ne!(of_headers(&[("user-agent", "a")]), of_headers(&[]), "the rule counts it");
    for name in ["cache-control", "x-client-info", "x-stainless-os", "traceparent", "x-nonce"] {
        assert_eq!(of_headers(&[(name, "a")]), of_headers(&[]), "{name}");
    }
}

#[test]
fn headers_that_nobody_knows_count() {
    let of = |name: &'static str| of_headers(&[(name, "a")]);
    for name in ["cf-access-jwt-assertion", "x-user-id", "x-model-provider", "x-anything"] {
        assert_ne!(of(name), of_headers(&[]), "{name}");
        assert_ne!(of(name), of("x-other"), "{name}");
        assert_ne!(of(name), of_headers(&[(name, "b")]), "{name}");
    }
}

#[test]
fn the_order_of_headers_does_not_count_but_that_of_values() {
    let (one, two, three) = (("x-a", "a"), ("accept", "b"), ("x-a", "c"));
    assert_eq!(of_headers(&[one, two]), of_headers(&[two, one]));
    assert_eq!(of_headers(&[one, two, three]), of_headers(&[one, three, two]));
    assert_ne!(of_headers(&[one, three]), of_headers(&[three, one]));
}

#[test]
fn every_field_counts() {
    let base = Given::search();
    let with = |change: fn(&mut Given)| {
        let mut given = base.clone();
        change(&mut given);
        given.key()
    };
    assert_eq!(base.key(), base.clone().key());
    let table = [
        ("base", base.key()),
        ("upstream", with(|given| given.upstream = "https://vector.test/")),
        ("method", with(|given| given.method = Method::PUT)),
        ("path", with(|given| given.path = "/query/".to_owned())),
        ("path and query", with(|given| given.path = "/query?".to_owned())),
        ("query", with(|given| given.query = Some("q".to_owned()))),
        ("header", with(|given| drop(given.headers.remove("authorization")))),
        ("body", with(|given| given.body.push(b'x'))),
        ("no body", with(|given| given.body.clear())),
    ];
    assert_distinct(table.map(|(name, key)| (name.to_owned(), key)));
}

#[test]
fn rules_that_would_not_store_the_same_share_nothing() {
    let with = |change: fn(&mut Policy)| {
        let mut policy = policy();
        change(&mut policy);
        let given = Given::search();
        Keyring::seeded([7; 16]).names(given.upstream, &policy).key(&given.identity())
    };
    assert_eq!(with(|_| ()), Given::search().key());
    assert_eq!(with(|policy| (policy.shadow, policy.audit) = (true, 1.0)), Given::search().key());
    let equals = |word: &str| {
        let place = crate::json::pointer::Pointer::parse("/code").unwrap();
        vec![(place, crate::json::pointer::Scalar::Word(word.to_owned()))]
    };
    let told = StoreIf { equals: equals("0"), ..StoreIf::default() };
    let other = StoreIf { equals: equals("200"), ..StoreIf::default() };
    let of = |store_if: &StoreIf| {
        let given = Given::search();
        let policy = Policy { store_if: store_if.clone(), ..policy() };
        Keyring::seeded([7; 16]).names(given.upstream, &policy).key(&given.identity())
    };
    assert_distinct(
        [
            ("as it is", with(|_| ())),
            ("ttl", with(|policy| policy.ttl *= 2)),
            ("stale_if_error", with(|policy| policy.stale_if_error = Duration::from_secs(1))),
            ("max_entry", with(|policy| policy.max_entry = 1)),
            ("vary", with(|policy| policy.vary.clear())),
            ("ignore_headers", with(|policy| policy.ignore_headers.clear())),
            ("ignore_query", with(|policy| policy.ignore_query.clear())),
            ("non_empty", with(|policy| policy.store_if.non_empty.push("a".to_owned()))),
            ("absent", with(|policy| policy.store_if.absent.push("a".to_owned()))),
            ("equals", of(&told)),
            ("equals another", of(&other)),
        ]
        .map(|(name, key)| (name.to_owned(), key)),
    );
}

#[test]
fn secrets_separate_keyrings_and_nothing_is_printed() {
    let given = Given::search();
    let key = |keyring: &Keyring| keyring.names(given.upstream, &policy()).key(&given.identity());
    let random = Keyring::random().unwrap();
    assert_eq!(key(&random), key(&random.clone()));
    assert_distinct(
        [random.clone(), Keyring::random().unwrap(), Keyring::seeded([0; 16]), Keyring::seeded([1; 16])]
            .map(|keyring| ("a keyring".to_owned(), key(&keyring))),
    );
    assert_eq!(format!("{random:?} {:?}", key(&random)), "Keyring(..) Key(..)");
    assert_eq!(u128::from_le_bytes(key(&random).to_bytes()), key(&random).0);
}

/// A JSON value as the oracle sees it: numbers by spelling, members sorted.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Json {
    Bare(&'static str),
    Text(String),
    Array(Vec<Json>),
    Object(std::collections::BTreeMap<String, Json>),
}

const BARE: [&str; 10] =
    ["null", "true", "false", "0", "1", "-1", "1.0", "1e0", "12", "18446744073709551617"];

impl Json {
    /// One spelling of it, chosen by `random`.
    fn spell(&self, random: &mut fastrand::Rng, out: &mut String) {
        white(random, out);
        match self {
            Json::Bare(word) => out.push_str(word),
            Json::Text(text) => spell_text(text, random, out),
            Json::Array(elements) => {
                out.push('[');
                for (n, element) in elements.iter().enumerate() {
                    out.push_str(if n == 0 { "" } else { "," });
                    element.spell(random, out);
                }
                white(random, out);
                out.push(']');
            }
            Json::Object(members) => {
                let mut members: Vec<_> = members.iter().collect();
                random.shuffle(&mut members);
                out.push('{');
                for (n, (name, value)) in members.into_iter().enumerate() {
                    out.push_str(if n == 0 { "" } else { "," });
                    white(random, out);
                    spell_text(name, random, out);
                    white(random, out);
                    out.push(':');
                    value.spell(random, out);
                }
                white(random, out);
                out.push('}');
            }
        }
        white(random, out);
    }

    fn random(random: &mut fastrand::Rng, depth: usize) -> Json {
        match random.u32(..if depth == 0 { 5 } else { 10 }) {
            0..3 => Json::Bare(BARE[random.usize(..BARE.len())]),
            3..5 => Json::Text(random_text(random)),
            5..7 => Json::Array((0..random.usize(..4)).map(|_| Json::random(random, depth - 1)).collect()),
            _ => Json::Object(
                (0..random.usize(..4))
                    .map(|_| (random_text(random), Json::random(random, depth - 1)))
                    .collect(),
            ),
        }
    }

    /// Changes one scalar, element or member somewhere.
    fn change(&mut self, random: &mut fastrand::Rng) {
        match self {
            Json::Bare(word) => {
                let old = *word;
                while *word == old {
                    *word = BARE[random.usize(..BARE.len())];
                }
            }
            Json::Text(text) => text.push('x'),
            Json::Array(elements) if elements.is_empty() || random.bool() => {
                if elements.iter().rev().eq(elements.iter()) {
                    elements.push(Json::Bare("null"));
                } else {
                    elements.reverse();
                }
            }
            Json::Array(elements) => {
                let at = random.usize(..elements.len());
                elements[at].change(random);
            }
            Json::Object(members) if members.is_empty() => {
                members.insert("n".to_owned(), Json::Bare("null"));
            }
            Json::Object(members) => {
                let at = random.usize(..members.len());
                let name = members.keys().nth(at).unwrap().clone();
                if random.bool() {
                    members.get_mut(&name).unwrap().change(random);
                } else {
                    let value = members.remove(&name).unwrap();
                    members.insert(format!("{name}{name}x"), value);
                }
            }
        }
    }
}

fn random_text(random: &mut fastrand::Rng) -> String {
    (0..random.usize(..4))
        .map(|_| *random.choice(&['a', 'b', '"', '\\', '\n', 'é', '😀', ',']).unwrap())
        .collect()
}

fn white(random: &mut fastrand::Rng, out: &mut String) {
    out.push_str(["", "", "", " ", "\n", "\t\r"][random.usize(..6)]);
}

fn spell_text(text: &str, random: &mut fastrand::Rng, out: &mut String) {
    out.push('"');
    for character in text.chars() {
        match character {
            '"' | '\\' if random.bool() => out.extend(['\\', character]),
            '\n' if random.bool() => out.push_str("\\n"),
            '"' | '\\' | '\0'..' ' => escape(character, random, out),
            _ if random.u8(..3) == 0 => escape(character, random, out),
            _ => out.push(character),
        }
    }
    out.push('"');
}

fn escape(character: char, random: &mut fastrand::Rng, out: &mut String) {
    for unit in character.encode_utf16(&mut [0; 2]) {
        let digits = format!("{unit:04x}");
        out.push_str("\\u");
        out.push_str(&if random.bool() { digits } else { digits.to_uppercase() });
    }
}

fn spelled(json: &Json, random: &mut fastrand::Rng) -> String {
    let mut out = String::new();
    json.spell(random, &mut out);
    out
}

#[test]
fn a_hundred_thousand_bodies_collide_only_when_they_mean_the_same() {
    let mut random = fastrand::Rng::with_seed(42);
    let mut by_key: HashMap<Key, Json> = HashMap::new();
    let mut by_meaning: HashMap<Json, Key> = HashMap::new();
    for _ in 0..100_000 {
        let json = Json::random(&mut random, 4);
        let text = spelled(&json, &mut random);
        let key = of_body(&text);
        let other = by_key.entry(key).or_insert_with(|| json.clone());
        assert_eq!(*other, json, "{text}");
        assert_eq!(*by_meaning.entry(json).or_insert(key), key, "{text}");
    }
    assert!(by_key.len() > 30_000, "{}", by_key.len());
}

proptest! {
    #[test]
    fn spelling_does_not_count_and_any_change_does(seed in any::<u64>()) {
        let mut random = fastrand::Rng::with_seed(seed);
        let json = Json::random(&mut random, 6);
        let text = spelled(&json, &mut random);
        serde_json::from_str::<serde::de::IgnoredAny>(&text).unwrap();
        let other = spelled(&json, &mut random);
        prop_assert_eq!(of_body(&text), of_body(&other), "{} {}", text, other);
        let mut changed = json.clone();
        changed.change(&mut random);
        prop_assert_ne!(&json, &changed);
        let changed = spelled(&changed, &mut random);
        prop_assert_ne!(of_body(&text), of_body(&changed), "{} {}", text, changed);
    }

    #[test]
    fn one_changed_byte_of_anything_else_counts(
        query in "[a-c=&%+1]{0,8}",
        other_query in "[a-c=&%+1]{0,8}",
        value in "[ -~]{0,6}",
        other_value in "[ -~]{0,6}",
        body in prop::collection::vec(any::<u8>(), 0..12),
        other_body in prop::collection::vec(any::<u8>(), 0..12),
    ) {
        // Neither a permutation of parameters nor JSON.
        let sorted = |query: &str| {
            let mut bytes = query.as_bytes().to_vec();
            bytes.sort_unstable();
            bytes
        };
        if sorted(&query) != sorted(&other_query) {
            prop_assert_ne!(of_query(Some(&query)), of_query(Some(&other_query)));
        }
        if value != other_value {
            prop_assert_ne!(of_headers(&[("api-key", &value)]), of_headers(&[("api-key", &other_value)]));
        }
        if body != other_body && serde_json::from_slice::<serde::de::IgnoredAny>(&body).is_err() {
            prop_assert_ne!(of_body(&body), of_body(&other_body));
        }
    }
}
