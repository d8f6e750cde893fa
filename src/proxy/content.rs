//! Content held in memory. That of requests, for replay, the key and the window, comes out of one budget; that of
//! responses is bounded one by one.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::Body;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::time::{Instant, timeout_at};

use crate::error::{Error, Kind};
use crate::plan::Limits;
use crate::shard::Sharded;
use crate::upstream::ResponseBody;

/// Room made for content that is announced, as a multiple of what has come of it.
const AHEAD: u64 = 16;

/// What a shard keeps of the budget for its next request, at most: that of a search or a conversation as they mostly are.
const KEPT: u64 = 64 << 10;

/// The budget of all request content held for replay, in bytes.
#[derive(Debug)]
pub(crate) struct Buffers {
    limit: u64,
    /// By requests and by shards, together never more than the limit.
    taken: AtomicU64,
    shards: Sharded<Arc<Shard>>,
}

/// What requests of one thread have given back of the budget, for the next of them. Where the budget ends it is
/// everybody's.
#[derive(Debug)]
// Two cache lines, which processors fetch together.
#[repr(align(128))]
struct Shard {
    kept: AtomicU64,
    buffers: Weak<Buffers>,
}

/// A share of the budget, given back when dropped.
#[derive(Debug)]
pub(crate) struct Reservation {
    shard: Arc<Shard>,
    bytes: u64,
}

/// The content of a request.
#[derive(Debug)]
pub(crate) enum Content {
    /// All of it.
    Whole(Bytes),
    /// Too large to hold: what was read, the rest, and how much that may be, in bytes.
    Streaming { prefix: Vec<Bytes>, rest: Incoming, room: u64 },
}

impl Buffers {
    pub(crate) fn new(limit: u64, shards: usize) -> Arc<Self> {
        Arc::new_cyclic(|buffers| Self {
            limit,
            taken: AtomicU64::new(0),
            shards: Sharded::new(shards, || Shard::new(buffers.clone())),
        })
    }

    /// Bytes that requests hold.
    pub(crate) fn used(&self) -> u64 {
        let kept = self.shards.iter().map(|shard| shard.kept.load(Relaxed)).sum();
        self.taken.load(Relaxed).saturating_sub(kept)
    }

    fn reserve(self: &Arc<Self>) -> Reservation {
        let shard = self.shards.here();
        Reservation { shard: Arc::clone(shard), bytes: 0 }
    }

    /// Takes of what nobody has, if there is so much.
    fn take(&self, bytes: u64) -> bool {
        let fits = |taken: u64| taken.checked_add(bytes).filter(|taken| *taken <= self.limit);
        self.taken.fetch_update(Relaxed, Relaxed, fits).is_ok()
    }

    /// Takes back what is kept for requests that have not come.
    #[cold]
    fn call_in(&self) {
        let kept = self.shards.iter().map(|shard| shard.kept.swap(0, Relaxed)).sum();
        self.taken.fetch_sub(kept, Relaxed);
    }
}

impl Shard {
    fn new(buffers: Weak<Buffers>) -> Arc<Self> {
        Arc::new(Self { kept: AtomicU64::new(0), buffers })
    }

    fn take(&self, bytes: u64) -> bool {
        self.kept.fetch_update(Relaxed, Relaxed, |kept| kept.checked_sub(bytes)).is_ok()
            || self.buffers.upgrade().is_some_and(|buffers| {
                buffers.take(bytes) || {
                    buffers.call_in();
                    buffers.take(bytes)
                }
            })
    }

    fn give_back(&self, bytes: u64) {
        let fits = |kept: u64| kept.checked_add(bytes).filter(|kept| *kept <= KEPT);
        if self.kept.fetch_update(Relaxed, Relaxed, fits).is_err()
            && let Some(buffers) = self.buffers.upgrade()
        {
            buffers.taken.fetch_sub(bytes, Relaxed);
        }
    }
}

impl Reservation {
    /// Takes more of the budget, if there is so much.
    fn grow(&mut self, bytes: u64) -> bool {
        let taken = self.shard.take(bytes);
        if taken {
            self.bytes += bytes;
        }
        taken
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.shard.give_back(self.bytes);
    }
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
    if announced.is_some_and(|bytes| exceeds(bytes, limits.replay_body)) {
        let content = Content::Streaming { prefix: Vec::new(), rest: incoming, room: room(limits, 0) };
        return Ok((content, None));
    }
    let mut reservation = buffers.reserve();
    let mut whole = BytesMut::new();
    while let Some(chunk) = next_chunk(&mut incoming, deadline.min(Instant::now() + idle)).await? {
        let len = (whole.len() + chunk.len()) as u64;
        // As it comes, not as it is announced: a client that sends nothing holds nothing.
        let fits = reservation.grow(chunk.len() as u64);
        if exceeds(len, limits.max_body) {
            return Err(too_large(limits));
        }
        let ended = incoming.is_end_stream();
        if exceeds(len, limits.replay_body) || !fits {
            let prefix = [whole.freeze(), chunk].into_iter().filter(|part| !part.is_empty()).collect();
            let content = Content::Streaming { prefix, rest: incoming, room: room(limits, len) };
            return Ok((content, Some(reservation)));
        }
        if whole.is_empty() && ended {
            return Ok((Content::Whole(chunk), Some(reservation)));
        }
        // Put together as it comes, while it is still in the processor's caches.
        if whole.capacity() - whole.len() < chunk.len() {
            let rest = announced.unwrap_or(0).saturating_sub(whole.len() as u64);
            whole.reserve(chunk.len().max(rest.min(len * AHEAD) as usize));
        }
        whole.extend_from_slice(&chunk);
        if ended {
            break;
        }
    }
    Ok((Content::Whole(whole.freeze()), Some(reservation)))
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

/// What may come behind so many bytes.
fn room(limits: &Limits, len: u64) -> u64 {
    if limits.max_body == 0 { u64::MAX } else { limits.max_body.saturating_sub(len) }
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

    #[test]
    fn the_budget_is_never_exceeded_and_given_back() {
        let buffers = Buffers::new(10, 1);
        let (mut one, mut two) = (buffers.reserve(), buffers.reserve());
        assert!(one.grow(6) && !two.grow(5) && two.grow(4));
        assert_eq!(buffers.used(), 10);
        drop(one);
        assert!(two.grow(6) && !two.grow(1));
        drop(two);
        assert_eq!(buffers.used(), 0);
    }

    #[test]
    fn what_other_threads_keep_is_not_lost() {
        let buffers = Buffers::new(10, 8);
        for bytes in 1..=10 {
            // A thread of its own, and so mostly another shard than the last.
            std::thread::scope(|scope| {
                scope.spawn(|| assert!(buffers.reserve().grow(bytes))).join().unwrap();
            });
            assert_eq!(buffers.used(), 0);
        }
        let mut all = buffers.reserve();
        assert!(all.grow(10) && !all.grow(1));
        assert_eq!(buffers.used(), 10);
    }

    #[test]
    fn threads_never_hold_more_than_the_budget() {
        // Less than all of them want at once, and more than shards keep.
        const LIMIT: u64 = 3 * KEPT;
        let (buffers, held) = (Buffers::new(LIMIT, 3), AtomicU64::new(0));
        std::thread::scope(|scope| {
            for seed in 0..4 {
                let (buffers, held) = (&buffers, &held);
                scope.spawn(move || {
                    let mut random = fastrand::Rng::with_seed(seed);
                    for _ in 0..5000 {
                        let mut reservation = buffers.reserve();
                        for _ in 0..random.u64(..4) {
                            let bytes = random.u64(..KEPT / 2) << random.u64(..2);
                            if reservation.grow(bytes) {
                                assert!(held.fetch_add(bytes, Relaxed) + bytes <= LIMIT);
                            }
                        }
                        held.fetch_sub(reservation.bytes, Relaxed);
                    }
                });
            }
        });
        assert_eq!(buffers.used(), 0);
        assert!(buffers.reserve().grow(LIMIT));
    }

    #[test]
    fn zero_is_no_limit() {
        assert!(!exceeds(u64::MAX, 0) && exceeds(2, 1) && !exceeds(1, 1));
    }
}
