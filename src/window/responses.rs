//! An item of OpenAI's Responses (<https://platform.openai.com/docs/api-reference/responses/create#responses-create-input>).

use super::Untouched;
use super::element::{CONTENT, Element, Once, ROLE, Role, TYPE, is_null, role};
use crate::json::{Invalid, Kind, Scanner};

/// Calls whose results come as items of their own, wherever: the upstream finds them by `call_id`. Those of hosted tools
/// (`web_search_call` and its like) have theirs in them.
const CALLS: [&[u8]; 6] = [
    b"function_call",
    b"custom_tool_call",
    b"computer_call",
    b"local_shell_call",
    b"shell_call",
    b"apply_patch_call",
];

/// What the bot's author says in another form than a message: it belongs to the head where it leads.
const SETTINGS: [&[u8]; 2] = [b"additional_tools", b"configuration_update"];

/// Its result is a picture, not text.
pub(super) const PICTURE: &[u8] = b"image_generation_call";

/// Results of what may stay without one, since the upstream may run it itself: nothing waits for them.
const UNASKED: [&[u8]; 2] = [b"tool_search_output", b"program_output"];

/// Reads an object.
pub(super) fn element(scanner: &mut Scanner<'_>) -> Result<Element, Invalid> {
    let mut element = Element::default();
    let (mut seen, mut said, mut is, mut id, mut result) = (Once::default(), None, None, false, 0);
    let mut members = scanner.object()?;
    while let Some(name) = members.next(scanner)? {
        if name.is("type") {
            element.once(&mut seen, TYPE);
            if scanner.kind()? == Kind::String {
                is = Some(scanner.string()?);
            } else if !is_null(scanner)? {
                element.step_aside(Untouched::UnreadableMessage);
            }
        } else if name.is("role") {
            element.once(&mut seen, ROLE);
            said = role(scanner)?;
        } else if name.is("content") || name.is("output") {
            element.once(&mut seen, CONTENT);
            element.content(scanner)?;
        } else if name.is("id") {
            id = !is_null(scanner)?;
        } else if name.is("result") {
            result = scanner.skip()?.len() as u64;
        } else if !element.takes(&name, scanner)? {
            scanner.skip()?;
        }
    }
    (element.carrier, element.thinking) = (false, false);
    let Some(is) = is.filter(|is| !is.is("message")) else {
        match said {
            Some(role) => element.role = role,
            // An item may be named by its identifier alone.
            None if id && is.is_none() => element.step_aside(Untouched::ItemReference),
            None => element.step_aside(Untouched::UnreadableMessage),
        }
        return Ok(element);
    };
    let Some(word) = is.decode() else {
        element.step_aside(Untouched::UnreadableMessage);
        return Ok(element);
    };
    element.role = Role::Other;
    if SETTINGS.contains(&&*word) {
        element.role = Role::Author;
    } else if *word == *PICTURE {
        element.opaque += result;
    } else if *word == *b"reasoning" {
        element.thinking = true;
    } else if *word == *b"item_reference" {
        element.step_aside(Untouched::ItemReference);
    } else if word.starts_with(b"compaction") {
        element.step_aside(Untouched::Compaction);
    } else if CALLS.contains(&&*word) {
        element.opens = 1;
    } else if *word == *b"mcp_approval_request" {
        // The user may pass over it: once the assistant speaks again, nobody waits for an answer.
        element.asks = 1;
    } else if *word == *b"mcp_approval_response" {
        element.answers = 1;
    } else if word.ends_with(b"_output") && !UNASKED.contains(&&*word) {
        element.closes = 1;
    }
    Ok(element)
}
