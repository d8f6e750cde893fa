//! The reference of the configuration and its JSON Schema, made from the types that read the file, so that they cannot
//! be wrong about it. `tests/config.rs` fails when the files in the repository are older than the types.

use std::fmt::Write as _;

use schemars::generate::SchemaSettings;
use serde_json::Value as Json;

use super::file::File;
use super::layers::BUILT_IN;
use super::overrides::VARIABLES;
use super::presets::{self, Preset};

/// The JSON Schema of `pillion.yaml`.
pub fn schema() -> Json {
    let schema = SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<File>();
    schema.to_value()
}

/// The text of `config/schema.json`.
pub fn schema_json() -> String {
    let mut schema = schema();
    if let Some(root) = schema.as_object_mut() {
        root.insert("title".to_owned(), Json::from("pillion.yaml"));
    }
    format!("{schema:#}\n")
}

/// The text of `docs/configuration.md`.
pub fn markdown() -> String {
    let mut out = INTRODUCTION.to_owned();
    let schema = schema();
    let built_in = serde_yaml::from_str(BUILT_IN).unwrap_or_default();
    out.push_str("\n## Keys\n");
    let page = Page { root: &schema, built_in: &built_in };
    page.section(&mut out, "pillion.yaml", &schema, "");

    out.push_str("\n## Variables that override the file\n\n");
    out.push_str(VARIABLES_TEXT);
    out.push_str("\n| variable | says |\n|---|---|\n");
    for (name, about) in VARIABLES {
        row(&mut out, &[&format!("`{name}`, `PILLION_{name}`"), about]);
    }

    out.push_str(
        "\n## Presets\n\n`pillion presets NAME` prints the file of one.\n\n| preset | |\n|---|---|\n",
    );
    for name in presets::names() {
        row(&mut out, &[&format!("`{name}`"), presets::about(name).unwrap_or_default()]);
    }
    out.push_str(PRESETS_TEXT);
    let preset = SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<Preset>().to_value();
    let page = Page { root: &preset, built_in: &serde_yaml::Value::Null };
    page.section(&mut out, "A preset", &preset, "");
    out
}

const INTRODUCTION: &str = "\
<!-- Generated from the types in src/config by `PILLION_REGENERATE=1 cargo test --test config`. Do not edit. -->
# Configuration

`pillion run --config FILE` reads FILE; without it `$PILLION_CONFIG`, `./pillion.yaml`, `/etc/pillion/pillion.yaml`,
else the built-in default, which is `config/pillion.yaml`. `pillion check` prints what is in force, or everything that is
wrong with it at once. `config/schema.json` is for editors:
`# yaml-language-server: $schema=config/schema.json`.

- A value comes from the environment, else the route, else `defaults`, else the preset, else it is built in. What a preset
  knows of its service (rules, scopes, what a success looks like, `settle`) is changed by a route only.
- Unknown keys are errors. A key without a value is as good as not written.
- Durations are `250ms`, `5s`, `5m`, `24h`, `7d`; sizes are `512KiB`, `64MiB`, `20MB` or a number of bytes. `0` where a
  key begins with `max` means no limit.
- `${NAME}` and `${NAME:-default}` stand for variables of the environment inside any value, also inside a default:
  `${A:-${B:-}}`. `$$` is a `$`. One that is unset or empty and has no default is an error; a value that variables leave
  empty counts as not written. They are expanded after the YAML is read, so that none can add keys, and may become the
  number, or the `true` and `false`, that a key wants.
- `version: 1` means that none of these keys is ever taken away or changes its meaning.
";

const VARIABLES_TEXT: &str = "\
They are the bot's own, so that one environment can serve both. The twin that begins with `PILLION_` wins; `compat_env:
false` ignores the bot's. An empty one counts as unset. Each one used is named at start.
";

const PRESETS_TEXT: &str = "
[What the built-in ones do](presets.md) has a page of its own. A preset is a YAML file in `config/presets/`, compiled in;
adding a service is adding a file there and its name in `src/config/presets.rs`. Its rules are written in the same language as `routes[].rules`: the first that matches the method,
the normalised path behind the route's prefix (slashes collapsed, a trailing one dropped, escapes decoded where that is
safe) and the query holds. Whatever no rule takes passes, except on a service with rules that store or invalidate: there
any method but GET, HEAD and OPTIONS counts as a write of everything, since a missed write would be worse than a miss.
OPTIONS goes to a rule only if its `methods` name it: it changes nothing (RFC 9110 section 9.2.1). A rule that is never
reached, because one before it has the same path or none, is an error; patterns are not compared otherwise, so put rules that
write before wide ones that search.

A level of a scope is `{path: GROUP}` (a named group of the pattern, percent-decoded), `{query: NAME}`, `{body: POINTER}`,
`{header: NAME}`, `{const: NAME}`, or `\"*\"` for everything below. With a `default:`, that is the name where there is
none, or an empty one. A level that cannot be read counts as `\"*\"`, default or not: content that is not JSON, or is not
held, or is encoded; a name that is there twice, or in another case (some parsers take either); a value that is neither a
string nor a whole number. Then a write drops everything below, and a stored search is dropped by any write there.

A condition holds where any of its lines holds. It is read from requests of rules that have one, and from no others. `matches`
looks through JSON in which every character of a string is spelled in the plainest way: `\"s\\u0061mple\"` is seen as
`\"sample\"`. In other content (YAML, CBOR) a name has other spellings, so there it is never told: `pass_if` holds.

`ordered: true` is for services that read the members of an object one by one, such as a `sort` whose first member counts
most. Elsewhere searches that differ in the order of members alone are one.

Presets of your own stand under `presets:`. This one knows a service that is asked by `POST /find` and told its
collection in the content:

```yaml
presets:
  my-store:
    about: Our own vector service.
    store: {settle: 2s, store_if: {equals: {/status: ok}}}
    rules:
      - name: find
        methods: [POST]
        path: '^/find$'
        operation: search
        action: cache
        scope: [{body: /collection}]
        pass_if: {body: {/explain: true}}
      - name: write
        path: '^/(?:put|drop)$'
        operation: write
        action: invalidate
        scope: [{body: /collection}]
        settled_if: {query: {wait: true}}
routes:
  - {name: mine, path: /mine, upstream: 'http://10.0.0.7:7000', preset: my-store}
```
";

/// What tables are made from.
struct Page<'a> {
    root: &'a Json,
    built_in: &'a serde_yaml::Value,
}

impl<'a> Page<'a> {
    /// The table of one section, and those of the sections below it.
    fn section(&self, out: &mut String, title: &str, schema: &'a Json, path: &str) {
        // Writing to a String cannot fail.
        let _ = write!(out, "\n### {title}\n\n");
        if let Some(about) = schema.get("description").and_then(Json::as_str) {
            let _ = write!(out, "{}\n\n", one_line(about));
        }
        let built_in = if self.built_in.is_null() { "" } else { " built in |" };
        let rule = if self.built_in.is_null() { "" } else { "---|" };
        let _ = writeln!(out, "| key | value |{built_in} meaning |\n|---|---|{rule}---|");
        let mut below = Vec::new();
        for (key, property) in schema.get("properties").and_then(Json::as_object).into_iter().flatten() {
            let about = property.get("description").and_then(Json::as_str).unwrap_or_default();
            let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            let (value, section) = self.describe(property);
            let about = format!("{}{}", one_line(about), self.words(property));
            if self.built_in.is_null() {
                row(out, &[&format!("`{key}`"), &value, &about]);
            } else {
                row(out, &[&format!("`{key}`"), &value, &self.built_in(&path), &about]);
            }
            if let Some(section) = section {
                below.push((path, value.starts_with("list"), section));
            }
        }
        for (path, listed, section) in below {
            // A route's own sections say no more than those of `defaults`, but for `settle`.
            let own = path == "routes[].cache" || path.starts_with("routes[].rules");
            let repeated = path.starts_with("routes[].") && !own;
            // One condition reads like the other.
            if !repeated && !path.ends_with(".pass_if") {
                let path = if listed { format!("{path}[]") } else { path };
                self.section(out, &format!("`{path}`"), section, &path);
            }
        }
    }

    /// The sort of value, and the section that it opens.
    fn describe(&self, property: &'a Json) -> (String, Option<&'a Json>) {
        let property = self.follow(property);
        if let Some(unit) = property.get("x-unit").and_then(Json::as_str) {
            return (unit.to_owned(), None);
        }
        if let Some(branches) = property.get("anyOf").and_then(Json::as_array) {
            let sorts: Vec<_> =
                branches.iter().map(|b| self.describe(b)).filter(|(sort, _)| sort != "null").collect();
            let section = sorts.iter().find_map(|(_, section)| *section);
            let names: Vec<String> = sorts.into_iter().map(|(name, _)| name).collect();
            // What `rule::Scalar` is made of.
            let scalar = ["`true`, `false`", "whole number", "number", "text"];
            return (if names == scalar { "scalar".to_owned() } else { names.join(" or ") }, section);
        }
        if let Some(values) = property.get("additionalProperties").filter(|values| values.is_object()) {
            let values = self.follow(values);
            if values.pointer("/properties/rules").is_some() {
                return ("mapping by name, each [a preset](#a-preset)".to_owned(), None);
            }
            if property.get("propertyNames").is_some() {
                return ("mapping by operation".to_owned(), self.describe(values).1);
            }
            return (format!("mapping to {}", self.describe(values).0), None);
        }
        let sorts: Vec<&str> = match property.get("type") {
            Some(Json::String(sort)) => vec![sort],
            Some(Json::Array(sorts)) => {
                sorts.iter().filter_map(Json::as_str).filter(|s| *s != "null").collect()
            }
            _ => vec!["string"],
        };
        match (sorts.first().copied(), property.get("items")) {
            (Some("array"), Some(items)) => {
                let (name, section) = self.describe(items);
                (format!("list of {name}"), section)
            }
            (Some("object"), _) => ("section".to_owned(), Some(property)),
            (Some("string"), _) => {
                let words = self.choices(property);
                (if words.is_empty() { "text".to_owned() } else { format!("`{}`", words.join("`, `")) }, None)
            }
            (Some("boolean"), _) => ("`true`, `false`".to_owned(), None),
            (Some("integer"), _) => ("whole number".to_owned(), None),
            (Some(other), _) => (other.to_owned(), None),
            (None, _) => ("null".to_owned(), None),
        }
    }

    fn follow(&self, schema: &'a Json) -> &'a Json {
        let target = schema.get("$ref").and_then(Json::as_str).and_then(|target| target.strip_prefix('#'));
        target.and_then(|target| self.root.pointer(target)).unwrap_or(schema)
    }

    fn alternatives(&self, schema: &'a Json) -> Vec<&'a Json> {
        let schema = self.follow(schema);
        let of = |key: &str| schema.get(key).and_then(Json::as_array).into_iter().flatten();
        let mut found: Vec<&Json> = of("oneOf").collect();
        found.extend(of("anyOf").flat_map(|branch| self.alternatives(branch)));
        if schema.get("const").is_some() {
            found.push(schema);
        }
        found
    }

    fn choices(&self, schema: &'a Json) -> Vec<&'a str> {
        self.alternatives(schema).iter().filter_map(|choice| choice.get("const")?.as_str()).collect()
    }

    /// The meaning of each word of a choice.
    fn words(&self, schema: &'a Json) -> String {
        let choices = self.alternatives(schema);
        if choices.len() < 2 {
            return String::new();
        }
        let each = choices.iter().filter_map(|choice| {
            let (word, about) = (choice.get("const")?.as_str()?, choice.get("description")?.as_str()?);
            Some(format!(" `{word}`: {}", one_line(about)))
        });
        each.collect()
    }

    fn built_in(&self, path: &str) -> String {
        let mut value = self.built_in;
        for key in path.split('.') {
            match value.get(key) {
                Some(below) => value = below,
                None => return String::new(),
            }
        }
        match value {
            serde_yaml::Value::Mapping(_) | serde_yaml::Value::Sequence(_) => String::new(),
            scalar => format!("`{}`", serde_yaml::to_string(scalar).unwrap_or_default().trim()),
        }
    }
}

fn row(out: &mut String, cells: &[&str]) {
    let escaped: Vec<String> = cells.iter().map(|cell| cell.replace('|', "\\|")).collect();
    let _ = writeln!(out, "| {} |", escaped.join(" | "));
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_a_route_starts_from_is_built_in() {
        let schema = schema();
        let built_in: serde_yaml::Value = serde_yaml::from_str(BUILT_IN).unwrap();
        let page = Page { root: &schema, built_in: &built_in };
        for (name, section) in
            page.describe(&schema["properties"]["defaults"]).1.unwrap()["properties"].as_object().unwrap()
        {
            let keys = page.describe(section).1.unwrap()["properties"].as_object().unwrap().keys();
            for key in keys {
                assert_ne!(page.built_in(&format!("defaults.{name}.{key}")), "", "{name}.{key}");
            }
        }
    }

    #[test]
    fn every_key_is_documented() {
        fn walk(schema: &Json, at: &str) {
            for (key, property) in schema.get("properties").and_then(Json::as_object).into_iter().flatten() {
                let about = property.get("description").and_then(Json::as_str).unwrap_or_default();
                assert!(about.len() > 5, "{at}.{key} says nothing");
                walk(property, &format!("{at}.{key}"));
            }
        }
        let schema = schema();
        walk(&schema, "");
        for (name, definition) in schema["$defs"].as_object().unwrap() {
            walk(definition, name);
        }
    }
}
