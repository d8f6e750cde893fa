//! What the cache did with a request, as RFC 9211 tells it.

use http::HeaderValue;

use super::text::Text;

/// What the cache did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheStatus {
    /// Answered from a stored response that may be used for so many seconds more.
    Hit {
        /// Seconds.
        ttl: u64,
        /// It was found in Redis, not in this process.
        shared: bool,
    },
    /// Asked upstream because nothing usable was stored.
    Miss {
        /// The answer was stored.
        stored: bool,
    },
    /// Asked upstream for what was not stored of a batch.
    Batch {
        /// All that was asked for was stored.
        stored: bool,
        /// How many of the batch were stored before.
        known: u32,
        /// How many it has.
        of: u32,
    },
    /// Shared the answer of an identical request under way.
    Collapsed,
    /// Not looked up, and why.
    Bypass(Bypass),
    /// The upstream was asked and failed; answered from a stored response that is no longer fresh.
    Stale {
        /// What the upstream answered; `None` when it did not.
        status: Option<u16>,
    },
}

/// Why the cache was not asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bypass {
    /// The request asked so (`Pillion-Cache`).
    Request,
    /// The rule does not cache.
    Rule,
    /// The request changes the store.
    Write,
    /// A write is under way or the store still settles: asked upstream, and not stored.
    Settle,
    /// The content was too large to be read.
    Size,
    /// The content is not of a form that is understood.
    Content,
    /// The content is encoded, or the request asks for a range.
    Encoded,
    /// The cache only watches (`cache.shadow`): what came of the hit that it would have been, `None` where it would have
    /// been a miss.
    Shadow(Option<Compared>),
}

/// What came of holding a stored response against the upstream's own answer to the same request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compared {
    /// They say the same.
    Equal,
    /// They do not, and no write that Pillion has seen explains it.
    Different,
    /// They do not, and a write has passed since.
    Overtaken,
    /// The upstream did not answer with a whole 200.
    Incomparable,
}

impl Compared {
    /// The labels of hits that the upstream was asked about, in the order of the variants; then of those that it was not
    /// asked about, because too many were under way.
    pub const AUDIT_WORDS: [&'static str; 5] = ["equal", "different", "overtaken", "incomparable", "skipped"];

    /// The same of hits that would have been; then of those that would have been misses.
    pub const SHADOW_WORDS: [&'static str; 5] = ["equal", "different", "overtaken", "incomparable", "miss"];

    /// The place of what is behind the variants in both lists.
    pub const NONE: usize = 4;
}

impl CacheStatus {
    /// The labels of the metric, in the order of [`CacheStatus::index`].
    pub const WORDS: [&'static str; 5] = ["hit", "miss", "collapsed", "bypass", "stale"];

    /// Position in [`CacheStatus::WORDS`].
    pub const fn index(self) -> usize {
        match self {
            CacheStatus::Hit { .. } => 0,
            CacheStatus::Miss { .. } | CacheStatus::Batch { .. } => 1,
            CacheStatus::Collapsed => 2,
            CacheStatus::Bypass(_) => 3,
            CacheStatus::Stale { .. } => 4,
        }
    }

    /// The label of the metric, and the description in `Server-Timing`.
    pub const fn word(self) -> &'static str {
        match self {
            CacheStatus::Hit { .. } => "hit",
            CacheStatus::Miss { .. } | CacheStatus::Batch { .. } => "miss",
            CacheStatus::Collapsed => "collapsed",
            CacheStatus::Bypass(_) => "bypass",
            CacheStatus::Stale { .. } => "stale",
        }
    }

    /// Our member of `Cache-Status`.
    pub fn value(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            CacheStatus::Hit { ttl, shared } => {
                let mut text = Text::default();
                text.push("pillion; hit; ttl=");
                text.digits(ttl, 1);
                if shared {
                    text.push("; detail=redis");
                }
                return text.value().unwrap_or(HeaderValue::from_static("pillion; hit"));
            }
            CacheStatus::Batch { stored, known, of } => {
                let mut text = Text::default();
                text.push("pillion; fwd=miss");
                text.push(if stored { "; stored" } else { "" });
                // A string: a token does not begin with a digit (RFC 9211 section 2.8).
                text.push("; detail=\"");
                text.digits(u64::from(known), 1);
                text.push("/");
                text.digits(u64::from(of), 1);
                text.push("\"");
                return text.value().unwrap_or(HeaderValue::from_static("pillion; fwd=miss"));
            }
            CacheStatus::Miss { stored: true } => "pillion; fwd=miss; stored",
            CacheStatus::Miss { stored: false } => "pillion; fwd=miss",
            CacheStatus::Collapsed => "pillion; fwd=miss; collapsed",
            CacheStatus::Bypass(Bypass::Request) => "pillion; fwd=request; detail=pillion-cache",
            CacheStatus::Bypass(Bypass::Rule) => "pillion; fwd=bypass; detail=rule",
            CacheStatus::Bypass(Bypass::Write) => "pillion; fwd=bypass; detail=write",
            CacheStatus::Bypass(Bypass::Settle) => "pillion; fwd=bypass; detail=settle",
            CacheStatus::Bypass(Bypass::Size) => "pillion; fwd=bypass; detail=size",
            CacheStatus::Bypass(Bypass::Content) => "pillion; fwd=bypass; detail=content",
            CacheStatus::Bypass(Bypass::Encoded) => "pillion; fwd=bypass; detail=encoded",
            CacheStatus::Bypass(Bypass::Shadow(compared)) => match compared {
                None => "pillion; fwd=bypass; detail=shadow-miss",
                Some(Compared::Equal) => "pillion; fwd=bypass; detail=shadow-equal",
                Some(Compared::Different) => "pillion; fwd=bypass; detail=shadow-different",
                Some(Compared::Overtaken) => "pillion; fwd=bypass; detail=shadow-overtaken",
                Some(Compared::Incomparable) => "pillion; fwd=bypass; detail=shadow-incomparable",
            },
            CacheStatus::Stale { status: None } => "pillion; fwd=stale; detail=stale-if-error",
            CacheStatus::Stale { status: Some(status) } => {
                let mut text = Text::default();
                text.push("pillion; fwd=stale; fwd-status=");
                text.digits(status.into(), 3);
                text.push("; detail=stale-if-error");
                return text.value().unwrap_or(HeaderValue::from_static("pillion; fwd=stale"));
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_forms_of_rfc_9211() {
        assert_eq!(CacheStatus::Hit { ttl: 287, shared: false }.value(), "pillion; hit; ttl=287");
        assert_eq!(CacheStatus::Hit { ttl: 0, shared: false }.value(), "pillion; hit; ttl=0");
        assert_eq!(
            CacheStatus::Hit { ttl: u64::MAX, shared: false }.value(),
            "pillion; hit; ttl=18446744073709551615"
        );
        assert_eq!(
            CacheStatus::Hit { ttl: 287, shared: true }.value(),
            "pillion; hit; ttl=287; detail=redis"
        );
        assert_eq!(CacheStatus::Miss { stored: true }.value(), "pillion; fwd=miss; stored");
        let batch = |stored| CacheStatus::Batch { stored, known: 90, of: 100 }.value();
        assert_eq!(batch(true), "pillion; fwd=miss; stored; detail=\"90/100\"");
        assert_eq!(batch(false), "pillion; fwd=miss; detail=\"90/100\"");
        assert_eq!(CacheStatus::Bypass(Bypass::Settle).value(), "pillion; fwd=bypass; detail=settle");
        let stale = |status| CacheStatus::Stale { status }.value();
        assert_eq!(stale(Some(503)), "pillion; fwd=stale; fwd-status=503; detail=stale-if-error");
        assert_eq!(stale(None), "pillion; fwd=stale; detail=stale-if-error");
        for (compared, word) in
            [Compared::Equal, Compared::Different, Compared::Overtaken, Compared::Incomparable]
                .into_iter()
                .zip(Compared::SHADOW_WORDS)
        {
            let status = CacheStatus::Bypass(Bypass::Shadow(Some(compared)));
            assert_eq!(status.value(), format!("pillion; fwd=bypass; detail=shadow-{word}"));
            assert_eq!(Compared::SHADOW_WORDS[compared as usize], Compared::AUDIT_WORDS[compared as usize]);
        }
    }

    #[test]
    fn the_index_finds_the_word() {
        for status in [
            CacheStatus::Hit { ttl: 1, shared: false },
            CacheStatus::Miss { stored: false },
            CacheStatus::Batch { stored: true, known: 1, of: 2 },
            CacheStatus::Collapsed,
            CacheStatus::Bypass(Bypass::Rule),
            CacheStatus::Stale { status: None },
        ] {
            assert_eq!(CacheStatus::WORDS[status.index()], status.word());
        }
    }
}
