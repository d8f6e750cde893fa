//! `pillion presets [NAME]`: what is built in, and what the file brings.

use std::io::Write as _;
use std::path::Path;

use super::check::EX_CONFIG;
use crate::config::{self, Environment, presets};

/// The exit code of a command line that does not hold (`EX_USAGE`).
pub const EX_USAGE: u8 = 64;

/// Lists the presets, or prints one, and returns the exit code.
pub fn run(name: Option<&str>, config: Option<&Path>, env: &Environment) -> u8 {
    // A reader that went away, such as `head`, is no failure.
    let (mut out, mut complaints) = (std::io::stdout(), std::io::stderr());
    // What is built in needs no file.
    if let Some(text) = name.and_then(presets::text) {
        let _ = write!(out, "{text}");
        return 0;
    }
    let own = match config::own_presets(config, env) {
        Ok(own) => own,
        Err(problems) => {
            let _ = writeln!(complaints, "{problems}");
            return EX_CONFIG;
        }
    };
    let Some(name) = name else {
        for name in presets::names() {
            let _ = writeln!(out, "{name:<16} {}", presets::about(name).unwrap_or_default());
        }
        for preset in &own {
            let _ = writeln!(out, "{:<16} {}", preset.name, preset.about);
        }
        return 0;
    };
    if let Some(preset) = own.iter().find(|preset| preset.name == name) {
        let _ = write!(out, "{}", preset.text);
        return 0;
    }
    let mut known: Vec<&str> = presets::names().collect();
    known.extend(own.iter().map(|preset| preset.name.as_str()));
    let meant = presets::nearest(name, known.iter().copied());
    let meant = meant.map(|name| format!(" (did you mean {name}?)")).unwrap_or_default();
    let _ = writeln!(complaints, "there is no preset {name}{meant}; there are: {}", known.join(", "));
    EX_USAGE
}
