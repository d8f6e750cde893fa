//! The configuration file: as written, and as meant.

use std::path::PathBuf;
use std::time::Duration;

use crate::plan::{Address, Plan};

/// The configuration as meant: resolved once, nothing re-checked later.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where it was read from; `None` for the built-in default.
    pub source: Option<PathBuf>,
    /// Data listeners that serve every route without a listener of its own.
    pub listen: Vec<Address>,
    /// The admin listener.
    pub admin: Admin,
    /// In the order written.
    pub routes: Vec<Plan>,
    /// Memory budgets.
    pub memory: Memory,
    /// Threads that serve requests.
    pub workers: usize,
    /// How long requests in flight may take to finish after SIGTERM.
    pub drain: Duration,
    /// What is logged, and how.
    pub log: Log,
    /// Further trusted roots for TLS upstreams, PEM.
    pub tls_ca: Option<PathBuf>,
    /// What the operator should know at start: overrides from the environment, routes skipped.
    pub notes: Vec<String>,
}

/// The admin listener.
#[derive(Clone, Debug)]
pub struct Admin {
    /// Where it is bound.
    pub listen: Address,
    /// Needed for all but `/metrics`, `/livez`, `/readyz` once set.
    pub token: Option<Secret>,
    /// Names accepted in `Host` besides addresses and `localhost`.
    pub hosts: Vec<String>,
}

/// Memory budgets in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// Stored responses.
    pub cache: u64,
    /// Request content held for replay.
    pub buffers: u64,
}

/// What is logged, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// A `tracing` filter directive, such as `info`.
    pub level: String,
    /// The shape of a line.
    pub format: LogFormat,
}

/// The shape of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people on a terminal, JSON elsewhere.
    Auto,
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// A value that must never be shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Keeps a value from being shown.
    pub fn new(value: String) -> Self {
        Self(value)
    }

    /// The value itself: for comparing and sending, never for showing.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}
