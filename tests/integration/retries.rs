//! What is attempted again, of more requests than the one of each class that `matrix` tries everything on.

use std::time::Duration;

use crate::support::relay::refusing;
use crate::support::{Answer, Pillion, Response, Step, Upstream, advance, eventually};

const ATTEMPTS: usize = 4;
const FIRST_BYTE: Duration = Duration::from_secs(5);

/// A kind of request, as design.md section 2 tells them apart.
struct Case {
    name: &'static str,
    preset: &'static str,
    method: &'static str,
    target: &'static str,
    /// Members of its content beside the one that makes every request another.
    members: &'static str,
    bears: Bears,
    /// A success is read to its end before the client gets any of it.
    held: bool,
}

/// What may be attempted again.
#[derive(Clone, Copy, PartialEq)]
enum Bears {
    /// Anything that an attempt could mend.
    All,
    /// As its SDK would: anything but a timeout.
    Chat,
    /// 429 and 503 only.
    Refusals,
    /// What was never sent.
    Nothing,
}

const CASE: Case = Case {
    name: "",
    preset: "openai",
    method: "POST",
    target: "",
    members: "",
    bears: Bears::Nothing,
    held: false,
};

const CASES: [Case; 12] = [
    Case {
        name: "search",
        preset: "upstash-vector",
        target: "/query",
        bears: Bears::All,
        held: true,
        ..CASE
    },
    Case {
        name: "upsert",
        preset: "upstash-vector",
        target: "/upsert/ns",
        bears: Bears::All,
        held: true,
        ..CASE
    },
    Case {
        name: "delete by id",
        preset: "upstash-vector",
        target: "/delete",
        members: r#","ids":["a"]"#,
        bears: Bears::All,
        held: true,
        ..CASE
    },
    Case {
        name: "delete by filter",
        preset: "upstash-vector",
        target: "/delete",
        members: r#","filter":"a = 1""#,
        held: true,
        ..CASE
    },
    Case { name: "update", preset: "upstash-vector", target: "/update", held: true, ..CASE },
    Case { name: "embeddings", target: "/v1/embeddings", bears: Bears::All, ..CASE },
    Case { name: "chat", target: "/v1/chat/completions", bears: Bears::Chat, ..CASE },
    Case { name: "anthropic", preset: "anthropic", target: "/v1/messages", bears: Bears::Chat, ..CASE },
    Case {
        name: "chat with store",
        target: "/v1/chat/completions",
        members: r#","store":true"#,
        bears: Bears::Refusals,
        ..CASE
    },
    Case { name: "responses", target: "/v1/responses", bears: Bears::Refusals, ..CASE },
    Case { name: "other POST", preset: "http", target: "/x", ..CASE },
    Case { name: "other GET", preset: "http", method: "GET", target: "/x", ..CASE },
];

/// A way to fail that some class bears and another does not.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Failure {
    Status(u16),
    /// No head within `first_byte`.
    Stall,
}

const FAILURES: [Failure; 3] = [Failure::Status(500), Failure::Status(503), Failure::Stall];

const REFUSAL: &str = r#"{"error":{"message":"not now","type":"server_error"}}"#;

impl Failure {
    fn answer(self) -> Answer {
        match self {
            Failure::Status(status) => Answer::status(status, REFUSAL),
            Failure::Stall => Answer::hang(),
        }
    }

    /// What the design says, and nothing of how the code decides.
    fn is_retried(self, case: &Case) -> bool {
        match case.bears {
            Bears::All => true,
            Bears::Chat => self != Failure::Stall,
            Bears::Refusals => self == Failure::Status(503),
            Bears::Nothing => false,
        }
    }
}

impl Case {
    async fn pillion(&self, upstream: &Upstream) -> Pillion {
        let more = ["retry: {base: 1ms}", "timeouts: {first_byte: 5s, total: 1m}"];
        Pillion::route(self.preset, upstream, &more).await
    }

    /// The `number`th request. Stalls are not waited for: the clock is moved on.
    async fn ask(&self, pillion: &Pillion, upstream: &Upstream, number: usize, stalls: usize) -> Response {
        let body =
            format!(r#"{{"n":{number}{},"messages":[{{"role":"user","content":"a"}}]}}"#, self.members);
        let body = if self.method == "GET" { String::new() } else { body };
        let before = upstream.count();
        let mut client = pillion.connect().await;
        client.ask(self.method, self.target, &[], &body).await;
        for stall in 1..=stalls {
            upstream.seen(before + stall).await;
            advance(FIRST_BYTE).await;
        }
        let response = client.response().await;
        let sent = &upstream.requests()[before..];
        assert!(!sent.is_empty(), "{}", self.name);
        for request in sent {
            assert_eq!(request.text(), body, "{}: every attempt has the same content", self.name);
            assert_eq!(request.target, self.target);
        }
        response
    }
}

#[tokio::test]
async fn every_request_fares_as_its_class_does() {
    for case in &CASES {
        let upstream = Upstream::start().await;
        let pillion = case.pillion(&upstream).await;
        for (number, failure) in FAILURES.into_iter().enumerate() {
            let what = format!("{} {failure:?}", case.name);
            let expected = if failure.is_retried(case) { ATTEMPTS } else { 1 };
            let before = upstream.count();
            for _ in 0..expected {
                upstream.push(failure.answer());
            }
            let stalls = if failure == Failure::Stall { expected } else { 0 };
            let response = case.ask(&pillion, &upstream, number, stalls).await;
            assert_eq!(upstream.count() - before, expected, "{what}");
            assert!(response.complete, "{what}");
            match failure {
                Failure::Status(status) => {
                    assert_eq!((response.status, response.text().as_str()), (status, REFUSAL), "{what}");
                    assert_eq!(response.header("proxy-status"), None, "{what}");
                }
                Failure::Stall => assert_failed(&response, 504, "http_response_timeout", &what),
            }
            let timing = response.all("server-timing").join(", ");
            assert!(timing.contains(&format!("attempts;desc={expected}")), "{what}: {timing}");
            assert_eq!(timing.contains("backoff;dur="), expected > 1, "{what}: {timing}");
            // The bot's SDK stops where we have done its work, and is not stopped where we left it undone.
            let stop = (expected == ATTEMPTS).then_some("false");
            assert_eq!(response.header("x-should-retry"), stop, "{what}");
        }
    }
}

fn assert_failed(response: &Response, status: u16, word: &str, what: &str) {
    assert_eq!(response.status, status, "{what}: {}", response.text());
    let told = response.header("proxy-status").unwrap_or_default();
    assert!(told.starts_with(&format!("pillion; error={word};")), "{what}: {told}");
    assert!(response.text().contains(word), "{what}: {}", response.text());
}

/// Held content is attempted again when it breaks off; content that streams is committed with its head.
#[tokio::test]
async fn content_that_breaks_off_is_attempted_again_where_it_is_held() {
    let whole = || Answer::ok(r#"{"result":[{"id":"a","score":0.5}]}"#);
    let chunked = || {
        let json = [("content-type", "application/json")];
        Answer::chunked(200, &json, &[r#"{"result":["#, r#"{"id":"a"}"#, "]}"])
    };
    for case in &CASES {
        let upstream = Upstream::start().await;
        let pillion = case.pillion(&upstream).await;
        let mut number = 0;
        for end in [|| Step::Close, || Step::Reset] {
            let cut = |answer: Answer| {
                let length = answer.len() - 5;
                answer.cut_with(length, end())
            };
            for (framing, answer) in [("length", &whole as &dyn Fn() -> Answer), ("chunks", &chunked)] {
                let what = format!("{} {:?} {framing}", case.name, end());
                let retried = case.held && case.bears == Bears::All;
                number += 1;
                // Once: mended. Always: told as what it is, never as a whole answer.
                upstream.push(cut(answer()));
                if retried {
                    upstream.push(answer());
                }
                let before = upstream.count();
                let response = case.ask(&pillion, &upstream, number, 0).await;
                assert_eq!(upstream.count() - before, 1 + usize::from(retried), "{what}");
                match (case.held, retried) {
                    (true, true) => {
                        assert!(response.complete && response.status == 200, "{what}");
                        assert!(response.text().ends_with("]}"), "{what}: {}", response.text());
                    }
                    (true, false) => assert_failed(&response, 502, "http_response_incomplete", &what),
                    (false, _) => assert!(!response.complete && response.status == 200, "{what}"),
                }
                if retried {
                    (0..ATTEMPTS).for_each(|_| upstream.push(cut(answer())));
                    let response = case.ask(&pillion, &upstream, number + 100, 0).await;
                    assert_failed(&response, 502, "http_response_incomplete", &what);
                    assert_eq!(response.header("x-should-retry"), Some("false"), "{what}");
                }
            }
        }
    }
}

/// An upstream that restarts: what comes meanwhile waits for it, even what is sent once only.
#[tokio::test]
async fn an_upstream_that_comes_back_answers_what_was_never_sent() {
    let (socket, address) = refusing();
    let yaml = format!(
        "routes: [{{name: r, path: /, upstream: 'http://{address}', preset: http, retry: {{base: 100ms, factor: 1, attempts: 10}}}}]\n"
    );
    let pillion = Pillion::start(&yaml, &[]).await;
    let mut client = pillion.connect().await;
    client.ask("POST", "/x", &[], "once").await;
    eventually("a refused attempt", async || pillion.metric("pillion_retries_total", &[]).await >= 1.0).await;
    let upstream = Upstream::on(socket.listen(16).unwrap(), |_| Answer::ok("here again"));
    let response = client.response().await;
    assert_eq!((response.status, response.text().as_str()), (200, "here again"));
    assert_eq!(upstream.count(), 1);
    assert_eq!(upstream.last().text(), "once");
}
