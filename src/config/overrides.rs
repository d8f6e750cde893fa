//! The variables that override the file: the bot's own, so that one environment serves both, and their twins that begin
//! with `PILLION_`, which win.

use std::time::Duration;

use super::Environment;
use super::problem::{Findings, KeyPath};

/// The variables, with what each does, for the reference.
pub(super) const VARIABLES: [(&str, &str); 4] = [
    (
        "VECTOR_CACHE_ENABLED",
        "`true`, `false`, `1` or `0`: `false` stops the caching of searches on every route, `true` \
      enables it except where a route sets it off",
    ),
    ("VECTOR_CACHE_TTL", "seconds that the stored answer of a search is fresh"),
    ("CONVERSATION_MAX_MESSAGES", "`window.max_messages` of every route; 0 is no limit"),
    ("CONVERSATION_TTL_HOURS", "`window.idle_ttl` of every route, in hours"),
];

/// What the environment says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Overrides {
    pub(super) cache_enabled: Option<bool>,
    pub(super) cache_ttl: Option<Duration>,
    pub(super) max_messages: Option<u32>,
    pub(super) conversation_idle: Option<Duration>,
    /// Each variable that was used, for people.
    pub(super) notes: Vec<String>,
}

const TEN_YEARS_IN_HOURS: u64 = 10 * 365 * 24;

/// Reads the environment; `compat` says whether the bot's own names count.
pub(super) fn read(env: &Environment, compat: bool, findings: &mut Findings) -> Overrides {
    let [enabled, ttl, messages, idle] = VARIABLES.map(|(name, _)| set(env, name, compat));
    let mut overrides = Overrides::default();
    if let Some((name, text)) = enabled {
        let truth = match text.to_ascii_lowercase().as_str() {
            "true" | "1" => Some(true),
            "false" | "0" => Some(false),
            _ => None,
        };
        overrides.cache_enabled =
            overrides.take(truth, &name, text, ("true, false, 1 or 0", "true"), findings);
    }
    if let Some((name, text)) = ttl {
        let wanted =
            ("a whole number of seconds, at least 1", "300; VECTOR_CACHE_ENABLED=false stops caching");
        let seconds = whole(text, 1, TEN_YEARS_IN_HOURS * 3600).map(Duration::from_secs);
        overrides.cache_ttl = overrides.take(seconds, &name, text, wanted, findings);
    }
    if let Some((name, text)) = messages {
        let count = whole(text, 0, 1_000_000).and_then(|count| u32::try_from(count).ok());
        let wanted = ("a whole number of messages, 0 for no limit", "20");
        overrides.max_messages = overrides.take(count, &name, text, wanted, findings);
    }
    if let Some((name, text)) = idle {
        let span = whole(text, 1, TEN_YEARS_IN_HOURS).map(|hours| Duration::from_secs(hours * 3600));
        let wanted = ("a whole number of hours, at least 1", "24");
        overrides.conversation_idle = overrides.take(span, &name, text, wanted, findings);
    }
    overrides
}

impl Overrides {
    fn take<T>(
        &mut self,
        read: Option<T>,
        name: &str,
        text: &str,
        (rule, suggestion): (&str, &str),
        findings: &mut Findings,
    ) -> Option<T> {
        if read.is_some() {
            self.notes.push(format!("{name}={text} from the environment overrides the configuration"));
        } else {
            findings.add_value(&KeyPath::variable(name), text, rule, suggestion);
        }
        read
    }
}

/// The twin where it is set, else the bot's own; an empty one counts as unset.
fn set<'e>(env: &'e Environment, name: &str, compat: bool) -> Option<(String, &'e str)> {
    let get = |name: String| {
        let value = env.get(&name).map(|value| value.trim()).filter(|value| !value.is_empty())?;
        Some((name, value))
    };
    get(format!("PILLION_{name}")).or_else(|| compat.then(|| get(name.to_owned())).flatten())
}

fn whole(text: &str, low: u64, high: u64) -> Option<u64> {
    text.parse().ok().filter(|number| (low..=high).contains(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_from(pairs: &[(&str, &str)], compat: bool) -> (Overrides, bool) {
        let env = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let mut findings = Findings::default();
        let overrides = read(&env, compat, &mut findings);
        (overrides, findings.is_clean())
    }

    #[test]
    fn truth_values() {
        for (text, expected, clean) in [
            ("true", Some(true), true),
            ("False", Some(false), true),
            ("1", Some(true), true),
            ("0", Some(false), true),
            ("", None, true),
            ("yes", None, false),
        ] {
            let (overrides, was_clean) = read_from(&[("VECTOR_CACHE_ENABLED", text)], true);
            assert_eq!((overrides.cache_enabled, was_clean), (expected, clean), "{text:?}");
        }
    }

    #[test]
    fn the_twin_wins_and_each_used_one_is_named() {
        let env = [
            ("VECTOR_CACHE_TTL", "300"),
            ("PILLION_VECTOR_CACHE_TTL", "60"),
            ("CONVERSATION_MAX_MESSAGES", "0"),
            ("PILLION_CONVERSATION_MAX_MESSAGES", ""),
            ("CONVERSATION_TTL_HOURS", "48"),
        ];
        let (overrides, _) = read_from(&env, true);
        assert_eq!(overrides.cache_ttl, Some(Duration::from_secs(60)));
        assert_eq!(overrides.max_messages, Some(0));
        assert_eq!(overrides.conversation_idle, Some(Duration::from_secs(48 * 3600)));
        assert_eq!(overrides.notes.len(), 3);
        assert!(overrides.notes[0].starts_with("PILLION_VECTOR_CACHE_TTL=60"), "{:?}", overrides.notes);

        let (without, _) = read_from(&env, false);
        assert_eq!((without.max_messages, without.conversation_idle), (None, None));
        assert_eq!(without.cache_ttl, Some(Duration::from_secs(60)));
    }

    #[test]
    fn nonsense_is_a_problem() {
        for (name, text) in [
            ("VECTOR_CACHE_TTL", "5m"),
            ("VECTOR_CACHE_TTL", "0"),
            ("CONVERSATION_MAX_MESSAGES", "-1"),
            ("CONVERSATION_MAX_MESSAGES", "99999999999"),
            ("CONVERSATION_TTL_HOURS", "0"),
            ("PILLION_CONVERSATION_TTL_HOURS", "1e3"),
        ] {
            assert!(!read_from(&[(name, text)], true).1, "{name}={text}");
        }
    }
}
