use http::HeaderMap;

use super::*;
use crate::plan::tests::rule;

fn body(place: &str, default: Option<&str>) -> Level {
    named(Source::Body(Pointer::parse(place).unwrap()), default)
}

fn named(from: Source, default: Option<&str>) -> Level {
    Level::Named { from, default: default.map(str::to_owned) }
}

/// The levels of this scope in a request, as text: `*` for everything below.
fn read(scope: Vec<Level>, query: Option<&str>, headers: &HeaderMap, content: Option<&str>) -> String {
    let rule = rule("^/(?P<a>[^/]*)(?:/(?P<b>.+))?$", scope);
    let request = Request { path: "/one%20x", query, headers, content: content.map(str::as_bytes) };
    let levels = rule.scope_levels(&request);
    levels.iter().map(|level| level.as_deref().unwrap_or("*").to_owned()).collect::<Vec<_>>().join(" / ")
}

#[test]
fn names_in_paths() {
    let at = |group: &str, default| {
        let scope = vec![named(Source::Path(group.to_owned()), default), Level::Const("end".to_owned())];
        read(scope, None, &HeaderMap::new(), None)
    };
    assert_eq!(at("a", None), "one x / end");
    assert_eq!(at("b", Some("")), " / end", "took no part: the default");
    assert_eq!(at("b", None), "*", "and everything below without one");
}

#[test]
fn names_in_content() {
    let at = |content, default| read(vec![body("/ns", default)], None, &HeaderMap::new(), content);
    for (content, without, with) in [
        (r#"{"ns":"a"}"#, "a", "a"),
        (r#"{"ns":"\u0061"}"#, "a", "a"),
        (r#"{"ns":17}"#, "17", "17"),
        (r#"{"ns":-1}"#, "-1", "-1"),
        // A name that is really missing takes the default, one that is there and cannot be read never does.
        ("{}", "*", "d"),
        (r#"{"ns":""}"#, "*", "d"),
        (r#"{"ns":null}"#, "*", "*"),
        (r#"{"ns":["a"]}"#, "*", "*"),
        (r#"{"ns":{"a":1}}"#, "*", "*"),
        (r#"{"ns":true}"#, "*", "*"),
        (r#"{"ns":1.0}"#, "*", "*"),
        (r#"{"ns":1e3}"#, "*", "*"),
        (r#"{"ns":"\ud800"}"#, "*", "*"),
        (r#"{"ns":"a","ns":"b"}"#, "*", "*"),
        (r#"{"NS":"a"}"#, "*", "*"),
        (r#"[{"ns":"a"}]"#, "*", "d"),
        ("", "*", "*"),
        ("ns=a", "*", "*"),
        ("{\"ns\":\"a\"}\n{\"ns\":\"b\"}", "*", "*"),
    ] {
        assert_eq!(at(Some(content), None), without, "{content}");
        assert_eq!(at(Some(content), Some("d")), with, "{content}");
    }
    assert_eq!(at(None, Some("d")), "*", "content that is not held");
}

#[test]
fn names_in_queries_and_headers() {
    let from_query = |query| {
        let scope = vec![named(Source::Query("ns".to_owned()), Some("d"))];
        read(scope, query, &HeaderMap::new(), None)
    };
    assert_eq!(from_query(Some("ns=a%20b")), "a b");
    assert_eq!(from_query(Some("x=1")), "d");
    assert_eq!(from_query(Some("ns=")), "d");
    assert_eq!(from_query(None), "d");
    assert_eq!(from_query(Some("ns=a&ns=b")), "*");

    let from_headers = |values: &[&'static str]| {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append("db-name", http::HeaderValue::from_static(value));
        }
        let scope = vec![named(Source::Header(HeaderName::from_static("db-name")), Some("d"))];
        read(scope, None, &headers, None)
    };
    assert_eq!(from_headers(&["a"]), "a");
    assert_eq!(from_headers(&[]), "d");
    assert_eq!(from_headers(&[""]), "d");
    assert_eq!(from_headers(&["a", "a"]), "*");
}

#[test]
fn several_levels_of_several_sources() {
    let scope =
        || vec![body("/db", Some("default")), named(Source::Path("a".to_owned()), None), body("/c/0", None)];
    let at = |content| read(scope(), None, &HeaderMap::new(), Some(content));
    assert_eq!(at(r#"{"c":["x"]}"#), "default / one x / x");
    assert_eq!(at(r#"{"db":"two","c":[]}"#), "two / one x / *");
    assert_eq!(at(r#"{"db":{},"c":["x"]}"#), "*", "nothing behind a level that cannot be read counts");
}
