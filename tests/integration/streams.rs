//! Streamed answers: each event leaves as it came, a cut one never looks whole, and tokens are counted on the way.

use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior};

use crate::support::fair::Moment;
use crate::support::{Answer, Client, Gate, Pillion, Step, Upstream, advance, client, eventually};

const CHAT: &str = "/v1/chat/completions";
const ASKED: &str = r#"{"stream":true,"messages":[{"role":"user","content":"a"}]}"#;
const SSE: [(&str, &str); 1] = [("content-type", "text/event-stream; charset=utf-8")];

fn event(number: usize) -> String {
    format!("data: {{\"choices\":[{{\"delta\":{{\"content\":\"{number:04}\"}}}}]}}\n\n")
}

/// A chunk as hyper frames it.
fn framed(content: impl AsRef<[u8]>) -> Vec<u8> {
    let content = content.as_ref();
    [format!("{:X}\r\n", content.len()).as_bytes(), content, b"\r\n"].concat()
}

/// Reads the head of a streamed answer.
async fn streaming(pillion: &Pillion) -> Client {
    let mut client = pillion.connect().await;
    client.ask("POST", CHAT, &[], ASKED).await;
    let head = client.head().await.expect("a head");
    assert_eq!(head.status, 200);
    assert_eq!(head.header("content-type"), Some(SSE[0].1));
    client
}

/// A hundred events, one each 20 ms. Sent and received are taken on one thread by one clock, and time that the system
/// gave to others while this thread was ready to run does not count: a proxy that holds events back still is caught.
#[tokio::test]
async fn every_event_arrives_within_five_milliseconds_of_its_sending() {
    const EVENTS: usize = 100;
    const LIMIT: Duration = Duration::from_millis(5);
    let upstream = Upstream::start().await;
    let pillion = Pillion::route("openai", &upstream, &[]).await;
    let (feed, answer) = Answer::fed(200, &SSE);
    upstream.push(answer);
    let mut client = streaming(&pillion).await;

    let sending = tokio::spawn(async move {
        let mut ticks = tokio::time::interval(Duration::from_millis(20));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut sent = Vec::with_capacity(EVENTS);
        for number in 0..EVENTS {
            ticks.tick().await;
            sent.push(Moment::now());
            feed.send(Answer::chunk(event(number))).unwrap();
        }
        feed.send(b"0\r\n\r\n".to_vec()).unwrap();
        sent
    });
    let (mut received, mut text) = (Vec::with_capacity(EVENTS), String::new());
    while !text.ends_with("0\r\n\r\n") {
        let bytes = client.take(1).await;
        assert!(!bytes.is_empty(), "cut after {} events", received.len());
        let now = Moment::now();
        text += std::str::from_utf8(&bytes).unwrap();
        let whole = text.matches("\n\n").count();
        received.resize(whole, now);
    }
    let sent = sending.await.unwrap();
    assert_eq!(received.len(), EVENTS);

    let delays = |between: fn(Moment, Moment) -> Duration| {
        let mut all: Vec<Duration> =
            received.iter().zip(&sent).map(|(to, from)| between(*to, *from)).collect();
        all.sort();
        all
    };
    let (raw, fair) = (delays(Moment::since), delays(Moment::fairly_since));
    println!(
        "{EVENTS} events: p50 {:?}, max {:?}; without time given to others: max {:?}",
        raw[EVENTS / 2],
        raw[EVENTS - 1],
        fair[EVENTS - 1]
    );
    assert!(fair[EVENTS - 1] < LIMIT, "{fair:?}");
}

#[tokio::test]
async fn chunks_are_neither_merged_nor_split() {
    let upstream = Upstream::start().await;
    let pillion = Pillion::route("openai", &upstream, &[]).await;
    let mut sent: Vec<String> = (0..50).map(event).collect();
    // Half an event, an empty line alone, and one larger than most buffers.
    sent.extend(["data: ha".to_owned(), "lf\n".to_owned(), "\n".to_owned(), event(1).repeat(100), event(51)]);
    // All at once: what can be merged is merged now.
    upstream.push(Answer::chunked(200, &SSE, &sent));
    let mut client = streaming(&pillion).await;
    let mut wire = Vec::new();
    while !wire.ends_with(b"\r\n0\r\n\r\n") {
        let bytes = client.take(1).await;
        assert!(!bytes.is_empty(), "cut");
        wire.extend(bytes);
    }
    let expected: Vec<u8> = sent.iter().flat_map(framed).chain(*b"0\r\n\r\n").collect();
    assert_eq!(client::dechunk(&wire).unwrap().0, sent.concat().into_bytes());
    assert_eq!(wire, expected);
}

/// However an upstream breaks off, the client's own answer breaks off.
#[tokio::test]
async fn a_truncated_stream_is_an_aborted_response() {
    let events: Vec<String> = (0..3).map(event).collect();
    let plain = || Answer::with(200, &SSE, events.concat());
    let chunked = || Answer::chunked(200, &SSE, &events);
    let upstream = Upstream::start().await;
    let pillion = Pillion::route("openai", &upstream, &[]).await;
    let mut cut = 0;
    // At the last chunk, within the last event, and right behind an event's end.
    for missing in [1, 5, 7, events[2].len() / 2, events[2].len() + 11] {
        for end in [|| Step::Close, || Step::Reset] {
            for answer in [&plain as &dyn Fn() -> Answer, &chunked] {
                let answer = answer();
                let length = answer.len() - missing;
                upstream.push(answer.cut_with(length, end()));
                let response = pillion.post(CHAT, ASKED).await;
                let what = format!("{missing} missing, {:?}", end());
                assert_eq!(response.status, 200, "{what}");
                assert!(!response.complete, "{what}: {}", response.text());
                assert!(events.concat().starts_with(&response.text()), "{what}");
                cut += 1;
            }
        }
    }
    assert_eq!(upstream.count(), cut, "once committed nothing is attempted again");
    let errors = "pillion_errors_total";
    pillion.metric_is(errors, &[("error", "http_response_incomplete")], cut as f64).await;
    pillion.metric_is("pillion_client_gone_total", &[], 0.0).await;
    pillion.metric_is("pillion_in_flight", &[], 0.0).await;
}

#[tokio::test]
async fn what_ends_with_its_connection_is_whole() {
    let upstream = Upstream::start().await;
    let pillion = Pillion::route("openai", &upstream, &[]).await;
    upstream.push(Answer::until_close(200, &SSE, event(1)));
    let response = pillion.post(CHAT, ASKED).await;
    assert!(response.complete);
    assert_eq!(response.text(), event(1));
    pillion.metric_is("pillion_errors_total", &[], 0.0).await;
}

/// The head and each event are there while the upstream waits.
#[tokio::test]
async fn nothing_is_held_back() {
    let upstream = Upstream::start().await;
    let pillion = Pillion::route("openai", &upstream, &[]).await;
    let (feed, answer) = Answer::fed(200, &SSE);
    upstream.push(answer);
    let mut client = streaming(&pillion).await;
    for number in 0..20 {
        let chunk = framed(event(number));
        feed.send(chunk.clone()).unwrap();
        assert_eq!(client.take(chunk.len()).await, chunk);
    }
    pillion.metric_is("pillion_in_flight", &[("operation", "chat")], 1.0).await;
    feed.send(b"0\r\n\r\n".to_vec()).unwrap();
    assert_eq!(client.take(5).await, b"0\r\n\r\n");
    pillion.metric_is("pillion_in_flight", &[], 0.0).await;
}

#[tokio::test]
async fn a_stream_may_take_longer_than_the_whole_request_may_wait() {
    let upstream = Upstream::start().await;
    let more = ["timeouts: {total: 10s, first_byte: 10s, idle: 8s}"];
    let pillion = Pillion::route("openai", &upstream, &more).await;
    let (feed, answer) = Answer::fed(200, &SSE);
    upstream.push(answer);
    let mut client = pillion.connect().await;
    client.ask("POST", CHAT, &[("x-stainless-read-timeout", "10")], ASKED).await;
    assert_eq!(client.head().await.unwrap().status, 200);
    let begun = Instant::now();
    for number in 0..10 {
        advance(Duration::from_secs(7)).await;
        let chunk = framed(event(number));
        feed.send(chunk.clone()).unwrap();
        assert_eq!(client.take(chunk.len()).await, chunk);
    }
    assert!(begun.elapsed() >= Duration::from_secs(70));
    // But not be silent for longer than `idle`.
    advance(Duration::from_secs(9)).await;
    assert_eq!(client.end().await, b"");
    pillion.metric_is("pillion_errors_total", &[("error", "http_response_timeout")], 1.0).await;
    upstream.closed(0).await;
}

/// A client that reads nothing holds its own stream up, and no other.
#[tokio::test]
async fn a_slow_reader_is_waited_for() {
    let upstream = Upstream::start().await;
    let pillion = Pillion::route("openai", &upstream, &[]).await;
    let large = event(1).repeat(400_000);
    upstream.push(Answer::with(200, &SSE, &large));
    let mut slow = pillion.connect().await;
    slow.ask("POST", CHAT, &[], ASKED).await;
    upstream.seen(1).await;
    upstream.push(Answer::with(200, &SSE, event(2)));
    assert_eq!(pillion.post(CHAT, ASKED).await.text(), event(2));
    pillion.metric_is("pillion_in_flight", &[("operation", "chat")], 1.0).await;
    let response = slow.response().await;
    assert!(response.complete);
    assert_eq!(response.body.len(), large.len());
    assert!(response.text() == large);
}

#[tokio::test]
async fn tokens_of_streams_are_counted() {
    let openai = [
        "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}],\"usage\":null}\n\n",
        "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":31,\"completion_tokens\":7,\"prompt_tokens_details\":{\"cached_tokens\":16}}}\n\n",
        "data: [DONE]\n\n",
    ];
    let anthropic = [
        "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"usage\":{\"input_tokens\":5,\
         \"cache_read_input_tokens\":16,\"cache_creation_input_tokens\":10,\"output_tokens\":1}}}\n\n",
        "event: content_block_delta\ndata: {\"type\":\"content_block_delta\"}\n\n",
        "event: message_delta\ndata: {\"type\":\"message_delta\",\"usage\":{\"output_tokens\":7}}\n\n",
    ];
    for (preset, target, events) in [("openai", CHAT, openai), ("anthropic", "/v1/messages", anthropic)] {
        let upstream = Upstream::start().await;
        let pillion = Pillion::route(preset, &upstream, &[]).await;
        upstream.push(Answer::chunked(200, &SSE, &events));
        let response = pillion.post(target, ASKED).await;
        assert_eq!(response.text(), events.concat());
        assert_eq!(upstream.last().header("accept-encoding"), Some("identity"), "{preset}");
        for (kind, count) in [("prompt", 31.0), ("completion", 7.0), ("cached", 16.0)] {
            let labels = [("route", "r"), ("operation", "chat"), ("kind", kind)];
            pillion.metric_is("pillion_tokens_total", &labels, count).await;
        }
    }
}

/// What was told before a stream broke off was used, and is paid for.
#[tokio::test]
async fn tokens_of_a_stream_that_the_client_left_are_counted() {
    let upstream = Upstream::start().await;
    let pillion = Pillion::route("openai", &upstream, &[]).await;
    let gate = Gate::new();
    let told = framed("data: {\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":2}}\n\n");
    let (feed, answer) = Answer::fed(200, &SSE);
    feed.send(told.clone()).unwrap();
    upstream.push(answer.then(Step::Wait(gate)));
    let mut client = streaming(&pillion).await;
    assert_eq!(client.take(told.len()).await, told);
    drop(client);
    eventually("the tokens", async || {
        (pillion.metric("pillion_tokens_total", &[("kind", "prompt")]).await - 3.0).abs() < 0.1
    })
    .await;
    pillion.metric_is("pillion_client_gone_total", &[("operation", "chat")], 1.0).await;
}
