//! Tokens, read from the `usage` of an answer while it passes.
//!
//! Chunks are kept by handle, never copied or delayed. What is larger than the bounds here is not counted; nothing on
//! this page may ever change or hold up a byte.

use std::sync::LazyLock;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, header};
use memchr::memmem::Finder;
use serde::Deserialize;

use crate::metrics::Usage;

/// A JSON answer larger than this is not read for usage, in bytes.
const MAX_JSON: usize = 1024 * 1024;
/// An event larger than this is not read for usage, in bytes.
const MAX_EVENT: usize = 64 * 1024;
/// Made once: every event of every stream is searched for it.
static USAGE: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\"usage\""));

/// Reads an answer for its usage.
#[derive(Debug)]
pub enum Reader {
    /// One JSON document.
    Json {
        /// What has passed.
        chunks: Vec<Bytes>,
        /// Bytes in `chunks`.
        len: usize,
    },
    /// Server-sent events (<https://html.spec.whatwg.org/multipage/server-sent-events.html>).
    Events {
        /// A line that is not complete yet.
        line: BytesMut,
        /// What has been read so far.
        usage: Usage,
    },
}

impl Reader {
    /// A reader for an answer with these headers, if it is of a kind that tells usage.
    pub fn new(headers: &HeaderMap) -> Option<Self> {
        if headers.contains_key(header::CONTENT_ENCODING) {
            return None;
        }
        let media = headers.get(header::CONTENT_TYPE)?.as_bytes();
        if media.starts_with(b"application/json") {
            Some(Reader::Json { chunks: Vec::new(), len: 0 })
        } else if media.starts_with(b"text/event-stream") {
            Some(Reader::Events { line: BytesMut::new(), usage: Usage::default() })
        } else {
            None
        }
    }

    /// A chunk passes.
    pub fn pass(&mut self, chunk: &Bytes) {
        match self {
            Reader::Json { chunks, len } => {
                *len += chunk.len();
                if *len <= MAX_JSON {
                    chunks.push(chunk.clone());
                } else {
                    chunks.clear();
                }
            }
            Reader::Events { line, usage } => {
                // Nearly every chunk: whole lines, and nothing in them.
                if line.is_empty() && chunk.ends_with(b"\n") && USAGE.find(chunk).is_none() {
                    return;
                }
                let mut rest: &[u8] = chunk;
                while let Some(end) = memchr::memchr(b'\n', rest) {
                    let (head, tail) = rest.split_at(end);
                    if line.is_empty() {
                        read_line(head, usage);
                    } else {
                        line.extend_from_slice(head);
                        read_line(line, usage);
                        line.clear();
                    }
                    rest = tail.get(1..).unwrap_or_default();
                }
                if line.len() + rest.len() <= MAX_EVENT {
                    line.extend_from_slice(rest);
                }
            }
        }
    }

    /// What the answer told, once all of it has passed.
    pub fn finish(self) -> Usage {
        match self {
            Reader::Events { usage, .. } => usage,
            Reader::Json { chunks, len } if len <= MAX_JSON => {
                let mut usage = Usage::default();
                match chunks.as_slice() {
                    [one] => read_json(one, &mut usage),
                    many => read_json(&many.concat(), &mut usage),
                }
                usage
            }
            Reader::Json { .. } => Usage::default(),
        }
    }
}

/// The answers of OpenAI (chat, embeddings, responses) and Anthropic, as far as they tell usage.
#[derive(Deserialize)]
struct Answer {
    usage: Option<Told>,
    /// Anthropic's `message_start`.
    message: Option<Nested>,
    /// OpenAI Responses' `response.completed`.
    response: Option<Nested>,
}

#[derive(Deserialize)]
struct Nested {
    usage: Option<Told>,
}

#[derive(Deserialize)]
struct Told {
    prompt_tokens: Option<u64>,
    completion_tokens: Option<u64>,
    prompt_tokens_details: Option<Details>,
    input_tokens: Option<u64>,
    output_tokens: Option<u64>,
    input_tokens_details: Option<Details>,
    /// Anthropic counts these beside `input_tokens`.
    cache_read_input_tokens: Option<u64>,
    cache_creation_input_tokens: Option<u64>,
}

#[derive(Deserialize)]
struct Details {
    cached_tokens: Option<u64>,
}

fn read_line(line: &[u8], usage: &mut Usage) {
    if let Some(data) = line.strip_prefix(b"data:")
        && USAGE.find(data).is_some()
    {
        read_json(data, usage);
    }
}

/// Later numbers replace earlier ones: stream events count up.
fn read_json(json: &[u8], usage: &mut Usage) {
    let Ok(answer) = serde_json::from_slice::<Answer>(json) else { return };
    let nested = answer.message.or(answer.response).and_then(|nested| nested.usage);
    let Some(told) = answer.usage.or(nested) else { return };
    let details = told.prompt_tokens_details.or(told.input_tokens_details);
    let beside = told
        .cache_read_input_tokens
        .unwrap_or(0)
        .saturating_add(told.cache_creation_input_tokens.unwrap_or(0));
    if let Some(prompt) = told.prompt_tokens.or(told.input_tokens.map(|input| input.saturating_add(beside))) {
        usage.prompt = prompt;
    }
    if let Some(completion) = told.completion_tokens.or(told.output_tokens) {
        usage.completion = completion;
    }
    if let Some(cached) = details.and_then(|d| d.cached_tokens).or(told.cache_read_input_tokens) {
        usage.cached = cached;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(media: &str, chunks: &[&str]) -> Usage {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, media.parse().unwrap());
        let mut reader = Reader::new(&headers).unwrap();
        for chunk in chunks {
            reader.pass(&Bytes::copy_from_slice(chunk.as_bytes()));
        }
        reader.finish()
    }

    fn usage(prompt: u64, completion: u64, cached: u64) -> Usage {
        Usage { prompt, completion, cached }
    }

    #[test]
    fn answers_of_each_dialect() {
        let json = "application/json; charset=utf-8";
        let chat = r#"{"choices":[{"message":{"content":"\"usage\""}}],"usage":{"prompt_tokens":9,"completion_tokens":3,
            "prompt_tokens_details":{"cached_tokens":4}}}"#;
        assert_eq!(read(json, &[chat]), usage(9, 3, 4));
        assert_eq!(read(json, &[&chat[..40], &chat[40..]]), usage(9, 3, 4));
        assert_eq!(read(json, &[r#"{"usage":{"prompt_tokens":5,"total_tokens":5}}"#]), usage(5, 0, 0));
        assert_eq!(
            read(json, &[r#"{"usage":{"input_tokens":2,"cache_read_input_tokens":7,"output_tokens":1}}"#]),
            usage(9, 1, 7)
        );
        assert_eq!(read(json, &["not json"]), Usage::default());
        assert_eq!(read(json, &[r#"{"usage":null}"#]), Usage::default());
    }

    #[test]
    fn streams_of_each_dialect_cut_anywhere() {
        let openai = "data: {\"choices\":[{}],\"usage\":null}\n\ndata: {\"choices\":[],\"usage\":{\"prompt_tokens\":11,\
            \"completion_tokens\":7}}\n\ndata: [DONE]\n\n";
        let anthropic = "event: message_start\r\ndata: {\"message\":{\"usage\":{\"input_tokens\":3,\"output_tokens\":1}}}\r\n\r\n\
            event: message_delta\r\ndata: {\"usage\":{\"output_tokens\":20}}\r\n\r\n";
        for (stream, expected) in [(openai, usage(11, 7, 0)), (anthropic, usage(3, 20, 0))] {
            for cut in 0..stream.len() {
                assert_eq!(
                    read("text/event-stream", &[&stream[..cut], &stream[cut..]]),
                    expected,
                    "cut at {cut}"
                );
            }
        }
    }

    #[test]
    fn what_is_too_large_is_not_kept() {
        let big = "x".repeat(MAX_JSON);
        let mut reader = Reader::Json { chunks: Vec::new(), len: 0 };
        reader.pass(&Bytes::from(big));
        reader.pass(&Bytes::from_static(b"{}"));
        assert!(matches!(&reader, Reader::Json { chunks, .. } if chunks.is_empty()));
        assert_eq!(reader.finish(), Usage::default());
    }
}
