//! Searches against an upstream that fails at random: how many failures the bot sees, and at what price, with retries
//! that have room and with a budget that has not.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::load::{SEARCH, calls, echo};
use super::{row, sized};
use crate::support::{Answer, Pillion, Seen, Step, Upstream};

/// Injected faults: 5xx, resets, and answers that do not come in time, a third each.
#[derive(Debug)]
struct Faults {
    random: fastrand::Rng,
    share: f64,
    injected: [usize; 3],
}

impl Faults {
    fn answer(&mut self, seen: &Seen) -> Answer {
        let whole = echo(seen);
        if self.random.f64() >= self.share {
            return whole;
        }
        let kind = self.random.usize(..3);
        self.injected[kind] += 1;
        let variant = self.injected[kind];
        match kind {
            0 => Answer::status([500, 502, 503, 504][variant % 4], "{}"),
            1 if variant.is_multiple_of(2) => Answer::reset(),
            1 => {
                // Within the head, or within the content.
                let length = if variant.is_multiple_of(3) { 20 } else { whole.len() - 4 };
                whole.cut_with(length, Step::Reset)
            }
            _ => Answer::hang(),
        }
    }
}

/// What came of a run.
struct Run {
    total: usize,
    shown: usize,
    /// Upstream calls, as the upstream counts them, for one of the bot's.
    cost: f64,
    injected: [usize; 3],
}

/// So many searches, under the budget that is built in or another.
async fn run(total: usize, share: f64, seed: u64, budget: Option<&str>) -> Run {
    let faults = Faults { random: fastrand::Rng::with_seed(seed), share, injected: [0; 3] };
    let faults = Arc::new(Mutex::new(faults));
    let counted = Arc::new(AtomicUsize::new(0));
    let (by, count) = (Arc::clone(&faults), Arc::clone(&counted));
    let upstream = Upstream::answering(move |seen| {
        count.fetch_add(1, SeqCst);
        by.lock().unwrap().answer(seen)
    })
    .await;
    upstream.forgets();
    // What stalls has to end some time; and on a machine that is busy with other tests, only what stalls.
    let first_byte = sized("250ms", "500ms");
    let retry = budget.map_or(String::new(), |budget| format!("budget: {budget}"));
    let yaml = format!(
        "routes: [{{name: r, path: /, upstream: '${{UP}}', preset: upstash-vector, cache: {{settle: 0s}}, \
         timeouts: {{first_byte: {first_byte}}}, retry: {{{retry}}}}}]\n"
    );
    let pillion = Pillion::start(&yaml, &[("UP", &upstream.url())]).await;

    let begun = Instant::now();
    let failed = calls(pillion.addr, &[SEARCH], total, 64).await;
    let (shown, made) = (failed.len(), counted.load(SeqCst));
    let injected = faults.lock().unwrap().injected;
    let took = begun.elapsed();
    println!("{total} searches in {took:.1?}: {shown} failed, {made} upstream calls, faults {injected:?}");
    if let Some(failure) = failed.first() {
        println!("such as {failure}");
    }
    // The upstream's word and Pillion's are one.
    let attempts = pillion.metric("pillion_upstream_attempts_total", &[]).await;
    assert_eq!(attempts, made as f64);
    assert!(took < Duration::from_secs(300), "{took:?}");
    Run { total, shown, cost: made as f64 / total as f64, injected }
}

impl Run {
    /// The mixture was there, every part of it.
    fn was_faulty(&self, share: f64) {
        let sum: usize = self.injected.iter().sum();
        let seen = sum as f64 / (self.cost * self.total as f64);
        assert!((seen - share).abs() < 0.2 * share, "{:?} of {}", self.injected, self.total);
        assert!(self.injected.iter().all(|count| count * 4 > sum), "{:?}", self.injected);
    }

    fn costs(&self, what: &str, bar: f64) {
        let seen = format!("{:.4}", self.cost);
        row(&format!("{what}: upstream calls a search"), &format!("<= {bar}"), seen, self.cost <= bar);
    }

    fn shows(&self, what: &str, percent: f64) {
        let seen = 100.0 * self.shown as f64 / self.total as f64;
        let text = format!("{seen:.3} % ({})", self.shown);
        row(&format!("{what}: failures shown"), &format!("<= {percent} %"), text, seen <= percent);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_fault_in_twenty_is_hidden_for_little_more_than_itself() {
    let run = run(sized(100_000, 3_000), 0.05, 0x0000_c0ff_ee00_0005, None).await;
    let what = format!("{} searches, 5 % faults", run.total);
    run.was_faulty(0.05);
    run.shows(&what, 0.03);
    run.costs(&what, 1.06);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_budget_bounds_what_one_fault_in_five_costs() {
    let run = run(sized(50_000, 1_000), 0.2, 0x0000_c0ff_ee00_0014, Some("10%")).await;
    let what = format!("{} searches, 20 % faults, budget 10 %", run.total);
    run.was_faulty(0.2);
    // Exact over any ten seconds; a small run that takes longer may have ten in each.
    run.costs(&what, sized(1.1, 1.12));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_larger_budget_hides_nearly_all_of_one_fault_in_five() {
    let run = run(sized(50_000, 1_000), 0.2, 0x0000_c0ff_ee00_0019, Some("25%")).await;
    let what = format!("{} searches, 20 % faults, budget 25 %", run.total);
    run.was_faulty(0.2);
    // Chance may take a small run to the bound more often.
    run.shows(&what, sized(1.0, 3.0));
    run.costs(&what, sized(1.25, 1.27));
}
