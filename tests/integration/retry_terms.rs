//! What bounds attempts: the upstream's word, the client's deadline, its own retries, billing; and what the bot's SDK is
//! told to do then.

use std::time::{Duration, Instant};

use crate::support::{Answer, Pillion, Upstream, advance};

const CHAT: &str = "/v1/chat/completions";
const BODY: &str = r#"{"model":"m","messages":[{"role":"user","content":"a"}]}"#;
const BUSY: &str = r#"{"error":{"message":"busy"}}"#;

/// An upstream that always gives this answer, and a Pillion before it.
async fn always(
    preset: &str,
    more: &[&str],
    answer: impl Fn() -> Answer + Send + Sync + 'static,
) -> (Upstream, Pillion) {
    let upstream = Upstream::answering(move |_| answer()).await;
    let pillion = Pillion::route(preset, &upstream, more).await;
    (upstream, pillion)
}

fn refused(
    status: u16,
    headers: &'static [(&'static str, &'static str)],
) -> impl Fn() -> Answer + Send + Sync {
    move || Answer::with(status, headers, BUSY)
}

#[tokio::test]
async fn retry_after_is_a_floor_under_every_back_off() {
    const FLOOR: Duration = Duration::from_millis(60);
    for name in ["retry-after-ms", "retry-after"] {
        let value = if name == "retry-after" { "0.06" } else { "60" };
        let upstream = Upstream::answering(move |_| Answer::with(503, &[(name, value)], BUSY)).await;
        let pillion = Pillion::route("openai", &upstream, &["retry: {base: 1ms}"]).await;
        let response = pillion.post(CHAT, BODY).await;
        let seen = upstream.requests();
        assert_eq!(seen.len(), 4);
        for pair in seen.windows(2) {
            let waited = pair[1].at - pair[0].at;
            assert!(waited >= FLOOR, "{name}: {waited:?}");
        }
        // Unchanged, for the client to see.
        assert_eq!(response.all(name), [value]);
        let timing = response.all("server-timing").join(", ");
        let backoff: f64 = timing.split("backoff;dur=").nth(1).unwrap().parse().unwrap();
        assert!(backoff >= 180.0, "{timing}");
    }
}

#[tokio::test]
async fn milliseconds_win_over_seconds() {
    let (upstream, pillion) = always(
        "openai",
        &["retry: {base: 1ms}"],
        refused(503, &[("retry-after", "3600"), ("retry-after-ms", "1")]),
    )
    .await;
    pillion.post(CHAT, BODY).await;
    assert_eq!(upstream.count(), 4);
}

#[tokio::test]
async fn a_wait_beyond_max_wait_is_not_begun() {
    for (preset, target, seconds) in [("upstash-vector", "/query", "2"), ("openai", CHAT, "30")] {
        let upstream =
            Upstream::answering(move |_| Answer::with(429, &[("retry-after", seconds)], BUSY)).await;
        let pillion = Pillion::route(preset, &upstream, &[]).await;
        let begun = Instant::now();
        let response = pillion.post(target, BODY).await;
        assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
        assert_eq!((response.status, response.text().as_str()), (429, BUSY));
        assert_eq!(response.header("retry-after"), Some(seconds));
        assert_eq!(response.header("x-should-retry"), None, "the SDK may wait as long as it likes");
        assert!(!response.all("server-timing").join(", ").contains("backoff"));
        assert_eq!(upstream.count(), 1);
        pillion.metric_is("pillion_retries_not_made_total", &[("reason", "max_wait")], 1.0).await;
    }
}

/// `max_wait` bounds the sum of all back-offs, not each.
#[tokio::test]
async fn max_wait_is_spent_over_all_back_offs() {
    let more = ["retry: {base: 1ms, max_wait: 1s, attempts: 10}"];
    let (upstream, pillion) = always("openai", &more, refused(503, &[("retry-after-ms", "400")])).await;
    let response = pillion.post(CHAT, BODY).await;
    assert_eq!(response.status, 503);
    assert_eq!(upstream.count(), 3, "twice 400 ms fit, a third does not");
}

#[tokio::test]
async fn a_wait_beyond_the_clients_deadline_is_not_begun() {
    let (upstream, pillion) = always("openai", &[], refused(503, &[("retry-after", "2")])).await;
    let deadline = [("x-stainless-read-timeout", "1")];
    let begun = Instant::now();
    let response = pillion.post_with(CHAT, &deadline, BODY).await;
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    assert_eq!((response.status, response.text().as_str()), (503, BUSY));
    assert_eq!(response.header("x-should-retry"), Some("false"), "the deadline is over");
    assert_eq!(upstream.count(), 1);
    pillion.metric_is("pillion_retries_not_made_total", &[("reason", "deadline")], 1.0).await;
}

#[tokio::test]
async fn the_clients_deadline_ends_an_attempt() {
    for (preset, target) in [("openai", CHAT), ("openai", "/v1/embeddings"), ("upstash-vector", "/query")] {
        let (upstream, pillion) = always(preset, &[], Answer::hang).await;
        let mut client = pillion.connect().await;
        client.ask("POST", target, &[("x-stainless-read-timeout", "1")], BODY).await;
        upstream.seen(1).await;
        advance(Duration::from_millis(990)).await;
        advance(Duration::from_millis(20)).await;
        let response = client.response().await;
        assert_eq!(response.status, 504, "{target}");
        assert_eq!(response.header("x-should-retry"), Some("false"), "{target}");
        assert_eq!(upstream.count(), 1, "{target}");
        upstream.closed(0).await;
    }
}

#[tokio::test]
async fn what_the_sdk_has_tried_counts() {
    let (upstream, pillion) = always("openai", &["retry: {base: 1ms}"], refused(500, &[])).await;
    for (count, expected) in [("0", 4), ("1", 3), ("2", 2), ("3", 1), ("9", 1), ("x", 4)] {
        let before = upstream.count();
        let response = pillion.post_with(CHAT, &[("x-stainless-retry-count", count)], BODY).await;
        assert_eq!(upstream.count() - before, expected, "{count}");
        assert_eq!(response.header("x-should-retry"), Some("false"), "{count}");
        // The SDK's own field is the provider's to see.
        assert_eq!(upstream.last().header("x-stainless-retry-count"), Some(count));
    }
}

#[tokio::test]
async fn asked_not_to_it_attempts_once() {
    for (preset, target) in [("openai", CHAT), ("upstash-vector", "/query"), ("upstash-vector", "/upsert")] {
        let (upstream, pillion) = always(preset, &["retry: {base: 1ms}"], refused(503, &[])).await;
        let response = pillion.post_with(target, &[("Pillion-Retry", "OFF")], BODY).await;
        assert_eq!((response.status, upstream.count()), (503, 1), "{target}");
        assert_eq!(response.header("x-should-retry"), None, "{target}");
        assert_eq!(upstream.last().header("pillion-retry"), None, "it is for us only");
        pillion.metric_is("pillion_retries_not_made_total", &[("reason", "disabled")], 1.0).await;
    }
    let (upstream, pillion) = always("openai", &["retry: {enabled: false}"], refused(503, &[])).await;
    assert_eq!(pillion.post(CHAT, BODY).await.header("x-should-retry"), None);
    assert_eq!(upstream.count(), 1);
}

#[tokio::test]
async fn what_only_paying_mends_is_asked_once() {
    let openai = [
        "insufficient_quota",
        "credit_balance_exhausted",
        "organization_spend_limit_exceeded",
        "project_spend_limit_exceeded",
        "organization_usage_limit_exceeded",
    ];
    let anthropic = [
        "billing_error",
        "enforced_spend_limit_reached",
        "contract_spend_limit_reached",
        "linked_organization_spend_limit_reached",
    ];
    let mut cases = Vec::new();
    for code in openai {
        cases.push((
            "openai",
            CHAT,
            format!(r#"{{"error":{{"message":"m","type":"{code}","param":null,"code":null}}}}"#),
        ));
        cases.push((
            "openai",
            "/v1/embeddings",
            format!(r#"{{"error":{{"type":"tokens","code":"{code}"}}}}"#),
        ));
        cases.push(("openai", "/v1/responses", format!(r#"{{"error":{{"code":"{code}"}}}}"#)));
    }
    for code in anthropic {
        let messages = "/v1/messages";
        cases.push((
            "anthropic",
            messages,
            format!(r#"{{"type":"error","error":{{"type":"{code}","message":"m"}}}}"#),
        ));
        let detail = format!(
            r#"{{"type":"error","error":{{"type":"rate_limit_error","message":"m","details":{{"error_code":"{code}"}}}}}}"#
        );
        cases.push(("anthropic", messages, detail));
    }
    for (preset, target, told) in cases {
        let answer = told.clone();
        let (upstream, pillion) = always(preset, &[], move || Answer::status(429, &answer)).await;
        let response = pillion.post(target, BODY).await;
        assert_eq!(upstream.count(), 1, "{told}");
        assert_eq!((response.status, response.text()), (429, told.clone()));
        assert_eq!(response.header("x-should-retry"), Some("false"), "{told}");
        pillion.metric_is("pillion_retries_not_made_total", &[("reason", "billing")], 1.0).await;
    }
    // The same words elsewhere, or another status, are no bill.
    for (status, told) in [
        (429, r#"{"error":{"type":"rate_limit_exceeded","message":"insufficient_quota"}}"#),
        (503, r#"{"error":{"type":"insufficient_quota"}}"#),
    ] {
        let (upstream, pillion) =
            always("openai", &["retry: {base: 1ms}"], move || Answer::status(status, told)).await;
        pillion.post(CHAT, BODY).await;
        assert_eq!(upstream.count(), 4, "{status} {told}");
    }
}

#[tokio::test]
async fn the_upstreams_own_word_is_obeyed() {
    let (upstream, pillion) =
        always("openai", &["retry: {base: 1ms}"], refused(503, &[("x-should-retry", "false")])).await;
    let response = pillion.post(CHAT, BODY).await;
    assert_eq!((upstream.count(), response.all("x-should-retry")), (1, vec!["false"]));
    pillion.metric_is("pillion_retries_not_made_total", &[("reason", "upstream_says_no")], 1.0).await;
    // Asked for, attempts are made as ever, and the last word is ours: one, not two.
    let (upstream, pillion) =
        always("openai", &["retry: {base: 1ms}"], refused(503, &[("x-should-retry", "true")])).await;
    let response = pillion.post(CHAT, BODY).await;
    assert_eq!((upstream.count(), response.all("x-should-retry")), (4, vec!["false"]));
    // It does not make a write safe to repeat.
    let (upstream, pillion) = always("http", &[], refused(503, &[("x-should-retry", "true")])).await;
    let response = pillion.post("/x", BODY).await;
    assert_eq!((upstream.count(), response.all("x-should-retry")), (1, vec!["true"]));
}

#[tokio::test]
async fn when_the_sdk_is_told_to_stop() {
    let store = r#"{"store":true,"messages":[]}"#;
    for (setting, status, body, expected) in [
        // Spent.
        ("auto", 503, BODY, Some("false")),
        ("always", 503, BODY, Some("false")),
        ("never", 503, BODY, None),
        // The class forbids it: the SDK decides.
        ("auto", 500, store, None),
        ("always", 500, store, Some("false")),
        ("never", 500, store, None),
        // No attempt would mend it, and the SDK does not know.
        ("auto", 501, BODY, None),
        ("always", 501, BODY, Some("false")),
        ("never", 501, BODY, None),
        // What no SDK retries.
        ("auto", 400, BODY, None),
        ("always", 400, BODY, None),
        ("always", 200, BODY, None),
    ] {
        let retry = format!("retry: {{base: 1ms, stop_sdk: {setting}}}");
        let (_upstream, pillion) = always("openai", &[&retry], refused(status, &[])).await;
        let response = pillion.post(CHAT, body).await;
        assert_eq!(response.status, status);
        assert_eq!(response.header("x-should-retry"), expected, "{setting} {status} {body}");
    }
}

#[tokio::test]
async fn attempts_and_retries_are_counted_by_reason() {
    let upstream = Upstream::answering(|_| Answer::ok("{}")).await;
    let pillion = Pillion::route("openai", &upstream, &["retry: {base: 1ms}"]).await;
    let failures: [fn() -> Answer; 5] = [
        || Answer::status(429, BUSY),
        || Answer::status(500, BUSY),
        || Answer::status(409, BUSY),
        Answer::reset,
        Answer::close,
    ];
    for failure in failures {
        upstream.push(failure());
        assert_eq!(pillion.post("/v1/embeddings", BODY).await.status, 200);
    }
    let of = [("route", "r"), ("operation", "embeddings")];
    pillion.metric_is("pillion_requests_total", &[of[0], of[1], ("status", "2xx")], 5.0).await;
    let metrics = pillion.metrics().await;
    let count = |name, more: &[(&str, &str)]| crate::support::metric(&metrics, name, &[&of, more].concat());
    let counted = [
        count("pillion_upstream_attempts_total", &[]),
        count("pillion_upstream_duration_seconds_count", &[]),
        count("pillion_retries_total", &[("reason", "too_many_requests")]),
        count("pillion_retries_total", &[("reason", "status")]),
        // Each on a connection that had been used.
        count("pillion_retries_total", &[("reason", "reused")]),
        count("pillion_retries_total", &[]),
        count("pillion_retries_not_made_total", &[]),
        count("pillion_errors_total", &[]),
    ];
    assert_eq!(counted.map(|value| value as u64), [10, 10, 1, 2, 2, 5, 0, 0]);
}

/// A conversation that was trimmed is the same to the byte on every attempt.
#[tokio::test]
async fn every_attempt_of_a_trimmed_conversation_is_the_same() {
    let (upstream, pillion) = always("openai", &["retry: {base: 1ms}"], refused(503, &[])).await;
    let messages: Vec<String> = (0..60)
        .map(|n| format!(r#"{{"role": "{}", "content": "{n}"}}"#, ["user", "assistant"][n % 2]))
        .collect();
    let response = pillion.post(CHAT, &format!(r#"{{"messages":[{}]}}"#, messages.join(" , "))).await;
    let seen = upstream.requests();
    assert_eq!(seen.len(), 4);
    assert_eq!(seen[0].json()["messages"].as_array().unwrap().len(), 20);
    assert!(seen.iter().all(|request| request.body == seen[0].body));
    assert_eq!(response.header("pillion-trimmed"), Some("40"));
}
