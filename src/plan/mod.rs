//! What is decided per route before any request comes: the plan.
//!
//! `config` builds it, `proxy` follows it. Nothing here is re-checked on the path of a request, and nothing
//! here changes while the process runs.

mod address;
mod condition;
mod path;
mod request;
mod rule;
mod scope;

pub use address::Address;
pub use condition::{Condition, Values};
pub use path::{MalformedPath, normalise, percent_decode};
pub use request::{CREDENTIALS, Request};
pub use rule::{Action, LeavesState, Matcher, Operation, Rule};
pub use scope::{Level, Source};

use std::borrow::Cow;
use std::time::Duration;

use http::{HeaderName, Method};

use crate::error::Dialect;
use crate::{retry, upstream};

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
    /// What keeps retries from becoming a storm.
    pub guard: retry::GuardPolicy,
    /// Codes in a 429 answer's `error.type`, `error.code` or `error.details.error_code` that mean "pay first":
    /// never retried.
    pub billing_codes: Vec<String>,
    /// Lines for the bot's environment; `{url}` stands for the route's address, for the banner.
    pub bot_env: Vec<String>,
    /// Some route caches answers of this upstream authority, so writes seen here move its fences.
    pub fenced: bool,
    /// The longest that a write through any route to this upstream authority takes to be seen by every search.
    pub settle: Duration,
    /// Scopes do not compare, so every write flushes all: routes with other rules share this upstream's store, or its
    /// names may be aliases of each other.
    pub flush_whole: bool,
}

/// Which of a route's rules holds. An index, so that tasks can carry it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RuleRef {
    /// The rule at this place of the list.
    Listed(usize),
    /// What GET, HEAD and OPTIONS mean where no rule matches.
    Safe,
    /// What any other method means where no rule matches.
    Unsafe,
}

impl Plan {
    /// The first rule that takes the request, whose path is normalised and stands behind the prefix.
    pub fn find_rule(&self, method: &Method, path: &str, query: Option<&str>) -> RuleRef {
        match self.rules.iter().position(|rule| rule.matcher.takes(method, path, query)) {
            Some(index) => RuleRef::Listed(index),
            // TRACE is safe by RFC 9110 section 9.2.1, but nothing here has a use for it.
            None if matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS) => RuleRef::Safe,
            None => RuleRef::Unsafe,
        }
    }

    /// The rule itself.
    pub fn rule(&self, rule: RuleRef) -> &Rule {
        match rule {
            RuleRef::Listed(index) => self.rules.get(index).unwrap_or(&self.unmatched_unsafe),
            RuleRef::Safe => &self.unmatched_safe,
            RuleRef::Unsafe => &self.unmatched_unsafe,
        }
    }

    /// The names of the levels of the scope that a request is about, the outermost first; `None` is everything below.
    /// A write whose content cannot be read is about all where a level stands there.
    pub fn scope_levels<'a>(&'a self, rule: &'a Rule, request: &Request<'a>) -> Vec<Option<Cow<'a, str>>> {
        if self.flush_whole { Vec::new() } else { rule.scope_levels(request) }
    }
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use regex::Regex;

    use super::*;

    /// A rule that passes, with this pattern and scope.
    pub(super) fn rule(path: &str, scope: Vec<Level>) -> Rule {
        let (none, second) = (Duration::ZERO, Duration::from_secs(1));
        Rule {
            name: "test".to_owned(),
            matcher: Matcher {
                methods: Vec::new(),
                path: Some(Regex::new(path).unwrap()),
                query_has: None,
                query_lacks: Vec::new(),
            },
            operation: Operation::Other,
            action: Action::Pass,
            scope,
            settled_if: None,
            pass_if: None,
            timeouts: upstream::Timeouts { connect: second, first_byte: second, idle: second, total: second },
            retry: retry::Policy {
                enabled: false,
                class: retry::Class::Other,
                attempts: 1,
                base: none,
                factor: 1.0,
                max: none,
                max_wait: none,
            },
            leaves_state: LeavesState::Never,
            not_idempotent_if: Vec::new(),
            window: None,
            reads_usage: false,
        }
    }

    #[test]
    fn a_rule_takes_what_it_names_and_lacks_what_it_must() {
        let mut matcher = rule("^/_search$", Vec::new()).matcher;
        matcher.methods = vec![Method::GET, Method::POST];
        matcher.query_lacks = vec!["scroll".to_owned(), "source".to_owned()];
        let takes = |method, path, query| matcher.takes(&method, path, query);
        assert!(takes(Method::GET, "/_search", None) && takes(Method::POST, "/_search", Some("size=1")));
        assert!(!takes(Method::PUT, "/_search", None) && !takes(Method::GET, "/search", None));
        matcher.methods.clear();
        let takes = |method, path, query| matcher.takes(&method, path, query);
        assert!(takes(Method::DELETE, "/_search", None) && !takes(Method::OPTIONS, "/_search", None));
        matcher.methods = vec![Method::GET, Method::OPTIONS];
        let takes = |method, path, query| matcher.takes(&method, path, query);
        assert!(takes(Method::OPTIONS, "/_search", None));
        for query in ["scroll=1m", "scroll", "a=1&source=%7B%7D", "a=1;scroll=1m", "scr%6Fll=1m"] {
            assert!(!takes(Method::GET, "/_search", Some(query)), "{query}");
        }
    }
}
