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
    /// Shared the answer of an identical request under way.
    Collapsed,
    /// Not looked up, and why.
    Bypass(Bypass),
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
    /// The content is encoded, or the request asks for a range.
    Encoded,
}

impl CacheStatus {
    /// The labels of the metric, in the order of [`CacheStatus::index`].
    pub const WORDS: [&'static str; 4] = ["hit", "miss", "collapsed", "bypass"];

    /// Position in [`CacheStatus::WORDS`].
    pub const fn index(self) -> usize {
        match self {
            CacheStatus::Hit { .. } => 0,
            CacheStatus::Miss { .. } => 1,
            CacheStatus::Collapsed => 2,
            CacheStatus::Bypass(_) => 3,
        }
    }

    /// The label of the metric, and the description in `Server-Timing`.
    pub const fn word(self) -> &'static str {
        match self {
            CacheStatus::Hit { .. } => "hit",
            CacheStatus::Miss { .. } => "miss",
            CacheStatus::Collapsed => "collapsed",
            CacheStatus::Bypass(_) => "bypass",
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
            CacheStatus::Miss { stored: true } => "pillion; fwd=miss; stored",
            CacheStatus::Miss { stored: false } => "pillion; fwd=miss",
            CacheStatus::Collapsed => "pillion; fwd=miss; collapsed",
            CacheStatus::Bypass(Bypass::Request) => "pillion; fwd=request; detail=pillion-cache",
            CacheStatus::Bypass(Bypass::Rule) => "pillion; fwd=bypass; detail=rule",
            CacheStatus::Bypass(Bypass::Write) => "pillion; fwd=bypass; detail=write",
            CacheStatus::Bypass(Bypass::Settle) => "pillion; fwd=bypass; detail=settle",
            CacheStatus::Bypass(Bypass::Size) => "pillion; fwd=bypass; detail=size",
            CacheStatus::Bypass(Bypass::Encoded) => "pillion; fwd=bypass; detail=encoded",
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
        assert_eq!(CacheStatus::Bypass(Bypass::Settle).value(), "pillion; fwd=bypass; detail=settle");
    }

    #[test]
    fn the_index_finds_the_word() {
        for status in [
            CacheStatus::Hit { ttl: 1, shared: false },
            CacheStatus::Miss { stored: false },
            CacheStatus::Collapsed,
            CacheStatus::Bypass(Bypass::Rule),
        ] {
            assert_eq!(CacheStatus::WORDS[status.index()], status.word());
        }
    }
}
