//! A client that leaves: the upstream is let go within 100 ms in every phase, and the request is observed once.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use crate::support::fair::Moment;
use crate::support::{Answer, Client, Gate, Pillion, Step, Upstream, advance, within};

const CHAT: &str = "/v1/chat/completions";
const BODY: &str = r#"{"stream":true,"messages":[{"role":"user","content":"a"}]}"#;
const SSE: [(&str, &str); 1] = [("content-type", "text/event-stream")];
const LIMIT: Duration = Duration::from_millis(100);

/// How a client leaves.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Leaves {
    /// Closes its side only (FIN).
    Fin,
    /// Closes the socket.
    Close,
    /// RST.
    Reset,
}

const WAYS: [Leaves; 3] = [Leaves::Fin, Leaves::Close, Leaves::Reset];

impl Leaves {
    /// The client is given back where it still can read.
    async fn leave(self, mut client: Client) -> Option<Client> {
        match self {
            Leaves::Fin => {
                client.stream.shutdown().await.unwrap();
                return Some(client);
            }
            Leaves::Close => drop(client),
            Leaves::Reset => client.stream.set_zero_linger().unwrap(),
        }
        None
    }
}

/// Lets the client leave, and expects the upstream to see the end of its connection in time.
async fn cancels(leaves: Leaves, client: Client, upstream: &Upstream, connection: usize, what: &str) {
    let left = Moment::now();
    let half = leaves.leave(client).await;
    upstream.closed(connection).await;
    let closed = Moment::now();
    println!("{what}, {leaves:?}: {:?}", closed.since(left));
    assert!(closed.fairly_since(left) < LIMIT, "{what}, {leaves:?}: {:?}", closed.since(left));
    drop(half);
}

/// One request with this status, whose client left; nothing in flight; no error of anybody's.
async fn observed_once(pillion: &Pillion, operation: &str, status: &str, what: &str) {
    let labels = [("route", "r"), ("operation", operation)];
    pillion.metric_is("pillion_client_gone_total", &labels, 1.0).await;
    pillion.metric_is("pillion_in_flight", &[], 0.0).await;
    pillion.metric_is("pillion_upstream_in_flight", &[], 0.0).await;
    let metrics = pillion.metrics().await;
    let count = |name, labels: &[(&str, &str)]| crate::support::metric(&metrics, name, labels) as u64;
    let counted = [
        count("pillion_requests_total", &[labels[0], labels[1], ("status", status)]),
        count("pillion_requests_total", &[]),
        count("pillion_client_gone_total", &[]),
        count("pillion_errors_total", &[]),
    ];
    assert_eq!(counted, [1, 1, 1, 0], "{what}");
    assert_eq!(count("pillion_buffers_bytes", &[]), 0, "{what}: held content is given back");
}

#[tokio::test]
async fn while_its_content_is_held() {
    for leaves in WAYS {
        let upstream = Upstream::start().await;
        let pillion = Pillion::route("openai", &upstream, &[]).await;
        let mut client = pillion.connect().await;
        client
            .send(format!("POST {CHAT} HTTP/1.1\r\nhost: a\r\ncontent-length: 100000\r\n\r\n{{\"mess"))
            .await;
        pillion.metric_is("pillion_in_flight", &[("operation", "chat")], 1.0).await;
        let left = Moment::now();
        let half = leaves.leave(client).await;
        // A request of which a part is missing is malformed; whether the client can still hear that or not.
        pillion.metric_is("pillion_in_flight", &[], 0.0).await;
        assert!(Moment::now().fairly_since(left) < LIMIT, "{leaves:?}");
        pillion.metric_is("pillion_requests_total", &[], 1.0).await;
        pillion.metric_is("pillion_buffers_bytes", &[], 0.0).await;
        assert_eq!(upstream.connections(), 0);
        drop(half);
    }
}

#[tokio::test]
async fn while_its_content_streams_up() {
    for leaves in WAYS {
        let upstream = Upstream::start().await;
        let pillion = Pillion::route("openai", &upstream, &["limits: {replay_body: 1KiB}"]).await;
        let mut client = pillion.connect().await;
        let part = "x".repeat(64 * 1024);
        client
            .send(format!("POST {CHAT} HTTP/1.1\r\nhost: a\r\ncontent-length: 10000000\r\n\r\n{part}"))
            .await;
        upstream.accepted(1).await;
        cancels(leaves, client, &upstream, 0, "upload").await;
        assert!(!upstream.partial(0).is_empty() && upstream.count() == 0);
        pillion.metric_is("pillion_in_flight", &[], 0.0).await;
        pillion.metric_is("pillion_requests_total", &[], 1.0).await;
        assert_eq!(upstream.connections(), 1, "it is not attempted again");
    }
}

/// The upstream does not read on: what it has not read by then it never gets, whether the client leaves or time is up.
#[tokio::test]
async fn while_its_content_is_stuck_before_an_upstream_that_does_not_read() {
    const LENGTH: usize = 30 << 20;
    for times_out in [false, true] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let yaml =
            "routes: [{name: r, path: /, upstream: '${UP}', preset: http, timeouts: {first_byte: 5s}}]";
        let url = format!("http://{}", listener.local_addr().unwrap());
        let pillion = Pillion::start(yaml, &[("UP", &url)]).await;
        let mut client = pillion.connect().await;
        client.send(format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {LENGTH}\r\n\r\n")).await;
        client.send("x".repeat(LENGTH)).await;
        let (mut stuck, _) = within("a connection", listener.accept()).await.unwrap();
        within("the content", stuck.readable()).await.unwrap();
        if times_out {
            advance(Duration::from_secs(6)).await;
            assert_eq!(client.response().await.status, 504);
        } else {
            drop(client);
        }
        pillion.metric_is("pillion_upstream_in_flight", &[], 0.0).await;
        let (mut read, mut part) = (0, vec![0; 1 << 16]);
        while let Ok(more @ 1..) = within("the end", stuck.read(&mut part)).await {
            read += more;
        }
        assert!(read < LENGTH, "all of it came");
    }
}

/// The upstream takes no more connections for now, and says nothing to who asks for one.
#[tokio::test]
async fn while_a_connection_is_made() {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let addr = listener.local_addr().unwrap();
    let mut others = Vec::new();
    while let Ok(other) = tokio::time::timeout(Duration::from_millis(50), TcpStream::connect(addr)).await {
        others.push(other.unwrap());
    }
    let yaml = "routes: [{name: r, path: /, upstream: '${UP}', preset: openai}]";
    for leaves in WAYS {
        let pillion = Pillion::start(yaml, &[("UP", &format!("http://{addr}"))]).await;
        let mut client = pillion.connect().await;
        client.ask("POST", CHAT, &[], BODY).await;
        pillion.metric_is("pillion_in_flight", &[("operation", "chat")], 1.0).await;
        let left = Moment::now();
        let half = leaves.leave(client).await;
        observed_once(&pillion, "chat", "none", "connect").await;
        assert!(Moment::now().fairly_since(left) < LIMIT, "{leaves:?}");
        drop(half);
    }
    // There is room again: nobody comes for those who have left.
    for _ in &others {
        drop(within("the others", listener.accept()).await.unwrap());
    }
    let pillion = Pillion::start(yaml, &[("UP", &format!("http://{addr}"))]).await;
    let mut client = pillion.connect().await;
    client.ask("GET", "/unrelated", &[], "").await;
    let (mut stream, _) = within("a connection", listener.accept()).await.unwrap();
    let mut first = [0; 14];
    within("its request", stream.read_exact(&mut first)).await.unwrap();
    assert_eq!(&first, b"GET /unrelated");
}

/// Its turn comes when another request of the upstream is over.
#[tokio::test]
async fn while_it_waits_for_its_turn() {
    for leaves in WAYS {
        let (upstream, gate) = (Upstream::answering(|_| Answer::ok("{}")).await, Gate::new());
        upstream.push(Answer::ok("{}").held(&gate));
        let yaml =
            "limits: {max_in_flight: 1}\nroutes: [{name: r, path: /, upstream: '${UP}', preset: openai}]";
        let pillion = Pillion::start(yaml, &[("UP", &upstream.url())]).await;
        let mut first = pillion.connect().await;
        first.ask("POST", CHAT, &[], BODY).await;
        upstream.seen(1).await;
        let mut second = pillion.connect().await;
        second.ask("POST", CHAT, &[], BODY).await;
        pillion.metric_is("pillion_in_flight", &[("operation", "chat")], 2.0).await;
        // It waits: there is no room for another to wait.
        assert_eq!(pillion.post(CHAT, BODY).await.status, 503);
        let left = Moment::now();
        let half = leaves.leave(second).await;
        pillion.metric_is("pillion_client_gone_total", &[("operation", "chat")], 1.0).await;
        pillion.metric_is("pillion_in_flight", &[("operation", "chat")], 1.0).await;
        assert!(Moment::now().fairly_since(left) < LIMIT, "{leaves:?}");
        // Its room is another's.
        let mut third = pillion.connect().await;
        third.ask("GET", "/third", &[], "").await;
        gate.open();
        assert_eq!((first.response().await.status, third.response().await.status), (200, 200), "{leaves:?}");
        let targets: Vec<String> = upstream.requests().into_iter().map(|request| request.target).collect();
        assert_eq!(targets, [CHAT, "/third"], "{leaves:?}");
        pillion.metric_is("pillion_upstream_in_flight", &[], 0.0).await;
        drop(half);
    }
}

#[tokio::test]
async fn while_it_waits_for_the_head() {
    for leaves in WAYS {
        for (preset, target, operation) in [("openai", CHAT, "chat"), ("http", "/x", "other")] {
            let upstream = Upstream::answering(|_| Answer::hang()).await;
            let pillion = Pillion::route(preset, &upstream, &[]).await;
            let mut client = pillion.connect().await;
            client.ask("POST", target, &[], BODY).await;
            upstream.seen(1).await;
            cancels(leaves, client, &upstream, 0, "head").await;
            observed_once(&pillion, operation, "none", "head").await;
        }
    }
}

/// Before any of an answer goes out: a stream's first event, what a search is stored of, an error that may be hidden.
#[tokio::test]
async fn while_the_answer_is_held() {
    for leaves in WAYS {
        for (preset, target, operation, answer) in [
            ("openai", CHAT, "chat", Answer::chunked(200, &SSE, &["data: {}\n\n"])),
            ("upstash-vector", "/query", "search", Answer::ok("[12345678]")),
            ("openai", CHAT, "chat", Answer::status(503, "[12345678]")),
        ] {
            let upstream = Upstream::start().await;
            let pillion = Pillion::route(preset, &upstream, &[]).await;
            let length = answer.len() - 8;
            upstream.push(answer.cut_with(length, Step::Hang));
            let mut client = pillion.connect().await;
            client.ask("POST", target, &[], BODY).await;
            upstream.seen(1).await;
            cancels(leaves, client, &upstream, 0, "held").await;
            observed_once(&pillion, operation, "none", "held").await;
            assert_eq!(upstream.connections(), 1, "it is not attempted again");
        }
    }
}

#[tokio::test]
async fn while_the_answer_streams() {
    for leaves in WAYS {
        let upstream = Upstream::start().await;
        let pillion = Pillion::route("openai", &upstream, &[]).await;
        let (feed, answer) = Answer::fed(200, &SSE);
        upstream.push(answer);
        let mut client = pillion.connect().await;
        client.ask("POST", CHAT, &[], BODY).await;
        assert_eq!(client.head().await.unwrap().status, 200);
        feed.send(Answer::chunk("data: 1\n\n")).unwrap();
        client.take(14).await;
        cancels(leaves, client, &upstream, 0, "stream").await;
        observed_once(&pillion, "chat", "2xx", "stream").await;
    }
}

/// The upstream sends faster than the client reads, so that Pillion is waiting to write when the client leaves.
#[tokio::test]
async fn while_the_answer_is_stuck_behind_a_client_that_does_not_read() {
    for leaves in [Leaves::Close, Leaves::Reset] {
        let upstream = Upstream::start().await;
        let pillion = Pillion::route("openai", &upstream, &[]).await;
        upstream.push(Answer::with(200, &SSE, "x".repeat(20_000_000)));
        let mut client = pillion.connect().await;
        client.ask("POST", CHAT, &[], BODY).await;
        assert_eq!(client.head().await.unwrap().status, 200);
        cancels(leaves, client, &upstream, 0, "stuck").await;
        observed_once(&pillion, "chat", "2xx", "stuck").await;
    }
}

#[tokio::test]
async fn during_back_off_no_further_attempt_is_made() {
    for leaves in WAYS {
        for (preset, target, operation) in [("openai", CHAT, "chat"), ("upstash-vector", "/query", "search")]
        {
            let upstream =
                Upstream::answering(|_| Answer::with(503, &[("retry-after-ms", "500")], "{}")).await;
            let pillion = Pillion::route(preset, &upstream, &[]).await;
            let mut client = pillion.connect().await;
            client.ask("POST", target, &[], BODY).await;
            pillion.metric_is("pillion_retries_total", &[("reason", "status")], 1.0).await;
            let left = Moment::now();
            let half = leaves.leave(client).await;
            observed_once(&pillion, operation, "none", "back-off").await;
            assert!(Moment::now().fairly_since(left) < LIMIT, "{leaves:?}");
            // Long after the back-off would have ended, nothing has come.
            advance(Duration::from_secs(5)).await;
            assert_eq!(pillion.get("/unrelated").await.status, 503);
            let seen = upstream.requests();
            assert_eq!(seen.iter().filter(|request| request.target == target).count(), 1, "{leaves:?}");
            drop(half);
        }
    }
}

#[tokio::test]
async fn in_a_search_that_nobody_else_waits_for() {
    for leaves in WAYS {
        let upstream = Upstream::answering(|_| Answer::hang()).await;
        let pillion = Pillion::route("upstash-vector", &upstream, &[]).await;
        let mut client = pillion.connect().await;
        client.ask("POST", "/query", &[], BODY).await;
        upstream.seen(1).await;
        cancels(leaves, client, &upstream, 0, "search").await;
        observed_once(&pillion, "search", "none", "search").await;
    }
}

/// Whoever began a shared search may leave; the last one to leave ends it.
#[tokio::test]
async fn a_shared_search_ends_with_its_last_client() {
    let upstream = Upstream::answering(|_| Answer::hang()).await;
    let pillion = Pillion::route("upstash-vector", &upstream, &[]).await;
    let mut clients = Vec::new();
    for number in 1..=3 {
        let mut client = pillion.connect().await;
        client.ask("POST", "/query", &[], BODY).await;
        pillion.metric_is("pillion_in_flight", &[("operation", "search")], f64::from(number)).await;
        upstream.seen(1).await;
        clients.push(client);
    }
    let last = clients.pop().unwrap();
    drop(clients);
    pillion.metric_is("pillion_client_gone_total", &[("operation", "search")], 2.0).await;
    assert_eq!((upstream.count(), upstream.connections()), (1, 1));
    cancels(Leaves::Close, last, &upstream, 0, "the last one").await;
    pillion.metric_is("pillion_client_gone_total", &[("operation", "search")], 3.0).await;
    pillion.metric_is("pillion_in_flight", &[], 0.0).await;
}

/// A write is seen to its end, so that the fences know its outcome.
#[tokio::test]
async fn a_write_goes_on_without_its_client() {
    let upstream = Upstream::start().await;
    let pillion = Pillion::route("upstash-vector", &upstream, &["retry: {base: 1ms}"]).await;
    let gate = Gate::new();
    upstream.push(Answer::status(503, "{}").held(&gate));
    let mut client = pillion.connect().await;
    client.ask("POST", "/upsert", &[], r#"{"id":"a"}"#).await;
    upstream.seen(1).await;
    drop(client);
    pillion.metric_is("pillion_client_gone_total", &[("operation", "write")], 1.0).await;
    gate.open();
    // Its answer is waited for, but it is not sent once more: a newer write may have passed it meanwhile.
    pillion.metric_is("pillion_retries_not_made_total", &[("reason", "abandoned")], 1.0).await;
    assert_eq!(upstream.count(), 1);
    pillion.metric_is("pillion_requests_total", &[("operation", "write"), ("status", "none")], 1.0).await;
    pillion.metric_is("pillion_in_flight", &[], 0.0).await;
}

/// A client that does not wait for an answer at all has its write made nevertheless.
#[tokio::test]
async fn a_write_whose_client_leaves_at_once_is_made() {
    for leaves in [Leaves::Fin, Leaves::Close] {
        let upstream = Upstream::answering(|_| Answer::ok("{}")).await;
        let pillion = Pillion::route("upstash-vector", &upstream, &[]).await;
        for number in 1..=20 {
            let mut client = pillion.connect().await;
            client.ask("POST", "/upsert", &[], r#"{"id":"a"}"#).await;
            let half = leaves.leave(client).await;
            upstream.seen(number).await;
            drop(half);
        }
    }
}
