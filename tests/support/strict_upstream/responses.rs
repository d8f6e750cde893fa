//! Answers of Responses.

use std::collections::HashMap;

use serde_json::{Value, json};

use crate::Answer;
use crate::answer::{CREATED, FUNCTION, Plan, THOUGHT, halves};
use crate::strict::{binding, id_out_of};

/// Puts what is stored here where a request refers to it. What is not stays, and is refused.
pub(crate) fn resolve(request: &mut Value, stored: &HashMap<String, Vec<Value>>) {
    let mut items = match request["input"].take() {
        Value::Array(items) => items,
        Value::String(text) => vec![json!({"role": "user", "content": text})],
        other => {
            request["input"] = other;
            return;
        }
    };
    let known: HashMap<&str, &Value> =
        stored.values().flatten().filter_map(|item| Some((item["id"].as_str()?, item))).collect();
    for item in &mut items {
        let refers = item["type"] == "item_reference" || (item["type"].is_null() && item["role"].is_null());
        if let Some(found) = item["id"].as_str().filter(|_| refers).and_then(|id| known.get(id)) {
            *item = (*found).clone();
        }
    }
    let before = request["previous_response_id"].as_str().and_then(|id| stored.get(id));
    if let Some(before) = before {
        items.splice(0..0, before.iter().cloned());
        request["previous_response_id"] = Value::Null;
    }
    request["input"] = Value::Array(items);
}

pub(crate) fn answer(request: &Value, plan: &Plan, stored: &mut HashMap<String, Vec<Value>>) -> Answer {
    let id = format!("resp_{}", plan.number);
    let output = output(plan);
    if request["store"] != false {
        let said = request["input"].as_array().into_iter().flatten().chain(&output);
        stored.insert(id.clone(), said.cloned().collect());
    }
    let whole = |status: &str, output: &[Value]| {
        let mut response = about(request, &id, plan);
        response["status"] = json!(status);
        response["output"] = json!(output);
        if status == "completed" {
            response["completed_at"] = json!(CREATED + 1);
            response["usage"] = usage(plan);
        }
        response
    };
    if request["stream"] != true {
        return Answer::Whole(200, whole("completed", &output));
    }
    let mut stream = Stream::default();
    stream.say("response.created", json!({"response": whole("in_progress", &[])}));
    stream.say("response.in_progress", json!({"response": whole("in_progress", &[])}));
    for (index, item) in output.iter().enumerate() {
        stream.item(index, item, plan);
    }
    stream.say("response.completed", json!({"response": whole("completed", &output)}));
    Answer::Stream(stream.events)
}

fn output(plan: &Plan) -> Vec<Value> {
    let reasoning = format!("rs_{}", plan.number);
    // What comes out of reasoning has an id that says so: the validator will want the two together.
    let id = |prefix: &str, n: usize| match plan.thinking {
        Some(_) => id_out_of(prefix, &reasoning, n),
        None => format!("{prefix}_{}_{n}", plan.number),
    };
    let mut output = Vec::new();
    if let Some(signature) = &plan.thinking {
        output.push(json!({
            "id": reasoning, "type": "reasoning", "summary": [{"type": "summary_text", "text": THOUGHT}],
            "encrypted_content": signature,
        }));
    }
    for (n, call) in plan.calls.iter().enumerate() {
        output.push(json!({
            "id": id("fc", n), "type": "function_call", "status": "completed", "call_id": call.id, "name": FUNCTION,
            "arguments": call.arguments.to_string(),
        }));
    }
    if plan.calls.is_empty() {
        output.push(json!({
            "id": id("msg", 0), "type": "message", "status": "completed", "role": "assistant",
            "content": [{"type": "output_text", "text": plan.text, "annotations": [], "logprobs": []}],
        }));
    }
    output
}

fn about(request: &Value, id: &str, plan: &Plan) -> Value {
    let given = |member: &str, otherwise: Value| match &request[member] {
        Value::Null => otherwise,
        given => given.clone(),
    };
    // What the vendor left out because its beginning is gone.
    let removed: Vec<Value> = binding::mismatches(request)
        .into_iter()
        .map(|id| json!({"type": "reasoning", "id": id, "action": "removed", "reason": "prefix_mismatch"}))
        .collect();
    json!({
        "id": id, "object": "response", "created_at": CREATED + plan.number, "status": "in_progress", "background": false,
        "error": null, "incomplete_details": null, "instructions": request["instructions"],
        "input_transformations": removed, "max_output_tokens": request["max_output_tokens"], "max_tool_calls": null,
        "metadata": given("metadata", json!({})), "model": request["model"], "output": [],
        "parallel_tool_calls": given("parallel_tool_calls", json!(true)), "previous_response_id": null,
        "prompt_cache_key": null, "reasoning": given("reasoning", json!({"effort": null, "summary": null})),
        "safety_identifier": null, "service_tier": "default", "store": given("store", json!(true)),
        "temperature": given("temperature", json!(1.0)), "text": given("text", json!({"format": {"type": "text"}})),
        "tool_choice": given("tool_choice", json!("auto")), "tools": given("tools", json!([])), "top_logprobs": 0,
        "top_p": given("top_p", json!(1.0)), "truncation": given("truncation", json!("disabled")), "usage": null,
        "user": null,
    })
}

fn usage(plan: &Plan) -> Value {
    json!({
        "input_tokens": plan.input_tokens, "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": plan.output_tokens,
        "output_tokens_details": {"reasoning_tokens": if plan.thinking.is_some() { THOUGHT.len() / 4 } else { 0 }},
        "total_tokens": plan.input_tokens + plan.output_tokens,
    })
}

#[derive(Default)]
struct Stream {
    events: Vec<(Option<&'static str>, String)>,
}

impl Stream {
    fn say(&mut self, name: &'static str, mut data: Value) {
        data["type"] = json!(name);
        data["sequence_number"] = json!(self.events.len());
        self.events.push((Some(name), data.to_string()));
    }

    /// One item, from its empty beginning to its end.
    fn item(&mut self, index: usize, item: &Value, plan: &Plan) {
        let mut empty = item.clone();
        let full = match item["type"].as_str() {
            Some("reasoning") => "summary",
            Some("message") => "content",
            _ => "arguments",
        };
        empty[full] = if full == "arguments" { json!("") } else { json!([]) };
        if full != "summary" {
            empty["status"] = json!("in_progress");
        }
        self.say("response.output_item.added", json!({"output_index": index, "item": empty}));
        match full {
            "summary" => self.summary(index, &item["id"]),
            "content" => self.text(index, &item["id"], plan),
            _ => self.arguments(index, item),
        }
        self.say("response.output_item.done", json!({"output_index": index, "item": item}));
    }

    fn summary(&mut self, index: usize, id: &Value) {
        let at = |more: Value| with(json!({"item_id": id, "output_index": index, "summary_index": 0}), more);
        let part = |text: &str| json!({"part": {"type": "summary_text", "text": text}});
        self.say("response.reasoning_summary_part.added", at(part("")));
        self.say("response.reasoning_summary_text.delta", at(json!({"delta": THOUGHT})));
        self.say("response.reasoning_summary_text.done", at(json!({"text": THOUGHT})));
        self.say("response.reasoning_summary_part.done", at(part(THOUGHT)));
    }

    fn text(&mut self, index: usize, id: &Value, plan: &Plan) {
        let at = |more: Value| with(json!({"item_id": id, "output_index": index, "content_index": 0}), more);
        let part = |text: &str| json!({"part": {"type": "output_text", "text": text, "annotations": [], "logprobs": []}});
        self.say("response.content_part.added", at(part("")));
        for piece in plan.pieces() {
            self.say("response.output_text.delta", at(json!({"delta": piece, "logprobs": []})));
        }
        self.say("response.output_text.done", at(json!({"text": plan.text, "logprobs": []})));
        self.say("response.content_part.done", at(part(&plan.text)));
    }

    fn arguments(&mut self, index: usize, item: &Value) {
        let at = |more: Value| with(json!({"item_id": item["id"], "output_index": index}), more);
        let arguments = item["arguments"].as_str().unwrap_or_default();
        let (first, second) = halves(arguments);
        for piece in [first, second] {
            self.say("response.function_call_arguments.delta", at(json!({"delta": piece})));
        }
        let done = json!({"arguments": arguments, "name": item["name"]});
        self.say("response.function_call_arguments.done", at(done));
    }
}

/// One object of two.
fn with(mut data: Value, more: Value) -> Value {
    if let (Value::Object(data), Value::Object(more)) = (&mut data, more) {
        data.extend(more);
    }
    data
}
