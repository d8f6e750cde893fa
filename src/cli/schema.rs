//! `pillion schema`: the JSON Schema of the configuration, for editors.

use std::io::Write as _;

use crate::config::reference;

/// Prints the schema and returns the exit code.
pub fn run() -> u8 {
    // A reader that went away, such as `head`, is no failure.
    let _ = write!(std::io::stdout(), "{}", reference::schema_json());
    0
}
