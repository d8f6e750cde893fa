//! What the demo's model answers: the shape of OpenAI's chat completions, the words of a parrot.
//!
//! It looks at the conversation the way the real one does where that matters here: a tool result without its call is
//! refused with 400, so a window that tore them apart would show as failed calls.

use std::collections::HashSet;

use bytes::Bytes;
use serde_json::{Value, json};

/// A chat call as far as the demo's model reads it.
#[derive(Debug)]
pub(super) struct Chat {
    /// Messages after the leading system and developer ones.
    pub(super) messages: usize,
    /// The answer is wanted as events.
    pub(super) streamed: bool,
    usage_wanted: bool,
    answer: String,
    prompt_tokens: usize,
}

impl Chat {
    /// Reads a call, or says what is wrong with it.
    pub(super) fn from_json(content: &[u8]) -> Result<Self, String> {
        let value: Value = serde_json::from_slice(content)
            .map_err(|error| format!("We could not parse the JSON: {error}"))?;
        let all = value.get("messages").and_then(Value::as_array).ok_or("Missing 'messages'.")?;
        let head = all.iter().take_while(|message| matches!(role(message), "system" | "developer")).count();
        let body = all.get(head..).unwrap_or_default();
        paired(body)?;
        let last = body.iter().rev().find(|message| role(message) == "user");
        let asked = last.and_then(|message| message.get("content")).and_then(Value::as_str).unwrap_or("");
        let asked = asked.lines().last().unwrap_or("");
        let flag = |value: Option<&Value>| value.and_then(Value::as_bool).unwrap_or(false);
        Ok(Self {
            messages: body.len(),
            streamed: flag(value.get("stream")),
            usage_wanted: flag(value.pointer("/stream_options/include_usage")),
            answer: format!(
                "You asked: {asked} Here is what our pages say about it, in short and without promise."
            ),
            prompt_tokens: content.len() / 4,
        })
    }

    fn usage(&self) -> Value {
        let completion = self.answer.len() / 4;
        json!({
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": completion,
            "total_tokens": self.prompt_tokens + completion,
        })
    }

    /// The whole answer as one object.
    pub(super) fn completion(&self, number: u64) -> Bytes {
        let completion = json!({
            "id": format!("chatcmpl-demo-{number}"),
            "object": "chat.completion",
            "created": 1_700_000_000,
            "model": "gpt-4o",
            "choices": [{
                "index": 0,
                "message": {"role": "assistant", "content": self.answer, "refusal": null},
                "logprobs": null,
                "finish_reason": "stop",
            }],
            "usage": self.usage(),
        });
        Bytes::from(completion.to_string())
    }

    /// The same answer as events, some words in each.
    pub(super) fn events(&self, number: u64) -> Vec<Bytes> {
        let chunk = |choices: Value, usage: Option<Value>| {
            let mut chunk = json!({
                "id": format!("chatcmpl-demo-{number}"),
                "object": "chat.completion.chunk",
                "created": 1_700_000_000,
                "model": "gpt-4o",
                "choices": choices,
            });
            if self.usage_wanted
                && let Some(members) = chunk.as_object_mut()
            {
                members.insert("usage".to_owned(), usage.unwrap_or(Value::Null));
            }
            Bytes::from(format!("data: {chunk}\n\n"))
        };
        let delta = |delta: Value, end: Option<&str>| {
            chunk(json!([{"index": 0, "delta": delta, "logprobs": null, "finish_reason": end}]), None)
        };
        let mut events = vec![delta(json!({"role": "assistant", "content": ""}), None)];
        let words: Vec<&str> = self.answer.split_inclusive(' ').collect();
        events.extend(words.chunks(4).map(|some| delta(json!({"content": some.concat()}), None)));
        events.push(delta(json!({}), Some("stop")));
        if self.usage_wanted {
            events.push(chunk(json!([]), Some(self.usage())));
        }
        events.push(Bytes::from_static(b"data: [DONE]\n\n"));
        events
    }
}

fn role(message: &Value) -> &str {
    message.get("role").and_then(Value::as_str).unwrap_or("")
}

/// Every tool result follows the call it answers, and every call is answered: OpenAI refuses anything else.
fn paired(messages: &[Value]) -> Result<(), String> {
    let mut open: HashSet<&str> = HashSet::new();
    for message in messages {
        if role(message) == "tool" {
            let id = message.get("tool_call_id").and_then(Value::as_str).unwrap_or("");
            if !open.remove(id) {
                return Err(
                    "Invalid parameter: messages with role 'tool' must be a response to a preceeding \
                            message with 'tool_calls'."
                        .to_owned(),
                );
            }
            continue;
        }
        if !open.is_empty() {
            break;
        }
        let calls = message.get("tool_calls").and_then(Value::as_array);
        open = calls.into_iter().flatten().filter_map(|call| call.get("id")?.as_str()).collect();
    }
    if open.is_empty() {
        return Ok(());
    }
    Err("An assistant message with 'tool_calls' must be followed by tool messages responding to each \
         'tool_call_id'."
        .to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chat(messages: &Value) -> Result<Chat, String> {
        let call = json!({"model": "m", "messages": messages, "stream_options": {"include_usage": true}});
        Chat::from_json(call.to_string().as_bytes())
    }

    #[test]
    fn the_head_is_not_counted() {
        let read = chat(&json!([
            {"role": "developer", "content": "a"},
            {"role": "system", "content": "b"},
            {"role": "user", "content": "c"},
            {"role": "system", "content": "d"},
        ]));
        assert_eq!(read.unwrap().messages, 2);
    }

    #[test]
    fn a_torn_tool_call_is_refused() {
        let user = json!({"role": "user", "content": "c"});
        let call = json!({"role": "assistant", "content": null, "tool_calls": [{"id": "1"}]});
        let result = json!({"role": "tool", "tool_call_id": "1", "content": "r"});
        assert!(chat(&json!([user, call, result])).is_ok());
        assert!(chat(&json!([user, result])).is_err());
        assert!(chat(&json!([user, call])).is_err());
        assert!(chat(&json!([user, call, user, result])).is_err());
    }

    #[test]
    fn events_say_what_the_object_says() {
        let read = chat(&json!([{"role": "user", "content": "Context\nWhy?"}])).unwrap();
        let object: Value = serde_json::from_slice(&read.completion(1)).unwrap();
        let mut text = String::new();
        let events = read.events(1);
        assert!(events.len() > 5);
        assert_eq!(events.last().unwrap().as_ref(), b"data: [DONE]\n\n");
        let mut usage = Value::Null;
        for event in events.iter().rev().skip(1).rev() {
            let json = event.strip_prefix(b"data: ").unwrap();
            let chunk: Value = serde_json::from_slice(json).unwrap();
            text += chunk["choices"][0]["delta"]["content"].as_str().unwrap_or("");
            usage = chunk["usage"].clone();
        }
        assert!(text.starts_with("You asked: Why?"), "{text}");
        assert_eq!(object["choices"][0]["message"]["content"], text);
        assert_eq!(object["usage"], usage);
    }
}
