//! What is neither stored nor changes what is: asked, and streamed back.

use http::StatusCode;
use memchr::memmem;

use super::answer::Forwarded;
use super::content::Held;
use super::forward::forward;
use super::outbound::{Outbound, Terms};
use super::route::Route;
use super::trim::{Other, Trimming};
use crate::conversations::Form;
use crate::exchange::Exchange;
use crate::metrics::Trimmed;

/// How upstreams say that a conversation is too long for the model: by OpenAI's code, and in the words of Anthropic and
/// of others.
const TOO_LONG: [&[u8]; 5] = [
    b"context_length_exceeded",
    b"prompt is too long",
    b"maximum context length",
    b"exceed context limit",
    b"exceeds the context window",
];

/// Asks the upstream, and streams its answer. A conversation that it refuses in one form is sent once more in the other, if
/// it has another.
pub(super) async fn pass(
    trimming: &Trimming,
    route: &Route,
    mut outbound: Outbound,
    other: Option<Other>,
    terms: &Terms,
    exchange: &mut Exchange,
) -> Forwarded {
    let forwarded = forward(route, &mut outbound, terms, &mut exchange.attempts).await;
    match other.filter(|_| !terms.no_retry && is_refused(&forwarded)) {
        Some(other) => {
            // It may hold a place among the calls under way.
            drop(forwarded);
            Box::pin(resend(trimming, other, route, outbound, terms, exchange)).await
        }
        None => forwarded,
    }
}

/// Whether the upstream refuses what was forwarded of a conversation. Too long for the model does not count: the
/// original is longer still.
fn is_refused(forwarded: &Forwarded) -> bool {
    forwarded.result.as_ref().is_ok_and(|answer| {
        let too_long = |content| TOO_LONG.iter().any(|words| memmem::find(content, words).is_some());
        answer.head.status == StatusCode::BAD_REQUEST
            && !matches!(&answer.content, Held::Whole(content) if too_long(content))
    })
}

/// Sends the conversation in its other form, because the first was refused. Its failures are those of a request.
async fn resend(
    trimming: &Trimming,
    other: Other,
    route: &Route,
    mut outbound: Outbound,
    terms: &Terms,
    exchange: &mut Exchange,
) -> Forwarded {
    if let Some(series) = exchange.series() {
        series.original_resent();
    }
    let left_out = other.left_out.messages;
    (exchange.messages, exchange.trimmed) = match other.form {
        Form::Whole => (exchange.messages.map(|messages| messages + left_out), Trimmed::default()),
        Form::Trimmed => {
            (exchange.messages.map(|messages| messages.saturating_sub(left_out)), other.left_out)
        }
    };
    trimming.resent(&route.plan, &other);
    let (content, refused) = other.into_content();
    outbound.replace(content);
    let forwarded = forward(route, &mut outbound, terms, &mut exchange.attempts).await;
    if forwarded.result.as_ref().is_ok_and(|answer| answer.head.status.is_success()) {
        trimming.taken(refused);
    }
    forwarded
}
