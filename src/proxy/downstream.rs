//! Content on its way down to the client.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::content::Held;
use super::fenced::Fenced;
use crate::error::Error;
use crate::exchange::Exchange;
use crate::upstream::ResponseBody;

/// The content of a response. It carries the exchange: both end together, at the last byte or when the client leaves.
///
/// Boxed, because a response is moved a dozen times on its way to the connection.
#[derive(Debug)]
pub struct Downstream(Box<Passing>);

#[derive(Debug)]
struct Passing {
    /// Read before the head went out: a whole answer, or the beginning of one.
    first: Option<Bytes>,
    more: std::vec::IntoIter<Bytes>,
    /// Bytes in both.
    waiting: u64,
    rest: Option<ResponseBody>,
    /// The upstream's answer has broken off.
    failed: Option<Error>,
    exchange: Exchange,
    /// Ends the write before the exchange is observed.
    write: Option<Fenced>,
}

impl Downstream {
    pub(super) fn new(content: Held, exchange: Exchange, write: Option<Fenced>) -> Self {
        let (first, more, rest) = match content {
            Held::Whole(content) => ((!content.is_empty()).then_some(content), Vec::new(), None),
            Held::Pieces(pieces) => (None, pieces, None),
            Held::Streaming { prefix, rest } => (None, prefix, Some(rest)),
        };
        let waiting = first.iter().chain(&more).map(|chunk| chunk.len() as u64).sum();
        let more = more.into_iter();
        let mut passing = Passing { first, more, waiting, rest, failed: None, exchange, write };
        if passing.is_end_stream() {
            passing.exchange.complete();
        }
        Self(Box::new(passing))
    }
}

impl Passing {
    fn is_end_stream(&self) -> bool {
        let handed_over = self.first.is_none() && self.more.len() == 0;
        handed_over && self.failed.is_none() && self.rest.as_ref().is_none_or(Body::is_end_stream)
    }

    fn pass(&mut self, chunk: &Bytes) {
        self.exchange.pass(chunk);
        if self.is_end_stream() {
            self.end();
        }
    }

    /// The last byte is about to be handed over: the write is over before the client can know it.
    fn end(&mut self) {
        self.write = None;
        self.exchange.complete();
    }
}

impl Body for Downstream {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = &mut *self.get_mut().0;
        if let Some(chunk) = this.first.take().or_else(|| this.more.next()) {
            this.waiting -= chunk.len() as u64;
            this.pass(&chunk);
            return Poll::Ready(Some(Ok(Frame::data(chunk))));
        }
        // Handed on, so that the connection is aborted: a cut answer must not look like a whole one.
        if let Some(error) = this.failed.take() {
            return Poll::Ready(Some(Err(error)));
        }
        let Some(rest) = &mut this.rest else { return Poll::Ready(None) };
        match std::task::ready!(Pin::new(rest).poll_frame(cx)) {
            None => {
                this.end();
                Poll::Ready(None)
            }
            Some(Ok(frame)) => {
                if let Some(chunk) = frame.data_ref() {
                    this.pass(chunk);
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(error)) => {
                this.exchange.error = Some(error.kind);
                this.failed = Some(error);
                // Not at once: what came before it has to be flushed, and hyper flushes when it has to wait.
                cx.waker().wake_by_ref();
                Poll::Pending
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let Passing { waiting, rest, .. } = &*self.0;
        match rest {
            None => SizeHint::with_exact(*waiting),
            Some(rest) => rest
                .size_hint()
                .exact()
                .map_or_else(SizeHint::default, |rest| SizeHint::with_exact(waiting + rest)),
        }
    }
}
