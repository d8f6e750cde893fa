//! How much of a conversation is forwarded, seen from the upstream.

use crate::support::{Answer, Pillion, Upstream};

const CHAT: &str = "/v1/chat/completions";
const LABELS: &[(&str, &str)] = &[("route", "r"), ("operation", "chat")];

async fn chat(more: &[&str]) -> (Upstream, Pillion) {
    let upstream = Upstream::answering(|_| Answer::ok(r#"{"choices":[]}"#)).await;
    let pillion = Pillion::route("openai", &upstream, more).await;
    (upstream, pillion)
}

fn message(role: &str, text: &str) -> String {
    // Odd on purpose: what stays must stay to the byte.
    format!("{{ \"role\":\"{role}\" ,\"content\": \"{text} \\u00e9\", \"n\":1.50e0}}")
}

/// Messages by turns: users at even places.
fn turns(count: usize) -> Vec<String> {
    (0..count).map(|n| message(if n % 2 == 0 { "user" } else { "assistant" }, &format!("m{n}"))).collect()
}

fn body(messages: &[String]) -> String {
    format!(
        "{{\"model\":\"m\", \"messages\" : [ {} ],\n \"temperature\":0.10, \"n\":1}}",
        messages.join(" ,\n")
    )
}

#[tokio::test]
async fn the_head_and_twenty_messages_are_forwarded_byte_for_byte() {
    let (upstream, pillion) = chat(&[]).await;
    let head = [message("system", "s"), message("developer", "d")];
    let all = turns(31);
    let answer = pillion.post(CHAT, &body(&[&head[..], &all].concat())).await;
    assert_eq!((answer.status, answer.header("pillion-trimmed")), (200, Some("12")));
    let forwarded = upstream.last();
    assert_eq!(forwarded.text(), body(&[&head[..], &all[12..]].concat()));
    assert_eq!(forwarded.header("content-length").unwrap(), forwarded.body.len().to_string());
    pillion.metric_is("pillion_trimmed_messages_total", LABELS, 12.0).await;
    let summary = pillion.admin_get("/summary").await.json();
    assert_eq!(summary["metrics"]["conversation_size"]["max"], 19.0);
}

#[tokio::test]
async fn what_fits_is_not_touched() {
    let (upstream, pillion) = chat(&[]).await;
    for count in [1, 19, 20] {
        let body = body(&turns(count));
        let answer = pillion.post(CHAT, &body).await;
        assert_eq!((answer.header("pillion-trimmed"), upstream.last().text()), (None, body), "{count}");
    }
}

#[tokio::test]
async fn a_request_may_ask_for_all_of_it() {
    let (upstream, pillion) = chat(&[]).await;
    let body = body(&turns(31));
    let answer = pillion.post_with(CHAT, &[("pillion-window", "off")], &body).await;
    assert_eq!((answer.header("pillion-trimmed"), upstream.last().text()), (None, body));
}

#[tokio::test]
async fn a_tool_call_keeps_its_results() {
    let (upstream, pillion) = chat(&["window: {max_messages: 4}"]).await;
    let call = |id: &str| {
        format!(r#"{{"role":"assistant","content":null,"tool_calls":[{{"id":"{id}","type":"function"}}]}}"#)
    };
    let result = |id: &str| format!(r#"{{"role":"tool","tool_call_id":"{id}","content":"r"}}"#);
    let turn = |n: u32| {
        let [a, b] = ["a", "b"].map(|id| format!("{id}{n}"));
        vec![message("user", "u"), call(&a), result(&a), call(&b), result(&b), message("assistant", "x")]
    };
    let all: Vec<String> = (0..3).flat_map(turn).collect();
    let answer = pillion.post(CHAT, &body(&all)).await;
    assert_eq!(
        answer.header("pillion-trimmed"),
        Some("12"),
        "whole turns; the last one goes although it is long"
    );
    assert_eq!(upstream.last().text(), body(&all[12..]));
    // In the midst of the tool loop of its last turn, too.
    let answer = pillion.post(CHAT, &body(&all[..15])).await;
    assert_eq!(answer.header("pillion-trimmed"), Some("12"));
    assert_eq!(upstream.last().text(), body(&all[12..15]));
}

#[tokio::test]
async fn shadow_changes_nothing_and_tells() {
    let (upstream, pillion) = chat(&["window: {shadow: true}"]).await;
    let body = body(&turns(31));
    let answer = pillion.post(CHAT, &body).await;
    assert_eq!(upstream.last().text(), body);
    assert_eq!(answer.header("pillion-trimmed"), Some("12; shadow"));
    pillion.metric_is("pillion_requests_total", LABELS, 1.0).await;
}

#[tokio::test]
async fn what_is_not_understood_or_encoded_passes_untouched() {
    let (upstream, pillion) = chat(&[]).await;
    let long = body(&turns(31));
    for content in [
        long.replace("\"model\"", "\"messages\":[],\"model\""),
        format!("{long}x"),
        format!("\u{feff}{long}"),
        long.replace("\"role\":\"user\"", "\"role\":1"),
        long.replace("\"messages\"", "\"input\""),
        "not JSON at all".to_owned(),
        format!("[{long}]"),
    ] {
        let answer = pillion.post(CHAT, &content).await;
        assert_eq!((answer.header("pillion-trimmed"), upstream.last().text()), (None, content));
    }
    pillion.metric_is("pillion_window_untouched_total", LABELS, 7.0).await;
    for coding in ["gzip", "zstd", "identity"] {
        let answer = pillion.post_with(CHAT, &[("content-encoding", coding)], &long).await;
        let seen = upstream.last();
        assert_eq!((answer.header("pillion-trimmed"), seen.text()), (None, long.clone()), "{coding}");
        assert_eq!(seen.header("content-encoding"), Some(coding));
    }
}

#[tokio::test]
async fn other_paths_are_not_read() {
    let (upstream, pillion) = chat(&[]).await;
    let body = body(&turns(31));
    for path in ["/v1/responses", "/v1/completions", "/v1/embeddings", "/v1/chat/completions/x"] {
        let answer = pillion.post(path, &body).await;
        assert_eq!(
            (answer.header("pillion-trimmed"), upstream.last().text()),
            (None, body.clone()),
            "{path}"
        );
    }
    assert_eq!(pillion.post("//v1/chat//completions/", &body).await.header("pillion-trimmed"), Some("12"));
}

#[tokio::test]
async fn a_trimmed_conversation_that_is_refused_is_sent_once_more_in_full() {
    let upstream = Upstream::start().await;
    let pillion = Pillion::route("openai", &upstream, &[]).await;
    let (all, refusal) = (turns(31), r#"{"error":{"message":"tool must follow","code":null}}"#);
    upstream.push(Answer::status(400, refusal));
    upstream.push(Answer::ok(r#"{"choices":[1]}"#));
    let answer = pillion.post(CHAT, &body(&all)).await;
    assert_eq!((answer.status, answer.text().as_str()), (200, r#"{"choices":[1]}"#));
    assert_eq!(answer.header("pillion-trimmed"), None, "nothing was, in the end");
    assert!(answer.header("server-timing").unwrap().contains("attempts;desc=2"));
    let seen = upstream.requests();
    assert_eq!((seen.len(), seen[0].text(), seen[1].text()), (2, body(&all[12..]), body(&all)));
    pillion.metric_is("pillion_original_resent_total", LABELS, 1.0).await;

    // Refused again: that is the answer.
    upstream.push(Answer::status(400, refusal));
    upstream.push(Answer::status(400, r#"{"error":"second"}"#));
    let answer = pillion.post(CHAT, &body(&all)).await;
    assert_eq!((answer.status, answer.text().as_str()), (400, r#"{"error":"second"}"#));
    assert_eq!(upstream.count(), 4);
    // What was not trimmed is not sent twice.
    upstream.push(Answer::status(400, refusal));
    assert_eq!(pillion.post(CHAT, &body(&all[..5])).await.status, 400);
    assert_eq!(upstream.count(), 5);
    pillion.metric_is("pillion_original_resent_total", LABELS, 2.0).await;
}

#[tokio::test]
async fn too_long_for_the_model_is_not_sent_even_longer() {
    let upstream = Upstream::start().await;
    let pillion = Pillion::route("openai", &upstream, &[]).await;
    let refusal = r#"{"error":{"message":"m","code":"context_length_exceeded"}}"#;
    upstream.push(Answer::status(400, refusal));
    let answer = pillion.post(CHAT, &body(&turns(31))).await;
    assert_eq!((answer.status, answer.text().as_str(), upstream.count()), (400, refusal, 1));
    assert_eq!(answer.header("pillion-trimmed"), Some("12"));
    assert_eq!(pillion.metric("pillion_original_resent_total", LABELS).await, 0.0);
}

#[tokio::test]
async fn steps_keep_the_beginning_for_a_while() {
    let (upstream, pillion) = chat(&["window: {max_messages: 20, step: 10}"]).await;
    for (count, removed) in [(20, None), (21, Some("10")), (29, Some("10")), (31, Some("20"))] {
        let answer = pillion.post(CHAT, &body(&turns(count))).await;
        assert_eq!(answer.header("pillion-trimmed"), removed, "{count}");
        assert!(upstream.last().json()["messages"].as_array().unwrap().len() <= 20);
    }
}
