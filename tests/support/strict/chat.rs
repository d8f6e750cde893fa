//! The rules of chat completions.

use serde_json::Value;

use super::{Dialect, Rejection, elements, is_there, overflow, strings};

const ROLES: [&str; 6] = ["system", "assistant", "user", "function", "tool", "developer"];

/// Models that have never known functions, only tools.
const WITHOUT_FUNCTIONS: [&str; 4] = ["o1", "o3", "o4", "gpt-5"];

/// Calls that wait for their answers.
struct Open<'r> {
    ids: Vec<&'r str>,
    answered: Vec<&'r str>,
}

pub(super) fn check(request: &Value) -> Result<(), Rejection> {
    let messages = match request.get("messages") {
        Some(Value::Array(messages)) if !messages.is_empty() => messages,
        Some(Value::Array(_)) => return Err(empty("messages")),
        _ => {
            let missing = Rejection::new("Missing required parameter: 'messages'.").at("messages");
            return Err(missing.code("missing_required_parameter"));
        }
    };
    if let Some((tokens, room)) = overflow(request, Dialect::Chat) {
        let told = format!(
            "This model's maximum context length is {room} tokens. However, your messages resulted in {tokens} tokens. \
             Please reduce the length of the messages."
        );
        return Err(Rejection::new(told).at("messages").code("context_length_exceeded"));
    }
    let model = strings(request, "model").unwrap_or_default();
    let mut open: Option<Open<'_>> = None;
    let mut function_called = false;
    for (n, message) in messages.iter().enumerate() {
        let role = role(n, message)?;
        if role != "tool" {
            all_answered(open.take().as_ref(), n)?;
        }
        match role {
            "tool" => answer(open.as_mut(), n, message)?,
            "function" => function(n, message, model, function_called)?,
            "assistant" => open = calls(n, message)?,
            _ => content(n, message)?,
        }
        function_called = role == "assistant" && is_there(message, "function_call");
    }
    all_answered(open.as_ref(), messages.len())
}

fn role(n: usize, message: &Value) -> Result<&str, Rejection> {
    let role = strings(message, "role");
    role.filter(|role| ROLES.contains(role)).ok_or_else(|| {
        let role = message.get("role").map(Value::to_string).unwrap_or_default();
        let supported = ROLES.map(|role| format!("'{role}'")).join(", ");
        Rejection::new(format!(
            "Invalid value: '{}'. Supported values are: {supported}.",
            role.trim_matches('"')
        ))
        .at(format!("messages[{n}].role"))
        .code("invalid_value")
    })
}

/// The calls that an assistant's message makes.
fn calls(n: usize, message: &Value) -> Result<Option<Open<'_>>, Rejection> {
    if !is_there(message, "tool_calls") {
        if !is_there(message, "function_call") && !is_there(message, "refusal") && !is_there(message, "audio")
        {
            content(n, message)?;
        }
        return Ok(None);
    }
    let calls = elements(message, "tool_calls");
    if calls.is_empty() {
        return Err(empty(&format!("messages[{n}].tool_calls")));
    }
    let mut ids = Vec::with_capacity(calls.len());
    for (m, call) in calls.iter().enumerate() {
        let missing = || {
            let at = format!("messages[{n}].tool_calls[{m}].id");
            let told = Rejection::new(format!("Missing required parameter: '{at}'.")).at(at);
            told.code("missing_required_parameter")
        };
        ids.push(strings(call, "id").ok_or_else(missing)?);
    }
    Ok(Some(Open { ids, answered: Vec::new() }))
}

fn answer<'r>(open: Option<&mut Open<'r>>, n: usize, message: &'r Value) -> Result<(), Rejection> {
    let Some(open) = open else {
        let told = "Invalid parameter: messages with role 'tool' must be a response to a preceding message with 'tool_calls'.";
        return Err(Rejection::new(told).at(format!("messages.[{n}].role")));
    };
    content(n, message)?;
    let id = strings(message, "tool_call_id").unwrap_or_default();
    if !open.ids.contains(&id) {
        let told = format!(
            "Invalid parameter: 'tool_call_id' of '{id}' not found in 'tool_calls' of previous message."
        );
        return Err(Rejection::new(told).at(format!("messages.[{n}].tool_call_id")));
    }
    open.answered.push(id);
    Ok(())
}

fn all_answered(open: Option<&Open<'_>>, n: usize) -> Result<(), Rejection> {
    let Some(open) = open else { return Ok(()) };
    let waiting: Vec<&str> = open.ids.iter().copied().filter(|id| !open.answered.contains(id)).collect();
    if waiting.is_empty() {
        return Ok(());
    }
    let told = format!(
        "An assistant message with 'tool_calls' must be followed by tool messages responding to each 'tool_call_id'. \
         The following tool_call_ids did not have response messages: {}",
        waiting.join(", ")
    );
    Err(Rejection::new(told).at(format!("messages.[{n}].role")))
}

fn function(n: usize, message: &Value, model: &str, called: bool) -> Result<(), Rejection> {
    if WITHOUT_FUNCTIONS.iter().any(|family| model.starts_with(family)) {
        let told =
            format!("Unsupported value: 'messages[{n}].role' does not support 'function' with this model.");
        return Err(Rejection::new(told).at(format!("messages[{n}].role")).code("unsupported_value"));
    }
    if strings(message, "name").is_none_or(str::is_empty) {
        let told = "Missing parameter 'name': messages with role 'function' must have a 'name'.";
        return Err(Rejection::new(told).at(format!("messages.[{n}].name")));
    }
    if !called {
        // Said to be let pass by older models; it means nothing to any.
        let told = "Invalid parameter: messages with role 'function' must be a response to a preceding message with \
                    'function_call'.";
        return Err(Rejection::new(told).at(format!("messages.[{n}].role")));
    }
    Ok(())
}

fn content(n: usize, message: &Value) -> Result<(), Rejection> {
    let at = format!("messages[{n}].content");
    match message.get("content") {
        Some(Value::Array(parts)) if parts.is_empty() => Err(empty(&at)),
        Some(Value::String(_) | Value::Array(_)) => Ok(()),
        _ => {
            let told = "Invalid value for 'content': expected a string, got null.";
            Err(Rejection::new(told).at(format!("messages.[{n}].content")))
        }
    }
}

fn empty(at: &str) -> Rejection {
    let told = format!(
        "Invalid '{at}': empty array. Expected an array with minimum length 1, but got an empty array instead."
    );
    Rejection::new(told).at(at).code("empty_array")
}
