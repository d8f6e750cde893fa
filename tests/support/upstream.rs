//! An upstream on a real socket that does what it is told, answer by answer, and records what it saw.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};

use super::client::dechunk;
use super::{Answer, Step, within};

/// A request as it arrived.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    /// Number of the connection, from 0.
    pub(crate) connection: usize,
    /// Everything up to the empty line.
    pub(crate) head: String,
    pub(crate) method: String,
    /// As in the request line.
    pub(crate) target: String,
    /// Names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    /// Without chunk framing.
    pub(crate) body: Vec<u8>,
    /// When it was complete.
    pub(crate) at: Instant,
}

impl Seen {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

type Respond = dyn Fn(&Seen) -> Answer + Send + Sync;

#[derive(Default)]
struct State {
    script: VecDeque<Answer>,
    seen: Vec<Seen>,
    forgets: bool,
    connections: usize,
    /// When the client's end of a connection was seen closed.
    closed: HashMap<usize, Instant>,
    /// What came of a request that was never completed, by connection.
    partial: HashMap<usize, Vec<u8>>,
}

struct Shared {
    state: Mutex<State>,
    respond: Box<Respond>,
    /// Counts changes of `state`.
    changed: watch::Sender<u64>,
}

impl Shared {
    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let out = change(&mut self.state.lock().unwrap());
        self.changed.send_modify(|count| *count += 1);
        out
    }
}

/// The upstream. Dropping it ends it.
pub(crate) struct Upstream {
    pub(crate) addr: SocketAddr,
    shared: Arc<Shared>,
    accepting: tokio::task::JoinHandle<()>,
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Upstream {
    /// One that follows the script of [`Upstream::push`]; beyond it, 501.
    pub(crate) async fn start() -> Self {
        Self::answering(|_| Answer::status(501, r#"{"error":"unscripted"}"#)).await
    }

    /// One that answers by function wherever the script has nothing.
    pub(crate) async fn answering(respond: impl Fn(&Seen) -> Answer + Send + Sync + 'static) -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").await.unwrap(), respond)
    }

    /// The same on a listener that is there.
    pub(crate) fn on(
        listener: TcpListener,
        respond: impl Fn(&Seen) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let addr = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            respond: Box::new(respond),
            changed: watch::Sender::new(0),
        });
        let accepting = tokio::spawn({
            let shared = Arc::clone(&shared);
            async move {
                let mut connections = tokio::task::JoinSet::new();
                loop {
                    let (stream, _) = listener.accept().await.unwrap();
                    let number = shared.change(|state| {
                        state.connections += 1;
                        state.connections - 1
                    });
                    connections.spawn(serve(stream, number, Arc::clone(&shared)));
                }
            }
        });
        Self { addr, shared, accepting }
    }

    /// `http://127.0.0.1:port`
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// What it does about the next request that nothing was told for yet.
    pub(crate) fn push(&self, answer: Answer) {
        self.shared.change(|state| state.script.push_back(answer));
    }

    /// From here on it keeps nothing of what it sees: there will be much.
    pub(crate) fn forgets(&self) {
        self.shared.change(|state| state.forgets = true);
    }

    /// Requests seen so far.
    pub(crate) fn requests(&self) -> Vec<Seen> {
        self.shared.state.lock().unwrap().seen.clone()
    }

    /// How many requests it has seen.
    pub(crate) fn count(&self) -> usize {
        self.shared.state.lock().unwrap().seen.len()
    }

    /// The last request seen.
    pub(crate) fn last(&self) -> Seen {
        self.requests().pop().expect("the upstream has seen no request")
    }

    /// Connections accepted so far.
    pub(crate) fn connections(&self) -> usize {
        self.shared.state.lock().unwrap().connections
    }

    /// Bytes of a request on this connection that was never complete. Known when it is [`Upstream::closed`].
    pub(crate) fn partial(&self, connection: usize) -> Vec<u8> {
        self.shared.state.lock().unwrap().partial.get(&connection).cloned().unwrap_or_default()
    }

    /// Waits until it has seen so many requests; they are returned.
    pub(crate) async fn seen(&self, count: usize) -> Vec<Seen> {
        self.until(&format!("{count} requests upstream"), |state| state.seen.len() >= count).await;
        self.requests()
    }

    /// Waits until so many connections were accepted.
    pub(crate) async fn accepted(&self, count: usize) {
        self.until(&format!("{count} connections"), |state| state.connections >= count).await;
    }

    /// Waits until this connection was closed by the other side, and tells when that was seen.
    pub(crate) async fn closed(&self, connection: usize) -> Instant {
        let what = format!("the end of connection {connection}");
        self.until(&what, |state| state.closed.contains_key(&connection)).await;
        self.shared.state.lock().unwrap().closed[&connection]
    }

    /// Whether the other side has closed this connection.
    pub(crate) fn is_closed(&self, connection: usize) -> bool {
        self.shared.state.lock().unwrap().closed.contains_key(&connection)
    }

    async fn until(&self, what: &str, is: impl Fn(&State) -> bool) {
        let mut changed = self.shared.changed.subscribe();
        within(what, async {
            while !is(&self.shared.state.lock().unwrap()) {
                changed.changed().await.unwrap();
            }
        })
        .await;
    }
}

async fn serve(stream: TcpStream, number: usize, shared: Arc<Shared>) {
    let _ = stream.set_nodelay(true);
    let (read, mut write) = stream.into_split();
    let (requests, mut requested) = mpsc::unbounded_channel();
    let gone = watch::Sender::new(false);
    let mut reading = tokio::spawn(receive(read, number, Arc::clone(&shared), requests, gone.clone()));
    let mut gone = gone.subscribe();
    while let Some(seen) = requested.recv().await {
        let answer = shared.change(|state| state.script.pop_front());
        let answer = answer.unwrap_or_else(|| (shared.respond)(&seen));
        for step in answer.0 {
            if act(step, &mut write, &mut gone).await.is_err() {
                reading.abort();
                let _ = (&mut reading).await;
                return;
            }
        }
    }
    let _ = reading.await;
}

/// Does one step. An error ends the connection.
async fn act(step: Step, write: &mut OwnedWriteHalf, gone: &mut watch::Receiver<bool>) -> Result<(), ()> {
    let mut left = gone.clone();
    let left = async move { drop(left.wait_for(|gone| *gone).await) };
    match step {
        Step::Write(bytes) => write.write_all(&bytes).await.map_err(drop),
        Step::Late(late) => write.write_all(&(late.0)()).await.map_err(drop),
        Step::Yield(times) => {
            for _ in 0..times {
                tokio::task::yield_now().await;
            }
            Ok(())
        }
        Step::Pause(time) => tokio::select! {
            () = tokio::time::sleep(time) => Ok(()),
            () = left => Err(()),
        },
        Step::Wait(gate) => tokio::select! {
            () = gate.wait() => Ok(()),
            () = left => Err(()),
        },
        Step::Feed(mut fed) => {
            let feeding = async {
                while let Some(bytes) = fed.recv().await {
                    write.write_all(&bytes).await.map_err(drop)?;
                }
                Ok(())
            };
            tokio::select! {
                done = feeding => done,
                () = left => Err(()),
            }
        }
        Step::Close => Err(()),
        Step::Reset => {
            let _ = write.as_ref().set_zero_linger();
            Err(())
        }
        Step::Hang => {
            left.await;
            Err(())
        }
    }
}

/// Reads requests until the other side closes, whatever is being written meanwhile.
async fn receive(
    mut read: OwnedReadHalf,
    number: usize,
    shared: Arc<Shared>,
    requests: mpsc::UnboundedSender<Seen>,
    gone: watch::Sender<bool>,
) {
    let mut buffer = Vec::new();
    loop {
        while let Some((mut seen, length)) = parse(&buffer) {
            buffer.drain(..length);
            seen.connection = number;
            shared.change(|state| {
                if !state.forgets {
                    state.seen.push(seen.clone());
                }
            });
            let _ = requests.send(seen);
        }
        if !matches!(read.read_buf(&mut buffer).await, Ok(1..)) {
            break;
        }
    }
    gone.send_replace(true);
    shared.change(|state| {
        state.closed.insert(number, Instant::now());
        state.partial.insert(number, buffer);
    });
}

/// The first complete request in these bytes, and its length.
fn parse(bytes: &[u8]) -> Option<(Seen, usize)> {
    let end = memchr::memmem::find(bytes, b"\r\n\r\n")? + 4;
    let head = String::from_utf8_lossy(&bytes[..end - 2]).into_owned();
    let mut lines = head.split("\r\n");
    let mut line = lines.next()?.split(' ');
    let (method, target) = (line.next()?.to_owned(), line.next().unwrap_or_default().to_owned());
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let field = |name: &str| headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
    let (body, length) = if field("transfer-encoding").is_some_and(|coding| coding.contains("chunked")) {
        dechunk(&bytes[end..])?
    } else {
        let length = field("content-length").map_or(0, |text| text.parse().unwrap());
        (bytes.get(end..end + length)?.to_vec(), length)
    };
    let at = Instant::now();
    Some((Seen { connection: 0, head, method, target, headers, body, at }, end + length))
}
