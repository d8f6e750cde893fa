//! Asking the upstream: attempts, decisions, back-off.

use std::time::{Duration, SystemTime};

use http::HeaderMap;
use tokio::time::{Instant, sleep};

use super::answer::Forwarded;
use super::attempt::{Outcome, Trial, attempt};
use super::outbound::{Outbound, Terms};
use super::route::Route;
use super::turn::{NoTurn, Turn, take_turn};
use crate::error::{Error, Kind};
use crate::exchange::Attempts;
use crate::plan::StopSdk;
use crate::retry::breaker::Health;
use crate::retry::{self, Decision, Failure, GiveUp, Situation};

/// Attempts the request until it succeeds or the policy says that the last outcome stands.
///
/// `attempts` is filled in as it goes, so that what was done is known even if the caller is dropped on the way.
pub(super) async fn forward(
    route: &Route,
    outbound: &mut Outbound,
    terms: &Terms,
    attempts: &mut Attempts,
) -> Forwarded {
    let rule = route.rule(terms.rule);
    let series = route.series(rule.operation);
    let mut turn = match take_turn(route, &rule.retry, terms, attempts).await {
        Ok(_) | Err(NoTurn::Breaker) if outbound.is_abandoned() => return left_alone(route),
        Ok(turn) => turn,
        Err(NoTurn::Breaker) => return left_alone(route),
        Err(NoTurn::Full(error)) => return error.into(),
    };
    let mut course = Course::default();
    let awaits_first = !terms.no_retry
        && outbound.is_held()
        && rule.retry.awaits_first_event(terms.class, terms.client_retries);
    loop {
        let Turn { begun, permit, probe } = turn;
        let trial = Trial { anew: course.anew, awaits_first };
        let mut outcome = attempt(route, outbound.attempt(), terms, trial, (begun, permit)).await;
        let now = Instant::now();
        attempts.ended(now - begun, outcome.is_unfinished());
        series.attempt(now - begun);
        let failure = outcome.failure(&route.plan.billing_codes);
        let given = (now - begun, outbound.is_held());
        route.note(course.made == 0, health(&outcome, failure, rule.timeouts.total, given), begun, now);
        drop(probe);
        let Some(failure) = failure else {
            if course.hides {
                series.failure_hidden();
            }
            return stands(route, GiveUp::NotRetryable, outcome);
        };
        course.failed(failure, &outcome, now - begun);
        let decision =
            rule.retry.decide(&course.situation(failure, route, &outcome, terms, attempts.backoff));
        let next = match (decision, outbound.once_only(terms)) {
            (Decision::GiveUp(why), _) | (Decision::Retry { .. }, Some(why)) => Err(why),
            (Decision::Retry { after, reason }, None) => {
                series.retry(reason as usize);
                outcome.let_go();
                back_off(route, after, attempts).await;
                match take_turn(route, &rule.retry, terms, attempts).await {
                    _ if outbound.is_abandoned() => Err(GiveUp::Abandoned),
                    Ok(turn) => Ok(turn),
                    Err(NoTurn::Breaker) => Err(GiveUp::Breaker),
                    Err(NoTurn::Full(error)) => return error.into(),
                }
            }
        };
        turn = match next {
            Ok(turn) => turn,
            Err(why) => {
                if why != GiveUp::NotRetryable {
                    series.retry_not_made(why as usize);
                }
                if course.hides || failure.is_upstreams() {
                    series.failure_shown();
                }
                return stands(route, why, outcome);
            }
        };
    }
}

/// What is known of the attempts so far. All have failed.
#[derive(Debug, Default)]
struct Course {
    made: u32,
    /// The next goes over a new connection.
    anew: bool,
    /// The quickest answer.
    quickest: Option<Duration>,
    /// The upstream has failed: hidden if the next attempt succeeds.
    hides: bool,
}

impl Course {
    fn failed(&mut self, failure: Failure, outcome: &Outcome, waited: Duration) {
        self.made += 1;
        self.anew = failure == Failure::Reused;
        // A connection that was ending is no failure while another takes its place.
        self.hides |= failure.is_upstreams() && !(self.made == 1 && failure.is_ending());
        if outcome.head().is_some() {
            self.quickest = Some(self.quickest.map_or(waited, |quickest| quickest.min(waited)));
        }
    }

    fn situation(
        &self,
        failure: Failure,
        route: &Route,
        outcome: &Outcome,
        terms: &Terms,
        waited: Duration,
    ) -> Situation {
        let now = Instant::now();
        let wish =
            outcome.head().and_then(|(status, headers)| retry::push_back(status, headers, SystemTime::now()));
        Situation {
            class: terms.class,
            attempt: self.made,
            failure,
            upstream_says: outcome.head().and_then(|(_, headers)| should_retry(headers)),
            push_back: wish.unwrap_or_default(),
            budget: route.guard.budget(now),
            remaining: terms.deadline.saturating_duration_since(now),
            quickest: self.quickest.unwrap_or_default(),
            waited,
            client_retries: terms.client_retries,
            random: route.guard.random(),
        }
    }
}

/// What the end of an attempt tells of the upstream, which was given so long, and all of the content or not. That a client
/// allows too little time, or does not send what it has announced, is not the upstream's failure.
fn health(
    outcome: &Outcome,
    failure: Option<Failure>,
    allowed: Duration,
    (given, whole): (Duration, bool),
) -> Health {
    match failure {
        None if outcome.head().is_none() => Health::Unknown,
        None => Health::Up,
        Some(Failure::Deadline) if whole && given >= allowed / 2 => Health::Failed,
        Some(failure) => failure.health(),
    }
}

fn should_retry(headers: &HeaderMap) -> Option<bool> {
    match headers.get("x-should-retry")?.as_bytes() {
        b"true" => Some(true),
        b"false" => Some(false),
        _ => None,
    }
}

/// Waits before the next attempt.
async fn back_off(route: &Route, after: Duration, attempts: &mut Attempts) {
    let begun = Instant::now();
    // Those that the budget does not refuse leave less for the others: all together are what the upstream has to bear.
    route.guard.retried(begun);
    if !after.is_zero() {
        sleep(after).await;
        attempts.backoff += begun.elapsed();
    }
}

/// The last outcome is the client's.
fn stands(route: &Route, why: GiveUp, outcome: Outcome) -> Forwarded {
    let stop_sdk = stops_sdk(route.plan.stop_sdk, why, &outcome);
    Forwarded { result: outcome.result.map_err(|failed| failed.error), stop_sdk }
}

/// The breaker is open, and the upstream was not asked. The client's SDK may come back: that costs the upstream nothing,
/// and it knows how often it has tried.
fn left_alone(route: &Route) -> Forwarded {
    let detail = format!(
        "{} has failed again and again; it is asked anew in a moment, and nobody else meanwhile",
        route.plan.upstream.authority
    );
    let stop_sdk = route.plan.stop_sdk == StopSdk::Always;
    Forwarded { result: Err(Error::new(Kind::Unavailable, detail)), stop_sdk }
}

/// Whether the client's SDK is told to stop: only of failures that it would retry on its own. It takes the upstream's
/// word before its own list of statuses.
fn stops_sdk(setting: StopSdk, why: GiveUp, outcome: &Outcome) -> bool {
    let sdk_would_retry = outcome.head().is_none_or(|(status, headers)| {
        should_retry(headers)
            .unwrap_or(matches!(status.as_u16(), 408 | 409 | 429) || status.is_server_error())
    });
    sdk_would_retry
        && match setting {
            StopSdk::Auto => why.stops_sdk(),
            StopSdk::Always => true,
            StopSdk::Never => false,
        }
}
