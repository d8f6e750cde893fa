//! A bot's calls of three kinds against an upstream that fails one in twenty: what the bot sees of it, and what it costs.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::load::{calls, echo};
use super::{row, sized};
use crate::support::{Answer, Pillion, Seen, Step, Upstream};

const TARGETS: [&str; 3] = ["/vector/query", "/embeddings/v1/embeddings", "/chat/v1/chat/completions"];
const SEED: u64 = 0x0000_c0ff_ee00_0002;

/// The seeded mixture. Beside it: what was injected, by its name.
struct Faults {
    random: fastrand::Rng,
    injected: BTreeMap<&'static str, usize>,
}

fn answer(seen: &Seen, faults: &Mutex<Faults>) -> Answer {
    let whole = echo(seen);
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_of_three_kinds_against_one_fault_in_twenty() {
    let total = sized(20_000, 8_000);
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
    let failed = calls(pillion.addr, &TARGETS, total, 16).await;
    let took = begun.elapsed();

    let calls = upstream.count();
    let injected = faults.lock().unwrap().injected.clone();
    let sum: usize = injected.values().sum();
    println!(
        "{total} calls in {took:.1?}: {} failed for the bot, {calls} upstream calls ({:.4} a call), {sum} faults \
         ({:.2} %): {injected:?}",
        failed.len(),
        calls as f64 / total as f64,
        100.0 * sum as f64 / calls as f64,
    );
    if let Some(failure) = failed.first() {
        println!("such as {failure}");
    }
    // The mixture was there, every part of it.
    assert!(sum * 100 >= calls * 45 / 10, "{sum} faults of {calls}");
    assert_eq!(injected.len(), 7, "{injected:?}");
    assert!(injected.values().all(|count| *count >= 10), "{injected:?}");
    // And hardly any of it came through, at the price of little more than itself.
    let (shown, cost) = (failed.len(), calls as f64 / total as f64);
    let what = "searches, embeddings and chats, 5 % faults";
    row(&format!("{what}: shown of {total}"), "< 0.1 %", shown, shown * 1000 < total);
    row(&format!("{what}: upstream calls a call"), "<= 1.07", format!("{cost:.4}"), cost <= 1.07);
    assert!(took < Duration::from_secs(300), "{took:?}");
}
