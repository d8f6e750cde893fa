//! A rule as meant: patterns compiled, every number in its place.

use std::time::Duration;

use http::{HeaderName, Method};
use regex::Regex;

use super::{reach, reading};
use crate::config::file::Route;
use crate::config::layers::Layers;
use crate::config::presets::Preset;
use crate::config::problem::{Findings, KeyPath};
use crate::config::rule::{self as written, Action, LeavesState};
use crate::config::units::Time;
use crate::{cache, plan, retry, window};

/// What a rule is built from besides its own text.
pub(super) struct Ground<'a> {
    pub(super) layers: Layers<'a>,
    pub(super) preset: &'a Preset,
    /// Where it stands in the file, if it does.
    pub(super) preset_at: KeyPath,
    /// Request headers that the route leaves out of the key.
    pub(super) ignore_headers: Vec<HeaderName>,
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
        let meant = each.filter_map(|(index, rule)| self.rule(rule, &at.item(index), findings)).collect();
        reach::refuse_unreachable(rules, at, findings);
        meant
    }

    fn rule(&self, rule: &written::Rule, at: &KeyPath, findings: &mut Findings) -> Option<plan::Rule> {
        let operation = rule.operation.unwrap_or_default();
        let matcher = matcher(rule, at, findings);
        if rule.name.is_none() && !findings.touches(&at.key("name")) {
            findings.add(&at.key("name"), "a rule has a name, for logs", "name: query");
        }
        let scope = reading::scope(rule, matcher.as_ref().and_then(|m| m.path.as_ref()), at, findings);
        let settled_if =
            rule.settled_if.as_ref().map(|c| reading::condition(c, &at.key("settled_if"), findings));
        let pass_if = rule.pass_if.as_ref().map(|c| reading::condition(c, &at.key("pass_if"), findings));
        refuse_out_of_place(rule, at, findings);
        let action = self.action(rule, &scope, at, findings)?;
        let numbers = self.preset.operations.get(&operation);
        Some(plan::Rule {
            name: rule.name.clone()?,
            matcher: matcher?,
            operation: meant(operation),
            action,
            scope,
            settled_if,
            pass_if,
            timeouts: self.layers.timeouts(numbers),
            retry: self.layers.retry(numbers, class(operation, rule.idempotent)),
            leaves_state: match &rule.leaves_state {
                None => plan::LeavesState::Never,
                Some(LeavesState::Always(_)) => plan::LeavesState::Always,
                Some(LeavesState::Members(members)) => plan::LeavesState::Members(members.clone()),
            },
            not_idempotent_if: rule.not_idempotent_if.clone().unwrap_or_default(),
            window: dialect(rule.window).map(|dialect| self.layers.window(dialect)),
            reads_usage: rule.usage.unwrap_or_default(),
        })
    }

    /// What holds where no rule matches.
    pub(super) fn unmatched(&self, name: &str, invalidates: bool) -> plan::Rule {
        let operation = if invalidates { written::Operation::Write } else { written::Operation::Other };
        let numbers = self.preset.operations.get(&operation);
        plan::Rule {
            name: name.to_owned(),
            matcher: plan::Matcher {
                methods: Vec::new(),
                path: None,
                query_has: None,
                query_lacks: Vec::new(),
            },
            operation: meant(operation),
            action: if invalidates {
                plan::Action::Invalidate(self.settle(None))
            } else {
                plan::Action::Pass
            },
            scope: Vec::new(),
            settled_if: None,
            pass_if: None,
            timeouts: self.layers.timeouts(numbers),
            retry: self.layers.retry(numbers, retry::Class::Other),
            leaves_state: plan::LeavesState::Never,
            not_idempotent_if: Vec::new(),
            window: None,
            reads_usage: false,
        }
    }

    /// The route's own wins, whatever is settled; a rule's is about work that goes on behind the answer.
    fn settle(&self, rule: Option<Time>) -> cache::fence::Settle {
        let route = self.layers.route.cache.as_ref().and_then(|cache| cache.settle);
        let Time(span) = route.or(rule).or(self.preset.store.settle).unwrap_or_default();
        match rule {
            Some(_) => cache::fence::Settle { work: span, ..cache::fence::Settle::default() },
            None => cache::fence::Settle { lag: span, ..cache::fence::Settle::default() },
        }
    }

    /// Whether an empty answer is stored: as the route says, else a rule that has its own idea of success, else the
    /// preset.
    fn stores_empty(&self, rule: &written::Rule) -> bool {
        let route = self.layers.route.cache.as_ref().and_then(|cache| cache.cache_empty);
        let preset = self.preset.store.cache_empty.filter(|_| rule.store_if.is_none());
        route.or(preset).unwrap_or_default()
    }

    fn action(
        &self,
        rule: &written::Rule,
        scope: &[plan::Level],
        at: &KeyPath,
        findings: &mut Findings,
    ) -> Option<plan::Action> {
        let policy = self.policy(rule, scope, at, findings);
        let enabled = rule.enabled != Some(false);
        Some(match rule.action.unwrap_or_default() {
            Action::Cache if enabled && self.layers.cache_enabled() => plan::Action::Cache(Box::new(policy?)),
            Action::Embeddings if enabled && self.layers.embeddings_enabled() => {
                plan::Action::Embeddings(Box::new(policy?))
            }
            Action::Invalidate => plan::Action::Invalidate(self.settle(rule.settle)),
            Action::Cache | Action::Embeddings | Action::Pass => plan::Action::Pass,
        })
    }

    /// How the answers of a rule are stored.
    fn policy(
        &self,
        rule: &written::Rule,
        scope: &[plan::Level],
        at: &KeyPath,
        findings: &mut Findings,
    ) -> Option<cache::Policy> {
        let store = &self.preset.store;
        let vary = headers(rule.vary.as_deref(), &at.key("vary"), findings);
        let ignore_query =
            rule.ignore_query.clone().or_else(|| store.ignore_query.clone()).unwrap_or_default();
        let mut vary = vary?;
        for level in scope {
            match level {
                // Two answers of different scopes must never have one key.
                plan::Level::Named { from: plan::Source::Header(name), .. } if !vary.contains(name) => {
                    vary.push(name.clone());
                }
                plan::Level::Named { from: plan::Source::Query(name), .. } if ignore_query.contains(name) => {
                    let told = "the scope is read from this parameter, so it is part of the key";
                    findings.add_value(&at.key("ignore_query"), name, told, "leave it out");
                }
                _ => {}
            }
        }
        let store_if = rule.store_if.clone().or_else(|| store.store_if.clone()).unwrap_or_default();
        let own = rule.store_if.is_some();
        let vectors = rule.action == Some(Action::Embeddings);
        let at = if own { at.clone() } else { self.preset_at.key("store") }.key("store_if").key("equals");
        Some(cache::Policy {
            ttl: if vectors {
                self.layers.embeddings_ttl()
            } else {
                self.layers.ttl(rule.operation == Some(written::Operation::Search))
            },
            // Of a vector, no write tells that it is old, and to ask again is paid for.
            stale_if_error: if vectors { Duration::ZERO } else { self.layers.stale_if_error() },
            audit: if vectors { 0.0 } else { self.layers.audit() },
            shadow: self.layers.shadow(),
            max_entry: self.layers.max_entry(self.store_size),
            vary,
            ignore_headers: self.ignore_headers.clone(),
            ignore_query,
            ordered: rule.ordered.unwrap_or(store.ordered),
            store_if: cache::StoreIf {
                present: store_if.present.unwrap_or_default(),
                absent: store_if.absent.unwrap_or_default(),
                non_empty: store_if.non_empty.filter(|_| !self.stores_empty(rule)).unwrap_or_default(),
                equals: reading::equals(store_if.equals.as_ref(), &at, findings),
            },
        })
    }
}

/// The headers that a route leaves out of the key.
pub(super) fn ignore_headers(route: &Route, at: &KeyPath, findings: &mut Findings) -> Vec<HeaderName> {
    let at = at.key("cache").key("ignore_headers");
    let written = route.cache.as_ref().and_then(|cache| cache.ignore_headers.as_deref());
    let read = headers(written, &at, findings).unwrap_or_default();
    for (index, name) in
        read.iter().enumerate().filter(|(_, name)| plan::CREDENTIALS.contains(&name.as_str()))
    {
        let rule = "it tells who asks: one caller would get what only another may see";
        findings.add_value(&at.item(index), name.as_str(), rule, "leave it out");
    }
    read
}

/// Refuses what a rule of this action has no use for: it would be taken for something that happens.
fn refuse_out_of_place(rule: &written::Rule, at: &KeyPath, findings: &mut Findings) {
    let (action, action_at) = (rule.action.unwrap_or_default(), at.key("action"));
    let fenced = matches!(action, Action::Cache | Action::Invalidate);
    let stores = matches!(action, Action::Cache | Action::Embeddings);
    for (key, there, takes, wanted) in [
        ("scope", rule.scope.is_some(), action != Action::Embeddings, "leave it out"),
        ("settle", rule.settle.is_some(), action == Action::Invalidate, "action: invalidate"),
        ("settled_if", rule.settled_if.is_some(), fenced, "action: invalidate"),
        ("pass_if", rule.pass_if.is_some(), stores, "action: cache"),
        ("store_if", rule.store_if.is_some(), action != Action::Embeddings, "leave it out"),
        ("ordered", rule.ordered.is_some(), action != Action::Embeddings, "leave it out"),
    ] {
        let at = at.key(key);
        if there && !takes && !findings.touches(&at) && !findings.touches(&action_at) {
            findings.add(&at, "a rule of this action has no use for it", wanted);
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

/// Whose conversation a rule's requests carry, if any.
fn dialect(written: Option<written::Window>) -> Option<window::Dialect> {
    use written::{Conversation, Window};
    match written? {
        Window::Truth(false) => None,
        Window::Truth(true) | Window::Dialect(Conversation::Chat) => Some(window::Dialect::Chat),
        Window::Dialect(Conversation::Responses) => Some(window::Dialect::Responses),
        Window::Dialect(Conversation::Messages) => Some(window::Dialect::Messages),
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
    let path = match rule.path.as_deref().map(|text| (text, Regex::new(text))) {
        None => None,
        Some((_, Ok(path))) => Some(path),
        Some((text, Err(error))) => {
            reading::broken_pattern(text, &error, "^/query(?:/(?P<ns>.+))?$", &at.key("path"), findings);
            return None;
        }
    };
    let (query_has, query_lacks) = (rule.query_has.clone(), rule.query_lacks.clone().unwrap_or_default());
    Some(plan::Matcher { methods, path, query_has, query_lacks })
}

fn headers(names: Option<&[String]>, at: &KeyPath, findings: &mut Findings) -> Option<Vec<HeaderName>> {
    let (names, mut read) = (names.unwrap_or_default(), Vec::new());
    for (index, name) in names.iter().enumerate() {
        read.extend(reading::header(name, &at.item(index), findings));
    }
    (read.len() == names.len()).then_some(read)
}
