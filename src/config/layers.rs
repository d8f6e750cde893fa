//! One number out of several layers: the environment, the route, `defaults`, the preset, and what is built in.

use std::sync::LazyLock;
use std::time::Duration;

use super::file::{
    Breaker, Cache, Defaults, Encoding, File, Limits, Retry, Route, StopSdk, Timeouts, Window,
};
use super::overrides::Overrides;
use super::presets::Numbers;
use super::units::{Size, Time};
use crate::{plan, retry, upstream, window};

/// The values of the last layer, as a file.
pub(super) const BUILT_IN: &str = include_str!("../../config/built-in.yaml");

static BUILT_IN_FILE: LazyLock<File> = LazyLock::new(|| serde_yaml::from_str(BUILT_IN).unwrap_or_default());

/// What holds where nothing else is said. A test keeps it complete.
pub(super) fn built_in() -> &'static File {
    &BUILT_IN_FILE
}

/// What `0` becomes where it means no limit: longer than any request, short enough to be added to a time.
pub(super) const NO_LIMIT: Duration = Duration::from_secs(365 * 86_400);

/// The layers of a route, the upper first.
pub(super) struct Layers<'a> {
    pub(super) overrides: &'a Overrides,
    pub(super) route: &'a Route,
    pub(super) defaults: &'a Defaults,
    pub(super) built_in: &'a Defaults,
}

/// The first layer that has a value.
fn first<S, T: Default>(layers: &[Option<&S>], value: impl Fn(&S) -> Option<T>) -> T {
    layers.iter().flatten().find_map(|layer| value(layer)).unwrap_or_default()
}

impl Layers<'_> {
    /// The time allowed for an operation.
    pub(super) fn timeouts(&self, preset: Option<&Numbers>) -> upstream::Timeouts {
        let layers: [Option<&Timeouts>; 4] = [
            self.route.timeouts.as_ref(),
            self.defaults.timeouts.as_ref(),
            preset.and_then(|numbers| numbers.timeouts.as_ref()),
            self.built_in.timeouts.as_ref(),
        ];
        upstream::Timeouts {
            connect: first(&layers, |t| t.connect).0,
            first_byte: first(&layers, |t| t.first_byte).0,
            idle: first(&layers, |t| t.idle).0,
            total: first(&layers, |t| t.total).0,
        }
    }

    /// The retries of an operation.
    pub(super) fn retry(&self, preset: Option<&Numbers>, class: retry::Class) -> retry::Policy {
        let layers = self.retries(preset);
        retry::Policy {
            enabled: first(&layers, |r| r.enabled),
            class,
            attempts: first(&layers, |r| r.attempts).max(1),
            base: first(&layers, |r| r.base).0,
            factor: first(&layers, |r| r.factor).max(1.0),
            max: limit(first(&layers, |r| r.max)),
            max_wait: limit(first(&layers, |r| r.max_wait)),
        }
    }

    /// When the official SDKs are told to stop.
    pub(super) fn stop_sdk(&self) -> plan::StopSdk {
        match first(&self.retries(None), |r| r.stop_sdk) {
            StopSdk::Auto => plan::StopSdk::Auto,
            StopSdk::Always => plan::StopSdk::Always,
            StopSdk::Never => plan::StopSdk::Never,
        }
    }

    /// What keeps the retries of all requests to the upstream from becoming a storm.
    pub(super) fn guard(&self) -> retry::GuardPolicy {
        let layers: [Option<&Breaker>; 3] =
            [self.route.breaker.as_ref(), self.defaults.breaker.as_ref(), self.built_in.breaker.as_ref()];
        let breaker = retry::breaker::Policy {
            errors: first(&layers, |b| b.errors).0,
            requests: first(&layers, |b| b.requests).max(1),
            connects: first(&layers, |b| b.connects).max(1),
            open: first(&layers, |b| b.open).0,
            max_open: first(&layers, |b| b.max_open).0,
        };
        retry::GuardPolicy {
            budget: first(&self.retries(None), |r| r.budget).0,
            breaker: first(&layers, |b| b.enabled).then_some(breaker),
        }
    }

    fn retries<'s>(&'s self, preset: Option<&'s Numbers>) -> [Option<&'s Retry>; 4] {
        [
            self.route.retry.as_ref(),
            self.defaults.retry.as_ref(),
            preset.and_then(|numbers| numbers.retry.as_ref()),
            self.built_in.retry.as_ref(),
        ]
    }

    /// Whether searches are cached: `VECTOR_CACHE_ENABLED=false` wins over everything, `true` over all but the route.
    pub(super) fn cache_enabled(&self) -> bool {
        let route = self.route.cache.as_ref().and_then(|cache| cache.enabled);
        match (self.overrides.cache_enabled, route) {
            (Some(enabled), None | Some(true)) => enabled,
            (_, Some(false)) => false,
            (None, _) => self.embeddings_enabled(),
        }
    }

    /// Whether embeddings are cached; the environment speaks of searches only.
    pub(super) fn embeddings_enabled(&self) -> bool {
        let route = self.route.cache.as_ref().map(super::file::RouteCache::common);
        first(&self.caches(route.as_ref()), |c| c.enabled)
    }

    /// Freshness lifetime of embeddings.
    pub(super) fn embeddings_ttl(&self) -> Duration {
        let route = self.route.cache.as_ref().map(super::file::RouteCache::common);
        first(&self.caches(route.as_ref()), |c| c.embeddings_ttl).0
    }

    /// Freshness lifetime; the environment speaks of searches only.
    pub(super) fn ttl(&self, search: bool) -> Duration {
        let route = self.route.cache.as_ref().map(super::file::RouteCache::common);
        let overridden = self.overrides.cache_ttl.filter(|_| search);
        overridden.unwrap_or_else(|| first(&self.caches(route.as_ref()), |c| c.ttl).0)
    }

    /// The largest stored response; never more than the store.
    pub(super) fn max_entry(&self, store: u64) -> usize {
        let route = self.route.cache.as_ref().map(super::file::RouteCache::common);
        let Size(written) = first(&self.caches(route.as_ref()), |c| c.max_entry);
        let bytes = if written == 0 { store } else { written.min(store) };
        usize::try_from(bytes).unwrap_or(usize::MAX)
    }

    /// How long beyond its lifetime a stored response answers while the upstream fails.
    pub(super) fn stale_if_error(&self) -> Duration {
        let route = self.route.cache.as_ref().map(super::file::RouteCache::common);
        first(&self.caches(route.as_ref()), |c| c.stale_if_error).0
    }

    /// Whether the cache only watches.
    pub(super) fn shadow(&self) -> bool {
        let route = self.route.cache.as_ref().map(super::file::RouteCache::common);
        first(&self.caches(route.as_ref()), |c| c.shadow)
    }

    /// The part of hits that the upstream is asked about.
    pub(super) fn audit(&self) -> f64 {
        let route = self.route.cache.as_ref().map(super::file::RouteCache::common);
        first(&self.caches(route.as_ref()), |c| c.audit).0
    }

    fn caches<'s>(&'s self, route: Option<&'s Cache>) -> [Option<&'s Cache>; 3] {
        [route, self.defaults.cache.as_ref(), self.built_in.cache.as_ref()]
    }

    /// How conversations are trimmed.
    pub(super) fn window(&self, dialect: window::Dialect) -> window::Policy {
        let layers = self.windows();
        let messages = self.overrides.max_messages.unwrap_or_else(|| first(&layers, |w| w.max_messages));
        window::Policy {
            enabled: first(&layers, |w| w.enabled),
            shadow: first(&layers, |w| w.shadow),
            max_messages: messages as usize,
            // A step beyond the limit would leave the last turn alone.
            step: first(&layers, |w| w.step).clamp(1, if messages == 0 { u32::MAX } else { messages })
                as usize,
            max_bytes: first(&layers, |w| w.max_bytes).0,
            max_tokens: u64::from(first(&layers, |w| w.max_tokens)),
            encoding: match first(&layers, |w| w.encoding) {
                Encoding::Auto => window::Encoding::Auto,
                Encoding::O200k => window::Encoding::O200k,
                Encoding::Cl100k => window::Encoding::Cl100k,
                Encoding::Estimate => window::Encoding::Estimate,
            },
            dialect,
        }
    }

    /// When a conversation is over.
    pub(super) fn conversation_idle(&self) -> Duration {
        self.overrides.conversation_idle.unwrap_or_else(|| first(&self.windows(), |w| w.idle_ttl).0)
    }

    /// The header that names a conversation, as written.
    pub(super) fn id_header(&self) -> String {
        first(&self.windows(), |w| w.id_header.clone())
    }

    fn windows(&self) -> [Option<&Window>; 3] {
        [self.route.window.as_ref(), self.defaults.window.as_ref(), self.built_in.window.as_ref()]
    }

    /// Bounds on content.
    pub(super) fn limits(&self) -> plan::Limits {
        let layers: [Option<&Limits>; 3] =
            [self.route.limits.as_ref(), self.defaults.limits.as_ref(), self.built_in.limits.as_ref()];
        plan::Limits {
            max_body: first(&layers, |l| l.max_body).0,
            replay_body: first(&layers, |l| l.replay_body).0,
        }
    }
}

fn limit(Time(written): Time) -> Duration {
    if written.is_zero() { NO_LIMIT } else { written }
}
