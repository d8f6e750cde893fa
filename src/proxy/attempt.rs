//! One attempt, and what came of it.

use std::time::Duration;

use http::{HeaderMap, Request, StatusCode, response};
use tokio::time::Instant;

use super::answer::Answer;
use super::content::{self, Held};
use super::first_event::{await_first, is_stream};
use super::headers;
use super::outbound::Terms;
use super::route::Route;
use crate::body::Outgoing;
use crate::error::{Error, Kind};
use crate::retry::{self, Failure, FirstEvent};
use crate::upstream::{Failed, Permit, Phase, ResponseBody};

/// Content of an error answer that is read before deciding about it, in bytes: enough for any provider's, and it frees
/// the connection for the next attempt.
const ERROR_CONTENT: usize = 64 * 1024;

/// How long an error's content is waited for before its head goes out without it.
const ERROR_PATIENCE: Duration = Duration::from_secs(1);

/// One attempt of a request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Trial {
    /// Over a new connection.
    pub(super) anew: bool,
    /// A stream may begin with an error: it is not handed on before its first event.
    pub(super) awaits_first: bool,
}

/// What came of an attempt.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) result: Result<Answer, Failed>,
    /// How the answer begins, where that was waited for.
    event: FirstEvent,
}

impl Outcome {
    /// How it failed; `None` where it did not, or not by the upstream.
    pub(super) fn failure(&self, billing_codes: &[String]) -> Option<Failure> {
        let answer = match &self.result {
            // The client's own content broke off, or is too large: no attempt of ours can mend that.
            Err(failed) if matches!(failed.error.kind, Kind::Malformed | Kind::ContentTooLarge) => {
                return None;
            }
            Err(failed) => return Some(of_phase(failed)),
            Ok(answer) => answer,
        };
        let status = answer.head.status;
        match &self.event {
            event if event.names(billing_codes) => Some(Failure::Billing),
            event if event.is_final() => None,
            FirstEvent::Error(_) => Some(Failure::StreamError),
            _ if status == StatusCode::TOO_MANY_REQUESTS && is_billing(&answer.content, billing_codes) => {
                Some(Failure::Billing)
            }
            _ => (status.is_client_error() || status.is_server_error()).then_some(Failure::Status(status)),
        }
    }

    /// Whether the upstream may have got the request, and still be at work on it. 202 says so (RFC 9110 section
    /// 15.3.3); 408, 499 and 5xx may be said by whoever stands before it and has stopped waiting.
    pub(super) fn is_unfinished(&self) -> bool {
        match &self.result {
            Ok(answer) => {
                let status = answer.head.status;
                matches!(status.as_u16(), 202 | 408 | 499)
                    || status.is_server_error() && !matches!(status.as_u16(), 501 | 505)
            }
            Err(failed) => !matches!(failed.phase, Phase::NeverSent | Phase::Refused),
        }
    }

    /// Before another attempt: a stream that has said its error keeps neither its connection nor its place meanwhile.
    pub(super) fn let_go(&mut self) {
        if let (FirstEvent::Error(_), Ok(answer)) = (&self.event, &mut self.result)
            && let Held::Streaming { prefix, .. } = &mut answer.content
        {
            answer.content = Held::Pieces(std::mem::take(prefix));
        }
    }

    /// The status and the fields of its answer.
    pub(super) fn head(&self) -> Option<(StatusCode, &HeaderMap)> {
        self.result.as_ref().ok().map(|answer| (answer.head.status, &answer.head.headers))
    }
}

fn of_phase(failed: &Failed) -> Failure {
    match failed.phase {
        Phase::NeverSent => Failure::NeverSent(failed.error.kind),
        Phase::Refused => Failure::Refused,
        Phase::Reused => Failure::Reused,
        Phase::Sent if failed.error.kind == Kind::ResponseTimeout => Failure::IdleTimeout,
        Phase::Sent => Failure::Reset,
        Phase::FirstByteTimeout => Failure::FirstByteTimeout,
        Phase::Deadline => Failure::Deadline,
    }
}

/// One attempt, with as much of its content as has to be here before the answer is judged.
pub(super) async fn attempt(
    route: &Route,
    request: Option<Request<Outgoing>>,
    terms: &Terms,
    trial: Trial,
    (begun, permit): (Instant, Permit),
) -> Outcome {
    let mut event = FirstEvent::Unknown;
    let result = answer(route, request, terms, (trial, begun, permit), &mut event).await;
    Outcome { result, event }
}

async fn answer(
    route: &Route,
    mut request: Option<Request<Outgoing>>,
    terms: &Terms,
    (trial, begun, permit): (Trial, Instant, Permit),
    event: &mut FirstEvent,
) -> Result<Answer, Failed> {
    let timeouts = &route.rule(terms.rule).timeouts;
    let sent = route.upstream.send(&mut request, timeouts, terms.deadline, begun, trial.anew, permit);
    let (mut head, body) = sent.await?.into_parts();
    let framed = is_framed(&mut head)?;
    let content = if trial.awaits_first && is_stream(&head) {
        // Boxed: it is rare, and would make the future of every request larger.
        let (content, first) = Box::pin(await_first(body)).await.map_err(broken_off)?;
        *event = first;
        content
    } else {
        hold(&head, body, terms).await?
    };
    Ok(Answer { head, content, framed, write: None })
}

/// The content, as far as it has to be here.
async fn hold(head: &response::Parts, body: ResponseBody, terms: &Terms) -> Result<Held, Failed> {
    let judged = retry::retryable_status(head.status) || head.status == StatusCode::BAD_REQUEST;
    let (limit, until) = if head.status.is_success() {
        (terms.hold, terms.deadline)
    } else {
        // An error that trickles is handed on as it comes, rather than held until it is too late for it.
        let limit = if judged || terms.hold > 0 { ERROR_CONTENT } else { 0 };
        (limit, terms.deadline.min(Instant::now() + ERROR_PATIENCE))
    };
    if limit == 0 {
        return Ok(Held::Streaming { prefix: Vec::new(), rest: body });
    }
    match content::hold(body, limit, until).await.map_err(broken_off)? {
        Held::Streaming { .. } if head.status.is_success() && Instant::now() >= terms.deadline => {
            let detail = "the response was not complete in time";
            Err(Failed { error: Error::new(Kind::ResponseTimeout, detail), phase: Phase::Deadline })
        }
        content => Ok(content),
    }
}

fn broken_off(error: Error) -> Failed {
    Failed { error, phase: Phase::Sent }
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

/// Whether a 429 says that paying would help: providers tell it in the code, not in the status.
fn is_billing(content: &Held, codes: &[String]) -> bool {
    use serde_json::Value;

    #[derive(serde::Deserialize)]
    struct Answer {
        error: Told,
    }
    #[derive(serde::Deserialize)]
    struct Told {
        r#type: Option<Value>,
        code: Option<Value>,
        details: Option<Details>,
    }
    #[derive(serde::Deserialize)]
    struct Details {
        error_code: Option<Value>,
    }
    let Held::Whole(content) = content else { return false };
    if codes.is_empty() {
        return false;
    }
    let Ok(Answer { error }) = serde_json::from_slice(content) else { return false };
    [error.r#type, error.code, error.details.and_then(|details| details.error_code)]
        .iter()
        .flatten()
        .any(|word| word.as_str().is_some_and(|word| codes.iter().any(|code| code == word)))
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
            (r#"{"error":{"type":"insufficient_quota","code":429}}"#, true),
            (r#"{"error":"insufficient_quota"}"#, false),
            ("insufficient_quota", false),
        ] {
            assert_eq!(is_billing(&Held::Whole(content.into()), &codes), billing, "{content}");
        }
    }
}
