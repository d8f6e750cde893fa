//! The file as written: every key may be missing. The reference and the JSON Schema are generated from these types,
//! so the comments on the keys are what users read.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use super::presets::Preset;
use super::rule::Rule;
use super::units::{Ratio, Size, Time};

/// The whole of `pillion.yaml`.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Pillion")]
pub(super) struct File {
    /// The version of this format: 1. No key of a version is ever taken away or changes its meaning. Required.
    #[schemars(required, range(min = 1, max = 1))]
    pub(super) version: Option<u32>,
    /// Where requests of the bot are accepted: `host:port` or `unix:/path`, one or a list. Port 0 lets the system choose.
    pub(super) listen: Option<OneOrMany>,
    /// The admin listener: metrics, health and switches, never on a data port.
    pub(super) admin: Option<Admin>,
    /// Redis, for sharing stored responses between processes.
    pub(super) redis: Option<Redis>,
    /// What every route starts from.
    pub(super) defaults: Option<Defaults>,
    /// What you know of services of your own: presets by name, in the language of the built-in ones, for `routes[].preset`.
    pub(super) presets: Option<BTreeMap<String, Preset>>,
    /// Where requests go. At least one.
    #[schemars(required)]
    pub(super) routes: Option<Vec<Route>>,
    /// Bounds on what is under way.
    pub(super) limits: Option<Bounds>,
    /// Memory budgets of the process.
    pub(super) memory: Option<Memory>,
    /// Threads that serve requests. Built in: the number of CPUs the process may use.
    #[schemars(range(min = 1, max = 1024))]
    pub(super) workers: Option<u32>,
    /// How long requests in flight may take to finish after SIGTERM.
    pub(super) drain: Option<Time>,
    /// What is logged, and how.
    pub(super) log: Option<Log>,
    /// TLS towards upstreams.
    pub(super) tls: Option<Tls>,
    /// Whether the bot's own variables (`VECTOR_CACHE_ENABLED` and so on) override this file. The twins that begin
    /// with `PILLION_` always do.
    pub(super) compat_env: Option<bool>,
}

/// One text or several.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum OneOrMany {
    /// One.
    One(String),
    /// Several.
    Many(Vec<String>),
}

impl OneOrMany {
    /// Each text, with its index where it stands in a list.
    pub(super) fn each(&self) -> Vec<(Option<usize>, &str)> {
        match self {
            OneOrMany::One(text) => vec![(None, text)],
            OneOrMany::Many(texts) => {
                texts.iter().enumerate().map(|(index, text)| (Some(index), text.as_str())).collect()
            }
        }
    }
}

/// The admin listener.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Admin {
    /// Where it is bound. Beyond loopback only `/metrics`, `/livez` and `/readyz` go without the token.
    pub(super) listen: Option<String>,
    /// Once set, everything but `/metrics`, `/livez` and `/readyz` needs it. Better taken from a variable.
    #[schemars(extend("x-secret" = true))]
    pub(super) token: Option<String>,
    /// Names accepted in `Host` besides addresses and `localhost`.
    pub(super) hosts: Option<Vec<String>>,
}

/// Redis, for sharing stored responses between processes. Never needed to answer.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Redis {
    /// `redis://[user:password@]host[:port][/database]`, `rediss://` for TLS, or `upstash`: the native endpoint of
    /// `UPSTASH_REDIS_REST_URL` and `UPSTASH_REDIS_REST_TOKEN`. Empty: everything stays in this process.
    #[schemars(extend("x-secret" = true))]
    pub(super) url: Option<String>,
    /// What a search waits for Redis, at most. Built in: 10ms, with `url: upstash` 100ms.
    pub(super) timeout: Option<Time>,
    /// Begins the name of every key and channel. Processes share what has the same one.
    pub(super) prefix: Option<String>,
    /// Seals what lies in Redis, and names it; long and random, the same for every process that shares. Without it the
    /// answers of searches lie there in clear.
    #[schemars(extend("x-secret" = true))]
    pub(super) secret: Option<String>,
}

/// What every route starts from. A route may say each of these for itself.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Defaults {
    /// Time allowed. Presets know better values for searches, writes, chats and embeddings.
    pub(super) timeouts: Option<Timeouts>,
    /// What is attempted again when it fails.
    pub(super) retry: Option<Retry>,
    /// When an upstream that fails is left alone.
    pub(super) breaker: Option<Breaker>,
    /// Stored responses.
    pub(super) cache: Option<Cache>,
    /// The sliding window over conversations.
    pub(super) window: Option<Window>,
    /// Bounds on content.
    pub(super) limits: Option<Limits>,
}

/// One route: a path of ours, and the service behind it.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Route {
    /// The route's name, in metrics, logs and commands. Required.
    #[schemars(required)]
    pub(super) name: Option<String>,
    /// The path prefix it takes, removed before forwarding: `/openai` takes `/openai` and `/openai/...`, not
    /// `/openaix`; the longest prefix wins. `/` where the route has a `listen` of its own, required elsewhere.
    pub(super) path: Option<String>,
    /// Addresses of its own; it is not served on the shared ones then.
    pub(super) listen: Option<OneOrMany>,
    /// Where requests go: `http://` or `https://`, a host, and a base path if the service has one. Where variables
    /// leave it empty the route is skipped. Required.
    #[schemars(required)]
    pub(super) upstream: Option<String>,
    /// What is known of the service: the name of a preset, built in (`pillion presets` lists them) or of `presets`.
    /// Missing: `http`, which knows nothing.
    pub(super) preset: Option<String>,
    /// As in `defaults`.
    pub(super) timeouts: Option<Timeouts>,
    /// As in `defaults`.
    pub(super) retry: Option<Retry>,
    /// As in `defaults`.
    pub(super) breaker: Option<Breaker>,
    /// As in `defaults`, and what holds for this store.
    pub(super) cache: Option<RouteCache>,
    /// As in `defaults`.
    pub(super) window: Option<Window>,
    /// As in `defaults`.
    pub(super) limits: Option<Limits>,
    /// What paths mean, in place of the preset's rules.
    pub(super) rules: Option<Vec<Rule>>,
}

/// Time allowed for the parts of an exchange.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Timeouts {
    /// Name resolution, TCP and TLS together.
    pub(super) connect: Option<Time>,
    /// From an attempt's request sent to its response head.
    pub(super) first_byte: Option<Time>,
    /// Between two pieces of content, in either direction.
    pub(super) idle: Option<Time>,
    /// From the request head to the response head forwarded, all attempts and back-offs included.
    pub(super) total: Option<Time>,
}

/// What is attempted again when it fails, and after how long.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Retry {
    /// Off: one attempt.
    pub(super) enabled: Option<bool>,
    /// Attempts in all, the first included.
    #[schemars(range(min = 1, max = 20))]
    pub(super) attempts: Option<u32>,
    /// The back-off before the second attempt, at most.
    pub(super) base: Option<Time>,
    /// How much each back-off grows over the one before.
    #[schemars(range(min = 1, max = 100))]
    pub(super) factor: Option<f64>,
    /// One back-off, at most. 0 is no limit.
    pub(super) max: Option<Time>,
    /// All back-offs of a request together, at most: a longer wait is not begun, the upstream's answer goes back at
    /// once. 0 is no limit.
    pub(super) max_wait: Option<Time>,
    /// How back-offs are spread: evenly between nothing and their length.
    #[expect(dead_code, reason = "there is one way only; the key is checked, and nothing is left to decide")]
    pub(super) jitter: Option<Jitter>,
    /// Retries of all requests to the upstream, as a share of its requests in the last ten seconds. Twenty retries in ten
    /// seconds are always allowed, and `100%` is no bound.
    pub(super) budget: Option<Ratio>,
    /// When `x-should-retry: false` tells the official SDKs not to retry on their own.
    pub(super) stop_sdk: Option<StopSdk>,
}

/// When an upstream that fails is left alone. Its requests are answered with 503 at once then, but for one now and then
/// that finds out whether it is back.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Breaker {
    /// Off: it is always asked.
    pub(super) enabled: Option<bool>,
    /// Opens where so many of the attempts of the last ten seconds failed: no connection, no answer in time, reset, 5xx.
    /// 4xx are answers, 429 too.
    pub(super) errors: Option<Ratio>,
    /// Fewer attempts in ten seconds are not judged. So many failures in a row open it as well, whatever was before.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub(super) requests: Option<u32>,
    /// Opens after so many connections in a row that could not be made.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub(super) connects: Option<u32>,
    /// How long until it is tried for the first time, a fifth more or less. Doubles with each trial that fails.
    pub(super) open: Option<Time>,
    /// The longest time between two trials: an upstream that is back is in use again after that.
    pub(super) max_open: Option<Time>,
}

/// How back-offs are spread.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub(super) enum Jitter {
    /// Evenly between nothing and the whole back-off.
    Full,
}

/// When the official SDKs are told not to retry on their own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub(super) enum StopSdk {
    /// Where Pillion spent its attempts, the deadline or the budget, the breaker opened meanwhile, or the 429 is about
    /// billing.
    #[default]
    Auto,
    /// On every failure they would retry.
    Always,
    /// Not at all.
    Never,
}

/// Stored responses.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Cache {
    /// Off: nothing is stored or answered from the store. Only paths that the preset knows to be searches or embeddings
    /// ever are.
    pub(super) enabled: Option<bool>,
    /// How long a stored response is fresh, less up to 5 %: what was stored together does not expire together.
    pub(super) ttl: Option<Time>,
    /// How long a stored embedding is fresh. The vector of a text changes only where the provider puts another model
    /// behind a name.
    pub(super) embeddings_ttl: Option<Time>,
    /// Larger answers are not stored. 0 is no limit but `memory.cache`.
    pub(super) max_entry: Option<Size>,
    /// How long beyond `ttl` a stored response answers when the upstream fails (5xx after all attempts, no connection, no
    /// answer in time), unless a write has passed. 0 is not at all.
    pub(super) stale_if_error: Option<Time>,
    /// Answer from the upstream always, and report what would have been a hit.
    pub(super) shadow: Option<bool>,
    /// The part of hits that the upstream is asked about in the background, to count those it answers differently.
    pub(super) audit: Option<Ratio>,
}

/// Stored responses of a route.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RouteCache {
    /// Off: nothing is stored or answered from the store. Only paths that the preset knows to be searches or embeddings
    /// ever are.
    pub(super) enabled: Option<bool>,
    /// How long a stored response is fresh, less up to 5 %: what was stored together does not expire together.
    pub(super) ttl: Option<Time>,
    /// How long a stored embedding is fresh. The vector of a text changes only where the provider puts another model
    /// behind a name.
    pub(super) embeddings_ttl: Option<Time>,
    /// Larger answers are not stored. 0 is no limit but `memory.cache`.
    pub(super) max_entry: Option<Size>,
    /// How long beyond `ttl` a stored response answers when the upstream fails (5xx after all attempts, no connection, no
    /// answer in time), unless a write has passed. 0 is not at all.
    pub(super) stale_if_error: Option<Time>,
    /// Answer from the upstream always, and report what would have been a hit.
    pub(super) shadow: Option<bool>,
    /// The part of hits that the upstream is asked about in the background, to count those it answers differently.
    pub(super) audit: Option<Ratio>,
    /// How long after a write the service may still answer searches with what was before: nothing is stored until it
    /// is over. Built in: what the preset knows, and 0 for rules of your own without one.
    pub(super) settle: Option<Time>,
    /// Whether names of the store may be aliases of each other: every write then drops everything stored of it. `false`
    /// asserts that there are none. Built in: what the preset knows.
    pub(super) aliases: Option<bool>,
    /// Whether searches that found nothing are stored, as told by `store_if.non_empty`. Built in: what the preset knows.
    pub(super) cache_empty: Option<bool>,
    /// Request headers of the bot's own that differ from call to call and change no answer. All others are part of the key,
    /// but those that are known to be of that kind (tracing, telemetry).
    pub(super) ignore_headers: Option<Vec<String>>,
}

impl RouteCache {
    /// What it shares with `defaults.cache`.
    pub(super) fn common(&self) -> Cache {
        let Self { enabled, ttl, embeddings_ttl, max_entry, stale_if_error, shadow, audit, .. } = *self;
        Cache { enabled, ttl, embeddings_ttl, max_entry, stale_if_error, shadow, audit }
    }
}

/// The sliding window over conversations.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Window {
    /// Off: conversations pass untouched.
    pub(super) enabled: Option<bool>,
    /// Report what would be left out, change nothing.
    pub(super) shadow: Option<bool>,
    /// Messages forwarded besides the leading system and developer messages. 0 is no limit.
    #[schemars(range(max = 1_000_000))]
    pub(super) max_messages: Option<u32>,
    /// The cut moves only every so many messages, so that the provider's prompt cache keeps its prefix. 1 moves it
    /// every time.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub(super) step: Option<u32>,
    /// Bytes of history forwarded. 0 is no limit.
    pub(super) max_bytes: Option<Size>,
    /// Tokens of history forwarded. 0 is no limit, and none are counted.
    #[schemars(range(max = 1_000_000_000))]
    pub(super) max_tokens: Option<u32>,
    /// How the tokens of `max_tokens` are counted.
    pub(super) encoding: Option<Encoding>,
    /// A conversation not seen for so long is over.
    pub(super) idle_ttl: Option<Time>,
    /// The request header that names the conversation. It is not forwarded.
    pub(super) id_header: Option<String>,
}

/// How tokens are counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub(super) enum Encoding {
    /// By the request's `model`; estimated where that is none of OpenAI's.
    #[default]
    Auto,
    /// GPT-4o and later.
    #[serde(rename = "o200k_base")]
    O200k,
    /// GPT-4 and GPT-3.5.
    #[serde(rename = "cl100k_base")]
    Cl100k,
    /// A token for every four bytes.
    Estimate,
}

/// Bounds on the content of requests.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Limits {
    /// Larger content is refused with 413. 0 is no limit.
    pub(super) max_body: Option<Size>,
    /// Larger content streams through: untrimmed, uncached, unretried. 0 is no limit but `memory.buffers`.
    pub(super) replay_body: Option<Size>,
}

/// Bounds on what is under way.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Bounds {
    /// Calls of one upstream at a time, until the last byte of their answers. As many again wait for a second at most;
    /// what is beyond is answered with 503. 0 is no limit.
    #[schemars(range(max = 1_000_000))]
    pub(super) max_in_flight: Option<u32>,
}

/// Memory budgets of the process.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Memory {
    /// Stored responses.
    pub(super) cache: Option<Size>,
    /// Request content held for further attempts.
    pub(super) buffers: Option<Size>,
    /// What is known of conversations. 0: nothing is.
    pub(super) conversations: Option<Size>,
}

/// What is logged, and how.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Log {
    /// `off`, `error`, `warn`, `info`, `debug` or `trace`, or directives such as `info,pillion=debug`.
    pub(super) level: Option<String>,
    /// The shape of a line.
    pub(super) format: Option<LogFormat>,
}

/// The shape of a log line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub(super) enum LogFormat {
    /// Text on a terminal, JSON elsewhere.
    #[default]
    Auto,
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// TLS towards upstreams.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Tls {
    /// A PEM file of roots trusted besides the system's.
    pub(super) ca: Option<String>,
}
