//! A hit is the miss that stored it, byte for byte; and a piece of an answer is never one.

use std::collections::{BTreeMap, HashMap};

use crate::support::{Answer, Client, Pillion, Response, Step, Upstream};

const CLIENTS: u64 = 4;
const ANSWERS: u64 = 10_000 / CLIENTS;

/// Any content of a path may be stored.
const ANYTHING: &str = "
routes:
  - name: r
    path: /
    upstream: '${UP}'
    retry: {enabled: false}
    cache: {settle: 0s}
    rules: [{name: q, path: '^/q/', operation: search, action: cache, idempotent: true}]
";

/// What the product says, in any number, beside what is of one exchange.
const FIELDS: [&str; 8] =
    ["content-type", "x-product", "etag", "last-modified", "cache-control", "link", "x-shard", "expires"];
const OF_THE_EXCHANGE: [&str; 10] = [
    "age",
    "alt-svc",
    "cf-ray",
    "date",
    "nel",
    "request-id",
    "retry-after",
    "server-timing",
    "x-ratelimit-remaining",
    "x-request-id",
];
/// What Pillion says of each exchange.
const OURS: [&str; 5] = ["age", "cache-status", "server-timing", "x-request-id", "x-response-time"];

fn random_answer(dice: &mut fastrand::Rng) -> (Vec<(&'static str, String)>, Vec<u8>, bool) {
    let mut fields = Vec::new();
    for _ in 0..dice.usize(..8) {
        let value: String = (0..dice.usize(..20)).map(|_| dice.char(' '..='~')).collect();
        fields.push((FIELDS[dice.usize(..FIELDS.len())], value.trim().to_owned()));
    }
    for _ in 0..dice.usize(..4) {
        fields.push((OF_THE_EXCHANGE[dice.usize(..OF_THE_EXCHANGE.len())], dice.u32(..).to_string()));
    }
    let length = if dice.u8(..20) == 0 { dice.usize(..40_000) } else { dice.usize(..1000) };
    (fields, (0..length).map(|_| dice.u8(..)).collect(), dice.bool())
}

fn answer(seed: u64) -> Answer {
    let (fields, content, chunked) = random_answer(&mut fastrand::Rng::with_seed(seed));
    let fields: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
    if chunked {
        let chunks: Vec<&[u8]> = content.chunks(content.len() / 3 + 1).collect();
        Answer::chunked(200, &fields, &chunks)
    } else {
        Answer::with(200, &fields, &content)
    }
}

/// The fields by name, the values of one name in their order, without those of the exchange.
fn product(answer: &Response) -> BTreeMap<&str, Vec<&str>> {
    let mut fields: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (name, value) in &answer.headers {
        if !OF_THE_EXCHANGE.contains(&name.as_str()) && !OURS.contains(&name.as_str()) {
            fields.entry(name).or_default().push(value);
        }
    }
    fields
}

async fn compare(addr: std::net::SocketAddr, seeds: std::ops::Range<u64>) {
    let mut client = Client::connect(addr).await;
    for seed in seeds {
        let path = format!("/q/{seed}");
        let miss = client.exchange("POST", &path, &[], "{}").await;
        let hit = client.exchange("POST", &path, &[], "{}").await;
        let told = (miss.cache(), hit.is_hit(), miss.status, hit.status);
        assert_eq!(told, ("pillion; fwd=miss; stored", true, 200, 200), "{seed}");
        assert_eq!(miss.body, hit.body, "{seed}");
        assert_eq!(product(&miss), product(&hit), "{seed}");
        assert_eq!(miss.body, random_answer(&mut fastrand::Rng::with_seed(seed)).1, "{seed}");
        for name in ["x-request-id", "x-response-time", "cache-status", "server-timing", "age"] {
            assert!(hit.header(name).is_some(), "{seed}: {name}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hit_is_the_miss_that_stored_it_byte_for_byte() {
    let upstream =
        Upstream::answering(|seen| answer(seen.target.rsplit('/').next().unwrap().parse().unwrap())).await;
    let pillion = Pillion::start(ANYTHING, &[("UP", &upstream.url())]).await;
    let clients: Vec<_> =
        (0..CLIENTS).map(|n| tokio::spawn(compare(pillion.addr, n * ANSWERS..(n + 1) * ANSWERS))).collect();
    for client in clients {
        client.await.unwrap();
    }
    assert_eq!(upstream.count() as u64, CLIENTS * ANSWERS);
}

/// JSON of 4 KiB in each framing, whole.
fn framed() -> [Answer; 3] {
    let text = format!(r#"{{"result":["{}"]}}"#, "x".repeat(4096 - 15));
    assert_eq!(text.len(), 4096);
    let json = [("content-type", "application/json")];
    [
        Answer::with(200, &json, &text),
        Answer::chunked(200, &json, &text.as_bytes().chunks(1000).collect::<Vec<_>>()),
        Answer::until_close(200, &json, &text),
    ]
}

async fn ask_for_pieces(addr: std::net::SocketAddr, framing: usize, cuts: Vec<usize>) -> HashMap<u16, usize> {
    let mut statuses = HashMap::new();
    let mut client = Client::connect(addr).await;
    for cut in cuts {
        let got = client.exchange("POST", &format!("/query/{framing}-{cut}"), &[], "{}").await;
        assert!(!got.cache().contains("stored"), "framing {framing} cut at {cut}: {got:?}");
        *statuses.entry(got.status).or_default() += 1;
        if !got.complete {
            client = Client::connect(addr).await;
        }
    }
    statuses
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_piece_of_an_answer_of_4_kib_is_ever_stored() {
    let (lengths, mut failed) = (framed().map(|answer| answer.len()), 0);
    let upstream = Upstream::answering(|seen| {
        let (framing, cut) = seen.target.trim_start_matches("/query/").split_once('-').unwrap();
        let answer = framed().into_iter().nth(framing.parse().unwrap()).unwrap();
        answer.cut_with(cut.parse().unwrap(), Step::Close)
    })
    .await;
    let lines = ["retry: {enabled: false}", "cache: {settle: 0s}"];
    let pillion = Pillion::route("upstash-vector", &upstream, &lines).await;
    let mut asking = Vec::new();
    for (framing, length) in lengths.into_iter().enumerate() {
        for part in 0..2 {
            let cuts = (0..length).filter(|cut| cut % 2 == part).collect();
            asking.push((framing, tokio::spawn(ask_for_pieces(pillion.addr, framing, cuts))));
        }
    }
    for (framing, asking) in asking {
        let statuses = asking.await.unwrap();
        // What ends with its connection cannot be told from what was cut, so it is passed.
        assert_eq!(statuses.contains_key(&200), framing == 2, "{framing}: {statuses:?}");
        failed += statuses.get(&502).copied().unwrap_or(0);
    }
    assert!(failed > lengths[0] + lengths[1], "most of them are failures");
    assert_eq!(pillion.metric("pillion_cache_entries", &[]).await, 0.0);
    // The whole is, where its end can be told.
    for (framing, stored) in
        [(0, "pillion; fwd=miss; stored"), (1, "pillion; fwd=miss; stored"), (2, "pillion; fwd=miss")]
    {
        let path = format!("/query/{framing}-{}", lengths[framing]);
        assert_eq!(pillion.post(&path, "{}").await.cache(), stored);
    }
    assert_eq!(pillion.metric("pillion_cache_entries", &[]).await, 2.0);
}
