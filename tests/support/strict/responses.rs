//! The rules of Responses.

use std::collections::HashSet;

use serde_json::Value;

use super::{Dialect, Rejection, elements, is_there, overflow, strings};

/// A call that the bot answers, what answers it, and what the vendor calls it.
struct Pair {
    call: &'static str,
    output: &'static str,
    word: &'static str,
}

const fn pair(call: &'static str, output: &'static str, word: &'static str) -> Pair {
    Pair { call, output, word }
}

const PAIRS: [Pair; 9] = [
    pair("function_call", "function_call_output", "function call"),
    pair("custom_tool_call", "custom_tool_call_output", "custom tool call"),
    pair("computer_call", "computer_call_output", "computer call"),
    pair("local_shell_call", "local_shell_call_output", "local shell call"),
    pair("shell_call", "shell_call_output", "shell call"),
    pair("apply_patch_call", "apply_patch_call_output", "apply patch call"),
    pair("tool_search_call", "tool_search_output", "tool search call"),
    pair("program", "program_output", "program"),
    pair("mcp_approval_request", "mcp_approval_response", "MCP approval request"),
];

/// What the vendor itself does in the course of an answer.
const HOSTED: [&str; 6] = [
    "web_search_call",
    "file_search_call",
    "code_interpreter_call",
    "image_generation_call",
    "mcp_call",
    "mcp_list_tools",
];

/// Neither said by anybody nor done.
const SETTINGS: [&str; 4] = ["compaction", "compaction_trigger", "additional_tools", "configuration_update"];

pub(super) fn check(request: &Value) -> Result<(), Rejection> {
    for (member, code) in
        [("previous_response_id", "previous_response_not_found"), ("conversation", "conversation_not_found")]
    {
        if is_there(request, member) {
            let word = if member == "conversation" { "Conversation" } else { "Previous response" };
            let id = request[member].as_str().or_else(|| request[member]["id"].as_str()).unwrap_or_default();
            return Err(Rejection::new(format!("{word} with id '{id}' not found.")).at(member).code(code));
        }
    }
    if overflow(request, Dialect::Responses).is_some() {
        let told =
            "Your input exceeds the context window of this model. Please adjust your input and try again.";
        return Err(about(told.to_owned()).code("context_length_exceeded"));
    }
    let items = match request.get("input") {
        Some(Value::String(_)) => return Ok(()),
        Some(Value::Array(items)) if !items.is_empty() => items,
        _ => {
            let missing = about("Missing required parameter: 'input'.".to_owned());
            return Err(missing.code("missing_required_parameter"));
        }
    };
    let mut ids = HashSet::new();
    for (n, item) in items.iter().enumerate() {
        known(n, item)?;
        if let Some(id) = strings(item, "id").filter(|_| !is_answer_by_id(item))
            && !ids.insert(id)
        {
            let told = format!(
                "Duplicate item found with id {id}. Remove duplicate items from your input and try again."
            );
            return Err(about(told));
        }
    }
    pairs(items)?;
    reasoning(items)
}

fn about(message: String) -> Rejection {
    Rejection::new(message).at("input")
}

/// An item's type. What has a role and no type is a message, what has neither refers to something stored.
fn kind(item: &Value) -> &str {
    let role = strings(item, "role");
    strings(item, "type").unwrap_or(if role.is_some() { "message" } else { "item_reference" })
}

fn known(n: usize, item: &Value) -> Result<(), Rejection> {
    let kind = kind(item);
    match kind {
        "message" => return message(n, item),
        "item_reference" => {
            let id = strings(item, "id").unwrap_or_default();
            return Err(about(format!(
                "Item with id '{id}' not found. Items are not persisted when `store` is set to false. Try again with \
                 `store` set to true, or remove this item from your input."
            )));
        }
        _ => {}
    }
    let paired = PAIRS.iter().any(|pair| [pair.call, pair.output].contains(&kind));
    if paired || kind == "reasoning" || HOSTED.contains(&kind) || SETTINGS.contains(&kind) {
        return Ok(());
    }
    let told = Rejection::new(format!("Invalid value: '{kind}'.")).at(format!("input[{n}]"));
    Err(told.code("invalid_value"))
}

fn message(n: usize, item: &Value) -> Result<(), Rejection> {
    let role = strings(item, "role").unwrap_or_default();
    let parts: &[&str] = match role {
        "assistant" => &["output_text", "refusal"],
        "user" | "system" | "developer" => &["input_text", "input_image", "input_file", "input_audio"],
        _ => {
            let told = format!(
                "Invalid value: '{role}'. Supported values are: 'assistant', 'system', 'developer', and 'user'."
            );
            return Err(Rejection::new(told).at(format!("input[{n}].role")).code("invalid_value"));
        }
    };
    if !matches!(item.get("content"), Some(Value::String(_) | Value::Array(_))) {
        let told = format!("Missing required parameter: 'input[{n}].content'.");
        let missing = Rejection::new(told).at(format!("input[{n}].content"));
        return Err(missing.code("missing_required_parameter"));
    }
    for (m, part) in elements(item, "content").iter().enumerate() {
        let kind = strings(part, "type").unwrap_or_default();
        if !parts.contains(&kind) {
            let supported: Vec<String> = parts.iter().map(|part| format!("'{part}'")).collect();
            let told = format!("Invalid value: '{kind}'. Supported values are: {}.", supported.join(", "));
            return Err(Rejection::new(told).at(format!("input[{n}].content[{m}]")).code("invalid_value"));
        }
    }
    Ok(())
}

/// What a call and its output have in common.
fn link<'r>(pair: &Pair, item: &'r Value, is_call: bool) -> Option<&'r str> {
    match (pair.call, is_call) {
        ("mcp_approval_request", true) => strings(item, "id"),
        ("mcp_approval_request", false) => strings(item, "approval_request_id"),
        // The reference gives its output no `call_id`, the guide does.
        ("local_shell_call", false) => strings(item, "call_id").or_else(|| strings(item, "id")),
        _ => strings(item, "call_id"),
    }
}

/// Whether an item's id is that of the call it answers.
fn is_answer_by_id(item: &Value) -> bool {
    kind(item) == "local_shell_call_output" && strings(item, "call_id").is_none()
}

/// Every output comes behind its call, and every call has its output.
fn pairs(items: &[Value]) -> Result<(), Rejection> {
    let mut open: Vec<(&Pair, &str)> = Vec::new();
    let mut answered: Vec<(&Pair, &str)> = Vec::new();
    for item in items {
        let kind = kind(item);
        let Some(pair) = PAIRS.iter().find(|pair| [pair.call, pair.output].contains(&kind)) else { continue };
        let is_call = pair.call == kind;
        let Some(link) = link(pair, item, is_call) else {
            // A search for tools that the vendor does itself.
            if pair.call == "tool_search_call" {
                continue;
            }
            let told = format!("Missing required parameter: 'call_id' of {kind}.");
            return Err(about(told).code("missing_required_parameter"));
        };
        if is_call {
            open.push((pair, link));
            continue;
        }
        let is_it = |(other, id): &(&Pair, &str)| other.call == pair.call && *id == link;
        if let Some(place) = open.iter().position(is_it) {
            answered.push(open.swap_remove(place));
        } else if !answered.iter().any(is_it) {
            return Err(about(format!("No tool call found for {} output with call_id {link}.", pair.word)));
        }
    }
    // Nobody has to answer whether something may be done.
    let waiting = open.iter().find(|(pair, _)| pair.call != "mcp_approval_request");
    waiting.map_or(Ok(()), |(pair, id)| Err(about(format!("No tool output found for {} {id}.", pair.word))))
}

/// Reasoning stands before what it led to, and what it led to stands behind it.
fn reasoning(items: &[Value]) -> Result<(), Rejection> {
    let mut thought = HashSet::new();
    let mut waiting: Option<&str> = None;
    for item in items {
        let kind = kind(item);
        if kind == "reasoning" {
            let id = strings(item, "id").unwrap_or_default();
            thought.insert(id);
            waiting = waiting.or(Some(id));
            continue;
        }
        if let Some(id) = waiting.take().filter(|_| !is_made_by_model(item)) {
            return Err(alone(id));
        }
        let id = strings(item, "id").unwrap_or_default();
        if let Some(reason) = reason_of(id).filter(|reason| !thought.contains(reason.as_str())) {
            return Err(about(format!(
                "Item '{id}' of type '{kind}' was provided without its required 'reasoning' item: '{reason}'."
            )));
        }
    }
    waiting.map_or(Ok(()), |id| Err(alone(id)))
}

fn alone(id: &str) -> Rejection {
    about(format!("Item '{id}' of type 'reasoning' was provided without its required following item."))
}

fn is_made_by_model(item: &Value) -> bool {
    let kind = kind(item);
    let called = PAIRS.iter().any(|pair| pair.call == kind);
    let said = kind == "message" && strings(item, "role") == Some("assistant");
    called || said || HOSTED.contains(&kind) || kind == "program_output" || kind == "tool_search_output"
}

/// The reasoning that an item was produced with. A vendor remembers it; here the item's id says so, and whoever plays
/// the vendor gives it one that does: `fc_rs1f_0` came out of `rs_1f`.
fn reason_of(id: &str) -> Option<String> {
    let name = id.split('_').nth(1)?.strip_prefix("rs")?;
    Some(format!("rs_{name}"))
}

/// The id of the n-th item that came out of this reasoning.
pub(crate) fn id_out_of(prefix: &str, reasoning: &str, n: usize) -> String {
    format!("{prefix}_{}_{n}", reasoning.replace('_', ""))
}
