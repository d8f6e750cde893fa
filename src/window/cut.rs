//! Where the history is cut: a pure function of the messages, so that every turn of a conversation agrees with the
//! one before, although nothing is remembered between them.

use super::{Message, Policy};

/// How many of the oldest messages behind the head are left out. `None` when a limit is exceeded and there is no user
/// message to cut before.
///
/// A cut falls only before a user message, where no tool call waits for its results. The last turn always goes, even
/// when it alone exceeds the limits: the upstream may still take it, and half a turn means nothing.
pub(super) fn place(history: &[Message], policy: &Policy) -> Option<usize> {
    let (Some(first), Some(last)) = (history.first(), history.last()) else {
        return Some(0);
    };
    let surplus = surplus(history.len(), policy);
    let fits = |message: &Message| {
        let bytes = last.end.saturating_sub(message.start) as u64;
        policy.max_bytes == 0 || bytes <= policy.max_bytes
    };
    if surplus == 0 && fits(first) {
        return Some(0);
    }
    let turns = || history.iter().enumerate().filter(|(_, message)| message.user);
    let roomy = turns().find(|(index, message)| *index >= surplus && fits(message));
    roomy.or_else(|| turns().next_back()).map(|(index, _)| index)
}

/// How many messages must go at least. Rounded up to whole steps, so that the beginning of what is forwarded, and with
/// it the provider's prompt cache, stays for as many messages, and the limit still holds.
fn surplus(messages: usize, policy: &Policy) -> usize {
    if policy.max_messages == 0 {
        return 0;
    }
    let surplus = messages.saturating_sub(policy.max_messages);
    surplus.checked_next_multiple_of(policy.step.max(1)).unwrap_or(surplus)
}
