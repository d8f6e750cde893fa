//! The rules of Messages.

use serde_json::Value;

use super::binding::{self, Prefix};
use super::{Dialect, Rejection, elements, overflow, strings};

/// One or more messages in a row of the same role, which the vendor takes as one.
struct Turn<'r> {
    role: &'r str,
    /// Where the first of them stands.
    index: usize,
    blocks: Vec<Block<'r>>,
}

#[derive(Clone, Copy)]
struct Block<'r> {
    message: usize,
    place: usize,
    kind: &'r str,
    value: &'r Value,
}

impl Block<'_> {
    fn at(&self) -> String {
        format!("messages.{}.content.{}", self.message, self.place)
    }
}

pub(super) fn check(request: &Value) -> Result<(), Rejection> {
    let messages = match request.get("messages") {
        Some(Value::Array(messages)) if !messages.is_empty() => messages,
        Some(Value::Array(_)) => {
            return Err(Rejection::new("messages: at least one message is required"));
        }
        _ => return Err(Rejection::new("messages: Field required")),
    };
    if let Some((tokens, room)) = overflow(request, Dialect::Messages) {
        return Err(Rejection::new(format!("prompt is too long: {tokens} tokens > {room} maximum")));
    }
    let turns = turns(messages)?;
    if turns.iter().find(|turn| turn.role != "system").is_none_or(|turn| turn.role != "user") {
        return Err(Rejection::new("messages: first message must use the \"user\" role"));
    }
    for (n, turn) in turns.iter().enumerate() {
        roles(turn)?;
        hosted(turn, n + 1 == turns.len())?;
        results(n.checked_sub(1).and_then(|before| turns.get(before)), turn)?;
        calls(turn, turns.get(n + 1))?;
    }
    bound(request, messages)
}

fn turns(messages: &[Value]) -> Result<Vec<Turn<'_>>, Rejection> {
    let mut turns: Vec<Turn<'_>> = Vec::with_capacity(messages.len());
    for (n, message) in messages.iter().enumerate() {
        let role = strings(message, "role").unwrap_or_default();
        if !["user", "assistant", "system"].contains(&role) {
            let told = format!("messages.{n}.role: Input should be 'user', 'assistant' or 'system'");
            return Err(Rejection::new(told));
        }
        if turns.last().is_none_or(|turn| turn.role != role) {
            turns.push(Turn { role, index: n, blocks: Vec::new() });
        }
        let Some(turn) = turns.last_mut() else { continue };
        match message.get("content") {
            Some(Value::String(text)) if !text.is_empty() => {
                turn.blocks.push(Block { message: n, place: 0, kind: "text", value: message });
            }
            Some(Value::Array(blocks)) if !blocks.is_empty() => {
                for (place, value) in blocks.iter().enumerate() {
                    let kind = strings(value, "type").unwrap_or_default();
                    turn.blocks.push(Block { message: n, place, kind, value });
                }
            }
            Some(Value::String(_) | Value::Array(_)) => {
                return Err(Rejection::new(format!(
                    "messages.{n}: all messages must have non-empty content"
                )));
            }
            _ => return Err(Rejection::new(format!("messages.{n}.content: Field required"))),
        }
    }
    Ok(turns)
}

/// Who may say what.
fn roles(turn: &Turn<'_>) -> Result<(), Rejection> {
    for block in &turn.blocks {
        let owner = match block.kind {
            "tool_use" | "server_tool_use" | "thinking" | "redacted_thinking" => "assistant",
            "tool_result" => "user",
            "text" if strings(block.value, "text") == Some("") => {
                return Err(Rejection::new(format!("{}: text content blocks must be non-empty", block.at())));
            }
            _ => continue,
        };
        if turn.role != owner {
            let told = format!("{}: `{}` blocks can only be in `{owner}` messages", block.at(), block.kind);
            return Err(Rejection::new(told));
        }
    }
    Ok(())
}

/// What the vendor did itself is in one message with what came of it, save where an answer was paused.
fn hosted(turn: &Turn<'_>, is_last: bool) -> Result<(), Rejection> {
    let mut open: Vec<(&str, &str)> = Vec::new();
    for block in &turn.blocks {
        if block.kind == "server_tool_use" {
            let id = strings(block.value, "id").unwrap_or_default();
            open.push((id, strings(block.value, "name").unwrap_or_default()));
        } else if block.kind.ends_with("_tool_result") {
            let id = strings(block.value, "tool_use_id").unwrap_or_default();
            let Some(place) = open.iter().position(|(known, _)| *known == id) else {
                let told = format!(
                    "{0}: unexpected `tool_use_id` found in `{1}` blocks: {id}. Each `{1}` block must have a \
                     corresponding `server_tool_use` block before it.",
                    block.at(),
                    block.kind
                );
                return Err(Rejection::new(told));
            };
            open.swap_remove(place);
        }
    }
    match open.first() {
        Some((id, name)) if !is_last => {
            let told = format!(
                "messages.{}: `{name}` tool use with id `{id}` was found without a corresponding `{name}_tool_result` block",
                turn.index
            );
            Err(Rejection::new(told))
        }
        _ => Ok(()),
    }
}

fn ids<'r>(turn: &Turn<'r>, kind: &str, member: &str) -> Vec<&'r str> {
    let blocks = turn.blocks.iter().filter(|block| block.kind == kind);
    blocks.filter_map(|block| strings(block.value, member)).collect()
}

/// Every result belongs to a call of the message before.
fn results(before: Option<&Turn<'_>>, turn: &Turn<'_>) -> Result<(), Rejection> {
    let calls = before.map(|before| ids(before, "tool_use", "id")).unwrap_or_default();
    let mut seen = Vec::new();
    for block in turn.blocks.iter().filter(|block| block.kind == "tool_result") {
        let id = strings(block.value, "tool_use_id").unwrap_or_default();
        if !calls.contains(&id) {
            let told = format!(
                "{}: unexpected `tool_use_id` found in `tool_result` blocks: {id}. Each `tool_result` block must have a \
                 corresponding `tool_use` block in the previous message.",
                block.at()
            );
            return Err(Rejection::new(told));
        }
        if seen.contains(&id) {
            let told = format!(
                "{}: each tool_use must have a single result. Found multiple `tool_result` blocks with id: {id}",
                block.at()
            );
            return Err(Rejection::new(told));
        }
        seen.push(id);
    }
    Ok(())
}

/// Every call has its result at the beginning of the next message.
fn calls(turn: &Turn<'_>, next: Option<&Turn<'_>>) -> Result<(), Rejection> {
    let calls = ids(turn, "tool_use", "id");
    if calls.is_empty() {
        return Ok(());
    }
    let repeated = calls.iter().enumerate().find(|(n, id)| calls.iter().take(*n).any(|other| other == *id));
    if repeated.is_some() {
        return Err(Rejection::new(format!("messages.{}: `tool_use` ids must be unique", turn.index)));
    }
    let results = next.map(|next| ids(next, "tool_result", "tool_use_id")).unwrap_or_default();
    let missing: Vec<&str> = calls.iter().copied().filter(|id| !results.contains(id)).collect();
    if !missing.is_empty() {
        let told = format!(
            "messages.{}: `tool_use` ids were found without `tool_result` blocks immediately after: {}. Each `tool_use` \
             block must have a corresponding `tool_result` block in the next message.",
            turn.index,
            missing.join(", ")
        );
        return Err(Rejection::new(told));
    }
    let first =
        next.map_or(0, |next| next.blocks.iter().take_while(|block| block.kind == "tool_result").count());
    if first < calls.len() {
        let told = format!(
            "messages.{}: Did not find {} `tool_result` block(s) at the beginning of this message. Messages following \
             `tool_use` blocks must begin with a matching number of `tool_result` blocks.",
            next.map_or(0, |next| next.index),
            calls.len()
        );
        return Err(Rejection::new(told));
    }
    Ok(())
}

/// Every thinking block stands behind what it was thought behind.
fn bound(request: &Value, messages: &[Value]) -> Result<(), Rejection> {
    if !binding::any(messages) {
        return Ok(());
    }
    let mut prefix = Prefix::of(Dialect::Messages, request);
    for (n, message) in messages.iter().enumerate() {
        let blocks = elements(message, "content");
        if !blocks.iter().any(binding::is_bound) {
            prefix.add(Dialect::Messages, message);
            continue;
        }
        prefix.role(strings(message, "role").unwrap_or_default());
        for (m, block) in blocks.iter().enumerate() {
            let kind = strings(block, "type").unwrap_or_default();
            let member = if kind == "thinking" { "signature" } else { "data" };
            if binding::is_bound(block) && strings(block, member) != Some(&prefix.signature()) {
                let told = format!(
                    "messages.{n}.content.{m}: Invalid `{member}` in `{kind}` block. The block is bound to a different \
                     conversation."
                );
                return Err(Rejection::new(told));
            }
            prefix.block(block);
        }
    }
    Ok(())
}
