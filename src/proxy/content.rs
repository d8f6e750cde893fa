//! Content held in memory. That of requests, for replay, the key and the window, comes out of one budget; that of
//! responses is bounded one by one.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::Body;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::time::{Instant, timeout_at};

use super::buffers::{Buffers, Reservation};
use super::room::Room;
use crate::error::{Error, Kind};
use crate::plan::Limits;
use crate::upstream::ResponseBody;

/// Who has sent one part in so many of what is announced gets room for all of it. Of large content that comes at once so
/// little is held when the first of it takes its room that the rest of the budget does for others.
const AHEAD: u64 = 64;

/// The content of a request.
#[derive(Debug)]
pub(crate) enum Content {
    /// All of it.
    Whole(Bytes),
    /// A conversation without what was cut out of it.
    Spliced([Bytes; 2]),
    /// Not held: what was read, the rest, and how much that may be, in bytes.
    Streaming { prefix: Vec<Bytes>, rest: Incoming, room: u64, why: Unheld },
}

/// Why content is not held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unheld {
    /// It is larger than `limits.replay_body`.
    Size,
    /// Requests before it hold too much of the budget.
    Memory,
}

/// Reads a request's content, as far as it may be held.
pub(crate) async fn read(
    mut incoming: Incoming,
    limits: &Limits,
    buffers: &Arc<Buffers>,
    idle: Duration,
    deadline: Instant,
) -> Result<(Content, Option<Reservation>), Error> {
    if incoming.is_end_stream() {
        return Ok((Content::Whole(Bytes::new()), None));
    }
    let announced = incoming.size_hint().exact();
    if announced.is_some_and(|bytes| exceeds(bytes, limits.max_body)) {
        return Err(too_large(limits));
    }
    let streaming = |prefix, rest, len, why| {
        let room = if limits.max_body == 0 { u64::MAX } else { limits.max_body.saturating_sub(len) };
        (Content::Streaming { prefix, rest, room, why }, None)
    };
    if announced.is_some_and(|bytes| exceeds(bytes, limits.replay_body)) {
        return Ok(streaming(Vec::new(), incoming, 0, Unheld::Size));
    }
    let mut held = Holding { whole: Room::new(), announced, reservation: buffers.reserve() };
    while let Some(chunk) = next_chunk(&mut incoming, deadline.min(Instant::now() + idle)).await? {
        let len = (held.whole.len() + chunk.len()) as u64;
        if exceeds(len, limits.max_body) {
            return Err(too_large(limits));
        }
        if exceeds(len, limits.replay_body) {
            return Ok(streaming(held.let_go(chunk), incoming, len, Unheld::Size));
        }
        if !held.make_room(len, limits.replay_body) {
            return Ok(streaming(held.let_go(chunk), incoming, len, Unheld::Memory));
        }
        let ended = incoming.is_end_stream();
        if held.whole.is_empty() && ended {
            return Ok((Content::Whole(chunk), Some(held.reservation)));
        }
        held.add(&chunk);
        if ended {
            break;
        }
    }
    Ok((Content::Whole(held.whole.into()), Some(held.reservation)))
}

/// A request's content on its way to being whole.
struct Holding {
    /// Put together as it comes, while it is still in the processor's caches.
    whole: Room,
    announced: Option<u64>,
    /// All that there is room for, come or not.
    reservation: Reservation,
}

impl Holding {
    /// Takes room for `len` bytes in all, and for what will come behind them: a few requests get all they need while
    /// others learn early that they have to stream, rather than all of them half way. False if the budget has no such
    /// room.
    fn make_room(&mut self, len: u64, at_most: u64) -> bool {
        let had = self.reservation.bytes;
        if len <= had {
            return true;
        }
        let room = match self.announced {
            Some(announced) if len.saturating_mul(AHEAD) >= announced => announced,
            // Not yet: who announces much and sends nothing holds nothing.
            Some(announced) if !self.reservation.could_grow(announced - had) => return false,
            Some(announced) => (2 * had).min(announced / AHEAD),
            None if at_most == 0 => 2 * had,
            None => (2 * had).min(at_most),
        };
        self.reservation.grow(room.max(len) - had)
    }

    /// Adds a chunk that there is room for.
    fn add(&mut self, chunk: &[u8]) {
        let room = usize::try_from(self.reservation.bytes).unwrap_or(usize::MAX);
        self.whole.add(chunk, room);
    }

    /// What has come, to be sent without being held: its share of the budget is given back when it was written.
    fn let_go(self, chunk: Bytes) -> Vec<Bytes> {
        if self.whole.is_empty() {
            return vec![chunk];
        }
        let came = Came { content: self.whole, _share: self.reservation };
        vec![Bytes::from_owner(came), chunk]
    }
}

/// What has come of content that is not held, and its share of the budget.
struct Came {
    content: Room,
    _share: Reservation,
}

impl AsRef<[u8]> for Came {
    fn as_ref(&self) -> &[u8] {
        self.content.as_ref()
    }
}

async fn next_chunk(incoming: &mut Incoming, until: Instant) -> Result<Option<Bytes>, Error> {
    loop {
        let Ok(frame) = timeout_at(until, incoming.frame()).await else {
            return Err(Error::new(Kind::RequestTimeout, "the request's content stopped coming"));
        };
        match frame {
            None => return Ok(None),
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    return Ok(Some(data));
                }
            }
            Some(Err(e)) => {
                return Err(Error::new(Kind::Malformed, format!("reading the request's content: {e}")));
            }
        }
    }
}

/// A response's content as far as it was read before its head went out.
#[derive(Debug)]
pub(crate) enum Held {
    /// All of it.
    Whole(Bytes),
    /// All of it, put together of what is held elsewhere.
    Pieces(Vec<Bytes>),
    /// More than was asked for: what was read, and the rest.
    Streaming { prefix: Vec<Bytes>, rest: ResponseBody },
}

/// Reads a response's content up to `limit` bytes, and not beyond `until`.
pub(crate) async fn hold(mut body: ResponseBody, limit: usize, until: Instant) -> Result<Held, Error> {
    let announced = body.size_hint().exact().unwrap_or(0);
    if exceeds(announced, limit as u64) {
        return Ok(Held::Streaming { prefix: Vec::new(), rest: body });
    }
    let (mut chunks, mut len) = (Vec::new(), 0);
    loop {
        let frame = match timeout_at(until, body.frame()).await {
            Ok(Some(frame)) => frame?,
            Ok(None) => return Ok(Held::Whole(join(chunks, len))),
            Err(_) => return Ok(Held::Streaming { prefix: chunks, rest: body }),
        };
        let Ok(chunk) = frame.into_data() else { continue };
        len += chunk.len();
        chunks.push(chunk);
        if len > limit {
            return Ok(Held::Streaming { prefix: chunks, rest: body });
        }
    }
}

fn join(mut chunks: Vec<Bytes>, len: usize) -> Bytes {
    if chunks.len() <= 1 {
        return chunks.pop().unwrap_or_default();
    }
    let mut whole = BytesMut::with_capacity(len);
    for chunk in &chunks {
        whole.extend_from_slice(chunk);
    }
    whole.freeze()
}

fn exceeds(bytes: u64, limit: u64) -> bool {
    limit > 0 && bytes > limit
}

fn too_large(limits: &Limits) -> Error {
    Error::new(
        Kind::ContentTooLarge,
        format!("the content exceeds limits.max_body ({} bytes)", limits.max_body),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const MB: u64 = 1_000_000;

    fn holding(buffers: &Arc<Buffers>, announced: Option<u64>) -> Holding {
        Holding { whole: Room::new(), announced, reservation: buffers.reserve() }
    }

    /// Takes a chunk in; `None` when there is no room for it.
    fn come(mut held: Holding, chunk: usize) -> Option<Holding> {
        held.make_room((held.whole.len() + chunk) as u64, 32 * MB).then(|| {
            held.add(&vec![b'x'; chunk]);
            held
        })
    }

    #[test]
    fn room_is_taken_for_what_is_announced_once_a_part_of_it_is_here() {
        let buffers = Buffers::new(64 * MB, 1);
        let mut held = holding(&buffers, Some(640 * 1000));
        for (chunk, used) in
            [(1, 1), (8_000, 8_001), (1, 10_000), (1_998, 10_000), (1, 640_000), (629_999, 640_000)]
        {
            held = come(held, chunk).unwrap();
            assert_eq!(buffers.used(), used);
            assert_eq!(held.whole.capacity() as u64, used);
        }
        drop(held);
        assert_eq!(buffers.used(), 0);
        // What is not announced gets room as it comes, and never more than may be held.
        let mut held = holding(&buffers, None);
        for (chunk, used) in
            [(5, 5), (1, 10), (10_000_000, 10_000_006), (10_000_000, 20_000_012), (9_000_000, 32 * MB)]
        {
            held = come(held, chunk).unwrap();
            assert_eq!(buffers.used(), used);
        }
    }

    /// However slowly the others' content is let go.
    #[test]
    fn of_many_large_requests_at_once_some_are_held_and_the_others_know_early() {
        let chunk = vec![b'x'; 65_536];
        for (keep, least) in [(true, 2), (false, 3)] {
            let buffers = Buffers::new(64 << 20, 1);
            let mut coming: Vec<Holding> = (0..50).map(|_| holding(&buffers, Some(20 * MB))).collect();
            let (mut whole, mut streaming) = (Vec::new(), Vec::new());
            while !coming.is_empty() {
                for mut held in std::mem::take(&mut coming) {
                    let len = held.whole.len();
                    assert!(buffers.used() <= 64 << 20);
                    if !held.make_room(len as u64 + 65_536, 32 * MB) {
                        assert!(len <= 400_000, "{len} bytes had come");
                        let prefix = held.let_go(Bytes::from_static(b"x"));
                        if keep {
                            streaming.push(prefix);
                        }
                        continue;
                    }
                    held.add(&chunk);
                    if (held.whole.len() as u64) < 20 * MB - 65_536 {
                        coming.push(held);
                    } else {
                        whole.push(held);
                    }
                }
            }
            assert!(whole.len() >= least, "{} are held", whole.len());
            drop((whole, streaming));
            assert_eq!(buffers.used(), 0);
        }
    }

    #[test]
    fn what_is_let_go_gives_its_share_back_when_it_was_written() {
        let buffers = Buffers::new(MB, 1);
        let held = come(holding(&buffers, Some(1000)), 400).unwrap();
        assert_eq!(buffers.used(), 1000);
        let mut prefix = held.let_go(Bytes::from_static(b"y"));
        assert_eq!(prefix.concat().len(), 401);
        let mut first = prefix.remove(0);
        drop(first.split_to(399));
        assert_eq!(buffers.used(), 1000, "its memory is not free before all of it is");
        drop(first);
        assert_eq!(buffers.used(), 0);
    }

    #[test]
    fn zero_is_no_limit() {
        assert!(!exceeds(u64::MAX, 0) && exceeds(2, 1) && !exceeds(1, 1));
    }
}
