//! A message of OpenAI's chat completions
//! (<https://platform.openai.com/docs/api-reference/chat/create#chat-create-messages>), and of what speaks its dialect.

use super::element::{CALLS, Element, Role, elements};
use crate::json::{Invalid, Scanner};

/// Reads an object. Calls are counted, not named: results follow their calls before anybody else speaks, and where they
/// do not the upstream refuses the request, trimmed or not. A `function_call` of old may stay without a result.
pub(super) fn element(scanner: &mut Scanner<'_>) -> Result<Element, Invalid> {
    let mut element = Element::message(scanner, |element, seen, name, scanner| {
        if name.is("tool_calls") {
            element.once(seen, CALLS);
            element.asks += elements(scanner)?;
        } else if name.is("thinking_blocks") || name.is("reasoning_details") {
            // How gateways hand on what Anthropic and others have signed.
            let mut blocks = Element::default();
            blocks.content(scanner)?;
            element.thinking |= blocks.thinking;
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
