//! The conversation of a request: what of it is forwarded, what is kept in mind of it, and what its content says about
//! sending it twice.

use std::sync::Arc;

use bytes::Bytes;
use http::HeaderMap;

use super::content::Content;
use super::headers::Seen;
use crate::conversations::{Account, Amount, Conversations, Name, Refusal, Refused, Snapshot, Whose};
use crate::exchange::Exchange;
use crate::metrics;
use crate::plan::{CREDENTIALS, LeavesState, Plan, Rule};
use crate::retry::Class;
use crate::window::{Counter, Reading, Untouched};
use crate::{json, window};

/// Of a conversation without a name, so many bytes of its first message tell it from others.
const BEGINNING: usize = 256;

/// What trimming needs of other requests.
#[derive(Debug)]
pub(super) struct Trimming {
    counter: Counter,
    pub(super) conversations: Arc<Conversations>,
    refused: Refused,
}

/// What is forwarded of a conversation.
pub(super) struct Trimmed {
    pub(super) content: Content,
    /// What was received, when something was cut from it.
    pub(super) original: Option<Original>,
    /// What the request bears, as its content tells.
    pub(super) class: Class,
}

/// A conversation as it was received.
pub(super) struct Original {
    pub(super) content: Bytes,
    refusal: Refusal,
    name: Option<Name>,
}

impl Trimming {
    pub(super) fn new(conversations: Arc<Conversations>) -> Result<Self, getrandom::Error> {
        Ok(Self { counter: Counter::new(), conversations, refused: Refused::new()? })
    }

    /// Trims the conversation, and reads on the way what the content says about trying twice.
    pub(super) fn trim(
        &self,
        (plan, rule): (&Plan, &Rule),
        seen: &Seen,
        headers: &HeaderMap,
        content: Content,
        exchange: &mut Exchange,
    ) -> Trimmed {
        let class = rule.retry.class;
        let Content::Whole(whole) = &content else {
            return Trimmed { content, original: None, class };
        };
        // An edit would be found out.
        let encoded = seen.sealed;
        let members: &[String] = match &rule.leaves_state {
            LeavesState::Members(members) => members,
            LeavesState::Never | LeavesState::Always => &[],
        };
        let policy = rule.window.as_ref().filter(|policy| policy.enabled);
        if let (Some(_), true, Some(series)) = (policy, encoded, exchange.series()) {
            series.window_untouched(Untouched::Encoded as usize);
        }
        let Some(policy) = policy.filter(|_| !encoded) else {
            let class = match class {
                Class::Chat if encoded && !members.is_empty() => Class::ChatStateful,
                class => judge_class(rule, class, whole, has_member(whole, members)),
            };
            return Trimmed { content, original: None, class };
        };
        let mut reading = window::read(whole, policy, &self.counter, members);
        let class = judge_class(rule, class, whole, reading.leaves_state);
        if seen.asks.no_window {
            reading = reading.left_whole(None);
        }
        let id = name_of(plan, headers, whole, &reading);
        let (mut name, mut refusal) = (None, None);
        if id.is_some() || reading.cut.is_some() {
            let credentials = credentials(headers);
            let caller =
                Whose { id: id.as_deref().unwrap_or_default(), route: &plan.name, credentials: &credentials };
            refusal = self.refusal(whole, &reading, &caller);
            if refusal.is_some_and(|refusal| self.refused.has(refusal)) {
                reading = reading.left_whole(Some(Untouched::Refused));
            }
            if id.is_some() {
                name = self.keep_in_mind(plan, &reading, &caller);
            }
        }
        note(&reading, exchange);
        match (&reading.cut, refusal) {
            (Some(cut), Some(refusal)) => Trimmed {
                original: Some(Original { content: whole.clone(), refusal, name }),
                content: Content::Spliced(window::splice(whole, cut)),
                class,
            },
            _ => Trimmed { content, original: None, class },
        }
    }

    /// What a conversation that is trimmed goes by if it is refused: its name, else how it begins.
    fn refusal(&self, body: &Bytes, reading: &Reading, whose: &Whose<'_>) -> Option<Refusal> {
        let first = body.get(reading.cut.clone()?)?;
        let beginning = first.get(..BEGINNING).unwrap_or(first);
        let id = if whose.id.is_empty() { beginning } else { whose.id };
        Some(self.refused.name(&Whose { id, ..*whose }))
    }

    /// Keeps in mind what a conversation is. `None` of one that is not understood.
    fn keep_in_mind(&self, plan: &Plan, reading: &Reading, whose: &Whose<'_>) -> Option<Name> {
        if !self.conversations.are_tracked() {
            return None;
        }
        let (snapshot, account) = account(reading)?;
        let name = self.conversations.name(whose);
        self.conversations.note(&name, &plan.name, plan.conversation_idle, Some(snapshot), account);
        Some(name)
    }

    /// A conversation was refused trimmed, and is forwarded whole after all.
    pub(super) fn resent(&self, plan: &Plan, original: &Original, trimmed: metrics::Trimmed) {
        let Some(name) = &original.name else { return };
        let metrics::Trimmed { messages, bytes, tokens } = trimmed;
        let [messages, bytes, tokens] = [messages, bytes, tokens].map(signed);
        let account = Account {
            forwarded: Amount { messages, bytes, tokens },
            saved: Amount { messages: -messages, bytes: -bytes, tokens: -tokens },
            ..Account::default()
        };
        self.conversations.note(name, &plan.name, plan.conversation_idle, None, account);
    }

    /// The upstream took it whole: it was the trimming that it refused, and would again.
    pub(super) fn taken_whole(&self, original: &Original) {
        self.refused.note(original.refusal);
    }
}

/// Writes what was found into the exchange.
fn note(reading: &Reading, exchange: &mut Exchange) {
    if let (Some(untouched), Some(series)) = (reading.untouched, exchange.series()) {
        series.window_untouched(untouched as usize);
    }
    exchange.messages = reading.forwarded.map(|messages| messages as u64);
    let messages = reading.removed as u64;
    if reading.cut.is_some() {
        let window::Figures { removed_bytes: bytes, removed_tokens: tokens, .. } = reading.figures;
        exchange.trimmed = metrics::Trimmed { messages, bytes, tokens };
    } else {
        exchange.would_trim = messages;
    }
}

/// What names the conversation: the configured header, else the body.
fn name_of(plan: &Plan, headers: &HeaderMap, body: &[u8], reading: &Reading) -> Option<Vec<u8>> {
    let header = headers.get(&plan.id_header).map(|value| value.as_bytes().to_vec());
    header.filter(|id| !id.is_empty()).or_else(|| {
        let text = json::pointer::string(body.get(reading.id.clone()?)?)?;
        Some(text.into_owned().into_bytes())
    })
}

/// The credentials of a request, all but cookies: these change from answer to answer.
fn credentials(headers: &HeaderMap) -> Vec<(&'static str, &[u8])> {
    let names = CREDENTIALS.into_iter().filter(|name| *name != "cookie");
    names.filter_map(|name| Some((name, headers.get(name)?.as_bytes()))).collect()
}

/// What a conversation is, and what a request of it did. `None` of what is not understood.
fn account(reading: &Reading) -> Option<(Snapshot, Account)> {
    let figures = reading.figures;
    let amount = |messages, bytes, tokens| Amount {
        messages: signed(messages),
        bytes: signed(bytes),
        tokens: signed(tokens),
    };
    let left_out =
        if reading.cut.is_some() { (figures.removed_bytes, figures.removed_tokens) } else { (0, 0) };
    let saved =
        amount(if reading.cut.is_some() { reading.removed as u64 } else { 0 }, left_out.0, left_out.1);
    let (bytes, tokens) = (figures.bytes - left_out.0, figures.tokens - left_out.1);
    let forwarded = amount(reading.forwarded? as u64, bytes, tokens);
    let snapshot = Snapshot {
        messages: figures.messages,
        user: figures.user,
        assistant: figures.assistant,
        characters: figures.characters,
        tokens: figures.tokens,
        bytes: figures.bytes,
        system_prompt: figures.system_prompt,
    };
    Some((snapshot, Account { requests: 1, forwarded, saved }))
}

fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// What a request bears: its rule's class, unless its content says less.
fn judge_class(rule: &Rule, class: Class, content: &[u8], leaves_state: bool) -> Class {
    match class {
        Class::Chat if leaves_state || rule.leaves_state == LeavesState::Always => Class::ChatStateful,
        Class::Idempotent if has_member(content, &rule.not_idempotent_if) => Class::Other,
        class => class,
    }
}

/// Whether the content's top level has one of these members, neither null nor false. Assumed of what cannot be read.
fn has_member(content: &[u8], members: &[String]) -> bool {
    if members.is_empty() {
        return false;
    }
    let mut found = false;
    let read = json::top_level(content, |name, value| {
        found |= members.iter().any(|member| name.is(member))
            && !json::is_null_or_false(content.get(value).unwrap_or_default());
    });
    found || (read.is_err() && !is_plain_array(content))
}

/// Whether the content is an array of scalars, such as identifiers: it has no members.
fn is_plain_array(content: &[u8]) -> bool {
    let mut scanner = json::Scanner::new(content);
    let read = scanner.array().and_then(|mut elements| {
        while elements.next(&mut scanner)? {
            if matches!(scanner.kind()?, json::Kind::Object | json::Kind::Array) {
                return Ok(false);
            }
            scanner.skip()?;
        }
        scanner.end().map(|()| true)
    });
    read.unwrap_or(false)
}
