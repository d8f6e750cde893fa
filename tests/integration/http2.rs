//! HTTP/2 upstreams: one connection for as many as it takes, what its end says about retrying, and how a silent end is found out.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::support::frames::{PING, RST_STREAM, SETTINGS, frame, goaway, greet, next, next_request, ok};
use crate::support::secure::{Authority, Http2, accept, whole};
use crate::support::{Gate, Pillion, advance, client, eventually, within};

const BODY: &str = r#"{"messages":[{"role":"user","content":"a"}]}"#;

/// An answer to the request on this stream.
type Frames = fn(u32) -> Vec<u8>;

/// What an upstream has seen.
#[derive(Default)]
struct Counts {
    connections: AtomicUsize,
    requests: AtomicUsize,
}

/// An HTTP/2 upstream that answers its first request with these frames, and every other with 200.
async fn first_answered_by(authority: &Authority, frames: Frames) -> (SocketAddr, Arc<Counts>) {
    let counts = Arc::new(Counts::default());
    let counted = Arc::clone(&counts);
    let address = accept(authority.acceptor("localhost", &["h2"]), move |_, mut stream| {
        let counts = Arc::clone(&counted);
        counts.connections.fetch_add(1, SeqCst);
        async move {
            greet(&mut stream).await;
            while let Some(id) = next_request(&mut stream).await {
                let answer = match counts.requests.fetch_add(1, SeqCst) {
                    0 => frames(id),
                    _ => ok(id),
                };
                let _ = stream.write_all(&answer).await;
            }
        }
    })
    .await;
    (address, counts)
}

/// RFC 9113 section 8.7: both mean that the request was not processed, so that even what must not be sent twice is sent.
#[tokio::test]
async fn rfc9113_8_7_what_was_refused_was_never_sent() {
    let refused: Frames = |id| frame(RST_STREAM, 0, id, &7_u32.to_be_bytes());
    let going: Frames = |_| goaway(0, 0);
    // One stream's end is no reason to leave the connection.
    for (what, frames, connections) in [("REFUSED_STREAM", refused, 1), ("GOAWAY", going, 2)] {
        let authority = Authority::new();
        let (address, counts) = first_answered_by(&authority, frames).await;
        let pillion = Pillion::trusting(&authority, "http", "localhost", address).await;
        let response = pillion.post("/once", BODY).await;
        let requests = counts.requests.load(SeqCst);
        assert_eq!((response.status, requests), (200, 2), "{what}: {}", response.text());
        assert_eq!(counts.connections.load(SeqCst), connections, "{what}");
        pillion.metric_is("pillion_retries_total", &[("reason", "never_sent")], 1.0).await;
    }
}

/// What may have been processed is not sent again where that could do harm.
#[tokio::test]
async fn rfc9113_8_7_what_may_have_been_processed_is_another_matter() {
    let internal: Frames = |id| frame(RST_STREAM, 0, id, &2_u32.to_be_bytes());
    let going: Frames = |_| goaway(0, 2);
    for (what, frames) in [("RST_STREAM", internal), ("GOAWAY with an error", going)] {
        for (preset, target, expected) in [("http", "/once", 502), ("openai", "/v1/embeddings", 200)] {
            let authority = Authority::new();
            let (address, counts) = first_answered_by(&authority, frames).await;
            let pillion = Pillion::trusting(&authority, preset, "localhost", address).await;
            let response = pillion.post(target, BODY).await;
            let attempts = if expected == 200 { 2 } else { 1 };
            let requests = counts.requests.load(SeqCst);
            assert_eq!((response.status, requests), (expected, attempts), "{what} {preset}");
        }
    }
}

/// After a graceful GOAWAY what is under way ends, and what comes goes elsewhere.
#[tokio::test]
async fn rfc9113_6_8_a_connection_that_goes_away_is_replaced() {
    let authority = Authority::new();
    let (address, counts) = first_answered_by(&authority, |id| [goaway(id, 0), ok(id)].concat()).await;
    let pillion = Pillion::trusting(&authority, "http", "localhost", address).await;
    for _ in 0..3 {
        assert_eq!(pillion.post("/once", BODY).await.status, 200);
    }
    assert_eq!(counts.requests.load(SeqCst), 3);
    eventually("no retries", async || pillion.metric("pillion_upstream_attempts_total", &[]).await >= 3.0)
        .await;
    assert!(pillion.metric("pillion_retries_total", &[]).await < 0.5);
}

/// Statuses of so many requests, so many at a time.
async fn statuses(pillion: &Pillion, requests: usize, at_a_time: usize) -> Vec<u16> {
    let address = pillion.addr;
    let mut asking = JoinSet::new();
    for worker in 0..at_a_time {
        let share = requests / at_a_time + usize::from(worker < requests % at_a_time);
        asking.spawn(async move {
            let mut statuses = Vec::new();
            for _ in 0..share {
                statuses.push(client::exchange(address, "POST", "/once", &[], BODY).await.status);
            }
            statuses
        });
    }
    within("all answers", asking.join_all()).await.concat()
}

#[tokio::test]
async fn a_burst_on_a_cold_upstream_makes_one_connection() {
    let authority = Authority::new();
    let upstream = Http2::start(authority.acceptor("localhost", &["h2"]), |seen| async move {
        Response::new(whole(seen.body))
    })
    .await;
    let pillion = Pillion::trusting(&authority, "http", "localhost", upstream.address).await;
    assert_eq!(statuses(&pillion, 32, 32).await, [200; 32]);
    assert_eq!((upstream.seen().len(), upstream.connections()), (32, 1));
}

/// RFC 9113 section 5.1.2: beyond what the peer takes at a time, requests go on a further connection.
#[tokio::test]
async fn rfc9113_5_1_2_a_connection_carries_no_more_than_its_peer_takes() {
    let authority = Authority::new();
    let (seen, connections, gate) =
        (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)), Gate::new());
    let (count, made, held) = (Arc::clone(&seen), Arc::clone(&connections), gate.clone());
    let address = accept(authority.acceptor("localhost", &["h2"]), move |_, stream| {
        made.fetch_add(1, SeqCst);
        let (count, held) = (Arc::clone(&count), held.clone());
        async move {
            let handshake =
                h2::server::Builder::new().max_concurrent_streams(2).handshake::<_, Bytes>(stream);
            let Ok(mut connection) = handshake.await else { return };
            while let Some(Ok((_, mut respond))) = connection.accept().await {
                count.fetch_add(1, SeqCst);
                let held = held.clone();
                tokio::spawn(async move {
                    held.wait().await;
                    let _ = respond.send_response(Response::new(()), true);
                });
            }
        }
    })
    .await;
    let pillion = Pillion::trusting(&authority, "http", "localhost", address).await;
    let mut asking = JoinSet::new();
    for _ in 0..5 {
        let to = pillion.addr;
        asking.spawn(async move { client::exchange(to, "POST", "/once", &[], BODY).await.status });
    }
    eventually("all five", async || seen.load(SeqCst) == 5).await;
    assert_eq!(connections.load(SeqCst), 3);
    gate.open();
    assert_eq!(within("all answers", asking.join_all()).await, [200; 5]);
    for _ in 0..5 {
        assert_eq!(pillion.post("/once", BODY).await.status, 200);
    }
    assert_eq!((seen.load(SeqCst), connections.load(SeqCst)), (10, 3), "none refused, none made in vain");
    assert!(pillion.metric("pillion_retries_total", &[]).await < 0.5);
}

/// What the peer takes may change at any time; what the next request goes by is what it said last.
#[tokio::test]
async fn rfc9113_6_5_2_a_peer_may_take_fewer_later_on() {
    let authority = Authority::new();
    let (tell, mut told) = mpsc::unbounded_channel();
    let address = accept(authority.acceptor("localhost", &["h2"]), move |number, mut stream| {
        let tell = tell.clone();
        async move {
            greet(&mut stream).await;
            let id = next_request(&mut stream).await.unwrap();
            if number > 0 {
                let _ = stream.write_all(&ok(id)).await;
            }
            // MAX_CONCURRENT_STREAMS: 1
            let _ = stream.write_all(&frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 1])).await;
            while let Some((kind, ..)) = next(&mut stream).await {
                let _ = tell.send(kind);
            }
        }
    })
    .await;
    let pillion = Pillion::trusting(&authority, "http", "localhost", address).await;
    let mut first = pillion.connect().await;
    first.ask("POST", "/once", &[], BODY).await;
    let acknowledged = async { while told.recv().await != Some(SETTINGS) {} };
    within("the acknowledgement", acknowledged).await;
    assert_eq!(within("the second", pillion.post("/once", BODY)).await.status, 200);
}

/// Nothing is known of what it would have taken, and nothing was sent.
#[tokio::test]
async fn a_connection_that_ends_before_its_settings_is_told_at_once() {
    let authority = Authority::new();
    let address = accept(authority.acceptor("localhost", &["h2"]), |_, stream| async { drop(stream) }).await;
    let pillion = Pillion::trusting(&authority, "http", "localhost", address).await;
    assert_eq!(within("the failure", pillion.post("/once", BODY)).await.status, 502);
}

/// Who waits for another's connection is not left alone when that one leaves, nor with its failure when it fails.
#[tokio::test]
async fn a_first_that_leaves_or_fails_strands_nobody() {
    let authority = Authority::new();
    let upstream = Http2::start(authority.acceptor("localhost", &["h2"]), |seen| async move {
        Response::new(whole(seen.body))
    })
    .await;
    // Before the upstream, somebody who keeps the first connections waiting.
    let door = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let pillion = Pillion::trusting(&authority, "http", "localhost", door.local_addr().unwrap()).await;
    let mut first = pillion.connect().await;
    first.ask("POST", "/once", &[], BODY).await;
    let (kept, _) = within("the first connection", door.accept()).await.unwrap();
    let (address, inner) = (pillion.addr, upstream.address);
    let others: Vec<_> = (0..4)
        .map(|_| {
            tokio::spawn(async move { client::exchange(address, "POST", "/once", &[], BODY).await.status })
        })
        .collect();
    pillion.metric_is("pillion_in_flight", &[], 5.0).await;
    drop(first);
    let (failing, _) = within("the connection of the second", door.accept()).await.unwrap();
    drop((kept, failing));
    tokio::spawn(async move {
        while let Ok((mut outside, _)) = door.accept().await {
            tokio::spawn(async move {
                let mut inside = tokio::net::TcpStream::connect(inner).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut outside, &mut inside).await;
            });
        }
    });
    for other in others {
        assert_eq!(within("an answer", other).await.unwrap(), 200);
    }
    assert_eq!((upstream.seen().len(), upstream.connections()), (4, 1));
}

/// Streams of a connection, before the upstream says GOAWAY.
const STREAMS: usize = 50;

/// What is behind the last stream was never sent, so that even what must not be sent twice is answered.
#[tokio::test]
async fn rfc9113_6_8_goaway_every_50_streams_is_seen_by_nobody() {
    let authority = Authority::new();
    let served = Arc::new(AtomicUsize::new(0));
    let (count, connections) = (Arc::clone(&served), Arc::new(AtomicUsize::new(0)));
    let made = Arc::clone(&connections);
    let address = accept(authority.acceptor("localhost", &["h2"]), move |_, mut stream| {
        let count = Arc::clone(&count);
        made.fetch_add(1, SeqCst);
        async move {
            greet(&mut stream).await;
            let mut requests = 0;
            // Those behind the last are not looked at.
            while let Some(id) = next_request(&mut stream).await {
                requests += 1;
                if requests == STREAMS {
                    let _ = stream.write_all(&goaway(id, 0)).await;
                }
                if requests <= STREAMS {
                    count.fetch_add(1, SeqCst);
                    let _ = stream.write_all(&ok(id)).await;
                }
            }
        }
    })
    .await;
    let pillion = Pillion::trusting(&authority, "http", "localhost", address).await;
    let statuses = statuses(&pillion, 2000, 16).await;
    assert_eq!(statuses.iter().filter(|status| **status != 200).count(), 0);
    assert_eq!(served.load(SeqCst), 2000, "none twice");
    let made = connections.load(SeqCst);
    assert!((40..=44).contains(&made), "{made} connections");
}

/// The same by a server that goes in two steps (RFC 9113 section 6.8), and does whatever comes in between.
#[tokio::test]
async fn rfc9113_6_8_a_server_that_goes_gracefully_is_missed_by_nobody() {
    let authority = Authority::new();
    let served = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&served);
    let address = accept(authority.acceptor("localhost", &["h2"]), move |_, stream| {
        let count = Arc::clone(&count);
        async move {
            let Ok(mut connection) = h2::server::handshake(stream).await else { return };
            let mut requests = 0;
            while let Some(Ok((_, mut respond))) = connection.accept().await {
                requests += 1;
                count.fetch_add(1, SeqCst);
                if requests == STREAMS {
                    connection.graceful_shutdown();
                }
                let mut content = respond.send_response(Response::new(()), false).unwrap();
                let _ = content.send_data(Bytes::from_static(b"{}"), true);
            }
        }
    })
    .await;
    let pillion = Pillion::trusting(&authority, "http", "localhost", address).await;
    let statuses = statuses(&pillion, 1000, 16).await;
    assert_eq!(statuses.iter().filter(|status| **status != 200).count(), 0);
    assert_eq!(served.load(SeqCst), 1000, "none twice");
}

/// Who times out on a connection that has been replaced leaves the one in its place alone.
#[tokio::test]
async fn a_late_failure_on_an_old_connection_costs_no_new_one() {
    let authority = Authority::new();
    let connections = Arc::new(AtomicUsize::new(0));
    let made = Arc::clone(&connections);
    let address = accept(authority.acceptor("localhost", &["h2"]), move |number, stream| {
        made.fetch_add(1, SeqCst);
        async move {
            let Ok(mut connection) = h2::server::handshake(stream).await else { return };
            let mut held = None;
            while let Some(Ok((_, mut respond))) = connection.accept().await {
                if number == 0 && held.is_none() {
                    held = Some(respond);
                    connection.graceful_shutdown();
                } else {
                    respond.send_response(Response::new(()), true).unwrap();
                }
            }
        }
    })
    .await;
    let pillion = Pillion::trusting(&authority, "http", "localhost", address).await;
    let mut late = pillion.connect().await;
    late.ask("POST", "/once", &[], BODY).await;
    eventually("the second connection", async || {
        assert_eq!(pillion.post("/once", BODY).await.status, 200);
        connections.load(SeqCst) == 2
    })
    .await;
    let mut timed_out = Box::pin(late.response());
    let response = loop {
        tokio::select! {
            biased;
            response = &mut timed_out => break response,
            // In between, pings are answered.
            _ = pillion.metrics() => advance(Duration::from_secs(1)).await,
        }
    };
    assert_eq!(response.status, 504);
    assert_eq!(pillion.post("/once", BODY).await.status, 200);
    assert_eq!(connections.load(SeqCst), 2);
}

/// Up to the last stream of GOAWAY all may have been processed, however the connection ends then.
#[tokio::test]
async fn rfc9113_6_8_what_is_before_the_last_stream_is_not_sent_again() {
    let authority = Authority::new();
    let requests = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&requests);
    let address = accept(authority.acceptor("localhost", &["h2"]), move |_, mut stream| {
        let count = Arc::clone(&count);
        async move {
            greet(&mut stream).await;
            // The first is answered, so that the connection has been used before.
            let id = next_request(&mut stream).await.unwrap();
            let _ = stream.write_all(&ok(id)).await;
            let Some(id) = next_request(&mut stream).await else { return };
            count.fetch_add(1, SeqCst);
            let _ = stream.write_all(&goaway(id, 0)).await;
            let _ = stream.shutdown().await;
        }
    })
    .await;
    let pillion = Pillion::trusting(&authority, "http", "localhost", address).await;
    assert_eq!(pillion.post("/once", BODY).await.status, 200);
    assert_eq!(pillion.post("/once", BODY).await.status, 502);
    assert_eq!(requests.load(SeqCst), 1);
}

/// A peer that has gone without a word: what waited for it is attempted elsewhere.
#[tokio::test]
async fn rfc9113_6_7_a_ping_without_an_answer_ends_the_connection() {
    let authority = Authority::new();
    let (tell, mut told) = mpsc::unbounded_channel();
    let address = accept(authority.acceptor("localhost", &["h2"]), move |number, mut stream| {
        let tell = tell.clone();
        async move {
            greet(&mut stream).await;
            let id = next_request(&mut stream).await.unwrap();
            if number > 0 {
                let _ = stream.write_all(&ok(id)).await;
            }
            while let Some((kind, ..)) = next(&mut stream).await {
                if kind == PING {
                    tell.send("ping").unwrap();
                }
            }
            tell.send("end").unwrap();
        }
    })
    .await;
    let pillion = Pillion::trusting(&authority, "openai", "localhost", address).await;
    let mut client = pillion.connect().await;
    client.ask("POST", "/v1/chat/completions", &[], BODY).await;
    pillion.metric_is("pillion_in_flight", &[("operation", "chat")], 1.0).await;
    // The time starts with the connection, which is made at some point of this.
    let pinged = async {
        loop {
            tokio::select! {
                event = told.recv() => break event,
                () = tokio::task::yield_now() => advance(Duration::from_millis(10)).await,
            }
        }
    };
    assert_eq!(within("the ping", pinged).await, Some("ping"));
    advance(Duration::from_millis(10_100)).await;
    assert_eq!(within("the end", told.recv()).await, Some("end"));
    assert_eq!(client.response().await.status, 200);
}
