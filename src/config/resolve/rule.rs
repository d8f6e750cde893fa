//! A rule as meant: patterns compiled, every number in its place.

use http::{HeaderName, Method};
use regex::Regex;

use crate::config::layers::Layers;
use crate::config::presets::Preset;
use crate::config::problem::{Findings, KeyPath, nearest};
use crate::config::rule::{self as written, Action, LeavesState, Level};
use crate::config::units::Time;
use crate::{cache, plan, retry};

/// Request headers that change the answer of a search, where a preset says nothing else.
const VARY: [&str; 5] = ["accept", "accept-language", "content-type", "origin", "prefer"];

/// Request headers that carry credentials, where a preset says nothing else.
const CREDENTIALS: [&str; 7] =
    ["authorization", "api-key", "x-api-key", "x-chroma-token", "apikey", "cookie", "proxy-authorization"];

/// What a rule is built from besides its own text.
pub(super) struct Ground<'a> {
    pub(super) layers: Layers<'a>,
    pub(super) preset: &'a Preset,
    /// `memory.cache`: the most that one answer can take.
    pub(super) store_size: u64,
}

impl Ground<'_> {
    /// Builds every rule; the mistakes of all of them are noted.
    pub(super) fn rules(
        &self,
        rules: &[written::Rule],
        at: &KeyPath,
        findings: &mut Findings,
    ) -> Vec<plan::Rule> {
        let each = rules.iter().enumerate();
        each.filter_map(|(index, rule)| self.rule(rule, &at.item(index), findings)).collect()
    }

    fn rule(&self, rule: &written::Rule, at: &KeyPath, findings: &mut Findings) -> Option<plan::Rule> {
        let operation = rule.operation.unwrap_or_default();
        let matcher = matcher(rule, at, findings);
        if rule.name.is_none() && !findings.touches(&at.key("name")) {
            findings.add(&at.key("name"), "a rule has a name, for logs", "name: query");
        }
        let scope = scope(rule, matcher.as_ref().and_then(|m| m.path.as_ref()), at, findings);
        let action = self.action(rule, at, findings)?;
        let numbers = self.preset.operations.get(&operation);
        Some(plan::Rule {
            name: rule.name.clone()?,
            matcher: matcher?,
            operation: meant(operation),
            action,
            scope,
            timeouts: self.layers.timeouts(numbers),
            retry: self.layers.retry(numbers, class(operation, rule.idempotent)),
            leaves_state: match &rule.leaves_state {
                None => plan::LeavesState::Never,
                Some(LeavesState::Always(_)) => plan::LeavesState::Always,
                Some(LeavesState::Members(members)) => plan::LeavesState::Members(members.clone()),
            },
            not_idempotent_if: rule.not_idempotent_if.clone().unwrap_or_default(),
            window: rule.window.unwrap_or_default().then(|| self.layers.window()),
            reads_usage: rule.usage.unwrap_or_default(),
        })
    }

    /// What holds where no rule matches.
    pub(super) fn unmatched(&self, name: &str, invalidates: bool) -> plan::Rule {
        let operation = if invalidates { written::Operation::Write } else { written::Operation::Other };
        let numbers = self.preset.operations.get(&operation);
        plan::Rule {
            name: name.to_owned(),
            matcher: plan::Matcher { methods: Vec::new(), path: None, query_has: None },
            operation: meant(operation),
            action: if invalidates { plan::Action::Invalidate(self.settle()) } else { plan::Action::Pass },
            scope: Vec::new(),
            timeouts: self.layers.timeouts(numbers),
            retry: self.layers.retry(numbers, retry::Class::Other),
            leaves_state: plan::LeavesState::Never,
            not_idempotent_if: Vec::new(),
            window: None,
            reads_usage: false,
        }
    }

    fn settle(&self) -> cache::Settle {
        let route = self.layers.route.cache.as_ref().and_then(|cache| cache.settle);
        let Time(settle) = route.or(self.preset.store.settle).unwrap_or_default();
        cache::Settle(settle)
    }

    fn action(&self, rule: &written::Rule, at: &KeyPath, findings: &mut Findings) -> Option<plan::Action> {
        let store = &self.preset.store;
        let credentials: Vec<String> =
            store.credentials.clone().unwrap_or_else(|| CREDENTIALS.map(str::to_owned).to_vec());
        let vary = rule.vary.clone().or_else(|| store.vary.clone());
        let vary =
            headers(&vary.unwrap_or_else(|| VARY.map(str::to_owned).to_vec()), &at.key("vary"), findings);
        let store_if = rule.store_if.clone().or_else(|| store.store_if.clone()).unwrap_or_default();
        match rule.action.unwrap_or_default() {
            Action::Pass => Some(plan::Action::Pass),
            Action::Invalidate => Some(plan::Action::Invalidate(self.settle())),
            Action::Cache if !self.layers.cache_enabled() || rule.enabled == Some(false) => {
                Some(plan::Action::Pass)
            }
            Action::Cache => Some(plan::Action::Cache(Box::new(cache::Policy {
                ttl: self.layers.ttl(rule.operation == Some(written::Operation::Search)),
                stale_if_error: self.layers.stale_if_error(),
                shadow: self.layers.shadow(),
                audit: self.layers.audit(),
                max_entry: self.layers.max_entry(self.store_size),
                vary: vary?,
                credentials: headers(&credentials, at, findings)?,
                ignore_query: rule
                    .ignore_query
                    .clone()
                    .or_else(|| store.ignore_query.clone())
                    .unwrap_or_default(),
                store_if: cache::StoreIf {
                    present: store_if.present.unwrap_or_default(),
                    absent: store_if.absent.unwrap_or_default(),
                    non_empty: store_if.non_empty.unwrap_or_default(),
                },
            }))),
        }
    }
}

/// What may be attempted again: a write only where its rule says so.
fn class(operation: written::Operation, idempotent: Option<bool>) -> retry::Class {
    use written::Operation::{Chat, Embeddings, Search};
    match (operation, idempotent) {
        (_, Some(true)) | (Search | Embeddings, None) => retry::Class::Idempotent,
        (Chat, None) => retry::Class::Chat,
        _ => retry::Class::Other,
    }
}

fn meant(operation: written::Operation) -> plan::Operation {
    match operation {
        written::Operation::Search => plan::Operation::Search,
        written::Operation::Write => plan::Operation::Write,
        written::Operation::Chat => plan::Operation::Chat,
        written::Operation::Embeddings => plan::Operation::Embeddings,
        written::Operation::Other => plan::Operation::Other,
    }
}

fn matcher(rule: &written::Rule, at: &KeyPath, findings: &mut Findings) -> Option<plan::Matcher> {
    let mut methods = Vec::new();
    for (index, text) in rule.methods.iter().flatten().enumerate() {
        let at = at.key("methods").item(index);
        match Method::from_bytes(text.as_bytes()) {
            Ok(method) if !text.bytes().any(|byte| byte.is_ascii_lowercase()) => methods.push(method),
            _ if findings.touches(&at) => {}
            _ => findings.add_value(
                &at,
                text,
                "a method is a word in capitals",
                "GET, POST, PUT, PATCH or DELETE",
            ),
        }
    }
    let path = match rule.path.as_deref().map(Regex::new) {
        None => None,
        Some(Ok(path)) => Some(path),
        Some(Err(error)) => {
            // The last line of regex's drawing is the sentence.
            let told = error.to_string();
            let reason = told.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
            let rule_text = format!("not a regular expression of Rust's regex crate: {reason}");
            let written = rule.path.clone().unwrap_or_default();
            findings.add_value(&at.key("path"), written, rule_text, "^/query(?:/(?P<ns>.+))?$");
            return None;
        }
    };
    Some(plan::Matcher { methods, path, query_has: rule.query_has.clone() })
}

fn scope(
    rule: &written::Rule,
    path: Option<&Regex>,
    at: &KeyPath,
    findings: &mut Findings,
) -> Vec<plan::Level> {
    let at = at.key("scope");
    let groups: Vec<&str> = path.map(|path| path.capture_names().flatten().collect()).unwrap_or_default();
    let mut levels = Vec::new();
    for (index, level) in rule.scope.iter().flatten().enumerate() {
        let at = at.item(index);
        if levels.last() == Some(&plan::Level::Any) {
            findings.add(&at, "nothing stands behind `*`, which is everything below", "remove this level");
        }
        match level {
            Level::Any(_) => levels.push(plan::Level::Any),
            Level::Named(named) => match (&named.path, &named.fixed) {
                (Some(group), None) => {
                    let known = groups.contains(&group.as_str()) || findings.touches(&at);
                    if !known && (path.is_some() || rule.path.is_none()) {
                        unknown_group(group, &groups, &at.key("path"), findings);
                    }
                    levels.push(plan::Level::Path { group: group.clone(), default: named.default.clone() });
                }
                (None, Some(name)) if named.default.is_none() => {
                    levels.push(plan::Level::Const(name.clone()));
                }
                _ if findings.touches(&at) => {}
                _ => findings.add(
                    &at,
                    "a level is `\"*\"`, or has `path` or `const`",
                    "{path: ns, default: \"\"}",
                ),
            },
        }
    }
    levels
}

fn unknown_group(group: &str, groups: &[&str], at: &KeyPath, findings: &mut Findings) {
    let suggestion = match (nearest(group, groups.iter().copied()), groups) {
        (Some(near), _) => near.to_owned(),
        (None, []) => format!("name a group in the pattern: (?P<{group}>[^/]+)"),
        (None, groups) => format!("one of: {}", groups.join(", ")),
    };
    findings.add_value(at, group, "the rule's pattern has no group of this name", suggestion);
}

fn headers(names: &[String], at: &KeyPath, findings: &mut Findings) -> Option<Vec<HeaderName>> {
    let mut read = Vec::new();
    for (index, name) in names.iter().enumerate() {
        let at = at.item(index);
        match name.parse() {
            Ok(header) => read.push(header),
            Err(_) if findings.touches(&at) => {}
            Err(_) => findings.add_value(&at, name, "not the name of a header", "accept-language"),
        }
    }
    (read.len() == names.len()).then_some(read)
}
