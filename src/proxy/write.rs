//! A change of the store: the fences are up from before it is sent until its outcome is known.

use std::sync::Arc;

use http::StatusCode;
use tokio::sync::oneshot;
use tokio_util::task::TaskTracker;

use super::answer::Forwarded;
use super::content::Held;
use super::fenced::Fenced;
use super::forward::forward;
use super::outbound::{Outbound, Terms};
use super::route::Route;
use crate::error::{Error, Kind};
use crate::exchange::{Attempts, Bypass, CacheStatus, Exchange};

/// Content of a write's answer that is read before the client gets any of it, in bytes.
const WRITE_ANSWER: usize = 1024 * 1024;

/// A write that has begun.
pub(super) struct Begun {
    pub(super) fences: Fenced,
    /// Its request asks for an answer only once every search sees it.
    pub(super) waits: bool,
}

/// Forwards a write that has begun. It runs in a task of its own and is seen to its end, whoever leaves; its fences come
/// down before the client can know its outcome.
pub(super) async fn write(
    Begun { mut fences, waits }: Begun,
    tasks: &TaskTracker,
    route: &Arc<Route>,
    mut outbound: Outbound,
    terms: Terms,
    exchange: &mut Exchange,
) -> Forwarded {
    exchange.cache = Some(CacheStatus::Bypass(Bypass::Write));
    if let Some(series) = exchange.series() {
        series.invalidated();
    }
    let route = Arc::clone(route);
    let terms = Terms { hold: WRITE_ANSWER, ..terms };
    // Dropped with this future, when the client leaves.
    let (_asking, asked) = oneshot::channel();
    outbound.asked = Some(asked);
    let task = tasks.spawn(async move {
        let mut attempts = Attempts::default();
        fences.begin().await;
        let mut forwarded = forward(&route, &mut outbound, &terms, &mut attempts).await;
        // A refusal may come from a store that has begun, and stopped waiting. So may one that was attempted again: the
        // first attempt may be applied last.
        let status = forwarded.result.as_ref().ok().map(|answer| answer.head.status);
        let succeeded = status.is_some_and(|status| status.is_success());
        if waits && succeeded && attempts.count == 1 {
            fences.is_visible();
        }
        // After a success, an attempt that comes late brings nothing new, unless another write has passed it: only what can
        // be repeated is attempted again. To hold all the same would end storing for minutes after each retry.
        if attempts.unfinished && (!succeeded || status == Some(StatusCode::ACCEPTED)) {
            fences.may_come_later(route.rule(terms.rule).timeouts.total);
        }
        match &mut forwarded.result {
            Ok(answer) if matches!(answer.content, Held::Streaming { .. }) => answer.write = Some(fences),
            _ => fences.end().await,
        }
        (forwarded, attempts)
    });
    match task.await {
        Ok((forwarded, attempts)) => {
            exchange.attempts = attempts;
            forwarded
        }
        Err(_) => Error::new(Kind::Internal, "the write was interrupted").into(),
    }
}
