//! A key that passes through leaves no trace. In a process of its own, because the log of a process is one.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::io::Write;
use std::sync::{Arc, Mutex};

use support::{Answer, Pillion, Upstream, client};

#[cfg(test)]
mod support;

const KEY: &str = "sk-canary-7f3a91c2";

/// A log kept in memory.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_key_is_in_no_log_no_metric_no_error_and_no_page() {
    let log = Log::default();
    let writer = log.clone();
    // Everything there is, the lines of pingora and of the libraries included.
    tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(move || writer.clone())
        .with_ansi(false)
        .init();

    let upstream = Upstream::start().await;
    let yaml = "
admin: {listen: '127.0.0.1:0', token: '${KEY}'}
defaults: {retry: {base: 0ms}, limits: {max_body: 4KiB}}
routes:
  - {name: o, path: /o, upstream: '${UP}', preset: openai}
  - {name: v, path: /v, upstream: '${UP}', preset: upstash-vector}
  - {name: dead, path: /dead, upstream: 'http://127.0.0.1:1', preset: anthropic}
";
    let pillion = Pillion::start(yaml, &[("UP", &upstream.url()), ("KEY", KEY)]).await;
    let headers = [
        ("authorization", &*format!("Bearer {KEY}")),
        ("api-key", KEY),
        ("x-api-key", KEY),
        ("cookie", KEY),
        ("proxy-authorization", KEY),
        ("x-conversation-id", KEY),
        ("pillion-cache", KEY),
        ("user-agent", KEY),
    ];
    let body = format!(r#"{{"model":"{KEY}","messages":[{{"role":"user","content":"{KEY}"}}]}}"#);
    let mut texts = Vec::new();
    let mut ask = async |method: &str, target: &str, body: &str, answers: Vec<Answer>| {
        for answer in answers {
            upstream.push(answer);
        }
        let answer = client::exchange(pillion.addr, method, target, &headers, body).await;
        let fields = answer.headers.iter().map(|(name, value)| format!("{name}: {value}\n"));
        texts.push(format!("{target} {} {}", fields.collect::<String>(), answer.text()));
        answer.status
    };
    let chat = format!("/o/v1/chat/completions?key={KEY}");
    assert_eq!(ask("POST", &chat, &body, vec![Answer::ok("{}")]).await, 200);
    assert_eq!(ask("POST", &chat, &body, vec![Answer::status(503, "{}"), Answer::ok("{}")]).await, 200);
    let resets = || (0..4).map(|_| Answer::reset()).collect();
    assert_eq!(ask("POST", &chat, &body, resets()).await, 502);
    let nonsense = || (0..4).map(|_| Answer::raw(format!("{KEY}\r\n\r\n"))).collect();
    assert_eq!(ask("POST", &chat, &body, nonsense()).await, 502);
    for _ in 0..2 {
        let found = vec![Answer::ok(r#"{"result":[1]}"#)];
        assert_eq!(ask("POST", &format!("/v/query/{KEY}"), &body, found).await, 200);
    }
    upstream.push(Answer::ok("{}"));
    assert_eq!(ask("POST", &format!("/v/upsert/{KEY}"), &body, vec![]).await, 200);
    assert_eq!(ask("POST", &format!("/dead/v1/messages?{KEY}"), &body, vec![]).await, 502);
    assert_eq!(ask("GET", &format!("/{KEY}"), "", vec![]).await, 404);
    assert_eq!(ask("GET", &format!("/o/../{KEY}"), "", vec![]).await, 400);
    assert_eq!(ask("POST", &chat, &KEY.repeat(1000), vec![]).await, 413);
    assert_eq!(ask("CONNECT", &format!("{KEY}:443"), "", vec![]).await, 501);
    let mut broken = pillion.connect().await;
    broken.send(format!("POST /o HTTP/1.1\r\nhost: x\r\nauthorization: {KEY}\r\n: {KEY}\r\n\r\n")).await;
    texts.push(String::from_utf8_lossy(&broken.end().await).into_owned());
    let mut left = pillion.connect().await;
    left.send(format!(
        "POST {chat} HTTP/1.1\r\nhost: x\r\nauthorization: {KEY}\r\ncontent-length: 99\r\n\r\n{KEY}"
    ))
    .await;
    pillion.metric_is("pillion_in_flight", &[], 1.0).await;
    drop(left);
    pillion.metric_is("pillion_in_flight", &[], 0.0).await;

    let token = [("authorization", &*format!("Bearer {KEY}"))];
    for page in ["/metrics", "/summary", "/config", "/", "/nowhere"] {
        let answer = pillion.admin_with("GET", page, &token).await;
        assert_ne!(answer.status, 401);
        texts.push(answer.text());
    }
    for text in &texts {
        // The targets that this test wrote before the answers are its own.
        let text = text.split_once(' ').map_or(text.as_str(), |(_, answer)| answer);
        assert!(!text.contains("canary"), "{text}");
    }
    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(log.contains("request"), "the log was kept: {log}");
    assert!(log.contains(" TRACE ") || log.contains(" DEBUG "), "and fully: {log}");
    let told: Vec<_> = log.lines().filter(|line| line.contains("canary")).collect();
    assert!(told.is_empty(), "{} lines of the log tell it, such as {}", told.len(), told[0]);
    assert!(upstream.requests().iter().any(|seen| seen.header("api-key") == Some(KEY)), "it was forwarded");
}
