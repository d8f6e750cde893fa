//! Conversations of many megabytes that are refused at first: what is held is sent again as it was, and however many come
//! at once, no more is held than `memory.buffers`.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use ring::digest::{Context, SHA256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::{full, row, sized};
use crate::support::process::{Folder, Running};
use crate::support::{Answer, Client, Pillion, Response, Step, Upstream, eventually, metric};

const CHAT: &str = "/v1/chat/completions";

type Hash = Vec<u8>;

/// An upstream that keeps of what it gets its hash only. The first attempt at each chat is refused, once as many as it
/// waits for are there.
struct Hashing {
    addr: SocketAddr,
    seen: Arc<Seen>,
}

struct Seen {
    /// By chat: the hashes of its attempts.
    hashes: Mutex<HashMap<String, Vec<Hash>>>,
    /// How many chats there are, and how many are waited for.
    chats: watch::Sender<usize>,
    waits_for: usize,
}

impl Hashing {
    async fn start(waits_for: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let seen = Arc::new(Seen { hashes: Mutex::default(), chats: watch::Sender::new(0), waits_for });
        let serving = Arc::clone(&seen);
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(serve(stream, Arc::clone(&serving)));
            }
        });
        Self { addr, seen }
    }

    fn hashes(&self, chat: usize) -> Vec<Hash> {
        self.seen.hashes.lock().unwrap().get(&chat.to_string()).cloned().unwrap_or_default()
    }
}

async fn serve(mut stream: TcpStream, seen: Arc<Seen>) -> std::io::Result<()> {
    let mut bytes = Vec::with_capacity(256 * 1024);
    loop {
        let end = loop {
            if let Some(at) = memchr::memmem::find(&bytes, b"\r\n\r\n") {
                break at + 4;
            }
            if stream.read_buf(&mut bytes).await? == 0 {
                return Ok(());
            }
        };
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        let field = |name| head.lines().find_map(|line| line.strip_prefix(name)).unwrap().to_owned();
        let mut missing: usize = field("content-length: ").parse().unwrap();
        let mut hash = Context::new(&SHA256);
        bytes.drain(..end);
        loop {
            hash.update(&bytes);
            missing = missing.checked_sub(bytes.len()).expect("one request at a time");
            bytes.clear();
            if missing == 0 {
                break;
            }
            if stream.read_buf(&mut bytes).await? == 0 {
                return Ok(());
            }
        }
        let attempts = {
            let mut hashes = seen.hashes.lock().unwrap();
            let attempts = hashes.entry(field("x-chat: ")).or_default();
            attempts.push(hash.finish().as_ref().to_vec());
            attempts.len()
        };
        let answer = if attempts == 1 {
            seen.chats.send_modify(|chats| *chats += 1);
            let _ = seen.chats.subscribe().wait_for(|chats| *chats >= seen.waits_for).await;
            Answer::status(503, "{}")
        } else {
            Answer::ok("{}")
        };
        for step in answer.0 {
            let Step::Write(bytes) = step else { unreachable!() };
            stream.write_all(&bytes).await?;
        }
    }
}

/// A conversation of so many bytes, each another.
fn conversation(chat: usize, bytes: usize) -> [Vec<u8>; 2] {
    let begin = format!(r#"{{"messages":[{{"role":"user","content":"{chat} "#);
    let filling = bytes - begin.len() - 4;
    let end: Vec<u8> = (0..filling).map(|at| b'a' + (at * 31 % 23) as u8).chain(*br#""}]}"#).collect();
    [begin.into_bytes(), end]
}

/// Sends it, and tells its hash too.
async fn asks(pillion: SocketAddr, chat: usize, bytes: usize) -> (Response, Hash) {
    let content = conversation(chat, bytes);
    let mut hash = Context::new(&SHA256);
    let mut client = Client::connect(pillion).await;
    client
        .send(format!("POST {CHAT} HTTP/1.1\r\nhost: a\r\nx-chat: {chat}\r\ncontent-length: {bytes}\r\n\r\n"))
        .await;
    for part in content.iter().flat_map(|part| part.chunks(1 << 20)) {
        hash.update(part);
        client.send(part).await;
    }
    (client.response().await, hash.finish().as_ref().to_vec())
}

#[tokio::test]
async fn a_chat_of_twenty_megabytes_is_sent_again_as_it_was() {
    let upstream = Hashing::start(1).await;
    let yaml = "routes:\n  - {name: r, path: /, upstream: '${UP}', preset: openai, retry: {base: 1ms}}\n";
    let pillion = Pillion::start(yaml, &[("UP", &format!("http://{}", upstream.addr))]).await;
    let (response, hash) = asks(pillion.addr, 0, 20_000_000).await;
    let hashes = upstream.hashes(0);
    let same = response.status == 200 && hashes == [hash.clone(), hash];
    let seen = format!("{}, {} attempts", response.status, hashes.len());
    row(
        "20 MB chat, first answer 503: the second attempt has the same SHA-256",
        "200, 2 attempts",
        seen,
        same,
    );
    pillion.metric_is("pillion_buffers_bytes", &[], 0.0).await;
}

#[tokio::test]
async fn what_streams_gives_its_share_back_as_it_is_written() {
    let upstream = Upstream::answering(|_| Answer::ok("{}")).await;
    let pillion = Pillion::route("openai", &upstream, &["limits: {replay_body: 64KiB}"]).await;
    let mut client = pillion.connect().await;
    client.send(format!("POST {CHAT} HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n")).await;
    for _ in 0..6 {
        client.send(Answer::chunk("x".repeat(10_000))).await;
    }
    let held = async || pillion.metric("pillion_buffers_bytes", &[]).await;
    eventually("what has come to be held", async || (60_000.0..=65_536.0).contains(&held().await)).await;
    assert_eq!(upstream.connections(), 0);
    client.send(Answer::chunk("x".repeat(10_000))).await;
    upstream.accepted(1).await;
    pillion.metric_is("pillion_buffers_bytes", &[], 0.0).await;
    assert_eq!(
        (upstream.count(), pillion.metric("pillion_in_flight", &[]).await),
        (0, 1.0),
        "it is under way"
    );
    client.send("0\r\n\r\n").await;
    assert_eq!(client.response().await.status, 200);
    assert_eq!(upstream.last().body.len(), 70_000);
}

/// What the process has resident at most so far, in bytes.
fn peak(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() * 1024
}

/// All of them are under way together, until the last of them is upstream. The real binary: its memory is its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn as_many_as_fit_are_sent_again_and_the_others_are_counted() {
    let chats = sized(50, 12);
    let bytes = sized(20_000_000, 2_000_000);
    let buffers = sized(64 << 20, 6_500_000);
    let upstream = Hashing::start(chats).await;
    let folder = Folder::new();
    let yaml = format!(
        "version: 1\nlisten: 127.0.0.1:0\nadmin: {{listen: 127.0.0.1:0}}\nmemory: {{buffers: {buffers}}}\nroutes:\n  \
         - {{name: r, path: /, upstream: 'http://{}', preset: openai, retry: {{base: 1ms}}, breaker: {{enabled: false}}}}\n",
        upstream.addr
    );
    let mut pillion = Running::start(&folder, &yaml, &[]).await;
    let (addr, admin, before) = (pillion.data().await, pillion.admin().await, peak(pillion.id()));
    let metrics = async || Client::connect(admin).await.exchange("GET", "/metrics", &[], "").await.text();

    let mut clients = JoinSet::new();
    for chat in 0..chats {
        clients.spawn(async move { (chat, asks(addr, chat, bytes).await) });
    }
    let (mut most, mut answers) = (0.0_f64, Vec::new());
    while answers.len() < chats {
        tokio::select! {
            answer = clients.join_next() => answers.push(answer.unwrap().unwrap()),
            metrics = metrics() => most = most.max(metric(&metrics, "pillion_buffers_bytes", &[])),
        }
    }
    let (mut again, mut shown, mut wrong) = (0, 0, Vec::new());
    for (chat, (response, hash)) in answers {
        let hashes = upstream.hashes(chat);
        match (response.status, hashes.len()) {
            (200, 2) => again += 1,
            (503, 1) => shown += 1,
            other => wrong.push(format!("chat {chat}: {other:?}")),
        }
        if hashes.iter().any(|seen| *seen != hash) {
            wrong.push(format!("chat {chat}: other bytes"));
        }
    }
    println!("{again} of {chats} were sent again, {shown} were not; wrong: {wrong:?}");
    let (fit, metrics) = (buffers / bytes, metrics().await);
    let at_once = format!("{chats} chats of {} MB at once, first answer 503", bytes / 1_000_000);
    row(&format!("{at_once}: sent again"), &format!("1 to {fit}"), again, (1..=fit).contains(&again));
    row("of them: other bytes, or another end", "0", wrong.len(), wrong.is_empty());
    let not_made = metric(&metrics, "pillion_retries_not_made_total", &[("reason", "memory")]) as usize;
    row("the others: counted as not replayable", "all", format!("{not_made} of {shown}"), not_made == shown);
    let mib = |bytes: f64| format!("{:.1} MiB", bytes / f64::from(1 << 20));
    row(
        "content held, at most",
        &format!("<= {}", mib(f64::from(buffers as u32))),
        mib(most),
        most <= f64::from(buffers as u32),
    );
    let left = metric(&metrics, "pillion_buffers_bytes", &[]);
    row("content held, afterwards", "0", left, left == 0.0);
    if full() {
        // Beside what is held, of each that streams: what is read ahead of its client, and what hyper takes of it before
        // it is written, some 400 KiB and a piece more, each in buffers that may be twice as large. At the small size
        // this is as much as the content itself, and tells nothing.
        let bar = buffers as f64 + chats as f64 * 2.0 * f64::from(1 << 20);
        let grown = (peak(pillion.id()) - before) as f64;
        row(
            "resident memory of the process, growth at most",
            &format!("<= {}", mib(bar)),
            mib(grown),
            grown <= bar,
        );
    }
}
