//! What the vendors refuse of a conversation, so that it can judge what Pillion forwards.
//!
//! Written from the vendors' rules alone. It must never look at how Pillion reads a conversation, or both would share
//! a mistake. The wordings are the vendors' own; where none is known for a case, its neighbour's is adapted.

#![allow(dead_code, unused_imports, reason = "each test binary uses its own part")]

pub(crate) mod binding;
mod chat;
mod messages;
mod responses;
#[cfg(test)]
mod tests;

use serde_json::Value;

pub(crate) use responses::id_out_of;

/// Whose rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Dialect {
    /// `OpenAI`'s chat completions.
    Chat,
    /// `OpenAI`'s Responses.
    Responses,
    /// Anthropic's Messages.
    Messages,
}

impl Dialect {
    pub(crate) const ALL: [Dialect; 3] = [Dialect::Chat, Dialect::Responses, Dialect::Messages];

    /// The member that the history is in.
    pub(crate) const fn member(self) -> &'static str {
        match self {
            Dialect::Chat | Dialect::Messages => "messages",
            Dialect::Responses => "input",
        }
    }
}

/// What a vendor answers to a request that breaks its rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rejection {
    /// The vendor's wording.
    pub(crate) message: String,
    /// What it is about; only `OpenAI` says so.
    pub(crate) param: Option<String>,
    /// `OpenAI`'s code; of Anthropic's the type, where it is not `invalid_request_error`.
    pub(crate) code: Option<&'static str>,
}

impl Rejection {
    fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), param: None, code: None }
    }

    fn at(mut self, param: impl Into<String>) -> Self {
        self.param = Some(param.into());
        self
    }

    fn code(mut self, code: &'static str) -> Self {
        self.code = Some(code);
        self
    }
}

/// Whether the vendor would take this request. It knows nothing of earlier ones: what refers to state on the vendor's
/// side is refused as not found, so a stand-in that keeps any resolves it first.
pub(crate) fn check(dialect: Dialect, request: &Value) -> Result<(), Rejection> {
    match dialect {
        Dialect::Chat => chat::check(request),
        Dialect::Responses => responses::check(request),
        Dialect::Messages => messages::check(request),
    }
}

/// Whether the vendor would read a request of so many bytes at all.
pub(crate) fn check_size(dialect: Dialect, bytes: usize) -> Result<(), Rejection> {
    const LARGEST: usize = 32 << 20;
    if dialect == Dialect::Messages && bytes > LARGEST {
        return Err(Rejection::new("Request exceeds the maximum size").code("request_too_large"));
    }
    Ok(())
}

/// Tokens of the history and of the model's context, where it does not fit. A model whose name ends in `context-N` has
/// room for N; every other has room for all.
fn overflow(request: &Value, dialect: Dialect) -> Option<(usize, usize)> {
    let room: usize = request["model"].as_str()?.rsplit_once("context-")?.1.parse().ok()?;
    let tokens = tokens(&request[dialect.member()]);
    (tokens > room).then_some((tokens, room))
}

/// About as many as a vendor would count.
pub(crate) fn tokens(value: &Value) -> usize {
    value.to_string().len().div_ceil(4)
}

fn strings<'v>(value: &'v Value, member: &str) -> Option<&'v str> {
    value.get(member).and_then(Value::as_str)
}

/// A member's elements; none when it is anything but an array.
fn elements<'v>(value: &'v Value, member: &str) -> &'v [Value] {
    value.get(member).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn is_there(value: &Value, member: &str) -> bool {
    value.get(member).is_some_and(|value| !value.is_null())
}
