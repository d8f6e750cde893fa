//! A stream that begins with an error, which a status can no longer tell.
//!
//! Event streams: <https://html.spec.whatwg.org/multipage/server-sent-events.html>. Errors in them: OpenAI sends
//! `data: {"error":{...}}`, its Responses API an event of type `error`, Anthropic `event: error`
//! (<https://platform.claude.com/docs/en/build-with-claude/streaming#error-events>).

use serde::Deserialize;
use serde_json::Value;

/// What the beginning of a stream is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FirstEvent {
    /// No event is complete yet, but comments and pings.
    Unknown,
    /// An answer has begun.
    Content,
    /// An error, with the words that name it.
    Error(Vec<String>),
}

/// Errors that every attempt would meet.
const FINAL: [&str; 12] = [
    "authentication_error",
    "billing_error",
    "content_filter",
    "context_length_exceeded",
    "invalid_api_key",
    "invalid_prompt",
    "invalid_request_error",
    "model_not_found",
    "not_found_error",
    "permission_error",
    "request_too_large",
    "unsupported_value",
];

impl FirstEvent {
    /// Whether it names an error that another attempt would meet as well.
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Error(words) if words.iter().any(|word| FINAL.contains(&word.as_str())))
    }

    /// Whether it names one of these.
    pub fn names(&self, codes: &[String]) -> bool {
        matches!(self, Self::Error(words) if words.iter().any(|word| codes.contains(word)))
    }
}

/// Reads the beginning of an event stream as far as it is here.
pub fn first_event(mut text: &[u8]) -> FirstEvent {
    while let Some((event, rest)) = split(text) {
        text = rest;
        let found = read(event);
        if found != FirstEvent::Unknown {
            return found;
        }
    }
    FirstEvent::Unknown
}

/// The first event, up to its empty line, and what follows.
fn split(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut line = 0;
    for end in memchr::memchr_iter(b'\n', text) {
        let content = text.get(line..end)?;
        if content.is_empty() || content == b"\r" {
            return Some((text.get(..line)?, text.get(end + 1..)?));
        }
        line = end + 1;
    }
    None
}

fn read(event: &[u8]) -> FirstEvent {
    let (mut kind, mut data) = (&b""[..], Vec::new());
    for line in event.split(|byte| *byte == b'\n') {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if let Some(value) = field(line, b"event:") {
            kind = value;
        } else if let Some(value) = field(line, b"data:") {
            if !data.is_empty() {
                data.push(b'\n');
            }
            data.extend_from_slice(value);
        }
    }
    if kind == b"ping" || kind.is_empty() && data.is_empty() {
        return FirstEvent::Unknown;
    }
    // Most first events are content, and not read any further.
    if kind != b"error" && memchr::memmem::find(&data, b"\"error\"").is_none() {
        return FirstEvent::Content;
    }
    let told: Told = serde_json::from_slice(&data).unwrap_or_default();
    match told.error {
        Some(Named::Members { r#type, code }) => {
            FirstEvent::Error(word(r#type).into_iter().chain(word(code)).collect())
        }
        Some(Named::Text(text)) if !text.is_empty() => FirstEvent::Error(Vec::new()),
        // The Responses API has the code beside the type.
        None if kind == b"error" || told.r#type.as_ref().is_some_and(|kind| kind == "error") => {
            FirstEvent::Error(word(told.code).into_iter().collect())
        }
        Some(Named::Text(_)) | None => FirstEvent::Content,
    }
}

fn field<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let value = line.strip_prefix(name)?;
    Some(value.strip_prefix(b" ").unwrap_or(value))
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Told {
    r#type: Option<Value>,
    code: Option<Value>,
    error: Option<Named>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Named {
    Members {
        r#type: Option<Value>,
        code: Option<Value>,
    },
    /// Some say it in a sentence.
    Text(String),
}

/// A word, which some servers give as a number.
fn word(value: Option<Value>) -> Option<String> {
    match value? {
        Value::String(word) => Some(word),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(words: &[&str]) -> FirstEvent {
        FirstEvent::Error(words.iter().map(|word| (*word).to_owned()).collect())
    }

    #[test]
    fn a_table_of_beginnings() {
        for (text, expected) in [
            ("", FirstEvent::Unknown),
            (": comment\n\n", FirstEvent::Unknown),
            ("event: ping\ndata: {\"type\": \"ping\"}\n\n", FirstEvent::Unknown),
            ("data: {\"error\":{\"type\":\"x\"}}\n", FirstEvent::Unknown),
            ("data: {\"choices\":[]}\n\n", FirstEvent::Content),
            ("data: {\"error\":null,\"choices\":[]}\n\n", FirstEvent::Content),
            ("data: {\"delta\":\"say \\\"error\\\"\"}\n\n", FirstEvent::Content),
            ("data: [DONE]\n\n", FirstEvent::Content),
            (
                "event: response.created\ndata: {\"type\":\"response.created\",\"response\":{\"error\":null}}\n\n",
                FirstEvent::Content,
            ),
            (
                "data: {\"error\":{\"message\":\"m\",\"type\":\"server_error\",\"code\":null}}\n\n",
                error(&["server_error"]),
            ),
            (
                "data: {\"error\":{\"type\":\"tokens\",\"code\":\"rate_limit_exceeded\"}}\r\n\r\n",
                error(&["tokens", "rate_limit_exceeded"]),
            ),
            (
                "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"m\"}}\n\n",
                error(&["overloaded_error"]),
            ),
            (
                ": hello\n\nevent: ping\ndata: {}\n\nevent:error\ndata:{\"error\":\ndata:{\"type\":\"api_error\"}}\n\n",
                error(&["api_error"]),
            ),
            (
                "event: error\ndata: {\"type\":\"error\",\"code\":\"server_error\",\"message\":\"m\"}\n\n",
                error(&["server_error"]),
            ),
            (
                "data: {\"error\":{\"type\":\"invalid_request_error\",\"code\":400}}\n\n",
                error(&["invalid_request_error", "400"]),
            ),
            ("data: {\"error\":\"no\"}\n\n", error(&[])),
            ("data: {\"error\":\"\",\"choices\":[]}\n\n", FirstEvent::Content),
            ("event: error\ndata: oops\n\n", error(&[])),
            ("data: {\"error\":{\"type\":\"late\"}}\n\ndata: {\"choices\":[]}\n\n", error(&["late"])),
            ("data: {\"choices\":[]}\n\ndata: {\"error\":{\"type\":\"late\"}}\n\n", FirstEvent::Content),
        ] {
            assert_eq!(first_event(text.as_bytes()), expected, "{text:?}");
        }
    }

    #[test]
    fn some_errors_are_for_good() {
        assert!(error(&["invalid_request_error"]).is_final() && !error(&["overloaded_error"]).is_final());
        assert!(!error(&[]).is_final() && !FirstEvent::Content.is_final());
        let codes = ["insufficient_quota".to_owned()];
        assert!(error(&["x", "insufficient_quota"]).names(&codes) && !error(&["x"]).names(&codes));
    }
}
