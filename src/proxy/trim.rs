//! The conversation of a request: what of it is forwarded, what is kept in mind of it, and what its content says about
//! sending it twice.

use std::sync::Arc;

use http::HeaderMap;

use super::content::Content;
use super::headers::Seen;
use crate::conversations::{Account, Amount, Conversations, Form, Name, Refusal, Refused, Snapshot, Whose};
use crate::exchange::Exchange;
use crate::metrics;
use crate::plan::{CREDENTIALS, LeavesState, Plan, Rule};
use crate::retry::Class;
use crate::window::{Counter, Reading, Untouched};
use crate::{json, window};

/// So many bytes of a history tell it from others of the same name.
const BEGINNING: usize = 256;

/// Fields beside the credentials that tell whose account it is.
const ACCOUNTS: [&str; 4] =
    ["openai-organization", "openai-project", "x-goog-api-key", "ocp-apim-subscription-key"];

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
    /// The form that is sent if this one is refused.
    pub(super) other: Option<Other>,
    /// What the request bears, as its content tells.
    pub(super) class: Class,
}

/// The other form of a conversation: whole if a trimmed one is sent, and if a whole one is sent although thinking in it was
/// made under a cut, that cut.
pub(super) struct Other {
    content: Content,
    pub(super) form: Form,
    /// What the trimmed form leaves out.
    pub(super) left_out: metrics::Trimmed,
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
            return Trimmed { content, other: None, class };
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
            return Trimmed { content, other: None, class };
        };
        let mut reading = window::read(whole, policy, &self.counter, members);
        let class = judge_class(rule, class, whole, reading.leaves_state);
        if seen.asks.no_window {
            reading = reading.left_whole(None);
        }
        let id = name_of(plan, headers, whole, &reading);
        let cut = reading.cut.clone().or(reading.bound.as_ref().map(|bound| bound.cut.clone()));
        if id.is_none() && cut.is_none() {
            note(&reading, exchange);
            return Trimmed { content, other: None, class };
        }
        let credentials = credentials(headers);
        let caller =
            Whose { id: id.as_deref().unwrap_or_default(), route: &plan.name, credentials: &credentials };
        let refusal = cut.as_ref().map(|cut| self.refused.name(&caller, beginning(whole, cut.start)));
        let taken = refusal.and_then(|refusal| self.refused.taken(refusal));
        let whole_form = reading.clone().left_whole(Some(Untouched::Refused));
        let trimmed_form = reading.clone().cut_as_bound();
        reading = match taken {
            Some(Form::Whole) if reading.cut.is_some() => whole_form,
            Some(Form::Trimmed) => trimmed_form.clone(),
            _ => reading,
        };
        note(&reading, exchange);
        let name = id.as_ref().and_then(|_| self.keep_in_mind(plan, &reading, &caller));
        let (Some(cut), Some(refusal)) = (cut, refusal) else {
            return Trimmed { content, other: None, class };
        };
        let left_out = left_out(&trimmed_form);
        let spliced = Content::Spliced(window::splice(whole, &cut));
        let (content, other, form) = match reading.cut {
            Some(_) => (spliced, content, Form::Whole),
            None => (content, spliced, Form::Trimmed),
        };
        Trimmed { content, other: Some(Other { content: other, form, left_out, refusal, name }), class }
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

    /// A conversation was refused in one form, and is forwarded in the other.
    pub(super) fn resent(&self, plan: &Plan, other: &Other) {
        let Some(name) = &other.name else { return };
        let metrics::Trimmed { messages, bytes, tokens } = other.left_out;
        let sign = if other.form == Form::Whole { 1 } else { -1 };
        let [messages, bytes, tokens] = [messages, bytes, tokens].map(|count| sign * signed(count));
        let account = Account {
            forwarded: Amount { messages, bytes, tokens },
            saved: Amount { messages: -messages, bytes: -bytes, tokens: -tokens },
            ..Account::default()
        };
        self.conversations.note(name, &plan.name, plan.conversation_idle, None, account);
    }

    /// The upstream took the other form: it was the first one that it refused, and would again.
    pub(super) fn taken(&self, (refusal, form): (Refusal, Form)) {
        self.refused.note(refusal, form);
    }
}

impl Other {
    /// What is sent, and what it goes by if it is taken.
    pub(super) fn into_content(self) -> (Content, (Refusal, Form)) {
        (self.content, (self.refusal, self.form))
    }
}

/// How a history begins: what tells conversations of one name apart, and those without one.
fn beginning(body: &[u8], start: usize) -> &[u8] {
    let history = body.get(start..).unwrap_or_default();
    history.get(..BEGINNING).unwrap_or(history)
}

/// What a reading leaves out.
fn left_out(reading: &Reading) -> metrics::Trimmed {
    if reading.cut.is_none() {
        return metrics::Trimmed::default();
    }
    let window::Figures { removed_bytes: bytes, removed_tokens: tokens, .. } = reading.figures;
    metrics::Trimmed { messages: reading.removed as u64, bytes, tokens }
}

/// Writes what was found into the exchange.
fn note(reading: &Reading, exchange: &mut Exchange) {
    if let (Some(untouched), Some(series)) = (reading.untouched, exchange.series()) {
        series.window_untouched(untouched as usize);
    }
    exchange.messages = reading.forwarded.map(|messages| messages as u64);
    exchange.trimmed = left_out(reading);
    if reading.cut.is_none() {
        exchange.would_trim = reading.removed as u64;
    }
}

/// What names the conversation: the configured header, else the body.
fn name_of(plan: &Plan, headers: &HeaderMap, body: &[u8], reading: &Reading) -> Option<Vec<u8>> {
    // What is not UTF-8 could not be asked for.
    let header = headers.get(&plan.id_header).and_then(|value| std::str::from_utf8(value.as_bytes()).ok());
    header.filter(|id| !id.is_empty()).map(|id| id.as_bytes().to_vec()).or_else(|| {
        let text = json::pointer::string(body.get(reading.id.clone()?)?)?;
        Some(text.into_owned().into_bytes())
    })
}

/// What tells on whose behalf a request comes. Not cookies: these change from answer to answer.
fn credentials(headers: &HeaderMap) -> Vec<(&'static str, &[u8])> {
    let names = CREDENTIALS.into_iter().filter(|name| *name != "cookie").chain(ACCOUNTS);
    names.filter_map(|name| Some((name, headers.get(name)?.as_bytes()))).collect()
}

/// What a conversation is, and what a request of it did. `None` of what is not understood.
fn account(reading: &Reading) -> Option<(Snapshot, Account)> {
    let figures = reading.figures;
    let amount = |left_out: metrics::Trimmed| Amount {
        messages: signed(left_out.messages),
        bytes: signed(left_out.bytes),
        tokens: signed(left_out.tokens),
    };
    let saved = left_out(reading);
    let forwarded = metrics::Trimmed {
        messages: reading.forwarded? as u64,
        bytes: figures.bytes - saved.bytes,
        tokens: figures.tokens - saved.tokens,
    };
    let snapshot = Snapshot {
        messages: figures.messages,
        user: figures.user,
        assistant: figures.assistant,
        characters: figures.characters,
        tokens: figures.tokens,
        bytes: figures.bytes,
        system_prompt: figures.system_prompt,
    };
    Some((snapshot, Account { requests: 1, forwarded: amount(forwarded), saved: amount(saved) }))
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
