//! The content of a response as it comes in.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep};

use super::limit::Permit;
use super::pool::Lease;
use crate::error::{Error, Kind};

/// The content of a response. Dropped before its end it closes the connection, which tells the upstream to stop.
#[derive(Debug)]
pub struct ResponseBody {
    incoming: Incoming,
    lease: Option<Lease>,
    /// The exchange's place among those in flight.
    permit: Option<Permit>,
    finished: bool,
    idle: Duration,
    /// Armed while waiting for a chunk.
    timer: Option<Pin<Box<Sleep>>>,
    waiting: bool,
}

impl ResponseBody {
    pub(super) fn new(incoming: Incoming, idle: Duration, lease: Lease, permit: Permit) -> Self {
        let (lease, permit) = (Some(lease), Some(permit));
        Self { incoming, lease, permit, finished: false, idle, timer: None, waiting: false }
    }

    fn poll_idle(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let idle = self.idle;
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(idle)));
        if !self.waiting {
            timer.as_mut().reset(Instant::now() + idle);
            self.waiting = true;
        }
        timer.as_mut().poll(cx)
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = self.get_mut();
        match Pin::new(&mut this.incoming).poll_frame(cx) {
            Poll::Pending => {
                ready!(this.poll_idle(cx));
                let detail = format!("no chunk of the response within {:?}", this.idle);
                Poll::Ready(Some(Err(Error::new(Kind::ResponseTimeout, detail))))
            }
            Poll::Ready(frame) => {
                this.waiting = false;
                Poll::Ready(match frame {
                    None => {
                        this.finished = true;
                        this.permit = None;
                        None
                    }
                    Some(Ok(frame)) => Some(Ok(frame)),
                    Some(Err(e)) => {
                        let detail = format!("the response ended before it was complete: {e}");
                        Some(Err(Error::new(Kind::Incomplete, detail)))
                    }
                })
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.finished || self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        if self.is_end_stream()
            && let Some(lease) = self.lease.take()
        {
            lease.give_back();
        }
    }
}
