use std::collections::HashMap;

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use proptest::prelude::*;

use super::*;
use crate::cache::Policy;
use crate::cache::key::Keyring;

const BODY: &str = r#"{"vector":[0.1,0.2],"topK":3}"#;

fn policy(vary: &[&'static str], ignored: &[&'static str], ignore_query: &[&str]) -> Policy {
    let names = |list: &[&'static str]| list.iter().map(|name| HeaderName::from_static(name)).collect();
    Policy {
        vary: names(vary),
        ignore_headers: names(ignored),
        ignore_query: ignore_query.iter().map(|name| (*name).to_owned()).collect(),
        ..Policy::usual()
    }
}

fn names(upstream: &str, policy: &Policy) -> Names {
    Keyring::seeded([7; 16]).names(upstream, policy)
}

fn usual() -> Names {
    names("https://vector.test", &policy(&[], &["x-nonce"], &["trace"]))
}

#[derive(Clone, Debug)]
struct Request {
    method: Method,
    path: String,
    query: Option<String>,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Request {
    fn of(headers: &[(&'static str, &str)], body: &str) -> Self {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, HeaderValue::from_str(value).unwrap());
        }
        Request {
            method: Method::POST,
            path: "/query".to_owned(),
            query: None,
            headers: map,
            body: body.as_bytes().to_vec(),
        }
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

    fn exact(&self, names: &Names) -> Exact {
        names.head(&self.identity()).exact(&self.identity())
    }
}

#[test]
fn every_spelling_of_one_meaning_has_its_key_and_is_read_once() {
    let (memo, names) = (Memo::new(1 << 20), usual());
    let spellings = [
        BODY,
        r#"{"topK":3,"vector":[0.1,0.2]}"#,
        "{ \"vector\" : [ 0.1, 0.2 ], \"topK\": 3 }\n",
        r#"{"vector":[0.1,0.2],"top\u004b":3}"#,
    ];
    let key = names.key(&Request::of(&[], BODY).identity());
    for round in 0..3 {
        for (n, body) in spellings.iter().enumerate() {
            assert_eq!(memo.key(&names, &Request::of(&[], body).identity()), key, "{body}");
            assert_eq!(memo.keys.len(), if round == 0 { n + 1 } else { spellings.len() });
        }
    }
}

#[test]
fn whether_the_content_was_read_is_told_again() {
    let (memo, names) = (Memo::new(1 << 20), usual());
    for (body, read) in [(BODY, true), ("", true), ("a: 1", false), (r#"{"a":1,"a":2}"#, false)] {
        let request = Request::of(&[], body);
        for _ in 0..2 {
            let key = names.key(&request.identity());
            assert_eq!(memo.key_of(&names, &request.identity()), (key, read), "{body}");
        }
    }
    assert_eq!(memo.keys.len(), 2);
}

#[test]
fn a_request_that_is_known_is_not_read_again() {
    let (memo, names) = (Memo::new(1 << 20), usual());
    let (one, other) = (Request::of(&[], BODY), Request::of(&[], "{}"));
    // A wrong entry, put there by hand: it is what is answered.
    memo.keys.insert(one.exact(&names), names.key(&other.identity()));
    assert_eq!(memo.key(&names, &one.identity()), names.key(&other.identity()));
}

/// What two requests differ in, and both of them with the rule that takes them.
#[test]
fn requests_that_may_be_answered_differently_never_meet() {
    let memo = Memo::new(1 << 20);
    let fields = [("authorization", "Bearer one"), ("accept", "a"), ("user-agent", "u"), ("x-org", "o")];
    let plain = Request::of(&fields, BODY);
    let with = |change: fn(&mut Request)| {
        let mut request = plain.clone();
        change(&mut request);
        request
    };
    let requests = [
        ("plain", plain.clone()),
        ("method", with(|r| r.method = Method::PUT)),
        ("path", with(|r| r.path.push('/'))),
        ("a query", with(|r| r.query = Some(String::new()))),
        ("another query", with(|r| r.query = Some("a=1".into()))),
        ("credential", with(|r| drop(r.headers.insert("authorization", HeaderValue::from_static("two"))))),
        (
            "two credentials",
            with(|r| {
                r.headers.append("authorization", HeaderValue::from_static("two"));
            }),
        ),
        ("no credential", with(|r| drop(r.headers.remove("authorization")))),
        (
            "an unknown header",
            with(|r| drop(r.headers.insert("x-auth", HeaderValue::from_static("Bearer one")))),
        ),
        ("another accept", with(|r| drop(r.headers.insert("accept", HeaderValue::from_static("b"))))),
        ("no accept", with(|r| drop(r.headers.remove("accept")))),
        ("body", with(|r| r.body = BODY.replace('3', "4").into_bytes())),
        ("no body", with(|r| r.body.clear())),
    ];
    // The same lists in another cut, and every list with a name more.
    let rules = [
        ("https://a.test", policy(&["user-agent"], &["x-org"], &[])),
        ("https://a.test/", policy(&["user-agent"], &["x-org"], &[])),
        ("https://a.test", policy(&[], &["user-agent", "x-org"], &[])),
        ("https://a.test", policy(&["user-agent", "x-org"], &[], &[])),
        ("https://a.test", policy(&["x-org", "user-agent"], &[], &[])),
        ("https://a.test", policy(&["user-agent", "via"], &["x-org"], &[])),
        ("https://a.test", policy(&["user-agent"], &["x-org", "x-none"], &[])),
        ("https://a.test", policy(&[], &[], &[])),
        ("https://a.test", policy(&["user-agent"], &["x-org"], &["a"])),
        ("https://a.test", policy(&["user-agent"], &["x-org"], &["b"])),
        ("https://a.test", Policy { ordered: true, ..policy(&["user-agent"], &["x-org"], &[]) }),
    ];
    let (mut exacts, mut keys) = (HashMap::new(), HashMap::new());
    for (n, (upstream, policy)) in rules.iter().enumerate() {
        let names = names(upstream, policy);
        for (what, request) in &requests {
            let key = memo.key(&names, &request.identity());
            assert_eq!(key, names.key(&request.identity()), "rule {n}, {what}");
            if let Some(other) = exacts.insert(request.exact(&names), (n, *what)) {
                panic!("{what} of rule {n} has the exact name of {other:?}");
            }
            // Of an ignored parameter no key tells.
            let ignored = *what == "another query" && policy.ignore_query == ["a"];
            if let Some(other) = keys.insert(key, (n, *what)).filter(|_| !ignored) {
                panic!("{what} of rule {n} has the key of {other:?}");
            }
        }
    }
    assert_eq!(memo.keys.len(), rules.len() * requests.len());
    let other = Keyring::seeded([8; 16]).names("https://a.test", &rules[0].1);
    assert!(!exacts.contains_key(&plain.exact(&other)), "another secret");
}

#[test]
fn it_takes_no_more_than_it_is_given() {
    // So many sizes, because what the tables take doubles at some of them.
    let sizes = (0..40).map(|n| 20_000 + n * 5_000);
    for bytes in [0, 1, 1000, 4 << 20].into_iter().chain(sizes) {
        let (memo, names) = (Memo::new(bytes), usual());
        for n in 0..3 * bytes / ENTRY + 100 {
            let request = Request::of(&[], &n.to_string());
            assert_eq!(memo.key(&names, &request.identity()), names.key(&request.identity()));
        }
        let used = memo.keys.memory_used();
        assert!(
            used.entries + used.map <= bytes.max(64) as usize,
            "{} + {} of {bytes}",
            used.entries,
            used.map
        );
        // Shards fill unevenly.
        assert!(memo.keys.len() as u64 >= bytes / ENTRY * 9 / 10, "{} of {}", memo.keys.len(), bytes / ENTRY);
    }
}

#[test]
fn what_is_asked_again_outlives_what_is_asked_once() {
    let (memo, names) = (Memo::new(1000 * ENTRY), usual());
    let ask = |body: &str| {
        memo.key(&names, &Request::of(&[], body).identity());
    };
    for round in 0..100 {
        for n in 0..100 {
            ask(&format!("[{n}]"));
            ask(&format!("[{round}, {n}]"));
        }
    }
    let known = |n: usize| {
        let request = Request::of(&[], &format!("[{n}]"));
        memo.keys.peek(&request.exact(&names)).is_some()
    };
    assert!((0..100).filter(|n| known(*n)).count() > 95);
}

fn text() -> impl Strategy<Value = String> {
    // So few that requests repeat, and mean the same in other words.
    prop_oneof![
        Just(BODY.to_owned()),
        Just(BODY.replace(',', " , ")),
        Just(BODY.replace("0.1", "0.10")),
        Just(r#"{"topK":3,"vector":[0.1,0.2]}"#.to_owned()),
        "[{}\\[\\]:,\"ab1 ]{0,6}",
    ]
}

fn request() -> impl Strategy<Value = Request> {
    let header = (
        prop::sample::select(vec!["accept", "authorization", "api-key", "x-user", "user-agent", "x-trace"]),
        "[ab]{0,2}",
    );
    (
        prop::sample::select(vec![Method::GET, Method::POST]),
        prop::sample::select(vec!["/query", "/query/a"]),
        prop::option::of("(a=1|b|trace=2|%61=1)(&(a=2|trace|b)){0,2}"),
        prop::collection::vec(header, 0..4),
        text(),
    )
        .prop_map(|(method, path, query, fields, body)| {
            let mut headers = HeaderMap::new();
            for (name, value) in fields {
                headers.append(name, value.parse().unwrap());
            }
            Request { method, path: path.to_owned(), query, headers, body: body.into_bytes() }
        })
}

proptest! {
    #[test]
    fn a_remembered_key_is_the_calculated_one(requests in prop::collection::vec(request(), 1..40)) {
        let rules = [
            usual(),
            names("https://vector.test", &policy(&["user-agent"], &[], &[])),
            names("https://vector.test", &policy(&[], &["x-trace", "api-key"], &["trace", "a"])),
            names("https://vector.test", &Policy { ordered: true, ..policy(&["user-agent"], &[], &["trace"]) }),
        ];
        let memo = Memo::new(20 * ENTRY);
        for _ in 0..2 {
            for request in &requests {
                for names in &rules {
                    prop_assert_eq!(memo.key(names, &request.identity()), names.key(&request.identity()));
                }
            }
        }
    }
}
