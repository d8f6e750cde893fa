//! What a rule reads of a request: the levels of its scope and its conditions.

use std::collections::BTreeMap;

use http::HeaderName;
use regex::Regex;

use crate::config::problem::{Findings, KeyPath, nearest};
use crate::config::rule::{Condition, Level, NamedLevel, Rule, Scalar, Values};
use crate::json::pointer::{self, Pointer};
use crate::plan::{self, Source};

/// The levels of a rule's scope. `path` is the rule's pattern, where it is one.
pub(super) fn scope(
    rule: &Rule,
    path: Option<&Regex>,
    at: &KeyPath,
    findings: &mut Findings,
) -> Vec<plan::Level> {
    let at = at.key("scope");
    let mut levels = Vec::new();
    for (index, level) in rule.scope.iter().flatten().enumerate() {
        let at = at.item(index);
        if levels.last() == Some(&plan::Level::Any) {
            findings.add(&at, "nothing stands behind `*`, which is everything below", "remove this level");
        }
        let named = match level {
            Level::Any(_) => {
                levels.push(plan::Level::Any);
                continue;
            }
            Level::Named(named) => named,
        };
        let known = findings.touches(&at);
        match named {
            NamedLevel {
                path: None,
                query: None,
                body: None,
                header: None,
                default: None,
                fixed: Some(name),
            } => {
                levels.push(plan::Level::Const(name.clone()));
            }
            NamedLevel { path: Some(group), query: None, body: None, header: None, fixed: None, .. } => {
                let groups: Vec<&str> =
                    path.map(|path| path.capture_names().flatten().collect()).unwrap_or_default();
                let readable = path.is_some() || rule.path.is_none();
                if !known && readable && !groups.contains(&group.as_str()) {
                    unknown_group(group, &groups, &at.key("path"), findings);
                }
                levels.push(level_of(Source::Path(group.clone()), named));
            }
            NamedLevel { path: None, query: Some(name), body: None, header: None, fixed: None, .. } => {
                levels.push(level_of(Source::Query(name.clone()), named));
            }
            NamedLevel { path: None, query: None, body: Some(place), header: None, fixed: None, .. } => {
                let pointer = pointer(place, &at.key("body"), findings);
                levels.extend(pointer.map(|pointer| level_of(Source::Body(pointer), named)));
            }
            NamedLevel { path: None, query: None, body: None, header: Some(name), fixed: None, .. } => {
                let header = header(name, &at.key("header"), findings);
                levels.extend(header.map(|header| level_of(Source::Header(header), named)));
            }
            _ if known => {}
            _ => findings.add(
                &at,
                "a level is `\"*\"`, or has one of `path`, `query`, `body`, `header` and `const`",
                "{path: ns, default: \"\"}",
            ),
        }
    }
    levels
}

fn level_of(from: Source, named: &NamedLevel) -> plan::Level {
    plan::Level::Named { from, default: named.default.clone() }
}

fn unknown_group(group: &str, groups: &[&str], at: &KeyPath, findings: &mut Findings) {
    let suggestion = match (nearest(group, groups.iter().copied()), groups) {
        (Some(near), _) => near.to_owned(),
        (None, []) => format!("name a group in the pattern: (?P<{group}>[^/]+)"),
        (None, groups) => format!("one of: {}", groups.join(", ")),
    };
    findings.add_value(at, group, "the rule's pattern has no group of this name", suggestion);
}

/// A condition as meant.
pub(super) fn condition(written: &Condition, at: &KeyPath, findings: &mut Findings) -> plan::Condition {
    let query = written.query.iter().flatten().map(|(name, values)| (name.clone(), meant(values)));
    let body = written.body.iter().flatten().filter_map(|(place, values)| {
        Some((pointer(place, &at.key("body").key(place), findings)?, meant(values)))
    });
    let (query, body) = (query.collect(), body.collect());
    let matches = written.matches.as_deref().and_then(|text| {
        let pattern = regex::bytes::Regex::new(text);
        pattern
            .map_err(|error| broken_pattern(text, &error, "\"lookup_from\"", &at.key("matches"), findings))
            .ok()
    });
    if written.query.is_none() && written.body.is_none() && written.matches.is_none() && !findings.touches(at)
    {
        let suggestion = "{query: {wait: true}}";
        findings.add(at, "a condition has one of `query`, `body` and `matches`", suggestion);
    }
    plan::Condition { query, body, matches }
}

fn meant(values: &Values) -> plan::Values {
    let scalars = match values {
        Values::One(scalar) => std::slice::from_ref(scalar),
        Values::Many(scalars) => scalars.as_slice(),
    };
    if scalars.contains(&Scalar::Text("*".to_owned())) {
        return plan::Values::Any;
    }
    plan::Values::OneOf(scalars.iter().map(scalar).collect())
}

fn scalar(written: &Scalar) -> pointer::Scalar {
    match written {
        Scalar::Text(text) => pointer::Scalar::Text(text.clone()),
        Scalar::Truth(truth) => pointer::Scalar::Word(truth.to_string()),
        Scalar::Whole(number) => pointer::Scalar::Word(number.to_string()),
        Scalar::Number(number) => pointer::Scalar::Word(number.to_string()),
    }
}

/// Values that must stand at places, as meant.
pub(super) fn equals(
    written: Option<&BTreeMap<String, Scalar>>,
    at: &KeyPath,
    findings: &mut Findings,
) -> Vec<(Pointer, pointer::Scalar)> {
    let each = written.into_iter().flatten();
    each.filter_map(|(place, value)| Some((pointer(place, &at.key(place), findings)?, scalar(value))))
        .collect()
}

fn pointer(text: &str, at: &KeyPath, findings: &mut Findings) -> Option<Pointer> {
    let pointer = Pointer::parse(text);
    if pointer.is_none() && !findings.touches(at) {
        let rule =
            "not a JSON pointer: names behind slashes, `~1` for a slash and `~0` for a tilde in a name";
        findings.add_value(at, text, rule, format!("/{}", text.trim_start_matches('/').replace('~', "~0")));
    }
    pointer
}

/// The name of a header.
pub(super) fn header(name: &str, at: &KeyPath, findings: &mut Findings) -> Option<HeaderName> {
    let header = name.parse().ok();
    if header.is_none() && !findings.touches(at) {
        findings.add_value(at, name, "not the name of a header", "accept-language");
    }
    header
}

/// Says what is wrong with a pattern, in one sentence.
pub(super) fn broken_pattern(
    text: &str,
    error: &regex::Error,
    example: &str,
    at: &KeyPath,
    findings: &mut Findings,
) {
    // The last line of regex's drawing is the sentence.
    let told = error.to_string();
    let reason = told.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
    findings.add_value(
        at,
        text,
        format!("not a regular expression of Rust's regex crate: {reason}"),
        example,
    );
}
