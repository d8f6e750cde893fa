//! What is neither stored nor changes what is: asked, and streamed back.

use bytes::Bytes;
use http::StatusCode;

use super::answer::Forwarded;
use super::content::{Content, Held};
use super::forward::forward;
use super::outbound::{Outbound, Terms};
use super::route::Route;
use crate::exchange::Exchange;

/// Asks the upstream, and streams its answer. A trimmed conversation that it refuses is sent once more as it was.
pub(super) async fn pass(
    route: &Route,
    mut outbound: Outbound,
    original: Option<Bytes>,
    terms: &Terms,
    exchange: &mut Exchange,
) -> Forwarded {
    let forwarded = forward(route, &mut outbound, terms, &mut exchange.attempts).await;
    match original.filter(|_| is_refused(&forwarded)) {
        Some(original) => Box::pin(resend(original, route, outbound, terms, exchange)).await,
        None => forwarded,
    }
}

/// Whether the upstream refuses what was forwarded of a conversation. Too long for the model does not count: the
/// original is longer still.
fn is_refused(forwarded: &Forwarded) -> bool {
    forwarded.result.as_ref().is_ok_and(|answer| {
        answer.head.status == StatusCode::BAD_REQUEST
            && !matches!(&answer.content, Held::Whole(content)
                if memchr::memmem::find(content, b"context_length_exceeded").is_some())
    })
}

/// Sends the conversation as it was received, once, because its trimmed form was refused.
async fn resend(
    original: Bytes,
    route: &Route,
    mut outbound: Outbound,
    terms: &Terms,
    exchange: &mut Exchange,
) -> Forwarded {
    if let Some(series) = exchange.series() {
        series.original_resent();
    }
    exchange.messages = exchange.messages.map(|messages| messages + exchange.removed);
    exchange.removed = 0;
    outbound.content = Some(Content::Whole(original));
    let once = Terms { no_retry: true, ..*terms };
    forward(route, &mut outbound, &once, &mut exchange.attempts).await
}
