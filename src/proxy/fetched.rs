//! What a fetch brought, for all who wait for it: each gets the part that is its own.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use http::header::{self, HeaderMap};
use tokio::time::timeout_at;

use super::answer::{Answer, Forwarded, whole_answer};
use super::content::Held;
use super::outbound::Terms;
use super::route::Route;
use crate::cache::flight::Ticket;
use crate::error::{Error, Kind};
use crate::exchange::{Attempts, CacheStatus, Exchange};
use crate::plan::StopSdk;

/// What a fetch brought.
#[derive(Debug)]
pub(super) struct Fetched {
    pub(super) attempts: Attempts,
    pub(super) stored: bool,
    pub(super) stop_sdk: bool,
    /// What the leader allowed itself: of the call of one that allows itself more, more might become.
    total: Duration,
    client_retries: u32,
    brought: Brought,
}

#[derive(Debug)]
enum Brought {
    /// A complete answer, whatever its status: everybody who waited gets it.
    Whole(StatusCode, HeaderMap, Whole),
    /// An answer that only one of them can have: too large to hold, or not to be shared. The others ask for themselves.
    ForOne(Mutex<Option<Box<Answer>>>),
    Failed(Error),
}

/// Content that is all here.
#[derive(Debug)]
enum Whole {
    One(Bytes),
    Pieces(Vec<Bytes>),
}

/// Why one of those on a flight has nothing of it.
pub(super) enum Nothing {
    /// The answer is its leader's only.
    AnothersAnswer,
    /// It failed by what its leader allowed it.
    AnothersFailure,
}

impl Fetched {
    /// The outcome of a request under these terms; `shareable` says whether an answer may go to others than its leader.
    pub(super) fn new(
        forwarded: Forwarded,
        terms: &Terms,
        attempts: Attempts,
        stored: bool,
        shareable: bool,
    ) -> Self {
        let Forwarded { result, stop_sdk } = forwarded;
        let brought = match result {
            Err(error) => Brought::Failed(error),
            Ok(Answer { head, content: Held::Whole(content), .. }) if shareable => {
                Brought::Whole(head.status, head.headers, Whole::One(content))
            }
            Ok(Answer { head, content: Held::Pieces(pieces), .. }) if shareable => {
                Brought::Whole(head.status, head.headers, Whole::Pieces(pieces))
            }
            Ok(answer) => Brought::ForOne(Mutex::new(Some(Box::new(answer)))),
        };
        let Terms { total, client_retries, .. } = *terms;
        Self { attempts, stored, stop_sdk, total, client_retries, brought }
    }

    /// It is an answer, and everybody who waited gets it.
    pub(super) fn is_for_all(&self) -> bool {
        matches!(self.brought, Brought::Whole(..))
    }

    /// This request's part of what was brought.
    pub(super) fn take(&self, leads: bool, terms: &Terms) -> Result<Result<Answer, Error>, Nothing> {
        let allows_more = terms.total > self.total || terms.client_retries < self.client_retries;
        match &self.brought {
            Brought::Whole(status, ..) if !leads && allows_more && may_pass(*status) => {
                Err(Nothing::AnothersFailure)
            }
            Brought::Failed(error) if !leads && (allows_more || error.kind == Kind::ResponseTimeout) => {
                Err(Nothing::AnothersFailure)
            }
            Brought::Failed(error) => Ok(Err(error.clone())),
            Brought::Whole(status, headers, content) => {
                let mut headers = headers.clone();
                if !leads {
                    // Said to the one who asked.
                    headers.remove(header::SET_COOKIE);
                }
                let content = match content {
                    Whole::One(content) => Held::Whole(content.clone()),
                    Whole::Pieces(pieces) => Held::Pieces(pieces.clone()),
                };
                Ok(Ok(whole_answer(*status, headers, content)))
            }
            Brought::ForOne(answer) => {
                let mut answer = answer.lock().unwrap_or_else(PoisonError::into_inner);
                let answer = answer.take_if(|_| leads).ok_or(Nothing::AnothersAnswer)?;
                Ok(Ok(*answer))
            }
        }
    }
}

/// Whether it is a failure that another attempt may not meet: what else is wrong is wrong for all.
fn may_pass(status: StatusCode) -> bool {
    status.is_server_error() || matches!(status.as_u16(), 408 | 409 | 425 | 429)
}

/// Waits for a fetch, its own or another's. The error is what becomes of the request instead.
pub(super) async fn land(
    ticket: Ticket<Arc<Fetched>>,
    route: &Route,
    terms: &Terms,
    exchange: &mut Exchange,
) -> Result<Arc<Fetched>, Forwarded> {
    // A leader's deadline is its fetch's own, which ends with more to tell.
    let landed = if ticket.leads {
        ticket.land().await
    } else {
        exchange.cache = Some(CacheStatus::Collapsed);
        timeout_at(terms.deadline, ticket.land()).await.map_err(|_| late(route))?
    };
    landed.ok_or_else(|| Error::new(Kind::Internal, "the fetch was interrupted").into())
}

/// The deadline is over, and another's call was waited for.
pub(super) fn late(route: &Route) -> Forwarded {
    let error = Error::new(Kind::ResponseTimeout, "no response in time");
    Forwarded { result: Err(error), stop_sdk: route.plan.stop_sdk != StopSdk::Never }
}
