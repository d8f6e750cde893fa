//! Which header fields of a request are part of its key: all of them, but those that are known not to change an answer.
//!
//! Services, and the gateways in front of them, each have fields of their own for who asks, and for what is to answer. One
//! that nobody here has heard of must cost a hit, not show one tenant another's answers: so what is listed is what is
//! left out.
//!
//! Fields are looked at as they are forwarded. What Pillion takes off (those of the connection, `Expect`, `Pillion-*`, the
//! conversation's id) is not seen by the upstream either, and needs no line here.

use http::HeaderName;

use super::Stream;
use crate::cache::Policy;

/// How the message goes: where to, how long, in what coding (`identity` is asked for), when. What the content is, is in
/// the key itself. And what clients say to caches or of their patience, whatever they ask: one official SDK says
/// `no-cache` with every call.
const OF_THE_MESSAGE: [&str; 9] = [
    "accept-encoding",
    "cache-control",
    "content-length",
    "date",
    "host",
    "pragma",
    "priority",
    "request-timeout",
    "via",
];

/// Name the one request, or the trace it is part of: they differ each time.
const OF_THE_TRACE: [&str; 19] = [
    "b3",
    "baggage",
    "elastic-apm-traceparent",
    "grpc-trace-bin",
    "idempotency-key",
    "newrelic",
    "request-id",
    "sentry-trace",
    "traceparent",
    "tracestate",
    "uber-trace-id",
    "x-amzn-trace-id",
    "x-client-request-id",
    "x-cloud-trace-context",
    "x-correlation-id",
    "x-ms-client-request-id",
    "x-opaque-id",
    "x-request-id",
    "x-trace-id",
];

/// What the official clients tell of themselves: their version, their language, the machine.
const OF_THE_CLIENT: [&str; 5] =
    ["user-agent", "x-client-info", "x-elastic-client-meta", "x-goog-api-client", "x-weaviate-client"];

/// The same of those that have many: traces of Zipkin and Datadog, clients of Upstash and those that Stainless makes
/// (OpenAI's, Anthropic's, turbopuffer's).
const BEGINNINGS: [&str; 4] = ["upstash-telemetry-", "x-b3-", "x-datadog-", "x-stainless-"];

const COUNT: usize = OF_THE_MESSAGE.len() + OF_THE_TRACE.len() + OF_THE_CLIENT.len();
/// No name is longer.
const LONGEST: usize = 23;

/// Every field of every request is looked up: a name is compared with the few that are as long.
static LEFT_OUT: ByLength = ByLength::of([&OF_THE_MESSAGE, &OF_THE_TRACE, &OF_THE_CLIENT]);

struct ByLength {
    names: [&'static str; COUNT],
    /// By length: where names of it begin. Behind the last: where they end.
    begin: [usize; LONGEST + 2],
}

impl ByLength {
    #[expect(clippy::indexing_slicing, reason = "the compiler runs it, and stops where it is out of bounds")]
    const fn of(groups: [&[&'static str]; 3]) -> Self {
        let mut sorted = Self { names: [""; COUNT], begin: [0; LONGEST + 2] };
        let (mut length, mut count) = (0, 0);
        while length <= LONGEST {
            let mut group = 0;
            while group < groups.len() {
                let mut names = groups[group];
                while let [name, rest @ ..] = names {
                    if name.len() == length {
                        sorted.names[count] = name;
                        count += 1;
                    }
                    names = rest;
                }
                group += 1;
            }
            length += 1;
            sorted.begin[length] = count;
        }
        assert!(count == COUNT, "a name is longer than LONGEST");
        sorted
    }

    fn has(&self, name: &str) -> bool {
        let (begin, end) = (self.begin.get(name.len()), self.begin.get(name.len() + 1));
        let (Some(begin), Some(end)) = (begin, end) else { return false };
        self.names.get(*begin..*end).is_some_and(|names| names.contains(&name))
    }
}

/// Whether a field of this name, in lower case, is known not to change an answer.
fn is_left_out(name: &str) -> bool {
    LEFT_OUT.has(name) || BEGINNINGS.iter().any(|beginning| name.starts_with(beginning))
}

/// Which fields count under one policy.
#[derive(Clone)]
pub(super) struct Fields {
    /// Though they are left out otherwise.
    also: Vec<HeaderName>,
    ignored: Vec<HeaderName>,
}

impl Fields {
    pub(super) fn of(policy: &Policy) -> Self {
        Self { also: policy.vary.clone(), ignored: policy.ignore_headers.clone() }
    }

    pub(super) fn count(&self, name: &HeaderName) -> bool {
        counts(name, &self.also, &self.ignored)
    }

    /// Those that count, sorted by name: proxies and clients put them in any order. Values of one name keep theirs.
    pub(super) fn write(&self, out: &mut Stream, headers: &http::HeaderMap) {
        let mut counted = Vec::with_capacity(headers.len());
        counted.extend(headers.iter().filter(|(name, _)| self.count(name)));
        counted.sort_by(|(a, _), (b, _)| a.as_str().cmp(b.as_str()));
        out.length(counted.len());
        for (name, value) in counted {
            out.bytes(name.as_str().as_bytes());
            out.bytes(value.as_bytes());
        }
    }
}

fn counts(name: &HeaderName, also: &[HeaderName], ignored: &[HeaderName]) -> bool {
    !(is_left_out(name.as_str()) || ignored.contains(name)) || also.contains(name)
}

impl Policy {
    /// Whether the field is part of the key of a request that has it.
    pub fn is_in_key(&self, name: &HeaderName) -> bool {
        counts(name, &self.vary, &self.ignore_headers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_counts() {
        for (name, left_out) in [
            ("via", true),
            ("user-agent", true),
            ("x-request-id", true),
            ("idempotency-key", true),
            ("elastic-apm-traceparent", true),
            ("x-stainless-runtime-version", true),
            ("x-stainless-", true),
            ("upstash-telemetry-sdk", true),
            ("x-b3-traceid", true),
            ("x-datadog-sampling-priority", true),
            ("authorization", false),
            ("content-type", false),
            ("accept", false),
            ("accept-language", false),
            ("cookie", false),
            ("origin", false),
            ("prefer", false),
            ("x-forwarded-for", false),
            ("x-pinecone-api-version", false),
            ("cf-access-jwt-assertion", false),
            ("x-user-id", false),
            ("x-b3", false),
            ("x-stainless", false),
            ("x-request-idx", false),
            ("x-a-name-that-is-longer-than-any-of-those-that-are-known", false),
            ("", false),
        ] {
            assert_eq!(is_left_out(name), left_out, "{name}");
        }
        for name in [&OF_THE_MESSAGE[..], &OF_THE_TRACE, &OF_THE_CLIENT].concat() {
            assert!(LEFT_OUT.has(name), "{name}");
        }
    }

    #[test]
    fn users_can_read_what_is_left_out() {
        let page = include_str!("../../../docs/cache.md");
        for name in [&OF_THE_MESSAGE[..], &OF_THE_TRACE, &OF_THE_CLIENT].concat() {
            assert!(page.contains(&format!("`{name}`")), "{name}");
        }
        for beginning in BEGINNINGS {
            assert!(page.contains(&format!("`{beginning}*`")), "{beginning}");
        }
    }

    #[test]
    fn a_rule_adds_and_a_route_leaves_out() {
        let field = HeaderName::from_static;
        let fields = Fields {
            also: vec![field("user-agent"), field("x-both")],
            ignored: vec![field("x-nonce"), field("x-both")],
        };
        for (name, in_key) in
            [("user-agent", true), ("x-both", true), ("x-nonce", false), ("x-other", true), ("via", false)]
        {
            assert_eq!(fields.count(&field(name)), in_key, "{name}");
        }
    }
}
