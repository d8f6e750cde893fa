//! The dialect of OpenAI's chat completions: the history is the top-level array `messages`, each with a `role`.

use super::{Message, Untouched};
use crate::json::{self, Invalid, Kind, Scanner};

/// What one pass over a request finds.
pub(super) struct Chat {
    /// A member that makes the upstream keep state is on.
    pub(super) leaves_state: bool,
    /// All of the body is ASCII; may be missed.
    pub(super) ascii: bool,
    /// The messages behind the leading system and developer messages, or why they cannot be told.
    pub(super) history: Result<Vec<Message>, Untouched>,
}

/// Who speaks, as far as the window cares.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    /// `system`, or `developer` as newer models call it: what the bot's author says.
    Author,
    /// A turn begins.
    User,
    /// Everything else belongs to the turn before it.
    Other,
}

/// Reads the whole body once. What is wrong with the messages alone is part of what is found.
pub(super) fn read(body: &[u8], state_members: &[String]) -> Result<Chat, Invalid> {
    let mut leaves_state = false;
    let mut history = None;
    let mut scanner = Scanner::new(body);
    if scanner.kind()? != Kind::Object {
        scanner.skip()?;
        scanner.end()?;
        return Err(Invalid::NotObject);
    }
    let mut members = scanner.object()?;
    while let Some(name) = members.next(&mut scanner)? {
        if name.is("messages") {
            let found = messages(&mut scanner)?;
            history = Some(if history.is_some() { Err(Untouched::DuplicateMessages) } else { found });
            continue;
        }
        let value = scanner.skip()?;
        if state_members.iter().any(|member| name.is(member)) {
            leaves_state |= !body.get(value).is_some_and(json::is_null_or_false);
        }
    }
    scanner.end()?;
    let history = history.unwrap_or(Err(Untouched::NoMessages));
    Ok(Chat { leaves_state, ascii: scanner.is_ascii(), history })
}

fn messages(scanner: &mut Scanner<'_>) -> Result<Result<Vec<Message>, Untouched>, Invalid> {
    if scanner.kind()? != Kind::Array {
        scanner.skip()?;
        return Ok(Err(Untouched::NoMessages));
    }
    let mut history = Ok(Vec::new());
    let mut elements = scanner.array()?;
    while elements.next(scanner)? {
        let start = scanner.position();
        let role = role(scanner)?;
        let end = scanner.position();
        match (&mut history, role) {
            (Err(_), _) => {}
            (_, None) => history = Err(Untouched::UnreadableMessage),
            (Ok(messages), Some(Role::Author)) if messages.is_empty() => {}
            (Ok(messages), Some(role)) => messages.push(Message { start, end, user: role == Role::User }),
        }
    }
    Ok(history)
}

/// Passes over one element. `None` unless it is an object with exactly one role, which is a string.
fn role(scanner: &mut Scanner<'_>) -> Result<Option<Role>, Invalid> {
    if scanner.kind()? != Kind::Object {
        scanner.skip()?;
        return Ok(None);
    }
    let mut role = None;
    let mut readable = true;
    let mut members = scanner.object()?;
    while let Some(name) = members.next(scanner)? {
        if !name.is("role") {
            scanner.skip()?;
            continue;
        }
        readable &= role.is_none();
        if scanner.kind()? != Kind::String {
            scanner.skip()?;
            readable = false;
            continue;
        }
        let word = scanner.string()?;
        role = Some(if word.is("user") {
            Role::User
        } else if word.is("system") || word.is("developer") {
            Role::Author
        } else {
            Role::Other
        });
    }
    Ok(role.filter(|_| readable))
}
