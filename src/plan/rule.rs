//! What a path means: the rules that presets are made of.

use std::time::Duration;

use http::Method;
use regex::Regex;

use super::condition::Condition;
use super::request::has_parameter;
use super::scope::Level;
use crate::{cache, retry, upstream, window};

/// What an exchange is for. Labels, timeouts and retry classes hang on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// A read of a vector store.
    Search,
    /// A change of a vector store.
    Write,
    /// A call of a language model.
    Chat,
    /// Text to vectors.
    Embeddings,
    /// Everything else.
    Other,
}

impl Operation {
    /// Every operation, for label sets.
    pub const ALL: [Operation; 5] =
        [Operation::Search, Operation::Write, Operation::Chat, Operation::Embeddings, Operation::Other];

    /// The label of metrics and logs, and the word in presets.
    pub const fn word(self) -> &'static str {
        match self {
            Operation::Search => "search",
            Operation::Write => "write",
            Operation::Chat => "chat",
            Operation::Embeddings => "embeddings",
            Operation::Other => "other",
        }
    }
}

/// One rule: which requests, and what they mean.
#[derive(Clone, Debug)]
pub struct Rule {
    /// For logs and for `pillion check`.
    pub name: String,
    /// Which requests it takes.
    pub matcher: Matcher,
    /// What the request is for.
    pub operation: Operation,
    /// What it means for stored responses.
    pub action: Action,
    /// The part of the store it reads or changes, outermost level first; empty is the whole store.
    pub scope: Vec<Level>,
    /// Of a write: once answered, every search sees it. Of a search: it sees every write that was answered.
    pub settled_if: Option<Condition>,
    /// Of a search: it is neither looked up nor stored.
    pub pass_if: Option<Condition>,
    /// Time allowed.
    pub timeouts: upstream::Timeouts,
    /// What is retried.
    pub retry: retry::Policy,
    /// Whether the request leaves state at the upstream, which makes a second attempt unsafe.
    pub leaves_state: LeavesState,
    /// Request members (top level, not null) whose presence makes the request not idempotent, such as a delete by
    /// filter.
    pub not_idempotent_if: Vec<String>,
    /// How its conversation is trimmed, when it carries one.
    pub window: Option<window::Policy>,
    /// Token usage is read from its responses, so they are asked for unencoded.
    pub reads_usage: bool,
}

impl Rule {
    /// How long after it the store may still answer with what was before; of a write.
    pub fn settles(&self) -> Option<Duration> {
        match &self.action {
            Action::Invalidate(settle) => Some(settle.lag),
            Action::Cache(_) | Action::Embeddings(_) | Action::Pass => None,
        }
    }
}

/// Which requests a rule takes.
#[derive(Clone, Debug)]
pub struct Matcher {
    /// Empty: any method but OPTIONS, which changes nothing (RFC 9110 section 9.2.1) and is sent by browsers unasked.
    pub methods: Vec<Method>,
    /// Matched against the normalised path, behind the route's prefix. `None`: any path.
    pub path: Option<Regex>,
    /// A query parameter that must be there, with or without a value.
    pub query_has: Option<String>,
    /// Query parameters that must not be there.
    pub query_lacks: Vec<String>,
}

impl Matcher {
    /// Whether it takes a request.
    pub fn takes(&self, method: &Method, path: &str, query: Option<&str>) -> bool {
        self.takes_method(method)
            && self.path.as_ref().is_none_or(|pattern| pattern.is_match(path))
            && self.query_has.as_ref().is_none_or(|name| has_parameter(query, name))
            && !self.query_lacks.iter().any(|name| has_parameter(query, name))
    }

    fn takes_method(&self, method: &Method) -> bool {
        if self.methods.is_empty() { *method != Method::OPTIONS } else { self.methods.contains(method) }
    }
}

/// What a request means for stored responses.
#[derive(Clone, Debug)]
pub enum Action {
    /// May be answered from a stored response, and stored.
    Cache(Box<cache::Policy>),
    /// A batch of inputs: each may be answered by a stored element, and is stored.
    Embeddings(Box<cache::Policy>),
    /// Changes the store: drops what its scope covers.
    Invalidate(cache::fence::Settle),
    /// Neither.
    Pass,
}

/// Whether a chat leaves state at the upstream (OpenAI's `store`, `background`, `conversation`).
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum LeavesState {
    /// It does not.
    #[default]
    Never,
    /// It may, whatever the request says.
    Always,
    /// It does when one of these top-level members of the request is there and neither `false` nor `null`.
    Members(Vec<String>),
}
