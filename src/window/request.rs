//! The top level of a request: where the history is, and what stands beside it.

use std::ops::Range;

use super::cut::Cutting;
use super::element::{Element, Role};
use super::{Dialect, Figures, Policy, Untouched, chat, messages, responses};
use crate::json::{self, Invalid, Kind, Scanner, Text};

/// What one pass over a request finds.
#[derive(Debug)]
pub(super) struct Request {
    /// A member that makes the upstream keep state is on.
    pub(super) leaves_state: bool,
    /// All of the body is ASCII; may be missed.
    pub(super) ascii: bool,
    /// The value of the member that names the conversation.
    pub(super) id: Option<Range<usize>>,
    /// Why the history is not cut, whatever the limits say.
    pub(super) aside: Option<Untouched>,
    /// Why the elements behind the head cannot be told.
    pub(super) unread: Option<Untouched>,
    /// What the conversation is, whole.
    pub(super) figures: Figures,
}

/// Reads the whole body once, and pushes what is behind the head. What is wrong with the history alone is part of what
/// is found.
pub(super) fn read(
    body: &[u8],
    policy: &Policy,
    state_members: &[String],
    cutting: &mut Cutting<'_>,
) -> Result<Request, Invalid> {
    let mut scanner = Scanner::new(body);
    if scanner.kind()? != Kind::Object {
        scanner.skip()?;
        scanner.end()?;
        return Err(Invalid::NotObject);
    }
    let mut request = Request {
        leaves_state: false,
        ascii: true,
        id: None,
        aside: None,
        unread: Some(Untouched::NoMessages),
        figures: Figures::default(),
    };
    let (mut name_rank, mut histories) = (Naming::None, 0);
    let mut members = scanner.object()?;
    while let Some(name) = members.next(&mut scanner)? {
        if name.is(policy.dialect.history()) {
            histories += 1;
            if histories == 1 {
                request.history(&mut scanner, policy, cutting)?;
            } else {
                scanner.skip()?;
            }
            continue;
        }
        let naming = if name.is("metadata") {
            metadata(&mut scanner)?
        } else {
            let value = scanner.skip()?;
            let bytes = body.get(value.clone()).unwrap_or_default();
            if state_members.iter().any(|member| name.is(member)) {
                request.leaves_state |= !json::is_null_or_false(bytes);
            }
            if is_kept_by_upstream(&name, bytes) {
                request.aside = Some(Untouched::ServerState);
            }
            let system = policy.dialect.system().is_some_and(|member| name.is(member));
            request.figures.system_prompt |= system && bytes != b"null";
            Naming::of(&name, bytes).map(|rank| (rank, value))
        };
        if let Some((rank, value)) = naming.filter(|(rank, _)| *rank > name_rank) {
            (name_rank, request.id) = (rank, Some(value));
        }
    }
    scanner.end()?;
    if histories > 1 {
        request.unread = Some(Untouched::Duplicate);
    }
    request.ascii = scanner.is_ascii();
    Ok(request)
}

impl Request {
    fn history(
        &mut self,
        scanner: &mut Scanner<'_>,
        policy: &Policy,
        cutting: &mut Cutting<'_>,
    ) -> Result<(), Invalid> {
        match scanner.kind()? {
            Kind::Array => {}
            // One message of the user's, with nothing before it.
            Kind::String if policy.dialect.history() == "input" => {
                let start = scanner.position();
                let (_, characters) = scanner.counted_string()?;
                let element = Element { role: Role::User, characters, ..Element::default() };
                self.figures.add(&element);
                cutting.push(&element, start..scanner.position());
                self.unread = None;
                return Ok(());
            }
            _ => return scanner.skip().map(drop),
        }
        self.unread = None;
        let mut elements = scanner.array()?;
        while elements.next(scanner)? {
            let start = scanner.position();
            let element = element(policy.dialect, scanner)?;
            let span = start..scanner.position();
            self.figures.add(&element);
            match element.aside {
                Some(why @ (Untouched::UnreadableMessage | Untouched::Duplicate)) => {
                    self.unread.get_or_insert(why);
                }
                Some(why) => _ = self.aside.get_or_insert(why),
                None => {}
            }
            if cutting.count == 0 && element.role == Role::Author {
                self.figures.head_tokens += element.estimate(span.len());
            } else {
                cutting.push(&element, span);
            }
        }
        Ok(())
    }
}

/// Passes over one element. What is wrong with it alone is part of what is found.
fn element(dialect: Dialect, scanner: &mut Scanner<'_>) -> Result<Element, Invalid> {
    if scanner.kind()? != Kind::Object {
        scanner.skip()?;
        return Ok(Element { aside: Some(Untouched::UnreadableMessage), ..Element::default() });
    }
    match dialect {
        Dialect::Chat => chat::element(scanner),
        Dialect::Responses => responses::element(scanner),
        Dialect::Messages => messages::element(scanner),
    }
}

/// What names a conversation, the strongest last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Naming {
    None,
    User,
    PromptCacheKey,
    ConversationId,
}

impl Naming {
    /// Of a top-level member.
    fn of(name: &Text<'_>, value: &[u8]) -> Option<Self> {
        let named = if name.is("user") {
            Naming::User
        } else if name.is("prompt_cache_key") {
            Naming::PromptCacheKey
        } else {
            return None;
        };
        is_name(value).then_some(named)
    }
}

/// Looks for names in `metadata`. Anthropic's only member there is `user_id`.
fn metadata(scanner: &mut Scanner<'_>) -> Result<Option<(Naming, Range<usize>)>, Invalid> {
    if scanner.kind()? != Kind::Object {
        scanner.skip()?;
        return Ok(None);
    }
    let mut found: Option<(Naming, Range<usize>)> = None;
    let mut members = scanner.object()?;
    while let Some(name) = members.next(scanner)? {
        let rank = if name.is("conversation_id") {
            Naming::ConversationId
        } else if name.is("user_id") {
            Naming::User
        } else {
            scanner.skip()?;
            continue;
        };
        if scanner.kind()? != Kind::String {
            scanner.skip()?;
            continue;
        }
        let start = scanner.position();
        let text = scanner.string()?;
        if !text.raw.is_empty() && found.as_ref().is_none_or(|(known, _)| rank > *known) {
            found = Some((rank, start..scanner.position()));
        }
    }
    Ok(found)
}

/// A string with something in it.
fn is_name(value: &[u8]) -> bool {
    value.first() == Some(&b'"') && value.len() > 2
}

/// Members that say that the history is not all here, or that the upstream cuts it itself.
fn is_kept_by_upstream(name: &Text<'_>, value: &[u8]) -> bool {
    let there = name.is("previous_response_id") || name.is("conversation") || name.is("context_management");
    there && value != b"null"
        || name.is("truncation") && json::pointer::string(value).is_some_and(|word| word == "auto")
}
