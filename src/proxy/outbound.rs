//! A request as it is forwarded, and what it allows.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Uri, header};
use tokio::sync::oneshot;
use tokio::sync::oneshot::error::TryRecvError;
use tokio::time::Instant;

use super::buffers::Reservation;
use super::content::{Content, Unheld};
use crate::body::Outgoing;
use crate::plan::RuleRef;
use crate::retry::{Class, GiveUp};

/// A request as it is forwarded, as often as it is attempted.
#[derive(Debug)]
pub(super) struct Outbound {
    pub(super) method: Method,
    /// Origin form, with the upstream's base path.
    pub(super) uri: Uri,
    pub(super) headers: HeaderMap,
    /// `None` once streaming content was sent.
    pub(super) content: Option<Content>,
    /// Why it streamed, once it did.
    pub(super) unheld: Option<Unheld>,
    /// The content's share of `memory.buffers`.
    pub(super) reservation: Option<Reservation>,
    /// Closed when nobody waits for the answer any more, for requests that are seen to their end all the same.
    pub(super) asked: Option<oneshot::Receiver<()>>,
}

/// What one request allows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terms {
    pub(super) rule: RuleRef,
    pub(super) class: Class,
    pub(super) deadline: Instant,
    /// What the client allows it in all, or its rule if that is less.
    pub(super) total: Duration,
    pub(super) no_retry: bool,
    pub(super) client_retries: u32,
    /// Content of a success that is read whole before its head goes out, in bytes: what breaks off while it is read
    /// can still be attempted again. 0 streams.
    pub(super) hold: usize,
}

impl Outbound {
    /// The request for one attempt; `None` when its content is gone: what streams cannot be sent twice.
    pub(super) fn attempt(&mut self) -> Option<Request<Outgoing>> {
        let body = match &self.content {
            Some(Content::Whole(whole)) => Outgoing::full(whole.clone()),
            Some(Content::Spliced(pieces)) => Outgoing::spliced(pieces.clone()),
            _ => {
                let Some(Content::Streaming { prefix, rest, room, why }) = self.content.take() else {
                    return None;
                };
                self.unheld = Some(why);
                Outgoing::streaming(prefix, rest, room)
            }
        };
        let mut request = Request::new(body);
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = self.headers.clone();
        Some(request)
    }

    /// Sends other content from now on; hyper writes its length.
    pub(super) fn replace(&mut self, content: Content) {
        self.content = Some(content);
        self.headers.remove(header::CONTENT_LENGTH);
    }

    /// Why it is not sent once more, whatever its failure would allow.
    pub(super) fn once_only(&mut self, terms: &Terms) -> Option<GiveUp> {
        if terms.no_retry {
            Some(GiveUp::Disabled)
        } else if let Some(why) = self.unheld {
            Some(match why {
                Unheld::Size => GiveUp::Size,
                Unheld::Memory => GiveUp::Memory,
            })
        } else {
            self.is_abandoned().then_some(GiveUp::Abandoned)
        }
    }

    /// Whether the client has left. What was sent is seen to its end, but it is not sent once more: a newer write may
    /// have passed it meanwhile.
    pub(super) fn is_abandoned(&mut self) -> bool {
        self.asked.as_mut().is_some_and(|asked| matches!(asked.try_recv(), Err(TryRecvError::Closed)))
    }

    /// Whether the content can be sent again.
    pub(super) fn is_held(&self) -> bool {
        matches!(self.content, Some(Content::Whole(_) | Content::Spliced(_)))
    }

    /// The content, if all of it is here as it came.
    pub(super) fn whole(&self) -> Option<&Bytes> {
        match &self.content {
            Some(Content::Whole(content)) => Some(content),
            _ => None,
        }
    }

    /// The content is coded by more than its framing.
    pub(super) fn is_encoded(&self) -> bool {
        self.headers.get(header::CONTENT_ENCODING).is_some_and(|coding| coding != "identity")
    }
}
