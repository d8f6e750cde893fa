//! The conversation of a request: what of it is forwarded, and what its content says about sending it twice.

use bytes::Bytes;

use super::content::Content;
use super::headers::Seen;
use crate::exchange::Exchange;
use crate::plan::{LeavesState, Rule};
use crate::retry::Class;
use crate::window::Counter;
use crate::{json, window};

/// What is forwarded of a conversation.
pub(super) struct Trimmed {
    pub(super) content: Content,
    /// What was received, when something was cut from it.
    pub(super) original: Option<Bytes>,
    /// What the request bears, as its content tells.
    pub(super) class: Class,
}

/// Trims the conversation, and reads on the way what the content says about trying twice.
pub(super) fn trim(
    rule: &Rule,
    seen: &Seen,
    counter: &Counter,
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
    let policy = rule.window.as_ref().filter(|policy| policy.enabled && !seen.asks.no_window);
    if let (Some(_), true, Some(series)) = (policy, encoded, exchange.series()) {
        series.window_untouched(window::Untouched::Encoded as usize);
    }
    let Some(policy) = policy.filter(|_| !encoded) else {
        let class = match class {
            Class::Chat if encoded && !members.is_empty() => Class::ChatStateful,
            class => judge_class(rule, class, whole, has_member(whole, members)),
        };
        return Trimmed { content, original: None, class };
    };
    let reading = window::read(whole, policy, counter, members);
    if let (Some(untouched), Some(series)) = (reading.untouched, exchange.series()) {
        series.window_untouched(untouched as usize);
    }
    exchange.messages = reading.forwarded.map(|messages| messages as u64);
    *(if policy.shadow { &mut exchange.would_remove } else { &mut exchange.removed }) =
        reading.removed as u64;
    let class = judge_class(rule, class, whole, reading.leaves_state);
    match &reading.cut {
        Some(cut) => Trimmed {
            original: Some(whole.clone()),
            content: Content::Spliced(window::splice(whole, cut)),
            class,
        },
        None => Trimmed { content, original: None, class },
    }
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
