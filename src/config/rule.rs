//! The language of rules, as written in presets and in `routes[].rules`: what a path means.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use super::units::Time;

/// What one kind of request means. The first rule that matches holds.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Rule {
    /// For logs and for `pillion check`. Required.
    #[schemars(required)]
    pub(super) name: Option<String>,
    /// Methods it takes. Empty: any but OPTIONS, which changes nothing. That is right for writes, since services often accept
    /// more than they document.
    pub(super) methods: Option<Vec<String>>,
    /// A regular expression (of Rust's `regex` crate) for the normalised path behind the route's prefix. Anchor it
    /// with `^` and `$`. Missing: any path.
    pub(super) path: Option<String>,
    /// A query parameter that must be there, with or without a value.
    pub(super) query_has: Option<String>,
    /// Query parameters that must not be there.
    pub(super) query_lacks: Option<Vec<String>>,
    /// What the request is for: timeouts, retries and metrics hang on it. Missing: `other`.
    pub(super) operation: Option<Operation>,
    /// What it means for stored responses. Missing: `pass`.
    pub(super) action: Option<Action>,
    /// `false`: a rule with `action: cache` or `action: embeddings` passes. For reads that are safe to store but seldom worth it.
    pub(super) enabled: Option<bool>,
    /// The part of the store it reads or changes, outermost level first. Missing: the whole store.
    pub(super) scope: Option<Vec<Level>>,
    /// Of a write: how long the service may still be at work on what it acknowledged, such as an import. Until then
    /// nothing is stored. Missing: the store's.
    pub(super) settle: Option<Time>,
    /// Of a write: once it is answered with a success, every search sees it, so nothing has to settle. Of a search: its
    /// answer has every write in it that was answered before, so that it is stored although the store still settles.
    pub(super) settled_if: Option<Condition>,
    /// Of a search: it is neither looked up nor stored.
    pub(super) pass_if: Option<Condition>,
    /// Whether doing it twice is as good as once. Missing: true for `search` and `embeddings`.
    pub(super) idempotent: Option<bool>,
    /// Members of the request whose presence makes it not idempotent after all, such as the filter of a delete.
    pub(super) not_idempotent_if: Option<Vec<String>>,
    /// Whether a chat leaves state at the upstream: `always`, or the members of the request that make it so.
    pub(super) leaves_state: Option<LeavesState>,
    /// Whose conversation the request carries, which may be trimmed then. `true` is `chat`.
    pub(super) window: Option<Window>,
    /// Whether its responses tell the tokens used.
    pub(super) usage: Option<bool>,
    /// What an answer must look like to be stored. Missing: what the preset knows of the service.
    pub(super) store_if: Option<StoreIf>,
    /// Request headers that change the answer though they are left out of the key otherwise, such as `user-agent`.
    pub(super) vary: Option<Vec<String>>,
    /// Query parameters that do not change the answer. Missing: what the preset knows of the service.
    pub(super) ignore_query: Option<Vec<String>>,
    /// The service reads JSON objects in the order of their members, so that the order is part of the key. Missing: what the
    /// preset knows of the service, else `false`.
    pub(super) ordered: Option<bool>,
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

/// Where the name of a level is read from: one of `path`, `query`, `body`, `header` and `const`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NamedLevel {
    /// A named group of the path pattern.
    pub(super) path: Option<String>,
    /// A query parameter.
    pub(super) query: Option<String>,
    /// A string or a whole number in the content, by a JSON pointer such as `/namespace`.
    pub(super) body: Option<String>,
    /// A request header. It is part of the key, too.
    pub(super) header: Option<String>,
    /// The name where there is none, or an empty one. Never that of one that is there and cannot be read.
    pub(super) default: Option<String>,
    /// A fixed name.
    #[serde(rename = "const")]
    pub(super) fixed: Option<String>,
}

/// What a request must say. It holds where any of its lines holds. Of a request that cannot be read (too large, encoded,
/// not JSON, a name that is there twice) `pass_if` holds, and `settled_if` does not.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Condition {
    /// Values of query parameters, by name.
    pub(super) query: Option<BTreeMap<String, Values>>,
    /// Values in the content, by JSON pointer.
    pub(super) body: Option<BTreeMap<String, Values>>,
    /// A regular expression that the content has somewhere: JSON as it came, but for the escapes of strings, each of which is
    /// the character itself, or `\n` and its like where that cannot stand there. Never found where there is no content.
    pub(super) matches: Option<String>,
}

/// A value, a list of values any of which will do, or `"*"` for whatever is there.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum Values {
    /// One.
    One(Scalar),
    /// Any of these.
    Many(Vec<Scalar>),
}

/// A text, a number, `true` or `false`.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum Scalar {
    /// `true` or `false`.
    Truth(bool),
    /// A whole number.
    Whole(i64),
    /// A number.
    Number(f64),
    /// A text.
    Text(String),
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

/// Whose conversation a request carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum Window {
    /// OpenAI's chat completions, or none.
    Truth(bool),
    /// Whose.
    Dialect(Conversation),
}

/// The APIs whose conversations are understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub(super) enum Conversation {
    /// OpenAI's chat completions.
    Chat,
    /// OpenAI's Responses.
    Responses,
    /// Anthropic's Messages.
    Messages,
}

/// `always`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub(super) enum Always {
    /// Whatever the request says.
    Always,
}

/// What an answer's content must look like to be stored, by its top-level members and by values anywhere in it.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct StoreIf {
    /// Must be there.
    pub(super) present: Option<Vec<String>>,
    /// Must not be there.
    pub(super) absent: Option<Vec<String>>,
    /// Must not be an empty list, unless `cache.cache_empty` says that it may.
    pub(super) non_empty: Option<Vec<String>>,
    /// Values that must stand at these places, by JSON pointer.
    pub(super) equals: Option<BTreeMap<String, Scalar>>,
}
