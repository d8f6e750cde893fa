//! An LLM API that refuses what the vendors refuse, for the tests of the official SDKs: `OpenAI`'s chat completions and
//! Responses, and Anthropic's Messages.
//!
//! It binds a free port of 127.0.0.1, prints `listening on http://127.0.0.1:PORT (strict)`, and ends when its standard
//! input closes, so that it never outlives the test that started it.
//!
//! `POST` on a path that ends in `/chat/completions`, `/responses` or `/messages`: a request that breaks the vendor's rules
//! gets the vendor's error. Any other is answered as the text of the last user's message says:
//!
//! - `tools:N`: with N calls of `look_up`, at once, and with a text once they are answered;
//! - `think`: thinking or reasoning goes before each answer, bound to everything before it;
//! - whatever else: with a text that says how many messages were heard.
//!
//! With `"stream": true` the answer comes as the vendor's stream. A model named `...context-N` has room for N tokens.
//!
//! For the tests themselves:
//!
//! - `GET /_counts`: `{"requests", "rejected", "rejections": [what was said], "sizes": [messages of each that was taken]}`
//! - `POST /_reset`: forgets all of it

#![expect(clippy::indexing_slicing, reason = "a stand-in may fail as tests do")]

mod answer;
mod chat;
mod messages;
mod responses;
#[path = "../strict/mod.rs"]
mod strict;

use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::io::Read;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use strict::{Dialect, Rejection};
use tokio::net::TcpListener;

use answer::Plan;

/// What it remembers between requests.
#[derive(Default)]
struct State {
    requests: u64,
    rejections: Vec<String>,
    sizes: Vec<usize>,
    /// What was said up to and with each answer of Responses that was to be stored, by its id.
    stored: HashMap<String, Vec<Value>>,
    /// Every id is given once.
    ids: u64,
}

/// The content of an answer, in as many pieces as it is sent in.
struct Pieces(VecDeque<Bytes>);

impl hyper::body::Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.pop_front().map(|piece| Ok(Frame::data(piece))))
    }
}

/// An answer before it is HTTP.
enum Answer {
    Whole(u16, Value),
    /// Events of a stream: the name, where the vendor gives one, and the data.
    Stream(Vec<(Option<&'static str>, String)>),
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> std::io::Result<()> {
    std::thread::spawn(|| {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(0);
    });
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("listening on http://{} (strict)", listener.local_addr()?);
    let state = Arc::new(Mutex::new(State::default()));
    loop {
        let (stream, _) = listener.accept().await?;
        let _ = stream.set_nodelay(true);
        let state = Arc::clone(&state);
        tokio::spawn(async move {
            let service = service_fn(move |request| respond(Arc::clone(&state), request));
            let mut server = http1::Builder::new();
            let _ = server.timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn respond(
    state: Arc<Mutex<State>>,
    request: Request<Incoming>,
) -> Result<Response<Pieces>, Infallible> {
    let path = request.uri().path().to_owned();
    let post = request.method() == Method::POST;
    let content = match request.into_body().collect().await {
        Ok(content) => content.to_bytes(),
        // Nobody is left to answer to.
        Err(_) => Bytes::new(),
    };
    let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
    let dialect = match path.rsplit_once('/').map(|(before, last)| (before.ends_with("/chat"), last)) {
        Some((true, "completions")) if post => Dialect::Chat,
        Some((_, "responses")) if post => Dialect::Responses,
        Some((_, "messages")) if post => Dialect::Messages,
        Some((_, "_counts")) => {
            let counts = json!({
                "requests": state.requests, "rejected": state.rejections.len(), "rejections": state.rejections,
                "sizes": state.sizes,
            });
            return Ok(http(0, Answer::Whole(200, counts)));
        }
        Some((_, "_reset")) if post => {
            *state = State { ids: state.ids, ..State::default() };
            return Ok(http(0, Answer::Whole(200, json!({}))));
        }
        _ => {
            let unknown =
                json!({"message": "Unknown request URL.", "type": "invalid_request_error", "param": null});
            return Ok(http(0, Answer::Whole(404, json!({"error": unknown}))));
        }
    };
    state.requests += 1;
    let answer = match judge(&mut state, dialect, &content) {
        Ok(answer) => answer,
        Err(rejection) => {
            state.rejections.push(rejection.message.clone());
            refuse(dialect, &rejection, state.requests)
        }
    };
    Ok(http(state.requests, answer))
}

fn judge(state: &mut State, dialect: Dialect, content: &[u8]) -> Result<Answer, Rejection> {
    strict::check_size(dialect, content.len())?;
    let mut request: Value = serde_json::from_slice(content).map_err(|error| Rejection {
        message: match dialect {
            Dialect::Messages => format!("The request body is not valid JSON: {error}"),
            _ => format!("We could not parse the JSON body of your request: {error}"),
        },
        param: None,
        code: None,
    })?;
    if !request.is_object() {
        return Err(Rejection {
            message: "The request body is not an object.".into(),
            param: None,
            code: None,
        });
    }
    let size = request[dialect.member()].as_array().map_or(1, Vec::len);
    if dialect == Dialect::Responses {
        responses::resolve(&mut request, &state.stored);
    }
    strict::check(dialect, &request)?;
    state.sizes.push(size);
    let plan = Plan::of(dialect, &request, &mut state.ids);
    Ok(match dialect {
        Dialect::Chat => chat::answer(&request, &plan),
        Dialect::Responses => responses::answer(&request, &plan, &mut state.stored),
        Dialect::Messages => messages::answer(&request, &plan),
    })
}

/// An error as the vendor's SDK reads it.
fn refuse(dialect: Dialect, rejection: &Rejection, number: u64) -> Answer {
    let Rejection { message, param, code } = rejection;
    if dialect == Dialect::Messages {
        let status = if *code == Some("request_too_large") { 413 } else { 400 };
        let error = json!({"type": code.unwrap_or("invalid_request_error"), "message": message});
        return Answer::Whole(
            status,
            json!({"type": "error", "error": error, "request_id": format!("req_{number}")}),
        );
    }
    let error = json!({"message": message, "type": "invalid_request_error", "param": param, "code": code});
    Answer::Whole(400, json!({"error": error}))
}

fn http(number: u64, answer: Answer) -> Response<Pieces> {
    let (status, kind, pieces) = match answer {
        Answer::Whole(status, content) => (status, "application/json", [content.to_string()].into()),
        Answer::Stream(events) => {
            let written = events.into_iter().map(|(name, data)| {
                let name = name.map_or_else(String::new, |name| format!("event: {name}\n"));
                format!("{name}data: {data}\n\n")
            });
            (200, "text/event-stream; charset=utf-8", written.collect::<VecDeque<String>>())
        }
    };
    let mut response = Response::new(Pieces(pieces.into_iter().map(Bytes::from).collect()));
    *response.status_mut() = hyper::StatusCode::from_u16(status).unwrap_or_default();
    let headers = response.headers_mut();
    headers.insert("content-type", hyper::header::HeaderValue::from_static(kind));
    for name in ["x-request-id", "request-id"] {
        if let Ok(value) = format!("req_{number}").parse() {
            headers.insert(name, value);
        }
    }
    response
}
