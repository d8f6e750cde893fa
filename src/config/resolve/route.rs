//! One route as meant: the plan that requests follow.

use std::collections::BTreeMap;
use std::time::Duration;

use http::HeaderName;

use super::rule::{Ground, ignore_headers};
use super::target;
use crate::config::file::{Breaker, Cache, Defaults, OneOrMany, Route, RouteCache, Timeouts, Window};
use crate::config::layers::{Layers, built_in};
use crate::config::listeners::Listener;
use crate::config::overrides::Overrides;
use crate::config::presets::{self, Preset};
use crate::config::problem::{Findings, KeyPath, nearest};
use crate::config::rule::{Action, StoreIf};
use crate::plan::{self, Plan};
use crate::retry;
use crate::upstream::Target;

/// What all routes share.
pub(super) struct Shared<'a> {
    pub(super) defaults: &'a Defaults,
    pub(super) overrides: &'a Overrides,
    /// Those of the file.
    pub(super) presets: &'a BTreeMap<String, Preset>,
    /// `memory.cache`.
    pub(super) store_size: u64,
    /// Every listener of the process, for finding upstreams that are ourselves.
    pub(super) listeners: &'a [Listener],
}

/// What becomes of a route.
pub(super) enum Outcome {
    Planned(Box<Plan>),
    /// Its upstream is left empty by the variables named.
    Skipped(String),
    /// Something is wrong with it, and noted.
    Refused,
}

/// Resolves one route. Every part is looked at, whatever is wrong with the others.
pub(super) fn resolve(route: &Route, at: &KeyPath, shared: &Shared<'_>, findings: &mut Findings) -> Outcome {
    let name = name(route, at, findings);
    let prefix = prefix(route, at, findings);
    let preset = preset(route, shared, at, findings);
    let upstream = upstream(route, at, shared, findings);
    let lifetimes = route.cache.as_ref().map(RouteCache::common);
    check_numbers(at, route.timeouts.as_ref(), lifetimes.as_ref(), route.breaker.as_ref(), findings);
    let meaning = preset.and_then(|preset| meaning(route, preset, at, shared, findings));
    let (Some(name), Some(prefix), Some(upstream), Some(meaning)) = (name, prefix, upstream, meaning) else {
        return Outcome::Refused;
    };
    let Some(upstream) = upstream else {
        let variables = findings.variables(&at.key("upstream")).join(" or ");
        return Outcome::Skipped(format!("route {name} is skipped: it has no upstream (set {variables})"));
    };
    let own = at.key("listen");
    let listeners = shared.listeners.iter().filter(|listener| own.covers(&listener.at));
    Outcome::Planned(Box::new(Plan {
        name,
        prefix,
        listen: listeners.map(|listener| listener.address.clone()).collect(),
        upstream,
        preset: route.preset.as_deref().unwrap_or(presets::PLAIN).to_owned(),
        dialect: meaning.preset.dialect.into(),
        rules: meaning.rules,
        unmatched_safe: meaning.unmatched_safe,
        unmatched_unsafe: meaning.unmatched_unsafe,
        limits: meaning.limits,
        id_header: meaning.id_header,
        conversation_idle: meaning.conversation_idle,
        stop_sdk: meaning.stop_sdk,
        guard: meaning.guard,
        billing_codes: meaning.preset.billing_codes.clone(),
        bot_env: meaning.preset.bot_env.clone(),
        // The rest is known when every route is.
        fenced: false,
        settle: Duration::ZERO,
        flush_whole: route.cache.as_ref().and_then(|cache| cache.aliases).unwrap_or(meaning.aliases),
    }))
}

/// What requests of a route mean, wherever they come in and go.
struct Meaning<'a> {
    preset: &'a Preset,
    /// Names of the store may be aliases of each other.
    aliases: bool,
    rules: Vec<plan::Rule>,
    unmatched_safe: plan::Rule,
    unmatched_unsafe: plan::Rule,
    limits: plan::Limits,
    id_header: HeaderName,
    conversation_idle: Duration,
    stop_sdk: plan::StopSdk,
    guard: retry::GuardPolicy,
}

fn meaning<'a>(
    route: &Route,
    preset: &'a Preset,
    at: &KeyPath,
    shared: &Shared<'_>,
    findings: &mut Findings,
) -> Option<Meaning<'a>> {
    let built_in = built_in().defaults.as_ref()?;
    let layers = Layers { overrides: shared.overrides, route, defaults: shared.defaults, built_in };
    let id_header = layers.id_header();
    let id_at = match &route.window {
        Some(Window { id_header: Some(_), .. }) => at.key("window").key("id_header"),
        _ => KeyPath::root().key("defaults").key("window").key("id_header"),
    };
    let id_header = conversation_header(id_header, &id_at, findings);
    let (limits, conversation_idle) = (layers.limits(), layers.conversation_idle());
    let (stop_sdk, guard) = (layers.stop_sdk(), layers.guard());
    let own = route.preset.as_deref().unwrap_or_default();
    let preset_at = KeyPath::root().key("presets").key(own);
    let own = route.rules.is_none() && shared.presets.contains_key(own);
    let rules_at = if own { preset_at.clone() } else { at.clone() }.key("rules");
    let ignore_headers = ignore_headers(route, at, findings);
    let ground = Ground { layers, preset, preset_at, ignore_headers, store_size: shared.store_size };
    let written = route.rules.as_deref().unwrap_or(&preset.rules);
    let rules = ground.rules(written, &rules_at, findings);
    refuse_idle_cache_empty(route, preset, written, at, findings);
    // On a store, what is not known to be a read is taken for a write.
    let is_store = written.iter().any(|rule| matches!(rule.action, Some(Action::Cache | Action::Invalidate)));
    Some(Meaning {
        preset,
        aliases: preset.store.aliases,
        rules,
        unmatched_safe: ground.unmatched("unmatched-safe", false),
        unmatched_unsafe: ground.unmatched("unmatched", is_store),
        limits,
        id_header: id_header?,
        conversation_idle,
        stop_sdk,
        guard,
    })
}

fn name(route: &Route, at: &KeyPath, findings: &mut Findings) -> Option<String> {
    let at = at.key("name");
    match route.name.as_deref() {
        None if findings.touches(&at) => None,
        None => {
            findings.add(&at, "a route has a name, for metrics, logs and commands", "name: openai");
            None
        }
        Some(name) if is_name(name) => Some(name.to_owned()),
        Some(name) => {
            let meant: String =
                name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
            let rule = "a name is 1 to 63 letters, digits, `-`, `_` and `.`";
            let repeatable = is_name(&meant) && !findings.expanded(&at);
            findings.add_value(&at, name, rule, if repeatable { &meant } else { "openai" });
            None
        }
    }
}

fn is_name(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    (1..=63).contains(&name.len()) && name.chars().all(allowed)
}

/// The prefix in its normalised form, which is what requests are compared with.
fn prefix(route: &Route, at: &KeyPath, findings: &mut Findings) -> Option<String> {
    let at = at.key("path");
    let Some(path) = route.path.as_deref() else {
        if has_own_listener(route) {
            return Some(String::new());
        }
        if !findings.touches(&at) {
            let named = route.name.as_deref().filter(|name| is_name(name)).unwrap_or("openai");
            let rule = "a route has a path, or a `listen` of its own";
            findings.add(&at, rule, format!("path: /{named}"));
        }
        return None;
    };
    let plain = path.bytes().all(|byte| byte.is_ascii_graphic() && !b"?#\\".contains(&byte));
    let fault = if !path.starts_with('/') {
        let bare =
            path.split_once("://").map_or(path, |(_, rest)| rest.split_once('/').map_or("", |(_, p)| p));
        Some(("a path starts with `/`", format!("/{}", bare.trim_matches('/'))))
    } else if !plain {
        Some((
            "a path is plain: no spaces, no `?`, `#` or `\\`, and other letters percent-encoded",
            "/openai".to_owned(),
        ))
    } else {
        match plan::normalise(path) {
            Ok(normalised) => return Some(normalised.trim_end_matches('/').to_owned()),
            Err(_) => Some(("a path has no dot segments and no broken escapes", "/openai".to_owned())),
        }
    };
    if let Some((rule, suggestion)) = fault {
        let suggestion = if findings.expanded(&at) { "/openai".to_owned() } else { suggestion };
        findings.add_value(&at, path, rule, suggestion);
    }
    None
}

/// Whether the route has an address of its own; one that variables leave empty is none.
pub(super) fn has_own_listener(route: &Route) -> bool {
    route.listen.iter().flat_map(OneOrMany::each).any(|(_, text)| !text.is_empty())
}

fn preset<'a>(
    route: &Route,
    shared: &Shared<'a>,
    at: &KeyPath,
    findings: &mut Findings,
) -> Option<&'a Preset> {
    let at = at.key("preset");
    let name = route.preset.as_deref().unwrap_or(presets::PLAIN);
    match presets::preset(name) {
        Some(Ok(preset)) => Some(preset),
        Some(Err(error)) => {
            findings.add_plain(&at, format!("the preset {name} is broken: {error}"));
            None
        }
        None if shared.presets.contains_key(name) => shared.presets.get(name),
        None => {
            let mut known: Vec<&str> = presets::names().collect();
            known.extend(shared.presets.keys().map(String::as_str));
            let rule = format!("a preset is one of: {}", known.join(", "));
            let meant = nearest(name, known.iter().copied()).unwrap_or(presets::PLAIN);
            findings.add_value(&at, name, rule, meant);
            // So that the rest of the route is still looked at.
            presets::preset(presets::PLAIN).and_then(|preset| preset.as_ref().ok())
        }
    }
}

/// Looks at the presets of the file, used or not.
pub(super) fn check_presets(shared: &Shared<'_>, findings: &mut Findings) {
    let Some(built_in) = built_in().defaults.as_ref() else { return };
    let route = Route::default();
    for (name, preset) in shared.presets {
        let at = KeyPath::root().key("presets").key(name);
        if presets::preset(name).is_some() {
            findings.add(&at, "a preset of this name is built in", format!("my-{name}"));
        } else if !is_name(name) {
            findings.add(&at, "a name is 1 to 63 letters, digits, `-`, `_` and `.`", "my-store");
        }
        let layers =
            Layers { overrides: shared.overrides, route: &route, defaults: shared.defaults, built_in };
        let (preset_at, ignore_headers) = (at.clone(), Vec::new());
        let ground = Ground { layers, preset, preset_at, ignore_headers, store_size: shared.store_size };
        ground.rules(&preset.rules, &at.key("rules"), findings);
    }
}

/// Refuses `cache_empty: false` where nothing tells an empty answer.
fn refuse_idle_cache_empty(
    route: &Route,
    preset: &Preset,
    rules: &[crate::config::rule::Rule],
    at: &KeyPath,
    findings: &mut Findings,
) {
    let tells =
        |store_if: &Option<StoreIf>| store_if.as_ref().is_some_and(|expected| expected.non_empty.is_some());
    let told = tells(&preset.store.store_if) || rules.iter().any(|rule| tells(&rule.store_if));
    if route.cache.as_ref().and_then(|cache| cache.cache_empty) == Some(false) && !told {
        let rule = "no rule here tells an empty answer: none names a member in `store_if.non_empty`";
        findings.add_value(&at.key("cache").key("cache_empty"), "false", rule, "leave it out");
    }
}

/// Where requests go; `Some(None)` where variables leave it empty, which skips the route.
#[expect(clippy::option_option, reason = "wrong, left empty, and given are three things")]
fn upstream(
    route: &Route,
    at: &KeyPath,
    shared: &Shared<'_>,
    findings: &mut Findings,
) -> Option<Option<Target>> {
    let at = at.key("upstream");
    match route.upstream.as_deref() {
        None if findings.emptied(&at) => Some(None),
        None if findings.touches(&at) => None,
        None | Some("") => {
            let suggestion =
                "upstream: https://api.example.com; `${NAME:-}` skips the route where NAME is not set";
            findings.add(&at, "a route has an upstream", suggestion);
            None
        }
        Some(text) => {
            let target = target::read(text, &at, findings)?;
            let name = route.name.as_deref().unwrap_or("upstream");
            target::refuse_loop(&target, name, &at, shared.listeners, findings);
            Some(Some(target))
        }
    }
}

/// Refuses zeros that would stop everything: only in a `max_*` do they mean no limit.
pub(super) fn check_numbers(
    at: &KeyPath,
    timeouts: Option<&Timeouts>,
    cache: Option<&Cache>,
    breaker: Option<&Breaker>,
    findings: &mut Findings,
) {
    check_breaker(at, breaker, findings);
    let timeouts = timeouts.cloned().unwrap_or_default();
    let section = at.key("timeouts");
    for (key, time, example) in [
        ("connect", timeouts.connect, "5s"),
        ("first_byte", timeouts.first_byte, "60s"),
        ("idle", timeouts.idle, "60s"),
        ("total", timeouts.total, "2m"),
    ] {
        if time.is_some_and(|time| time.0.is_zero()) {
            findings.add_value(&section.key(key), "0", "a timeout is longer than nothing", example);
        }
    }
    for (key, ttl) in [
        ("ttl", cache.and_then(|cache| cache.ttl)),
        ("embeddings_ttl", cache.and_then(|cache| cache.embeddings_ttl)),
    ] {
        if ttl.is_some_and(|ttl| ttl.0.is_zero()) {
            let rule = "a lifetime is longer than nothing";
            findings.add_value(
                &at.key("cache").key(key),
                "0",
                rule,
                "cache: {enabled: false} stores nothing",
            );
        }
    }
}

/// A breaker without a time to be open would be none.
fn check_breaker(at: &KeyPath, breaker: Option<&Breaker>, findings: &mut Findings) {
    let Some(breaker) = breaker else { return };
    let section = at.key("breaker");
    for (key, time, example) in [("open", breaker.open, "250ms"), ("max_open", breaker.max_open, "1500ms")] {
        if time.is_some_and(|time| time.0.is_zero()) {
            let rule = "a breaker is open for longer than nothing; `enabled: false` is for none";
            findings.add_value(&section.key(key), "0", rule, example);
        }
    }
    if let (Some(open), Some(max_open)) = (breaker.open, breaker.max_open)
        && open.0 > max_open.0
    {
        let rule = "the longest open time is not shorter than the first";
        findings.add_value(&section.key("max_open"), max_open.to_string(), rule, open.to_string());
    }
    if breaker.errors.is_some_and(|share| share.0 == 0.0) {
        let rule = "a share of failures above which it opens";
        findings.add_value(&section.key("errors"), "0%", rule, "80%");
    }
}

/// The header that names conversations. It is not forwarded, so it must be none that the upstream needs.
fn conversation_header(written: String, at: &KeyPath, findings: &mut Findings) -> Option<HeaderName> {
    const NEEDED: [&str; 5] = ["accept", "content-encoding", "content-length", "content-type", "host"];
    let name = HeaderName::from_bytes(written.as_bytes()).ok();
    let rule = match &name {
        None => "not the name of a header",
        Some(name)
            if NEEDED.contains(&name.as_str())
                || plan::CREDENTIALS.contains(&name.as_str())
                || name.as_str().starts_with("pillion-") =>
        {
            "it is not forwarded, and the upstream or Pillion needs it"
        }
        Some(_) => return name,
    };
    if !findings.touches(at) {
        findings.add_value(at, written, rule, "x-conversation-id");
    }
    None
}
