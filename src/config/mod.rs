//! The configuration file: as written, and as meant.
//!
//! The text is parsed (`serde_yaml`), variables are expanded (`expand`), every mistake is found beside the schema
//! (`check`), what remains is read into the types of the file (`file`), and layers are laid over each other until each
//! route is a [`Plan`] (`resolve`). Nothing wrong is let through, and nothing stops at the first mistake.

mod check;
mod effective;
mod expand;
mod file;
pub mod handbook;
mod layers;
mod listeners;
mod locate;
mod overrides;
pub mod presets;
mod problem;
pub mod reference;
mod resolve;
mod rule;
pub mod units;

pub use effective::effective;
pub use problem::{Problem, Problems};

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use self::problem::{Findings, KeyPath};
use crate::plan::{Address, Plan};
use crate::redis;

/// The variables of the process, taken once: tests bring their own.
pub type Environment = BTreeMap<String, String>;

/// The file of an installation without one.
pub const DEFAULT: &str = include_str!("../../config/pillion.yaml");

/// Where the file is looked for when none is named, after `$PILLION_CONFIG`.
const PLACES: [&str; 2] = ["./pillion.yaml", "/etc/pillion/pillion.yaml"];

/// Reads the file at `path`; without one that of `$PILLION_CONFIG`, `./pillion.yaml`, `/etc/pillion/pillion.yaml`, and
/// the built-in default when there is none.
pub fn load(path: Option<&Path>, env: &Environment) -> Result<Config, Problems> {
    let Some(path) = find(path, env) else { return parse(DEFAULT, None, env) };
    match std::fs::read_to_string(&path) {
        Ok(text) => parse(&text, Some(path), env),
        Err(error) => Err(Problems::single(Some(path), None, format!("it cannot be read: {error}"))),
    }
}

/// The file that [`load`] reads; `None` for the built-in default.
fn find(path: Option<&Path>, env: &Environment) -> Option<PathBuf> {
    let named = env.get("PILLION_CONFIG").filter(|path| !path.is_empty()).map(PathBuf::from);
    let found = || PLACES.iter().map(PathBuf::from).find(|place| place.exists());
    path.map(Path::to_path_buf).or(named).or_else(found)
}

/// A preset of the file's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnPreset {
    /// What `preset:` takes.
    pub name: String,
    /// One sentence, if it has one.
    pub about: String,
    /// What the file says of it.
    pub text: String,
}

/// The presets that the file brings, without a look at anything else in it.
pub fn own_presets(path: Option<&Path>, env: &Environment) -> Result<Vec<OwnPreset>, Problems> {
    let Some(path) = find(path, env) else { return Ok(Vec::new()) };
    let text = std::fs::read_to_string(&path)
        .map_err(|error| Problems::single(Some(path.clone()), None, format!("it cannot be read: {error}")))?;
    let file: serde_yaml::Value = serde_yaml::from_str(&text)
        .map_err(|error| Problems::single(Some(path), None, format!("this is not valid YAML: {error}")))?;
    let presets = file.get("presets").and_then(serde_yaml::Value::as_mapping);
    let own = presets.into_iter().flatten().filter_map(|(name, preset)| {
        Some(OwnPreset {
            name: name.as_str()?.to_owned(),
            about: preset.get("about").and_then(serde_yaml::Value::as_str).unwrap_or_default().to_owned(),
            text: serde_yaml::to_string(preset).ok()?,
        })
    });
    Ok(own.collect())
}

/// Reads a text. `source` is where it came from, for messages.
pub fn parse(text: &str, source: Option<PathBuf>, env: &Environment) -> Result<Config, Problems> {
    let mut value: serde_yaml::Value = match serde_yaml::from_str(text) {
        Ok(value) => value,
        Err(error) => {
            let line = error.location().map(|location| location.line());
            return Err(Problems::single(source, line, format!("this is not valid YAML: {error}")));
        }
    };
    if !value.is_mapping() && !value.is_null() {
        return Err(Problems::single(
            source,
            None,
            "a configuration is a mapping of keys: `version: 1` and so on".to_owned(),
        ));
    }
    let mut findings = Findings::default();
    expand::expand(&mut value, &KeyPath::root(), env, &mut findings);
    let value = check::check(value, &reference::schema(), &mut findings);
    let config = match serde_yaml::from_value(value) {
        Ok(file) => resolve::resolve(&file, env, &mut findings),
        Err(error) => {
            // The walk lets nothing through that the types refuse; if it ever does, this says so.
            findings.add_plain(&KeyPath::root(), error.to_string());
            None
        }
    };
    match config {
        Some(config) if findings.is_clean() => Ok(Config { source, ..config }),
        _ => Err(findings.into_problems(text, source)),
    }
}

/// The configuration as meant: resolved once, nothing re-checked later.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where it was read from; `None` for the built-in default.
    pub source: Option<PathBuf>,
    /// Data listeners that serve every route without a listener of its own.
    pub listen: Vec<Address>,
    /// The admin listener.
    pub admin: Admin,
    /// A Redis to share with other processes.
    pub redis: Option<Redis>,
    /// In the order written.
    pub routes: Vec<Plan>,
    /// Memory budgets.
    pub memory: Memory,
    /// Calls of one upstream at a time; 0 is no limit.
    pub max_in_flight: u32,
    /// Threads that serve requests.
    pub workers: usize,
    /// How long requests in flight may take to finish after SIGTERM.
    pub drain: Duration,
    /// What is logged, and how.
    pub log: Log,
    /// Further trusted roots for TLS upstreams, PEM.
    pub tls_ca: Option<PathBuf>,
    /// What the operator should know at start: overrides from the environment, routes skipped, stores that may be confused.
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

/// A Redis to share with other processes.
#[derive(Clone, Debug)]
pub struct Redis {
    /// Where it is, and who we are there.
    pub address: redis::Address,
    /// The address as it may be shown.
    pub shown: String,
    /// What a search waits for it, at most.
    pub timeout: Duration,
    /// Begins every key and channel.
    pub prefix: String,
    /// Seals what lies there.
    pub secret: Option<Secret>,
}

/// Memory budgets in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// Stored responses.
    pub cache: u64,
    /// Request content held for replay.
    pub buffers: u64,
    /// What is known of conversations; 0: nothing is.
    pub conversations: u64,
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
