//! HTTP/2 frames by hand (RFC 9113 section 4.1), for what no server does by itself.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

pub(crate) fn frame(kind: u8, flags: u8, stream: u32, content: &[u8]) -> Vec<u8> {
    let length = u32::try_from(content.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), content].concat()
}

/// 200 without content: `:status: 200` is entry 8 of the static table (RFC 7541 appendix A).
pub(crate) fn ok(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, stream, &[0x88])
}

/// GOAWAY behind this stream.
pub(crate) fn goaway(last: u32, error: u32) -> Vec<u8> {
    frame(GOAWAY, 0, 0, &[last.to_be_bytes(), error.to_be_bytes()].concat())
}

/// Reads the client's preface, and says ours.
pub(crate) async fn greet(stream: &mut TlsStream<TcpStream>) {
    let mut preface = [0; 24];
    stream.read_exact(&mut preface).await.unwrap();
    let _ = stream.write_all(&frame(SETTINGS, 0, 0, &[])).await;
}

/// The next frame's kind, flags and stream; `None` when there is no more.
pub(crate) async fn next(stream: &mut TlsStream<TcpStream>) -> Option<(u8, u8, u32)> {
    let mut head = [0; 9];
    stream.read_exact(&mut head).await.ok()?;
    let mut content = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
    stream.read_exact(&mut content).await.ok()?;
    Some((head[3], head[4], u32::from_be_bytes([head[5], head[6], head[7], head[8]])))
}

/// Reads up to the end of the next request; tells its stream.
pub(crate) async fn next_request(stream: &mut TlsStream<TcpStream>) -> Option<u32> {
    loop {
        let (kind, flags, id) = next(stream).await?;
        if matches!(kind, DATA | HEADERS) && flags & END_STREAM != 0 {
            return Some(id);
        }
    }
}
