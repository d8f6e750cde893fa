//! Instruction counts of the pieces of a request that need no socket. `make bench-instructions` runs each under
//! callgrind, which counts inside of [`measured`] only, and compares with `tests/bench/instructions.txt`.
//!
//! Without an argument it lists the pieces; with a piece's name it runs that piece.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a bench fails as tests do")]

use std::fmt::Write as _;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use pillion::cache::fence::Fences;
use pillion::cache::key::{Identity, Keyring};
use pillion::cache::store::Store;
use pillion::cache::{Policy as CachePolicy, StoreIf};
use pillion::exchange::{Exchange, Timing};
use pillion::metrics::{Metrics, Observation, Usage};
use pillion::{plan, proxy, retry, window};

/// How often a piece runs; the runner divides by it.
const TIMES: usize = 20;

type Piece = Box<dyn FnMut()>;
type SetUp = fn() -> Piece;

/// Name, and how to set the piece up.
const PIECES: [(&str, SetUp); 13] = [
    ("path-normalise", || normalise("/vector/query/news")),
    ("path-normalise-escaped", || normalise("/vector//query/n%65ws")),
    ("cache-key-3k", || key(256)),
    ("cache-key-20k", || key(1750)),
    ("cache-hit", hit),
    ("cache-key-and-hit-3k", key_and_hit),
    ("window-20", || trim(20)),
    ("window-200", || trim(200)),
    ("window-2000", || trim(2000)),
    ("retry-decide", decide),
    ("metrics-observe", observe),
    ("timing-write", timing),
    ("exchange-seal", seal),
];

fn main() {
    // Cargo adds `--bench` when it runs this itself.
    let Some(name) = std::env::args().skip(1).find(|word| !word.starts_with("--")) else {
        println!("{TIMES}");
        for (name, _) in &PIECES {
            println!("{name}");
        }
        return;
    };
    let Some((_, set_up)) = PIECES.iter().find(|(known, _)| *known == name) else {
        panic!("no piece is called {name}");
    };
    // A clock that stands: how many digits a duration has must not depend on how slow callgrind is today.
    let clock =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let _standing = clock.enter();
    let mut piece = set_up();
    // What happens only once is not what a request costs.
    (0..3).for_each(|_| piece());
    measured(&mut piece);
}

/// Callgrind counts between entering and leaving this.
#[inline(never)]
fn measured(piece: &mut Piece) {
    for _ in 0..TIMES {
        piece();
    }
}

fn normalise(path: &'static str) -> Piece {
    Box::new(move || {
        black_box(plan::normalise(black_box(path)).unwrap());
    })
}

fn search(floats: usize) -> Vec<u8> {
    let mut body = String::from("{\"vector\": [");
    for at in 0..floats {
        let comma = if at == 0 { "" } else { ", " };
        let _ = write!(body, "{comma}-0.{:07}", (at * 7_654_321) % 10_000_000);
    }
    body.push_str("], \"topK\": 5, \"includeMetadata\": true, \"filter\": \"tenant = 'bench'\"}");
    body.into_bytes()
}

fn request_headers() -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(AUTHORIZATION, HeaderValue::from_static("Bearer 0123456789abcdef0123456789abcdef"));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers
}

fn cache_policy() -> CachePolicy {
    CachePolicy {
        ttl: Duration::from_secs(300),
        max_entry: 1 << 20,
        vary: vec![CONTENT_TYPE],
        credentials: vec![AUTHORIZATION],
        ignore_query: Vec::new(),
        store_if: StoreIf::default(),
    }
}

/// A key for a body of so many floats: 11.5 bytes each.
fn keying(floats: usize) -> impl Fn() -> pillion::cache::key::Key {
    let (keyring, policy, headers) = (Keyring::seeded([7; 16]), cache_policy(), request_headers());
    let body = search(floats);
    move || {
        let identity = Identity {
            upstream: "https://x.upstash.io:443",
            method: &Method::POST,
            path: "/query/news",
            query: None,
            headers: &headers,
            body: black_box(&body),
        };
        keyring.key(&identity, &policy)
    }
}

fn key(floats: usize) -> Piece {
    let make = keying(floats);
    Box::new(move || {
        black_box(make());
    })
}

fn filled(key: pillion::cache::key::Key) -> Store {
    let fences = Arc::new(Fences::new([3; 16]));
    let scope = fences.scope("x.upstash.io:443", [Some("news")]);
    let stamp = fences.stamp(&scope);
    let store = Store::new(64 << 20, fences);
    let headers = request_headers();
    assert!(store.put(key, stamp, Duration::from_secs(300), headers, &Bytes::from(vec![b'x'; 8192])));
    store
}

fn hit() -> Piece {
    let key = keying(256)();
    let store = filled(key);
    Box::new(move || {
        black_box(store.get(black_box(key)).unwrap());
    })
}

fn key_and_hit() -> Piece {
    let make = keying(256);
    let store = filled(make());
    Box::new(move || {
        black_box(store.get(make()).unwrap());
    })
}

/// A chat of so many messages of 1 KB.
fn trim(messages: usize) -> Piece {
    let mut body =
        String::from("{\"model\":\"gpt-4o\",\"messages\":[{\"role\":\"system\",\"content\":\"Be brief.\"}");
    for at in 1..messages {
        let role = if at % 2 == 1 { "user" } else { "assistant" };
        let _ = write!(body, ",{{\"role\":\"{role}\",\"content\":\"{at}: ");
        body.push_str(&"the bot said \\\"yes\\\", and then it went on: a line ends here.\\n ".repeat(16));
        body.push_str("\"}");
    }
    body.push_str("]}");
    let body = Bytes::from(body);
    let policy =
        window::Policy { enabled: true, shadow: false, max_messages: 20, step: 1, max_bytes: 20 << 20 };
    let state = vec!["store".to_owned()];
    assert_eq!(window::read(&body, &policy, &state).removed > 0, messages > 22);
    Box::new(move || {
        black_box(window::read(black_box(&body), &policy, &state));
    })
}

fn decide() -> Piece {
    let policy = retry::Policy {
        enabled: true,
        class: retry::Class::Idempotent,
        attempts: 4,
        base: Duration::from_millis(50),
        factor: 2.0,
        max: Duration::from_secs(60),
        max_wait: Duration::from_secs(1),
    };
    let situation = retry::Situation {
        class: retry::Class::Idempotent,
        attempt: 2,
        failure: retry::Failure::Status(StatusCode::SERVICE_UNAVAILABLE),
        upstream_says: None,
        push_back: None,
        remaining: Duration::from_secs(9),
        waited: Duration::from_millis(40),
        client_retries: 0,
        random: 0.5,
    };
    assert!(matches!(policy.decide(&situation), retry::Decision::Retry { .. }));
    Box::new(move || {
        black_box(policy.decide(black_box(&situation)));
    })
}

fn metrics() -> Metrics {
    let operations = plan::Operation::ALL.map(plan::Operation::word);
    Metrics::new(&["openai", "vector"], &operations, &proxy::VOCABULARY)
}

fn observe() -> Piece {
    let series = metrics().series(0, 2);
    let seen = Observation {
        status: 200,
        total: Duration::from_micros(812_345),
        head: Some(Duration::from_micros(212_345)),
        overhead: Duration::from_micros(45),
        messages: Some(20),
        removed: 180,
        usage: Usage { prompt: 200, completion: 300, cached: 0 },
        ..Observation::default()
    };
    Box::new(move || series.observe(black_box(&seen)))
}

fn timing() -> Piece {
    let timing = Timing {
        total: Duration::from_micros(212_490),
        upstream: Duration::from_micros(212_400),
        backoff: Duration::ZERO,
        attempts: 1,
        cache: Some("miss"),
    };
    Box::new(move || {
        let mut headers = HeaderMap::with_capacity(8);
        black_box(&timing).write(&mut headers);
        black_box(headers);
    })
}

/// All that an exchange does besides: begun, routed, sealed, observed.
fn seal() -> Piece {
    let metrics = metrics();
    let (none, series) = (metrics.no_route(), metrics.series(0, 2));
    Box::new(move || {
        let mut exchange = Exchange::begin(&none);
        exchange.routed(&series);
        let mut headers = HeaderMap::with_capacity(8);
        exchange.seal(200, &mut headers, None);
        exchange.complete();
        black_box(headers);
    })
}
