//! What an upstream has answered, and what became of asking it.

use http::{HeaderMap, StatusCode, response};

use super::content::Held;
use super::fenced::Fenced;
use crate::error::Error;

/// An upstream's answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) head: response::Parts,
    pub(super) content: Held,
    /// Its end can be told from a connection that broke: by length, by chunks, by HTTP/2 frames.
    pub(super) framed: bool,
    /// The write this answers, while its content is still coming.
    pub(super) write: Option<Fenced>,
}

/// What came of it.
#[derive(Debug)]
pub(super) struct Forwarded {
    pub(super) result: Result<Answer, Error>,
    /// The client's SDK is to be told not to retry on its own.
    pub(super) stop_sdk: bool,
}

impl From<Error> for Forwarded {
    fn from(error: Error) -> Self {
        Self { result: Err(error), stop_sdk: false }
    }
}

/// An answer that is all here.
pub(super) fn whole_answer(status: StatusCode, headers: HeaderMap, content: Held) -> Answer {
    let (mut head, ()) = http::Response::new(()).into_parts();
    head.status = status;
    head.headers = headers;
    Answer { head, content, framed: true, write: None }
}
