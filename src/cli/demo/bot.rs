//! The scripted bot. It knows two base URLs and nothing of Pillion; it does not retry.
//!
//! A turn: perhaps a write, then a search, then a chat call with the whole history. A call that fails is counted and
//! the turn goes on without it, as bots do. The history keeps what the bot would keep, so it grows without bound.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::checker::Checker;
use super::traffic::{Script, Turn, Write};
use crate::cli::http::{self as client, Answer, Base, Connection};

const SYSTEM: &str = "You are the assistant of a bicycle shop. Answer briefly, in the customer's language, from the \
                      context given with the question. If the context does not hold the answer, say so and offer to \
                      pass the question on. Never invent prices, dates or promises.";

/// What becomes of a failed chat call in the history.
const SORRY: &str = "Sorry, I cannot answer right now. Please try again.";

/// Where the bot's calls go: the only thing that differs between the two runs.
#[derive(Clone, Debug)]
pub(super) struct Target {
    /// What the bot's environment calls `OPENAI_BASE_URL`.
    pub(super) chat: Base,
    /// What it calls `UPSTASH_VECTOR_REST_URL`.
    pub(super) vector: Base,
}

/// How a search ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// Answered from Pillion's store.
    Hit,
    /// Answered by the index.
    Miss,
    /// Not answered.
    Failed,
}

/// What one turn came to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Record {
    /// From the search's sending to the chat's last byte.
    pub(super) answer: Duration,
    /// The search alone.
    pub(super) search: Duration,
    /// How the search ended.
    pub(super) found: Found,
    /// The chat call failed.
    pub(super) chat_failed: bool,
    /// There was a write, and whether it failed.
    pub(super) write_failed: Option<bool>,
}

/// Plays the whole script; `turns` counts along for whoever watches.
pub(super) async fn play(
    script: &Script,
    target: &Target,
    checker: &Arc<Checker>,
    turns: &Arc<AtomicUsize>,
) -> Vec<Record> {
    let mut conversations = JoinSet::new();
    for (number, conversation) in script.conversations.iter().enumerate() {
        let mut bot = Conversation::new(number, target, Arc::clone(checker));
        let conversation = conversation.clone();
        let turns = Arc::clone(turns);
        conversations.spawn(async move {
            let mut records = Vec::with_capacity(conversation.len());
            for turn in &conversation {
                records.push(bot.turn(turn).await);
                turns.fetch_add(1, Ordering::Relaxed);
            }
            records
        });
    }
    conversations.join_all().await.into_iter().flatten().collect()
}

struct Conversation {
    number: usize,
    chat: Connection,
    vector: Connection,
    checker: Arc<Checker>,
    history: Vec<Value>,
    turns: usize,
}

impl Conversation {
    fn new(number: usize, target: &Target, checker: Arc<Checker>) -> Self {
        Self {
            number,
            chat: Connection::new(target.chat.clone()),
            vector: Connection::new(target.vector.clone()),
            checker,
            history: vec![json!({"role": "system", "content": SYSTEM})],
            turns: 0,
        }
    }

    async fn turn(&mut self, turn: &Turn) -> Record {
        self.turns += 1;
        tokio::time::sleep(turn.pause).await;
        let write_failed = match &turn.write {
            Some(write) => Some(!self.write(write).await),
            None => None,
        };
        let start = Instant::now();
        let (found, context) = self.search(turn).await;
        let search = start.elapsed();
        let said = self.chat(turn, &context).await;
        let answer = start.elapsed();
        let chat_failed = said.is_none();
        let said = said.unwrap_or_else(|| SORRY.to_owned());
        self.history.push(json!({"role": "assistant", "content": said}));
        Record { answer, search, found, chat_failed, write_failed }
    }

    async fn write(&mut self, write: &Write) -> bool {
        let path = format!("/upsert-data/{}", write.namespace);
        let content = json!([{"id": write.id, "data": write.data, "metadata": {"section": write.namespace}}]);
        let answer = ask(&mut self.vector, &path, Bytes::from(content.to_string())).await;
        self.checker.wrote(write.namespace, &write.id);
        answer.is_some()
    }

    /// Searches, checks the answer, and says what the model is to be told.
    async fn search(&mut self, turn: &Turn) -> (Found, String) {
        let path = format!("/query-data/{}", turn.namespace);
        // Member for member what upstash-vector for Python sends.
        let content = Bytes::from(
            json!({
                "topK": 3,
                "includeVectors": false,
                "includeMetadata": true,
                "includeData": true,
                "filter": "",
                "data": turn.question,
            })
            .to_string(),
        );
        let issued = self.checker.issued(turn.namespace);
        let Some(answer) = ask(&mut self.vector, &path, content.clone()).await else {
            return (Found::Failed, String::new());
        };
        self.checker.check(turn.namespace, &content, issued, &answer.content);
        let hit = answer.headers.get("cache-status").and_then(|value| value.to_str().ok());
        let hit = hit.is_some_and(|value| value.contains("pillion; hit"));
        (if hit { Found::Hit } else { Found::Miss }, context(&answer.content))
    }

    /// Sends the whole history with the question; what the model said, unless the call failed.
    async fn chat(&mut self, turn: &Turn, context: &str) -> Option<String> {
        let mut messages = self.history.clone();
        if turn.tool {
            let found = self.tool_call(turn, context);
            messages.push(json!({"role": "user", "content": turn.question}));
            messages.extend(found.iter().cloned());
            self.history.push(json!({"role": "user", "content": turn.question}));
            self.history.extend(found);
        } else {
            // The context helps with this question only; the history keeps what the person said.
            let with_context = format!("Context: {context}\n{}", turn.question);
            messages.push(json!({"role": "user", "content": with_context}));
            self.history.push(json!({"role": "user", "content": turn.question}));
        }
        let mut call =
            json!({"model": "gpt-4o", "messages": messages, "temperature": 0.7, "max_tokens": 2000});
        if turn.streamed
            && let Some(members) = call.as_object_mut()
        {
            members.insert("stream".to_owned(), json!(true));
            members.insert("stream_options".to_owned(), json!({"include_usage": true}));
        }
        let answer = ask(&mut self.chat, "/chat/completions", Bytes::from(call.to_string())).await?;
        if turn.streamed { streamed_text(&answer.content) } else { text(&answer.content) }
    }

    /// The search as the model would have asked for it: a call and its result, which no window may separate.
    fn tool_call(&self, turn: &Turn, context: &str) -> [Value; 2] {
        let id = format!("call_{}_{}", self.number, self.turns);
        let arguments = json!({"query": turn.question}).to_string();
        let function = json!({"name": "search_documents", "arguments": arguments});
        [
            json!({
                "role": "assistant",
                "content": null,
                "tool_calls": [{"id": id, "type": "function", "function": function}],
            }),
            json!({"role": "tool", "tool_call_id": id, "content": context}),
        ]
    }
}

/// One POST without retries; `None` when it failed for the bot in any way.
async fn ask(connection: &mut Connection, path: &str, content: Bytes) -> Option<Answer> {
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::AUTHORIZATION, HeaderValue::from_static("Bearer demo"));
    let response = connection.send(Method::POST, path, headers, content).await.ok()?;
    let answer = client::read(response).await.ok()?;
    (answer.status == StatusCode::OK).then_some(answer)
}

/// The texts of the found documents.
fn context(content: &[u8]) -> String {
    let answer: Value = serde_json::from_slice(content).unwrap_or_default();
    let matches = answer.get("result").and_then(Value::as_array);
    let texts = matches.into_iter().flatten().filter_map(|found| found.get("data")?.as_str());
    texts.collect::<Vec<_>>().join(" ")
}

fn text(content: &[u8]) -> Option<String> {
    let answer: Value = serde_json::from_slice(content).ok()?;
    answer.pointer("/choices/0/message/content")?.as_str().map(str::to_owned)
}

/// The words of all events; `None` when the stream did not end as it should.
fn streamed_text(content: &[u8]) -> Option<String> {
    let content = std::str::from_utf8(content).ok()?;
    let events = content.strip_suffix("data: [DONE]\n\n")?;
    let mut text = String::new();
    for event in events.split("\n\n").filter_map(|event| event.strip_prefix("data: ")) {
        let chunk: Value = serde_json::from_str(event).ok()?;
        text += chunk.pointer("/choices/0/delta/content").and_then(Value::as_str).unwrap_or("");
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_without_its_end_is_a_failure() {
        let event = "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n";
        assert_eq!(
            streamed_text(format!("{event}{event}data: [DONE]\n\n").as_bytes()),
            Some("aa".to_owned())
        );
        assert_eq!(streamed_text(event.as_bytes()), None);
        assert_eq!(streamed_text(b"data: {\"choi\n\ndata: [DONE]\n\n"), None);
    }
}
