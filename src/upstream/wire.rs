//! A connection as its bytes see it: where it goes, how long it may be used, and whether anything came back on it.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::names::Address;

/// No connection is used longer than this, give or take a tenth, so that those made together do not end together.
const MAX_AGE: Duration = Duration::from_secs(300);

/// What is known of a connection while it lasts.
#[derive(Debug)]
pub(super) struct Wire {
    address: Arc<Address>,
    made: Instant,
    /// No request begins after this.
    retires: Instant,
    /// Reads that brought something.
    reads: AtomicU64,
    /// Exchanges on it, where several may be.
    exchanges: AtomicUsize,
    /// When it ended.
    ended: OnceLock<Instant>,
}

impl Wire {
    pub(super) fn new(address: Arc<Address>) -> Arc<Self> {
        let made = Instant::now();
        let retires = made + MAX_AGE.mul_f64(0.9 + 0.2 * fastrand::f64());
        let (reads, exchanges) = (AtomicU64::new(0), AtomicUsize::new(0));
        Arc::new(Self { address, made, retires, reads, exchanges, ended: OnceLock::new() })
    }

    /// Whether further requests may go this way.
    pub(super) fn is_current(&self, now: Instant) -> bool {
        now < self.retires && !self.address.is_gone()
    }

    /// Whether it was made after this.
    pub(super) fn is_younger(&self, than: Instant) -> bool {
        self.made > than
    }

    /// Grows with everything that comes in. Of HTTP/1.1 only.
    pub(super) fn reads(&self) -> u64 {
        self.reads.load(Relaxed)
    }

    /// One exchange more, if there are fewer than `max`.
    pub(super) fn enter(self: &Arc<Self>, max: usize) -> Option<Place> {
        let free = |exchanges| (exchanges < max).then_some(exchanges + 1);
        self.exchanges.fetch_update(Relaxed, Relaxed, free).ok().map(|_| Place(Arc::clone(self)))
    }

    /// It is over now.
    pub(super) fn end(&self) {
        let _ = self.ended.set(Instant::now());
    }

    /// When it ended, if it has.
    pub(super) fn ended(&self) -> Option<Instant> {
        self.ended.get().copied()
    }
}

/// An exchange among those of a connection. Free when dropped.
#[derive(Debug)]
pub(super) struct Place(Arc<Wire>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.exchanges.fetch_sub(1, Relaxed);
    }
}

/// Counts what comes in: behind TLS, so that only the upstream's own words are heard.
#[derive(Debug)]
pub(super) struct Heard<S> {
    stream: S,
    wire: Arc<Wire>,
}

impl<S> Heard<S> {
    pub(super) fn new(stream: S, wire: Arc<Wire>) -> Self {
        Self { stream, wire }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Heard<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Heard { stream, wire } = self.get_mut();
        let before = buffer.filled().len();
        ready!(Pin::new(stream).poll_read(cx, buffer))?;
        if buffer.filled().len() > before {
            // Nobody else writes it.
            wire.reads.store(wire.reads.load(Relaxed) + 1, Relaxed);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Heard<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
