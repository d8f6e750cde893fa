//! The language of rules, as written in presets and in `routes[].rules`: what a path means.

use schemars::JsonSchema;
use serde::Deserialize;

/// What one kind of request means. The first rule that matches holds.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Rule {
    /// For logs and for `pillion check`. Required.
    #[schemars(required)]
    pub(super) name: Option<String>,
    /// Methods it takes. Empty: any, which is right for writes, since services often accept more than they document.
    pub(super) methods: Option<Vec<String>>,
    /// A regular expression (of Rust's `regex` crate) for the normalised path behind the route's prefix. Anchor it
    /// with `^` and `$`. Missing: any path.
    pub(super) path: Option<String>,
    /// A query parameter that must be there, with or without a value.
    pub(super) query_has: Option<String>,
    /// What the request is for: timeouts, retries and metrics hang on it.
    pub(super) operation: Option<Operation>,
    /// What it means for stored responses. Missing: `pass`.
    pub(super) action: Option<Action>,
    /// `false`: a rule with `action: cache` or `action: embeddings` passes. For reads that are safe to store but seldom worth it.
    pub(super) enabled: Option<bool>,
    /// The part of the store it reads or changes, outermost level first. Missing: the whole store.
    pub(super) scope: Option<Vec<Level>>,
    /// Whether doing it twice is as good as once. Missing: true for `search` and `embeddings`.
    pub(super) idempotent: Option<bool>,
    /// Members of the request whose presence makes it not idempotent after all, such as the filter of a delete.
    pub(super) not_idempotent_if: Option<Vec<String>>,
    /// Whether a chat leaves state at the upstream: `always`, or the members of the request that make it so.
    pub(super) leaves_state: Option<LeavesState>,
    /// Whether the request carries a conversation that may be trimmed.
    pub(super) window: Option<bool>,
    /// Whether its responses tell the tokens used.
    pub(super) usage: Option<bool>,
    /// What an answer must look like to be stored. Missing: what the preset knows of the service.
    pub(super) store_if: Option<StoreIf>,
    /// Request headers that change the answer. Missing: what the preset knows of the service.
    pub(super) vary: Option<Vec<String>>,
    /// Query parameters that do not change the answer. Missing: what the preset knows of the service.
    pub(super) ignore_query: Option<Vec<String>>,
}

/// What a request is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub(super) enum Operation {
    /// A read of a vector store.
    Search,
    /// A change of a vector store.
    Write,
    /// A call of a language model.
    Chat,
    /// Text to vectors.
    Embeddings,
    /// Everything else.
    #[default]
    Other,
}

/// What a request means for stored responses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub(super) enum Action {
    /// May be answered from the store, and stored.
    Cache,
    /// As `cache`, input by input: a request for embeddings in OpenAI's form. Nothing but `cache.embeddings_ttl` ends
    /// what is stored, so it has no scope.
    Embeddings,
    /// Drops what its scope covers.
    Invalidate,
    /// Neither.
    #[default]
    Pass,
}

/// One level of a scope.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum Level {
    /// Everything below the levels before it.
    Any(Star),
    /// A name.
    Named(NamedLevel),
}

/// `"*"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[schemars(inline)]
pub(super) enum Star {
    /// Everything.
    #[serde(rename = "*")]
    Star,
}

/// Where the name of a level is read from: `path` or `const`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NamedLevel {
    /// A named group of the path pattern.
    pub(super) path: Option<String>,
    /// The name where that group took no part.
    pub(super) default: Option<String>,
    /// A fixed name.
    #[serde(rename = "const")]
    pub(super) fixed: Option<String>,
}

/// Whether a chat leaves state at the upstream.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum LeavesState {
    /// Whatever the request says.
    Always(Always),
    /// Where one of these members is there and neither `false` nor `null`.
    Members(Vec<String>),
}

/// `always`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub(super) enum Always {
    /// Whatever the request says.
    Always,
}

/// What an answer's content must look like to be stored, by its top-level members.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct StoreIf {
    /// Must be there.
    pub(super) present: Option<Vec<String>>,
    /// Must not be there.
    pub(super) absent: Option<Vec<String>>,
    /// Must not be an empty list.
    pub(super) non_empty: Option<Vec<String>>,
}
