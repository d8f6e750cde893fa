//! Lets failures happen to requests through a Pillion, and collects what is seen of it and what is counted.

use std::collections::BTreeMap;
use std::time::Duration;

use super::failures::{Cause, Stage, Times};
use super::requests::Ask;
use super::table::Row;
use crate::support::metrics::series;
use crate::support::secure::Authority;
use crate::support::{Answer, Client, Pillion, Response, Upstream, advance, eventually};

/// What is no default: waits that nobody sits out, and time for what is waited for by the clock of the test.
const LINES: [&str; 2] =
    ["retry: {base: 1ms, max_wait: 20s}", "timeouts: {connect: 5s, first_byte: 5s, idle: 5s, total: 10m}"];

/// Of requests that come before the one that is looked at: it shares no answer of theirs.
const ALONE: &[(&str, &str)] = &[("pillion-cache", "bypass")];

/// A failure of a request.
#[derive(Clone, Copy)]
pub(super) struct Case {
    pub(super) row: &'static Row,
    pub(super) cause: Cause,
    pub(super) ask: Ask,
    pub(super) times: Times,
}

/// What was seen of it.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) response: Response,
    pub(super) attempts: usize,
    /// `pillion_retries_total` and `pillion_retries_not_made_total` by reason, as far as they grew.
    pub(super) retries: BTreeMap<String, usize>,
    pub(super) not_made: BTreeMap<String, usize>,
    /// `pillion_failures_hidden_total` and `pillion_failures_shown_total`.
    pub(super) hidden: usize,
    pub(super) shown: usize,
    /// The upstream's own answer, where that is the failure.
    pub(super) upstream_says: Option<Response>,
    /// It is the answer to a request that nothing happens to.
    pub(super) succeeded: bool,
}

/// Lets all of them happen, each to a route of its own of one Pillion.
pub(super) async fn observe(cases: &[Case]) -> Vec<Outcome> {
    let authority = Authority::new();
    let (mut stages, mut routes) = (Vec::new(), String::new());
    for (number, case) in cases.iter().enumerate() {
        let stage = case.cause.stage(case.ask, case.times, &authority).await;
        routes += &case.ask.route(number, &stage.url, &[&LINES, case.row.lines].concat());
        stages.push(stage);
    }
    let top = cases.first().map_or("", |case| case.row.top);
    let configuration = format!("tls: {{ca: '{}'}}\n{top}\nroutes:\n{routes}", authority.file());
    let pillion = Pillion::start(&configuration, &[]).await;

    let mut under_way = Vec::new();
    for (number, (case, stage)) in cases.iter().zip(&stages).enumerate() {
        under_way.extend(case.prepare(number, stage, &pillion).await);
    }
    let before = counts(&pillion.metrics().await);
    let mut seen = Vec::new();
    for (number, (case, stage)) in cases.iter().zip(&stages).enumerate() {
        let before = stage.arrived();
        let response = case.ask(number, case.row.fields, &pillion).await;
        seen.push((response, stage.arrived() - before));
    }
    let after = counts(&pillion.metrics().await);

    let mut outcomes = Vec::new();
    for (number, (case, (response, arrived))) in cases.iter().zip(seen).enumerate() {
        let outcome = case.outcome(response, &grown(&before, &after, number)).await;
        if stages[number].counts() {
            assert_eq!(
                arrived, outcome.attempts,
                "each attempt is a request: {:?} {:?}",
                case.cause, case.ask
            );
        }
        outcomes.push(outcome);
    }
    outcomes
}

impl Case {
    /// What comes before the request that is looked at. A request that stays under way is returned.
    async fn prepare(&self, number: usize, stage: &Stage, pillion: &Pillion) -> Option<Client> {
        for _ in 0..self.cause.earlier() {
            self.ask(number, ALONE, pillion).await;
        }
        if self.cause != Cause::Full {
            return None;
        }
        let mut client = pillion.connect().await;
        client.ask("POST", &self.target(number), ALONE, self.ask.body).await;
        eventually("the request under way", async || stage.arrived() == 1).await;
        Some(client)
    }

    fn target(&self, number: usize) -> String {
        format!("/{number}{}", self.ask.target)
    }

    async fn ask(&self, number: usize, fields: &[(&str, &str)], pillion: &Pillion) -> Response {
        let mut client = pillion.connect().await;
        client.ask("POST", &self.target(number), fields, self.ask.body).await;
        if self.cause.is_slow() { hurry(&mut client, pillion).await } else { client.response().await }
    }

    async fn outcome(&self, response: Response, counted: &Counts) -> Outcome {
        let of = |name: &str| counted.get(name).cloned().unwrap_or_default();
        let sum = |name: &str| of(name).values().sum();
        let success = direct(self.ask.success()).await;
        // What the upstream of these says has no content.
        let empty = matches!(self.cause, Cause::RefusedStream | Cause::GoAway(_));
        let whole = response.status == success.status && response.complete;
        Outcome {
            succeeded: whole && (empty || response.body == success.body),
            response,
            attempts: sum("pillion_upstream_attempts_total"),
            retries: of("pillion_retries_total"),
            not_made: of("pillion_retries_not_made_total"),
            hidden: sum("pillion_failures_hidden_total"),
            shown: sum("pillion_failures_shown_total"),
            upstream_says: match self.cause.answer(&self.ask) {
                Some(answer) if self.cause != Cause::Full => Some(direct(answer).await),
                _ => None,
            },
        }
    }
}

/// The response, while the clock goes on by half a second whenever everything has run that can.
async fn hurry(client: &mut Client, pillion: &Pillion) -> Response {
    let mut response = std::pin::pin!(client.response());
    loop {
        tokio::select! {
            biased;
            response = &mut response => return response,
            () = async { drop(pillion.admin_get("/livez").await) } => advance(Duration::from_millis(500)).await,
        }
    }
}

/// An answer as a client without Pillion in between sees it.
async fn direct(answer: Answer) -> Response {
    let upstream = Upstream::start().await;
    upstream.push(answer);
    Client::connect(upstream.addr).await.exchange("GET", "/", &[], "").await
}

/// By metric: how often, by the label `reason`.
type Counts = BTreeMap<String, BTreeMap<String, usize>>;

/// What the metrics tell of each route.
fn counts(text: &str) -> BTreeMap<String, Counts> {
    const COUNTED: [&str; 3] = ["pillion_upstream_attempts_total", "pillion_retries", "pillion_failures"];
    let mut counts: BTreeMap<String, Counts> = BTreeMap::new();
    for (series, value) in
        series(text).filter(|(series, _)| COUNTED.iter().any(|name| series.starts_with(name)))
    {
        let (name, labels) = series.split_once('{').unwrap();
        let label = |name: &str| {
            let rest = labels.split(&format!("{name}=\"")).nth(1)?;
            Some(rest.split('"').next()?.to_owned())
        };
        let by_reason =
            counts.entry(label("route").unwrap()).or_default().entry(name.to_owned()).or_default();
        *by_reason.entry(label("reason").unwrap_or_default()).or_default() += value as usize;
    }
    counts
}

/// What is more than it was, of one route.
fn grown(before: &BTreeMap<String, Counts>, after: &BTreeMap<String, Counts>, number: usize) -> Counts {
    let route = format!("r{number}");
    let mut grown = after[&route].clone();
    for (name, by_reason) in &mut grown {
        for (reason, times) in by_reason.iter_mut() {
            *times -= before.get(&route).and_then(|counts| counts.get(name)?.get(reason)).unwrap_or(&0);
        }
        by_reason.retain(|_, times| *times > 0);
    }
    grown
}
