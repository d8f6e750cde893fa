//! Upstreams that end connections while they are being used again: HTTP/1.1 that closes them, HTTP/2 that says GOAWAY.

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use h2::server::SendResponse;
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use super::load::{SEARCH, calls, content, echo};
use super::{row, sized};
use crate::support::secure::{Authority, accept};
use crate::support::{Answer, Pillion, Upstream};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_kept_connection_is_closed_at_the_moment_of_reuse() {
    let total = sized(100_000, 3_000);
    let (used, closed) = (Mutex::new(HashSet::new()), Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&closed);
    // Once a second request has arrived on a connection, it ends without a byte: by FIN and by RST in turns.
    let upstream = Upstream::answering(move |seen| {
        if used.lock().unwrap().insert(seen.connection) {
            return echo(seen);
        }
        count.fetch_add(1, SeqCst);
        if seen.connection % 2 == 0 { Answer::close() } else { Answer::reset() }
    })
    .await;
    upstream.forgets();
    let yaml =
        "routes: [{name: r, path: /, upstream: '${UP}', preset: upstash-vector, cache: {settle: 0s}}]\n";
    let pillion = Pillion::start(yaml, &[("UP", &upstream.url())]).await;
    let failed = calls(pillion.addr, &[SEARCH], total, 32).await;
    let closed = closed.load(SeqCst);
    println!("{total} searches, {closed} connections closed at reuse, such as {:?}", failed.first());
    assert!(closed > total / 3, "{closed}: connections were hardly kept at all");
    let what = format!("{total} searches, each kept connection closed at reuse: failures shown");
    row(&what, "0", failed.len(), failed.is_empty());
}

/// Streams of a connection before it says GOAWAY.
const STREAMS: usize = 50;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_goaway_every_fifty_streams() {
    let total = sized(100_000, 2_000);
    let authority = Authority::new();
    let goaways = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&goaways);
    let address =
        accept(authority.acceptor("localhost", &["h2"]), move |_, stream| serve(stream, Arc::clone(&count)))
            .await;
    let yaml = format!(
        "tls: {{ca: '{}'}}\nroutes: [{{name: r, path: /, upstream: 'https://localhost:{}', preset: upstash-vector, \
         cache: {{settle: 0s}}}}]\n",
        authority.file(),
        address.port()
    );
    let pillion = Pillion::start(&yaml, &[]).await;
    let failed = calls(pillion.addr, &[SEARCH], total, 32).await;
    let goaways = goaways.load(SeqCst);
    println!("{total} searches, {goaways} GOAWAYs, such as {:?}", failed.first());
    assert!(goaways > total / STREAMS / 4, "{goaways} GOAWAYs");
    let what = format!("{total} searches, GOAWAY every {STREAMS} streams: failures shown");
    row(&what, "0", failed.len(), failed.is_empty());
}

async fn serve(stream: TlsStream<TcpStream>, goaways: Arc<AtomicUsize>) {
    let Ok(mut connection) = h2::server::handshake(stream).await else { return };
    let mut streams = 0;
    while let Some(Ok((request, respond))) = connection.accept().await {
        streams += 1;
        if streams == STREAMS {
            goaways.fetch_add(1, SeqCst);
            connection.graceful_shutdown();
        }
        tokio::spawn(answer(request.into_body(), respond));
    }
    // It ends as suddenly as h2's and hyper's servers make it: the other side may find its writes refused before it has
    // read the GOAWAY.
}

async fn answer(mut body: h2::RecvStream, mut respond: SendResponse<Bytes>) -> Option<()> {
    let mut request = Vec::new();
    while let Some(data) = body.data().await {
        let data = data.ok()?;
        request.extend_from_slice(&data);
        body.flow_control().release_capacity(data.len()).ok()?;
    }
    let number = serde_json::from_slice::<serde_json::Value>(&request).ok()?["n"].to_string();
    let head = http::Response::builder().header("content-type", "application/json").body(()).unwrap();
    let mut stream = respond.send_response(head, false).ok()?;
    stream.send_data(content(&number).into(), true).ok()
}
