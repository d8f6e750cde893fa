//! What is neither stored nor changes what is: asked, and streamed back.

use http::StatusCode;
use memchr::memmem;

use super::answer::Forwarded;
use super::content::{Content, Held};
use super::forward::forward;
use super::outbound::{Outbound, Terms};
use super::route::Route;
use super::trim::{Original, Trimming};
use crate::exchange::Exchange;

/// How upstreams say that a conversation is too long for the model: by OpenAI's code, and in Anthropic's words.
const TOO_LONG: [&[u8]; 2] = [b"context_length_exceeded", b"prompt is too long"];

/// Asks the upstream, and streams its answer. A trimmed conversation that it refuses is sent once more as it was.
pub(super) async fn pass(
    trimming: &Trimming,
    route: &Route,
    mut outbound: Outbound,
    original: Option<Original>,
    terms: &Terms,
    exchange: &mut Exchange,
) -> Forwarded {
    let forwarded = forward(route, &mut outbound, terms, &mut exchange.attempts).await;
    match original.filter(|_| is_refused(&forwarded)) {
        Some(original) => Box::pin(resend(trimming, original, route, outbound, terms, exchange)).await,
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

/// Sends the conversation as it was received, once, because its trimmed form was refused.
async fn resend(
    trimming: &Trimming,
    original: Original,
    route: &Route,
    mut outbound: Outbound,
    terms: &Terms,
    exchange: &mut Exchange,
) -> Forwarded {
    if let Some(series) = exchange.series() {
        series.original_resent();
    }
    let trimmed = std::mem::take(&mut exchange.trimmed);
    exchange.messages = exchange.messages.map(|messages| messages + trimmed.messages);
    trimming.resent(&route.plan, &original, trimmed);
    outbound.content = Some(Content::Whole(original.content.clone()));
    let once = Terms { no_retry: true, ..*terms };
    let forwarded = forward(route, &mut outbound, &once, &mut exchange.attempts).await;
    if forwarded.result.as_ref().is_ok_and(|answer| answer.head.status.is_success()) {
        trimming.taken_whole(&original);
    }
    forwarded
}
