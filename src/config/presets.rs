//! What is known of services: the YAML files in `config/presets/`, compiled in. Adding a vector database is adding one
//! file there and one line here.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use schemars::JsonSchema;
use serde::Deserialize;

use super::file::{Retry, Timeouts};
use super::problem;
use super::rule::{Operation, Rule, StoreIf};
use super::units::Time;
use crate::error;

/// The files, by the names that `preset:` takes.
const FILES: [(&str, &str); 13] = [
    ("openai", include_str!("../../config/presets/openai.yaml")),
    ("azure", include_str!("../../config/presets/azure.yaml")),
    ("anthropic", include_str!("../../config/presets/anthropic.yaml")),
    ("upstash-vector", include_str!("../../config/presets/upstash-vector.yaml")),
    ("pinecone", include_str!("../../config/presets/pinecone.yaml")),
    ("qdrant", include_str!("../../config/presets/qdrant.yaml")),
    ("weaviate-rest", include_str!("../../config/presets/weaviate-rest.yaml")),
    ("chroma-v2", include_str!("../../config/presets/chroma-v2.yaml")),
    ("milvus-v2", include_str!("../../config/presets/milvus-v2.yaml")),
    ("elasticsearch", include_str!("../../config/presets/elasticsearch.yaml")),
    ("turbopuffer", include_str!("../../config/presets/turbopuffer.yaml")),
    ("supabase-rpc", include_str!("../../config/presets/supabase-rpc.yaml")),
    ("http", include_str!("../../config/presets/http.yaml")),
];

/// Further names, and the files they stand for.
const ALIASES: [(&str, &str); 1] = [("opensearch", "elasticsearch")];

/// The preset of a route that names none.
pub(super) const PLAIN: &str = "http";

static PRESETS: LazyLock<BTreeMap<&'static str, Result<Preset, String>>> = LazyLock::new(|| {
    FILES.map(|(name, text)| (name, serde_yaml::from_str(text).map_err(|error| error.to_string()))).into()
});

/// The names of the presets, in the order of the documentation.
pub fn names() -> impl Iterator<Item = &'static str> {
    files().chain(ALIASES.iter().map(|(name, _)| *name))
}

/// The names of the files.
pub fn files() -> impl Iterator<Item = &'static str> {
    FILES.iter().map(|(name, _)| *name)
}

/// The other names of a file.
pub(super) fn aliases(name: &str) -> impl Iterator<Item = &'static str> {
    ALIASES.iter().filter(move |(_, file)| *file == name).map(|(alias, _)| *alias)
}

/// The name of the file that a name stands for.
fn file_of(name: &str) -> &str {
    ALIASES.iter().find(|(alias, _)| *alias == name).map_or(name, |(_, file)| file)
}

/// The file of a preset, as compiled in.
pub fn text(name: &str) -> Option<&'static str> {
    FILES.iter().find(|(known, _)| *known == file_of(name)).map(|(_, text)| *text)
}

/// One sentence about a preset.
pub fn about(name: &str) -> Option<&'static str> {
    preset(name)?.as_ref().ok().map(|preset| preset.about.as_str())
}

/// The name that a mistyped one was meant for.
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    problem::nearest(name, known)
}

/// A preset; what is wrong with its file otherwise, which a test keeps from happening.
pub(super) fn preset(name: &str) -> Option<&'static Result<Preset, String>> {
    PRESETS.get(file_of(name))
}

/// What is known of a service.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Preset {
    /// One sentence, for `pillion presets`.
    #[serde(default)]
    pub(super) about: String,
    /// What it was checked with.
    pub(super) checked: Option<Checked>,
    /// What else its users should know, for `docs/presets.md`.
    #[serde(default)]
    pub(super) notes: Vec<String>,
    /// The shape in which its SDKs expect errors. Missing: `problem`.
    #[serde(default)]
    pub(super) dialect: Dialect,
    /// Lines for the bot's environment; `{url}` stands for the route's address.
    #[serde(default)]
    pub(super) bot_env: Vec<String>,
    /// Codes of a 429 that mean "pay first": never retried.
    #[serde(default)]
    pub(super) billing_codes: Vec<String>,
    /// Numbers per operation, below `defaults`.
    #[serde(default)]
    #[schemars(extend("propertyNames" = {"enum": ["search", "write", "chat", "embeddings", "other"]}))]
    pub(super) operations: BTreeMap<Operation, Numbers>,
    /// What holds for everything that is stored.
    #[serde(default)]
    pub(super) store: Store,
    /// What paths mean; the first rule that matches holds. What none matches passes, except that on a service with
    /// rules that store or invalidate, any method but GET, HEAD and OPTIONS invalidates everything.
    #[serde(default)]
    pub(super) rules: Vec<Rule>,
}

/// The shape in which a service's SDKs expect errors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub(super) enum Dialect {
    /// `{"error":{message,type,param,code}}`.
    OpenAi,
    /// `{"type":"error",...}`.
    Anthropic,
    /// `{"error":"...","status":502}`.
    Upstash,
    /// `{"error":"Name","message":"..."}`.
    Chroma,
    /// RFC 9457.
    #[default]
    Problem,
}

/// What a preset was checked with.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Checked {
    /// The sort of check, the best there was.
    pub(super) by: Check,
    /// With what, in a sentence or two.
    #[serde(rename = "with")]
    pub(super) what: String,
}

/// How a preset was checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub(super) enum Check {
    /// The service itself.
    Server,
    /// The service's official client before a stand-in.
    Client,
    /// Documentation and published source only.
    Documentation,
}

impl From<Dialect> for error::Dialect {
    fn from(dialect: Dialect) -> Self {
        match dialect {
            Dialect::OpenAi => Self::OpenAi,
            Dialect::Anthropic => Self::Anthropic,
            Dialect::Upstash => Self::Upstash,
            Dialect::Chroma => Self::Chroma,
            Dialect::Problem => Self::Problem,
        }
    }
}

/// Numbers of one operation.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Numbers {
    /// As in `defaults`.
    pub(super) timeouts: Option<Timeouts>,
    /// As in `defaults`.
    pub(super) retry: Option<Retry>,
}

/// What holds for everything of a service that is stored.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(clippy::struct_field_names, reason = "the keys of the file: `store.store_if` as in a rule")]
pub(super) struct Store {
    /// How long after a write searches may still be answered with what was before.
    pub(super) settle: Option<Time>,
    /// Names of the store may be aliases of each other, so every write drops everything stored of it. A route may assert
    /// that there are none by `cache: {aliases: false}`.
    #[serde(default)]
    pub(super) aliases: bool,
    /// Whether searches that found nothing, as told by `store_if.non_empty`, are stored. Missing: no.
    pub(super) cache_empty: Option<bool>,
    /// What an answer must look like to be stored.
    pub(super) store_if: Option<StoreIf>,
    /// Query parameters that do not change the answer.
    pub(super) ignore_query: Option<Vec<String>>,
    /// The service reads JSON objects in the order of their members, so that the order is part of the key.
    #[serde(default)]
    pub(super) ordered: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_preset_reads() {
        for name in names() {
            let preset = preset(name).unwrap().as_ref().unwrap_or_else(|error| panic!("{name}: {error}"));
            assert!(!preset.about.is_empty(), "{name}");
        }
    }

    #[test]
    fn every_file_of_the_folder_is_compiled_in() {
        let folder = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/config/presets")).unwrap();
        let mut found: Vec<_> = folder.map(|f| f.unwrap().file_name().into_string().unwrap()).collect();
        let mut known: Vec<_> = files().map(|name| format!("{name}.yaml")).collect();
        found.sort();
        known.sort();
        assert_eq!(found, known);
    }
}
