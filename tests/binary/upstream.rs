//! An upstream whose answers the test holds back.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};

/// Answers every request with a stream of one event; the last one comes when the test says so.
#[derive(Debug)]
pub(crate) struct Streams {
    pub(crate) address: SocketAddr,
    /// Streams begun.
    begun: Arc<(AtomicUsize, Notify)>,
    finish: watch::Sender<bool>,
}

/// What each client reads before the test ends the streams.
pub(crate) const FIRST: &str = "data: first\n\n";
/// What comes then.
pub(crate) const LAST: &str = "data: [DONE]\n\n";

impl Streams {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let begun = Arc::new((AtomicUsize::new(0), Notify::new()));
        let finish = watch::Sender::new(false);
        let (counted, told) = (Arc::clone(&begun), finish.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer(stream, Arc::clone(&counted), told.subscribe()));
            }
        });
        Self { address, begun, finish }
    }

    /// Ends every stream, now and from now on.
    pub(crate) fn finish(&self) {
        self.finish.send_replace(true);
    }

    /// Waits until so many streams have begun.
    pub(crate) async fn begun(&self, count: usize) {
        loop {
            let changed = self.begun.1.notified();
            if self.begun.0.load(SeqCst) >= count {
                return;
            }
            changed.await;
        }
    }
}

async fn answer(mut stream: TcpStream, begun: Arc<(AtomicUsize, Notify)>, mut finish: watch::Receiver<bool>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let Ok(byte) = stream.read_u8().await else { return };
        head.push(byte);
    }
    let chunk = |text: &str| format!("{:x}\r\n{text}\r\n", text.len());
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
    if stream.write_all(format!("{head}{}", chunk(FIRST)).as_bytes()).await.is_err() {
        return;
    }
    begun.0.fetch_add(1, SeqCst);
    begun.1.notify_waiters();
    if finish.wait_for(|finish| *finish).await.is_ok() {
        let _ = stream.write_all(format!("{}0\r\n\r\n", chunk(LAST)).as_bytes()).await;
    }
}

/// A client that has asked for a stream.
#[derive(Debug)]
pub(crate) struct Reader {
    stream: TcpStream,
    read: Vec<u8>,
}

impl Reader {
    /// Sends the request and reads up to the first event.
    pub(crate) async fn begin(address: SocketAddr) -> Self {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET /openai/v1/stream HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        let mut reader = Self { stream, read: Vec::new() };
        while !reader.text().contains(FIRST) {
            assert!(reader.more().await, "cut before its first event: {}", reader.text());
        }
        reader
    }

    /// Reads to the end of the answer; tells whether it was a proper one.
    pub(crate) async fn end(mut self) -> bool {
        while !self.text().ends_with("\r\n0\r\n\r\n") {
            if !self.more().await {
                return false;
            }
        }
        self.text().contains(LAST)
    }

    async fn more(&mut self) -> bool {
        matches!(self.stream.read_buf(&mut self.read).await, Ok(1..))
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.read).into_owned()
    }
}
