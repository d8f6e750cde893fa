//! What a scripted upstream does about one request, to the byte.

use tokio::sync::{mpsc, watch};

/// Held closed by the test until something else has happened. Clones are the same gate.
#[derive(Clone, Debug)]
pub(crate) struct Gate(watch::Sender<bool>);

impl Default for Gate {
    fn default() -> Self {
        Self::new()
    }
}

impl Gate {
    pub(crate) fn new() -> Self {
        Self(watch::Sender::new(false))
    }

    pub(crate) fn open(&self) {
        self.0.send_replace(true);
    }

    pub(crate) async fn wait(&self) {
        let _ = self.0.subscribe().wait_for(|open| *open).await;
    }
}

/// Bytes that are made when they are written.
pub(crate) struct Late(pub(crate) Box<dyn FnOnce() -> Vec<u8> + Send>);

impl std::fmt::Debug for Late {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Late")
    }
}

/// One thing the upstream does.
#[derive(Debug)]
pub(crate) enum Step {
    Write(Vec<u8>),
    /// Writes what the function says when its turn comes.
    Late(Late),
    /// Lets other tasks run so many times.
    Yield(usize),
    /// So long: a slow upstream.
    Pause(std::time::Duration),
    /// Until the gate is open, or the client has left.
    Wait(Gate),
    /// Writes what comes, as it comes, until the sender is dropped.
    Feed(mpsc::UnboundedReceiver<Vec<u8>>),
    /// FIN.
    Close,
    /// RST.
    Reset,
    /// Nothing, until the client leaves.
    Hang,
}

/// An answer: its steps in order. The connection stays open at their end.
#[derive(Debug)]
pub(crate) struct Answer(pub(crate) Vec<Step>);

impl Answer {
    /// 200 with JSON.
    pub(crate) fn ok(body: impl AsRef<[u8]>) -> Self {
        Self::status(200, body)
    }

    /// A status with JSON.
    pub(crate) fn status(status: u16, body: impl AsRef<[u8]>) -> Self {
        Self::with(status, &[("content-type", "application/json")], body)
    }

    /// Framed by its length.
    pub(crate) fn with(status: u16, headers: &[(&str, &str)], body: impl AsRef<[u8]>) -> Self {
        let body = body.as_ref();
        let mut bytes = head(status, headers, &format!("content-length: {}\r\n", body.len()));
        bytes.extend_from_slice(body);
        Self::raw(bytes)
    }

    /// Framed in these chunks.
    pub(crate) fn chunked<C: AsRef<[u8]>>(status: u16, headers: &[(&str, &str)], chunks: &[C]) -> Self {
        let mut bytes = head(status, headers, "transfer-encoding: chunked\r\n");
        for chunk in chunks {
            bytes.extend(Self::chunk(chunk));
        }
        bytes.extend_from_slice(b"0\r\n\r\n");
        Self::raw(bytes)
    }

    /// A chunked head, then what is sent through the channel (see [`Answer::chunk`]), the last chunk included.
    pub(crate) fn fed(status: u16, headers: &[(&str, &str)]) -> (mpsc::UnboundedSender<Vec<u8>>, Self) {
        let (sender, fed) = mpsc::unbounded_channel();
        let head = head(status, headers, "transfer-encoding: chunked\r\n");
        (sender, Self(vec![Step::Write(head), Step::Feed(fed)]))
    }

    /// One chunk with its framing.
    pub(crate) fn chunk(content: impl AsRef<[u8]>) -> Vec<u8> {
        let content = content.as_ref();
        [format!("{:x}\r\n", content.len()).as_bytes(), content, b"\r\n"].concat()
    }

    /// Framed by nothing but the end of the connection.
    pub(crate) fn until_close(status: u16, headers: &[(&str, &str)], body: impl AsRef<[u8]>) -> Self {
        let mut bytes = head(status, headers, "");
        bytes.extend_from_slice(body.as_ref());
        Self(vec![Step::Write(bytes), Step::Close])
    }

    /// These bytes.
    pub(crate) fn raw(bytes: impl Into<Vec<u8>>) -> Self {
        Self(vec![Step::Write(bytes.into())])
    }

    /// FIN without a byte.
    pub(crate) fn close() -> Self {
        Self(vec![Step::Close])
    }

    /// RST without a byte.
    pub(crate) fn reset() -> Self {
        Self(vec![Step::Reset])
    }

    /// Never anything.
    pub(crate) fn hang() -> Self {
        Self(vec![Step::Hang])
    }

    /// Made when its turn comes.
    pub(crate) fn late(make: impl FnOnce() -> Answer + Send + 'static) -> Self {
        let write = move || {
            let steps = make().0.into_iter();
            steps.flat_map(|step| if let Step::Write(bytes) = step { bytes } else { Vec::new() }).collect()
        };
        Self(vec![Step::Late(Late(Box::new(write)))])
    }

    /// Preceded by another step.
    pub(crate) fn after(mut self, step: Step) -> Self {
        self.0.insert(0, step);
        self
    }

    /// Only when the gate is open.
    pub(crate) fn held(mut self, gate: &Gate) -> Self {
        self.0.insert(0, Step::Wait(gate.clone()));
        self
    }

    /// Followed by another step.
    pub(crate) fn then(mut self, step: Step) -> Self {
        self.0.push(step);
        self
    }

    /// Only the first `length` bytes of what is written; then FIN.
    pub(crate) fn cut(self, length: usize) -> Self {
        self.cut_with(length, Step::Close)
    }

    /// Only the first `length` bytes of what is written; then that.
    pub(crate) fn cut_with(self, length: usize, end: Step) -> Self {
        let mut left = length;
        let mut steps = Vec::new();
        for step in self.0 {
            let Step::Write(mut bytes) = step else {
                steps.push(step);
                continue;
            };
            bytes.truncate(left);
            left -= bytes.len();
            steps.push(Step::Write(bytes));
        }
        steps.retain(|step| !matches!(step, Step::Close));
        steps.push(end);
        Self(steps)
    }

    /// Bytes it writes.
    pub(crate) fn len(&self) -> usize {
        self.0.iter().map(|step| if let Step::Write(bytes) = step { bytes.len() } else { 0 }).sum()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

fn head(status: u16, headers: &[(&str, &str)], framing: &str) -> Vec<u8> {
    let fields: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    format!("HTTP/1.1 {status} Scripted\r\n{fields}{framing}\r\n").into_bytes()
}
