//! What every response carries, and how Pillion's own failures read to each SDK.

use crate::support::{Answer, Client, Pillion, Response, Upstream};

/// Seconds with six decimals, and our part of `Server-Timing` last.
fn check_timing(answer: &Response, what: &str) {
    let time = answer.header("x-response-time").unwrap_or_else(|| panic!("{what} has no X-Response-Time"));
    let (whole, fraction) = time.split_once('.').unwrap();
    assert!(whole.bytes().all(|b| b.is_ascii_digit()) && !whole.is_empty(), "{what}: {time}");
    assert!(fraction.len() == 6 && fraction.bytes().all(|b| b.is_ascii_digit()), "{what}: {time}");
    let timing = answer.all("server-timing");
    let ours = timing.last().unwrap_or_else(|| panic!("{what} has no Server-Timing"));
    assert!(ours.starts_with("pillion;dur="), "{what}: {timing:?}");
    assert_eq!(answer.all("x-response-time").len(), 1, "{what}");
    assert_eq!(answer.all("x-request-id").len(), 1, "{what}");
}

#[tokio::test]
async fn every_response_tells_its_time() {
    let upstream = Upstream::start().await;
    let yaml = "routes: [{name: v, path: /v, upstream: '${UP}', preset: upstash-vector, retry: {base: 0ms}}]";
    let pillion = Pillion::start(yaml, &[("UP", &upstream.url())]).await;
    let answer = Answer::with(200, &[("server-timing", "db;dur=5")], r#"{"result":[1]}"#);
    upstream.push(answer);
    let miss = pillion.post("/v/query", "{}").await;
    check_timing(&miss, "miss");
    assert_eq!(miss.all("server-timing")[0], "db;dur=5");
    assert!(miss.all("server-timing")[1].contains("cache;desc=miss, attempts;desc=1"));
    let hit = pillion.post("/v/query", "{}").await;
    check_timing(&hit, "hit");
    assert_eq!(hit.all("server-timing").len(), 1, "the upstream's times are not those of a hit");
    assert!(hit.header("server-timing").unwrap().ends_with("cache;desc=hit"));
    upstream.push(Answer::status(422, "{}"));
    check_timing(&pillion.post("/v/query", "[]").await, "upstream's 422");
    for _ in 0..4 {
        upstream.push(Answer::reset());
    }
    let failed = pillion.post("/v/query", "[1]").await;
    check_timing(&failed, "502");
    assert!(failed.header("server-timing").unwrap().contains("attempts;desc=4"), "{failed:?}");
    check_timing(&pillion.get("/nowhere").await, "404");
    check_timing(&pillion.get("/v/../x").await, "400");
    for page in ["/metrics", "/summary", "/livez", "/readyz", "/config", "/", "/nowhere"] {
        check_timing(&pillion.admin_get(page).await, page);
    }
    check_timing(&pillion.admin_with("POST", "/metrics", &[]).await, "405");
}

#[tokio::test]
async fn backoff_and_attempts_are_told() {
    let upstream = Upstream::start().await;
    let pillion = Pillion::route("upstash-vector", &upstream, &[]).await;
    upstream.push(Answer::with(503, &[("retry-after-ms", "30")], "{}"));
    upstream.push(Answer::ok(r#"{"result":[1]}"#));
    let answer = pillion.post("/query", "{}").await;
    let timing = answer.header("server-timing").unwrap().to_owned();
    assert!(timing.contains("attempts;desc=2"), "{timing}");
    let backoff: f64 = timing.split("backoff;dur=").nth(1).unwrap().parse().unwrap();
    assert!(backoff >= 30.0, "{timing}");
    let total: f64 = answer.header("x-response-time").unwrap().parse().unwrap();
    assert!(total * 1000.0 >= backoff - 0.01, "{total} {timing}");
}

#[tokio::test]
async fn request_ids_are_the_upstreams_or_the_requests_or_new() {
    let upstream = Upstream::start().await;
    let pillion = Pillion::route("http", &upstream, &[]).await;
    upstream.push(Answer::with(200, &[("x-request-id", "req_up")], "{}"));
    assert_eq!(
        pillion.post_with("/", &[("x-request-id", "mine")], "").await.header("x-request-id"),
        Some("req_up")
    );
    upstream.push(Answer::ok("{}"));
    let answer = pillion.post_with("/", &[("x-request-id", "mine")], "").await;
    assert_eq!(answer.header("x-request-id"), Some("mine"));
    assert_eq!(upstream.last().header("x-request-id"), Some("mine"));
    upstream.push(Answer::ok("{}"));
    upstream.push(Answer::ok("{}"));
    let (one, two) = (pillion.post("/", "").await, pillion.post("/", "").await);
    let (one, two) = (one.header("x-request-id").unwrap(), two.header("x-request-id").unwrap());
    assert!(one != two && one.len() >= 16, "{one} {two}");
    let refused = pillion.post_with("/../x", &[("x-request-id", "mine")], "").await;
    assert_eq!((refused.status, refused.header("x-request-id")), (400, Some("mine")));
}

#[tokio::test]
async fn failures_speak_the_dialect_of_the_route() {
    // Nobody listens there: the listener is gone again.
    let nobody = {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap()
    };
    let presets = ["openai", "anthropic", "upstash-vector", "chroma-v2", "http"];
    let routes: String = presets
        .iter()
        .map(|p| {
            format!("  - {{name: {p}, path: /{p}, upstream: '${{UP}}', preset: {p}, retry: {{base: 0ms}}}}\n")
        })
        .collect();
    let pillion = Pillion::start(
        &format!("defaults: {{breaker: {{enabled: false}}}}\nroutes:\n{routes}"),
        &[("UP", &format!("http://{nobody}"))],
    )
    .await;
    for preset in presets {
        let sent = [("x-request-id", "r-1")];
        let answer = pillion.post_with(&format!("/{preset}/x"), &sent, "{}").await;
        assert_eq!(answer.status, 502, "{preset}");
        let proxy_status = answer.header("proxy-status").unwrap();
        assert!(proxy_status.starts_with("pillion; error=connection_refused; details=\""), "{proxy_status}");
        let json = answer.json();
        let media = answer.header("content-type").unwrap();
        assert_eq!(media, if preset == "http" { "application/problem+json" } else { "application/json" });
        match preset {
            "openai" => {
                assert_eq!(json["error"]["type"], "connection_refused");
                assert_eq!(json["error"]["code"], "connection_refused");
                assert!(json["error"]["message"].is_string() && json["error"]["param"].is_null());
            }
            "anthropic" => {
                assert_eq!(
                    (&json["type"], &json["error"]["type"]),
                    (&"error".into(), &"connection_refused".into())
                );
                assert!(json["error"]["message"].is_string());
                assert_eq!(json["request_id"], "r-1");
            }
            "upstash-vector" => {
                assert_eq!(json["status"], 502);
                assert!(json["error"].as_str().unwrap().starts_with("connection_refused: "));
            }
            "chroma-v2" => assert!(json["error"] == "connection_refused" && json["message"].is_string()),
            _ => assert!(json["status"] == 502 && json["title"] == "connection_refused"),
        }
    }
    let text = pillion.metrics().await;
    for preset in presets {
        let labels = [("route", preset), ("error", "connection_refused")];
        assert_eq!(crate::support::metric(&text, "pillion_errors_total", &labels), 1.0, "{preset}");
    }
}

#[tokio::test]
async fn an_upstreams_own_error_passes_unchanged() {
    let upstream = Upstream::start().await;
    let pillion = Pillion::route("openai", &upstream, &["retry: {enabled: false}"]).await;
    for status in [400, 401, 403, 404, 409, 418, 422, 429, 500, 502, 503, 529, 599] {
        let content = format!("<weird> {status} \u{fffd}");
        upstream.push(Answer::with(status, &[("content-type", "text/odd"), ("x-up", "1")], &content));
        let answer = pillion.post("/v1/chat/completions", "{}").await;
        assert_eq!((answer.status, answer.text()), (status, content));
        assert_eq!((answer.header("content-type"), answer.header("x-up")), (Some("text/odd"), Some("1")));
        assert_eq!(answer.header("proxy-status"), None, "it is not ours");
    }
}

#[tokio::test]
async fn a_cut_answer_is_an_aborted_one() {
    let upstream = Upstream::start().await;
    let pillion = Pillion::route("openai", &upstream, &[]).await;
    let by_length = Answer::with(200, &[], "0123456789");
    let by_chunks = Answer::chunked(200, &[], &["01234", "56789"]);
    for (framed, cut) in [(by_length, 5), (by_chunks, 13)] {
        let length = framed.len();
        upstream.push(framed.cut(length - cut));
        let mut client = pillion.connect().await;
        client.ask("POST", "/v1/chat/completions", &[], "{}").await;
        let mut answer = client.head().await.unwrap();
        client.content(&mut answer, false).await;
        assert!(!answer.complete, "{answer:?}");
        assert_eq!(answer.status, 200);
        assert_eq!(client.end().await, b"", "nothing comes after it");
    }
    let labels = [("route", "r"), ("error", "http_response_incomplete")];
    pillion.metric_is("pillion_errors_total", &labels, 2.0).await;
}

#[tokio::test]
async fn errors_keep_the_connection_in_order() {
    let upstream = Upstream::start().await;
    let yaml = "routes: [{name: o, path: /o, upstream: '${UP}', preset: openai}]";
    let pillion = Pillion::start(yaml, &[("UP", &upstream.url())]).await;
    let mut client = Client::connect(pillion.addr).await;
    for _ in 0..3 {
        assert_eq!(client.exchange("GET", "/x", &[], "").await.status, 404);
        assert_eq!(client.exchange("GET", "/o/./x", &[], "").await.status, 400);
    }
}

/// An error whose content trickles goes out with its own status, not as a timeout of ours.
#[tokio::test]
async fn an_error_that_never_ends_is_handed_on_as_it_comes() {
    let upstream = Upstream::start().await;
    for (preset, target) in [("openai", "/v1/chat/completions"), ("upstash-vector", "/query"), ("http", "/x")]
    {
        for status in [400, 404, 503] {
            let pillion = Pillion::route(preset, &upstream, &["retry: {enabled: false}"]).await;
            let (feed, answer) = Answer::fed(status, &[]);
            upstream.push(answer);
            feed.send(Answer::chunk("half")).unwrap();
            let mut client = pillion.connect().await;
            client.ask("POST", target, &[], "{}").await;
            let head = client.head().await.unwrap();
            assert_eq!(head.status, status, "{preset}");
            assert!(client.take(4).await.len() >= 4, "{preset}");
        }
    }
}
