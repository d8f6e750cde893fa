//! What is decided per route before any request comes: the plan.
//!
//! `config` builds it, `proxy` follows it. Nothing here is re-checked on the path of a request, and nothing
//! here changes while the process runs.

mod address;
mod path;
mod rule;

pub use address::Address;
pub use path::{MalformedPath, normalise, percent_decode};
pub use rule::{Action, LeavesState, Level, Matcher, Operation, Rule};

use std::time::Duration;

use http::HeaderName;

use crate::error::Dialect;
use crate::upstream;

/// All that is decided for one route.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The route's name: label, log word, argument of commands.
    pub name: String,
    /// Matched path prefix without a trailing slash; empty for `/`.
    pub prefix: String,
    /// Listeners of its own; empty when it lives on the shared ones.
    pub listen: Vec<Address>,
    /// Where requests go.
    pub upstream: upstream::Target,
    /// The preset it was built from.
    pub preset: String,
    /// How errors of ours are spoken.
    pub dialect: Dialect,
    /// In order; the first that matches holds.
    pub rules: Vec<Rule>,
    /// What GET, HEAD and OPTIONS mean where no rule matches.
    pub unmatched_safe: Rule,
    /// What any other method means where no rule matches: on a store, a write of everything.
    pub unmatched_unsafe: Rule,
    /// Bounds on content.
    pub limits: Limits,
    /// Names the conversation; not forwarded.
    pub id_header: HeaderName,
    /// A conversation not seen for so long is over.
    pub conversation_idle: Duration,
    /// When `x-should-retry: false` is added.
    pub stop_sdk: StopSdk,
    /// Codes in a 429 answer's `error.type`, `error.code` or `error.details.error_code` that mean "pay first":
    /// never retried.
    pub billing_codes: Vec<String>,
    /// Lines for the bot's environment; `{url}` stands for the route's address, for the banner.
    pub bot_env: Vec<String>,
    /// Some route caches answers of this upstream authority, so writes seen here move its fences.
    pub fenced: bool,
    /// Routes with other rules share this upstream's store: scopes do not compare, every write flushes all.
    pub flush_whole: bool,
}

/// Bounds on the content of requests, in bytes; 0 is no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Larger content is refused with 413.
    pub max_body: u64,
    /// Larger content streams through: untrimmed, uncached, unretried.
    pub replay_body: u64,
}

/// When the answer tells the official SDKs not to retry on their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum StopSdk {
    /// Where Pillion spent its attempts, the deadline is over, or the 429 is about billing.
    #[default]
    Auto,
    /// On every failure they would retry.
    Always,
    /// Not at all.
    Never,
}
