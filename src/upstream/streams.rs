//! How many streams the peer of an HTTP/2 connection takes at a time (RFC 9113 section 5.1.2).
//!
//! hyper tells it of the connection only, not of its sending half, and nobody when it has changed.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use hyper::client::conn::http2;
use hyper::rt::Executor;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio_rustls::client::TlsStream;

use crate::body::Outgoing;

type Connection = http2::Connection<TokioIo<TlsStream<TcpStream>>, Outgoing, Polling>;

/// What a connection takes, as long as it lasts.
#[derive(Clone, Debug)]
pub(super) struct Streams(Weak<Mutex<Connection>>);

impl Streams {
    /// Drives the connection in a task of its own.
    pub(super) fn drive(connection: Connection, executor: &Polling) -> Self {
        let connection = Arc::new(Mutex::new(connection));
        let streams = Self(Arc::downgrade(&connection));
        executor.execute(async move { poll_fn(|cx| Pin::new(&mut *lock(&connection)).poll(cx)).await });
        streams
    }

    /// Streams that may be open at a time, by now.
    pub(super) fn max(&self) -> usize {
        let connection = self.0.upgrade();
        connection.map_or(0, |connection| lock(&connection).current_max_send_streams())
    }
}

fn lock(connection: &Mutex<Connection>) -> MutexGuard<'_, Connection> {
    // After a panic of its driver it does nothing any more.
    connection.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs the tasks of a connection and tells, while somebody waits for what comes of it, when one of them has been at work.
#[derive(Clone, Debug, Default)]
pub(super) struct Polling(Arc<Progress>);

#[derive(Debug, Default)]
struct Progress {
    polled: Notify,
    unheeded: AtomicBool,
}

impl Polling {
    /// Waits until this is so. Once only.
    pub(super) async fn until(&self, reached: impl Fn() -> bool) {
        while !reached() {
            self.0.polled.notified().await;
        }
        self.0.unheeded.store(true, Relaxed);
    }
}

impl<F> Executor<F> for Polling
where
    F: Future<Output: Send> + Send + 'static,
{
    fn execute(&self, task: F) {
        let progress = Arc::clone(&self.0);
        tokio::spawn(async move {
            let mut task = pin!(task);
            poll_fn(|cx| {
                let polled = task.as_mut().poll(cx);
                if !progress.unheeded.load(Relaxed) {
                    progress.polled.notify_one();
                }
                polled
            })
            .await
        });
    }
}
