//! `pillion presets [NAME]`: what is built in.

use std::io::Write as _;

use crate::config::presets;

/// The exit code of a command line that does not hold (`EX_USAGE`).
pub const EX_USAGE: u8 = 64;

/// Lists the presets, or prints the file of one, and returns the exit code.
pub fn run(name: Option<&str>) -> u8 {
    // A reader that went away, such as `head`, is no failure.
    let mut out = std::io::stdout();
    let Some(name) = name else {
        for name in presets::names() {
            let _ = writeln!(out, "{name:<16} {}", presets::about(name).unwrap_or_default());
        }
        return 0;
    };
    if let Some(text) = presets::text(name) {
        let _ = write!(out, "{text}");
        return 0;
    }
    let known: Vec<&str> = presets::names().collect();
    let meant = presets::nearest(name).map(|name| format!(" (did you mean {name}?)")).unwrap_or_default();
    let _ = writeln!(std::io::stderr(), "there is no preset {name}{meant}; there are: {}", known.join(", "));
    EX_USAGE
}
