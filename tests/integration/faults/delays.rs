//! Back-off does not keep instances in step: two processes with one configuration wait differently, each as full jitter
//! says. Nothing is seeded here; the bars are set so that chance alone misses one of them once in a million runs.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::{row, sized};
use crate::support::process::{Folder, Running};
use crate::support::{Answer, Client, Upstream};

/// The two arrivals of a request at the upstream, by the process and the number that it carries.
type Arrivals = HashMap<(usize, usize), Vec<Instant>>;

/// So many delays of each process, in the order in which they were drawn, as shares of the ceiling.
async fn delays(count: usize, ceiling: Duration) -> [Vec<f64>; 2] {
    let arrivals: Arc<Mutex<Arrivals>> = Arc::default();
    let log = Arc::clone(&arrivals);
    let upstream = Upstream::answering(move |seen| {
        let body = seen.json();
        let number = |name: &str| body[name].as_u64().unwrap() as usize;
        log.lock().unwrap().entry((number("process"), number("n"))).or_default().push(seen.at);
        Answer::status(503, "{}")
    })
    .await;
    upstream.forgets();
    // One thread: were it seeded by anything that both have in common, the two would draw the same.
    let yaml = format!(
        "version: 1\nlisten: 127.0.0.1:0\nadmin: {{listen: 127.0.0.1:0}}\nworkers: 1\nroutes:\n  - {{name: r, path: /, \
         upstream: '{}', preset: upstash-vector, breaker: {{enabled: false}}, \
         retry: {{attempts: 2, base: {ceiling:?}, max_wait: 10s, budget: 100%}}}}\n",
        upstream.url()
    );
    let ask = async |process: usize| {
        let folder = Folder::new();
        let mut pillion = Running::start(&folder, &yaml, &[]).await;
        let mut client = Client::connect(pillion.data().await).await;
        for number in 0..count {
            let body = format!(r#"{{"process":{process},"n":{number}}}"#);
            let response = client.exchange("POST", "/query", &[], body).await;
            assert_eq!(response.status, 503);
        }
    };
    tokio::join!(ask(0), ask(1));
    let arrivals = arrivals.lock().unwrap();
    [0, 1].map(|process| {
        let delay = |number| match arrivals[&(process, number)].as_slice() {
            [first, second] => (*second - *first).as_secs_f64() / ceiling.as_secs_f64(),
            other => panic!("request {number} was made {} times", other.len()),
        };
        (0..count).map(delay).collect()
    })
}

/// The largest difference between the distribution of these numbers and the even one over 0..1 (Kolmogorov, Smirnov).
fn distance_from_even(numbers: &[f64]) -> f64 {
    let mut sorted = numbers.to_vec();
    sorted.sort_by(f64::total_cmp);
    let share = |rank: usize| rank as f64 / sorted.len() as f64;
    let differences = sorted.iter().enumerate().map(|(rank, number)| {
        let even = number.clamp(0.0, 1.0);
        (even - share(rank)).abs().max((share(rank + 1) - even).abs())
    });
    differences.fold(0.0, f64::max)
}

/// Spearman's: 1 where two sequences rise and fall together, about 0 where they have nothing in common.
fn rank_correlation(one: &[f64], other: &[f64]) -> f64 {
    let ranks = |numbers: &[f64]| {
        let mut order: Vec<usize> = (0..numbers.len()).collect();
        order.sort_by(|a, b| numbers[*a].total_cmp(&numbers[*b]));
        let mut ranks = vec![0.0; numbers.len()];
        for (rank, index) in order.into_iter().enumerate() {
            ranks[index] = rank as f64;
        }
        ranks
    };
    let squares: f64 = ranks(one).iter().zip(ranks(other)).map(|(a, b)| (a - b).powi(2)).sum();
    let n = one.len() as f64;
    1.0 - 6.0 * squares / (n * (n * n - 1.0))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_processes_wait_differently_and_each_evenly() {
    // Long enough for what a busy machine adds to a wait to be little of it.
    let (count, ceiling) = sized((400, Duration::from_millis(100)), (60, Duration::from_millis(200)));
    let [one, other] = delays(count, ceiling).await;
    let what = format!("back-off of two processes, {count} delays each");
    // Without any connection it is normal about 0 with a deviation of 1 / sqrt(n - 1); five of these.
    let (bar, seen) = (5.0 / (count as f64 - 1.0).sqrt(), rank_correlation(&one, &other));
    row(
        &format!("{what}: rank correlation"),
        &format!("<= {bar:.2}"),
        format!("{seen:.3}"),
        seen.abs() <= bar,
    );
    // P(D > d) = 2 exp(-2 n d^2).
    let bar = 2.7 / (count as f64).sqrt();
    for (process, delays) in [one, other].iter().enumerate() {
        let seen = distance_from_even(delays);
        let what = format!("{what}: distance from the even distribution, process {process}");
        row(&what, &format!("<= {bar:.2}"), format!("{seen:.3}"), seen <= bar);
    }
}

#[test]
fn the_measures_tell_what_they_are_to_tell() {
    let even: Vec<f64> = (0..100).map(|n| f64::from(n) / 100.0 + 0.005).collect();
    assert!(distance_from_even(&even) < 0.006);
    let half: Vec<f64> = even.iter().map(|n| 0.5 + n / 2.0).collect();
    assert!((distance_from_even(&half) - 0.5).abs() < 0.01, "equal jitter");
    assert!(distance_from_even(&[0.9; 100]) > 0.89, "none");
    assert!((rank_correlation(&even, &half) - 1.0).abs() < 1e-9);
    let reversed: Vec<f64> = even.iter().rev().copied().collect();
    assert!((rank_correlation(&even, &reversed) + 1.0).abs() < 1e-9);
}
