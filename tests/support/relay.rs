//! A relay that stands before an upstream and does to its connections and answers, on the wire, what it is told: at an
//! exact byte or event, whatever the upstream is and says. Nothing is at random unless the test's own function is.
//!
//! It knows no HTTP but this: a request begins with the first byte from downstream after one from upstream. So it counts
//! requests of HTTP/1.1, and in a TLS connection first the handshake.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::sleep;

/// What happens to a connection that was made.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Door {
    /// Its bytes are passed on.
    Open,
    /// FIN at once.
    Close,
    /// RST at once.
    Reset,
    /// Nothing at all, until the other side leaves.
    Stall,
}

/// How far an answer goes before something happens to it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum After {
    /// So many bytes. After none: the upstream has answered, and not a byte of it is passed on.
    Bytes(usize),
    /// So many events of a stream (`\n\n`).
    Events(usize),
}

/// What happens then.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Does {
    /// FIN, in both directions.
    Close,
    /// RST.
    Reset,
    /// FIN downstream, while what comes from there is still read.
    HalfClose,
    /// Nothing more, until the other side leaves.
    Stall,
    /// The rest comes so much later.
    Delay(Duration),
    /// The rest comes byte by byte, with so much time before each.
    Drip(Duration),
}

/// Something that happens to an answer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Fault(pub(crate) After, pub(crate) Does);

/// The relay. Dropping it ends its listener; connections go on.
#[derive(Debug)]
pub(crate) struct Relay {
    pub(crate) addr: SocketAddr,
    accepting: tokio::task::JoinHandle<()>,
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

type Faults = dyn Fn(usize) -> Option<Fault> + Send + Sync;

impl Relay {
    /// Before that upstream. The functions say what to do about each connection and each request, by number from 0.
    pub(crate) async fn start(
        upstream: SocketAddr,
        doors: impl Fn(usize) -> Door + Send + 'static,
        faults: impl Fn(usize) -> Option<Fault> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (faults, requests): (Arc<Faults>, Arc<AtomicUsize>) = (Arc::new(faults), Arc::default());
        let accepting = tokio::spawn(async move {
            for connection in 0.. {
                let (down, _) = listener.accept().await.unwrap();
                let (door, faults, requests) =
                    (doors(connection), Arc::clone(&faults), Arc::clone(&requests));
                // What goes wrong ends the connection, and that is all that the other side should see of it.
                tokio::spawn(async move { attend(down, door, upstream, &*faults, &requests).await });
            }
        });
        Self { addr, accepting }
    }

    /// One that lets everyone in, and does that to answers.
    pub(crate) async fn before(
        upstream: SocketAddr,
        faults: impl Fn(usize) -> Option<Fault> + Send + Sync + 'static,
    ) -> Self {
        Self::start(upstream, |_| Door::Open, faults).await
    }
}

/// A port that refuses connections, for as long as the socket is held and nobody listens on it.
pub(crate) fn refusing() -> (TcpSocket, SocketAddr) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

/// A port that answers no attempt to connect, for as long as the two are held: one connection waits to be accepted, and
/// there is room for no other.
pub(crate) async fn unanswering() -> (TcpListener, TcpStream, SocketAddr) {
    let (socket, address) = refusing();
    let listener = socket.listen(0).unwrap();
    let waiting = TcpStream::connect(address).await.unwrap();
    (listener, waiting, address)
}

async fn attend(
    mut down: TcpStream,
    door: Door,
    upstream: SocketAddr,
    faults: &Faults,
    requests: &AtomicUsize,
) -> io::Result<()> {
    match door {
        Door::Open => {}
        Door::Close => return Ok(()),
        Door::Reset => return down.set_zero_linger(),
        Door::Stall => return ended(&mut down).await,
    }
    let mut up = TcpStream::connect(upstream).await?;
    down.set_nodelay(true)?;
    up.set_nodelay(true)?;
    let (mut from_down, mut from_up) = (vec![0; 16 * 1024], vec![0; 16 * 1024]);
    let mut answer = Answering::default();
    let mut asking = false;
    loop {
        tokio::select! {
            read = down.read(&mut from_down) => {
                let length = read?;
                if length == 0 {
                    return Ok(());
                }
                if !asking {
                    asking = true;
                    answer = Answering { fault: faults(requests.fetch_add(1, Relaxed)), ..Answering::default() };
                }
                up.write_all(&from_down[..length]).await?;
            }
            read = up.read(&mut from_up) => match read {
                Ok(0) => return Ok(()),
                Ok(length) => {
                    asking = false;
                    answer.pass(&from_up[..length], &mut down).await?;
                }
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return down.set_zero_linger(),
                Err(error) => return Err(error),
            },
        }
    }
}

/// The answer that is under way, and what is to happen to it.
#[derive(Default)]
struct Answering {
    fault: Option<Fault>,
    bytes: usize,
    events: usize,
    last: u8,
    drip: Option<Duration>,
}

impl Answering {
    /// Passes a part of it. An error ends the connection.
    async fn pass(&mut self, part: &[u8], down: &mut TcpStream) -> io::Result<()> {
        let mut rest = part;
        if let Some(Fault(_, does)) = self.fault
            && let Some(length) = self.reached(part)
        {
            self.fault = None;
            let (before, after) = part.split_at(length);
            down.write_all(before).await?;
            rest = after;
            match does {
                Does::Close => return Err(ErrorKind::ConnectionAborted.into()),
                Does::Reset => return down.set_zero_linger().and(Err(ErrorKind::ConnectionAborted.into())),
                Does::HalfClose => {
                    down.shutdown().await?;
                    ended(down).await?;
                }
                Does::Stall => ended(down).await?,
                Does::Delay(time) => pause(time, down).await?,
                Does::Drip(time) => self.drip = Some(time),
            }
        }
        let Some(time) = self.drip else { return down.write_all(rest).await };
        for byte in rest {
            pause(time, down).await?;
            down.write_all(&[*byte]).await?;
        }
        Ok(())
    }

    /// How many bytes of this part go before the fault; `None`: all of them, and it is not reached.
    fn reached(&mut self, part: &[u8]) -> Option<usize> {
        let Fault(after, _) = self.fault?;
        let before = self.bytes;
        self.bytes += part.len();
        match after {
            After::Bytes(count) => (self.bytes >= count).then(|| count - before),
            After::Events(0) => Some(0),
            After::Events(count) => part.iter().enumerate().find_map(|(at, &byte)| {
                let ends = byte == b'\n' && std::mem::replace(&mut self.last, byte) == b'\n';
                self.last = byte;
                self.events += usize::from(ends);
                (self.events >= count).then_some(at + 1)
            }),
        }
    }
}

/// Waits for the other side to end the connection, which is an error then.
async fn ended(down: &mut TcpStream) -> io::Result<()> {
    let mut unheard = [0; 1024];
    while down.read(&mut unheard).await? > 0 {}
    Err(ErrorKind::ConnectionAborted.into())
}

/// Waits, unless the other side leaves.
async fn pause(time: Duration, down: &TcpStream) -> io::Result<()> {
    let left = async {
        if matches!(down.peek(&mut [0]).await, Ok(1)) {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        () = sleep(time) => Ok(()),
        () = left => Err(ErrorKind::ConnectionAborted.into()),
    }
}
