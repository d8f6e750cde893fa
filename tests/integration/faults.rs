//! Twenty thousand calls against an upstream that fails one in twenty: what the bot sees of it, and what it costs.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::support::{Answer, Client, Pillion, Seen, Step, Upstream};

const CALLS: usize = 20_000;
const BOTS: usize = 16;
const SEED: u64 = 0x0000_c0ff_ee00_0002;

/// The seeded mixture. Beside it: what was injected, by its name.
struct Faults {
    random: fastrand::Rng,
    injected: BTreeMap<&'static str, usize>,
}

/// The answer that echoes its request's number, so that a mixed-up one is seen.
fn answer(seen: &Seen, faults: &Mutex<Faults>) -> Answer {
    let number = &seen.json()["n"];
    let whole = Answer::ok(format!(r#"{{"result":[{number}],"n":{number}}}"#));
    let mut faults = faults.lock().unwrap();
    if faults.random.f64() >= 0.05 {
        return whole;
    }
    let chat = seen.target.ends_with("/chat/completions");
    let (name, answer) = match faults.random.u32(..6) {
        0 => ("429", Answer::status(429, r#"{"error":{"code":"rate_limit_exceeded"}}"#)),
        1 => ("500", Answer::status(500, "{}")),
        2 => ("503", Answer::status(503, "{}")),
        3 => ("reset before the head", Answer::reset()),
        // A chat may be thinking: waiting for it is right, and its stall final. It is never cut once it streams.
        _ if chat => ("closed before the head", Answer::close()),
        4 => ("stall", Answer::hang()),
        _ if seen.target == "/query" => {
            let length = whole.len() - 4;
            ("reset in the content", whole.cut_with(length, Step::Reset))
        }
        _ => ("closed before the head", Answer::close()),
    };
    *faults.injected.entry(name).or_default() += 1;
    answer
}

/// One bot: a third searches, a third embeddings, a third chats. Tells what failed.
async fn bot(pillion: SocketAddr, numbers: Range<usize>) -> Vec<String> {
    const TARGETS: [&str; 3] = ["/vector/query", "/embeddings/v1/embeddings", "/chat/v1/chat/completions"];
    let mut client = Client::connect(pillion).await;
    let mut failed = Vec::new();
    for number in numbers {
        let body = format!(r#"{{"n":{number},"messages":[{{"role":"user","content":"a"}}]}}"#);
        let target = TARGETS[number % TARGETS.len()];
        let response = client.exchange("POST", target, &[("content-type", "application/json")], &body).await;
        let expected = format!(r#"{{"result":[{number}],"n":{number}}}"#);
        if response.status != 200 || !response.complete || response.text() != expected {
            failed.push(format!("{target}: {} {}", response.status, response.text()));
            client = Client::connect(pillion).await;
        }
    }
    failed
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_thousand_calls_against_one_fault_in_twenty() {
    let faults =
        Arc::new(Mutex::new(Faults { random: fastrand::Rng::with_seed(SEED), injected: BTreeMap::new() }));
    let by = Arc::clone(&faults);
    let upstream = Upstream::answering(move |seen| answer(seen, &by)).await;
    let yaml = "
defaults:
  retry: {base: 5ms}
routes:
  - {name: vector, path: /vector, upstream: '${UP}', preset: upstash-vector, timeouts: {first_byte: 400ms}, cache: {settle: 0s}}
  - {name: embeddings, path: /embeddings, upstream: '${UP}', preset: openai, timeouts: {first_byte: 400ms}}
  - {name: chat, path: /chat, upstream: '${UP}', preset: openai}
";
    let pillion = Pillion::start(yaml, &[("UP", &upstream.url())]).await;

    let begun = Instant::now();
    let mut bots = JoinSet::new();
    for index in 0..BOTS {
        bots.spawn(bot(pillion.addr, index * CALLS / BOTS..(index + 1) * CALLS / BOTS));
    }
    let failed: Vec<String> = bots.join_all().await.into_iter().flatten().collect();
    let took = begun.elapsed();

    let calls = upstream.count();
    let injected = faults.lock().unwrap().injected.clone();
    let sum: usize = injected.values().sum();
    println!(
        "{CALLS} calls in {took:.1?}: {} failed for the bot, {calls} upstream calls ({:.4} a call), {sum} faults \
         ({:.2} %): {injected:?}",
        failed.len(),
        calls as f64 / CALLS as f64,
        100.0 * sum as f64 / calls as f64,
    );
    // The mixture was there, every part of it.
    assert!(sum * 100 >= calls * 45 / 10, "{sum} faults of {calls}");
    assert_eq!(injected.len(), 7, "{injected:?}");
    assert!(injected.values().all(|count| *count >= 20), "{injected:?}");
    // And hardly any of it came through, at the price of little more than itself.
    assert!(failed.len() * 1000 < CALLS, "{} failed, such as {:?}", failed.len(), failed.first());
    assert!(calls * 100 <= CALLS * 107, "{calls} upstream calls");
    assert!(took < Duration::from_secs(300), "{took:?}");
}
