//! What is answered to a request, whatever the dialect: read from the text of the last user's message.

use serde_json::{Value, json};

use crate::strict::{Dialect, binding, tokens};

/// The time at which everything is made. The SDKs want one, nobody looks at it.
pub(crate) const CREATED: u64 = 1_800_000_000;

pub(crate) struct Plan {
    /// Part of every id in this answer.
    pub(crate) number: u64,
    /// The signature of the thinking that goes first.
    pub(crate) thinking: Option<String>,
    /// Calls, or else the text.
    pub(crate) calls: Vec<Call>,
    pub(crate) text: String,
    pub(crate) input_tokens: usize,
    pub(crate) output_tokens: usize,
}

pub(crate) struct Call {
    pub(crate) id: String,
    pub(crate) arguments: Value,
}

pub(crate) const THOUGHT: &str = "What was asked is clear, and so is the answer.";
pub(crate) const FUNCTION: &str = "look_up";

impl Plan {
    pub(crate) fn of(dialect: Dialect, request: &Value, ids: &mut u64) -> Self {
        let history = request[dialect.member()].as_array().map_or(&[][..], Vec::as_slice);
        let (asked, since) = match history.iter().rposition(is_asked) {
            Some(place) => (text(&history[place]["content"]), &history[place + 1..]),
            None => (request[dialect.member()].as_str().unwrap_or_default().to_owned(), &[][..]),
        };
        *ids += 1;
        let wanted = asked.split("tools:").nth(1).map_or(0, |count| {
            let digits: String = count.chars().take_while(char::is_ascii_digit).collect();
            digits.parse().unwrap_or(0)
        });
        let answered = since.iter().any(is_call);
        let calls = (0..if answered { 0 } else { wanted }).map(|n| Call {
            id: format!("{}_{ids}_{n}", if dialect == Dialect::Messages { "toolu" } else { "call" }),
            arguments: json!({"query": format!("part {n}"), "limit": n}),
        });
        let thinks = asked.contains("think") && dialect != Dialect::Chat;
        let text = format!("Answer {ids}: {} messages were heard.", history.len().max(1));
        Self {
            number: *ids,
            thinking: thinks.then(|| binding::sign(dialect, request)),
            calls: calls.collect(),
            input_tokens: tokens(request),
            output_tokens: text.len().div_ceil(4) + usize::from(thinks) * THOUGHT.len().div_ceil(4),
            text,
        }
    }

    /// The text in the pieces that a stream brings.
    pub(crate) fn pieces(&self) -> impl Iterator<Item = &str> {
        self.text.split_inclusive(' ')
    }
}

/// Whether a user asks something here, and does not bring what tools found.
fn is_asked(element: &Value) -> bool {
    let brings = element["content"].as_array().is_some_and(|blocks| {
        blocks.iter().any(|block| block["type"].as_str().is_some_and(|kind| kind == "tool_result"))
    });
    element["role"] == "user" && !brings
}

fn is_call(element: &Value) -> bool {
    let blocks = element["content"].as_array().map_or(&[][..], Vec::as_slice);
    element["tool_calls"].is_array()
        || element["function_call"].is_object()
        || element["type"] == "function_call"
        || blocks.iter().any(|block| block["type"] == "tool_use")
}

fn text(content: &Value) -> String {
    match content {
        Value::String(text) => text.clone(),
        Value::Array(parts) => {
            parts.iter().filter_map(|part| part["text"].as_str()).collect::<Vec<_>>().join(" ")
        }
        _ => String::new(),
    }
}

/// A JSON text in two halves, as arguments come in a stream.
pub(crate) fn halves(json: &str) -> (&str, &str) {
    let middle = (json.len() / 2..json.len()).find(|at| json.is_char_boundary(*at));
    json.split_at(middle.unwrap_or(json.len()))
}
