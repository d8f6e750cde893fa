//! Listening sockets: bound by ourselves, accepted by pingora, spoken to by hyper.

use std::future::poll_fn;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::IntoRawFd;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use pingora_core::apps::ServerApp;
use pingora_core::listeners::{L4BufferSettings, ListenerConfig};
use pingora_core::protocols::Stream;
use pingora_core::server::{Fds, ShutdownWatch};
use pingora_core::services::Service as _;
use pingora_core::services::listening::Service;
use tokio_util::task::TaskTracker;

use crate::plan::Address;

/// Bytes of a request's head, at most; more are answered 431.
const MAX_HEAD: usize = 64 * 1024;
/// Bytes read ahead on a connection, at most.
const MAX_BUFFER: usize = 256 * 1024;
/// A connection whose next request head is not complete by then is closed. It counts from the end of the last
/// exchange, so it is the keep-alive time too: longer than any official SDK keeps a connection (Chroma's 40 s).
const HEAD_TIMEOUT: Duration = Duration::from_secs(75);
/// A Unix socket is for its owner and group.
const SOCKET_MODE: u32 = 0o660;

/// A listening socket, bound and not yet accepting.
#[derive(Debug)]
pub struct Bound {
    socket: Socket,
    /// Where it really is: port 0 has become a number.
    address: Address,
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Bound {
    /// Binds an address.
    pub fn new(address: &Address) -> io::Result<Self> {
        match address {
            Address::Tcp(text) => {
                let socket = TcpListener::bind(text)?;
                socket.set_nonblocking(true)?;
                let address = Address::Tcp(socket.local_addr()?.to_string());
                Ok(Self { socket: Socket::Tcp(socket), address })
            }
            Address::Unix(path) => {
                remove_stale(path)?;
                let socket = UnixListener::bind(path)?;
                std::fs::set_permissions(path, std::fs::Permissions::from_mode(SOCKET_MODE))?;
                socket.set_nonblocking(true)?;
                Ok(Self { socket: Socket::Unix(socket), address: Address::Unix(path.clone()) })
            }
        }
    }

    /// Where it really is.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Its TCP address, if it has one.
    pub fn socket_addr(&self) -> Option<SocketAddr> {
        match &self.socket {
            Socket::Tcp(socket) => socket.local_addr().ok(),
            Socket::Unix(_) => None,
        }
    }

    /// Accepts connections until `stop` says so. Returns when the socket is closed; connections go on.
    pub async fn serve<H: Handler>(self, handler: H, tasks: TaskTracker, stop: ShutdownWatch) {
        let Self { socket, address } = self;
        let (name, config, fd, path) = match (socket, address) {
            (Socket::Tcp(socket), address) => {
                let name = address.to_string();
                (name.clone(), ListenerConfig::tcp(name), socket.into_raw_fd(), None)
            }
            (Socket::Unix(socket), Address::Unix(path)) => {
                let name = path.display().to_string();
                let permissions = std::fs::Permissions::from_mode(SOCKET_MODE);
                let config = ListenerConfig::uds(name.clone()).permissions(permissions);
                (name, config, socket.into_raw_fd(), Some(path))
            }
            (Socket::Unix(_), Address::Tcp(_)) => return,
        };
        // A table of its own: pingora takes the descriptor from it instead of binding, and owns it from then on.
        let mut fds = Fds::new();
        fds.add(name.clone(), fd);
        let mut service = Service::new(name, Http { handler, tasks });
        service.add_listener(config.l4_buffer(L4BufferSettings::unbuffered()));
        service.start_service(Some(Arc::new(Mutex::new(fds))), stop, 1).await;
        if let Some(path) = path {
            let _: io::Result<()> = std::fs::remove_file::<PathBuf>(path);
        }
    }
}

/// A socket file that nobody listens on any more is removed; one that is in use is an error, and so is any other file:
/// connecting to one is refused, too.
fn remove_stale(path: &Path) -> io::Result<()> {
    if !std::fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket()) {
        return Ok(());
    }
    match UnixStream::connect(path) {
        Ok(_) => Err(io::ErrorKind::AddrInUse.into()),
        Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(path),
        Err(_) => Ok(()),
    }
}

/// Answers the requests of one listener.
pub trait Handler: Send + Sync + 'static {
    /// The content of its answers.
    type Content: Body<Data = Bytes, Error = crate::error::Error> + Send + 'static;

    /// Answers one request; never fails. Dropped when the client leaves.
    fn handle(&self, request: Request<Incoming>) -> impl Future<Output = Response<Self::Content>> + Send;
}

/// HTTP/1.1 on the streams that pingora accepts.
struct Http<H> {
    handler: H,
    tasks: TaskTracker,
}

#[async_trait]
impl<H: Handler> ServerApp for Http<H> {
    async fn process_new(self: &Arc<Self>, stream: Stream, stop: &ShutdownWatch) -> Option<Stream> {
        // A task of its own: pingora's keeps the room of its accepting, more than a connection needs, as long as it runs.
        self.tasks.spawn(Arc::clone(self).drive(stream, stop.clone()));
        None
    }
}

impl<H: Handler> Http<H> {
    /// Speaks HTTP on one stream until either side ends it.
    async fn drive(self: Arc<Self>, stream: Stream, mut stop: ShutdownWatch) {
        // Accepted while the listener closed: served, but for one request only.
        let mut stopping = *stop.borrow_and_update();
        // By reference: a count of references would be written to by the threads of all connections.
        let handler = &self.handler;
        let service = service_fn(|request| {
            // Boxed, so that its room is given back with the answer's head: hyper keeps that of the service's own future
            // while the answer streams, and until the connection ends.
            Box::pin(async move { Ok::<_, std::convert::Infallible>(handler.handle(request).await) })
        });
        let mut connection = pin!(
            http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIMEOUT)
                // Fields: a hundred, hyper's own limit. To ask for a number takes it an allocation for every head.
                .max_header_size(MAX_HEAD)
                .max_buf_size(MAX_BUFFER)
                // A client that closes its sending side has left: its upstream call is cancelled.
                .half_close(false)
                .keep_alive(!stopping)
                .serve_connection(TokioIo::new(stream), service)
        );
        let news = stop.clone();
        // Unconstrained: out of tokio's budget it would wait without having asked to be woken.
        let mut told_to_stop = pin!(tokio::task::unconstrained(stop.wait_for(|stop| *stop)));
        let mut waiting: Option<Waker> = None;
        // By hand and not by `select!`: that would ask for the stop, which comes once in the life of the process, each
        // time the connection is woken, several times a request.
        let ended = poll_fn(|cx| {
            loop {
                // The connection first: a request that is here already is not told to go.
                if let Poll::Ready(ended) = connection.as_mut().poll(cx) {
                    return Poll::Ready(ended);
                }
                let asked = waiting.as_ref().is_some_and(|waker| waker.will_wake(cx.waker()));
                if stopping || (asked && matches!(news.has_changed(), Ok(false))) {
                    return Poll::Pending;
                }
                waiting = Some(cx.waker().clone());
                std::task::ready!(told_to_stop.as_mut().poll(cx)).ok();
                stopping = true;
                connection.as_mut().graceful_shutdown();
            }
        });
        if let Err(e) = ended.await {
            tracing::debug!("downstream connection: {e}");
        }
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt, Empty, combinators::BoxBody};
    use pingora_core::protocols::l4::stream::Stream as Accepted;

    use super::*;

    struct Nothing;

    impl Handler for Nothing {
        type Content = BoxBody<Bytes, crate::error::Error>;

        async fn handle(&self, _: Request<Incoming>) -> Response<Self::Content> {
            // Larger than all of a connection: of a request's room nothing may be in the connection's.
            let room = [0_u8; 4096];
            tokio::task::yield_now().await;
            Response::new(Empty::new().map_err(move |never| match (never, room) {}).boxed())
        }
    }

    /// It is held as long as the connection is: thousands of streams pay for every byte.
    #[tokio::test]
    async fn a_connection_is_a_small_task() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = tokio::net::TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let http = Arc::new(Http { handler: Nothing, tasks: TaskTracker::new() });
        let (_stop, stop) = tokio::sync::watch::channel(false);
        let size = size_of_val(&http.drive(Box::new(Accepted::from(stream)), stop));
        assert!(size <= 1024, "{size} bytes");
    }
}
