//! The head of a stream waits for its first event, which may be an error.

use std::time::Duration;

use http::{StatusCode, header, response};
use http_body_util::BodyExt;
use tokio::time::{Instant, timeout_at};

use super::content::Held;
use crate::error::Error;
use crate::retry::{FirstEvent, first_event};
use crate::upstream::ResponseBody;

/// What the first event may take before the head goes out without it,
const PATIENCE: Duration = Duration::from_millis(250);
/// and how long it may be, in bytes.
const LONGEST: usize = 64 * 1024;

/// Whether an answer is a stream of events.
pub(super) fn is_stream(head: &response::Parts) -> bool {
    let media_type = head.headers.get(header::CONTENT_TYPE).map(header::HeaderValue::as_bytes);
    head.status == StatusCode::OK
        && media_type.is_some_and(|text| text.to_ascii_lowercase().starts_with(b"text/event-stream"))
        && !head.headers.contains_key(header::CONTENT_ENCODING)
}

/// Reads a stream up to its first event.
pub(super) async fn await_first(mut body: ResponseBody) -> Result<(Held, FirstEvent), Error> {
    let until = Instant::now() + PATIENCE;
    let (mut prefix, mut text) = (Vec::new(), Vec::new());
    let event = loop {
        let frame = match timeout_at(until, body.frame()).await {
            Ok(Some(frame)) => frame?,
            Ok(None) | Err(_) => break FirstEvent::Unknown,
        };
        let Ok(chunk) = frame.into_data() else { continue };
        text.extend_from_slice(&chunk);
        prefix.push(chunk);
        let event = first_event(&text);
        if event != FirstEvent::Unknown || text.len() > LONGEST {
            break event;
        }
    };
    Ok((Held::Streaming { prefix, rest: body }, event))
}
