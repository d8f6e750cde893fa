//! Clients that leave in every phase, one after the other: the upstream is let go in time, nothing is attempted later, and
//! no socket stays behind. The ways of leaving, and what is observed of each, are in `cancel`.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use super::{row, sized};
use crate::support::fair::Moment;
use crate::support::{Answer, Pillion, Step, advance, within};

const CHAT: &str = "/v1/chat/completions";
const BODY: &str = r#"{"stream":true,"messages":[{"role":"user","content":"a"}]}"#;
const LIMIT: Duration = Duration::from_millis(100);
const PHASES: [&str; 4] = ["upload", "waiting for the head", "stream", "back-off"];

/// What an upstream sees.
enum Event {
    /// A request, or as much of it as came.
    Request,
    /// The end of a connection.
    Closed(Moment),
}

/// An upstream that keeps nothing: it says what comes, and answers as the request's `x-phase` tells.
struct Watching {
    url: String,
    requests: Arc<AtomicUsize>,
    events: mpsc::UnboundedReceiver<Event>,
}

impl Watching {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (requests, (sender, events)) = (Arc::default(), mpsc::unbounded_channel());
        let count = Arc::clone(&requests);
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(watch(stream, Arc::clone(&count), sender.clone()));
            }
        });
        Self { url, requests, events }
    }

    async fn request(&mut self) {
        let event = within("a request upstream", self.events.recv()).await;
        assert!(matches!(event, Some(Event::Request)));
    }

    async fn closed(&mut self) -> Moment {
        match within("the end of a connection upstream", self.events.recv()).await {
            Some(Event::Closed(at)) => at,
            _ => panic!("a request comes after its client has left"),
        }
    }
}

async fn watch(mut stream: TcpStream, count: Arc<AtomicUsize>, events: mpsc::UnboundedSender<Event>) {
    let mut bytes = Vec::new();
    while let Ok(1..) = stream.read_buf(&mut bytes).await {
        let Some(end) = memchr::memmem::find(&bytes, b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        let phase = head.lines().find_map(|line| line.strip_prefix("x-phase: ")).unwrap();
        // What follows a head is of no interest; that of an upload never ends.
        if phase == "back-off" && !bytes.ends_with(b"}") {
            continue;
        }
        bytes.clear();
        count.fetch_add(1, Relaxed);
        let answer = match phase {
            "stream" => Answer::chunked(200, &[("content-type", "text/event-stream")], &["data: {}\n\n"]),
            "back-off" => Answer::with(503, &[("retry-after-ms", "15000")], "{}"),
            _ => Answer::raw(""),
        };
        let length = answer.len() - if phase == "stream" { 5 } else { 0 };
        if let Some(Step::Write(bytes)) = answer.0.first() {
            stream.write_all(&bytes[..length]).await.unwrap();
        }
        let _ = events.send(Event::Request);
        if phase != "back-off" {
            // Whatever else comes, to the end.
            let mut rest = [0; 4096];
            while let Ok(1..) = stream.read(&mut rest).await {}
            break;
        }
    }
    let _ = events.send(Event::Closed(Moment::now()));
}

/// One client that leaves in this phase; how long the upstream was kept then.
async fn leaves(phase: &str, pillion: &Pillion, upstream: &mut Watching, backed_off: f64) -> Duration {
    let mut client = pillion.connect().await;
    if phase == "upload" {
        let part = "x".repeat(4096);
        let head =
            format!("POST {CHAT} HTTP/1.1\r\nhost: a\r\nx-phase: upload\r\ncontent-length: 100000\r\n\r\n");
        client.send(head + &part).await;
    } else {
        client.ask("POST", CHAT, &[("x-phase", phase)], BODY).await;
    }
    upstream.request().await;
    match phase {
        "stream" => {
            assert_eq!(client.head().await.unwrap().status, 200);
            client.take(15).await;
        }
        "back-off" => pillion.metric_is("pillion_retries_total", &[], backed_off).await,
        _ => {}
    }
    let left = Moment::now();
    drop(client);
    if phase == "back-off" {
        // Its connection has had a whole answer, and is kept for others.
        pillion.metric_is("pillion_in_flight", &[], 0.0).await;
        return Moment::now().fairly_since(left);
    }
    upstream.closed().await.fairly_since(left)
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

async fn all_leave() {
    let mut upstream = Watching::start().await;
    let more =
        ["limits: {replay_body: 1KiB}", "retry: {max_wait: 20s, budget: 100%}", "breaker: {enabled: false}"];
    let yaml = format!(
        "routes:\n  - {{name: r, path: /, upstream: '${{UP}}', preset: openai, {}}}\n",
        more.join(", ")
    );
    let pillion = Pillion::start(&yaml, &[("UP", &upstream.url)]).await;
    let mut backed_off = 0.0;
    let mut slowest = [Duration::ZERO; PHASES.len()];
    // Once before it counts: the connection that is kept is there then.
    let rounds = sized(10_000, 100) / PHASES.len();
    let mut before = 0;
    for round in 0..=rounds {
        for (phase, slowest) in PHASES.iter().zip(&mut slowest) {
            backed_off += f64::from(u8::from(*phase == "back-off"));
            *slowest = leaves(phase, &pillion, &mut upstream, backed_off).await.max(*slowest);
        }
        if round == 0 {
            before = settled().await;
        }
    }
    for (phase, slowest) in PHASES.iter().zip(slowest) {
        let what = format!("client gone, {phase}, {rounds} times: upstream let go after, at most");
        row(&what, "< 100 ms", format!("{:.1} ms", slowest.as_secs_f64() * 1e3), slowest < LIMIT);
    }
    pillion.metric_is("pillion_in_flight", &[], 0.0).await;
    pillion.metric_is("pillion_upstream_in_flight", &[], 0.0).await;
    pillion.metric_is("pillion_buffers_bytes", &[], 0.0).await;
    let after = settled().await;
    row(
        "descriptors after them all",
        "as before",
        format!("{before} before, {after} after"),
        after <= before,
    );
    // Long after the last back-off would have ended: whatever that has woken comes before what is asked now.
    advance(Duration::from_secs(60)).await;
    let mut client = pillion.connect().await;
    client.ask("POST", CHAT, &[("x-phase", "stream")], BODY).await;
    assert_eq!(client.head().await.unwrap().status, 200);
    let later = upstream.requests.load(Relaxed) - (rounds + 1) * PHASES.len() - 1;
    row("later attempts", "0", later, later == 0);
}

/// Descriptors, once those of clients that have left are closed: they do not change while everything else has its turn.
async fn settled() -> usize {
    let (mut least, mut since) = (descriptors(), 0);
    while since < 200 {
        tokio::task::yield_now().await;
        let now = descriptors();
        since = if now == least { since + 1 } else { 0 };
        least = now;
    }
    least
}

/// In a process of its own: it counts the descriptors of the process, and other tests open and close theirs.
#[test]
fn clients_that_leave_leave_nothing_behind() {
    const ALONE: &str = "PILLION_TEST_ALONE";
    if std::env::var_os(ALONE).is_some() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        return runtime.block_on(all_leave());
    }
    let name =
        format!("{}::clients_that_leave_leave_nothing_behind", module_path!().split_once("::").unwrap().1);
    let mut alone = Command::new(std::env::current_exe().unwrap());
    let output = alone.args(["--exact", &name, "--nocapture"]).env(ALONE, "1").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    println!("{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && text.contains("1 passed"));
}
