//! How long a connection may lie unused: less than the upstream keeps it, so that it does not end under a request.

use std::time::Duration;

use http::{HeaderMap, header::HeaderName};
use tokio::time::Instant;

/// Of an upstream that does not tell: most keep theirs for a minute or more.
const UNTOLD: Duration = Duration::from_secs(30);
/// What is learnt is no shorter. Upstreams that restart end connections of any age.
const SHORTEST: Duration = Duration::from_secs(1);
/// What was learnt is forgotten by half in this time: each such time without another lesson doubles the patience.
const HALF_LIFE: Duration = Duration::from_secs(60);

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");

/// What `Keep-Alive: timeout=N` says (RFC 2068 section 19.7.1 names the field, and no later RFC): how long to keep the connection.
pub(super) fn told(headers: &HeaderMap) -> Option<Duration> {
    let parameters = headers.get(KEEP_ALIVE)?.to_str().ok()?;
    parameters.split(',').find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        let seconds = value.trim().trim_matches('"').parse().ok()?;
        name.trim().eq_ignore_ascii_case("timeout").then(|| ahead_of(Duration::from_secs(seconds)))
    })
}

/// A second before, or a fifth of a short time.
fn ahead_of(end: Duration) -> Duration {
    end.saturating_sub((end / 5).min(Duration::from_secs(1)))
}

/// What the ends of idle connections have taught about an upstream.
#[derive(Debug, Default)]
pub(super) struct Patience(Option<(Duration, Instant)>);

impl Patience {
    /// How long a connection may be idle whose upstream has told this, or nothing.
    pub(super) fn limit(&self, told: Option<Duration>, now: Instant) -> Duration {
        let limit = told.unwrap_or(UNTOLD);
        self.learnt(now).map_or(limit, |learnt| limit.min(learnt))
    }

    /// The upstream has ended a connection that was idle for so long.
    pub(super) fn learn(&mut self, idle: Duration, now: Instant) {
        let lesson = ahead_of(idle).max(SHORTEST);
        if self.learnt(now).is_none_or(|learnt| lesson <= learnt) {
            self.0 = Some((lesson, now));
        }
    }

    fn learnt(&self, now: Instant) -> Option<Duration> {
        let (limit, at) = self.0?;
        let halvings = now.saturating_duration_since(at).as_secs() / HALF_LIFE.as_secs();
        (halvings < 16).then(|| limit * (1 << halvings))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    #[test]
    fn keep_alive_is_read_and_undercut() {
        for (value, limit) in [
            ("timeout=5", Some(4 * S)),
            ("timeout=5, max=100", Some(4 * S)),
            ("max=100, Timeout = \"60\"", Some(59 * S)),
            ("timeout=2", Some(S * 8 / 5)),
            ("timeout=0", Some(Duration::ZERO)),
            ("timeout=-1", None),
            ("timeout", None),
            ("max=5", None),
            ("", None),
        ] {
            let headers = HeaderMap::from_iter([(KEEP_ALIVE, value.parse().unwrap())]);
            assert_eq!(told(&headers), limit, "{value}");
        }
        assert_eq!(told(&HeaderMap::new()), None);
    }

    #[test]
    fn what_was_learnt_undercuts_what_was_told_and_wears_off() {
        let now = Instant::now();
        let mut patience = Patience::default();
        assert_eq!((patience.limit(None, now), patience.limit(Some(75 * S), now)), (30 * S, 75 * S));
        patience.learn(10 * S, now);
        assert_eq!((patience.limit(None, now), patience.limit(Some(75 * S), now)), (9 * S, 9 * S));
        assert_eq!(patience.limit(Some(4 * S), now), 4 * S);
        // A longer one says nothing new, a shorter one does.
        patience.learn(20 * S, now);
        patience.learn(6 * S, now);
        assert_eq!(patience.limit(None, now), 5 * S);
        assert_eq!(patience.limit(None, now + 59 * S), 5 * S);
        assert_eq!(patience.limit(None, now + 60 * S), 10 * S);
        assert_eq!(patience.limit(None, now + 240 * S), 30 * S);
        assert_eq!(patience.limit(Some(1000 * S), now + 3600 * S), 1000 * S);
        // Never less than a second.
        patience.learn(Duration::from_millis(3), now);
        assert_eq!(patience.limit(None, now), S);
    }
}
