//! What real requests mean to each preset, by the tables in `tests/presets/`.

#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail as tests do")]

#[path = "presets/table.rs"]
mod table;

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use pillion::cache::fence::Settle;
use pillion::cache::fence::{Fences, Scope};
use pillion::config::{self, Environment, presets};
use pillion::plan::{Action, Plan, Request, Rule, normalise};
use pillion::retry::Class;
use table::{Did, Row, Table, tables};

fn plan(table: &Table, cache: &str) -> Plan {
    let text = table.configuration("https://store.example", cache);
    let config = config::parse(&text, None, &Environment::new());
    config.unwrap_or_else(|problems| panic!("{problems}\n{text}")).routes.remove(0)
}

/// Finds the rule of a row, as the path of a request does, and hands it on with all that is read of the request.
fn read<T>(plan: &Plan, row: &Row, then: impl FnOnce(&Rule, &Request<'_>) -> T) -> T {
    let (path, query) = row.target().split_once('?').map_or((row.target(), None), |(p, q)| (p, Some(q)));
    let path = normalise(path).unwrap_or_else(|_| panic!("{}", row.request));
    let mut headers = HeaderMap::new();
    for (name, value) in &row.headers {
        headers.insert(name.parse::<HeaderName>().unwrap(), HeaderValue::from_str(value).unwrap());
    }
    let method: Method = row.method().parse().unwrap();
    let rule = plan.rule(plan.find_rule(&method, &path, query));
    let request = Request { path: &path, query, headers: &headers, content: Some(row.body.as_bytes()) };
    then(rule, &request)
}

fn scope(plan: &Plan, row: &Row, fences: &Fences) -> Scope {
    read(plan, row, |rule, request| {
        let levels = plan.scope_levels(rule, request);
        fences.scope("store", levels.iter().map(Option::as_deref))
    })
}

#[test]
fn the_page_is_as_new_as_the_presets() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/presets.md");
    let text = config::handbook::markdown();
    if std::env::var("PILLION_REGENERATE").is_ok_and(|value| value == "1") {
        std::fs::write(&path, &text).unwrap();
    }
    let there = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(there == text, "docs/presets.md is stale; PILLION_REGENERATE=1 writes it anew.\n{text}");
}

#[test]
fn every_preset_has_a_table() {
    let mut there: Vec<String> = tables().iter().map(|table| table.preset.clone()).collect();
    let mut wanted: Vec<&str> = presets::files().filter(|name| *name != "http").collect();
    there.sort();
    wanted.sort_unstable();
    assert_eq!(there, wanted);
    for table in tables() {
        assert!(table.requests.len() >= 8, "{}: {} requests", table.preset, table.requests.len());
        let searches = table.searches();
        assert_eq!(table.stored.is_empty(), searches.is_empty(), "{}: what is stored?", table.preset);
        // PostgREST answers its errors as errors.
        let judged = !searches.is_empty() && table.preset != "supabase-rpc";
        assert!(!judged || !table.never_stored.is_empty(), "{}: what is not?", table.preset);
    }
}

#[test]
fn every_rule_of_a_preset_is_in_its_table() {
    for table in tables().iter().filter(|table| table.route.is_empty()) {
        for rule in &plan(table, "").rules {
            let named = table.requests.iter().any(|row| row.rule == rule.name);
            assert!(named, "{}: no request for the rule {}", table.preset, rule.name);
        }
    }
}

#[test]
fn requests_mean_what_the_tables_say() {
    for table in tables() {
        // What a route that knows of no aliases sees, where scopes count.
        let plan = plan(&table, "aliases: false");
        for row in &table.requests {
            let told = format!("{}: {}", table.preset, row.told());
            read(&plan, row, |rule, request| {
                assert_eq!(rule.name, row.rule, "{told}");
                let did = match rule.action {
                    Action::Cache(_) => Did::Cache,
                    Action::Embeddings(_) => Did::Embeddings,
                    Action::Invalidate(_) => Did::Invalidate,
                    Action::Pass => Did::Pass,
                };
                assert_eq!(did, row.action, "{told}");
                if did != Did::Pass {
                    let levels = plan.scope_levels(rule, request);
                    let levels: Vec<&str> =
                        levels.iter().map(|level| level.as_deref().unwrap_or("*")).collect();
                    assert_eq!(levels, row.scope, "{told}");
                }
                let holds = |condition: &Option<pillion::plan::Condition>, unclear| {
                    condition.as_ref().is_some_and(|condition| condition.holds(request, unclear))
                };
                assert_eq!(holds(&rule.settled_if, false), row.settled, "{told}: settled_if");
                assert_eq!(holds(&rule.pass_if, true), row.passes, "{told}: pass_if");
                if let Some(expected) = &row.retry {
                    let class = match rule.retry.class {
                        Class::Idempotent => "idempotent",
                        Class::Chat | Class::ChatStateful => "chat",
                        Class::Other => "other",
                    };
                    assert_eq!(class, expected, "{told}: retry");
                }
            });
        }
    }
}

/// The heart of it: each write of a table drops each search that it may change, and no other.
#[tokio::test(start_paused = true)]
async fn writes_drop_the_searches_that_they_change() {
    let fences = Arc::new(Fences::new([3; 16]));
    for table in tables() {
        let (scoped, whole) = (plan(&table, "aliases: false"), plan(&table, "aliases: true"));
        let mut spared = 0;
        for search in table.searches() {
            for write in table.writes() {
                let told = format!("{}: {} drops {}", table.preset, write.request, search.request);
                for (plan, must_drop) in [(&scoped, write.must_drop(search)), (&whole, true)] {
                    let stamp = fences.stamp(&scope(plan, search, &fences));
                    assert!(fences.may_store(&stamp), "{told}");
                    drop(fences.write(&scope(plan, write, &fences), Settle::default()));
                    assert_eq!(!fences.current(&stamp), must_drop, "{told}");
                    spared += usize::from(!must_drop);
                }
            }
        }
        let told_apart = table.requests.iter().any(|row| row.action == Did::Cache && row.about != "all");
        assert!(
            spared > 0 || !told_apart,
            "{}: no write spares anything, so scopes are not told",
            table.preset
        );
    }
}

#[test]
fn aliases_are_assumed_where_a_store_has_them() {
    for table in tables() {
        let aliases = ["qdrant", "milvus-v2", "elasticsearch"].contains(&table.preset.as_str());
        assert_eq!(plan(&table, "").flush_whole, aliases, "{}", table.preset);
    }
}

/// Each reads the content into a structure of its own, but Elasticsearch, which reads a `sort` as it comes.
#[test]
fn the_order_of_members_counts_where_a_store_reads_them_in_order() {
    for table in tables() {
        for rule in &plan(&table, "").rules {
            if let Action::Cache(policy) = &rule.action {
                assert_eq!(
                    policy.ordered,
                    table.preset == "elasticsearch",
                    "{}: {}",
                    table.preset,
                    rule.name
                );
            }
        }
    }
}

#[test]
fn work_behind_the_answer_is_given_time() {
    for (preset, rule) in [
        ("pinecone", "import"),
        ("qdrant", "recover"),
        ("weaviate-rest", "jobs"),
        ("milvus-v2", "jobs"),
        ("elasticsearch", "by-query-later"),
        ("chroma-v2", "attach-function"),
    ] {
        let table = tables().into_iter().find(|table| table.preset == preset).unwrap();
        let plan = plan(&table, "");
        let rule = plan.rules.iter().find(|known| known.name == rule).unwrap();
        let Action::Invalidate(settle) = rule.action else { panic!("{preset}: {}", rule.name) };
        assert_eq!((settle.work, settle.lag), (Duration::from_secs(600), Duration::ZERO), "{preset}");
    }
}
