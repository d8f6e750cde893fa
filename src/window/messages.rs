//! A message of Anthropic's Messages (<https://platform.claude.com/docs/en/api/messages#body-messages>). Results of tools
//! come in the user's name, so such a message is no turn of the user's.

use super::Untouched;
use super::element::{CONTENT, Element, Once, ROLE, role};
use crate::json::{Invalid, Scanner};

/// Reads an object.
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
        } else if !element.takes(&name, scanner)? {
            scanner.skip()?;
        }
    }
    match said {
        Some(role) => element.role = role,
        None => element.step_aside(Untouched::UnreadableMessage),
    }
    Ok(element)
}
