//! Chats whose upstream fails in every phase: what a client has a byte of is never produced once more, and what was cut
//! never looks whole.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use tokio::task::JoinSet;

use super::{row, sized};
use crate::support::client::{dechunk, dechunk_partial};
use crate::support::{Answer, Client, Gate, Pillion, Response, Seen, Step, Upstream};

const CHAT: &str = "/v1/chat/completions";
const SSE: (&str, &str) = ("content-type", "text/event-stream");
const SEED: u64 = 0x9e37_79b9_7f4a_7c15;
const EVENTS: usize = 5;

/// How an answer ends before its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    Close,
    Reset,
    Stall,
}

impl End {
    fn step(self) -> Step {
        match self {
            End::Close => Step::Close,
            End::Reset => Step::Reset,
            End::Stall => Step::Hang,
        }
    }
}

/// What becomes of one attempt upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fate {
    Whole,
    Status(u16),
    BeforeHead(End),
    AfterHead(End),
    ErrorFirst,
    ErrorLater,
    BetweenEvents(End),
    WithinEvent(End),
    BeforeLastChunk(End),
}

const FAULTS: [Fate; 20] = [
    Fate::Status(429),
    Fate::Status(500),
    Fate::Status(503),
    Fate::BeforeHead(End::Close),
    Fate::BeforeHead(End::Reset),
    Fate::BeforeHead(End::Stall),
    Fate::AfterHead(End::Close),
    Fate::AfterHead(End::Reset),
    Fate::AfterHead(End::Stall),
    Fate::ErrorFirst,
    Fate::ErrorLater,
    Fate::BetweenEvents(End::Close),
    Fate::BetweenEvents(End::Reset),
    Fate::BetweenEvents(End::Stall),
    Fate::WithinEvent(End::Close),
    Fate::WithinEvent(End::Reset),
    Fate::WithinEvent(End::Stall),
    Fate::BeforeLastChunk(End::Close),
    Fate::BeforeLastChunk(End::Reset),
    Fate::BeforeLastChunk(End::Stall),
];

/// The same for the same attempt at the same chat, whenever it comes: one in two fails.
fn fate(chat: usize, attempt: usize) -> Fate {
    let mut random = fastrand::Rng::with_seed(SEED ^ chat as u64);
    let chat = random.u64(..);
    random.seed(chat.wrapping_add(attempt as u64).wrapping_mul(SEED));
    if random.bool() { FAULTS[random.usize(..FAULTS.len())] } else { Fate::Whole }
}

fn event(chat: usize, attempt: usize, number: usize) -> String {
    format!(
        "data: {{\"id\":\"{chat}.{attempt}.{number}\",\"choices\":[{{\"delta\":{{\"content\":\"x\"}}}}]}}\n\n"
    )
}

/// One attempt's answer. Every byte tells whose it is.
fn answer(chat: usize, attempt: usize) -> Answer {
    let told = attempt.to_string();
    let headers = [SSE, ("x-attempt", &told)];
    let error = "data: {\"error\":{\"message\":\"overloaded\",\"type\":\"server_error\"}}\n\n".to_owned();
    let mut events: Vec<String> = (0..EVENTS).map(|number| event(chat, attempt, number)).collect();
    let fate = fate(chat, attempt);
    match fate {
        Fate::Status(status) => return Answer::with(status, &headers, "{}"),
        Fate::ErrorFirst => events = vec![error],
        Fate::ErrorLater => events[EVENTS - 1] = error,
        _ => {}
    }
    let whole = Answer::chunked(200, &headers, &events);
    let chunk = Answer::chunk(&events[0]).len();
    // Any event but the first, so that the client has a byte, and the last chunk is one of its own.
    let (all, first) = (whole.len() - 5, whole.len() - 5 - EVENTS.min(events.len()) * chunk);
    match fate {
        Fate::BeforeHead(end) => Answer(vec![end.step()]),
        Fate::AfterHead(end) => whole.cut_with(first, end.step()),
        Fate::BetweenEvents(end) => whole.cut_with(first + (1 + chat % (EVENTS - 1)) * chunk, end.step()),
        Fate::WithinEvent(end) => whole.cut_with(first + chunk + 3 + chat % (chunk - 5), end.step()),
        Fate::BeforeLastChunk(end) => whole.cut_with(all, end.step()),
        _ => whole,
    }
}

/// The number that a chat carries.
fn number(seen: &Seen) -> usize {
    seen.header("x-chat").unwrap().parse().unwrap()
}

/// What a client has of one chat.
struct Had {
    chat: usize,
    response: Response,
}

async fn bot(pillion: SocketAddr, chats: impl Iterator<Item = usize>) -> Vec<Had> {
    const BODY: &str = r#"{"stream":true,"messages":[{"role":"user","content":"a"}]}"#;
    let mut client = Client::connect(pillion).await;
    let mut had = Vec::new();
    for chat in chats {
        let response = client.exchange("POST", CHAT, &[("x-chat", &chat.to_string())], BODY).await;
        if !response.complete {
            client = Client::connect(pillion).await;
        }
        had.push(Had { chat, response });
    }
    had
}

/// What is wrong with what a client has of a chat that was produced so often.
fn judge(Had { chat, response }: &Had, produced: usize) -> Option<&'static str> {
    let Some(attempt) = response.header("x-attempt") else {
        // Pillion's own answer: nothing of any attempt was forwarded.
        return (response.status == 200 || !response.complete).then_some("nobody's");
    };
    let attempt: usize = attempt.parse().unwrap();
    if attempt != produced {
        return Some("produced again");
    }
    let fate = fate(*chat, attempt);
    let expected = answer(*chat, attempt);
    let Some(Step::Write(bytes)) = expected.0.first() else { return Some("made up") };
    let content = &bytes[memchr::memmem::find(bytes, b"\r\n\r\n").unwrap() + 4..];
    match fate {
        Fate::Status(status) => (response.status != status || response.body != content).then_some("changed"),
        Fate::Whole | Fate::ErrorFirst | Fate::ErrorLater => {
            let whole = response.complete && response.body == dechunk(content).unwrap().0;
            (!whole).then_some("changed")
        }
        _ if response.complete => Some("cut and looks whole"),
        _ => (!dechunk_partial(content).starts_with(&response.body)).then_some("changed"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_client_has_a_byte_of_is_not_produced_again() {
    let chats = sized(50_000, 600);
    let produced: Arc<Vec<AtomicUsize>> = Arc::new((0..chats).map(|_| AtomicUsize::new(0)).collect());
    let upstream = Upstream::answering({
        let produced = Arc::clone(&produced);
        move |seen| {
            let chat = number(seen);
            answer(chat, produced[chat].fetch_add(1, Relaxed) + 1)
        }
    })
    .await;
    upstream.forgets();
    // Neither stands in the way: what is looked for is one attempt too many.
    let more = [
        "timeouts: {first_byte: 300ms, idle: 300ms}",
        "retry: {base: 1ms, budget: 100%}",
        "breaker: {enabled: false}",
    ];
    let pillion = Pillion::route("openai", &upstream, &more).await;
    let (mut bots, of) = (JoinSet::new(), sized(128, 32));
    for index in 0..of {
        bots.spawn(bot(pillion.addr, (index..chats).step_by(of)));
    }
    let had: Vec<Had> = bots.join_all().await.into_iter().flatten().collect();
    pillion.metric_is("pillion_in_flight", &[], 0.0).await;

    assert_eq!(had.len(), chats);
    let mut wrong: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    let (mut fates, mut cut, mut retried, mut attempts) = (BTreeMap::<Fate, usize>::new(), 0, 0, 0);
    for had in &had {
        let produced = produced[had.chat].load(Relaxed);
        if let Some(what) = judge(had, produced) {
            wrong.entry(what).or_default().push(had.chat);
        }
        for attempt in 1..=produced {
            *fates.entry(fate(had.chat, attempt)).or_default() += 1;
        }
        cut += usize::from(had.response.status == 200 && !had.response.complete);
        retried += usize::from(produced > 1);
        attempts = attempts.max(produced);
    }
    println!("{chats} chats: {retried} attempted again, {cut} cut amid their answer; fates: {fates:?}");
    if !wrong.is_empty() {
        println!("wrong: {wrong:?}");
    }
    // All of it has happened.
    assert_eq!(fates.len(), FAULTS.len() + 1, "{fates:?}");
    assert!(cut * 20 >= chats && retried * 20 >= chats, "{cut} cut, {retried} attempted again");
    let count = |what| wrong.get(what).map_or(0, Vec::len);
    let again = count("produced again");
    row(
        &format!("{chats} chats, faults in every phase: produced again after a byte was forwarded"),
        "0",
        again,
        again == 0,
    );
    let whole = count("cut and looks whole");
    row(
        "of them cut amid their answer: look whole to the client",
        "0",
        format!("{whole} of {cut}"),
        whole == 0,
    );
    let others = wrong.values().map(Vec::len).sum::<usize>() - again - whole;
    row("of them: other bytes than those of the one attempt", "0", others, others == 0);
    row("upstream calls of one of them, at most", "<= 4", attempts, attempts <= 4);
}

const STREAM: usize = 200;

/// A stream of many events, and where it is cut.
struct Stream {
    /// Of an answer, as it is sent.
    bytes: Vec<u8>,
    /// Bytes of its head.
    head: usize,
    /// Bytes of an event's chunk.
    chunk: usize,
}

impl Stream {
    fn new() -> Self {
        let event =
            |number| format!("data: {{\"choices\":[{{\"delta\":{{\"content\":\"{number:04}\"}}}}]}}\n\n");
        let events: Vec<String> = (0..STREAM).map(event).collect();
        let Some(Step::Write(bytes)) = Answer::chunked(200, &[SSE], &events).0.pop() else { unreachable!() };
        let head = memchr::memmem::find(&bytes, b"\r\n\r\n").unwrap() + 4;
        Self { bytes, head, chunk: Answer::chunk(event(0)).len() }
    }

    /// Every place to cut it: behind so many bytes of its content.
    fn cuts(&self) -> Vec<(usize, End)> {
        let mut cuts = Vec::new();
        for event in 0..=STREAM {
            // In the chunk's size, behind it, in the event's middle, before its last byte, and before the end of the chunk.
            let within = [1, 4, 4 + self.chunk / 2, self.chunk - 3, self.chunk - 2];
            let within = match sized(&within[..], &within[event % 5..=event % 5]) {
                // Behind the last event comes the last chunk, of which the first byte says it all.
                _ if event == STREAM => &[1],
                within => within,
            };
            for (number, bytes) in std::iter::once(&0).chain(within).enumerate() {
                let (ends, turn) = ([End::Close, End::Reset], (event + number) % 2);
                let ends = sized(&ends[..], &ends[turn..=turn]);
                cuts.extend(ends.iter().map(|end| (event * self.chunk + bytes, *end)));
            }
        }
        cuts
    }

    /// What is sent of its content before it is cut.
    fn sent(&self, cut: usize) -> &[u8] {
        &self.bytes[self.head..self.head + cut]
    }
}

/// Reads a stream until so much content is here, has it cut, and reads to its end.
async fn has_it_cut(pillion: SocketAddr, index: usize, content: &[u8], gate: &Gate) -> Result<(), String> {
    let mut client = Client::connect(pillion).await;
    client.ask("POST", CHAT, &[("x-chat", &index.to_string())], r#"{"stream":true,"messages":[]}"#).await;
    let head = client.head().await.ok_or("no head")?;
    if head.status != 200 {
        return Err(format!("{}", head.status));
    }
    let (mut wire, mut missing) = (Vec::new(), content.len());
    while missing > 0 {
        let more = client.take(missing).await;
        if more.is_empty() {
            return Err(format!("{missing} bytes are missing of {}", content.len()));
        }
        wire.extend(more);
        missing = content.len() - dechunk_partial(&wire).len();
    }
    gate.open();
    loop {
        if dechunk(&wire).is_some() {
            return Err("it looks whole".into());
        }
        let more = client.take(1).await;
        if more.is_empty() {
            break;
        }
        wire.extend(more);
    }
    if dechunk_partial(&wire) == content { Ok(()) } else { Err("other content".into()) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_cut_at_any_event_is_aborted_and_not_attempted_again() {
    const CLIENTS: usize = 8;
    let stream = Arc::new(Stream::new());
    let cuts = Arc::new(stream.cuts());
    let gates: Arc<Vec<Gate>> = Arc::new(cuts.iter().map(|_| Gate::new()).collect());
    let produced = Arc::new(AtomicUsize::new(0));
    let upstream = Upstream::answering({
        let (stream, cuts, gates) = (Arc::clone(&stream), Arc::clone(&cuts), Arc::clone(&gates));
        let produced = Arc::clone(&produced);
        move |seen| {
            produced.fetch_add(1, Relaxed);
            let index = number(seen);
            let (cut, end) = cuts[index];
            // The client has it all before it is cut: a reset may overtake what was sent before it.
            Answer::raw(&stream.bytes[..stream.head + cut])
                .then(Step::Wait(gates[index].clone()))
                .then(end.step())
        }
    })
    .await;
    upstream.forgets();
    let pillion = Pillion::route("openai", &upstream, &["retry: {base: 1ms}"]).await;
    let mut clients = JoinSet::new();
    for first in 0..CLIENTS {
        let (stream, cuts, gates) = (Arc::clone(&stream), Arc::clone(&cuts), Arc::clone(&gates));
        let addr = pillion.addr;
        clients.spawn(async move {
            let mut wrong = Vec::new();
            for index in (first..cuts.len()).step_by(CLIENTS) {
                let (cut, end) = cuts[index];
                let content = dechunk_partial(stream.sent(cut));
                if let Err(what) = has_it_cut(addr, index, &content, &gates[index]).await {
                    wrong.push(format!("{cut} bytes, {end:?}: {what}"));
                }
            }
            wrong
        });
    }
    let wrong: Vec<String> = clients.join_all().await.into_iter().flatten().collect();
    pillion.metric_is("pillion_in_flight", &[], 0.0).await;
    let (streams, produced) = (cuts.len(), produced.load(Relaxed));
    if let Some(first) = wrong.first() {
        println!("such as {first}");
    }
    let what = format!("{STREAM} events cut at each and within, {streams} streams: not seen as cut");
    row(&what, "0", wrong.len(), wrong.is_empty());
    let again = produced - streams;
    let retries = pillion.metric("pillion_retries_total", &[]).await;
    row("retries of them after a byte was forwarded", "0", again, again == 0 && retries < 0.5);
}
