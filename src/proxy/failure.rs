//! Failures of ours, as answers.

use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::task::Poll;

use http::Response;
use http::header::{self, HeaderName, HeaderValue};

use super::answer::{Answer, Forwarded};
use super::content::Held;
use crate::error::{Dialect, Error, Kind};

/// The failure of ours that a response stands for (RFC 9209).
const PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");

/// A failure of ours as an answer in the route's dialect.
pub(super) fn error_answer(error: &Error, dialect: Dialect, request_id: &HeaderValue) -> Answer {
    let (mut head, ()) = Response::new(()).into_parts();
    head.status = error.kind.status();
    head.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(dialect.content_type()));
    let quoted: String =
        error.detail.chars().filter(|c| (' '..='~').contains(c) && *c != '"' && *c != '\\').collect();
    let status = format!("pillion; error={}; details=\"{quoted}\"", error.kind.word());
    if let Ok(value) = HeaderValue::try_from(status) {
        head.headers.insert(PROXY_STATUS, value);
    }
    if error.kind.passes() {
        head.headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    let content = dialect.render(error, request_id.to_str().unwrap_or("-"));
    Answer { head, content: Held::Whole(content), framed: true, write: None }
}

/// Unwinds no further than here: one request's defect is not another's. The panic hook has logged it.
pub(super) async fn catch_panic<F>(mut responding: Pin<&mut F>) -> Result<Forwarded, Error>
where
    F: Future<Output = Result<Forwarded, Error>>,
{
    let caught = std::future::poll_fn(|cx| {
        match std::panic::catch_unwind(AssertUnwindSafe(|| responding.as_mut().poll(cx))) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(outcome)) => Poll::Ready(outcome),
            Err(_) => {
                Poll::Ready(Err(Error::new(Kind::Internal, "a defect of Pillion's own; its log has it")))
            }
        }
    });
    caught.await
}

#[cfg(test)]
mod tests;
