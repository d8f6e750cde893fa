//! The part of a store that a request is about.

use std::borrow::Cow;

use http::HeaderName;

use super::path::percent_decode;
use super::request::{Parameter, Request};
use super::rule::Rule;
use crate::json::pointer::{self, Found, Pointer};

/// One level of a scope: where its name is read from. A level that cannot be read becomes "everything below".
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Level {
    /// A name of the request's.
    Named {
        /// Where it stands.
        from: Source,
        /// The name where there is none, or an empty one.
        default: Option<String>,
    },
    /// A fixed name.
    Const(String),
    /// Everything below the levels before it.
    Any,
}

/// Where the name of a level stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A named group of the path pattern, percent-decoded.
    Path(String),
    /// A query parameter.
    Query(String),
    /// A string or a whole number in the content.
    Body(Pointer),
    /// A header field.
    Header(HeaderName),
}

/// What was read of a level.
enum Name<'a> {
    Is(Cow<'a, str>),
    /// There is none, for every reader: the default's place.
    Missing,
    Unreadable,
}

impl Rule {
    /// The names of the levels of the rule's scope in a request. A level that cannot be told ends it with `None`.
    pub fn scope_levels<'a>(&'a self, request: &Request<'a>) -> Vec<Option<Cow<'a, str>>> {
        let captures = self.matcher.path.as_ref().and_then(|pattern| pattern.captures(request.path));
        let mut in_content = self.names_in_content(request.content).into_iter();
        let mut levels = Vec::with_capacity(self.scope.len());
        for level in &self.scope {
            let name = match level {
                Level::Any => None,
                Level::Const(name) => Some(Cow::Borrowed(name.as_str())),
                Level::Named { from, default } => {
                    let name = match from {
                        Source::Path(group) => captures
                            .as_ref()
                            .and_then(|captures| captures.name(group))
                            .map_or(Name::Missing, |found| Name::Is(percent_decode(found.as_str()))),
                        Source::Query(name) => in_query(request, name),
                        Source::Body(_) => in_content.next().unwrap_or(Name::Unreadable),
                        Source::Header(name) => in_headers(request, name),
                    };
                    match name {
                        Name::Is(name) if !name.is_empty() => Some(name),
                        Name::Is(_) | Name::Missing => default.as_deref().map(Cow::Borrowed),
                        Name::Unreadable => None,
                    }
                }
            };
            let known = name.is_some();
            levels.push(name);
            if !known {
                break;
            }
        }
        levels
    }

    /// The names that stand in the content, in the order of their levels. Without such levels it is not read.
    fn names_in_content<'a>(&self, content: Option<&'a [u8]>) -> Vec<Name<'a>> {
        let pointers: Vec<&Pointer> = self
            .scope
            .iter()
            .filter_map(|level| match level {
                Level::Named { from: Source::Body(pointer), .. } => Some(pointer),
                _ => None,
            })
            .collect();
        match content {
            Some(content) if !pointers.is_empty() => {
                pointer::find(content, &pointers).into_iter().map(in_body).collect()
            }
            _ => Vec::new(),
        }
    }
}

fn in_query<'a>(request: &Request<'a>, name: &str) -> Name<'a> {
    match request.parameter(name) {
        Parameter::Absent => Name::Missing,
        Parameter::Value(value) => Name::Is(value),
        Parameter::Unclear => Name::Unreadable,
    }
}

fn in_headers<'a>(request: &Request<'a>, name: &HeaderName) -> Name<'a> {
    let mut values = request.headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Name::Missing,
        (Some(value), None) => value.to_str().map_or(Name::Unreadable, |value| Name::Is(value.trim().into())),
        (Some(_), Some(_)) => Name::Unreadable,
    }
}

/// A string, or a whole number: others have several spellings.
fn in_body(found: Found<'_>) -> Name<'_> {
    match found {
        Found::Absent => Name::Missing,
        Found::Unclear => Name::Unreadable,
        Found::Value(value) => {
            let digits = value.strip_prefix(b"-").unwrap_or(value);
            let name = if digits.iter().all(u8::is_ascii_digit) {
                std::str::from_utf8(value).ok().map(Cow::Borrowed)
            } else {
                pointer::string(value)
            };
            name.map_or(Name::Unreadable, Name::Is)
        }
    }
}

#[cfg(test)]
mod tests;
