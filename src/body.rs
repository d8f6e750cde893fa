//! Content on its way to an upstream.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use crate::error::{Error, Kind};

/// The content of one attempt.
#[derive(Debug)]
pub enum Outgoing {
    /// All of it is here, in one piece or in two; another attempt is a clone of the handles.
    Full(Option<Bytes>, Option<Bytes>),
    /// Too large to keep: what was read already, then the rest as it comes. One attempt only.
    Streaming {
        /// Read before it turned out too large, in reverse order.
        prefix: Vec<Bytes>,
        /// Bytes in `prefix`.
        prefix_len: u64,
        /// The rest.
        rest: Incoming,
        /// How much more may come, in bytes: only content without a length can be found too large on the way.
        room: u64,
    },
}

impl Outgoing {
    /// Content that is all here.
    pub fn full(content: Bytes) -> Self {
        Self::Full((!content.is_empty()).then_some(content), None)
    }

    /// Content that is all here, in two pieces.
    pub fn spliced([head, tail]: [Bytes; 2]) -> Self {
        Self::Full(Some(head), (!tail.is_empty()).then_some(tail))
    }

    /// Content that was read in part, and has no more than `room` bytes to come.
    pub fn streaming(mut prefix: Vec<Bytes>, rest: Incoming, room: u64) -> Self {
        let prefix_len = prefix.iter().map(|chunk| chunk.len() as u64).sum();
        prefix.reverse();
        Self::Streaming { prefix, prefix_len, rest, room }
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match self.get_mut() {
            Outgoing::Full(first, then) => {
                Poll::Ready(first.take().or_else(|| then.take()).map(|content| Ok(Frame::data(content))))
            }
            Outgoing::Streaming { prefix, prefix_len, rest, room } => {
                if let Some(chunk) = prefix.pop() {
                    *prefix_len -= chunk.len() as u64;
                    return Poll::Ready(Some(Ok(Frame::data(chunk))));
                }
                // Request trailers are dropped: RFC 9110 section 6.5.1 allows it, and no upstream here reads any.
                Pin::new(rest).poll_frame(cx).map(|frame| match frame? {
                    Ok(frame) => {
                        let data = frame.into_data().ok()?;
                        let Some(left) = room.checked_sub(data.len() as u64) else {
                            let detail = "the content exceeds limits.max_body";
                            return Some(Err(Error::new(Kind::ContentTooLarge, detail)));
                        };
                        *room = left;
                        Some(Ok(Frame::data(data)))
                    }
                    Err(e) => {
                        Some(Err(Error::new(Kind::Malformed, format!("reading the request content: {e}"))))
                    }
                })
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Outgoing::Full(first, then) => first.is_none() && then.is_none(),
            Outgoing::Streaming { prefix, rest, .. } => prefix.is_empty() && rest.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Outgoing::Full(first, then) => {
                SizeHint::with_exact(first.iter().chain(then).map(|content| content.len() as u64).sum())
            }
            Outgoing::Streaming { prefix_len, rest, .. } => rest
                .size_hint()
                .exact()
                .map_or_else(SizeHint::default, |rest| SizeHint::with_exact(prefix_len + rest)),
        }
    }
}
