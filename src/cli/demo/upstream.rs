//! The upstream inside the demo: an OpenAI-like model and an Upstash-like vector index, each on a port of its own.
//!
//! It decides nothing about Pillion and knows nothing of it; it records what it was sent. Faults befall every call,
//! retries included. Two ports, because in life these are two companies.

use std::convert::Infallible;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body::Frame;
use http_body_util::{BodyExt, Either, Full};
use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;

use super::chat::Chat;
use super::faults::{Draw, Fault, Faults, mix};
use super::index::{Index, Query};

/// What the model takes for an answer.
const CHAT: Duration = Duration::from_millis(30);
/// What a write takes.
const WRITE: Duration = Duration::from_millis(4);
/// What it takes to be turned away.
const REFUSAL: Duration = Duration::from_millis(3);

/// One chat call as it arrived.
#[derive(Clone, Copy, Debug)]
pub(super) struct Received {
    /// Messages after the leading system and developer ones.
    pub(super) messages: usize,
    /// Bytes of its content.
    pub(super) bytes: usize,
}

/// What the upstream saw.
#[derive(Debug, Default)]
pub(super) struct Seen {
    calls: AtomicU64,
    faults: AtomicU64,
    chats: Mutex<Vec<Received>>,
}

impl Seen {
    /// Calls of every kind, failed ones and retries included.
    pub(super) fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }

    /// Calls that were failed on purpose.
    pub(super) fn faults(&self) -> u64 {
        self.faults.load(Ordering::Relaxed)
    }

    /// Every chat call, retries included.
    pub(super) fn chats(&self) -> Vec<Received> {
        self.chats.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The model's and the index's state.
#[derive(Debug)]
struct Shared {
    index: Arc<Index>,
    seen: Arc<Seen>,
    model_faults: Faults,
    index_faults: Faults,
}

/// The upstream, running.
#[derive(Debug)]
pub(super) struct Upstream {
    /// Where the model listens.
    pub(super) model: SocketAddr,
    /// Where the index listens.
    pub(super) vector: SocketAddr,
    /// The index itself, to check answers against.
    pub(super) index: Arc<Index>,
    /// What it saw.
    pub(super) seen: Arc<Seen>,
    accepting: [JoinHandle<()>; 2],
}

impl Upstream {
    /// Starts both on free ports of loopback, or on `ports` where those are free.
    pub(super) async fn start(seed: u64, ports: [u16; 2]) -> Result<Self, String> {
        let shared = Arc::new(Shared {
            index: Arc::new(Index::with_corpus()),
            seen: Arc::new(Seen::default()),
            model_faults: Faults::new(mix(seed, 1)),
            index_faults: Faults::new(mix(seed, 2)),
        });
        let [model_port, vector_port] = ports;
        let (model, model_at) = bind(model_port).await?;
        let (vector, vector_at) = bind(vector_port).await?;
        let accepting = [
            tokio::spawn(accept(model, Arc::clone(&shared), Service::Model)),
            tokio::spawn(accept(vector, Arc::clone(&shared), Service::Index)),
        ];
        Ok(Self {
            model: model_at,
            vector: vector_at,
            index: Arc::clone(&shared.index),
            seen: Arc::clone(&shared.seen),
            accepting,
        })
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        // Each task owns its connections; they end with it.
        self.accepting.iter().for_each(JoinHandle::abort);
    }
}

async fn bind(port: u16) -> Result<(TcpListener, SocketAddr), String> {
    let listener = match TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await {
        Err(_) if port != 0 => TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await,
        bound => bound,
    };
    let bound = listener.and_then(|listener| listener.local_addr().map(|address| (listener, address)));
    bound.map_err(|error| format!("cannot listen on 127.0.0.1: {error}"))
}

#[derive(Clone, Copy, Debug)]
enum Service {
    Model,
    Index,
}

async fn accept(listener: TcpListener, shared: Arc<Shared>, service: Service) {
    let mut connections = JoinSet::new();
    loop {
        // An accept that fails (too many files) must not spin.
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let _ = stream.set_nodelay(true);
        let shared = Arc::clone(&shared);
        let answering = service_fn(move |request| answer(Arc::clone(&shared), service, request));
        connections.spawn(async move {
            let mut server = http1::Builder::new();
            // A cut ends in an error here, as it should.
            let _ = server.timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), answering).await;
        });
        while connections.try_join_next().is_some() {}
    }
}

/// The error that makes hyper close the connection without a byte of response.
#[derive(Debug)]
struct Cut;

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("cut on purpose")
    }
}

impl std::error::Error for Cut {}

/// Content that comes bit by bit.
struct Feed(mpsc::Receiver<Bytes>);

impl Body for Feed {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.get_mut().0.poll_recv(cx).map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes))))
    }
}

type Content = Either<Full<Bytes>, Feed>;
type Answer = Result<Response<Content>, Cut>;

async fn answer(shared: Arc<Shared>, service: Service, request: Request<Incoming>) -> Answer {
    let (head, content) = request.into_parts();
    // The caller left while sending: there is nobody to answer.
    let content = content.collect().await.map_err(|_| Cut)?.to_bytes();
    let path = head.uri.path().trim_end_matches('/');
    match service {
        Service::Model => model(&shared, path, &content).await,
        Service::Index => vector(&shared, path, &content).await,
    }
}

impl Shared {
    /// Counts a call and draws what befalls it.
    fn draw(&self, faults: &Faults) -> Draw {
        self.seen.calls.fetch_add(1, Ordering::Relaxed);
        let draw = faults.next();
        if draw.fault.is_some() {
            self.seen.faults.fetch_add(1, Ordering::Relaxed);
        }
        draw
    }
}

async fn model(shared: &Shared, path: &str, content: &Bytes) -> Answer {
    if path == "/v1/models" {
        let models =
            json!({"object": "list", "data": [{"id": "gpt-4o", "object": "model", "owned_by": "demo"}]});
        return Ok(plain(StatusCode::OK, models.to_string()));
    }
    if path != "/v1/chat/completions" {
        return Ok(refuse_chat(StatusCode::NOT_FOUND, "invalid_request_error", None, "Unknown request URL"));
    }
    let draw = shared.draw(&shared.model_faults);
    let chat = Chat::from_json(content);
    if let Ok(chat) = &chat {
        let received = Received { messages: chat.messages, bytes: content.len() };
        shared.seen.chats.lock().unwrap_or_else(PoisonError::into_inner).push(received);
    }
    if let Some(fault) = draw.fault {
        return fail(fault, CHAT, chat_fault).await;
    }
    let number = shared.seen.calls();
    match chat {
        Err(wrong) => Ok(refuse_chat(StatusCode::BAD_REQUEST, "invalid_request_error", None, &wrong)),
        Ok(chat) if chat.streamed => Ok(stream(chat.events(number))),
        Ok(chat) => {
            tokio::time::sleep(CHAT).await;
            Ok(plain(StatusCode::OK, chat.completion(number)))
        }
    }
}

/// The events, spread over the time an answer takes.
fn stream(events: Vec<Bytes>) -> Response<Content> {
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        let start = Instant::now();
        let pace = CHAT / events.len().max(1) as u32;
        for (event, number) in events.into_iter().zip(1..) {
            // Counted from the start: the timer's own coarseness must not add up.
            tokio::time::sleep_until(start + pace * number).await;
            // A caller that left needs no more words.
            if sender.send(event).await.is_err() {
                return;
            }
        }
    });
    let mut response = Response::new(Either::Right(Feed(receiver)));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    response
}

async fn vector(shared: &Shared, path: &str, content: &Bytes) -> Answer {
    let mut parts = path.trim_start_matches('/').splitn(2, '/');
    let (command, namespace) = (parts.next().unwrap_or(""), parts.next().unwrap_or(""));
    if command == "info" {
        return Ok(plain(StatusCode::OK, shared.index.info()));
    }
    let known = matches!(command, "query" | "query-data" | "upsert" | "upsert-data" | "delete");
    if !known {
        return Ok(refuse_vector(StatusCode::NOT_FOUND, "Not found, and not part of the demo"));
    }
    let draw = shared.draw(&shared.index_faults);
    let reads = command.starts_with("query");
    let time = if reads { draw.search } else { WRITE };
    // What a search finds is settled when it begins: its answer may be overtaken by a write before it arrives.
    let done = match draw.fault {
        None => work(&shared.index, command, namespace, content),
        Some(Fault::Broken | Fault::Cut) if draw.applied => work(&shared.index, command, namespace, content),
        Some(_) => Ok(Bytes::new()),
    };
    if let Some(fault) = draw.fault {
        return fail(fault, time, vector_fault).await;
    }
    match done {
        Err(wrong) => Ok(refuse_vector(StatusCode::UNPROCESSABLE_ENTITY, &wrong)),
        Ok(answer) => {
            tokio::time::sleep(time).await;
            Ok(plain(StatusCode::OK, answer))
        }
    }
}

fn work(index: &Index, command: &str, namespace: &str, content: &[u8]) -> Result<Bytes, String> {
    match command {
        "upsert" | "upsert-data" => index.upsert(namespace, content, command == "upsert-data"),
        "delete" => index.delete(namespace, content),
        _ => {
            let query = Query::from_json(content, command == "query-data")?;
            Ok(index.answer(namespace, index.current(namespace), &query))
        }
    }
}

/// Fails a call that would have taken `time`.
async fn fail(fault: Fault, time: Duration, speak: fn(StatusCode) -> Response<Content>) -> Answer {
    match fault {
        Fault::TooMany | Fault::Unavailable => tokio::time::sleep(REFUSAL).await,
        Fault::Broken | Fault::Cut => tokio::time::sleep(time).await,
    }
    match fault {
        Fault::TooMany => Ok(speak(StatusCode::TOO_MANY_REQUESTS)),
        Fault::Broken => Ok(speak(StatusCode::INTERNAL_SERVER_ERROR)),
        Fault::Unavailable => Ok(speak(StatusCode::SERVICE_UNAVAILABLE)),
        Fault::Cut => Err(Cut),
    }
}

fn chat_fault(status: StatusCode) -> Response<Content> {
    match status {
        StatusCode::TOO_MANY_REQUESTS => {
            let text = "Rate limit reached for gpt-4o on requests per min. Please try again in 120ms.";
            let mut response = refuse_chat(status, "requests", Some("rate_limit_exceeded"), text);
            response.headers_mut().insert("retry-after-ms", HeaderValue::from_static("120"));
            response
        }
        StatusCode::SERVICE_UNAVAILABLE => {
            refuse_chat(status, "server_error", None, "The engine is currently overloaded.")
        }
        _ => refuse_chat(
            status,
            "server_error",
            None,
            "The server had an error while processing your request.",
        ),
    }
}

fn vector_fault(status: StatusCode) -> Response<Content> {
    let text = match status {
        StatusCode::TOO_MANY_REQUESTS => "Exceeded the rate limit",
        StatusCode::SERVICE_UNAVAILABLE => "Service unavailable",
        _ => "Internal server error",
    };
    refuse_vector(status, text)
}

fn refuse_chat(status: StatusCode, kind: &str, code: Option<&str>, text: &str) -> Response<Content> {
    let error: Value = json!({"error": {"message": text, "type": kind, "param": null, "code": code}});
    plain(status, error.to_string())
}

fn refuse_vector(status: StatusCode, text: &str) -> Response<Content> {
    plain(status, json!({"error": text, "status": status.as_u16()}).to_string())
}

fn plain(status: StatusCode, content: impl Into<Bytes>) -> Response<Content> {
    let mut response = Response::new(Either::Left(Full::new(content.into())));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
