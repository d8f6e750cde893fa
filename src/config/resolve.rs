//! The file as meant: layers laid over each other, everything checked once and never again.

mod namesakes;
mod reach;
mod reading;
mod redis;
mod route;
mod rule;
pub(super) mod target;

use std::collections::BTreeMap;
use std::path::PathBuf;

use tracing_subscriber::EnvFilter;

use self::route::{Outcome, Shared};
use super::file::{self, File, Route};
use super::layers::built_in;
use super::listeners::{self, Listener};
use super::overrides;
use super::problem::{Findings, KeyPath, nearest};
use super::units::Size;
use super::{Admin, Config, Environment, Log, LogFormat, Memory, Secret};
use crate::cache::fence::Settle;
use crate::plan::{self, Action, Address, Plan};

/// Resolves a file in an environment. What comes back is worth something only if `findings` stays clean.
pub(super) fn resolve(file: &File, env: &Environment, findings: &mut Findings) -> Option<Config> {
    let root = KeyPath::root();
    if file.version.is_none() && !findings.touches(&root.key("version")) {
        findings.add(&root.key("version"), "the file says which version of its format it is", "version: 1");
    }
    let compat = file.compat_env.or(built_in().compat_env).unwrap_or_default();
    let mut overrides = overrides::read(env, compat, findings);
    let (listen, admin, all) = all_listeners(file, findings);
    let memory = memory(file.memory.as_ref());
    let mut notes = std::mem::take(&mut overrides.notes);
    let defaults = file.defaults.clone().unwrap_or_default();
    let at = root.key("defaults");
    let (timeouts, cache) = (defaults.timeouts.as_ref(), defaults.cache.as_ref());
    route::check_numbers(&at, timeouts, cache, defaults.breaker.as_ref(), findings);
    let presets = file.presets.clone().unwrap_or_default();
    let shared = Shared {
        defaults: &defaults,
        overrides: &overrides,
        presets: &presets,
        store_size: memory.cache,
        listeners: &all,
    };
    route::check_presets(&shared, findings);
    let routes = routes(file, &shared, &mut notes, findings);
    let log = log(file.log.as_ref(), findings);
    let redis = self::redis::resolve(file, env, findings);
    notes.extend(namesakes::note(redis.as_ref(), &routes));
    let tls_ca = tls_ca(file, findings);
    Some(Config {
        source: None,
        listen,
        admin: Admin { listen: admin?, token: token(file), hosts: hosts(file) },
        redis,
        routes,
        memory,
        max_in_flight: max_in_flight(file),
        workers: workers(file),
        drain: file.drain.or(built_in().drain).unwrap_or_default().0,
        log,
        tls_ca,
        notes,
    })
}

/// The shared listeners, the admin one, and all there are, routes' own included.
fn all_listeners(file: &File, findings: &mut Findings) -> (Vec<Address>, Option<Address>, Vec<Listener>) {
    let root = KeyPath::root();
    let at = root.key("listen");
    let written = file.listen.as_ref().or(built_in().listen.as_ref());
    let mut all = listeners::read(written, &at, findings);
    let listen = all.iter().map(|listener| listener.address.clone()).collect();
    if all.is_empty() && !findings.touches(&at) && !at_items_touched(&at, written, findings) {
        findings.add(&at, "there is at least one listener", "listen: 127.0.0.1:8080");
    }

    let at = root.key("admin").key("listen");
    let of = |file: &File| file.admin.as_ref().and_then(|admin| admin.listen.clone());
    // An empty variable counts as not written.
    let written = of(file).or_else(|| of(built_in())).unwrap_or_default();
    let admin = if findings.emptied(&at) {
        Some(Address::Tcp(written))
    } else {
        listeners::read_one(&written, &at, findings)
    };
    all.extend(admin.iter().map(|address| Listener { at: at.clone(), address: address.clone() }));

    for (index, route) in file.routes.iter().flatten().enumerate() {
        let at = root.key("routes").item(index).key("listen");
        all.extend(listeners::read(route.listen.as_ref(), &at, findings));
    }
    listeners::refuse_collisions(&all, findings);
    (listen, admin, all)
}

fn at_items_touched(at: &KeyPath, written: Option<&file::OneOrMany>, findings: &Findings) -> bool {
    let items = written.map(file::OneOrMany::each).unwrap_or_default();
    items.iter().any(|(index, _)| index.is_some_and(|index| findings.touches(&at.item(index))))
}

fn routes(file: &File, shared: &Shared<'_>, notes: &mut Vec<String>, findings: &mut Findings) -> Vec<Plan> {
    let at = KeyPath::root().key("routes");
    let written = file.routes.as_deref().unwrap_or_default();
    if written.is_empty() && !findings.touches(&at) {
        let suggestion =
            "routes: [{name: openai, path: /openai, upstream: https://api.openai.com, preset: openai}]";
        findings.add(&at, "there is at least one route", suggestion);
    }
    refuse_twins(written, &at, findings);
    let mut plans = Vec::new();
    for (index, route) in written.iter().enumerate() {
        match route::resolve(route, &at.item(index), shared, findings) {
            Outcome::Planned(plan) => plans.push((route.rules.as_ref(), *plan)),
            Outcome::Skipped(note) => notes.push(note),
            Outcome::Refused => {}
        }
    }
    share_stores(&mut plans);
    plans.into_iter().map(|(_, plan)| plan).collect()
}

/// Refuses two routes of one name, and two that would take the same requests.
fn refuse_twins(routes: &[Route], at: &KeyPath, findings: &mut Findings) {
    let mut names = BTreeMap::new();
    let mut places = BTreeMap::new();
    for (index, route) in routes.iter().enumerate() {
        let at = at.item(index);
        if let Some(name) = route.name.as_deref() {
            let first = *names.entry(name.to_owned()).or_insert(index);
            if first != index {
                let rule = format!("routes[{first}] has this name already: names are unique");
                findings.add_value(&at.key("name"), name, rule, format!("{name}-{}", index + 1));
            }
        }
        let shown = match route.path.as_deref() {
            Some(path) => path,
            None if route::has_own_listener(route) => "/",
            None => continue,
        };
        let Ok(path) = plan::normalise(shown) else { continue };
        let own = route.listen.as_ref().map(file::OneOrMany::each).unwrap_or_default();
        let mut listeners: Vec<&str> =
            own.into_iter().map(|(_, text)| text).filter(|text| !text.is_empty()).collect();
        if listeners.is_empty() {
            listeners.push("");
        }
        for listener in listeners {
            let first = *places.entry((listener.to_owned(), path.clone().into_owned())).or_insert(index);
            if first != index {
                let rule = format!("routes[{first}] takes this path on the same listener already");
                findings.add_value(&at.key("path"), shown, rule, "another path, or a `listen` of its own");
                break;
            }
        }
    }
}

/// Routes that share an upstream share its fences: a write seen by one is seen by all. Where they read scopes in
/// different ways, every write is a write of everything.
fn share_stores(plans: &mut [(Option<&Vec<super::rule::Rule>>, Plan)]) {
    let authority = |plan: &Plan| {
        let upstream = &plan.upstream;
        (upstream.scheme.to_string(), upstream.authority.host().to_owned(), upstream.port())
    };
    let caches = |plan: &Plan| plan.rules.iter().any(|rule| matches!(rule.action, Action::Cache(_)));
    let settle = |plan: &Plan| {
        let rules = plan.rules.iter().chain([&plan.unmatched_unsafe]);
        rules.filter_map(plan::Rule::settles).max().unwrap_or_default()
    };
    let facts: Vec<_> = plans
        .iter()
        .map(|(rules, plan)| {
            // Whether names may be aliases is all that a plan says of flushing the whole by now.
            let meaning = (plan.preset.clone(), *rules, plan.upstream.base_path.clone(), plan.flush_whole);
            (authority(plan), caches(plan), settle(plan), meaning)
        })
        .collect();
    for ((_, plan), (ours, _, own, meaning)) in plans.iter_mut().zip(&facts) {
        let same = || facts.iter().filter(|(theirs, ..)| theirs == ours);
        plan.fenced = same().any(|(_, caches, ..)| *caches);
        plan.flush_whole |= same().any(|(.., other)| other != meaning);
        if !plan.fenced {
            continue;
        }
        // How long a store takes is its own: what one route says of it holds for all.
        let longest = same().map(|(_, _, settle, _)| *settle).max().unwrap_or_default();
        plan.settle = longest;
        for rule in plan.rules.iter_mut().chain([&mut plan.unmatched_unsafe]).filter(|_| *own < longest) {
            if let Action::Invalidate(settle) = &mut rule.action {
                settle.lag = settle.lag.max(longest);
            }
        }
        // A route that knows nothing of the store (preset `http`) may write to it all the same.
        if let Action::Pass = plan.unmatched_unsafe.action {
            plan.unmatched_unsafe.action = Action::Invalidate(Settle::lagging(longest));
        }
    }
}

fn max_in_flight(file: &File) -> u32 {
    let of = |file: &File| file.limits.as_ref().and_then(|limits| limits.max_in_flight);
    of(file).or_else(|| of(built_in())).unwrap_or_default()
}

fn memory(written: Option<&file::Memory>) -> Memory {
    let size = |pick: fn(&file::Memory) -> Option<Size>| {
        let Size(bytes) =
            written.and_then(pick).or_else(|| built_in().memory.as_ref().and_then(pick)).unwrap_or_default();
        bytes
    };
    Memory {
        cache: size(|memory| memory.cache),
        buffers: size(|memory| memory.buffers),
        conversations: size(|memory| memory.conversations),
    }
}

fn workers(file: &File) -> usize {
    // Counts the CPU limit of a container, too.
    let cpus = || std::thread::available_parallelism().map_or(1, usize::from);
    file.workers.map_or_else(cpus, |workers| workers as usize)
}

fn token(file: &File) -> Option<Secret> {
    let token = file.admin.as_ref().and_then(|admin| admin.token.clone())?;
    (!token.is_empty()).then(|| Secret::new(token))
}

fn hosts(file: &File) -> Vec<String> {
    let hosts = file.admin.as_ref().and_then(|admin| admin.hosts.clone()).unwrap_or_default();
    hosts.into_iter().filter(|host| !host.is_empty()).collect()
}

fn log(written: Option<&file::Log>, findings: &mut Findings) -> Log {
    let pick = |log: Option<&file::Log>| log.and_then(|log| log.level.clone());
    let level = pick(written).or_else(|| pick(built_in().log.as_ref())).unwrap_or_default();
    let at = KeyPath::root().key("log").key("level");
    for directive in level.split(',') {
        if let Some(suggestion) = wrong_directive(directive.trim()) {
            let rule = "a level is off, error, warn, info, debug or trace; directives such as `pillion=debug` follow";
            findings.add_value(&at, &level, rule, suggestion);
            break;
        }
    }
    let format = written.and_then(|log| log.format).unwrap_or_default();
    let format = match format {
        file::LogFormat::Auto => LogFormat::Auto,
        file::LogFormat::Text => LogFormat::Text,
        file::LogFormat::Json => LogFormat::Json,
    };
    Log { level, format }
}

/// What might have been meant by a directive that is none. A bare word counts as a level: `inffo` would be taken for
/// the name of a module otherwise, and everything else be silent.
fn wrong_directive(directive: &str) -> Option<String> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    let level = directive.rsplit('=').next().unwrap_or_default().to_ascii_lowercase();
    if LEVELS.contains(&level.as_str()) && EnvFilter::builder().parse(directive).is_ok() {
        return None;
    }
    Some(nearest(&level, LEVELS).unwrap_or("info").to_owned())
}

fn tls_ca(file: &File, findings: &mut Findings) -> Option<PathBuf> {
    let path = PathBuf::from(file.tls.as_ref().and_then(|tls| tls.ca.clone())?);
    if let Err(error) = std::fs::File::open(&path) {
        let at = KeyPath::root().key("tls").key("ca");
        let rule = format!("the file cannot be read: {error}");
        findings.add_value(&at, path.display().to_string(), rule, "a PEM file of certificates");
    }
    Some(path)
}
