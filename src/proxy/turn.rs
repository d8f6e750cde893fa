//! Before an attempt: the breaker of the upstream lets it through, and there is a place among the calls under way.

use tokio::time::{Instant, timeout};

use super::outbound::Terms;
use super::route::Route;
use crate::error::Error;
use crate::exchange::Attempts;
use crate::retry::{self, Probe};
use crate::upstream::Permit;

/// What an attempt begins with.
#[derive(Debug)]
pub(super) struct Turn<'a> {
    pub(super) begun: Instant,
    pub(super) permit: Permit,
    /// It finds out whether the upstream is back.
    pub(super) probe: Option<Probe<'a>>,
}

/// Why none begins.
#[derive(Debug)]
pub(super) enum NoTurn {
    /// The breaker is open.
    Breaker,
    /// As many calls as may be are under way.
    Full(Error),
}

/// Takes a turn, and waits for it where that is allowed.
pub(super) async fn take_turn<'a>(
    route: &'a Route,
    policy: &retry::Policy,
    terms: &Terms,
    attempts: &mut Attempts,
) -> Result<Turn<'a>, NoTurn> {
    let mut begun = Instant::now();
    let probe = if let Ok(probe) = route.admit(begun) {
        probe
    } else {
        // Boxed, as below: it is rare, and would make the future of every request larger.
        let waited = Box::pin(wait(route, policy, terms, attempts)).await;
        begun = Instant::now();
        waited.ok_or(NoTurn::Breaker)?
    };
    let limit = route.upstream.limit();
    if let Some(permit) = limit.try_enter() {
        return Ok(Turn { begun, permit, probe });
    }
    let came = begun;
    let permit = Box::pin(limit.enter(terms.deadline)).await;
    begun = Instant::now();
    attempts.queued += begun - came;
    Ok(Turn { begun, permit: permit.map_err(NoTurn::Full)?, probe })
}

/// Waits until the breaker closes, or this request is the one that finds out whether it may. It counts as back-off: the
/// upstream is not asked meanwhile. A few may, the others hear at once.
async fn wait<'a>(
    route: &'a Route,
    policy: &retry::Policy,
    terms: &Terms,
    attempts: &mut Attempts,
) -> Option<Option<Probe<'a>>> {
    if terms.no_retry || !policy.enabled {
        return None;
    }
    let place = route.guard.wait()?;
    let came = Instant::now();
    let until = terms.deadline.min(came + policy.max_wait.saturating_sub(attempts.backoff));
    let waited = attempts.backoff;
    loop {
        // Before it is asked: what closes meanwhile is heard.
        let closed = place.closed();
        let now = Instant::now();
        attempts.backoff = waited + (now - came);
        match route.admit(now) {
            Ok(probe) => return Some(probe),
            Err(left) if now + left >= until => return None,
            Err(left) => drop(timeout(left, closed).await),
        }
    }
}
