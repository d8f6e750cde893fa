//! A client that sends the bytes it is given and takes apart what comes back.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::within;

/// A response as it arrived.
#[derive(Clone, Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    /// `HTTP/1.1`
    pub(crate) version: String,
    /// Names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    /// Without chunk framing; as much as came.
    pub(crate) body: Vec<u8>,
    /// Its end was reached by its own framing, not by a broken connection.
    pub(crate) complete: bool,
}

impl Response {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        self.headers.iter().filter(|(known, _)| known == name).map(|(_, value)| value.as_str()).collect()
    }

    /// `Cache-Status`, or nothing.
    pub(crate) fn cache(&self) -> &str {
        self.header("cache-status").unwrap_or("")
    }

    pub(crate) fn is_hit(&self) -> bool {
        self.cache().starts_with("pillion; hit")
    }

    /// Whether it says that it is this many seconds old, or as many more as a busy machine may have taken.
    pub(crate) fn has_age(&self, seconds: u64) -> bool {
        let age = self.header("age").and_then(|age| age.parse().ok());
        age.is_some_and(|age: u64| (seconds..seconds + 3).contains(&age))
    }

    /// How many seconds more the hit says that it may be used.
    pub(crate) fn ttl(&self) -> Option<u64> {
        self.cache().strip_prefix("pillion; hit; ttl=")?.parse().ok()
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.text()))
    }
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) stream: TcpStream,
    buffer: Vec<u8>,
}

impl Client {
    pub(crate) async fn connect(addr: SocketAddr) -> Self {
        let stream = TcpStream::connect(addr).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, buffer: Vec::new() }
    }

    /// Bytes as they are. A connection that the other side has closed is no error here: reading tells.
    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = within("room to send", self.stream.write_all(bytes.as_ref())).await;
    }

    /// Sends a well-formed request, with `Host` and `Content-Length` where the headers name none.
    pub(crate) async fn ask(
        &mut self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: impl AsRef<[u8]>,
    ) {
        self.send(request(method, target, headers, body.as_ref())).await;
    }

    /// Sends a request and reads its response.
    pub(crate) async fn exchange(
        &mut self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: impl AsRef<[u8]>,
    ) -> Response {
        self.ask(method, target, headers, body).await;
        self.read(method == "HEAD").await
    }

    /// The next response.
    pub(crate) async fn response(&mut self) -> Response {
        self.read(false).await
    }

    /// The next response's status and fields; what follows stays unread. `None`: the connection ended first.
    pub(crate) async fn head(&mut self) -> Option<Response> {
        let end = loop {
            if let Some(at) = memchr::memmem::find(&self.buffer, b"\r\n\r\n") {
                break at + 4;
            }
            if !self.more().await {
                return None;
            }
        };
        let head = String::from_utf8_lossy(&self.buffer[..end - 4]).into_owned();
        self.buffer.drain(..end);
        let mut lines = head.split("\r\n");
        let mut first = lines.next().unwrap().split(' ');
        let version = first.next().unwrap().to_owned();
        let status = first.next().unwrap().parse().unwrap();
        let headers = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        Some(Response { status, version, headers, body: Vec::new(), complete: false })
    }

    /// What follows a head that was read. To a HEAD request nothing does.
    pub(crate) async fn content(&mut self, response: &mut Response, to_head: bool) {
        let length = response.header("content-length").map(|text| text.parse::<usize>().unwrap());
        if to_head || matches!(response.status, 100..=199 | 204 | 304) {
            response.complete = true;
        } else if response.header("transfer-encoding").is_some_and(|coding| coding.contains("chunked")) {
            loop {
                if let Some((body, used)) = dechunk(&self.buffer) {
                    self.buffer.drain(..used);
                    (response.body, response.complete) = (body, true);
                    return;
                }
                if !self.more().await {
                    response.body = dechunk_partial(&std::mem::take(&mut self.buffer));
                    return;
                }
            }
        } else if let Some(length) = length {
            while self.buffer.len() < length && self.more().await {}
            let have = length.min(self.buffer.len());
            response.body = self.buffer.drain(..have).collect();
            response.complete = have == length;
        } else {
            while self.more().await {}
            response.body = std::mem::take(&mut self.buffer);
            response.complete = true;
        }
    }

    async fn read(&mut self, to_head: bool) -> Response {
        let mut response = self.head().await.expect("the connection ended before a response");
        self.content(&mut response, to_head).await;
        response
    }

    /// Waits for the end of the connection; what came before it is returned.
    pub(crate) async fn end(&mut self) -> Vec<u8> {
        while self.more().await {}
        std::mem::take(&mut self.buffer)
    }

    /// Waits until at least so many further bytes are here, unless the connection ends; returns and takes all.
    pub(crate) async fn take(&mut self, least: usize) -> Vec<u8> {
        while self.buffer.len() < least && self.more().await {}
        std::mem::take(&mut self.buffer)
    }

    /// Reads on. `false`: the connection has ended, by FIN or by RST.
    async fn more(&mut self) -> bool {
        let read = within("bytes from Pillion", self.stream.read_buf(&mut self.buffer)).await;
        matches!(read, Ok(1..))
    }
}

/// One exchange on a connection of its own.
pub(crate) async fn exchange(
    addr: SocketAddr,
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
    body: impl AsRef<[u8]>,
) -> Response {
    Client::connect(addr).await.exchange(method, target, headers, body).await
}

/// The bytes of a well-formed request.
pub(crate) fn request(method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let has = |name: &str| headers.iter().any(|(known, _)| known.eq_ignore_ascii_case(name));
    let mut head = format!("{method} {target} HTTP/1.1\r\n");
    if !has("host") {
        head += "host: 127.0.0.1\r\n";
    }
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    if !has("content-length") && !has("transfer-encoding") && (!body.is_empty() || method == "POST") {
        head += &format!("content-length: {}\r\n", body.len());
    }
    [head.as_bytes(), b"\r\n", body].concat()
}

/// The content of complete chunked bytes, and how many bytes it took; `None` while the last chunk is missing.
pub(crate) fn dechunk(bytes: &[u8]) -> Option<(Vec<u8>, usize)> {
    let (mut body, mut at) = (Vec::new(), 0);
    loop {
        let line = memchr::memmem::find(&bytes[at..], b"\r\n")?;
        let size = std::str::from_utf8(&bytes[at..at + line]).unwrap().split(';').next().unwrap().trim();
        let size = usize::from_str_radix(size, 16).unwrap_or_else(|_| panic!("chunk size {size:?}"));
        at += line + 2;
        if size == 0 {
            // Trailers, then an empty line.
            loop {
                let line = memchr::memmem::find(&bytes[at..], b"\r\n")?;
                at += line + 2;
                if line == 0 {
                    return Some((body, at));
                }
            }
        }
        body.extend_from_slice(bytes.get(at..at + size)?);
        bytes.get(at + size..at + size + 2)?;
        at += size + 2;
    }
}

/// The content of as many chunks, the last maybe in part, as are here.
pub(crate) fn dechunk_partial(bytes: &[u8]) -> Vec<u8> {
    let (mut body, mut at) = (Vec::new(), 0);
    while let Some(line) = memchr::memmem::find(&bytes[at..], b"\r\n") {
        let size = std::str::from_utf8(&bytes[at..at + line]).unwrap_or("").split(';').next().unwrap_or("");
        let Ok(size) = usize::from_str_radix(size.trim(), 16) else { break };
        at += line + 2;
        body.extend_from_slice(&bytes[at..(at + size).min(bytes.len())]);
        if at + size + 2 > bytes.len() {
            break;
        }
        at += size + 2;
    }
    body
}
