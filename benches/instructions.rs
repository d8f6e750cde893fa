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
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, request};
use pillion::cache::embeddings::{Answer, Batch, Element, merge};
use pillion::cache::fence::Fences;
use pillion::cache::key::{Identity, Key, Keyring, Names};
use pillion::cache::memo::Memo;
use pillion::cache::store::{Lifetime, Store, Under};
use pillion::cache::{Policy as CachePolicy, StoreIf};
use pillion::conversations::Conversations;
use pillion::exchange::{Exchange, Timing};
use pillion::metrics::{Metrics, Observation, Trimmed, Usage};
use pillion::proxy::{Budgets, Proxy};
use pillion::upstream::Tls;
use pillion::window::{Counter, Dialect, Encoding};
use pillion::{config, plan, proxy, retry, window};

/// How often a piece runs; the runner divides by it.
const TIMES: usize = 20;
/// How often before: what happens only once is not what a request costs.
const UNCOUNTED: usize = 3;

const CHAT_PATH: &str = "/openai/v1/chat/completions";
/// As the official Python library sends it, all but the secret.
const SDK_HEADERS: [(&str, &str); 17] = [
    ("host", "127.0.0.1:8080"),
    ("accept-encoding", "gzip, deflate"),
    ("connection", "keep-alive"),
    ("authorization", "Bearer sk-proj-0123456789abcdef0123456789abcdef0123456789abcdef"),
    ("accept", "application/json"),
    ("content-type", "application/json"),
    ("user-agent", "OpenAI/Python 3.54.0"),
    ("x-stainless-lang", "python"),
    ("x-stainless-package-version", "3.54.0"),
    ("x-stainless-os", "Linux"),
    ("x-stainless-arch", "x64"),
    ("x-stainless-runtime", "CPython"),
    ("x-stainless-runtime-version", "3.12.3"),
    ("x-stainless-async", "false"),
    ("x-stainless-retry-count", "0"),
    ("x-stainless-read-timeout", "600"),
    ("content-length", "1024"),
];

type Piece = Box<dyn FnMut()>;
type SetUp = fn() -> Piece;

/// Name, and how to set the piece up.
const PIECES: [(&str, SetUp); 24] = [
    ("headers-admit", admit),
    ("route-and-rule-chat", || route(CHAT_PATH, plan::Operation::Chat)),
    ("route-and-rule-search", || route("/vector/query/news", plan::Operation::Search)),
    ("path-normalise", || normalise("/vector/query/news")),
    ("path-normalise-escaped", || normalise("/vector//query/n%65ws")),
    ("cache-key-3k", || key(256)),
    ("cache-key-20k", || key(1750)),
    ("cache-exact-3k", || exact(256)),
    ("cache-exact-20k", || exact(1750)),
    ("cache-hit", hit),
    ("cache-key-and-hit-3k", key_and_hit),
    ("embeddings-keys-100", embeddings_keys),
    ("embeddings-hit-100", embeddings_hit),
    ("embeddings-answer-10", embeddings_answer),
    ("window-20", || trim(Dialect::Chat, 20, 1)),
    ("window-200", || trim(Dialect::Chat, 200, 1)),
    ("window-2000", || trim(Dialect::Chat, 2000, 1)),
    ("window-2000-20mb", || trim(Dialect::Chat, 2000, 10)),
    ("window-200-responses", || trim(Dialect::Responses, 200, 1)),
    ("window-200-messages", || trim(Dialect::Messages, 200, 1)),
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
    (0..UNCOUNTED).for_each(|_| piece());
    measured(&mut piece);
}

/// Callgrind counts between entering and leaving this.
#[inline(never)]
fn measured(piece: &mut Piece) {
    for _ in 0..TIMES {
        piece();
    }
}

/// The proxy of the built-in configuration: the routes, rules and numbers of an installation without a file.
fn proxy() -> Proxy {
    let env = [("PILLION_VECTOR_URL".to_owned(), "https://x.upstash.io".to_owned())].into();
    let plans = config::parse(config::DEFAULT, None, &env).unwrap().routes;
    let names: Vec<&str> = plans.iter().map(|plan| plan.name.as_str()).collect();
    let operations = plan::Operation::ALL.map(plan::Operation::word);
    let metrics = Arc::new(Metrics::new(&names, &operations, &proxy::VOCABULARY, 1));
    let (tls, _) = Tls::new(None).unwrap();
    let served = [(0..plans.len()).collect()];
    Proxy::new(
        plans,
        &served,
        Budgets { cache: 64 << 20, buffers: 64 << 20, max_in_flight: 256 },
        &tls,
        metrics,
        None,
        Arc::new(Conversations::new(0, None).unwrap()),
    )
    .unwrap()
}

fn head(path: &str) -> request::Parts {
    let mut request = Request::post(path).body(()).unwrap();
    let fields = SDK_HEADERS.map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value)));
    request.headers_mut().extend::<[(HeaderName, HeaderValue); 17]>(fields);
    request.into_parts().0
}

fn admit() -> Piece {
    let (proxy, id_header) = (proxy(), HeaderName::from_static("x-conversation-id"));
    let host = HeaderValue::from_static("api.openai.com");
    // Each is used up once; made and dropped where it is not counted.
    let mut heads = vec![head(CHAT_PATH); UNCOUNTED + TIMES];
    let mut admitted = Vec::with_capacity(heads.len());
    Box::new(move || {
        let mut head = heads.pop().unwrap();
        proxy.admit_headers(black_box(&mut head), &id_header, &host, 1024).unwrap();
        admitted.push(head);
    })
}

fn route(path: &str, operation: plan::Operation) -> Piece {
    let (proxy, head) = (proxy(), head(path));
    assert_eq!(proxy.match_request(0, &head).unwrap(), operation);
    Box::new(move || {
        black_box(proxy.match_request(0, black_box(&head)).unwrap());
    })
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

/// What is forwarded of a search by a chatbot's SDK.
fn request_headers() -> HeaderMap {
    let fields = [
        ("accept", "application/json"),
        ("accept-encoding", "identity"),
        ("authorization", "Bearer 0123456789abcdef0123456789abcdef"),
        ("content-type", "application/json"),
        ("upstash-telemetry-platform", "unknown"),
        ("upstash-telemetry-runtime", "python@v3.12.3"),
        ("upstash-telemetry-sdk", "upstash-vector-py@v0.8.0"),
        ("user-agent", "python-httpx/0.28.1"),
        ("via", "1.1 pillion-0123456789ab"),
        ("x-stainless-arch", "x64"),
        ("x-stainless-lang", "python"),
        ("x-stainless-os", "Linux"),
        ("x-stainless-package-version", "1.97.0"),
        ("x-stainless-runtime", "CPython"),
        ("x-stainless-runtime-version", "3.12.3"),
    ];
    let field = |(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value));
    fields.into_iter().map(field).collect()
}

fn cache_policy() -> CachePolicy {
    CachePolicy {
        ttl: Duration::from_secs(300),
        stale_if_error: Duration::ZERO,
        shadow: false,
        audit: 0.0,
        max_entry: 1 << 20,
        vary: Vec::new(),
        ignore_headers: Vec::new(),
        ignore_query: Vec::new(),
        ordered: false,
        store_if: StoreIf::default(),
    }
}

/// A key for a body of so many floats, 11.5 bytes each, made in this way.
fn keying(floats: usize, make: impl Fn(&Names, &Identity<'_>) -> Key) -> impl Fn() -> Key {
    let names = Keyring::seeded([7; 16]).names("https://x.upstash.io:443", &cache_policy());
    let (headers, body) = (request_headers(), search(floats));
    move || {
        let identity = Identity {
            method: &Method::POST,
            path: "/query/news",
            query: None,
            headers: &headers,
            body: black_box(&body),
        };
        make(&names, &identity)
    }
}

fn key(floats: usize) -> Piece {
    let make = keying(floats, Names::key);
    Box::new(move || {
        black_box(make());
    })
}

/// A key by a memo that knows it, as of every search that is asked again byte for byte.
fn remembering(floats: usize) -> impl Fn() -> Key {
    let memo = Memo::new(4 << 20);
    keying(floats, move |names, identity| memo.key(names, identity))
}

fn exact(floats: usize) -> Piece {
    let make = remembering(floats);
    Box::new(move || {
        black_box(make());
    })
}

fn filled(key: Key) -> Store {
    let fences = Arc::new(Fences::new([3; 16]));
    let scope = fences.scope("x.upstash.io:443", [Some("news")]);
    let stamp = fences.stamp(&scope);
    let store = Store::new(64 << 20, fences, None);
    let headers = request_headers();
    let (under, content) = (Under { own: stamp, mirror: None }, Bytes::from(vec![b'x'; 8192]));
    assert!(store.put(key, under, cache_policy().lifetime(key), headers, &content).is_some());
    store
}

fn hit() -> Piece {
    let key = keying(256, Names::key)();
    let store = filled(key);
    Box::new(move || {
        black_box(store.get(black_box(key)).unwrap());
    })
}

fn key_and_hit() -> Piece {
    let make = remembering(256);
    let store = filled(make());
    Box::new(move || {
        black_box(store.get(make()).unwrap());
    })
}

/// A batch of so many texts of 200 bytes.
fn batch(count: usize) -> Vec<u8> {
    let text = |at: usize| format!("\"{at}: {}\"", "a sentence of a document, ".repeat(8));
    let texts: Vec<String> = (0..count).map(text).collect();
    let head = r#"{"model":"text-embedding-3-small","encoding_format":"base64","input""#;
    format!("{head}:[{}]}}", texts.join(", ")).into_bytes()
}

/// The answer to it: vectors of 1,536 dimensions in base64.
fn vectors(count: usize) -> Bytes {
    let vector = "b64+".repeat(2048);
    let element = |at: usize| {
        format!(
            "    {{\n      \"object\": \"embedding\",\n      \"index\": {at},\n      \"embedding\": \"{vector}\"\n    }}"
        )
    };
    let elements: Vec<String> = (0..count).map(element).collect();
    let usage = r#"{"prompt_tokens": 8, "total_tokens": 8}"#;
    format!(
        "{{\n  \"object\": \"list\",\n  \"data\": [\n{}\n  ],\n  \"model\": \"text-embedding-3-small\",\n  \"usage\": {usage}\n}}\n",
        elements.join(",\n")
    )
    .into()
}

/// The keys of a hundred texts.
fn keying_batch() -> impl Fn() -> Vec<Key> {
    let names = Keyring::seeded([7; 16]).names("https://api.openai.com:443", &cache_policy());
    let (headers, body) = (request_headers(), batch(100));
    move || {
        let body = black_box(&body);
        let batch = Batch::read(body).unwrap();
        let identity = Identity {
            method: &Method::POST,
            path: "/v1/embeddings",
            query: None,
            headers: &headers,
            body: &[],
        };
        let elements = names.elements(&identity, &batch.members).unwrap();
        batch.inputs.each().iter().map(|at| elements.key(body.get(at.clone()).unwrap()).unwrap()).collect()
    }
}

fn embeddings_keys() -> Piece {
    let make = keying_batch();
    Box::new(move || {
        black_box(make());
    })
}

/// A batch of a hundred of which all are known, from its content to that of the answer.
fn embeddings_hit() -> Piece {
    let make = keying_batch();
    let fences = Arc::new(Fences::new([3; 16]));
    let store = Store::new(64 << 20, Arc::clone(&fences), None);
    let content = vectors(100);
    let answer = Answer::read(&content, 100).unwrap();
    for (key, element) in make().into_iter().zip(&answer.elements) {
        let kept = Bytes::from(element.keep());
        let lifetime = Lifetime { fresh: Duration::from_secs(300), stale: Duration::ZERO };
        assert!(store.put(key, Under::unfenced(&fences), lifetime, HeaderMap::new(), &kept).is_some());
    }
    Box::new(move || {
        let hits: Vec<_> = make().into_iter().map(|key| store.get_unfenced(key).unwrap()).collect();
        let elements: Vec<_> = hits.iter().map(|hit| Element::kept(&hit.stored.content).unwrap()).collect();
        black_box(merge(None, &elements).unwrap());
    })
}

/// An answer of ten, taken apart to be stored.
fn embeddings_answer() -> Piece {
    let content = vectors(10);
    Box::new(move || {
        let answer = Answer::read(black_box(&content), 10).unwrap();
        black_box(answer.elements.iter().map(Element::keep).collect::<Vec<_>>());
    })
}

/// A chat of so many messages of 1 KB.
/// A conversation of so many messages of about so many kilobytes.
fn trim(dialect: Dialect, messages: usize, kilobytes: usize) -> Piece {
    let history = if dialect == Dialect::Responses { "input" } else { "messages" };
    let mut body =
        format!("{{\"model\":\"gpt-4o\",\"{history}\":[{{\"role\":\"system\",\"content\":\"Be brief.\"}}");
    for at in 1..messages {
        let role = if at % 2 == 1 { "user" } else { "assistant" };
        let text =
            "the bot said \\\"yes\\\", and then it went on: a line ends here.\\n ".repeat(16 * kilobytes);
        let (before, behind) = match dialect {
            Dialect::Chat => ("\"", "\""),
            Dialect::Responses => ("[{\"type\":\"input_text\",\"text\":\"", "\"}]"),
            Dialect::Messages => ("[{\"type\":\"text\",\"text\":\"", "\"}]"),
        };
        let _ = write!(body, ",{{\"role\":\"{role}\",\"content\":{before}{at}: {text}{behind}}}");
    }
    body.push_str("]}");
    let body = Bytes::from(body);
    let policy = window::Policy {
        enabled: true,
        shadow: false,
        dialect,
        max_messages: 20,
        step: 1,
        max_bytes: 20 << 20,
        max_tokens: 0,
        encoding: Encoding::Auto,
    };
    let (state, counter) = (vec!["store".to_owned()], Counter::new());
    assert_eq!(window::read(&body, &policy, &counter, &state).removed > 0, messages > 22);
    Box::new(move || {
        black_box(window::read(black_box(&body), &policy, &counter, &state));
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
        push_back: Duration::ZERO,
        budget: retry::Budget { used: 3, allowed: 10.0 },
        quickest: Duration::from_millis(30),
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
    Metrics::new(&["openai", "vector"], &operations, &proxy::VOCABULARY, 1)
}

fn observe() -> Piece {
    let series = Arc::clone(metrics().series(0, 2));
    let seen = Observation {
        status: 200,
        total: Duration::from_micros(812_345),
        head: Some(Duration::from_micros(212_345)),
        overhead: Duration::from_micros(45),
        messages: Some(20),
        trimmed: Trimmed { messages: 180, bytes: 180_000, tokens: 45_000 },
        would_trim: 0,
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
        queued: Duration::ZERO,
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
    Box::new(move || {
        let mut exchange = Exchange::begin();
        exchange.routed(metrics.series(0, 2));
        let mut headers = HeaderMap::with_capacity(8);
        exchange.seal(200, &mut headers);
        exchange.complete();
        black_box(headers);
    })
}
