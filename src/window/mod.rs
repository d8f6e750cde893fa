//! The sliding window: how much of a conversation is forwarded.
//!
//! It decides where the history is cut, and which bytes that leaves out. It must never change a message that stays,
//! separate a call from its results or thinking from what it is bound to, or touch a body that it does not understand to
//! the last byte: then the upstream is left to judge it. One pass over the bytes, nothing is copied.

mod chat;
mod cut;
mod element;
mod messages;
mod policy;
mod request;
mod responses;
mod tokens;
mod untouched;

pub use policy::{Dialect, Policy};
pub use tokens::{Counter, Encoding};
pub use untouched::Untouched;

use std::ops::Range;

use bytes::Bytes;

use self::cut::Cutting;
use self::element::{Element, Role};
use self::tokens::Weighing;
use crate::json;

/// What was found in a request that carries a conversation, and what of it is to be left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// Messages behind the head that are forwarded (in shadow: all of them). `None` when the body is not understood.
    pub forwarded: Option<usize>,
    /// Messages left out; in shadow, that would have been left out.
    pub removed: usize,
    /// The bytes of the body to leave out. `None` when nothing is cut, and in shadow.
    pub cut: Option<Range<usize>>,
    /// The request asks the upstream to keep state, so sending it twice is not sending it once. Assumed of a body that
    /// is not readable as an object: a parser more lenient than ours may find the member in it.
    pub leaves_state: bool,
    /// Why the body was left as it is although a limit may be exceeded; why the cut is not where the limits are.
    pub untouched: Option<Untouched>,
    /// Where the body names its conversation: a string, with its quotes.
    pub id: Option<Range<usize>>,
    /// Left whole, although thinking that stays was made under this cut.
    pub bound: Option<Bound>,
    /// What the conversation is, as it was received.
    pub figures: Figures,
}

/// A cut under which thinking was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bound {
    /// The bytes of the body that it leaves out.
    pub cut: Range<usize>,
    messages: usize,
    tokens: u64,
}

/// Counts of a conversation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Messages and items, those of the head included.
    pub messages: u64,
    /// Of them the user's; results of tools are not the user's.
    pub user: u64,
    /// Of them the assistant's.
    pub assistant: u64,
    /// Characters of text in them.
    pub characters: u64,
    /// Tokens, estimated: one for every four bytes, and a constant for each picture, sound and file.
    pub tokens: u64,
    /// Bytes of the history behind the head.
    pub bytes: u64,
    /// Of these, left out; in shadow, that would have been.
    pub removed_bytes: u64,
    /// Tokens of what is left out, estimated.
    pub removed_tokens: u64,
    /// There is a system prompt.
    pub system_prompt: bool,
    pub(self) head_tokens: u64,
}

impl Figures {
    fn add(&mut self, element: &Element) {
        self.messages += 1;
        self.user += u64::from(element.role == Role::User && !element.carrier);
        self.assistant += u64::from(element.role == Role::Assistant);
        self.system_prompt |= element.role == Role::Author;
        self.characters += element.characters;
    }
}

/// Reads a request and finds what `policy` leaves out. `state_members` are the top-level members that make the upstream
/// keep state when they are neither null nor false.
pub fn read(body: &Bytes, policy: &Policy, counter: &Counter, state_members: &[String]) -> Reading {
    let by = (policy.max_tokens > 0).then(|| policy.encoding.of(body)).flatten();
    let mut cutting = Cutting::new(policy, by.map(|by| Weighing::new(counter, by, body, policy.max_tokens)));
    let request = match request::read(body, policy, state_members, &mut cutting) {
        Ok(request) => request,
        Err(invalid) => {
            let bom = body.starts_with("\u{feff}".as_bytes());
            let untouched = Some(if bom { Untouched::Bom } else { invalid.into() });
            return Reading { leaves_state: !state_members.is_empty(), untouched, ..Reading::default() };
        }
    };
    let figures = Figures {
        bytes: cutting.span.len() as u64,
        tokens: cutting.tokens + request.figures.head_tokens,
        ..request.figures
    };
    let leaves_state = request.leaves_state;
    let reading = Reading { leaves_state, id: request.id, figures, ..Reading::default() };
    if request.unread.is_some() {
        return Reading { untouched: request.unread, ..reading };
    }
    let reading = Reading { forwarded: Some(cutting.count), ..reading };
    let (place, why) = cutting.end();
    let reading = Reading { untouched: why, ..reading };
    let breakpoint = why == Some(Untouched::CacheBreakpoint);
    if place.index == 0 && !breakpoint {
        return reading;
    }
    let is_utf8 = request.ascii || json::is_utf8(body);
    if breakpoint || request.aside.is_some() {
        let bound = cutting.bound_to().filter(|_| is_utf8 && !policy.shadow).map(|place| Bound {
            cut: cutting.span.start..place.start,
            messages: place.index,
            tokens: place.tokens,
        });
        return Reading { untouched: if breakpoint { why } else { request.aside }, bound, ..reading };
    }
    if !is_utf8 {
        return Reading { forwarded: None, untouched: Some(Untouched::NotUtf8), ..reading };
    }
    let cut = cutting.span.start..place.start;
    let figures = Figures { removed_bytes: cut.len() as u64, removed_tokens: place.tokens, ..figures };
    let reading = Reading { removed: place.index, figures, ..reading };
    if policy.shadow {
        return reading;
    }
    Reading { forwarded: Some(cutting.count - place.index), cut: Some(cut), ..reading }
}

impl Reading {
    /// Leaves the conversation whole after all; because of this, if that is to be counted.
    #[must_use]
    pub fn left_whole(self, why: Option<Untouched>) -> Self {
        let figures = Figures { removed_bytes: 0, removed_tokens: 0, ..self.figures };
        let back = self.cut.map_or(0, |_| self.removed);
        let forwarded = self.forwarded.map(|forwarded| forwarded + back);
        Reading { forwarded, removed: 0, cut: None, bound: None, untouched: why, figures, ..self }
    }

    /// Cuts the conversation after all, where it was cut when the thinking was made that stays.
    #[must_use]
    pub fn cut_as_bound(self) -> Self {
        let Some(Bound { cut, messages, tokens }) = self.bound else { return self };
        let figures = Figures { removed_bytes: cut.len() as u64, removed_tokens: tokens, ..self.figures };
        let forwarded = self.forwarded.map(|forwarded| forwarded.saturating_sub(messages));
        let untouched = Some(Untouched::Thinking);
        Reading { forwarded, removed: messages, cut: Some(cut), bound: None, untouched, figures, ..self }
    }
}

/// The body without these bytes, as what is before them and behind. What goes are whole elements with the separator
/// behind each, and an element always follows, so that the result is valid JSON.
pub fn splice(body: &Bytes, cut: &Range<usize>) -> [Bytes; 2] {
    let end = cut.end.min(body.len());
    [body.slice(..cut.start.min(end)), body.slice(end..)]
}

#[cfg(test)]
mod tests;
