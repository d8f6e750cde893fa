//! Upstreams behind TLS: whom Pillion trusts, HTTP/1.1 and HTTP/2 by ALPN, sessions.

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Response, Version};
use http_body_util::BodyExt;
use hyper::body::{Body, Frame};
use rustls::HandshakeKind;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Barrier;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;

use crate::support::secure::{Authority, Content, Http2, accept, relay, whole};
use crate::support::{Answer, Pillion, Upstream, client};

const CHAT: &str = "/v1/chat/completions";
const BODY: &str = r#"{"messages":[{"role":"user","content":"a"}]}"#;

fn answer(content: impl Into<Bytes>) -> Response<Content> {
    Response::builder().header("content-type", "application/json").body(whole(content)).unwrap()
}

#[tokio::test]
async fn http_1_where_the_upstream_prefers_it_or_says_nothing() {
    for protocols in [&["http/1.1"] as &[&str], &[]] {
        let authority = Authority::new();
        let upstream = Upstream::answering(|seen| Answer::ok(&seen.body)).await;
        let secure = relay(authority.acceptor("localhost", protocols), upstream.addr).await;
        let pillion = Pillion::trusting(&authority, "http", "localhost", secure).await;
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
    let pillion = Pillion::trusting(&authority, "http", "localhost", upstream.address).await;
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
    let pillion = Pillion::trusting(&authority, "http", "localhost", upstream.address).await;
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
    let pillion = Pillion::trusting(&authority, "openai", "localhost", upstream.address).await;
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
    let pillion = Pillion::trusting(&authority, "openai", "localhost", upstream.address).await;
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
        let pillion = Pillion::trusting(&known, "openai", "localhost", address).await;
        let headers = [("x-stainless-retry-count", "3"), ("authorization", "Bearer canary")];
        let response = pillion.post_with(CHAT, &headers, BODY).await;
        assert_eq!(response.status, 502, "{what}");
        assert_eq!(response.json()["error"]["code"], word, "{what}");
        assert!(response.header("proxy-status").unwrap().contains(&format!("error={word}")), "{what}");
        assert!(!response.text().contains("canary"));
    }
    assert_eq!(upstream.connections(), 0);
}

/// Each connection but the first takes up the session of one before.
#[tokio::test]
async fn sessions_are_resumed() {
    let authority = Authority::new();
    let kinds: Arc<Mutex<Vec<_>>> = Arc::default();
    let seen = Arc::clone(&kinds);
    let address = accept(authority.acceptor("localhost", &["http/1.1"]), move |_, mut stream| {
        seen.lock().unwrap().push(stream.get_ref().1.handshake_kind().unwrap());
        async move {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.unwrap());
            }
            let answer = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
            stream.write_all(answer).await.unwrap();
            let _ = stream.shutdown().await;
        }
    })
    .await;
    let pillion = Pillion::trusting(&authority, "http", "localhost", address).await;
    for _ in 0..4 {
        assert_eq!(pillion.get("/x").await.status, 200);
    }
    let (full, resumed) = (HandshakeKind::Full, HandshakeKind::Resumed);
    assert_eq!(*kinds.lock().unwrap(), [full, resumed, resumed, resumed]);
}
