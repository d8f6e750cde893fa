//! A message of OpenAI's chat completions
//! (<https://platform.openai.com/docs/api-reference/chat/create#chat-create-messages>), and of what speaks its dialect.

use super::element::{CALL, CALLS, Element, Role, elements, is_null};
use crate::json::{Invalid, Scanner};

/// Reads an object. Calls are counted, not named: results follow their calls before anybody else speaks, and where they
/// do not the upstream refuses the request, trimmed or not.
pub(super) fn element(scanner: &mut Scanner<'_>) -> Result<Element, Invalid> {
    let mut element = Element::message(scanner, |element, seen, name, scanner| {
        if name.is("tool_calls") {
            element.once(seen, CALLS);
            element.asks += elements(scanner)?;
        } else if name.is("function_call") {
            element.once(seen, CALL);
            element.asks += u32::from(!is_null(scanner)?);
        } else if name.is("thinking_blocks") || name.is("reasoning_details") {
            // How gateways hand on what Anthropic and others have signed.
            element.thinking |= elements(scanner)? > 0;
        } else {
            return Ok(false);
        }
        Ok(true)
    })?;
    element.answers = u32::from(element.role == Role::Result);
    // Of a user's message: that would be Anthropic's form.
    element.carrier = false;
    Ok(element)
}
