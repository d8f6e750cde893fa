//! What of a request decides what it means, and how its parts are read.

use std::borrow::Cow;

use http::HeaderMap;

use super::path::percent_decode;

/// Request headers that carry credentials, wherever they are sent.
pub const CREDENTIALS: [&str; 6] =
    ["authorization", "api-key", "x-api-key", "x-chroma-token", "apikey", "cookie"];

/// What of a request decides what it means.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Normalised, behind the route's prefix.
    pub path: &'a str,
    /// As received, behind the `?`.
    pub query: Option<&'a str>,
    /// As forwarded.
    pub headers: &'a HeaderMap,
    /// As forwarded; `None` where it cannot be read: too large to be held, or encoded.
    pub content: Option<&'a [u8]>,
}

/// What a query says under one name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Parameter<'a> {
    Absent,
    Value(Cow<'a, str>),
    /// Readers may differ: it is there twice, in another case, or there are semicolons, which some take for ampersands.
    Unclear,
}

impl<'a> Request<'a> {
    /// What the query says under a name, decoded as forms are.
    pub(super) fn parameter(&self, name: &str) -> Parameter<'a> {
        let mut found = Parameter::Absent;
        let Some(query) = self.query else { return found };
        if query.contains(';') {
            return Parameter::Unclear;
        }
        for parameter in query.split('&') {
            let (key, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            let key = decoded(key);
            if !key.eq_ignore_ascii_case(name) {
                continue;
            }
            if key != name || found != Parameter::Absent {
                return Parameter::Unclear;
            }
            found = Parameter::Value(decoded(value));
        }
        found
    }
}

/// Whether a query has a parameter of this name, with or without a value.
pub(super) fn has_parameter(query: Option<&str>, name: &str) -> bool {
    query.is_some_and(|query| {
        query.split(['&', ';']).any(|p| p.split('=').next().is_some_and(|found| decoded(found) == name))
    })
}

fn decoded(text: &str) -> Cow<'_, str> {
    if text.contains('+') {
        return Cow::Owned(percent_decode(&text.replace('+', " ")).into_owned());
    }
    percent_decode(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parameter_counts_with_or_without_a_value() {
        assert!(has_parameter(Some("all"), "all"));
        assert!(has_parameter(Some("x=1&all=true"), "all"));
        assert!(has_parameter(Some("x=1;all"), "all"));
        assert!(has_parameter(Some("%61ll"), "all"));
        assert!(!has_parameter(Some("allx=1"), "all"));
        assert!(!has_parameter(None, "all"));
    }

    #[test]
    fn a_value_is_told_only_where_all_read_it_alike() {
        let headers = HeaderMap::new();
        let value = |text: &'static str| Parameter::Value(text.into());
        for (query, expected) in [
            (None, Parameter::Absent),
            (Some(""), Parameter::Absent),
            (Some("waits=true"), Parameter::Absent),
            (Some("wait=true"), value("true")),
            (Some("x=1&wait=true&y"), value("true")),
            (Some("wait"), value("")),
            (Some("wait="), value("")),
            (Some("w%61it=tr%75e"), value("true")),
            (Some("wait=a+b"), value("a b")),
            (Some("wait=a%2Bb=c"), value("a+b=c")),
            (Some("wait=true&wait=true"), Parameter::Unclear),
            (Some("wait=true&WAIT=false"), Parameter::Unclear),
            (Some("Wait=true"), Parameter::Unclear),
            (Some("x=1;wait=true"), Parameter::Unclear),
        ] {
            let request = Request { path: "/", query, headers: &headers, content: None };
            assert_eq!(request.parameter("wait"), expected, "{query:?}");
        }
    }
}
