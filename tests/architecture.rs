//! The layers of docs/architecture.md, held by a scan of the source, and the floors under what is built upon.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "helpers of tests fail as tests do")]

#[path = "architecture/source.rs"]
mod source;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use source::Source;

/// The house from its top to its ground. A module imports from the rows below its own; those of one row never import
/// each other, and nothing imports upwards.
const LAYERS: &[&[&str]] = &[
    // Calls `cli`, nothing else.
    &["main"],
    // What a command does. Imported by nobody.
    &["cli"],
    // The composition root.
    &["app"],
    // The edge.
    &["server"],
    // The path of a request.
    &["proxy"],
    // The file as written and as meant.
    &["config"],
    // What is decided per route; what happened to one request.
    &["plan", "exchange"],
    // One concern each.
    &["window", "conversations", "cache", "retry", "upstream", "metrics", "history"],
    // The ground: what concerns move their bytes with.
    &["body", "redis"],
    // And what everything can say and read.
    &["error", "json", "shard"],
];

/// Rows that later versions fill.
const RESERVED: &[&str] = &["history"];

/// Crates that few may name, and who may.
const CRATES: &[(&str, &[&str])] = &[
    ("pingora_core", &["server", "app"]),
    ("redis", &["redis"]),
    ("prometheus", &["metrics"]),
    ("serde_yaml", &["config"]),
    ("clap", &["cli"]),
];

/// No file is longer, in lines.
const MAX_LINES: usize = 600;

/// Packages and the oldest version without a known hole (or panic) of theirs.
const FLOORS: &[(&str, [u64; 3])] = &[
    ("bytes", [1, 11, 1]),
    ("h2", [0, 4, 16]),
    ("hyper", [1, 11, 0]),
    ("pingora-core", [0, 9, 1]),
    ("rustls-webpki", [0, 103, 13]),
    ("tokio", [1, 44, 2]),
];

/// The same, where something brings them in.
const FLOORS_IF_THERE: &[(&str, [u64; 3])] = &[("lru", [0, 18, 2]), ("zstd", [0, 14, 3])];

/// Everything that is wrong with one file of `src/`, as `path:line: what`.
fn check(path: &str, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let lines = text.lines().count();
    if lines > MAX_LINES {
        found.push(format!(
            "{path}: {lines} lines; {MAX_LINES} is the end, about 400 is where to stop and think"
        ));
    }
    let file = module_of(path);
    let own = file.first().map(String::as_str);
    if own.is_some_and(|own| row(own).is_none()) {
        found.push(format!("{path}: its module is not in the table of layers"));
    }
    let source = Source::read(text, &file);
    for named in &source.named {
        let mut say = |what: String| found.push(format!("{path}:{}: {what}", named.line));
        match resolve(&named.segments, &named.module) {
            Place::Outside => say(format!("`{}` leaves the crate", named.text())),
            Place::Inside(target) => {
                if let Some(what) = wrong_target(own, target.first().map(String::as_str)) {
                    say(format!("`{}`: {what}", named.text()));
                }
            }
            Place::Elsewhere(name) => {
                let allowed = CRATES.iter().find(|(restricted, _)| *restricted == name).map(|(_, who)| *who);
                let shadowed = !named.is_use && source.bound.contains(&name);
                if let Some(who) =
                    allowed.filter(|who| !shadowed && !own.is_some_and(|own| who.contains(&own)))
                {
                    say(format!("`{}`: only {} may name the crate {name}", named.text(), who.join(" and ")));
                }
            }
        }
        if named.is_reexport && !source.private_children.contains(&named.segments[0]) {
            say(format!(
                "`pub use {}`: only what a private module of this file has is given out",
                named.text()
            ));
        }
    }
    found
}

/// What is wrong with naming a module (`None`: the crate itself) from another.
fn wrong_target(own: Option<&str>, target: Option<&str>) -> Option<String> {
    let Some(target) = target else { return Some("the crate as a whole is nobody's to import".into()) };
    if own == Some(target) {
        return None;
    }
    let Some(below) = row(target) else { return Some(format!("{target} is not in the table of layers")) };
    let Some(own) = own else { return Some("lib.rs lists modules and imports none".into()) };
    match row(own)?.cmp(&below) {
        std::cmp::Ordering::Less if own == "main" && target != "cli" => Some("main uses cli only".into()),
        std::cmp::Ordering::Less => None,
        std::cmp::Ordering::Equal => Some(format!("{own} and {target} are siblings")),
        std::cmp::Ordering::Greater => Some(format!("{target} stands above {own}")),
    }
}

fn row(module: &str) -> Option<usize> {
    LAYERS.iter().position(|row| row.contains(&module))
}

/// The module that a file is: `src/a/b.rs` and `src/a/b/mod.rs` are `a::b`, `src/lib.rs` is the crate.
fn module_of(path: &str) -> Vec<String> {
    let inner = path.trim_start_matches("src/").trim_end_matches(".rs");
    let mut module: Vec<String> = inner.split('/').map(str::to_owned).collect();
    if module.last().is_some_and(|last| last == "mod") || inner == "lib" {
        module.pop();
    }
    module
}

enum Place {
    /// A path of this crate.
    Inside(Vec<String>),
    /// Another crate, or a name in scope.
    Elsewhere(String),
    /// More `super` than there are modules.
    Outside,
}

fn resolve(segments: &[String], module: &[String]) -> Place {
    let mut here = match segments[0].as_str() {
        "crate" | "pillion" => Vec::new(),
        "self" | "super" => module.to_vec(),
        other => return Place::Elsewhere(other.to_owned()),
    };
    for segment in segments {
        match segment.as_str() {
            "super" if here.pop().is_none() => return Place::Outside,
            "super" | "crate" | "pillion" | "self" | "*" => {}
            name => here.push(name.to_owned()),
        }
    }
    Place::Inside(here)
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Every file of `src/`, by its path from the root of the repository.
fn sources() -> BTreeMap<String, String> {
    fn walk(folder: &Path, out: &mut BTreeMap<String, String>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, out);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
                out.insert(name, std::fs::read_to_string(&path).unwrap());
            }
        }
    }
    let mut out = BTreeMap::new();
    walk(&root().join("src"), &mut out);
    out
}

#[test]
fn imports_only_point_down() {
    let sources = sources();
    assert!(sources.len() > 40, "only {} files were found", sources.len());
    let found: Vec<String> = sources.iter().flat_map(|(path, text)| check(path, text)).collect();
    assert!(found.is_empty(), "the layers are broken (docs/architecture.md):\n{}", found.join("\n"));
}

#[test]
fn the_table_and_the_source_have_the_same_modules() {
    let there: BTreeSet<String> =
        sources().keys().filter_map(|path| module_of(path).first().cloned()).collect();
    let listed: BTreeSet<String> =
        LAYERS.iter().copied().flatten().map(|module| (*module).to_owned()).collect();
    let missing: Vec<_> =
        listed.difference(&there).filter(|module| !RESERVED.contains(&module.as_str())).collect();
    assert!(missing.is_empty(), "in the table, not in src/: {missing:?}");
    assert_eq!(
        there.difference(&listed).collect::<Vec<_>>(),
        Vec::<&String>::new(),
        "in src/, not in the table"
    );
}

#[test]
fn what_breaks_a_rule_is_found() {
    for (path, text, expected) in [
        ("src/cache/mod.rs", "use crate::proxy::Proxy;", "proxy stands above cache"),
        ("src/cache/key.rs", "fn a() { crate::config::load(); }", "config stands above cache"),
        ("src/cache/key.rs", "use\n    crate::\n    config;", "config stands above cache"),
        (
            "src/cache/mod.rs",
            "use crate::{error, json, metrics::{self, Series}};",
            "cache and metrics are siblings",
        ),
        ("src/plan/mod.rs", "type T = crate::exchange::Exchange;", "plan and exchange are siblings"),
        ("src/error.rs", "use crate::json;", "error and json are siblings"),
        ("src/retry/mod.rs", "use super::cache::Policy;", "retry and cache are siblings"),
        ("src/retry/push_back.rs", "use super::super::proxy::Proxy;", "proxy stands above retry"),
        (
            "src/retry/push_back.rs",
            "fn a() -> super::super::plan::Plan { todo!() }",
            "plan stands above retry",
        ),
        ("src/retry/mod.rs", "mod tests { use super::super::config; }", "config stands above retry"),
        ("src/retry/mod.rs", "use super::{super::cache};", "leaves the crate"),
        ("src/cache/key.rs", "use super::{self, super::proxy as p};", "proxy stands above cache"),
        ("src/window/mod.rs", "use self::super::cache::Policy;", "window and cache are siblings"),
        ("src/window/mod.rs", "use crate as all;", "the crate as a whole"),
        ("src/window/mod.rs", "use super::*;", "the crate as a whole"),
        ("src/window/mod.rs", "macro_rules! m { () => { $crate::cli::main() } }", "cli stands above window"),
        ("src/app.rs", "use crate::cli::main;", "cli stands above app"),
        ("src/server/admin.rs", "use crate::app::App;", "app stands above server"),
        ("src/main.rs", "use pillion::config;", "main uses cli only"),
        ("src/main.rs", "fn main() { pillion::app::run() }", "main uses cli only"),
        ("src/lib.rs", "pub mod app; use crate::app::App;", "lib.rs lists modules"),
        ("src/surprise/mod.rs", "", "not in the table of layers"),
        ("src/proxy/mod.rs", "use crate::surprise::A;", "surprise is not in the table"),
        (
            "src/proxy/mod.rs",
            "use pingora_core::server::Server;",
            "only server and app may name the crate pingora_core",
        ),
        ("src/cache/store.rs", "fn a(c: redis::Client) {}", "only redis may name the crate redis"),
        ("src/cache/store.rs", "fn a() { return ::redis::cmd(); }", "only redis may name the crate redis"),
        ("src/proxy/mod.rs", "use {prometheus as p, std::io};", "only metrics may name the crate prometheus"),
        ("src/proxy/mod.rs", "extern crate prometheus;", "only metrics may name the crate prometheus"),
        ("src/plan/mod.rs", "#[derive(clap::Args)] struct A;", "only cli may name the crate clap"),
        ("src/app.rs", "let v = serde_yaml::from_str::<u8>(t);", "only config may name the crate serde_yaml"),
        (
            "src/plan/mod.rs",
            "pub use crate::upstream::Target;",
            "only what a private module of this file has",
        ),
        (
            "src/plan/mod.rs",
            "pub(crate) use super::upstream::Target;",
            "only what a private module of this file has",
        ),
        ("src/cache/mod.rs", "pub mod key; pub use key::Key;", "only what a private module of this file has"),
    ] {
        let found = check(path, text);
        assert!(found.iter().any(|what| what.contains(expected)), "{path}: {text}\nfound {found:?}");
    }
    let long = "\n".repeat(MAX_LINES + 1);
    assert!(check("src/json.rs", &long)[0].contains("about 400"));
    let placed = check("src/json.rs", "// one\n/* two\n three */ use crate::error;");
    assert_eq!(placed, ["src/json.rs:3: `crate::error`: json and error are siblings"]);
}

#[test]
fn what_breaks_none_is_left_alone() {
    for (path, text) in [
        (
            "src/cache/mod.rs",
            "// use crate::proxy;\n/* crate::proxy::a /* b */ crate::cli */\n//! crate::app",
        ),
        (
            "src/cache/mod.rs",
            r##"const A: &str = "crate::proxy \" crate::cli"; const B: &str = r#"use "crate::cli";"#;"##,
        ),
        (
            "src/cache/mod.rs",
            r"const A: &[u8] = b'\''; const B: char = '\u{27}'; fn a<'a>(b: &'a str) -> char { '\'' }",
        ),
        (
            "src/cache/mod.rs",
            "mod policy; pub use policy::{Policy, Settle}; use crate::cache::fence; use crate::{error, json};",
        ),
        ("src/cache/key.rs", "use super::Policy; mod tests { use super::super::fence; use super::*; }"),
        ("src/cache/store.rs", "use crate::redis; fn a(c: redis::Connection) {}"),
        (
            "src/cli/run.rs",
            "use crate::app::App; use super::check; use clap::Parser; fn a() -> impl Sized + use<'_> {}",
        ),
        ("src/app.rs", "use pingora_core::server::Server; use crate::server::drain;"),
        ("src/main.rs", "fn main() { pillion::cli::main() }"),
        ("src/lib.rs", "pub mod cli; pub mod json;"),
        ("src/config/resolve/target.rs", "pub(in crate::config) fn a() {}"),
        (
            "src/proxy/mod.rs",
            "let r#crate = Self::redis::<u8>::prometheus; let redis = a.redis; loops::prometheus::b();",
        ),
    ] {
        assert_eq!(check(path, text), Vec::<String>::new(), "{text}");
    }
}

/// Every package of `Cargo.lock` with its version.
fn packages(lock: &str) -> Vec<(&str, [u64; 3])> {
    let read = |block: &'_ str, key: &str| -> Option<(usize, usize)> {
        let start = block.find(key)? + key.len();
        Some((start, start + block[start..].find('"')?))
    };
    let mut out = Vec::new();
    for block in lock.split("[[package]]").skip(1) {
        let (start, end) = read(block, "\nname = \"").unwrap();
        let (from, to) = read(block, "\nversion = \"").unwrap();
        let mut numbers = block[from..to].split(['.', '-', '+']).map(|number| number.parse().unwrap_or(0));
        out.push((&block[start..end], [(); 3].map(|()| numbers.next().unwrap_or(0))));
    }
    out
}

#[test]
fn nothing_below_its_floor() {
    let lock = std::fs::read_to_string(root().join("Cargo.lock")).unwrap();
    let packages = packages(&lock);
    let versions = |wanted: &str| -> Vec<[u64; 3]> {
        packages.iter().filter(|(name, _)| *name == wanted).map(|(_, version)| *version).collect()
    };
    for (name, floor) in FLOORS.iter().chain(FLOORS_IF_THERE) {
        assert!(versions(name).iter().all(|version| version >= floor), "{name} is older than {floor:?}");
    }
    for (name, _) in FLOORS {
        assert!(!versions(name).is_empty(), "{name} is not in Cargo.lock any more");
    }
    let series: BTreeSet<_> = versions("rustls").iter().map(|&[major, minor, _]| (major, minor)).collect();
    assert_eq!(series.len(), 1, "one rustls: {series:?}");
}

#[test]
fn one_tls_stack() {
    let lock = std::fs::read_to_string(root().join("Cargo.lock")).unwrap();
    // openssl-probe only knows where systems keep their roots.
    let foreign: Vec<_> = packages(&lock)
        .into_iter()
        .map(|(name, _)| name)
        .filter(|name| {
            ["openssl", "native-tls", "boring", "s2n-tls"].iter().any(|other| name.contains(other))
        })
        .filter(|name| *name != "openssl-probe")
        .collect();
    assert_eq!(foreign, Vec::<&str>::new());
}
