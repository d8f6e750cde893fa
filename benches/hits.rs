//! Hits without sockets: what one costs on one thread and on two, and among a thousand entries and a million.
//! `make bench-hits` builds it as the release is built; it ends with 1 when a bar of issue 3 is missed.
//!
//! In *whole hits* each thread has a runtime and a connection of its own: hyper reads a search of 3 KB out of a pipe in
//! memory, `Proxy::handle` answers it from the cache (metrics, timing, every header), hyper writes 8 KB into the pipe.
//! Nothing else runs: the thread that asks is the thread that answers, so load and upstream have no core to share with
//! it. What sockets add, the kernel's part, is not in it: the lab's S2 and S2m have it.
//!
//! In *look-ups* a thread makes a search's key and asks the store, or asks with a key that is made already. What is asked
//! for is drawn uniformly, which of a million entries is the worst there is: none of it stays in the CPU's caches. The
//! bar is held against a whole hit: the one above, and what the look-up costs more than among a thousand.
//!
//! Turns of both sides alternate, medians are compared. How long a thread stood in the run queue is the kernel's own
//! account (`/proc/thread-self/schedstat`): a turn in which that was over 2 % is taken again.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a bench fails as tests do")]

use std::fmt::Write as _;
use std::hint::black_box;
use std::io::{Read, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::ExitCode;
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, SERVER};
use http::{HeaderMap, HeaderValue, Method};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use pillion::cache::fence::Fences;
use pillion::cache::key::{Identity, Key, Keyring, Names};
use pillion::cache::memo::Memo;
use pillion::cache::store::{Store, Under};
use pillion::cache::{Policy, StoreIf};
use pillion::conversations::Conversations;
use pillion::metrics::Metrics;
use pillion::plan::Operation;
use pillion::proxy::{Budgets, Proxy, VOCABULARY};
use pillion::upstream::Tls;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

const ROUNDS: usize = 7;
const TURN: Duration = Duration::from_millis(300);
/// What a turn may wait for a core, as a part of it.
const QUIET: f64 = 0.02;
/// A turn is taken this often at most.
const TRIES: usize = 4;
const SEARCHES: usize = 1000;
const MANY: usize = 1_000_000;
/// Content of an answer, in whole hits and in look-ups.
const ANSWER: usize = 8192;
const SMALL_ANSWER: usize = 512;

/// The bars, and what two threads that share nothing must reach for the first to be judged.
const SCALES: f64 = 1.8;
const MACHINE_SCALES: f64 = 1.9;
const MILLION: f64 = 1.2;

fn main() -> ExitCode {
    // `cargo bench --no-run` and `cargo test --benches` build it; only the former runs it, with this word.
    if !std::env::args().any(|word| word == "--bench") {
        return ExitCode::SUCCESS;
    }
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let (scales, whole) = whole_hits(cores);
    let million = look_ups(cores, whole);
    if scales && million { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

// -- turns

/// What a thread did in a turn.
struct Turn {
    hits: u64,
    took: Duration,
    /// On a core, and in the run queue before one.
    ran: Duration,
    waited: Duration,
}

impl Turn {
    fn nanoseconds(&self) -> f64 {
        self.took.as_nanos() as f64 / self.hits as f64
    }
}

/// Time of this thread on a core, and in the run queue.
fn schedule() -> (Duration, Duration) {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let mut numbers = text.split(' ').map(|word| Duration::from_nanos(word.parse().unwrap_or(0)));
    (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default())
}

/// Times `step`, which tells how many hits it made, until the turn is over.
fn turn(start: &Barrier, mut step: impl FnMut() -> u64) -> Turn {
    start.wait();
    let (ran, waited) = schedule();
    let (begin, mut hits) = (Instant::now(), 0);
    while begin.elapsed() < TURN {
        hits += step();
    }
    let took = begin.elapsed();
    let now = schedule();
    Turn { hits, took, ran: now.0.saturating_sub(ran), waited: now.1.saturating_sub(waited) }
}

/// What others took of the cores in all turns that count, at worst.
#[derive(Default)]
struct Disturbed(f64);

/// Takes a turn until nothing else wanted its cores. Its threads' hits a second together, and what one hit took.
fn quiet(disturbed: &mut Disturbed, take: impl Fn() -> Vec<Turn>) -> (f64, f64) {
    let others = |turns: &[Turn]| {
        turns.iter().map(|turn| turn.waited.as_secs_f64() / turn.took.as_secs_f64()).fold(0.0, f64::max)
    };
    let mut best: Option<Vec<Turn>> = None;
    for _ in 0..TRIES {
        let turns = take();
        if best.as_ref().is_none_or(|best| others(&turns) < others(best)) {
            best = Some(turns);
        }
        if best.as_ref().is_some_and(|best| others(best) < QUIET) {
            break;
        }
    }
    let turns = best.unwrap();
    disturbed.0 = disturbed.0.max(others(&turns));
    let idle = turns.iter().map(|turn| 1.0 - turn.ran.as_secs_f64() / turn.took.as_secs_f64());
    disturbed.0 = disturbed.0.max(idle.fold(0.0, f64::max) - 0.02);
    let rate = turns.iter().map(|turn| 1e9 / turn.nanoseconds()).sum();
    let each = turns.iter().map(Turn::nanoseconds).sum::<f64>() / turns.len() as f64;
    (rate, each)
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn say_disturbed(disturbed: &Disturbed) {
    if disturbed.0 >= QUIET {
        println!(
            "  others used up to {:.0} % of a thread's core: measure again on a quiet machine",
            disturbed.0 * 100.0
        );
    } else {
        println!("  no thread waited for a core for more than {:.1} % of a turn", disturbed.0 * 100.0);
    }
}

/// As the lab's: a query by a vector of 256 floats, 3 KB, and a number that tells it from others.
fn search() -> String {
    let mut body = String::from("{\"vector\": [");
    for at in 0..256 {
        let comma = if at == 0 { "" } else { ", " };
        let _ = write!(body, "{comma}-0.{:07}", (at * 7_654_321) % 10_000_000);
    }
    body.push_str("], \"topK\": 5, \"includeMetadata\": true, \"filter\": \"id = 0000000\"}");
    body
}

/// Writes the number into a search, or into a request that ends with one.
fn number(search: &mut [u8], number: usize) {
    let end = search.len() - 2;
    let mut rest = number;
    for digit in search[end - 7..end].iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
}

// -- whole hits

fn request() -> Vec<u8> {
    let body = search();
    let head = format!(
        "POST /vector/query/news HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
         Authorization: Bearer 0123456789abcdef0123456789abcdef\r\n\r\n",
        body.len()
    );
    [head.into_bytes(), body.into_bytes()].concat()
}

/// Answers every search alike, on loopback, until the process ends. Only asked before anything is timed.
fn upstream() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let content = format!("{{\"result\":[{{\"id\":\"{}\"}}]}}", "x".repeat(ANSWER - 22));
    let answer =
        format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {ANSWER}\r\n\r\n");
    assert_eq!(content.len(), ANSWER);
    let answer = Arc::new((answer + &content).into_bytes());
    let serve = move |mut stream: TcpStream| -> std::io::Result<()> {
        let (mut seen, mut piece, length) = (Vec::new(), [0; 16 << 10], search().len());
        loop {
            while memchr::memmem::find(&seen, b"\r\n\r\n").is_none_or(|end| seen.len() < end + 4 + length) {
                let read = stream.read(&mut piece)?;
                if read == 0 {
                    return Ok(());
                }
                seen.extend_from_slice(&piece[..read]);
            }
            seen.clear();
            stream.write_all(&answer)?;
        }
    };
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let serve = serve.clone();
            thread::spawn(move || serve(stream));
        }
    });
    address
}

/// Everything a request needs, as `app` makes it, with every search stored.
fn filled_proxy(upstream: SocketAddr) -> Arc<Proxy> {
    let text = format!(
        "version: 1\nroutes: [{{name: vector, path: /vector, upstream: \"http://{upstream}\", preset: upstash-vector}}]"
    );
    let plans = pillion::config::parse(&text, None, &[].into()).unwrap().routes;
    let metrics = Metrics::new(&["vector"], &Operation::ALL.map(Operation::word), &VOCABULARY, 2);
    let (tls, _) = Tls::new(None).unwrap();
    let budgets = Budgets { cache: 64 << 20, buffers: 64 << 20, max_in_flight: 256 };
    let conversations = Arc::new(Conversations::new(0, None).unwrap());
    let proxy = Arc::new(
        Proxy::new(plans, &[vec![0]], budgets, &tls, Arc::new(metrics), None, conversations).unwrap(),
    );
    let mut asking = Asking::new(&proxy);
    for each in 0..SEARCHES {
        asking.ask(each);
    }
    asking.ask(0);
    let head = String::from_utf8_lossy(&asking.answer).into_owned();
    assert!(head.contains("\r\ncache-status: pillion; hit"), "{}", &head[..head.len().min(600)]);
    assert_eq!(proxy.gauges().cache_entries, SEARCHES as u64);
    proxy
}

/// A connection to a proxy, both of its ends on this thread.
struct Asking {
    runtime: tokio::runtime::Runtime,
    near: DuplexStream,
    request: Vec<u8>,
    answer: Vec<u8>,
}

impl Asking {
    fn new(proxy: &Arc<Proxy>) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (near, far) = tokio::io::duplex(64 << 10);
        let proxy = Arc::clone(proxy);
        runtime.spawn(async move {
            let service =
                service_fn(async |request| Ok::<_, std::convert::Infallible>(proxy.handle(0, request).await));
            let _ended =
                http1::Builder::new().half_close(false).serve_connection(TokioIo::new(far), service).await;
        });
        Self { runtime, near, request: request(), answer: Vec::with_capacity(16 << 10) }
    }

    fn ask(&mut self, which: usize) {
        let Self { runtime, near, request, answer } = self;
        number(request, which);
        answer.clear();
        runtime.block_on(async {
            near.write_all(request).await.unwrap();
            let mut head = None;
            while head.is_none_or(|head| answer.len() < head + 4 + ANSWER) {
                assert_ne!(near.read_buf(answer).await.unwrap(), 0, "the connection was closed");
                head = head.or_else(|| memchr::memmem::find(answer, b"\r\n\r\n"));
            }
        });
    }
}

/// Whether hits scale, and what one costs in nanoseconds.
fn whole_hits(cores: usize) -> (bool, f64) {
    let upstream = upstream();
    let proxies = [filled_proxy(upstream), filled_proxy(upstream)];
    // Of each thread, the proxy it asks.
    let take = |asked: &[usize]| -> Vec<Turn> {
        let start = Barrier::new(asked.len());
        thread::scope(|scope| {
            let threads: Vec<_> = asked
                .iter()
                .enumerate()
                .map(|(seed, proxy)| {
                    let (proxy, start) = (&proxies[*proxy], &start);
                    scope.spawn(move || {
                        let mut asking = Asking::new(proxy);
                        let mut random = fastrand::Rng::with_seed(seed as u64);
                        (0..SEARCHES).for_each(|each| asking.ask(each));
                        turn(start, || {
                            (0..50).for_each(|_| asking.ask(random.usize(..SEARCHES)));
                            50
                        })
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        })
    };
    let mut disturbed = Disturbed::default();
    let [mut one, mut cost, mut shared, mut apart] = [const { Vec::new() }; 4];
    for _ in 0..ROUNDS {
        let (rate, each) = quiet(&mut disturbed, || take(&[0]));
        cost.push(each);
        one.push(rate);
        if cores < 2 {
            continue;
        }
        shared.push(quiet(&mut disturbed, || take(&[0, 0])).0 / rate);
        apart.push(quiet(&mut disturbed, || take(&[0, 1])).0 / rate);
    }
    let cost = median(&mut cost);
    println!(
        "whole hits of {SEARCHES} searches, 3 KB up, 8 KB down, no sockets (medians of {ROUNDS} rounds)"
    );
    println!(
        "  one thread                              {:>8.0} ns a hit, {:.0} hits/s",
        cost,
        median(&mut one)
    );
    if cores < 2 {
        println!("  two threads: not measured, there is one core");
        return (true, cost);
    }
    let (shared, apart) = (median(&mut shared), median(&mut apart));
    println!(
        "  two threads, each a Pillion of its own  {apart:>8.2} x the hits of one: what this machine can do"
    );
    let verdict = match (shared >= SCALES, apart >= MACHINE_SCALES) {
        (true, _) => "ok",
        (false, true) => "MISSED",
        (false, false) => "NOT JUDGED: two threads that share nothing do not scale here",
    };
    println!(
        "  two threads, one Pillion                {shared:>8.2} x the hits of one (bar: >= {SCALES}) {verdict}"
    );
    say_disturbed(&disturbed);
    (verdict != "MISSED", cost)
}

// -- look-ups

struct Filled {
    store: Store,
    keys: Vec<Key>,
}

struct Keying {
    names: Names,
    /// Room for a million.
    memo: Memo,
    policy: Policy,
    headers: HeaderMap,
}

impl Keying {
    fn new() -> Self {
        let policy = Policy {
            ttl: Duration::from_secs(3600),
            stale_if_error: Duration::ZERO,
            shadow: false,
            audit: 0.0,
            max_entry: 1 << 20,
            vary: Vec::new(),
            ignore_headers: Vec::new(),
            ignore_query: Vec::new(),
            ordered: false,
            store_if: StoreIf::default(),
        };
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, HeaderValue::from_static("Bearer 0123456789abcdef0123456789abcdef"));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let names = Keyring::seeded([7; 16]).names("https://x.upstash.io:443", &policy);
        Self { names, memo: Memo::new(512 << 20), policy, headers }
    }

    fn key(&self, body: &[u8]) -> Key {
        let identity = Identity {
            method: &Method::POST,
            path: "/query/news",
            query: None,
            headers: &self.headers,
            body,
        };
        self.memo.key(&self.names, &identity)
    }

    fn filled(&self, entries: usize) -> Filled {
        let fences = Arc::new(Fences::new([3; 16]));
        let scope = fences.scope("x.upstash.io:443", [Some("news")]);
        let stamp = fences.stamp(&scope);
        let store = Store::new(4 << 30, fences, None);
        let (mut body, content) = (search().into_bytes(), Bytes::from(vec![b'x'; SMALL_ANSWER]));
        let keys: Vec<Key> = (0..entries)
            .map(|each| {
                number(&mut body, each);
                let mut headers = HeaderMap::new();
                headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
                headers.insert(SERVER, HeaderValue::from_static("bench"));
                let key = self.key(&body);
                let under = Under { own: stamp, mirror: None };
                assert!(store.put(key, under, self.policy.lifetime(key), headers, &content).is_some());
                key
            })
            .collect();
        assert_eq!(store.entries(), entries, "all of them are kept");
        Filled { store, keys }
    }
}

/// What a hit does with what it finds: its headers are read, its content is written out.
fn use_hit(store: &Store, key: Key) {
    let hit = store.get(black_box(key)).unwrap();
    black_box(hit.stored.headers.len());
    black_box(hit.stored.content.iter().step_by(64).fold(0, |all, byte| all ^ byte));
}

/// Whether a hit among a million entries costs little more than among a thousand: a whole one, of which the look-up is a
/// part.
fn look_ups(cores: usize, whole: f64) -> bool {
    let keying = Keying::new();
    let [few, many] = [SEARCHES, MANY].map(|entries| keying.filled(entries));
    let (keying, mut disturbed) = (&keying, Disturbed::default());
    // With their keys made already, in an order drawn beforehand: reading it costs no cache miss.
    let bare = |filled: &Filled, threads: usize| -> Vec<Turn> {
        let start = Barrier::new(threads);
        on_threads(threads, |seed| {
            let mut random = fastrand::Rng::with_seed(seed);
            let order: Vec<Key> =
                (0..1 << 18).map(|_| filled.keys[random.usize(..filled.keys.len())]).collect();
            let mut order = order.chunks(256).cycle();
            turn(&start, || {
                let keys = order.next().unwrap();
                for key in keys {
                    use_hit(&filled.store, *key);
                }
                keys.len() as u64
            })
        })
    };
    let keyed = |filled: &Filled| -> Vec<Turn> {
        let start = Barrier::new(1);
        on_threads(1, |seed| {
            let (mut random, mut body) = (fastrand::Rng::with_seed(seed), search().into_bytes());
            turn(&start, || {
                for _ in 0..64 {
                    number(&mut body, random.usize(..filled.keys.len()));
                    use_hit(&filled.store, keying.key(black_box(&body)));
                }
                64
            })
        })
    };
    let mut costs: [[Vec<f64>; 2]; 3] = Default::default();
    for _ in 0..ROUNDS {
        for (at, filled) in [&few, &many].into_iter().enumerate() {
            costs[0][at].push(quiet(&mut disturbed, || keyed(filled)).1);
            costs[1][at].push(quiet(&mut disturbed, || bare(filled, 1)).1);
            if cores > 1 {
                costs[2][at].push(quiet(&mut disturbed, || bare(filled, 2)).1);
            }
        }
    }
    println!("look-ups, drawn uniformly, answers of {SMALL_ANSWER} bytes (medians of {ROUNDS} rounds)");
    println!("  {:40}{:>10}{:>12}{:>9}", "ns a hit, among entries:", "1,000", "1,000,000", "ratio");
    let row = |name: &str, few: f64, many: f64, bar: &str| {
        println!("  {name:40}{few:>10.0}{many:>12.0}{:>8.2}x{bar}", many / few);
    };
    let [keyed, bare, both] = costs.map(|costs| costs.map(|mut costs| median(&mut costs)));
    let million = whole + bare[1] - bare[0];
    let holds = million <= MILLION * whole;
    let verdict = if holds { "ok" } else { "MISSED" };
    row("look-up", bare[0], bare[1], "");
    if cores > 1 {
        row("look-up, two threads at once", both[0], both[1], "");
    }
    row("key of a 3 KB search, and look-up", keyed[0], keyed[1], "");
    row("a whole hit, with this look-up", whole, million, &format!("  (bar: <= {MILLION}) {verdict}"));
    say_disturbed(&disturbed);
    holds
}

fn on_threads(threads: usize, work: impl Fn(u64) -> Turn + Sync) -> Vec<Turn> {
    thread::scope(|scope| {
        let started: Vec<_> = (0..threads as u64)
            .map(|seed| {
                scope.spawn({
                    let work = &work;
                    move || work(seed)
                })
            })
            .collect();
        started.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}
