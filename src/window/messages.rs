//! A message of Anthropic's Messages (<https://platform.claude.com/docs/en/api/messages#body-messages>). Results of tools
//! come in the user's name, so such a message is no turn of the user's.

use super::element::Element;
use crate::json::{Invalid, Scanner};

/// Reads an object. What its blocks are is told where blocks are read.
pub(super) fn element(scanner: &mut Scanner<'_>) -> Result<Element, Invalid> {
    Element::message(scanner, |_, _, _, _| Ok(false))
}
