//! Embeddings are stored input by input: of a batch only what is not known is asked for.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Answer, Client, Gate, Pillion, Response, Seen, Step, Upstream, advance};

const PATH: &str = "/v1/embeddings";
const JSON: (&str, &str) = ("content-type", "application/json");
const EMBEDDINGS: (&str, &str) = ("operation", "embeddings");

/// The inputs of a request, in order.
fn inputs(request: &Value) -> Vec<Value> {
    match request["input"].as_array() {
        Some(each) if !each[0].is_number() => each.clone(),
        _ => vec![request["input"].clone()],
    }
}

/// An element as an upstream gives it: spacing and digits of its own, so that a parser in between is seen.
fn element(index: usize, input: &Value, format: Option<&str>) -> String {
    let digits: Vec<String> = input.to_string().bytes().map(|byte| format!("{byte}.50")).collect();
    let vector = match format {
        Some("base64") => json!(digits.concat()).to_string(),
        _ => format!("[{}]", digits.join(", ")),
    };
    format!(r#"{{"object" : "embedding", "index": {index},"embedding":{vector} }}"#)
}

fn list(elements: &[String], model: &str, tokens: usize) -> String {
    format!(
        r#"{{"object":"list","data":[{}],"model":{},"usage":{{"prompt_tokens":{tokens},"total_tokens":{tokens}}}}}"#,
        elements.join(","),
        json!(model)
    )
}

/// What an upstream answers to a request.
fn answer_to(request: &Value) -> String {
    let inputs = inputs(request);
    let format = request["encoding_format"].as_str();
    let elements: Vec<_> = inputs.iter().enumerate().map(|(n, input)| element(n, input, format)).collect();
    list(&elements, &format!("{}-0001", request["model"].as_str().unwrap_or("none")), inputs.len())
}

fn embed(seen: &Seen) -> Answer {
    Answer::ok(answer_to(&seen.json()))
}

async fn start() -> (Upstream, Pillion) {
    let upstream = Upstream::answering(embed).await;
    let pillion = Pillion::route("openai", &upstream, &["retry: {enabled: false}"]).await;
    (upstream, pillion)
}

fn asking(inputs: &[impl serde::Serialize]) -> Value {
    json!({"model": "m", "input": inputs})
}

async fn ask(pillion: &Pillion, request: &Value) -> Response {
    pillion.post(PATH, &request.to_string()).await
}

/// The bytes up to `usage`, which is that of the call that was made.
fn vectors(content: &str) -> &str {
    content.split_once(r#","usage":"#).unwrap().0
}

fn tokens(answer: &Response) -> u64 {
    answer.json()["usage"]["total_tokens"].as_u64().unwrap()
}

#[tokio::test]
async fn of_a_hundred_inputs_with_ninety_known_ten_are_asked_for() {
    let texts: Vec<String> = (0..100).map(|n| format!("text {n}")).collect();
    let new = |n: usize| n % 10 == 3;
    let known: Vec<_> = (0..100).filter(|n| !new(*n)).map(|n| &texts[n]).collect();
    for format in ["float", "base64"] {
        let (upstream, pillion) = start().await;
        let asked = |inputs: Value| json!({"model": "m", "encoding_format": format, "input": inputs});
        let first = ask(&pillion, &asked(json!(known))).await;
        assert_eq!(first.cache(), r#"pillion; fwd=miss; stored; detail="0/90""#);
        assert_eq!(first.text(), answer_to(&asked(json!(known))), "as the upstream gave it");

        let all = asked(json!(texts));
        let merged = ask(&pillion, &all).await;
        assert_eq!(merged.cache(), r#"pillion; fwd=miss; stored; detail="90/100""#);
        assert_eq!(upstream.count(), 2);
        let expected: Vec<_> = (0..100).filter(|n| new(*n)).map(|n| &texts[n]).collect();
        assert_eq!(upstream.last().json(), asked(json!(expected)), "exactly the ten, in order");
        assert_eq!(vectors(&merged.text()), vectors(&answer_to(&all)), "byte for byte as the whole would be");
        assert_eq!(tokens(&merged), 10);
        assert!(merged.header("server-timing").unwrap().contains("cache;desc=miss"));

        let hit = ask(&pillion, &all).await;
        assert!(hit.is_hit(), "{}", hit.cache());
        assert_eq!(vectors(&hit.text()), vectors(&answer_to(&all)));
        assert_eq!((tokens(&hit), hit.header("content-type")), (0, Some("application/json")));
        assert_eq!(upstream.count(), 2);
        for (result, count) in [("hit", 190.0), ("miss", 100.0)] {
            let labels = [("result", result), EMBEDDINGS];
            assert_eq!(pillion.metric("pillion_embeddings_inputs_total", &labels).await, count, "{result}");
        }
        pillion.metric_is("pillion_tokens_total", &[("kind", "prompt")], 100.0).await;
        pillion.metric_is("pillion_cache_entries", &[], 100.0).await;
    }
}

#[tokio::test]
async fn each_form_of_input_is_known_by_what_it_says() {
    let (upstream, pillion) = start().await;
    for (input, cache) in [
        (json!("one"), r#"pillion; fwd=miss; stored; detail="0/1""#),
        (json!(["one"]), "hit"),
        (json!(["one", "two"]), r#"pillion; fwd=miss; stored; detail="1/2""#),
        (json!("two"), "hit"),
        (json!([1, 2]), r#"pillion; fwd=miss; stored; detail="0/1""#),
        (json!([[1, 2], [3]]), r#"pillion; fwd=miss; stored; detail="1/2""#),
        (json!([3]), "hit"),
        (json!(["1", "2"]), r#"pillion; fwd=miss; stored; detail="0/2""#),
        (json!([[1], [2]]), r#"pillion; fwd=miss; stored; detail="0/2""#),
        (json!("[1,2]"), r#"pillion; fwd=miss; stored; detail="0/1""#),
        (json!("One"), r#"pillion; fwd=miss; stored; detail="0/1""#),
    ] {
        let request = json!({"model": "m", "input": input});
        let answer = ask(&pillion, &request).await;
        let found = if answer.is_hit() { "hit" } else { answer.cache() };
        assert_eq!(found, cache, "{input}");
        assert_eq!(vectors(&answer.text()), vectors(&answer_to(&request)), "{input}");
    }
    // Another spelling of the same.
    let spelled = "{ \"input\" : [\"\\u006fne\" , \"t\\u0077o\"], \"model\":\"\\u006d\" }";
    assert!(pillion.post(PATH, spelled).await.is_hit());
    let seen = upstream.requests();
    assert_eq!(seen[1].text(), r#"{"input":["two"],"model":"m"}"#);
    assert_eq!(seen[3].text(), r#"{"input":[[3]],"model":"m"}"#);
}

#[tokio::test]
async fn whatever_else_the_request_says_is_part_of_the_key() {
    let (upstream, pillion) = start().await;
    let with = |name: &str, value: Value| {
        let mut request = asking(&["a", "b"]);
        request[name] = value;
        request
    };
    ask(&pillion, &asking(&["a", "b"])).await;
    for (n, request) in [
        with("model", json!("n")),
        with("dimensions", json!(8)),
        with("dimensions", json!(8.0)),
        with("dimensions", Value::Null),
        with("encoding_format", json!("float")),
        with("encoding_format", json!("base64")),
        with("input_type", json!("query")),
        with("truncate", json!(true)),
    ]
    .iter()
    .enumerate()
    {
        assert!(!ask(&pillion, request).await.is_hit(), "{request}");
        assert_eq!(upstream.count(), n + 2);
        assert!(ask(&pillion, request).await.is_hit(), "{request}");
    }
    assert!(ask(&pillion, &with("user", json!("somebody"))).await.is_hit(), "but not on whose behalf");
    let asked = asking(&["a", "b"]).to_string();
    for (name, value) in [
        ("authorization", "Bearer other"),
        ("api-key", "other"),
        ("openai-organization", "org"),
        ("openai-project", "project"),
        ("openai-beta", "x"),
        ("x-tenant", "other"),
    ] {
        assert!(!pillion.post_with(PATH, &[(name, value)], &asked).await.is_hit(), "{name}");
        assert!(pillion.post_with(PATH, &[(name, value)], &asked).await.is_hit(), "{name}");
    }
    for target in ["/embeddings", "/v1/embeddings?api-version=1"] {
        assert!(!pillion.post(target, &asked).await.is_hit(), "{target}");
        assert!(pillion.post(target, &asked).await.is_hit(), "{target}");
    }
    for noise in [("x-stainless-retry-count", "0"), ("x-request-id", "r"), ("user-agent", "u")] {
        assert!(pillion.post_with(PATH, &[noise], &asked).await.is_hit(), "{noise:?}");
    }
}

#[tokio::test]
async fn an_input_that_comes_twice_is_asked_for_once() {
    let (upstream, pillion) = start().await;
    let request = asking(&["a", "b", "a", "a", "c", "b"]);
    let answer = ask(&pillion, &request).await;
    assert_eq!(upstream.last().json(), asking(&["a", "b", "c"]));
    assert_eq!(vectors(&answer.text()), vectors(&answer_to(&request)));
    assert_eq!((answer.cache(), tokens(&answer)), (r#"pillion; fwd=miss; stored; detail="0/6""#, 3));
    assert!(ask(&pillion, &request).await.is_hit());
}

#[tokio::test]
async fn elements_go_by_their_index_not_by_their_position() {
    let (upstream, pillion) = start().await;
    let [a, b, c] = ["a", "b", "c"].map(|text| json!(text));
    let swapped = list(&[element(1, &b, None), element(0, &a, None)], "m", 2);
    upstream.push(Answer::ok(&swapped));
    assert_eq!(ask(&pillion, &asking(&["a", "b"])).await.text(), swapped, "a whole answer stays as it is");
    upstream.push(Answer::ok(list(&[element(1, &json!("d"), None), element(0, &c, None)], "m", 2)));
    let merged = ask(&pillion, &asking(&["c", "a", "d", "b"])).await.text();
    let in_order: Vec<_> =
        ["c", "a", "d", "b"].iter().enumerate().map(|(n, text)| element(n, &json!(text), None)).collect();
    assert_eq!(vectors(&merged), vectors(&list(&in_order, "m", 2)));
}

#[tokio::test]
async fn requests_that_are_not_understood_pass_untouched() {
    let (upstream, pillion) = start().await;
    let many = json!({"model": "m", "input": vec!["a"; 2049]}).to_string();
    for content in [
        "",
        "not json",
        r#"{"model":"m"}"#,
        r#"{"model":"m","input":""}"#,
        r#"{"model":"m","input":[]}"#,
        r#"{"model":"m","input":["a",1]}"#,
        r#"{"model":"m","input":[{"text":"a"}]}"#,
        r#"{"model":"m","input":"a","input":"b"}"#,
        r#"{"model":"m","input":["a","b"],"titles":["x","y"]}"#,
        r#"{"model":"m","what":{"x":1,"x":2},"input":"a"}"#,
        r#"{"model":"m","input":"\ud800"}"#,
        &many,
    ] {
        for _ in 0..2 {
            upstream.push(Answer::ok(list(&[element(0, &json!("a"), None)], "m", 1)));
            let answer = pillion.post(PATH, content).await;
            assert_eq!((answer.status, answer.cache()), (200, "pillion; fwd=bypass; detail=content"));
            assert_eq!(upstream.last().text(), content);
        }
    }
    pillion.metric_is("pillion_cache_results_total", &[("result", "bypass"), EMBEDDINGS], 24.0).await;
    let asked = asking(&["a"]).to_string();
    for (field, detail) in [
        (("content-encoding", "gzip"), "encoded"),
        (("range", "bytes=0-1"), "encoded"),
        (("content-digest", "sha-256=:x:"), "content"),
        (("idempotency-key", "k-1"), "content"),
        (("pillion-cache", "bypass"), "pillion-cache"),
    ] {
        for _ in 0..2 {
            let answer = pillion.post_with(PATH, &[field], &asked).await;
            assert!(answer.cache().ends_with(&format!("detail={detail}")), "{}", answer.cache());
        }
    }
    assert_eq!(pillion.metric("pillion_cache_entries", &[]).await, 0.0);
}

/// As Jina embeds with `late_chunking`: all inputs are one text, and a vector tells what stands beside it.
#[tokio::test]
async fn inputs_that_may_depend_on_each_other_are_not_taken_apart() {
    let (upstream, pillion) = start().await;
    let late = |inputs: &[&str]| json!({"model": "m", "input": inputs, "late_chunking": true});
    for n in 1..=2 {
        let answer = ask(&pillion, &late(&["a", "b"])).await;
        assert_eq!(answer.cache(), "pillion; fwd=bypass; detail=content");
        assert_eq!((upstream.count(), upstream.last().json()), (n, late(&["a", "b"])));
    }
    // One alone has nothing beside it.
    assert_eq!(ask(&pillion, &late(&["a"])).await.cache(), r#"pillion; fwd=miss; stored; detail="0/1""#);
    assert!(ask(&pillion, &late(&["a"])).await.is_hit());
    assert!(!ask(&pillion, &asking(&["a"])).await.is_hit(), "that is another vector");
    let known =
        json!({"model": "m", "input": ["a", "c"], "dimensions": 8, "encoding_format": "float", "task": "t"});
    assert_eq!(ask(&pillion, &known).await.cache(), r#"pillion; fwd=miss; stored; detail="0/2""#);
}

#[tokio::test]
async fn a_header_that_may_choose_the_model_is_part_of_the_key() {
    let (_upstream, pillion) = start().await;
    let request = asking(&["a"]).to_string();
    for name in ["x-model-provider", "azureml-model-deployment", "helicone-target-url", "openai-beta"] {
        for value in ["one", "other"] {
            assert!(!pillion.post_with(PATH, &[(name, value)], &request).await.is_hit(), "{name}: {value}");
            assert!(pillion.post_with(PATH, &[(name, value)], &request).await.is_hit(), "{name}: {value}");
        }
    }
}

#[tokio::test]
async fn a_vector_with_null_in_it_is_given_and_not_stored() {
    let (upstream, pillion) = start().await;
    let broken = element(1, &json!("b"), None).replace('[', "[null,");
    let all = list(&[element(0, &json!("a"), None), broken], "m-0001", 2);
    upstream.push(Answer::ok(&all));
    let first = ask(&pillion, &asking(&["a", "b"])).await;
    assert_eq!((first.cache(), first.text()), (r#"pillion; fwd=miss; detail="0/2""#, all));
    assert!(ask(&pillion, &asking(&["a"])).await.is_hit());
    assert_eq!(
        ask(&pillion, &asking(&["a", "b"])).await.cache(),
        r#"pillion; fwd=miss; stored; detail="1/2""#
    );
    pillion.metric_is("pillion_cache_not_stored_total", &[("reason", "content")], 1.0).await;
}

#[tokio::test]
async fn a_failure_that_is_due_to_its_leaders_own_deadline_is_its_leaders() {
    let (upstream, gate) = (Upstream::answering(embed).await, Gate::new());
    let pillion = Pillion::route("openai", &upstream, &[]).await;
    upstream.push(Answer::with(503, &[JSON, ("retry-after", "1")], "{}").held(&gate));
    let request = asking(&["a", "b"]);
    let mut leader = pillion.connect().await;
    leader.ask("POST", PATH, &[JSON, ("x-stainless-read-timeout", "0.9")], request.to_string()).await;
    upstream.seen(1).await;
    let mut others = Vec::new();
    for n in 2..=4 {
        let mut client = pillion.connect().await;
        client.ask("POST", PATH, &[JSON], request.to_string()).await;
        pillion.metric_is("pillion_in_flight", &[EMBEDDINGS], f64::from(n)).await;
        others.push(client);
    }
    gate.open();
    assert_eq!(leader.response().await.status, 503);
    for client in &mut others {
        let answer = client.response().await;
        assert_eq!((answer.status, answer.text()), (200, answer_to(&request)));
    }
    assert_eq!(upstream.count(), 2, "one of them leads");
}

#[tokio::test]
async fn a_request_too_large_to_hold_passes() {
    let upstream = Upstream::answering(embed).await;
    let pillion = Pillion::route("openai", &upstream, &["limits: {replay_body: 1KiB}"]).await;
    let request = asking(&["x".repeat(2000)]);
    for n in 1..=2 {
        let answer = ask(&pillion, &request).await;
        assert_eq!((answer.cache(), upstream.count()), ("pillion; fwd=bypass; detail=size", n));
    }
}

type Make<'a> = Box<dyn Fn() -> Answer + 'a>;

#[tokio::test]
async fn answers_that_are_not_understood_pass_untouched_and_are_not_stored() {
    let [a, b] = ["a", "b"].map(|text| json!(text));
    let good = list(&[element(0, &a, None), element(1, &b, None)], "m", 2);
    let json = |body: &str| Answer::ok(body);
    let with = |field: (&str, &str)| Answer::with(200, &[JSON, field], &good);
    let one = list(&[element(0, &a, None)], "m", 1);
    let twice = list(&[element(0, &a, None), element(0, &b, None)], "m", 2);
    let beyond = list(&[element(0, &a, None), element(2, &b, None)], "m", 2);
    let error = good.replace(r#""model""#, r#""error":{"message":"partly"},"model""#);
    let cases: Vec<(&str, Make<'_>)> = vec![
        ("status", Box::new(|| Answer::status(400, r#"{"error":{"message":"no"}}"#))),
        ("status", Box::new(|| Answer::status(203, &good))),
        ("status", Box::new(|| Answer::status(500, &good))),
        ("content", Box::new(|| json(&one))),
        ("content", Box::new(|| json(&twice))),
        ("content", Box::new(|| json(&beyond))),
        ("content", Box::new(|| json(&error))),
        ("content", Box::new(|| json("<html>"))),
        ("content", Box::new(|| json(""))),
        ("content", Box::new(|| Answer::with(200, &[("content-type", "text/event-stream")], &good))),
        ("encoded", Box::new(|| with(("content-encoding", "gzip")))),
        ("forbidden", Box::new(|| with(("cache-control", "no-store")))),
        ("vary", Box::new(|| with(("vary", "*")))),
        ("incomplete", Box::new(|| Answer::until_close(200, &[JSON], &good))),
    ];
    for (why, answer) in cases {
        let (upstream, pillion) = start().await;
        for n in 1..=2 {
            upstream.push(answer());
            let got = ask(&pillion, &asking(&["a", "b"])).await;
            let sent: Vec<u8> = answer()
                .0
                .into_iter()
                .flat_map(|s| if let Step::Write(b) = s { b } else { vec![] })
                .collect();
            assert!(sent.ends_with(&got.body) && got.complete, "{why}: {got:?}");
            assert_eq!(got.cache(), r#"pillion; fwd=miss; detail="0/2""#, "{why}");
            assert_eq!(upstream.count(), n, "{why}");
        }
        assert_eq!(pillion.metric("pillion_cache_entries", &[]).await, 0.0, "{why}");
        pillion.metric_is("pillion_cache_not_stored_total", &[("reason", why), EMBEDDINGS], 2.0).await;
    }
}

/// What knows `a`, and its upstream's script.
async fn knowing_a() -> (Upstream, Pillion) {
    let (upstream, pillion) = start().await;
    assert_eq!(ask(&pillion, &asking(&["a"])).await.status, 200);
    (upstream, pillion)
}

#[tokio::test]
async fn an_error_for_the_rest_goes_back_as_it_is() {
    for status in [400, 401, 429, 503] {
        let (upstream, pillion) = knowing_a().await;
        let error = r#"{"error" : {"message":"'b' is too long"}}"#;
        upstream.push(Answer::status(status, error));
        let answer = ask(&pillion, &asking(&["a", "b"])).await;
        assert_eq!((answer.status, answer.text().as_str()), (status, error));
        assert_eq!(answer.cache(), r#"pillion; fwd=miss; detail="1/2""#);
        assert_eq!((upstream.count(), upstream.last().json()), (2, asking(&["b"])));
        assert!(ask(&pillion, &asking(&["a"])).await.is_hit());
    }
    let (upstream, pillion) = knowing_a().await;
    upstream.push(Answer::reset());
    assert_eq!(ask(&pillion, &asking(&["a", "b"])).await.status, 502);
    assert_eq!(ask(&pillion, &asking(&["a", "b"])).await.status, 200);
}

#[tokio::test]
async fn what_cannot_be_put_together_is_asked_for_as_a_whole() {
    let b = json!("b");
    for (what, odd) in [
        ("another model", list(&[element(0, &b, None)], "m-0002", 1)),
        ("another length", list(&[element(0, &b, None), element(1, &b, None)], "m-0001", 1)),
        ("an error", r#"{"error":{"message":"what?"}}"#.to_owned()),
        ("no JSON", "busy".to_owned()),
    ] {
        let (upstream, pillion) = knowing_a().await;
        let request = asking(&["a", "b"]);
        let whole = list(&[element(0, &json!("a"), None), element(1, &b, None)], "m-0002", 2);
        upstream.push(Answer::ok(odd));
        upstream.push(Answer::ok(&whole));
        let answer = ask(&pillion, &request).await;
        assert_eq!(answer.text(), whole, "{what}");
        assert_eq!(answer.cache(), r#"pillion; fwd=miss; stored; detail="1/2""#, "{what}");
        let seen = upstream.requests();
        assert_eq!(seen[1].json(), asking(&["b"]), "{what}");
        assert_eq!(seen[2].text(), request.to_string(), "{what}: as it came");
        let again = ask(&pillion, &request).await;
        assert!(again.is_hit() && vectors(&again.text()) == vectors(&whole), "{what}: all of one model now");
    }
}

#[tokio::test]
async fn a_whole_answer_of_a_cut_rest_is_never_given() {
    let (upstream, pillion) = knowing_a().await;
    let rest = || Answer::ok(answer_to(&asking(&["b"])));
    for cut in 0..rest().len() {
        upstream.push(rest().cut(cut));
        let answer = ask(&pillion, &asking(&["a", "b"])).await;
        assert_eq!(answer.status, 502, "cut at {cut}");
    }
    assert_eq!(pillion.metric("pillion_cache_entries", &[]).await, 1.0);
}

#[tokio::test]
async fn the_provider_s_cookies_do_not_keep_vectors_from_being_stored() {
    let (upstream, pillion) = start().await;
    upstream.push(Answer::with(
        200,
        &[JSON, ("set-cookie", "__cf_bm=x; domain=.api.openai.com"), ("x-ratelimit-remaining-tokens", "7")],
        answer_to(&asking(&["a"])),
    ));
    let first = ask(&pillion, &asking(&["a"])).await;
    assert_eq!(first.cache(), r#"pillion; fwd=miss; stored; detail="0/1""#);
    assert!(first.header("set-cookie").is_some());
    let hit = ask(&pillion, &asking(&["a"])).await;
    assert!(hit.is_hit());
    assert_eq!((hit.header("set-cookie"), hit.header("x-ratelimit-remaining-tokens")), (None, None));
}

#[tokio::test]
async fn fields_about_bytes_are_not_said_of_other_bytes() {
    let (upstream, pillion) = knowing_a().await;
    let fields = [JSON, ("etag", "\"x\""), ("content-digest", "sha-256=:x:"), ("openai-model", "m-0001")];
    upstream.push(Answer::with(200, &fields, answer_to(&asking(&["b"]))));
    let merged = ask(&pillion, &asking(&["a", "b"])).await;
    assert_eq!(merged.header("openai-model"), Some("m-0001"));
    assert_eq!((merged.header("etag"), merged.header("content-digest")), (None, None));
}

#[tokio::test]
async fn the_oldest_element_tells_the_age_and_the_lifetime_is_its_own() {
    let upstream = Upstream::answering(embed).await;
    let more = ["cache: {ttl: 1s, embeddings_ttl: 100s}"];
    let pillion = Pillion::route("openai", &upstream, &more).await;
    ask(&pillion, &asking(&["a"])).await;
    advance(Duration::from_secs(30)).await;
    ask(&pillion, &asking(&["a", "b"])).await;
    advance(Duration::from_secs(20)).await;
    let hit = ask(&pillion, &asking(&["a", "b"])).await;
    assert!(hit.has_age(50), "{hit:?}");
    // Each gives up to 5 % of its lifetime.
    assert!(hit.cache().starts_with("pillion; hit; ttl=4"), "{}", hit.cache());
    advance(Duration::from_secs(50)).await;
    let miss = ask(&pillion, &asking(&["a", "b"])).await;
    assert_eq!(miss.cache(), r#"pillion; fwd=miss; stored; detail="1/2""#);
    assert_eq!(upstream.last().json(), asking(&["a"]));
}

#[tokio::test]
async fn refresh_asks_for_all_of_it_and_stores_it() {
    let (upstream, pillion) = knowing_a().await;
    let renewed = list(&[element(0, &json!("other"), None)], "m-0001", 1);
    upstream.push(Answer::ok(&renewed));
    let asked = asking(&["a"]).to_string();
    let answer = pillion.post_with(PATH, &[("pillion-cache", "refresh")], &asked).await;
    assert_eq!(
        (answer.cache(), answer.text()),
        (r#"pillion; fwd=miss; stored; detail="0/1""#, renewed.clone())
    );
    assert_eq!(upstream.last().header("pillion-cache"), None);
    assert_eq!(vectors(&ask(&pillion, &asking(&["a"])).await.text()), vectors(&renewed));
}

#[tokio::test]
async fn nothing_but_time_drops_them() {
    let (upstream, pillion) = knowing_a().await;
    for (method, target) in [("POST", "/v1/files"), ("DELETE", "/v1/models/m"), ("POST", PATH)] {
        upstream.push(Answer::ok("{}"));
        pillion.connect().await.exchange(method, target, &[JSON], "{}").await;
    }
    assert!(ask(&pillion, &asking(&["a"])).await.is_hit());
}

#[tokio::test]
async fn identical_batches_at_once_make_one_call() {
    let gate = Gate::new();
    let calls = Arc::new(AtomicUsize::new(0));
    let upstream = Upstream::answering({
        let (gate, calls) = (gate.clone(), Arc::clone(&calls));
        move |seen| {
            calls.fetch_add(1, SeqCst);
            embed(seen).held(&gate)
        }
    })
    .await;
    let pillion = Pillion::route("openai", &upstream, &[]).await;
    let request = asking(&["a", "b"]).to_string();
    let mut clients = Vec::new();
    for n in 0..20 {
        let mut client = pillion.connect().await;
        client.ask("POST", PATH, &[JSON], &request).await;
        pillion.metric_is("pillion_in_flight", &[EMBEDDINGS], f64::from(n + 1)).await;
        clients.push(client);
    }
    // Another batch is another flight, and so is another account's.
    let mut other = pillion.connect().await;
    other.ask("POST", PATH, &[JSON, ("authorization", "Bearer other")], &request).await;
    upstream.seen(2).await;
    gate.open();
    let expected = answer_to(&asking(&["a", "b"]));
    for (n, client) in clients.iter_mut().enumerate() {
        let answer = client.response().await;
        assert_eq!(answer.text(), expected);
        let cache = if n == 0 {
            r#"pillion; fwd=miss; stored; detail="0/2""#
        } else {
            "pillion; fwd=miss; collapsed"
        };
        assert_eq!(answer.cache(), cache);
    }
    assert_eq!(other.response().await.status, 200);
    assert_eq!((upstream.count(), calls.load(SeqCst)), (2, 2));
    pillion.metric_is("pillion_in_flight", &[EMBEDDINGS], 0.0).await;
    assert_eq!(
        pillion.metric("pillion_tokens_total", &[("kind", "prompt")]).await,
        4.0,
        "tokens are those of the calls that were made"
    );
}

/// Three clients that have asked the same, one after the other, so that the first leads.
async fn three_asking(pillion: &Pillion, request: &Value, field: (&str, &str)) -> Vec<Client> {
    let mut clients = Vec::new();
    for n in 1..=3 {
        let mut client = pillion.connect().await;
        client.ask("POST", PATH, &[JSON, field], request.to_string()).await;
        pillion.metric_is("pillion_in_flight", &[EMBEDDINGS], f64::from(n)).await;
        clients.push(client);
    }
    clients
}

#[tokio::test]
async fn cookies_are_of_the_one_who_asked() {
    let (upstream, pillion) = start().await;
    let (request, gate) = (asking(&["a"]), Gate::new());
    let fields = [JSON, ("set-cookie", "__cf_bm=x"), ("openai-model", "m-0001")];
    upstream.push(Answer::with(200, &fields, answer_to(&request)).held(&gate));
    let mut clients = three_asking(&pillion, &request, ("x-request-id", "r")).await;
    gate.open();
    for (n, client) in clients.iter_mut().enumerate() {
        let answer = client.response().await;
        assert_eq!((answer.text(), answer.header("openai-model")), (answer_to(&request), Some("m-0001")));
        assert_eq!(answer.header("set-cookie").is_some(), n == 0);
    }
    assert_eq!(upstream.count(), 1);
}

#[tokio::test]
async fn batches_that_overlap_may_arrive_in_any_order() {
    let (upstream, pillion) = start().await;
    let (early, gate) = (asking(&["both", "early"]), Gate::new());
    upstream.push(Answer::ok(answer_to(&early)).held(&gate));
    let mut client = pillion.connect().await;
    client.ask("POST", PATH, &[JSON], early.to_string()).await;
    upstream.seen(1).await;
    assert_eq!(ask(&pillion, &asking(&["both", "late"])).await.status, 200);
    gate.open();
    assert_eq!(client.response().await.cache(), r#"pillion; fwd=miss; stored; detail="0/2""#);
    assert!(ask(&pillion, &asking(&["late", "both", "early"])).await.is_hit());
}

#[tokio::test]
async fn when_all_have_left_the_upstream_is_told() {
    let (upstream, pillion) = start().await;
    upstream.push(Answer::hang());
    let clients = three_asking(&pillion, &asking(&["a"]), ("x-request-id", "r")).await;
    upstream.seen(1).await;
    drop(clients);
    upstream.closed(0).await;
    pillion.metric_is("pillion_in_flight", &[EMBEDDINGS], 0.0).await;
    assert_eq!(ask(&pillion, &asking(&["a"])).await.status, 200, "it starts anew");
}

#[tokio::test]
async fn who_began_it_may_leave_and_an_answer_for_one_is_for_one() {
    let (upstream, pillion) = start().await;
    let request = asking(&["a", "b"]);
    for (round, no_store) in [false, true].into_iter().enumerate() {
        let gate = Gate::new();
        let fields: &[_] = if no_store { &[JSON, ("cache-control", "no-store")] } else { &[JSON] };
        upstream.push(Answer::with(200, fields, answer_to(&request)).held(&gate));
        let account = ("authorization", if no_store { "Bearer one" } else { "Bearer other" });
        let mut clients = three_asking(&pillion, &request, account).await;
        let before = upstream.seen(round + 1).await.len();
        if !no_store {
            drop(clients.remove(0));
            pillion.metric_is("pillion_in_flight", &[EMBEDDINGS], 2.0).await;
        }
        gate.open();
        for client in &mut clients {
            assert_eq!(client.response().await.text(), answer_to(&request));
        }
        let alone = if no_store { clients.len() - 1 } else { 0 };
        assert_eq!(upstream.count() - before, alone);
        pillion.metric_is("pillion_in_flight", &[EMBEDDINGS], 0.0).await;
    }
}

#[tokio::test]
async fn memory_cache_bounds_them_too() {
    let upstream = Upstream::answering(embed).await;
    let text = "memory: {cache: 1MiB}\nroutes:\n  - {name: r, path: /, upstream: '${UP}', preset: openai}\n";
    let pillion = Pillion::start(text, &[("UP", &upstream.url())]).await;
    for n in 0..40 {
        let inputs: Vec<_> = (0..16).map(|m| format!("{n}-{m}-{}", "x".repeat(500))).collect();
        assert_eq!(ask(&pillion, &asking(&inputs)).await.status, 200);
    }
    let bytes = pillion.metric("pillion_cache_bytes", &[]).await;
    assert!((500_000.0..1_048_576.0).contains(&bytes), "{bytes}");
}

#[tokio::test]
async fn a_route_may_leave_them_alone() {
    for (more, env) in [(&["cache: {enabled: false}"][..], ""), (&[], "false")] {
        let upstream = Upstream::answering(embed).await;
        let lines: String = more.iter().map(|line| format!("    {line}\n")).collect();
        let text =
            format!("routes:\n  - name: r\n    path: /\n    upstream: ${{UP}}\n    preset: openai\n{lines}");
        let pillion = Pillion::start(&text, &[("UP", &upstream.url()), ("VECTOR_CACHE_ENABLED", env)]).await;
        for _ in 0..2 {
            ask(&pillion, &asking(&["a"])).await;
        }
        let answer = ask(&pillion, &asking(&["a"])).await;
        assert_eq!(answer.is_hit(), !env.is_empty(), "the bot's variable speaks of searches");
        assert_eq!(answer.header("cache-status").is_some(), !env.is_empty());
    }
}

#[tokio::test]
async fn a_rule_may_pass_some_of_them() {
    let upstream = Upstream::answering(embed).await;
    let rules = "rules: [{name: e, path: '^/e$', operation: embeddings, action: embeddings, pass_if: {body: {/dimensions: '*'}}}]";
    let pillion = Pillion::route("openai", &upstream, &[rules]).await;
    let [plain, passed] =
        ["", r#","dimensions":3"#].map(|more| format!(r#"{{"model":"m","input":"a"{more}}}"#));
    for hit in [false, true] {
        assert_eq!(pillion.post("/e", &plain).await.is_hit(), hit);
        assert_eq!(pillion.post("/e", &passed).await.cache(), "pillion; fwd=bypass; detail=rule");
    }
}

#[tokio::test]
async fn those_of_azure_are_stored_by_deployment() {
    let upstream = Upstream::answering(embed).await;
    let pillion = Pillion::route("azure", &upstream, &[]).await;
    let body = asking(&["a"]).to_string();
    for deployment in ["one", "two"] {
        let target = format!("/openai/deployments/{deployment}/embeddings?api-version=2024-10-21");
        assert!(!pillion.post_with(&target, &[("api-key", "k")], &body).await.is_hit());
        assert!(pillion.post_with(&target, &[("api-key", "k")], &body).await.is_hit());
        assert!(!pillion.post_with(&target, &[("api-key", "other")], &body).await.is_hit());
    }
}

#[tokio::test]
async fn in_shadow_all_of_it_is_asked_for_and_what_was_known_is_compared() {
    let upstream = Upstream::answering(embed).await;
    let shadow = ["cache: {shadow: true, embeddings_ttl: 40s}", "retry: {enabled: false}"];
    let pillion = Pillion::route("openai", &upstream, &shadow).await;
    let told = |told: &str| format!("pillion; fwd=bypass; detail=shadow-{told}");
    for (inputs, expected) in [(&["a"][..], "miss"), (&["a", "b"], "equal"), (&["b", "a", "b"], "equal")] {
        let answer = ask(&pillion, &asking(inputs)).await;
        assert_eq!((answer.cache(), answer.text()), (&*told(expected), answer_to(&asking(inputs))));
        assert_eq!(upstream.last().json(), asking(inputs), "all of it, as it came");
        assert_eq!(tokens(&answer), inputs.len() as u64);
    }
    // What a cache would give is still the first answer, for as long as it would give it.
    let other = list(&[element(0, &json!("other"), None)], "m-0001", 1);
    for (answer, expected) in [
        (Answer::ok(&other), "different"),
        (Answer::ok(&other), "different"),
        (Answer::ok(answer_to(&asking(&["a"]))), "equal"),
        (Answer::status(503, "{}"), "incomparable"),
    ] {
        upstream.push(answer);
        assert_eq!(ask(&pillion, &asking(&["a"])).await.cache(), told(expected));
    }
    for (result, count) in [("miss", 1.0), ("equal", 3.0), ("different", 2.0), ("incomparable", 1.0)] {
        let labels = [("operation", "embeddings"), ("result", result)];
        pillion.metric_is("pillion_cache_shadow_total", &labels, count).await;
    }
    advance(Duration::from_secs(41)).await;
    assert_eq!(ask(&pillion, &asking(&["a"])).await.cache(), told("miss"));
}

/// The provider put another model behind the name, and the operator said so: what was asked for before is of no use.
#[tokio::test]
async fn a_command_drops_what_is_being_fetched_too() {
    let (upstream, pillion) = knowing_a().await;
    let (request, gate) = (asking(&["a", "b"]), Gate::new());
    upstream.push(Answer::ok(list(&[element(0, &json!("old"), None)], "m-0001", 1)).held(&gate));
    let mut early = pillion.connect().await;
    early.ask("POST", PATH, &[JSON], request.to_string()).await;
    upstream.seen(2).await;
    pillion.admin_with("POST", "/cache/invalidate", &[("pillion-admin", "1")]).await;
    // It neither joins what is under way, nor finds what that brings.
    let late = ask(&pillion, &request).await;
    assert_eq!(
        (late.cache(), late.text()),
        (r#"pillion; fwd=miss; stored; detail="0/2""#, answer_to(&request))
    );
    gate.open();
    assert!(early.response().await.text().contains(&element(1, &json!("old"), None)));
    let hit = ask(&pillion, &request).await;
    assert_eq!((hit.is_hit(), vectors(&hit.text())), (true, vectors(&answer_to(&request))));
}

#[tokio::test]
async fn a_command_drops_them_all_unless_it_names_a_scope() {
    let (_upstream, pillion) = knowing_a().await;
    let invalidate = async |query: &str| {
        let path = format!("/cache/invalidate{query}");
        pillion.admin_with("POST", &path, &[("pillion-admin", "1")]).await.json()["routes"].to_string()
    };
    for (query, routes) in [("?route=r&scope=*", "[]"), ("?route=r", r#"["r"]"#), ("", r#"["r"]"#)] {
        assert!(ask(&pillion, &asking(&["a"])).await.is_hit(), "{query}");
        assert_eq!(invalidate(query).await, routes, "{query}");
        assert_eq!(ask(&pillion, &asking(&["a"])).await.is_hit(), routes == "[]", "{query}");
    }
}
