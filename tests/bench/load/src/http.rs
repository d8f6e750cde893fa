//! As much HTTP/1.1 as the lab's two ends need: heads, lengths, chunks.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// One side of a connection, and what was read ahead of need.
pub(crate) struct Connection {
    stream: TcpStream,
    ahead: Vec<u8>,
    /// How often something was read from the socket.
    pub(crate) reads: u64,
}

/// What the lab reads of a head.
#[derive(Default)]
pub(crate) struct Head {
    /// The first line.
    pub(crate) start: String,
    length: Option<usize>,
    chunked: bool,
    /// The value of `x-bench`, which tells the upstream what to do.
    pub(crate) bench: String,
    /// The value of `cache-status`.
    pub(crate) cache: String,
    request: bool,
}

impl Head {
    fn parse(bytes: &[u8]) -> Self {
        let text = String::from_utf8_lossy(bytes);
        let mut lines = text.split("\r\n");
        let mut head = Self { start: lines.next().unwrap_or_default().to_owned(), ..Self::default() };
        head.request = !head.start.starts_with("HTTP/");
        for (name, value) in lines.filter_map(|line| line.split_once(':')) {
            let value = value.trim();
            if name.eq_ignore_ascii_case("content-length") {
                head.length = value.parse().ok();
            } else if name.eq_ignore_ascii_case("transfer-encoding") {
                head.chunked = value.eq_ignore_ascii_case("chunked");
            } else if name.eq_ignore_ascii_case("x-bench") {
                value.clone_into(&mut head.bench);
            } else if name.eq_ignore_ascii_case("cache-status") {
                value.clone_into(&mut head.cache);
            }
        }
        head
    }

    pub(crate) fn status(&self) -> u16 {
        self.start.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0)
    }

    pub(crate) fn path(&self) -> &str {
        self.start.split(' ').nth(1).unwrap_or_default()
    }
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

fn malformed(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

impl Connection {
    pub(crate) fn new(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        Ok(Self { stream, ahead: Vec::new(), reads: 0 })
    }

    pub(crate) fn to(address: &str) -> io::Result<Self> {
        Self::new(TcpStream::connect(address)?)
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Waits, unless the other side leaves first: that is an error.
    pub(crate) fn pause(&mut self, time: Duration) -> io::Result<()> {
        // Shorter ones are on a beat, which a timeout of the socket would not keep.
        if time < Duration::from_millis(500) {
            std::thread::sleep(time);
            return Ok(());
        }
        self.stream.set_read_timeout(Some(time))?;
        let filled = self.fill();
        self.stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        match filled {
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                Ok(())
            }
            filled => filled,
        }
    }

    fn fill(&mut self) -> io::Result<()> {
        let mut piece = [0; 16 << 10];
        let read = self.stream.read(&mut piece)?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.reads += 1;
        self.ahead.extend_from_slice(&piece[..read]);
        Ok(())
    }

    /// The next head.
    pub(crate) fn head(&mut self) -> io::Result<Head> {
        loop {
            if let Some(end) = find(&self.ahead, b"\r\n\r\n") {
                let head = Head::parse(&self.ahead[..end]);
                self.ahead.drain(..end + 4);
                return Ok(head);
            }
            self.fill()?;
        }
    }

    /// Hands what is there, `wanted` bytes at most, to `sink`.
    fn give(&mut self, wanted: usize, sink: &mut impl FnMut(&[u8])) -> io::Result<usize> {
        if self.ahead.is_empty() {
            self.fill()?;
        }
        let given = wanted.min(self.ahead.len());
        sink(&self.ahead[..given]);
        self.ahead.drain(..given);
        Ok(given)
    }

    fn line(&mut self) -> io::Result<String> {
        loop {
            if let Some(end) = find(&self.ahead, b"\r\n") {
                let line = String::from_utf8_lossy(&self.ahead[..end]).into_owned();
                self.ahead.drain(..end + 2);
                return Ok(line);
            }
            self.fill()?;
        }
    }

    /// The content after `head`, piece by piece as it arrives; how many bytes it was.
    pub(crate) fn content(&mut self, head: &Head, mut sink: impl FnMut(&[u8])) -> io::Result<usize> {
        let mut total = 0;
        if head.chunked {
            loop {
                let line = self.line()?;
                let size = line.split(';').next().unwrap_or_default();
                let size = usize::from_str_radix(size, 16).map_err(|_| malformed("chunk size"))?;
                let mut left = size;
                while left > 0 {
                    left -= self.give(left, &mut sink)?;
                }
                total += size;
                if !self.line()?.is_empty() {
                    return Err(malformed("chunk end"));
                }
                if size == 0 {
                    return Ok(total);
                }
            }
        }
        let wanted = match head.length {
            Some(length) => length,
            None if head.request => 0,
            None => usize::MAX,
        };
        while total < wanted {
            match self.give(wanted - total, &mut sink) {
                Ok(given) => total += given,
                Err(error) if head.length.is_none() && error.kind() == io::ErrorKind::UnexpectedEof => break,
                Err(error) => return Err(error),
            }
        }
        Ok(total)
    }
}

/// A POST in one piece.
pub(crate) fn request(path: &str, extra: &[&str], content: &[u8]) -> Vec<u8> {
    let mut request = format!(
        "POST {path} HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\nContent-Length: {}\r\n",
        content.len()
    );
    for line in extra {
        request.push_str(line);
        request.push_str("\r\n");
    }
    request.push_str("\r\n");
    let mut request = request.into_bytes();
    request.extend_from_slice(content);
    request
}
