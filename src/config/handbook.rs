//! `docs/presets.md`: what each preset does, made from the presets themselves, so that it cannot be wrong about them.
//! `tests/presets.rs` fails when the page is older than the files.

use std::fmt::Write as _;
use std::time::Duration;

use super::effective::{said, scope, takes};
use super::presets::{self, Check, Preset};
use super::units::Time;
use super::{Environment, parse};
use crate::cache::Policy;
use crate::cache::fence::Settle;
use crate::plan::{Action, Plan, Rule};

const INTRODUCTION: &str = "\
<!-- Generated from config/presets/ by `PILLION_REGENERATE=1 cargo test --test presets`. Do not edit. -->
# Presets

A preset tells Pillion what it cannot see on the wire: which requests of a service are searches, which are writes, and of
what part of the store. This page is made from the presets; `pillion presets NAME` prints the file of one. What is promised
of stored answers, and what is part of their key in every case, is told in [the search cache](cache.md); the language, for
presets of your own, in [configuration](configuration.md#presets). What these files are held to, request by request, stands in
`tests/presets/`.

Where nothing else is said:

- A search is stored for `ttl`, 5 minutes, under a key of everything in the request that can change the answer.
- An embedding is stored for `embeddings_ttl`, 24 hours, [input by input](cache.md#embeddings); no write drops it.
- A write drops what it names from before it is sent until its outcome is known, whatever that is. \"Settles\" is how long
  after that nothing is stored of the same part; `cache: {settle: ...}` of the route replaces it.
- Any request that no rule knows drops everything of the store, unless it is a GET, HEAD or OPTIONS. \"Any method\" is any but
  OPTIONS, which changes nothing.
- \"Everything\" means everything stored of the same upstream host and port.
- A name that cannot be read where it is looked for (content that is not JSON or is encoded, a name that is there twice)
  counts as everything.
";

/// The text of `docs/presets.md`.
pub fn markdown() -> String {
    let mut out = INTRODUCTION.to_owned();
    out.push_str("\n| preset | stores | settles | checked with |\n|---|---|---|---|\n");
    let known: Vec<(&str, &Preset, Plan)> = presets::files().filter_map(read).collect();
    for (name, preset, plan) in &known {
        let names: Vec<String> = std::iter::once(*name)
            .chain(presets::aliases(name))
            .map(|alias| format!("[`{alias}`](#{name})"))
            .collect();
        let rules: Vec<&str> =
            plan.rules.iter().filter(|rule| policy(rule).is_some()).map(|rule| rule.name.as_str()).collect();
        let stores = if rules.is_empty() { "nothing".to_owned() } else { rules.join(", ") };
        let Time(settle) = preset.store.settle.unwrap_or_default();
        let settles = if plan.fenced { span(settle) } else { String::new() };
        row(&mut out, &[&names.join(", "), &stores, &settles, checked(preset)]);
    }
    for (name, preset, plan) in &known {
        section(&mut out, name, preset, plan);
    }
    out
}

/// A preset, and the plan of a route that says nothing else.
fn read(name: &'static str) -> Option<(&'static str, &'static Preset, Plan)> {
    let text =
        format!("version: 1\nroutes: [{{name: r, path: /, upstream: 'https://store', preset: {name}}}]");
    let plan = parse(&text, None, &Environment::new()).ok()?.routes.pop()?;
    Some((name, presets::preset(name)?.as_ref().ok()?, plan))
}

fn section(out: &mut String, name: &str, preset: &Preset, plan: &Plan) {
    // Writing to a String cannot fail.
    let _ = write!(out, "\n## {name}\n\n{}", preset.about);
    for alias in presets::aliases(name) {
        let _ = write!(out, " `{alias}` is another name of it.");
    }
    out.push('\n');
    if let Some(checked) = &preset.checked {
        let _ = write!(out, "\nChecked with {}: {}\n", word(checked.by), checked.what);
    }
    if !preset.bot_env.is_empty() {
        let _ = write!(out, "\nIn the bot's environment: `{}`\n", preset.bot_env.join("`, `"));
    }
    if !preset.notes.is_empty() {
        out.push('\n');
    }
    for note in &preset.notes {
        let _ = writeln!(out, "- {}", note.trim());
    }
    searches(out, preset, plan);
    embeddings(out, plan);
    dropped(out, plan);
    passed(out, preset, plan);
}

/// What is stored of searches, under which key, and what never is.
fn searches(out: &mut String, preset: &Preset, plan: &Plan) {
    let searches: Vec<(&Rule, &Policy)> = plan
        .rules
        .iter()
        .filter(|rule| matches!(rule.action, Action::Cache(_)))
        .filter_map(|rule| Some((rule, policy(rule)?)))
        .collect();
    let Some((_, first)) = searches.first() else { return };
    out.push_str(
        "\n| stored | request | dropped by a write to | not stored where | stored while it settles where |\n",
    );
    out.push_str("|---|---|---|---|---|\n");
    for (rule, _) in &searches {
        let [pass_if, settled_if] =
            [&rule.pass_if, &rule.settled_if].map(|c| c.as_ref().map(|c| code(&said(c))).unwrap_or_default());
        row(out, &[&rule.name, &code(&takes(rule)), &about(rule, plan), &pass_if, &settled_if]);
    }
    let expected = &first.store_if;
    let list = |names: &[String], what: &str| {
        let names: Vec<String> = names.iter().map(|name| code(name)).collect();
        (!names.is_empty()).then(|| format!("{what} {}", names.join(", ")))
    };
    let equals: Vec<String> =
        expected.equals.iter().map(|(place, value)| code(&format!("{place} is {}", value.text()))).collect();
    let wanted: Vec<String> = [
        list(&expected.present, "with"),
        list(&expected.absent, "without"),
        list(&expected.non_empty, "not an empty list:"),
        (!equals.is_empty()).then(|| equals.join(", ")),
    ]
    .into_iter()
    .flatten()
    .collect();
    out.push('\n');
    if !wanted.is_empty() {
        let _ = writeln!(out, "- Stored only if the answer is JSON like this: {}.", wanted.join("; "));
    }
    let told = preset.store.store_if.as_ref().and_then(|expected| expected.non_empty.as_ref());
    if let (Some(members), true) = (told, expected.non_empty.is_empty()) {
        let members: Vec<String> = members.iter().map(|member| code(member)).collect();
        let _ = writeln!(
            out,
            "- Answers whose {} is empty are stored; `cache: {{cache_empty: false}}` changes that.",
            members.join(", ")
        );
    }
    key(out, first);
    if plan.flush_whole {
        out.push_str(
            "- Names may be aliases of each other, so every write drops everything. `cache: {aliases: false}` asserts that \
             there are none: then a write drops the names in brackets.\n",
        );
    }
}

/// What is stored input by input.
fn embeddings(out: &mut String, plan: &Plan) {
    let rules: Vec<&Rule> =
        plan.rules.iter().filter(|rule| matches!(rule.action, Action::Embeddings(_))).collect();
    let Some(first) = rules.first().and_then(|rule| policy(rule)) else { return };
    out.push_str("\n| stored input by input | request | not stored where |\n|---|---|---|\n");
    for rule in &rules {
        let pass_if = rule.pass_if.as_ref().map(|c| code(&said(c))).unwrap_or_default();
        row(out, &[&rule.name, &code(&takes(rule)), &pass_if]);
    }
    if !first.ignore_query.is_empty() {
        out.push('\n');
        key(out, first);
    }
}

/// What of a request is not in the key.
fn key(out: &mut String, policy: &Policy) {
    if !policy.ignore_query.is_empty() {
        let ignored: Vec<String> = policy.ignore_query.iter().map(|name| code(name)).collect();
        let _ = writeln!(out, "- Not in the key: the parameter {}.", ignored.join(", "));
    }
    if policy.ordered {
        out.push_str("- In the key, other than elsewhere: the order of the members of JSON objects.\n");
    }
}

fn dropped(out: &mut String, plan: &Plan) {
    let writes: Vec<(&Rule, Settle)> = plan
        .rules
        .iter()
        .filter_map(|rule| match rule.action {
            Action::Invalidate(settle) => Some((rule, settle)),
            _ => None,
        })
        .collect();
    if writes.is_empty() {
        return;
    }
    out.push_str("\n| write | request | drops | settles | at once where |\n|---|---|---|---|---|\n");
    for (rule, settle) in writes {
        let settled_if = rule.settled_if.as_ref().map(|c| code(&said(c))).unwrap_or_default();
        let settles = span(settle.longest());
        row(out, &[&rule.name, &code(&takes(rule)), &about(rule, plan), &settles, &settled_if]);
    }
}

/// What neither is stored nor drops anything, and what could be stored.
fn passed(out: &mut String, preset: &Preset, plan: &Plan) {
    let off: Vec<&str> = preset
        .rules
        .iter()
        .filter(|rule| rule.enabled == Some(false))
        .filter_map(|rule| rule.name.as_deref())
        .collect();
    let passed: Vec<&Rule> = plan.rules.iter().filter(|rule| matches!(rule.action, Action::Pass)).collect();
    if passed.is_empty() {
        return;
    }
    out.push_str("\n| passes | request | |\n|---|---|---|\n");
    for rule in passed {
        let set_off = off.contains(&rule.name.as_str());
        let told = if set_off { "could be stored, and is set off: `enabled: false`" } else { "" };
        row(out, &[&rule.name, &code(&takes(rule)), told]);
    }
}

fn policy(rule: &Rule) -> Option<&Policy> {
    match &rule.action {
        Action::Cache(policy) | Action::Embeddings(policy) => Some(policy),
        Action::Invalidate(_) | Action::Pass => None,
    }
}

/// The part of the store that a rule is about.
fn about(rule: &Rule, plan: &Plan) -> String {
    let scope = scope(&rule.scope);
    if scope == "everything" {
        return scope;
    }
    if plan.flush_whole { format!("everything ({})", code(&scope)) } else { code(&scope) }
}

fn checked(preset: &Preset) -> &'static str {
    preset.checked.as_ref().map_or("", |checked| word(checked.by))
}

fn word(check: Check) -> &'static str {
    match check {
        Check::Server => "a real server",
        Check::Client => "the official client before a stand-in",
        Check::Documentation => "documentation only",
    }
}

fn span(span: Duration) -> String {
    if span.is_zero() { "at once".to_owned() } else { Time(span).to_string() }
}

fn code(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!("`{text}`") }
}

fn row(out: &mut String, cells: &[&str]) {
    let escaped: Vec<String> = cells.iter().map(|cell| cell.replace('|', "\\|")).collect();
    let _ = writeln!(out, "| {} |", escaped.join(" | "));
}
