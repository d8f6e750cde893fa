//! The admin listener: who may see what, and whether it is true.

use std::collections::BTreeSet;

use crate::support::{Answer, Pillion, Upstream, client, metrics};

const CHAT: &str = "/o/v1/chat/completions";
const YAML: &str = "
routes:
  - {name: o, path: /o, upstream: '${UP}', preset: openai, retry: {base: 0ms}}
  - {name: v, path: /v, upstream: '${UP}', preset: upstash-vector, retry: {base: 0ms}}
";

async fn both() -> (Upstream, Pillion) {
    let upstream = Upstream::answering(|seen| {
        if seen.target.starts_with("/query") {
            Answer::ok(r#"{"result":[1]}"#)
        } else {
            Answer::ok(r#"{"usage":{"prompt_tokens":100,"completion_tokens":20,"total_tokens":120}}"#)
        }
    })
    .await;
    let pillion = Pillion::start(YAML, &[("UP", &upstream.url())]).await;
    (upstream, pillion)
}

#[tokio::test]
async fn metrics_tell_what_happened() {
    let (upstream, pillion) = both().await;
    for _ in 0..3 {
        assert_eq!(pillion.post(CHAT, r#"{"messages":[]}"#).await.status, 200);
    }
    upstream.push(Answer::status(503, "{}"));
    assert_eq!(pillion.post(CHAT, r#"{"messages":[]}"#).await.status, 200);
    upstream.push(Answer::status(401, "{}"));
    assert_eq!(pillion.post(CHAT, "{}").await.status, 401);
    for _ in 0..5 {
        pillion.post("/v/query", "{}").await;
    }
    pillion.get("/nowhere").await;
    let chat = [("route", "o"), ("operation", "chat")];
    let search = [("route", "v"), ("operation", "search")];
    pillion.metric_is("pillion_requests_total", &[("route", "none")], 1.0).await;
    let text = pillion.metrics().await;
    let count = |name: &str, labels: &[(&str, &str)], more: &[(&str, &str)]| {
        metrics::metric(&text, name, &[labels, more].concat())
    };
    assert_eq!(count("pillion_requests_total", &chat, &[("status", "2xx")]), 4.0, "{text}");
    assert_eq!(count("pillion_requests_total", &chat, &[("status", "4xx")]), 1.0);
    assert_eq!(count("pillion_requests_total", &search, &[("status", "2xx")]), 5.0);
    assert_eq!(count("pillion_requests_total", &[("route", "none")], &[("status", "4xx")]), 1.0);
    assert_eq!(count("pillion_request_duration_seconds_count", &chat, &[]), 5.0);
    assert_eq!(count("pillion_time_to_first_byte_seconds_count", &chat, &[]), 5.0);
    assert_eq!(count("pillion_overhead_seconds_count", &search, &[]), 5.0);
    assert_eq!(count("pillion_upstream_attempts_total", &chat, &[]), 6.0);
    assert_eq!(count("pillion_upstream_duration_seconds_count", &chat, &[]), 6.0);
    assert_eq!(count("pillion_upstream_attempts_total", &search, &[]), 1.0);
    assert_eq!(count("pillion_retries_total", &chat, &[("reason", "status")]), 1.0);
    assert_eq!(count("pillion_retries_total", &[], &[]), 1.0);
    assert_eq!(count("pillion_cache_results_total", &search, &[("result", "hit")]), 4.0);
    assert_eq!(count("pillion_cache_results_total", &search, &[("result", "miss")]), 1.0);
    assert_eq!(count("pillion_cache_entries", &[], &[]), 1.0);
    assert_eq!(count("pillion_tokens_total", &chat, &[("kind", "prompt")]), 400.0, "{text}");
    assert_eq!(count("pillion_tokens_total", &chat, &[("kind", "completion")]), 80.0);
    assert_eq!(count("pillion_errors_total", &[], &[("error", "destination_not_found")]), 1.0);
    assert_eq!(count("pillion_in_flight", &[], &[]), 0.0);
    assert_eq!(count("pillion_client_gone_total", &[], &[]), 0.0);
    assert_eq!(count("pillion_build_info", &[], &[]), 1.0);
}

#[tokio::test]
async fn the_summary_has_the_shape_the_operators_know() {
    let (_upstream, pillion) = both().await;
    for _ in 0..4 {
        pillion.post(CHAT, r#"{"messages":[{"role":"user","content":"x"}]}"#).await;
        pillion.post("/v/query", "{}").await;
    }
    pillion.metric_is("pillion_requests_total", &[], 8.0).await;
    let answer = pillion.admin_get("/summary").await;
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let summary = answer.json();
    assert_eq!(summary["status"], "ok");
    let metrics = &summary["metrics"];
    for (name, count) in [
        ("vector_search_duration", 4),
        ("llm_call_duration", 4),
        ("http_request_duration", 8),
        ("conversation_size", 4),
    ] {
        let figures = &metrics[name];
        assert_eq!(figures["count"], count, "{name}: {summary}");
        let value =
            |of: &str| figures[of].as_f64().unwrap_or_else(|| panic!("{name} has no {of}: {summary}"));
        assert!(value("min") <= value("average") && value("average") <= value("max"), "{figures}");
        assert!(value("p50") <= value("p95") && value("p95") <= value("p99"), "{figures}");
        assert!(value("min") <= value("p50") && value("p99") <= value("max"), "{figures}");
        assert!(name == "conversation_size" || value("max") < 20.0, "seconds: {figures}");
    }
    assert_eq!(metrics["conversation_size"]["average"], 1.0);
    assert_eq!(metrics["cache_hit_rate"], 0.75);
    assert_eq!(metrics["total_tokens_used"], 480);

    let json = [("accept", "application/json")];
    let negotiated = pillion.admin_with("GET", "/metrics", &json).await;
    assert_eq!(negotiated.json()["metrics"]["total_tokens_used"], 480);
    let browser = [("accept", "text/html, application/json;q=0.9, */*;q=0.8")];
    let text = pillion.admin_with("GET", "/metrics", &browser).await;
    assert!(text.text().starts_with("# HELP"));
    assert_eq!(text.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    for (window, status) in [("15m", 200), ("60m", 200), ("1s", 200), ("0s", 400), ("2h", 400), ("x", 400)] {
        assert_eq!(pillion.admin_get(&format!("/summary?window={window}")).await.status, status, "{window}");
    }
}

#[tokio::test]
async fn an_empty_summary_is_all_there() {
    let (_upstream, pillion) = both().await;
    let summary = pillion.admin_get("/summary").await.json();
    assert_eq!(
        (&summary["metrics"]["cache_hit_rate"], &summary["metrics"]["total_tokens_used"]),
        (&0.0.into(), &0.into())
    );
    assert_eq!(summary["metrics"]["llm_call_duration"]["count"], 0);
}

#[tokio::test]
async fn a_token_opens_what_is_not_open() {
    let upstream = Upstream::start().await;
    let yaml = "
admin: {listen: '127.0.0.1:0', token: '${TOKEN}'}
routes: [{name: r, path: /, upstream: '${UP}', preset: http}]";
    let pillion = Pillion::start(yaml, &[("UP", &upstream.url()), ("TOKEN", "s3cret-token")]).await;
    for page in ["/metrics", "/livez", "/readyz"] {
        assert_eq!(pillion.admin_get(page).await.status, 200, "{page}");
    }
    for page in ["/summary", "/config", "/", "/nowhere"] {
        assert_eq!(pillion.admin_get(page).await.status, 401, "{page} from loopback too");
        for wrong in
            ["Bearer s3cret-toke", "Bearer s3cret-token2", "Bearer ", "s3cret-token", "Basic s3cret-token"]
        {
            let answer = pillion.admin_with("GET", page, &[("authorization", wrong)]).await;
            assert_eq!(answer.status, 401, "{page} {wrong}");
            assert!(!answer.text().contains("s3cret"));
        }
        let right = [("authorization", "Bearer s3cret-token")];
        let status = if page == "/nowhere" { 404 } else { 200 };
        let answer = pillion.admin_with("GET", page, &right).await;
        assert_eq!(answer.status, status, "{page}");
        assert!(!answer.text().contains("s3cret"), "{page} shows the token");
    }
}

#[tokio::test]
async fn beyond_loopback_only_the_open_pages_answer_without_a_token() {
    let upstream = Upstream::start().await;
    let yaml = "
admin: {listen: '0.0.0.0:0'}
routes: [{name: r, path: /, upstream: '${UP}', preset: http}]";
    let pillion = Pillion::start(yaml, &[("UP", &upstream.url())]).await;
    for (page, status) in [
        ("/metrics", 200),
        ("/livez", 200),
        ("/readyz", 200),
        ("/summary", 401),
        ("/config", 401),
        ("/", 401),
    ] {
        assert_eq!(pillion.admin_get(page).await.status, status, "{page}");
    }
}

#[tokio::test]
async fn a_page_in_a_browser_cannot_reach_it_by_a_name_of_its_own() {
    let upstream = Upstream::start().await;
    let yaml = "
admin: {listen: '127.0.0.1:0', hosts: [pillion.internal]}
routes: [{name: r, path: /, upstream: '${UP}', preset: http}]";
    let pillion = Pillion::start(yaml, &[("UP", &upstream.url())]).await;
    for (host, status) in [
        ("127.0.0.1:9901", 200),
        ("localhost", 200),
        ("LOCALHOST:1", 200),
        ("[::1]:9901", 200),
        ("10.1.2.3", 200),
        ("pillion.internal:9901", 200),
        ("evil.example", 421),
        ("localhost.evil.example:9901", 421),
        ("127.0.0.1.evil.example", 421),
        ("evil.example:127", 421),
    ] {
        let answer = pillion.admin_with("GET", "/config", &[("host", host)]).await;
        assert_eq!(answer.status, status, "{host}");
    }
    assert_eq!(pillion.admin_with("GET", "/metrics", &[("host", "any.name")]).await.status, 200);
}

#[tokio::test]
async fn only_reading_is_possible() {
    let (_upstream, pillion) = both().await;
    for method in ["POST", "PUT", "DELETE", "PATCH"] {
        for page in ["/metrics", "/summary", "/livez", "/config", "/"] {
            assert_eq!(pillion.admin_with(method, page, &[]).await.status, 405, "{method} {page}");
        }
    }
    assert_eq!(pillion.admin_with("HEAD", "/metrics", &[]).await.status, 200);
    assert_eq!(pillion.admin_get("/nowhere").await.status, 404);
}

#[tokio::test]
async fn the_data_port_has_none_of_it() {
    let (upstream, pillion) = both().await;
    for page in ["/metrics", "/summary", "/livez", "/readyz", "/config", "/"] {
        assert_eq!(pillion.get(page).await.status, 404, "{page}");
    }
    assert_eq!(upstream.count(), 0);
}

#[tokio::test]
async fn traffic_makes_no_new_series() {
    let (_upstream, pillion) = both().await;
    let names = |text: &str| metrics::series(text).map(|(name, _)| name.to_owned()).collect::<BTreeSet<_>>();
    let before = names(&pillion.metrics().await);
    let mut dice = fastrand::Rng::with_seed(7);
    for n in 0..500 {
        let word: String = (0..8).map(|_| dice.alphanumeric()).collect();
        let method = ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", &word][dice.usize(..7)];
        let target = match n % 4 {
            0 => format!("/o/v1/{word}?{word}={word}"),
            1 => format!("/v/query/{word}"),
            2 => format!("/{word}"),
            _ => CHAT.to_owned(),
        };
        let body = format!(r#"{{"model":"{word}","user":"{word}","messages":[]}}"#);
        let headers = [("x-conversation-id", word.as_str()), ("user-agent", &word), ("authorization", &word)];
        client::exchange(pillion.addr, method, &target, &headers, &body).await;
    }
    pillion.metric_is("pillion_requests_total", &[], 500.0).await;
    let after = names(&pillion.metrics().await);
    assert_eq!(before, after);
}

#[tokio::test]
async fn ready_until_the_drain_begins() {
    let (_upstream, pillion) = both().await;
    assert_eq!(pillion.admin_get("/readyz").await.text(), "ok\n");
    assert_eq!(pillion.admin_get("/livez").await.text(), "ok\n");
    assert!(pillion.running.stop().await);
}
