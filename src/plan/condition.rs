//! What a request must say for something to hold of it.

use regex::bytes::Regex;

use super::request::{Parameter, Request};
use crate::json::pointer::{Found, Pointer, Scalar};
use crate::json::{self, pointer};

/// Holds where any of its lines holds.
#[derive(Clone, Debug, Default)]
pub struct Condition {
    /// Query parameters and the values of theirs that make it hold.
    pub query: Vec<(String, Values)>,
    /// The same of places in the content, which is JSON.
    pub body: Vec<(Pointer, Values)>,
    /// Found anywhere in the content, which is JSON, as [`json::spelled_plainly`] has it: what a store takes for one name
    /// must not slip past by another spelling. Nothing is found where there is no content.
    pub matches: Option<Regex>,
}

/// Values that make a condition hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Values {
    /// Whatever stands there.
    Any,
    /// One of these.
    OneOf(Vec<Scalar>),
}

impl Values {
    fn take(&self, is: impl Fn(&Scalar) -> bool) -> bool {
        match self {
            Values::Any => true,
            Values::OneOf(scalars) => scalars.iter().any(is),
        }
    }
}

impl Condition {
    /// Whether it holds; `unclear` is the answer of a line that cannot be told, so that a mistake is never one that
    /// stores too much.
    pub fn holds(&self, request: &Request<'_>, unclear: bool) -> bool {
        self.holds_of_json(request, unclear)
            || unclear
                && self.wants_json()
                && !request.content.is_some_and(|c| c.is_empty() || json::is_text(c))
    }

    /// Whether it cannot be told of content that is not JSON: YAML, CBOR and their like have spellings of their own.
    pub fn wants_json(&self) -> bool {
        self.matches.is_some()
    }

    /// As [`holds`](Self::holds), of content that is JSON or none if `unclear` is true: a look-up learns that when it
    /// makes the key, and need not read the content for it again.
    pub fn holds_of_json(&self, request: &Request<'_>, unclear: bool) -> bool {
        self.query.iter().any(|(name, values)| match request.parameter(name) {
            Parameter::Absent => false,
            Parameter::Value(value) => values.take(|scalar| scalar.text() == value),
            Parameter::Unclear => unclear,
        }) || self.content_holds(request.content, unclear)
    }

    fn content_holds(&self, content: Option<&[u8]>, unclear: bool) -> bool {
        if self.body.is_empty() && self.matches.is_none() {
            return false;
        }
        let Some(content) = content else { return unclear };
        let found = |pattern: &Regex| {
            pattern.is_match(&json::spelled_plainly(content)) && (unclear || json::is_text(content))
        };
        if self.matches.as_ref().is_some_and(found) {
            return true;
        }
        if self.body.is_empty() {
            return false;
        }
        let pointers: Vec<&Pointer> = self.body.iter().map(|(pointer, _)| pointer).collect();
        let found = pointer::find(content, &pointers);
        found.iter().zip(&self.body).any(|(found, (_, values))| match found {
            Found::Absent => false,
            Found::Value(value) => values.take(|scalar| scalar.is(value)),
            Found::Unclear => unclear,
        })
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::*;

    fn text(text: &str) -> Scalar {
        Scalar::Text(text.to_owned())
    }

    fn condition() -> Condition {
        Condition {
            query: vec![(
                "refresh".to_owned(),
                Values::OneOf(vec![text(""), Scalar::Word("true".to_owned())]),
            )],
            body: vec![
                (Pointer::parse("/level").unwrap(), Values::OneOf(vec![text("Strong")])),
                (Pointer::parse("/deep/any").unwrap(), Values::Any),
            ],
            matches: Some(Regex::new(r#""lookup_from"\s*:"#).unwrap()),
        }
    }

    #[test]
    fn any_line_makes_it_hold() {
        let headers = HeaderMap::new();
        // (query, content, holds, or cannot be told)
        for (query, content, expected) in [
            (None, Some("{}"), Some(false)),
            (Some("refresh"), Some("{}"), Some(true)),
            (Some("refresh=true"), Some("{}"), Some(true)),
            (Some("refresh=false"), Some("{}"), Some(false)),
            (Some("refresh=true&refresh=false"), Some("{}"), None),
            (None, Some(r#"{"level":"Strong"}"#), Some(true)),
            (None, Some(r#"{"level":"Bounded"}"#), Some(false)),
            (None, Some(r#"{"level":"Strong","level":"Bounded"}"#), None),
            (None, Some(r#"{"deep":{"any":[1]}}"#), Some(true)),
            (None, Some(r#"{"a":[{"lookup_from" : {}}]}"#), Some(true)),
            (None, Some("not JSON"), None),
            (None, Some(""), None),
            (None, None, None),
            (Some("refresh"), None, Some(true)),
        ] {
            let request =
                Request { path: "/", query, headers: &headers, content: content.map(str::as_bytes) };
            for unclear in [false, true] {
                let holds = condition().holds(&request, unclear);
                assert_eq!(holds, expected.unwrap_or(unclear), "{query:?} {content:?}");
            }
        }
    }

    #[test]
    fn a_pattern_sees_the_content_as_it_is_read() {
        let headers = HeaderMap::new();
        let pattern = r#""sample"\s*:|\(\\n\)|\(\\"\)|/x|é"#;
        let condition = Condition { matches: Some(Regex::new(pattern).unwrap()), ..Condition::default() };
        for (content, expected) in [
            (r#"{"sample":1}"#, Some(true)),
            (r#"{"s\u0061mple" :1}"#, Some(true)),
            (r#"{"\u0073\u0061\u006D\u0070\u006c\u0065":1}"#, Some(true)),
            (r#"{"q":"(\n)"}"#, Some(true)),
            (r#"{"q":"(\u000a)"}"#, Some(true)),
            (r#"{"q":"(\u0022)"}"#, Some(true)),
            (r#"{"q":"\/x"}"#, Some(true)),
            (r#"{"q":"\u00e9"}"#, Some(true)),
            // In another text's string, a name is none.
            (r#"{"q":"\"sample\":"}"#, Some(false)),
            (r#"{"q":"\u0022sample\u0022:"}"#, Some(false)),
            (r#"{"s\\u0061mple":1}"#, Some(false)),
            (r#"{"q":"\ud83d\u0061"}"#, Some(false)),
            (r#"{"a":1}"#, Some(false)),
            ("", Some(false)),
            ("sample: 1", None),
            (r#"{"sample"/**/:1}"#, None),
            (r#"{a: {"sample":1}}"#, None),
            ("{}\n{}", None),
            (" ", None),
        ] {
            for unclear in [false, true] {
                let request =
                    Request { path: "/", query: None, headers: &headers, content: Some(content.as_bytes()) };
                let holds = condition.holds(&request, unclear);
                assert_eq!(holds, expected.unwrap_or(unclear), "{content}");
            }
        }
    }

    #[test]
    fn what_has_no_lines_about_the_content_does_not_read_it() {
        let headers = HeaderMap::new();
        let condition = Condition { query: vec![("a".to_owned(), Values::Any)], ..Condition::default() };
        let request = Request { path: "/", query: None, headers: &headers, content: None };
        assert!(!condition.holds(&request, true));
    }
}
