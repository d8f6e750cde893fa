//! What Pillion and its peers ask where nginx's `return` is not enough: it waits, streams, stamps and counts.
//!
//! `x-bench: wait MILLISECONDS` or `x-bench: stream EVENTS MICROSECONDS`. `GET /counts` says what was seen since the
//! last time it was asked. Answers of searches and writes tell how often the namespace had been written to (`"v"`).

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io;
use std::net::TcpListener;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::http::{Connection, Head};
use crate::options::{Failure, Options};
use crate::stats::now;

#[derive(Default)]
struct Counts {
    chats: AtomicU64,
    chat_bytes: AtomicU64,
    searches: AtomicU64,
    search_bytes: AtomicU64,
    writes: AtomicU64,
    /// Writes by namespace.
    versions: Mutex<HashMap<String, u64>>,
}

impl Counts {
    /// How often the namespace that the path names has been written to, `more` writes from now.
    fn version(&self, path: &str, more: u64) -> u64 {
        let mut versions = self.versions.lock().unwrap_or_else(PoisonError::into_inner);
        let namespace = path.rsplit('/').next().unwrap_or_default();
        match versions.get_mut(namespace) {
            Some(version) => {
                *version += more;
                *version
            }
            None if more > 0 => *versions.entry(namespace.to_owned()).or_insert(more),
            None => 0,
        }
    }

    fn take(&self) -> String {
        let take = |counter: &AtomicU64| counter.swap(0, Ordering::Relaxed);
        format!(
            "{{\"chats\":{},\"chat_bytes\":{},\"searches\":{},\"search_bytes\":{},\"writes\":{}}}",
            take(&self.chats),
            take(&self.chat_bytes),
            take(&self.searches),
            take(&self.search_bytes),
            take(&self.writes)
        )
    }
}

/// Serves on every `--to` until it is ended.
pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    let counts = Arc::new(Counts::default());
    let listeners = options.all("to").iter().map(TcpListener::bind).collect::<Result<Vec<_>, _>>()?;
    let accepting: Vec<_> = listeners
        .into_iter()
        .map(|listener| {
            let counts = Arc::clone(&counts);
            thread::spawn(move || accept(&listener, &counts))
        })
        .collect();
    for listener in accepting {
        listener.join().map_err(|_| "a thread panicked")??;
    }
    Ok(())
}

fn accept(listener: &TcpListener, counts: &Arc<Counts>) -> io::Result<()> {
    loop {
        let (stream, _) = listener.accept()?;
        let counts = Arc::clone(counts);
        // Thousands of them may be open, each in few frames.
        thread::Builder::new().stack_size(96 << 10).spawn(move || {
            // Ends when the other side does.
            let _ = Connection::new(stream).and_then(|mut connection| serve(&mut connection, &counts));
        })?;
    }
}

fn serve(connection: &mut Connection, counts: &Counts) -> io::Result<()> {
    loop {
        let head = connection.head()?;
        let length = connection.content(&head, |_| ())? as u64;
        if head.path() == "/counts" {
            answer(connection, &counts.take())?;
            continue;
        }
        let words: Vec<&str> = head.bench.split(' ').collect();
        let number = |at: usize| words.get(at).and_then(|word| word.parse::<u64>().ok()).unwrap_or(0);
        if words[0] == "stream" {
            stream(connection, number(1), Duration::from_micros(number(2)))?;
            continue;
        }
        let content = count(&head, length, counts);
        if words[0] == "wait" {
            thread::sleep(Duration::from_millis(number(1)));
        }
        answer(connection, &content())?;
    }
}

/// Counts a call, and says how to make its answer.
fn count(head: &Head, length: u64, counts: &Counts) -> Box<dyn Fn() -> String> {
    if head.path().ends_with("/chat/completions") {
        counts.chats.fetch_add(1, Ordering::Relaxed);
        counts.chat_bytes.fetch_add(length, Ordering::Relaxed);
        return Box::new(|| {
            format!(
                "{{\"id\":\"c\",\"object\":\"chat.completion\",\"t\":{},\"choices\":[{{\"index\":0,\"message\":\
                 {{\"role\":\"assistant\",\"content\":\"{}\"}},\"finish_reason\":\"stop\"}}],\"usage\":\
                 {{\"prompt_tokens\":9,\"completion_tokens\":300,\"total_tokens\":309}}}}",
                now(),
                "x".repeat(1200)
            )
        });
    }
    if head.path().contains("/upsert") {
        counts.writes.fetch_add(1, Ordering::Relaxed);
        let version = counts.version(head.path(), 1);
        return Box::new(move || format!("{{\"result\":\"Success\",\"v\":{version}}}"));
    }
    counts.searches.fetch_add(1, Ordering::Relaxed);
    counts.search_bytes.fetch_add(length, Ordering::Relaxed);
    let version = counts.version(head.path(), 0);
    Box::new(move || {
        format!(
            "{{\"t\":{},\"v\":{version},\"result\":[{{\"id\":\"1\",\"score\":0.9,\"metadata\":\"{}\"}}]}}",
            now(),
            "x".repeat(8000)
        )
    })
}

fn answer(connection: &mut Connection, content: &str) -> io::Result<()> {
    connection.write(
        format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{content}",
            content.len()
        )
        .as_bytes(),
    )
}

/// Events as a model sends them, each with the time at which it left, on a fixed beat.
fn stream(connection: &mut Connection, events: u64, beat: Duration) -> io::Result<()> {
    connection
        .write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")?;
    let begin = Instant::now();
    let mut chunk = String::new();
    for event in 0..events {
        connection.pause((begin + beat * event as u32).saturating_duration_since(Instant::now()))?;
        let event = format!(
            "data: {{\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"t\":{},\"choices\":[{{\"index\":0,\
             \"delta\":{{\"content\":\" word {event:>3}\"}},\"finish_reason\":null}}]}}\n\n",
            now()
        );
        chunk.clear();
        let _ = write!(chunk, "{:x}\r\n{event}\r\n", event.len());
        connection.write(chunk.as_bytes())?;
    }
    connection.write(b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n")
}
