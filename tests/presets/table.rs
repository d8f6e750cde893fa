//! The tables beside this file: what real requests of each vendor's API mean, one file per preset.

use std::path::PathBuf;

use serde::Deserialize;

/// What a preset is held to.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Table {
    /// From the file's name.
    #[serde(skip)]
    pub(crate) preset: String,
    /// Further members of the route.
    #[serde(default)]
    pub(crate) route: Vec<String>,
    /// An answer of a search that is stored.
    #[serde(default)]
    pub(crate) stored: String,
    /// Answers with status 200 that are not.
    #[serde(default)]
    pub(crate) never_stored: Vec<String>,
    pub(crate) requests: Vec<Row>,
}

/// One request, and what it means.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Row {
    /// Method, path and query.
    #[serde(rename = "do")]
    pub(crate) request: String,
    #[serde(default)]
    pub(crate) body: String,
    #[serde(default)]
    pub(crate) headers: Vec<(String, String)>,
    /// The rule that takes it.
    pub(crate) rule: String,
    pub(crate) action: Did,
    /// The levels of its scope, `*` for everything below; of rules that store or drop.
    #[serde(default)]
    pub(crate) scope: Vec<String>,
    /// The part of the store that it is about, in the vendor's words; `all` for more than one. A write drops exactly the
    /// searches about the same, or about all.
    #[serde(default)]
    pub(crate) about: String,
    /// Its `settled_if` holds.
    #[serde(default)]
    pub(crate) settled: bool,
    /// Its `pass_if` holds.
    #[serde(default)]
    pub(crate) passes: bool,
    /// `idempotent`, `chat` or `other`.
    pub(crate) retry: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Did {
    Cache,
    Embeddings,
    Invalidate,
    Pass,
}

impl Row {
    pub(crate) fn method(&self) -> &str {
        self.request.split_once(' ').unwrap().0
    }

    /// Path and query.
    pub(crate) fn target(&self) -> &str {
        self.request.split_once(' ').unwrap().1
    }

    /// For messages.
    pub(crate) fn told(&self) -> String {
        format!(
            "{} {} (rule {}, scope {:?}, retry {:?})",
            self.request, self.body, self.rule, self.scope, self.retry
        )
    }

    /// Whether a write has to drop a search, by what both are about.
    pub(crate) fn must_drop(&self, search: &Row) -> bool {
        self.about == "all" || search.about == "all" || self.about == search.about
    }
}

impl Table {
    pub(crate) fn searches(&self) -> Vec<&Row> {
        self.requests.iter().filter(|row| row.action == Did::Cache && !row.passes).collect()
    }

    pub(crate) fn writes(&self) -> Vec<&Row> {
        self.requests.iter().filter(|row| row.action == Did::Invalidate).collect()
    }

    /// A route of this preset, as a configuration.
    pub(crate) fn configuration(&self, upstream: &str, cache: &str) -> String {
        let more: Vec<String> = self.route.iter().map(|line| format!("    {line}\n")).collect();
        format!(
            "version: 1\nlisten: 127.0.0.1:0\nadmin: {{listen: 127.0.0.1:0}}\nroutes:\n  - name: r\n    path: /\n    \
             upstream: {upstream}\n    preset: {}\n    cache: {{{cache}}}\n{more}",
            self.preset,
            more = more.concat()
        )
    }
}

/// Every table, by its preset's name.
pub(crate) fn tables() -> Vec<Table> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/presets");
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .collect();
    files.sort();
    let read = |path: PathBuf| {
        let text = std::fs::read_to_string(&path).unwrap();
        let mut table: Table =
            serde_yaml::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        path.file_stem().unwrap().to_str().unwrap().clone_into(&mut table.preset);
        table
    };
    files.into_iter().map(read).collect()
}
