//! Answers of Messages.

use serde_json::{Value, json};

use crate::Answer;
use crate::answer::{FUNCTION, Plan, THOUGHT, halves};

pub(crate) fn answer(request: &Value, plan: &Plan) -> Answer {
    let mut blocks = Vec::new();
    if let Some(signature) = &plan.thinking {
        blocks.push(json!({"type": "thinking", "thinking": THOUGHT, "signature": signature}));
    }
    for call in &plan.calls {
        blocks.push(json!({"type": "tool_use", "id": call.id, "name": FUNCTION, "input": call.arguments}));
    }
    if plan.calls.is_empty() {
        blocks.push(json!({"type": "text", "text": plan.text, "citations": null}));
    }
    let reason = if plan.calls.is_empty() { "end_turn" } else { "tool_use" };
    let mut message = json!({
        "id": format!("msg_{}", plan.number), "type": "message", "role": "assistant", "model": request["model"],
        "content": blocks, "stop_reason": reason, "stop_sequence": null, "usage": usage(plan),
    });
    if request["stream"] != true {
        return Answer::Whole(200, message);
    }
    message["content"] = json!([]);
    message["stop_reason"] = Value::Null;
    message["usage"]["output_tokens"] = json!(1);
    let mut events = vec![event("message_start", json!({"message": message})), event("ping", json!({}))];
    for (index, block) in blocks.into_iter().enumerate() {
        content(&mut events, index, block, plan);
    }
    let ended = json!({
        "delta": {"stop_reason": reason, "stop_sequence": null},
        "usage": {"output_tokens": plan.output_tokens, "input_tokens": plan.input_tokens},
    });
    events.push(event("message_delta", ended));
    events.push(event("message_stop", json!({})));
    Answer::Stream(events)
}

fn usage(plan: &Plan) -> Value {
    json!({
        "input_tokens": plan.input_tokens, "output_tokens": plan.output_tokens, "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0, "service_tier": "standard",
    })
}

fn event(name: &'static str, mut data: Value) -> (Option<&'static str>, String) {
    data["type"] = json!(name);
    (Some(name), data.to_string())
}

fn content(events: &mut Vec<(Option<&'static str>, String)>, index: usize, mut block: Value, plan: &Plan) {
    let input = block["input"].to_string();
    let (first, second) = halves(&input);
    let deltas: Vec<Value> = match block["type"].as_str() {
        Some("thinking") => vec![
            json!({"type": "thinking_delta", "thinking": block["thinking"].take()}),
            json!({"type": "signature_delta", "signature": block["signature"].take()}),
        ],
        Some("tool_use") => {
            ["", first, second].map(|piece| json!({"type": "input_json_delta", "partial_json": piece})).into()
        }
        _ => plan.pieces().map(|piece| json!({"type": "text_delta", "text": piece})).collect(),
    };
    // A block begins empty.
    for (member, nothing) in
        [("thinking", json!("")), ("signature", json!("")), ("input", json!({})), ("text", json!(""))]
    {
        if let Some(value) = block.get_mut(member) {
            *value = nothing;
        }
    }
    events.push(event("content_block_start", json!({"index": index, "content_block": block})));
    for delta in deltas {
        events.push(event("content_block_delta", json!({"index": index, "delta": delta})));
    }
    events.push(event("content_block_stop", json!({"index": index})));
}
