//! The sliding window: how much of a conversation is forwarded.
//!
//! It decides where the history is cut, and cuts it out of the raw bytes. It must never change a message that stays,
//! separate a tool call from its results, or touch a body that it does not understand to the last byte: then the
//! upstream is left to judge it.

mod cut;
mod openai;

use bytes::Bytes;

use crate::json;

/// How a conversation is trimmed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Off: nothing is read or changed.
    pub enabled: bool,
    /// Report what would be trimmed, change nothing.
    pub shadow: bool,
    /// Messages forwarded besides the leading system and developer messages; 0 is no limit.
    pub max_messages: usize,
    /// The cut moves only every so many messages; 1 moves it each time.
    pub step: usize,
    /// Bytes of history forwarded; 0 is no limit.
    pub max_bytes: u64,
}

/// What was found in a request for a chat, and what is to be forwarded instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading {
    /// Messages behind the head that are forwarded (in shadow: all of them). `None` when the body is not understood.
    pub forwarded: Option<usize>,
    /// Messages left out; in shadow, that would have been left out.
    pub removed: usize,
    /// The content to forward in place of the original. `None` when nothing was cut, and in shadow.
    pub content: Option<Bytes>,
    /// The request asks the upstream to keep state, so sending it twice is not sending it once. Assumed of a body that
    /// is not readable as an object: a parser more lenient than ours may find the member in it.
    pub leaves_state: bool,
    /// Why the body was left as it is although a limit may be exceeded.
    pub untouched: Option<Untouched>,
}

/// Why a body was not trimmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Untouched {
    /// The content is encoded, or signed.
    Encoded,
    /// Not JSON, by RFC 8259 to the letter.
    InvalidJson,
    /// Nested deeper than [`json::MAX_DEPTH`].
    TooDeep,
    /// The top level is not an object.
    NotObject,
    /// There is no `messages`, or it is not an array.
    NoMessages,
    /// `messages` comes twice: parsers disagree about which one holds (RFC 8259 section 4).
    DuplicateMessages,
    /// An element of `messages` is not an object with one role that is a string.
    UnreadableMessage,
    /// A limit is exceeded, but there is no user message to cut before.
    NoUserTurn,
    /// A limit is exceeded, but the bytes are not UTF-8 (RFC 8259 section 8.1).
    NotUtf8,
}

impl Untouched {
    /// Every reason, for label sets.
    pub const ALL: [Untouched; 9] = [
        Untouched::Encoded,
        Untouched::InvalidJson,
        Untouched::TooDeep,
        Untouched::NotObject,
        Untouched::NoMessages,
        Untouched::DuplicateMessages,
        Untouched::UnreadableMessage,
        Untouched::NoUserTurn,
        Untouched::NotUtf8,
    ];

    /// The labels, in the order of the variants.
    pub const WORDS: [&'static str; 9] = {
        let [a, b, c, d, e, f, g, h, i] = Untouched::ALL;
        [a.word(), b.word(), c.word(), d.word(), e.word(), f.word(), g.word(), h.word(), i.word()]
    };

    /// The label of metrics and logs.
    pub const fn word(self) -> &'static str {
        match self {
            Untouched::Encoded => "encoded",
            Untouched::InvalidJson => "invalid_json",
            Untouched::TooDeep => "too_deep",
            Untouched::NotObject => "not_object",
            Untouched::NoMessages => "no_messages",
            Untouched::DuplicateMessages => "duplicate_messages",
            Untouched::UnreadableMessage => "unreadable_message",
            Untouched::NoUserTurn => "no_user_turn",
            Untouched::NotUtf8 => "not_utf8",
        }
    }
}

impl From<json::Invalid> for Untouched {
    fn from(invalid: json::Invalid) -> Self {
        match invalid {
            json::Invalid::Syntax => Untouched::InvalidJson,
            json::Invalid::TooDeep => Untouched::TooDeep,
            json::Invalid::NotObject => Untouched::NotObject,
        }
    }
}

/// Where one message lies in the body, and whether a turn begins with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Message {
    start: usize,
    end: usize,
    user: bool,
}

/// Reads a chat completions request and trims it by `policy`. `state_members` are the top-level members that make
/// the upstream keep state when they are neither null nor false.
pub fn read(body: &Bytes, policy: &Policy, state_members: &[String]) -> Reading {
    let mut reading =
        Reading { forwarded: None, removed: 0, content: None, leaves_state: false, untouched: None };
    let chat = match openai::read(body, state_members) {
        Ok(chat) => chat,
        Err(invalid) => {
            reading.leaves_state = !state_members.is_empty();
            reading.untouched = Some(invalid.into());
            return reading;
        }
    };
    reading.leaves_state = chat.leaves_state;
    let history = match chat.history {
        Ok(history) => history,
        Err(reason) => {
            reading.untouched = Some(reason);
            return reading;
        }
    };
    reading.forwarded = Some(history.len());
    let Some(cut) = cut::place(&history, policy) else {
        reading.untouched = Some(Untouched::NoUserTurn);
        return reading;
    };
    // Nothing to leave out; also what an empty history comes to.
    let (Some(first), Some(kept)) = (history.first(), history.get(cut).filter(|_| cut > 0)) else {
        return reading;
    };
    if !chat.ascii && !json::is_utf8(body) {
        return Reading { forwarded: None, untouched: Some(Untouched::NotUtf8), ..reading };
    }
    reading.removed = cut;
    if !policy.shadow {
        reading.forwarded = Some(history.len() - cut);
        reading.content = splice(body, first.start, kept.start);
    }
    reading
}

/// The body without the bytes between two offsets. What goes are whole elements with the separator behind each, and
/// an element always follows, so the result is valid JSON.
fn splice(body: &[u8], from: usize, to: usize) -> Option<Bytes> {
    Some([body.get(..from)?, body.get(to..)?].concat().into())
}

#[cfg(test)]
mod tests;
