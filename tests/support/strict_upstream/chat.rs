//! Answers of chat completions.

use serde_json::{Value, json};

use crate::Answer;
use crate::answer::{CREATED, FUNCTION, Plan, halves};

pub(crate) fn answer(request: &Value, plan: &Plan) -> Answer {
    let id = format!("chatcmpl-{}", plan.number);
    let usage = json!({
        "prompt_tokens": plan.input_tokens,
        "completion_tokens": plan.output_tokens,
        "total_tokens": plan.input_tokens + plan.output_tokens,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": 0, "audio_tokens": 0, "accepted_prediction_tokens": 0, "rejected_prediction_tokens": 0,
        },
    });
    // A bot that knows functions and no tools gets a call of the old kind, of which there is one at a time.
    let old = request["functions"].is_array() && !request["tools"].is_array();
    let (calls, reason) = match (plan.calls.is_empty(), old) {
        (true, _) => (Vec::new(), "stop"),
        (false, true) => (Vec::new(), "function_call"),
        (false, false) => (calls(plan), "tool_calls"),
    };
    let mut message = json!({"role": "assistant", "content": null, "refusal": null});
    match reason {
        "stop" => {
            message["content"] = json!(plan.text);
            message["annotations"] = json!([]);
        }
        "function_call" => message["function_call"] = function(plan, 0),
        _ => message["tool_calls"] = json!(calls),
    }
    if request["stream"] == true {
        return stream(request, plan, &id, &message, reason, &usage);
    }
    let choice = json!({"index": 0, "message": message, "logprobs": null, "finish_reason": reason});
    let mut whole = about(request, &id, "chat.completion");
    whole["choices"] = json!([choice]);
    whole["usage"] = usage;
    Answer::Whole(200, whole)
}

fn about(request: &Value, id: &str, object: &str) -> Value {
    json!({
        "id": id, "object": object, "created": CREATED, "model": request["model"], "service_tier": "default",
        "system_fingerprint": "fp_strict",
    })
}

fn function(plan: &Plan, n: usize) -> Value {
    json!({"name": FUNCTION, "arguments": plan.calls.get(n).map_or_else(String::new, |call| call.arguments.to_string())})
}

fn calls(plan: &Plan) -> Vec<Value> {
    let calls = plan.calls.iter().enumerate();
    calls.map(|(n, call)| json!({"id": call.id, "type": "function", "function": function(plan, n)})).collect()
}

fn stream(request: &Value, plan: &Plan, id: &str, message: &Value, reason: &str, usage: &Value) -> Answer {
    let with_usage = request["stream_options"]["include_usage"] == true;
    let mut events = Vec::new();
    let mut chunk = |choices: Value, usage: Option<&Value>| {
        let mut chunk = about(request, id, "chat.completion.chunk");
        chunk["choices"] = choices;
        if with_usage {
            chunk["usage"] = usage.cloned().unwrap_or(Value::Null);
        }
        events.push((None, chunk.to_string()));
    };
    let mut delta = |delta: Value, reason: Option<&str>| {
        let choice = json!({"index": 0, "delta": delta, "logprobs": null, "finish_reason": reason});
        chunk(json!([choice]), None);
    };
    match reason {
        "stop" => {
            delta(json!({"role": "assistant", "content": "", "refusal": null}), None);
            for piece in plan.pieces() {
                delta(json!({"content": piece}), None);
            }
        }
        "function_call" => {
            let name = &message["function_call"]["name"];
            let (first, second) = halves(message["function_call"]["arguments"].as_str().unwrap_or_default());
            delta(
                json!({"role": "assistant", "content": null, "function_call": {"name": name, "arguments": ""}}),
                None,
            );
            for piece in [first, second] {
                delta(json!({"function_call": {"arguments": piece}}), None);
            }
        }
        _ => {
            delta(json!({"role": "assistant", "content": null}), None);
            for (n, call) in message["tool_calls"].as_array().into_iter().flatten().enumerate() {
                let (first, second) = halves(call["function"]["arguments"].as_str().unwrap_or_default());
                let begun = json!({
                    "index": n, "id": call["id"], "type": "function", "function": {"name": FUNCTION, "arguments": ""},
                });
                delta(json!({"tool_calls": [begun]}), None);
                for piece in [first, second] {
                    delta(json!({"tool_calls": [{"index": n, "function": {"arguments": piece}}]}), None);
                }
            }
        }
    }
    delta(json!({}), Some(reason));
    if with_usage {
        chunk(json!([]), Some(usage));
    }
    events.push((None, "[DONE]".to_owned()));
    Answer::Stream(events)
}
