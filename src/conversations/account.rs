//! What is kept of a conversation, and how it is told.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A conversation as its last request showed it, whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Messages, those of the head included.
    pub messages: u64,
    /// Of them the user's.
    pub user: u64,
    /// Of them the assistant's.
    pub assistant: u64,
    /// Characters of text.
    pub characters: u64,
    /// Tokens, estimated.
    pub tokens: u64,
    /// Bytes of the history behind the head.
    pub bytes: u64,
    /// There is a system prompt.
    pub system_prompt: bool,
}

/// So much of conversations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Amount {
    /// Messages behind the head.
    pub messages: i64,
    /// Their bytes.
    pub bytes: i64,
    /// Their tokens, estimated.
    pub tokens: i64,
}

impl Amount {
    fn add(&mut self, more: Amount) {
        self.messages += more.messages;
        self.bytes += more.bytes;
        self.tokens += more.tokens;
    }
}

/// What was done with a conversation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// Requests of it.
    pub requests: i64,
    /// Forwarded, all requests together.
    pub forwarded: Amount,
    /// Left out, all requests together.
    pub saved: Amount,
}

impl Account {
    /// Adds what a further request did.
    pub(super) fn add(&mut self, more: Account) {
        self.requests += more.requests;
        self.forwarded.add(more.forwarded);
        self.saved.add(more.saved);
    }
}

/// A conversation, as operators are told of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Told {
    /// The route it takes.
    pub route: String,
    /// Since its last request.
    pub idle_seconds: f64,
    /// Requests of it.
    pub requests: i64,
    /// Messages of its last request as it came, the system prompt included.
    pub total_messages: u64,
    /// Of them the user's.
    pub user_messages: u64,
    /// Of them the assistant's.
    pub assistant_messages: u64,
    /// Characters of text in them.
    pub total_characters: u64,
    /// Their tokens, estimated.
    pub estimated_tokens: u64,
    /// Bytes of its history.
    pub history_bytes: u64,
    /// There is a system prompt.
    pub has_system_prompt: bool,
    /// Forwarded, all requests together.
    pub forwarded: Amount,
    /// Left out, all requests together.
    pub saved: Amount,
}

impl Told {
    pub(super) fn of(route: &str, snapshot: Snapshot, account: Account, idle: Duration) -> Self {
        let Account { requests, forwarded, saved } = account;
        Told {
            route: route.to_owned(),
            idle_seconds: idle.as_secs_f64(),
            requests,
            total_messages: snapshot.messages,
            user_messages: snapshot.user,
            assistant_messages: snapshot.assistant,
            total_characters: snapshot.characters,
            estimated_tokens: snapshot.tokens,
            history_bytes: snapshot.bytes,
            has_system_prompt: snapshot.system_prompt,
            forwarded,
            saved,
        }
    }
}
