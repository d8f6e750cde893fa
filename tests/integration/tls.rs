//! Upstreams behind TLS: whom Pillion trusts, HTTP/1.1 and HTTP/2 by ALPN, and what HTTP/2 says about retrying.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Response, Version};
use http_body_util::BodyExt;
use hyper::body::{Body, Frame};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Barrier;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;
use tokio_rustls::server::TlsStream;

use crate::support::secure::{Authority, Content, Http2, accept, relay, whole};
use crate::support::{Answer, Pillion, Upstream, client, eventually};

const CHAT: &str = "/v1/chat/completions";
const BODY: &str = r#"{"messages":[{"role":"user","content":"a"}]}"#;

/// A Pillion that trusts this authority.
async fn trusting(authority: &Authority, preset: &str, name: &str, upstream: SocketAddr) -> Pillion {
    let yaml = format!(
        "tls: {{ca: '{}'}}\nroutes: [{{name: r, path: /, upstream: 'https://{name}:{}/base', preset: {preset}, \
         retry: {{base: 1ms}}}}]\n",
        authority.file(),
        upstream.port()
    );
    Pillion::start(&yaml, &[]).await
}

fn answer(content: impl Into<Bytes>) -> Response<Content> {
    Response::builder().header("content-type", "application/json").body(whole(content)).unwrap()
}

#[tokio::test]
async fn http_1_where_the_upstream_prefers_it_or_says_nothing() {
    for protocols in [&["http/1.1"] as &[&str], &[]] {
        let authority = Authority::new();
        let upstream = Upstream::answering(|seen| Answer::ok(&seen.body)).await;
        let secure = relay(authority.acceptor("localhost", protocols), upstream.addr).await;
        let pillion = trusting(&authority, "http", "localhost", secure).await;
        for _ in 0..3 {
            let response = pillion.post("/x?q=1", BODY).await;
            assert_eq!((response.status, response.text().as_str()), (200, BODY));
        }
        let seen = upstream.last();
        assert!(seen.head.starts_with("POST /base/x?q=1 HTTP/1.1\r\n"), "{}", seen.head);
        assert_eq!(seen.header("host"), Some(format!("localhost:{}", secure.port()).as_str()));
        assert_eq!(upstream.connections(), 1, "the connection is kept");
    }
}

#[tokio::test]
async fn http_2_where_the_upstream_speaks_it() {
    let authority = Authority::new();
    let acceptor = authority.acceptor("localhost", &["h2", "http/1.1"]);
    let upstream = Http2::start(acceptor, |seen| async move { answer(seen.body) }).await;
    let pillion = trusting(&authority, "http", "localhost", upstream.address).await;
    let headers = [("connection", "x-hop"), ("x-hop", "1"), ("te", "trailers"), ("x-end", "2")];
    let response = pillion.post_with("/x?q=1", &headers, BODY).await;
    assert_eq!((response.status, response.text().as_str()), (200, BODY));
    assert_eq!(response.version, "HTTP/1.1");
    let seen = &upstream.seen()[0];
    assert_eq!(seen.head.version, Version::HTTP_2);
    // RFC 9113 section 8.3.1: `:authority` is where we go, and Host is not sent beside it.
    let authority = format!("localhost:{}", upstream.address.port());
    assert_eq!(seen.head.uri.to_string(), format!("https://{authority}/base/x?q=1"));
    assert_eq!(seen.head.headers.get("host"), None);
    // RFC 9113 section 8.2.2: no connection-specific fields.
    for name in ["connection", "x-hop", "te", "transfer-encoding", "keep-alive"] {
        assert_eq!(seen.head.headers.get(name), None, "{name}");
    }
    assert_eq!(seen.head.headers["x-end"], "2");
    assert_eq!(seen.head.headers["content-length"], BODY.len().to_string().as_str());
}

/// All of them are under way at the same time: the upstream answers none before it has them all.
#[tokio::test]
async fn parallel_exchanges_share_one_http_2_connection() {
    const PARALLEL: usize = 32;
    let authority = Authority::new();
    let together = Arc::new(Barrier::new(PARALLEL));
    let upstream = Http2::start(authority.acceptor("localhost", &["h2"]), move |seen| {
        let together = Arc::clone(&together);
        async move {
            if seen.head.uri.path() != "/base/first" {
                together.wait().await;
            }
            answer(seen.body)
        }
    })
    .await;
    let pillion = trusting(&authority, "http", "localhost", upstream.address).await;
    // The connection is made.
    assert_eq!(pillion.post("/first", "0").await.text(), "0");
    let mut asking = JoinSet::new();
    for number in 0..PARALLEL {
        let address = pillion.addr;
        asking.spawn(async move {
            let body = number.to_string();
            (client::exchange(address, "POST", "/x", &[], &body).await.text(), body)
        });
    }
    for (got, sent) in crate::support::within("all answers", asking.join_all()).await {
        assert_eq!(got, sent);
    }
    assert_eq!((upstream.seen().len(), upstream.connections()), (PARALLEL + 1, 1));
}

/// Content that comes through a channel.
struct Fed(UnboundedReceiver<Result<Frame<Bytes>, std::io::Error>>);

impl Body for Fed {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        self.0.poll_recv(cx)
    }
}

/// The frames of an answer, sent one by one by the test.
fn fed() -> (UnboundedSender<Result<Frame<Bytes>, std::io::Error>>, Response<Content>) {
    let (sender, frames) = unbounded_channel();
    let body = Fed(frames).boxed_unsync();
    (sender, Response::builder().header("content-type", "text/event-stream").body(body).unwrap())
}

#[tokio::test]
async fn events_of_an_http_2_stream_leave_as_they_come() {
    let authority = Authority::new();
    let (feed, response) = fed();
    let response = Arc::new(Mutex::new(Some(response)));
    let upstream = Http2::start(authority.acceptor("localhost", &["h2"]), move |_| {
        let response = response.lock().unwrap().take().unwrap();
        async move { response }
    })
    .await;
    let pillion = trusting(&authority, "openai", "localhost", upstream.address).await;
    let mut client = pillion.connect().await;
    client.ask("POST", CHAT, &[], BODY).await;
    assert_eq!(client.head().await.unwrap().status, 200);
    for number in 0..10 {
        let event = format!("data: {number}\n\n");
        feed.send(Ok(Frame::data(event.clone().into()))).unwrap();
        assert_eq!(client.take(1).await, format!("9\r\n{event}\r\n").into_bytes());
    }
    // Broken off by RST_STREAM: the client's answer breaks off, too.
    feed.send(Err(std::io::Error::other("broken"))).unwrap();
    assert_eq!(client.end().await, b"");
    pillion.metric_is("pillion_errors_total", &[("error", "http_response_incomplete")], 1.0).await;
}

#[tokio::test]
async fn a_client_that_leaves_resets_its_stream_and_no_other() {
    let authority = Authority::new();
    let feeds: Arc<Mutex<Vec<_>>> = Arc::default();
    let kept = Arc::clone(&feeds);
    let upstream = Http2::start(authority.acceptor("localhost", &["h2"]), move |_| {
        let (feed, response) = fed();
        kept.lock().unwrap().push(feed);
        async move { response }
    })
    .await;
    let pillion = trusting(&authority, "openai", "localhost", upstream.address).await;
    let mut clients = Vec::new();
    for _ in 0..2 {
        let mut client = pillion.connect().await;
        client.ask("POST", CHAT, &[], BODY).await;
        assert_eq!(client.head().await.unwrap().status, 200);
        clients.push(client);
    }
    let (stays, leaves) = (clients.remove(0), clients.remove(0));
    let feeds = feeds.lock().unwrap().clone();
    drop(leaves);
    // The upstream's own content is dropped with its stream.
    crate::support::within("the reset of the stream", feeds[1].closed()).await;
    let mut stays = stays;
    feeds[0].send(Ok(Frame::data("data: 1\n\n".into()))).unwrap();
    assert_eq!(stays.take(1).await, b"9\r\ndata: 1\n\n\r\n");
    assert_eq!(upstream.connections(), 1);
    pillion.metric_is("pillion_client_gone_total", &[], 1.0).await;
}

#[tokio::test]
async fn whom_it_does_not_trust_it_tells_nothing() {
    let (known, unknown) = (Authority::new(), Authority::new());
    let upstream = Upstream::start().await;
    let plain = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let no_tls = plain.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = plain.accept().await {
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        }
    });
    let [stranger, other] =
        [unknown.acceptor("localhost", &["http/1.1"]), known.acceptor("other.test", &["http/1.1"])];
    for (what, address, word) in [
        ("an unknown authority", relay(stranger, upstream.addr).await, "tls_certificate_error"),
        ("another name", relay(other, upstream.addr).await, "tls_certificate_error"),
        ("no TLS", no_tls, "tls_protocol_error"),
    ] {
        let pillion = trusting(&known, "openai", "localhost", address).await;
        let headers = [("x-stainless-retry-count", "3"), ("authorization", "Bearer canary")];
        let response = pillion.post_with(CHAT, &headers, BODY).await;
        assert_eq!(response.status, 502, "{what}");
        assert_eq!(response.json()["error"]["code"], word, "{what}");
        assert!(response.header("proxy-status").unwrap().contains(&format!("error={word}")), "{what}");
        assert!(!response.text().contains("canary"));
    }
    assert_eq!(upstream.connections(), 0);
}

/// Frames by hand (RFC 9113 section 4.1), for what hyper's server does not do.
fn frame(kind: u8, flags: u8, stream: u32, content: &[u8]) -> Vec<u8> {
    let length = u32::try_from(content.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), content].concat()
}

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// Reads up to the end of the next request; tells its stream.
async fn next_request(stream: &mut TlsStream<TcpStream>) -> Option<u32> {
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await.ok()?;
        let mut content = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        stream.read_exact(&mut content).await.ok()?;
        if matches!(head[3], DATA | HEADERS) && head[4] & END_STREAM != 0 {
            return Some(u32::from_be_bytes([head[5], head[6], head[7], head[8]]));
        }
    }
}

/// An answer to the request on this stream.
type Frames = fn(u32) -> Vec<u8>;

/// An HTTP/2 upstream that answers its first request with these frames, and every other with 200.
async fn first_answered_by(authority: &Authority, frames: Frames) -> (SocketAddr, Arc<AtomicUsize>) {
    let requests = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&requests);
    let address = accept(authority.acceptor("localhost", &["h2"]), move |_, mut stream| {
        let count = Arc::clone(&count);
        async move {
            let mut preface = [0; 24];
            stream.read_exact(&mut preface).await.unwrap();
            let _ = stream.write_all(&frame(SETTINGS, 0, 0, &[])).await;
            while let Some(id) = next_request(&mut stream).await {
                // `:status: 200` is entry 8 of the static table (RFC 7541 appendix A).
                let answer = match count.fetch_add(1, SeqCst) {
                    0 => frames(id),
                    _ => frame(HEADERS, END_HEADERS | END_STREAM, id, &[0x88]),
                };
                let _ = stream.write_all(&answer).await;
            }
        }
    })
    .await;
    (address, requests)
}

/// RFC 9113 section 8.7: both mean that the request was not processed, so that even what must not be sent twice is sent.
#[tokio::test]
async fn rfc9113_8_7_what_was_refused_was_never_sent() {
    let refused: Frames = |id| frame(RST_STREAM, 0, id, &7_u32.to_be_bytes());
    let goaway: Frames = |_| frame(GOAWAY, 0, 0, &[0; 8]);
    for (what, frames) in [("REFUSED_STREAM", refused), ("GOAWAY", goaway)] {
        let authority = Authority::new();
        let (address, requests) = first_answered_by(&authority, frames).await;
        let pillion = trusting(&authority, "http", "localhost", address).await;
        let response = pillion.post("/once", BODY).await;
        assert_eq!((response.status, requests.load(SeqCst)), (200, 2), "{what}: {}", response.text());
        pillion.metric_is("pillion_retries_total", &[("reason", "never_sent")], 1.0).await;
    }
}

/// What may have been processed is not sent again where that could do harm.
#[tokio::test]
async fn rfc9113_8_7_what_may_have_been_processed_is_another_matter() {
    let internal: Frames = |id| frame(RST_STREAM, 0, id, &2_u32.to_be_bytes());
    let goaway: Frames = |_| frame(GOAWAY, 0, 0, &[0, 0, 0, 0, 0, 0, 0, 2]);
    for (what, frames) in [("RST_STREAM", internal), ("GOAWAY with an error", goaway)] {
        for (preset, target, expected) in [("http", "/once", 502), ("openai", "/v1/embeddings", 200)] {
            let authority = Authority::new();
            let (address, requests) = first_answered_by(&authority, frames).await;
            let pillion = trusting(&authority, preset, "localhost", address).await;
            let response = pillion.post(target, BODY).await;
            let attempts = if expected == 200 { 2 } else { 1 };
            assert_eq!((response.status, requests.load(SeqCst)), (expected, attempts), "{what} {preset}");
        }
    }
}

/// After a graceful GOAWAY what is under way ends, and what comes goes elsewhere.
#[tokio::test]
async fn rfc9113_6_8_a_connection_that_goes_away_is_replaced() {
    let authority = Authority::new();
    let (address, requests) = first_answered_by(&authority, |id| {
        let mut frames = frame(GOAWAY, 0, 0, &[id.to_be_bytes(), [0; 4]].concat());
        frames.extend(frame(HEADERS, END_HEADERS | END_STREAM, id, &[0x88]));
        frames
    })
    .await;
    let pillion = trusting(&authority, "http", "localhost", address).await;
    for _ in 0..3 {
        assert_eq!(pillion.post("/once", BODY).await.status, 200);
    }
    assert_eq!(requests.load(SeqCst), 3);
    eventually("no retries", async || pillion.metric("pillion_upstream_attempts_total", &[]).await >= 3.0)
        .await;
    assert!(pillion.metric("pillion_retries_total", &[]).await < 0.5);
}
