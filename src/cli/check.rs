//! `pillion check`: what is in force, or everything that is wrong with it.

use std::io::Write as _;
use std::path::Path;

use crate::config::{self, Environment};

/// The exit code of a configuration that does not hold (`EX_CONFIG`).
pub const EX_CONFIG: u8 = 78;

/// Prints the effective configuration, or every problem, and returns the exit code.
pub fn run(config: Option<&Path>, env: &Environment) -> u8 {
    match config::load(config, env) {
        Ok(config) => {
            // A reader that went away, such as `head`, is no failure.
            let _ = write!(std::io::stdout(), "{}", config::effective(&config));
            0
        }
        Err(problems) => {
            let _ = writeln!(std::io::stderr(), "{problems}");
            EX_CONFIG
        }
    }
}
