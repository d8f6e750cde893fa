//! What the fault relay of `tests/support` does on the wire: the tests that use it believe it.

use std::net::SocketAddr;
use std::time::Duration;

use crate::support::relay::{After, Does, Door, Fault, Relay, refusing, unanswering};
use crate::support::{Answer, Client, Upstream, advance, within};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const EVENTS: [&str; 3] = ["data: 1\n\n", "data: 2\n\n", "data: 3\n\n"];

async fn upstream() -> (Upstream, Vec<u8>) {
    let stream = || Answer::chunked(200, &[("content-type", "text/event-stream")], &EVENTS);
    let mut bytes = Vec::new();
    for step in stream().0 {
        let crate::support::Step::Write(written) = step else { continue };
        bytes.extend(written);
    }
    (Upstream::answering(move |_| stream()).await, bytes)
}

/// Everything that comes of one request, and whether its end was a reset.
async fn asked(addr: SocketAddr) -> (Vec<u8>, bool) {
    let mut client = Client::connect(addr).await;
    client.ask("GET", "/", &[], "").await;
    let mut got = Vec::new();
    let end = within("the end", client.stream.read_to_end(&mut got)).await;
    (got, end.is_err())
}

#[tokio::test]
async fn an_answer_is_cut_at_the_exact_byte_and_at_the_exact_event() {
    let (upstream, whole) = upstream().await;
    let event = |number: usize| {
        let text = std::str::from_utf8(&whole).unwrap();
        text.find(EVENTS[number]).unwrap() + EVENTS[number].len()
    };
    for (after, length) in [
        (After::Bytes(0), 0),
        (After::Bytes(1), 1),
        (After::Bytes(whole.len() - 1), whole.len() - 1),
        (After::Bytes(whole.len()), whole.len()),
        (After::Events(0), 0),
        (After::Events(1), event(0)),
        (After::Events(3), event(2)),
    ] {
        for (does, reset) in [(Does::Close, false), (Does::Reset, true)] {
            let relay = Relay::before(upstream.addr, move |_| Some(Fault(after, does))).await;
            let before = upstream.count();
            let (got, was_reset) = asked(relay.addr).await;
            // A reset may overtake what was written before it.
            assert!(whole.starts_with(&got) && (reset || got.len() == length), "{after:?} {does:?}: {got:?}");
            assert!(got.len() <= length, "{after:?} {does:?}");
            assert_eq!((was_reset, upstream.count()), (reset, before + 1), "{after:?} {does:?}");
        }
    }
}

/// However the upstream's bytes are dealt out.
#[tokio::test]
async fn an_event_ends_across_two_parts() {
    let upstream = Upstream::start().await;
    let (feed, answer) = Answer::fed(200, &[]);
    upstream.push(answer);
    let relay = Relay::before(upstream.addr, |_| Some(Fault(After::Events(1), Does::Close))).await;
    let mut client = Client::connect(relay.addr).await;
    client.ask("GET", "/", &[], "").await;
    client.head().await.unwrap();
    feed.send(b"data: 1\n".to_vec()).unwrap();
    assert_eq!(client.take(8).await, b"data: 1\n");
    feed.send(b"\ndata: 2\n\n".to_vec()).unwrap();
    assert_eq!(client.end().await, b"\n");
}

#[tokio::test]
async fn faults_come_by_request_and_doors_by_connection() {
    let (upstream, _) = upstream().await;
    let faults = |number| (number == 1).then_some(Fault(After::Bytes(0), Does::Close));
    let doors = |number| if number == 1 { Door::Close } else { Door::Open };
    let relay = Relay::start(upstream.addr, doors, faults).await;
    let mut client = Client::connect(relay.addr).await;
    assert!(client.exchange("GET", "/", &[], "").await.complete);
    client.ask("GET", "/", &[], "").await;
    assert_eq!(client.end().await, b"", "the second request");
    assert_eq!(Client::connect(relay.addr).await.end().await, b"", "the second connection");
    let mut client = Client::connect(relay.addr).await;
    assert!(client.exchange("GET", "/", &[], "").await.complete);
    assert_eq!((upstream.count(), upstream.connections()), (3, 2));
}

#[tokio::test]
async fn doors_reset_and_stall() {
    let (upstream, _) = upstream().await;
    let relay = Relay::start(upstream.addr, |_| Door::Reset, |_| None).await;
    let (got, reset) = asked(relay.addr).await;
    assert!(got.is_empty() && reset);
    let relay = Relay::start(upstream.addr, |_| Door::Stall, |_| None).await;
    let mut client = Client::connect(relay.addr).await;
    client.ask("GET", "/", &[], "").await;
    assert!(silent(&mut client).await);
    assert_eq!(upstream.connections(), 0);
}

/// Whether nothing comes for an hour.
async fn silent(client: &mut Client) -> bool {
    let mut byte = [0];
    tokio::select! {
        read = client.stream.read(&mut byte) => panic!("{read:?}"),
        () = async { for _ in 0..10 { advance(Duration::from_secs(360)).await; } } => true,
    }
}

#[tokio::test]
async fn a_stall_keeps_the_connection_and_a_half_close_reads_on() {
    let (upstream, _) = upstream().await;
    let relay = Relay::before(upstream.addr, |_| Some(Fault(After::Bytes(10), Does::Stall))).await;
    let mut client = Client::connect(relay.addr).await;
    client.ask("GET", "/", &[], "").await;
    assert_eq!(client.take(10).await, b"HTTP/1.1 2");
    assert!(silent(&mut client).await);
    assert!(!upstream.is_closed(0));
    drop(client);
    upstream.closed(0).await;

    let relay = Relay::before(upstream.addr, |_| Some(Fault(After::Bytes(10), Does::HalfClose))).await;
    let mut client = Client::connect(relay.addr).await;
    client.ask("GET", "/", &[], "").await;
    assert_eq!(client.end().await, b"HTTP/1.1 2");
    // Whoever has closed for good answers such bytes with a reset, and the next ones find no connection.
    for _ in 0..3 {
        tokio::task::yield_now().await;
        client.stream.write_all(b"more").await.unwrap();
    }
    assert!(!upstream.is_closed(1));
}

#[tokio::test]
async fn a_delay_and_a_drip_take_their_time() {
    let (upstream, whole) = upstream().await;
    let relay = Relay::before(upstream.addr, |number| {
        let time = Duration::from_secs(60);
        Some(Fault(After::Bytes(10), if number == 0 { Does::Delay(time) } else { Does::Drip(time) }))
    })
    .await;
    let mut client = Client::connect(relay.addr).await;
    client.ask("GET", "/", &[], "").await;
    assert_eq!(client.take(10).await, &whole[..10]);
    advance(Duration::from_secs(59)).await;
    assert!(client.stream.try_read(&mut [0]).is_err());
    advance(Duration::from_secs(2)).await;
    assert_eq!(client.take(whole.len() - 10).await, &whole[10..]);

    client.ask("GET", "/", &[], "").await;
    assert_eq!(client.take(10).await, &whole[..10]);
    for byte in &whole[10..15] {
        assert!(client.stream.try_read(&mut [0]).is_err());
        advance(Duration::from_secs(61)).await;
        assert_eq!(client.take(1).await, [*byte]);
    }
}

#[tokio::test]
async fn ports_that_refuse_and_ports_that_do_not_answer() {
    let (_socket, address) = refusing();
    let refused = TcpStream::connect(address).await.unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    let (_listener, _waiting, address) = unanswering().await;
    tokio::select! {
        made = TcpStream::connect(address) => panic!("{made:?}"),
        () = async { for _ in 0..100 { tokio::task::yield_now().await; } } => {}
    }
}
