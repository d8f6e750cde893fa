//! Asking the upstream: attempts, decisions, back-off.

use std::time::{Duration, SystemTime};

use http::{HeaderMap, Request, StatusCode, response};
use tokio::time::{Instant, sleep};

use super::answer::{Answer, Forwarded};
use super::content::{self, Held};
use super::headers;
use super::outbound::{Outbound, Terms};
use super::route::Route;
use crate::body::Outgoing;
use crate::error::{Error, Kind};
use crate::exchange::Attempts;
use crate::plan::StopSdk;
use crate::retry::{self, Decision, Failure, GiveUp, Situation};
use crate::upstream::{Failed, Phase};

/// Content of an error answer that is read before deciding about it, in bytes: enough for any provider's, and it frees
/// the connection for the next attempt.
const ERROR_CONTENT: usize = 64 * 1024;

/// How long an error's content is waited for before its head goes out without it.
const ERROR_PATIENCE: Duration = Duration::from_secs(1);

/// Attempts the request until it succeeds or the policy says that the last outcome stands.
///
/// `attempts` is filled in as it goes, so that what was done is known even if the caller is dropped on the way.
pub(super) async fn forward(
    route: &Route,
    outbound: &mut Outbound,
    terms: &Terms,
    attempts: &mut Attempts,
) -> Forwarded {
    let plan = &route.plan;
    let rule = route.rule(terms.rule);
    let series = route.series(rule.operation);
    let already = attempts.count;
    loop {
        let begun = Instant::now();
        let request = outbound.attempt();
        let outcome = attempt(route, request, terms, begun).await;
        let waited = begun.elapsed();
        attempts.count += 1;
        attempts.upstream += waited;
        attempts.unfinished |= is_unfinished(&outcome);
        series.attempt(waited);
        let Some((failure, error_head)) = judge(&outcome, &plan.billing_codes) else {
            let stop_sdk = stops_sdk(plan.stop_sdk, GiveUp::NotRetryable, &outcome);
            return Forwarded { result: outcome.map_err(|failed| failed.error), stop_sdk };
        };
        let situation = Situation {
            class: terms.class,
            attempt: attempts.count - already,
            failure,
            upstream_says: error_head.and_then(should_retry),
            push_back: error_head.and_then(|headers| retry::retry_after(headers, SystemTime::now())),
            remaining: terms.deadline.saturating_duration_since(Instant::now()),
            waited: attempts.backoff,
            client_retries: terms.client_retries,
            random: fastrand::f64(),
        };
        let decision = match &outcome {
            Err(Failed { phase: Phase::Deadline, .. }) => Decision::GiveUp(GiveUp::Deadline),
            _ if terms.no_retry || outbound.content.is_none() => Decision::GiveUp(GiveUp::Disabled),
            _ if outbound.is_abandoned() => Decision::GiveUp(GiveUp::Abandoned),
            _ => rule.retry.decide(&situation),
        };
        match decision {
            Decision::Retry { after, reason } => {
                series.retry(reason as usize);
                let begun = Instant::now();
                sleep(after).await;
                attempts.backoff += begun.elapsed();
                if outbound.is_abandoned() {
                    return Forwarded { result: outcome.map_err(|failed| failed.error), stop_sdk: false };
                }
            }
            Decision::GiveUp(why) => {
                if why != GiveUp::NotRetryable {
                    series.retry_not_made(why as usize);
                }
                let stop_sdk = stops_sdk(plan.stop_sdk, why, &outcome);
                return Forwarded { result: outcome.map_err(|failed| failed.error), stop_sdk };
            }
        }
    }
}

/// Whether the upstream may have got the request, and still be at work on it. 202 says so (RFC 9110 section 15.3.3); 408,
/// 499 and 5xx may be said by whoever stands before it and has stopped waiting.
fn is_unfinished(outcome: &Result<Answer, Failed>) -> bool {
    match outcome {
        Ok(answer) => {
            let status = answer.head.status;
            matches!(status.as_u16(), 202 | 408 | 499)
                || status.is_server_error() && !matches!(status.as_u16(), 501 | 505)
        }
        Err(failed) => !matches!(failed.phase, Phase::NeverSent | Phase::Shed),
    }
}

/// One attempt, with as much of its content as has to be here before the answer is judged.
async fn attempt(
    route: &Route,
    mut request: Option<Request<Outgoing>>,
    terms: &Terms,
    begun: Instant,
) -> Result<Answer, Failed> {
    let timeouts = &route.rule(terms.rule).timeouts;
    let response = route.upstream.send(&mut request, timeouts, terms.deadline, begun, false).await?;
    let (mut head, body) = response.into_parts();
    let framed = is_framed(&mut head)?;
    let judged = retry::retryable_status(head.status) || head.status == StatusCode::BAD_REQUEST;
    let (hold, until) = if head.status.is_success() {
        (terms.hold, terms.deadline)
    } else {
        // An error that trickles is handed on as it comes, rather than held until it is too late for it.
        let limit = if judged || terms.hold > 0 { ERROR_CONTENT } else { 0 };
        (limit, terms.deadline.min(Instant::now() + ERROR_PATIENCE))
    };
    if hold == 0 {
        let content = Held::Streaming { prefix: Vec::new(), rest: body };
        return Ok(Answer { head, content, framed, write: None });
    }
    match content::hold(body, hold, until).await {
        Ok(Held::Streaming { .. }) if head.status.is_success() && Instant::now() >= terms.deadline => {
            let detail = "the response was not complete in time";
            Err(Failed { error: Error::new(Kind::ResponseTimeout, detail), phase: Phase::Deadline })
        }
        Ok(content) => Ok(Answer { head, content, framed, write: None }),
        Err(error) => Err(Failed { error, phase: Phase::Sent }),
    }
}

/// Makes the head that of the forwarded answer, and tells whether the answer's end can be told from a connection that
/// broke. An answer that says its length twice, or that switches protocols unasked, is none: another reader of it could
/// find another end (RFC 9112 section 6.3).
fn is_framed(head: &mut response::Parts) -> Result<bool, Failed> {
    let broken =
        |detail: &'static str| Failed { error: Error::new(Kind::Protocol, detail), phase: Phase::Sent };
    let framing = headers::give_back(&mut head.headers);
    if head.status.is_informational() {
        return Err(broken("the upstream switched protocols unasked"));
    }
    match framing.chunked {
        Some(_) if framing.length => {
            Err(broken("the upstream's answer has both a length and a transfer coding"))
        }
        Some(chunked) => Ok(chunked),
        None => Ok(framing.length || head.version >= http::Version::HTTP_2),
    }
}

/// What failed, with the headers of the error answer where there is one. `None`: nothing an attempt could mend.
fn judge<'a>(
    outcome: &'a Result<Answer, Failed>,
    billing_codes: &[String],
) -> Option<(Failure, Option<&'a HeaderMap>)> {
    match outcome {
        // The client's own content broke off, or is too large: no attempt of ours can mend that.
        Err(failed) if matches!(failed.error.kind, Kind::Malformed | Kind::ContentTooLarge) => None,
        Err(Failed { phase: Phase::Shed, .. }) => None,
        Err(failed) => Some((
            match failed.phase {
                Phase::NeverSent => Failure::NeverSent(failed.error.kind),
                Phase::Sent | Phase::Reused | Phase::Shed => Failure::Reset,
                Phase::FirstByteTimeout | Phase::Deadline => Failure::FirstByteTimeout,
            },
            None,
        )),
        Ok(answer) if retry::retryable_status(answer.head.status) => {
            let billing = answer.head.status == StatusCode::TOO_MANY_REQUESTS
                && matches!(&answer.content, Held::Whole(content) if is_billing(content, billing_codes));
            let failure = if billing { Failure::Billing } else { Failure::Status(answer.head.status) };
            Some((failure, Some(&answer.head.headers)))
        }
        Ok(_) => None,
    }
}

fn should_retry(headers: &HeaderMap) -> Option<bool> {
    match headers.get("x-should-retry")?.as_bytes() {
        b"true" => Some(true),
        b"false" => Some(false),
        _ => None,
    }
}

/// Whether a 429 says that paying would help: providers tell it in the code, not in the status.
fn is_billing(content: &[u8], codes: &[String]) -> bool {
    #[derive(serde::Deserialize)]
    struct Answer {
        error: Told,
    }
    #[derive(serde::Deserialize)]
    struct Told {
        r#type: Option<String>,
        code: Option<String>,
        details: Option<Details>,
    }
    #[derive(serde::Deserialize)]
    struct Details {
        error_code: Option<String>,
    }
    if codes.is_empty() {
        return false;
    }
    let Ok(Answer { error }) = serde_json::from_slice(content) else { return false };
    [error.r#type, error.code, error.details.and_then(|details| details.error_code)]
        .iter()
        .flatten()
        .any(|word| codes.contains(word))
}

/// Whether the client's SDK is told to stop: only of failures that it would retry on its own.
fn stops_sdk(setting: StopSdk, why: GiveUp, outcome: &Result<Answer, Failed>) -> bool {
    let sdk_would_retry = match outcome {
        Ok(answer) => {
            matches!(answer.head.status.as_u16(), 408 | 409 | 429) || answer.head.status.is_server_error()
        }
        Err(_) => true,
    };
    sdk_would_retry
        && match setting {
            StopSdk::Auto => why.stops_sdk(),
            StopSdk::Always => true,
            StopSdk::Never => false,
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn billing_is_told_by_type_code_or_detail() {
        let codes = ["insufficient_quota".to_owned(), "enforced_spend_limit_reached".to_owned()];
        for (content, billing) in [
            (r#"{"error":{"message":"m","type":"insufficient_quota","param":null,"code":null}}"#, true),
            (r#"{"error":{"type":"tokens","code":"insufficient_quota"}}"#, true),
            (
                r#"{"type":"error","error":{"type":"rate_limit_error","details":{"error_code":"enforced_spend_limit_reached"}}}"#,
                true,
            ),
            (r#"{"error":{"type":"requests","code":"rate_limit_exceeded"}}"#, false),
            (r#"{"error":"insufficient_quota"}"#, false),
            ("insufficient_quota", false),
        ] {
            assert_eq!(is_billing(content.as_bytes(), &codes), billing, "{content}");
        }
    }
}
