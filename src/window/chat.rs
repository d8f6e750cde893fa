//! A message of OpenAI's chat completions
//! (<https://platform.openai.com/docs/api-reference/chat/create#chat-create-messages>), and of what speaks its dialect.

use super::Untouched;
use super::element::{CALL, CALLS, CONTENT, Element, Once, ROLE, Role, elements, is_null, role};
use crate::json::{Invalid, Scanner};

/// Reads an object. Calls are counted, not named: results follow their calls before anybody else speaks, and where they
/// do not the upstream refuses the request, trimmed or not.
pub(super) fn element(scanner: &mut Scanner<'_>) -> Result<Element, Invalid> {
    let mut element = Element::default();
    let (mut seen, mut said) = (Once::default(), None);
    let mut members = scanner.object()?;
    while let Some(name) = members.next(scanner)? {
        if name.is("role") {
            element.once(&mut seen, ROLE);
            said = role(scanner)?;
        } else if name.is("content") {
            element.once(&mut seen, CONTENT);
            element.content(scanner)?;
        } else if name.is("tool_calls") {
            element.once(&mut seen, CALLS);
            element.asks += elements(scanner)?;
        } else if name.is("function_call") {
            element.once(&mut seen, CALL);
            element.asks += u32::from(!is_null(scanner)?);
        } else if name.is("thinking_blocks") || name.is("reasoning_details") {
            // How gateways hand on what Anthropic and others have signed.
            element.thinking |= elements(scanner)? > 0;
        } else if !element.takes(&name, scanner)? {
            scanner.skip()?;
        }
    }
    match said {
        Some(role) => element.role = role,
        None => element.step_aside(Untouched::UnreadableMessage),
    }
    element.answers = u32::from(said == Some(Role::Result));
    // Of a user's message: that would be Anthropic's form.
    element.carrier = false;
    Ok(element)
}
