//! An upstream that is gone for a minute while a bot goes on asking, at times that do not depend on the answers: what
//! reaches it, how soon the bot is told, and how soon all is well again.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket};
use tokio::time::{Instant, sleep_until};

use super::load::{Open, Sample, echo};
use super::{full, row, sized};
use crate::support::{Answer, Pillion, Upstream, eventually};

/// How the upstream is gone.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Outage {
    /// Nobody listens: the system refuses.
    Refuses,
    /// It answers 503.
    Says503,
}

/// A port that stays this upstream's while nobody listens on it.
struct Port {
    address: SocketAddr,
    _kept: TcpSocket,
}

impl Port {
    fn new() -> Self {
        let kept = Self::socket();
        kept.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        Self { address: kept.local_addr().unwrap(), _kept: kept }
    }

    fn listen(&self) -> TcpListener {
        let socket = Self::socket();
        socket.bind(self.address).unwrap();
        socket.listen(1024).unwrap()
    }

    fn socket() -> TcpSocket {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_reuseport(true).unwrap();
        socket
    }
}

/// What reached the upstream, counted by itself, and whether it answers.
#[derive(Clone, Default)]
struct Origin {
    down: Arc<AtomicBool>,
    requests: Arc<AtomicUsize>,
}

impl Origin {
    fn listen(&self, port: &Port) -> Upstream {
        let this = self.clone();
        let upstream = Upstream::on(port.listen(), move |seen| {
            this.requests.fetch_add(1, SeqCst);
            if this.down.load(SeqCst) { Answer::status(503, r#"{"error":"down"}"#) } else { echo(seen) }
        });
        upstream.forgets();
        upstream
    }
}

/// Connection attempts that are refused are seen by nobody but who makes them and the system. What counts them is
/// Pillion's `pillion_upstream_attempts_total`: the address is a literal one, so that an attempt is one connection at
/// most; and wherever the upstream can count for itself, both counts are compared.
async fn attempts(pillion: &Pillion) -> usize {
    pillion.metric("pillion_upstream_attempts_total", &[]).await as usize
}

/// What was seen of an outage.
struct Seen {
    name: String,
    samples: Vec<Sample>,
    /// All began; the upstream was gone; the first storm was over; the upstream was back.
    times: [Instant; 4],
    /// At the last three of these.
    attempts: [usize; 3],
}

async fn outage(how: Outage) -> Seen {
    let rate = sized(1_000, 200);
    let [before, storm, open] = sized([10, 2, 58], [1, 2, 2]).map(Duration::from_secs);
    let (port, origin) = (Port::new(), Origin::default());
    let mut upstream = Some(origin.listen(&port));
    let yaml =
        "routes: [{name: r, path: /, upstream: '${UP}', preset: upstash-vector, cache: {settle: 0s}}]\n";
    let pillion = Pillion::start(yaml, &[("UP", &format!("http://{}", port.address))]).await;

    let begun = Instant::now();
    let load = Open::start(pillion.addr, begun, rate);
    sleep_until(begun + before).await;
    let (gone, well) = (Instant::now(), attempts(&pillion).await);
    match how {
        Outage::Refuses => upstream = None,
        Outage::Says503 => origin.down.store(true, SeqCst),
    }
    sleep_until(gone + storm).await;
    let (opened, stormed) = (Instant::now(), attempts(&pillion).await);
    sleep_until(opened + open).await;
    let (back, spared) = (Instant::now(), attempts(&pillion).await);
    origin.down.store(false, SeqCst);
    let _upstream = upstream.or_else(|| Some(origin.listen(&port)));
    let well_again = Duration::from_secs(1);
    eventually("a second without failures", async || {
        sleep_until(Instant::now() + Duration::from_millis(100)).await;
        back.elapsed() > sized(5, 1) * well_again && last_failure(&load.samples()).elapsed() > well_again
    })
    .await;
    let samples = load.end().await;
    if how == Outage::Says503 {
        assert_eq!(attempts(&pillion).await, origin.requests.load(SeqCst), "both have counted the same");
    }
    let name = format!("outage of {} s at {rate}/s, {how:?}", (storm + open).as_secs());
    Seen { name, samples, times: [begun, gone, opened, back], attempts: [well, stormed, spared] }
}

impl Seen {
    /// Searches that were due from the one time to the other.
    fn due(&self, from: Instant, to: Instant) -> impl Iterator<Item = &Sample> {
        self.samples.iter().filter(move |sample| sample.due >= from && sample.due < to)
    }

    /// All was well before; then nothing was, and the bot was told so by Pillion.
    fn was_an_outage(&self) {
        let [begun, gone, opened, back] = self.times;
        let answered_by = |at: Instant| move |sample: &&Sample| sample.due + sample.took < at;
        assert!(self.due(begun, gone).filter(answered_by(gone)).all(|sample| sample.status == 200));
        let (mut told, mut others) = (0, 0);
        for sample in self.due(opened, back).filter(answered_by(back)) {
            assert!(matches!(sample.status, 502 | 503), "{sample:?}");
            // A probe has the failure's own answer.
            *(if sample.status == 503 { &mut told } else { &mut others }) += 1;
        }
        assert!(others * 50 <= told, "{told} of 503, {others} others");
    }

    fn verdict(&self) {
        self.was_an_outage();
        let [_, gone, opened, back] = self.times;
        let [well, stormed, spared] = self.attempts;
        let row =
            |what: &str, bar: &str, seen: String, ok| row(&format!("{}: {what}", self.name), bar, seen, ok);

        let calls = (stormed - well) as f64 / self.due(gone, opened).count() as f64;
        row("upstream calls a search, first 2 s", "<= 1.1", format!("{calls:.4}"), calls <= 1.1);
        let calls = (spared - stormed) as f64 / self.due(opened, back).count() as f64;
        row("upstream calls a search, from then on", "<= 0.02", format!("{calls:.4}"), calls <= 0.02);

        // A machine that is busy with other tests says nothing about how fast it is.
        if !full() {
            return;
        }
        let mut times: Vec<Duration> = self.due(opened, back).map(|sample| sample.took).collect();
        times.sort_unstable();
        let p99 = times[times.len() * 99 / 100];
        row(
            "p99 of an answer, from then on",
            "<= 5 ms",
            format!("{p99:.2?}"),
            p99 <= Duration::from_millis(5),
        );
        let healthy = last_failure(&self.samples).saturating_duration_since(back);
        row(
            "last failure after its return",
            "<= 2 s",
            format!("{healthy:.2?}"),
            healthy <= Duration::from_secs(2),
        );
    }
}

/// When the last failed search was answered.
fn last_failure(samples: &[Sample]) -> Instant {
    let failed = samples.iter().filter(|sample| sample.status != 200);
    failed.map(|sample| sample.due + sample.took).max().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_are_refused() {
    outage(Outage::Refuses).await.verdict();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_are_503() {
    outage(Outage::Says503).await.verdict();
}
