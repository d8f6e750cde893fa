//! The requests that stand for the classes.

use std::fmt::Write;

use crate::support::Answer;

/// The classes, as the design names them: the columns of the matrix.
pub(super) const CLASSES: [&str; 6] =
    ["search", "embedding", "write by id", "chat", "chat that leaves state", "other"];

/// How its content is framed and told.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Content {
    /// JSON that is read whole before the head goes out.
    Held,
    /// JSON that is passed on as it comes.
    Streamed,
    /// Events as OpenAI writes them.
    OpenAi,
    /// Events as Anthropic writes them.
    Anthropic,
}

/// A request that succeeds, unless something happens to it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ask {
    /// Index into [`CLASSES`].
    pub(super) class: usize,
    pub(super) preset: &'static str,
    /// In place of the preset's rules.
    pub(super) rules: &'static str,
    pub(super) target: &'static str,
    pub(super) body: &'static str,
    pub(super) content: Content,
}

const VECTOR: &str = r#"{"vector":[0.5],"topK":3}"#;
const TEXT: &str = r#"{"model":"m","input":"a"}"#;
const STREAM: &str = r#"{"model":"m","stream":true,"messages":[{"role":"user","content":"a"}]}"#;
const STORE: &str = r#"{"model":"m","store":true,"stream":true,"messages":[{"role":"user","content":"a"}]}"#;

const POST: Ask = Ask {
    class: 5,
    preset: "openai",
    rules: "",
    target: "/v1/images/generations",
    body: r#"{"prompt":"a"}"#,
    content: Content::Streamed,
};
const UPSTASH: Ask = Ask { preset: "upstash-vector", body: VECTOR, content: Content::Held, ..POST };
const CHAT_ASK: Ask = Ask { class: 3, target: "/v1/chat/completions", ..POST };
/// A store behind a provider's gateway: only the providers' presets know what a 429 about billing looks like.
const GATEWAY: &str = "[{name: find, methods: [POST], path: ^/find$, operation: search, action: cache, scope: ['*']}, \
                       {name: put, path: ^/put$, operation: write, action: invalidate, scope: ['*'], idempotent: true}]";

/// Of each class the first to which a failure can happen stands for all; `retries` has others of each.
pub(super) const ASKS: [Ask; 9] = [
    Ask { class: 0, target: "/query", ..UPSTASH },
    Ask { class: 0, target: "/find", rules: GATEWAY, content: Content::Held, ..POST },
    Ask { class: 1, target: "/v1/embeddings", body: TEXT, content: Content::Held, ..POST },
    Ask { class: 2, target: "/upsert/ns", body: r#"{"id":"a","vector":[0.5]}"#, ..UPSTASH },
    Ask { class: 2, target: "/put", rules: GATEWAY, content: Content::Held, ..POST },
    Ask { body: STREAM, content: Content::OpenAi, ..CHAT_ASK },
    Ask {
        preset: "anthropic",
        target: "/v1/messages",
        body: STREAM,
        content: Content::Anthropic,
        ..CHAT_ASK
    },
    Ask { class: 4, body: STORE, content: Content::OpenAi, ..CHAT_ASK },
    POST,
];

impl Ask {
    /// The preset knows codes of billing.
    pub(super) fn bills(&self) -> bool {
        self.preset != "upstash-vector"
    }

    pub(super) fn is_stream(&self) -> bool {
        matches!(self.content, Content::OpenAi | Content::Anthropic)
    }

    /// What its upstream says when all is well.
    pub(super) fn success(&self) -> Answer {
        match self.content {
            Content::Held | Content::Streamed => Answer::ok(
                r#"{"object":"list","result":[{"id":"a","score":0.5}],"data":[{"object":"embedding","index":0,"embedding":[0.5]}]}"#,
            ),
            Content::OpenAi => stream(&[
                r#"data: {"choices":[{"index":0,"delta":{"role":"assistant","content":"a"}}]}"#,
                r#"data: {"choices":[{"index":0,"delta":{"content":"b"}}]}"#,
                "data: [DONE]",
            ]),
            Content::Anthropic => stream(&[
                "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"role\":\"assistant\"}}",
                "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0}",
                "event: message_stop\ndata: {\"type\":\"message_stop\"}",
            ]),
        }
    }

    /// A stream that says this in place of its first event, or behind it.
    pub(super) fn error_event(&self, kind: &str, later: bool) -> Answer {
        let error = if self.content == Content::Anthropic {
            // https://docs.anthropic.com/en/api/errors
            let kind = match kind {
                "server_error" => "overloaded_error",
                "insufficient_quota" => "billing_error",
                other => other,
            };
            format!(
                "event: error\ndata: {{\"type\":\"error\",\"error\":{{\"type\":\"{kind}\",\"message\":\"m\"}}}}"
            )
        } else {
            format!(r#"data: {{"error":{{"message":"m","type":"{kind}","param":null,"code":null}}}}"#)
        };
        let first = if self.content == Content::Anthropic {
            "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"role\":\"assistant\"}}"
        } else {
            r#"data: {"choices":[{"index":0,"delta":{"role":"assistant","content":"a"}}]}"#
        };
        if later { stream(&[first, &error]) } else { stream(&[&error]) }
    }

    /// A route `r0`, `r1` and so on to this upstream, with these lines of its own.
    pub(super) fn route(&self, number: usize, upstream: &str, lines: &[&str]) -> String {
        let mut yaml = format!("  - name: r{number}\n    path: /{number}\n    upstream: '{upstream}'\n");
        writeln!(yaml, "    preset: {}", self.preset).unwrap();
        if !self.rules.is_empty() {
            writeln!(yaml, "    rules: {}", self.rules).unwrap();
        }
        for line in lines {
            writeln!(yaml, "    {line}").unwrap();
        }
        yaml
    }
}

fn stream(events: &[&str]) -> Answer {
    let events: Vec<String> = events.iter().map(|event| format!("{event}\n\n")).collect();
    Answer::chunked(200, &[("content-type", "text/event-stream")], &events)
}
