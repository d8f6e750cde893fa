//! How much of a conversation is forwarded, seen from the upstream.

use std::time::Duration;

use crate::support::{Answer, Pillion, Upstream, advance};

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
    pillion.metric_is("pillion_window_shadow_messages_total", LABELS, 12.0).await;
    pillion.metric_is("pillion_trimmed_messages_total", LABELS, 0.0).await;
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
    for path in ["/v1/responses/compact", "/v1/completions", "/v1/embeddings", "/v1/chat/completions/x"] {
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

    // Another one, refused again: that is the answer, and nothing is learnt of it.
    let other = [&[message("user", "another")], &all[1..]].concat();
    for count in [4, 6] {
        upstream.push(Answer::status(400, refusal));
        upstream.push(Answer::status(400, r#"{"error":"second"}"#));
        let answer = pillion.post(CHAT, &body(&other)).await;
        assert_eq!((answer.status, answer.text().as_str()), (400, r#"{"error":"second"}"#));
        assert_eq!(upstream.count(), count);
    }
    // What was not trimmed is not sent twice.
    upstream.push(Answer::status(400, refusal));
    assert_eq!(pillion.post(CHAT, &body(&other[..5])).await.status, 400);
    assert_eq!(upstream.count(), 7);
    pillion.metric_is("pillion_original_resent_total", LABELS, 3.0).await;
}

#[tokio::test]
async fn a_conversation_that_was_taken_whole_is_left_whole_for_a_while() {
    let upstream = Upstream::start().await;
    let pillion = Pillion::route("openai", &upstream, &[]).await;
    let all = turns(33);
    let refused = &[("route", "r"), ("operation", "chat"), ("reason", "refused")];
    upstream.push(Answer::status(400, r#"{"error":{}}"#));
    upstream.push(Answer::ok("{}"));
    assert_eq!(pillion.post(CHAT, &body(&all[..31])).await.status, 200);
    // One turn later, by how it begins. Another key is another conversation.
    upstream.push(Answer::ok("{}"));
    let answer = pillion.post(CHAT, &body(&all)).await;
    assert_eq!((answer.header("pillion-trimmed"), upstream.last().text()), (None, body(&all)));
    pillion.metric_is("pillion_window_untouched_total", refused, 1.0).await;
    upstream.push(Answer::ok("{}"));
    let answer = pillion.post_with(CHAT, &[("authorization", "Bearer sk-other")], &body(&all)).await;
    assert_eq!(answer.header("pillion-trimmed"), Some("14"));
    // When it is over, trimming is tried again.
    advance(Duration::from_secs(600)).await;
    upstream.push(Answer::ok("{}"));
    assert_eq!(pillion.post(CHAT, &body(&all)).await.header("pillion-trimmed"), Some("14"));
    assert_eq!(upstream.count(), 5);
    pillion.metric_is("pillion_original_resent_total", LABELS, 1.0).await;
}

/// A call that the first request made and the second answers: signed thinking, and marks that came late.
fn thinking(turn: usize) -> String {
    format!(
        r#"{{"role":"assistant","content":[{{"type":"thinking","thinking":"t{turn}","signature":"signed-{turn}"}},{{"type":"text","text":"a"}}]}}"#
    )
}

#[tokio::test]
async fn thinking_that_was_made_under_a_cut_is_sent_under_it_if_the_whole_is_refused() {
    let upstream = Upstream::start().await;
    let pillion = Pillion::route("anthropic", &upstream, &["window: {max_messages: 3}"]).await;
    // Thinking that was made of three messages; then the bot marks its last message.
    let mut all = turns(7);
    all.push(thinking(7));
    all.push(message("user", "q8").replace('}', r#","cache_control":{"type":"ephemeral"}}"#));
    let refusal = r#"{"type":"error","error":{"type":"invalid_request_error","message":"Invalid `signature` in `thinking` block"}}"#;
    upstream.push(Answer::status(400, refusal));
    upstream.push(Answer::ok("{}"));
    let answer = pillion.post_with("/v1/messages", &[("x-conversation-id", "a")], &body(&all)).await;
    assert_eq!((answer.status, answer.header("pillion-trimmed")), (200, Some("4")));
    let seen = upstream.requests();
    assert_eq!((seen[0].text(), seen[1].text()), (body(&all), body(&all[4..])));
    assert_eq!(seen[1].header("content-length").unwrap(), seen[1].body.len().to_string());
    let told = pillion.admin_get("/conversations/a").await.json();
    let amounts = &told["conversations"][0];
    assert_eq!((&amounts["forwarded"]["messages"], &amounts["saved"]["messages"]), (&5.into(), &4.into()));
    // That form first, from now on.
    upstream.push(Answer::ok("{}"));
    let answer = pillion.post_with("/v1/messages", &[("x-conversation-id", "a")], &body(&all)).await;
    assert_eq!((answer.status, answer.header("pillion-trimmed")), (200, Some("4")));
    assert_eq!((upstream.count(), upstream.last().text()), (3, body(&all[4..])));
}

#[tokio::test]
async fn a_refusal_that_streams_keeps_no_place_from_the_original() {
    let upstream = Upstream::start().await;
    let yaml =
        "limits: {max_in_flight: 1}\nroutes: [{name: r, path: /, upstream: '${UP}', preset: openai}]\n";
    let pillion = Pillion::start(yaml, &[("UP", &upstream.url())]).await;
    upstream.push(Answer::status(400, format!(r#"{{"error":"{}"}}"#, "x".repeat(100 * 1024))));
    upstream.push(Answer::ok("{}"));
    assert_eq!(pillion.post(CHAT, &body(&turns(31))).await.status, 200);
}

#[tokio::test]
async fn the_original_is_attempted_like_any_request() {
    let upstream = Upstream::start().await;
    let pillion = Pillion::route("openai", &upstream, &["retry: {base: 1ms}"]).await;
    upstream.push(Answer::status(400, r#"{"error":{}}"#));
    upstream.push(Answer::status(503, "{}"));
    upstream.push(Answer::ok("{}"));
    assert_eq!(pillion.post(CHAT, &body(&turns(31))).await.status, 200);
    // Once is once.
    upstream.push(Answer::status(400, r#"{"error":{}}"#));
    let other = [&[message("user", "other")], &turns(31)[1..]].concat();
    let answer = pillion.post_with(CHAT, &[("pillion-retry", "off")], &body(&other)).await;
    assert_eq!((answer.status, upstream.count()), (400, 4));
}

#[tokio::test]
async fn anthropics_too_long_prompt_is_not_sent_even_longer_either() {
    let upstream = Upstream::start().await;
    let pillion = Pillion::route("anthropic", &upstream, &[]).await;
    let refusal = r#"{"type":"error","error":{"type":"invalid_request_error","message":"prompt is too long: 9 tokens > 8 maximum"}}"#;
    upstream.push(Answer::status(400, refusal));
    let answer = pillion.post("/v1/messages", &body(&turns(31))).await;
    assert_eq!((answer.status, upstream.count(), answer.header("pillion-trimmed")), (400, 1, Some("12")));
}

/// Items of Responses by turns: a user's, a call, its result, reasoning, an answer.
fn items(turns: usize) -> Vec<String> {
    (0..turns)
        .flat_map(|n| {
            [
                format!(r#"{{"role":"user","content":[{{"type":"input_text","text":"q{n}"}}]}}"#),
                format!(r#"{{"type":"function_call","call_id":"c{n}","name":"f","arguments":"{{}}"}}"#),
                format!(r#"{{"type":"function_call_output","call_id":"c{n}","output":"r"}}"#),
                format!(r#"{{"type":"reasoning","id":"rs{n}","summary":[]}}"#),
                format!(r#"{{"type":"message","role":"assistant","content":[{{"type":"output_text","text":"a{n}"}}]}}"#),
            ]
        })
        .collect()
}

#[tokio::test]
async fn responses_are_trimmed_by_their_items() {
    for (preset, path) in [
        ("openai", "/v1/responses"),
        ("azure", "/openai/v1/responses"),
        ("azure", "/openai/responses?api-version=1"),
    ] {
        let upstream = Upstream::answering(|_| Answer::ok("{}")).await;
        let pillion = Pillion::route(preset, &upstream, &[]).await;
        let all = [items(6), vec![r#"{"role":"user","content":"last"}"#.to_owned()]].concat();
        let request = |items: &[String]| {
            format!(r#"{{"model":"m","instructions":"be brief","input":[{}]}}"#, items.join(","))
        };
        let answer = pillion.post(path, &request(&all)).await;
        assert_eq!((answer.status, answer.header("pillion-trimmed")), (200, Some("15")), "{path}");
        assert_eq!(upstream.last().text(), request(&all[15..]));
        // One message alone, and what the upstream keeps.
        for content in [
            r#"{"model":"m","input":"hello"}"#.to_owned(),
            request(&all).replace(r#""model":"m""#, r#""previous_response_id":"r""#),
        ] {
            let answer = pillion.post(path, &content).await;
            assert_eq!((answer.header("pillion-trimmed"), upstream.last().text()), (None, content));
        }
        let state = &[("reason", "server_state")];
        pillion.metric_is("pillion_window_untouched_total", state, 1.0).await;
    }
}

#[tokio::test]
async fn anthropics_messages_are_trimmed_before_a_turn_of_the_users() {
    let upstream = Upstream::answering(|_| Answer::ok("{}")).await;
    let pillion = Pillion::route("anthropic", &upstream, &["window: {max_messages: 6}"]).await;
    let turn = |n: usize| {
        [
            message("user", "q"),
            format!(
                r#"{{"role":"assistant","content":[{{"type":"tool_use","id":"t{n}","name":"f","input":{{}}}}]}}"#
            ),
            format!(
                r#"{{"role":"user","content":[{{"type":"tool_result","tool_use_id":"t{n}","content":"r"}}]}}"#
            ),
            message("assistant", "a"),
        ]
    };
    let all: Vec<String> = (0..4).flat_map(turn).collect();
    // The sixth from the end is a result of a tool.
    for (count, removed) in [(13, "8"), (14, "8"), (15, "12"), (16, "12")] {
        let answer = pillion.post("/v1/messages", &body(&all[..count])).await;
        assert_eq!(answer.header("pillion-trimmed"), Some(removed), "{count}");
        assert_eq!(upstream.last().text(), body(&all[removed.parse().unwrap()..count]));
    }
}

#[tokio::test]
async fn tokens_are_a_limit_as_well() {
    let upstream = Upstream::answering(|_| Answer::ok("{}")).await;
    let pillion = Pillion::route("openai", &upstream, &["window: {max_messages: 0, max_tokens: 24}"]).await;
    // Of o200k_base: 3, `user` 1, and two for each of the others; 6 a message.
    let all: Vec<String> = (0..9)
        .map(|n| {
            format!(
                r#"{{"role":"{}","content":"hello there"}}"#,
                if n % 2 == 0 { "user" } else { "assistant" }
            )
        })
        .collect();
    let request = |model: &str| format!(r#"{{"messages":[{}],"model":"{model}"}}"#, all.join(","));
    for model in ["gpt-4o", "gpt-4", "ft:gpt-4o-mini:x"] {
        let answer = pillion.post(CHAT, &request(model)).await;
        assert_eq!(answer.header("pillion-trimmed"), Some("6"), "{model}");
    }
    // Estimated: a fourth of 40 or 45 bytes each.
    assert_eq!(pillion.post(CHAT, &request("claude")).await.header("pillion-trimmed"), Some("8"));
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
