//! Identical searches at the same time are one.

use std::time::Duration;

use crate::support::{Answer, Client, Gate, Pillion, Response, Step, Upstream, advance};

const JSON: (&str, &str) = ("content-type", "application/json");
const FOUND: &str = r#"{"result":[{"id":"a"}]}"#;
const SEARCHES: &[(&str, &str)] = &[("route", "r"), ("operation", "search")];

/// So many clients that have asked the same, all of them under way.
async fn asking(pillion: &Pillion, count: usize, headers: &[(&str, &str)]) -> Vec<Client> {
    let mut clients = Vec::new();
    let before = pillion.metric("pillion_in_flight", SEARCHES).await;
    for n in 0..count {
        let mut client = pillion.connect().await;
        client.ask("POST", "/query/one", &[&[JSON], headers].concat(), "{}").await;
        // One after the other, so that the first leads.
        pillion.metric_is("pillion_in_flight", SEARCHES, before + (n + 1) as f64).await;
        clients.push(client);
    }
    clients
}

async fn answers(clients: &mut [Client]) -> Vec<Response> {
    let mut answers = Vec::new();
    for client in clients {
        answers.push(client.response().await);
    }
    answers
}

#[tokio::test]
async fn identical_searches_make_one_upstream_call() {
    let (upstream, gate) = (Upstream::start().await, Gate::new());
    let pillion = Pillion::route("upstash-vector", &upstream, &[]).await;
    upstream.push(Answer::ok(FOUND).held(&gate));
    let mut clients = asking(&pillion, 20, &[]).await;
    gate.open();
    let answers = answers(&mut clients).await;
    assert!(answers.iter().all(|answer| answer.status == 200 && answer.text() == FOUND));
    assert_eq!(answers[0].cache(), "pillion; fwd=miss; stored");
    for answer in &answers[1..] {
        assert_eq!(answer.cache(), "pillion; fwd=miss; collapsed");
        assert!(answer.header("server-timing").unwrap().contains("cache;desc=collapsed"));
    }
    assert_eq!(upstream.count(), 1);
    pillion
        .metric_is("pillion_cache_results_total", &[&[("result", "collapsed")], SEARCHES].concat(), 19.0)
        .await;
    assert_eq!(pillion.metric("pillion_upstream_attempts_total", SEARCHES).await, 1.0);
}

#[tokio::test]
async fn a_leader_that_leaves_takes_nobody_along() {
    let (upstream, gate) = (Upstream::start().await, Gate::new());
    let pillion = Pillion::route("upstash-vector", &upstream, &[]).await;
    upstream.push(Answer::ok(FOUND).held(&gate));
    let mut clients = asking(&pillion, 4, &[]).await;
    drop(clients.remove(0));
    pillion.metric_is("pillion_in_flight", SEARCHES, 3.0).await;
    gate.open();
    for answer in answers(&mut clients).await {
        assert_eq!((answer.status, answer.text().as_str()), (200, FOUND));
    }
    assert_eq!(upstream.count(), 1);
    assert!(pillion.post("/query/one", "{}").await.is_hit());
}

#[tokio::test]
async fn when_all_have_left_the_upstream_is_told() {
    let upstream = Upstream::start().await;
    let pillion = Pillion::route("upstash-vector", &upstream, &[]).await;
    upstream.push(Answer::hang());
    let mut clients = asking(&pillion, 3, &[]).await;
    drop(clients.pop());
    drop(clients.pop());
    pillion.metric_is("pillion_in_flight", SEARCHES, 1.0).await;
    // One is left, so it goes on.
    upstream.push(Answer::ok(r#"{"result":[2]}"#));
    assert_eq!(pillion.post("/query/two", "{}").await.status, 200);
    assert_eq!((upstream.connections(), pillion.metric("pillion_in_flight", SEARCHES).await), (2, 1.0));
    let left = std::time::Instant::now();
    drop(clients);
    let closed = upstream.closed(0).await;
    assert!(closed.duration_since(left).as_millis() < 100, "{:?}", closed.duration_since(left));
    upstream.push(Answer::ok(FOUND));
    assert_eq!(pillion.post("/query/one", "{}").await.cache(), "pillion; fwd=miss; stored", "it starts anew");
}

#[tokio::test]
async fn searches_after_a_write_do_not_join_those_before_it() {
    let (upstream, early, late) = (Upstream::start().await, Gate::new(), Gate::new());
    let pillion = Pillion::route("upstash-vector", &upstream, &["cache: {settle: 0s}"]).await;
    upstream.push(Answer::ok(r#"{"result":["old"]}"#).held(&early));
    upstream.push(Answer::ok("{}"));
    upstream.push(Answer::ok(r#"{"result":["new"]}"#).held(&late));
    let mut before = asking(&pillion, 2, &[]).await;
    upstream.seen(1).await;
    assert_eq!(pillion.post("/upsert/one", "{}").await.status, 200);
    let mut after = asking(&pillion, 2, &[]).await;
    upstream.seen(3).await;
    early.open();
    for answer in answers(&mut before).await {
        assert_eq!(answer.text(), r#"{"result":["old"]}"#);
    }
    late.open();
    for answer in answers(&mut after).await {
        assert_eq!(answer.text(), r#"{"result":["new"]}"#);
    }
    assert_eq!(upstream.count(), 3);
    assert_eq!(pillion.post("/query/one", "{}").await.text(), r#"{"result":["new"]}"#);
}

#[tokio::test]
async fn a_failure_is_shared_and_the_next_search_starts_anew() {
    let (upstream, gate) = (Upstream::start().await, Gate::new());
    let pillion = Pillion::route("upstash-vector", &upstream, &["retry: {enabled: false}"]).await;
    upstream.push(Answer::status(503, r#"{"error":"busy"}"#).held(&gate));
    let mut clients = asking(&pillion, 3, &[]).await;
    gate.open();
    for answer in answers(&mut clients).await {
        assert_eq!((answer.status, answer.text().as_str()), (503, r#"{"error":"busy"}"#));
    }
    assert_eq!(upstream.count(), 1);
    let gate = Gate::new();
    upstream.push(Answer(vec![Step::Wait(gate.clone()), Step::Reset]));
    let mut clients = asking(&pillion, 3, &[]).await;
    gate.open();
    for answer in answers(&mut clients).await {
        assert_eq!(answer.status, 502);
    }
    assert_eq!(upstream.count(), 2);
    upstream.push(Answer::ok(FOUND));
    assert_eq!(pillion.post("/query/one", "{}").await.status, 200);
}

#[tokio::test]
async fn an_answer_for_one_makes_the_others_ask_for_themselves() {
    let large = format!(r#"{{"result":["{}"]}}"#, "x".repeat(3000));
    let cookie = Answer::with(200, &[JSON, ("set-cookie", "of=one")], FOUND);
    let no_store = Answer::with(200, &[JSON, ("cache-control", "private, no-store")], FOUND);
    let varied = Answer::with(200, &[JSON, ("vary", "user-agent")], FOUND);
    for (what, first, rest) in [
        ("too large", Answer::ok(&large), large.clone()),
        ("with a cookie", cookie, FOUND.to_owned()),
        ("not to be stored", no_store, FOUND.to_owned()),
        ("for one kind of caller", varied, FOUND.to_owned()),
    ] {
        let (upstream, gate) = (Upstream::start().await, Gate::new());
        let pillion = Pillion::route("upstash-vector", &upstream, &["cache: {max_entry: 2KiB}"]).await;
        upstream.push(first.held(&gate));
        let mut clients = asking(&pillion, 3, &[]).await;
        upstream.push(Answer::ok(&rest));
        upstream.push(Answer::ok(&rest));
        gate.open();
        let answers = answers(&mut clients).await;
        assert!(answers.iter().all(|answer| answer.complete && answer.text() == rest), "{what}");
        let cookies = answers.iter().filter(|answer| answer.header("set-cookie").is_some()).count();
        assert_eq!(cookies, usize::from(what == "with a cookie"), "{what}: nobody gets another's");
        assert_eq!(upstream.count(), 3, "{what}");
    }
}

#[tokio::test]
async fn who_asks_for_something_else_flies_alone() {
    let (upstream, gate) = (Upstream::start().await, Gate::new());
    let pillion = Pillion::route("upstash-vector", &upstream, &[]).await;
    for _ in 0..4 {
        upstream.push(Answer::ok(FOUND).held(&gate));
    }
    let mut clients = asking(&pillion, 1, &[]).await;
    clients.extend(asking(&pillion, 1, &[("pillion-cache", "refresh")]).await);
    clients.extend(asking(&pillion, 1, &[("pillion-retry", "off")]).await);
    clients.extend(asking(&pillion, 1, &[("authorization", "Bearer other")]).await);
    upstream.seen(4).await;
    gate.open();
    for answer in answers(&mut clients).await {
        assert_eq!(answer.status, 200);
        assert!(answer.cache().starts_with("pillion; fwd=miss"), "{}", answer.cache());
    }
}

/// A leader, and 999 who wait for it.
async fn a_thousand(pillion: &Pillion, upstream: &Upstream, leader: &[(&str, &str)]) -> Vec<Client> {
    let mut clients = asking(pillion, 1, leader).await;
    upstream.seen(1).await;
    for _ in 1..1000 {
        let mut client = pillion.connect().await;
        client.ask("POST", "/query/one", &[JSON], "{}").await;
        clients.push(client);
    }
    pillion.metric_is("pillion_in_flight", SEARCHES, 1000.0).await;
    clients
}

#[tokio::test]
async fn a_thousand_identical_misses_make_one_upstream_call() {
    let (upstream, gate) = (Upstream::start().await, Gate::new());
    let pillion = Pillion::route("upstash-vector", &upstream, &[]).await;
    upstream.push(Answer::ok(FOUND).held(&gate));
    let mut clients = a_thousand(&pillion, &upstream, &[]).await;
    gate.open();
    for answer in answers(&mut clients).await {
        assert_eq!((answer.status, answer.text().as_str()), (200, FOUND));
    }
    assert_eq!(upstream.count(), 1);
}

#[tokio::test]
async fn the_first_of_a_thousand_may_be_killed() {
    let (upstream, gate) = (Upstream::start().await, Gate::new());
    let pillion = Pillion::route("upstash-vector", &upstream, &[]).await;
    for _ in 0..2 {
        upstream.push(Answer::ok(FOUND).held(&gate));
    }
    let mut clients = a_thousand(&pillion, &upstream, &[]).await;
    drop(clients.remove(0));
    pillion.metric_is("pillion_in_flight", SEARCHES, 999.0).await;
    gate.open();
    for answer in answers(&mut clients).await {
        assert_eq!((answer.status, answer.text().as_str()), (200, FOUND));
    }
    assert!(upstream.count() <= 2, "{} calls", upstream.count());
}

#[tokio::test]
async fn nobody_of_a_thousand_waits_past_the_deadline() {
    let upstream = Upstream::answering(|_| Answer::hang()).await;
    let lines = ["retry: {enabled: false}", "timeouts: {first_byte: 1m, total: 30s}"];
    let pillion = Pillion::route("upstash-vector", &upstream, &lines).await;
    let mut clients = a_thousand(&pillion, &upstream, &[]).await;
    advance(Duration::from_secs(30)).await;
    // Real seconds are few against thirty: whoever waits on is told only by the patience of the test.
    for answer in answers(&mut clients).await {
        assert_eq!(answer.status, 504);
    }
    assert!(upstream.count() < 20, "{} calls of an upstream that hangs", upstream.count());
}

#[tokio::test]
async fn who_waited_for_a_leader_in_a_hurry_follows_another() {
    let (upstream, gate) = (Upstream::start().await, Gate::new());
    let lines = ["retry: {enabled: false}", "timeouts: {first_byte: 1m, total: 1m}"];
    let pillion = Pillion::route("upstash-vector", &upstream, &lines).await;
    upstream.push(Answer::hang());
    upstream.push(Answer::ok(FOUND).held(&gate));
    let mut clients = a_thousand(&pillion, &upstream, &[("x-stainless-read-timeout", "5")]).await;
    advance(Duration::from_secs(6)).await;
    assert_eq!(clients.remove(0).response().await.status, 504);
    upstream.seen(2).await;
    gate.open();
    for answer in answers(&mut clients).await {
        assert_eq!((answer.status, answer.text().as_str()), (200, FOUND));
    }
    assert_eq!(upstream.count(), 2, "one of them leads");
}

/// The official clients all say how long they wait: a failure is not asked for by each of them in turn.
#[tokio::test]
async fn who_allows_no_more_than_the_leader_shares_its_failure() {
    for (status, leader) in [(401, "5"), (401, "3"), (500, "5"), (429, "5")] {
        let (upstream, gate) = (Upstream::start().await, Gate::new());
        let lines = ["retry: {enabled: false}", "timeouts: {total: 1m}"];
        let pillion = Pillion::route("upstash-vector", &upstream, &lines).await;
        upstream.push(Answer::status(status, r#"{"error":"no"}"#).held(&gate));
        let mut clients = asking(&pillion, 1, &[("x-stainless-read-timeout", leader)]).await;
        upstream.seen(1).await;
        clients.extend(asking(&pillion, 9, &[("x-stainless-read-timeout", "5")]).await);
        pillion.metric_is("pillion_in_flight", SEARCHES, 10.0).await;
        gate.open();
        for answer in answers(&mut clients).await {
            assert_eq!(answer.status, status, "{answer:?}");
        }
        assert_eq!(upstream.count(), 1, "{status}");
    }
}

#[tokio::test]
async fn who_says_another_limit_shares_no_call() {
    let (upstream, gate) = (Upstream::start().await, Gate::new());
    let pillion = Pillion::route("elasticsearch", &upstream, &["cache: {settle: 0s}"]).await;
    let part = r#"{"timed_out":true,"_shards":{"failed":0},"hits":{"hits":[1]}}"#;
    let whole = r#"{"timed_out":false,"_shards":{"failed":0},"hits":{"hits":[1,2]}}"#;
    upstream.push(Answer::ok(part).held(&gate));
    upstream.push(Answer::ok(whole));
    let json = [("content-type", "application/json")];
    let mut hasty = pillion.connect().await;
    hasty.ask("POST", "/docs/_search?timeout=1ms", &json, "{}").await;
    upstream.seen(1).await;
    assert_eq!(pillion.post("/docs/_search", "{}").await.text(), whole);
    gate.open();
    assert_eq!(hasty.response().await.text(), part);
    assert_eq!(upstream.count(), 2);
}

#[tokio::test]
async fn a_failure_that_is_due_to_its_leaders_own_deadline_is_its_leaders() {
    let (upstream, gate) = (Upstream::start().await, Gate::new());
    let pillion = Pillion::route("upstash-vector", &upstream, &[]).await;
    // Alone, a leader in no hurry would wait for that, and try again.
    upstream.push(Answer::with(503, &[JSON, ("retry-after", "1")], "{}").held(&gate));
    upstream.push(Answer::ok(FOUND));
    let mut clients = asking(&pillion, 1, &[("x-stainless-read-timeout", "0.9")]).await;
    clients.extend(asking(&pillion, 2, &[]).await);
    gate.open();
    let answers = answers(&mut clients).await;
    assert_eq!((answers[0].status, answers[0].header("x-should-retry")), (503, Some("false")));
    for answer in &answers[1..] {
        assert_eq!((answer.status, answer.text().as_str()), (200, FOUND));
    }
    assert_eq!(upstream.count(), 2, "one of them leads");
}

#[tokio::test]
async fn who_asks_after_an_answer_for_one_does_not_wait() {
    let cookie = || Answer::with(200, &[JSON, ("set-cookie", "of=one")], FOUND);
    let upstream = Upstream::start().await;
    let pillion = Pillion::route("upstash-vector", &upstream, &[]).await;
    upstream.push(cookie());
    pillion.post("/query/one", "{}").await;
    // Remembered: each asks for itself, and nobody needs another's answer to come.
    let gate = Gate::new();
    for _ in 0..3 {
        upstream.push(cookie().held(&gate));
    }
    let mut clients = asking(&pillion, 3, &[]).await;
    upstream.seen(4).await;
    gate.open();
    for answer in answers(&mut clients).await {
        assert_eq!((answer.status, answer.cache()), (200, "pillion; fwd=miss"));
    }
    // Another question is another matter.
    let gate = Gate::new();
    upstream.push(Answer::ok(FOUND).held(&gate));
    let mut others = Vec::new();
    for n in 1..=2 {
        let mut client = pillion.connect().await;
        client.ask("POST", "/query/two", &[JSON], "{}").await;
        pillion.metric_is("pillion_in_flight", SEARCHES, f64::from(n)).await;
        others.push(client);
    }
    gate.open();
    answers(&mut others).await;
    assert_eq!(upstream.count(), 5);
    // After a while one asks for all again.
    advance(Duration::from_secs(10)).await;
    let gate = Gate::new();
    upstream.push(Answer::ok(FOUND).held(&gate));
    let mut clients = asking(&pillion, 3, &[]).await;
    gate.open();
    for answer in answers(&mut clients).await {
        assert_eq!((answer.status, answer.text().as_str()), (200, FOUND));
    }
    assert_eq!(upstream.count(), 6);
}

#[tokio::test]
async fn an_answer_for_all_ends_the_memory_of_one_for_one() {
    let upstream = Upstream::start().await;
    let pillion = Pillion::route("upstash-vector", &upstream, &["cache: {settle: 0s}"]).await;
    upstream.push(Answer::with(200, &[JSON, ("set-cookie", "of=one")], FOUND));
    pillion.post("/query/one", "{}").await;
    upstream.push(Answer::ok(FOUND));
    assert_eq!(pillion.post("/query/one", "{}").await.cache(), "pillion; fwd=miss; stored");
    upstream.push(Answer::ok("{}"));
    pillion.post("/upsert/one", "{}").await;
    let gate = Gate::new();
    upstream.push(Answer::ok(FOUND).held(&gate));
    let mut clients = asking(&pillion, 3, &[]).await;
    gate.open();
    assert!(answers(&mut clients).await.iter().all(|answer| answer.text() == FOUND));
    assert_eq!(upstream.count(), 4);
}

#[tokio::test]
async fn who_asks_when_the_store_has_settled_does_not_join_who_asked_before() {
    let (upstream, early) = (Upstream::start().await, Gate::new());
    let lines = ["cache: {settle: 10s}", "timeouts: {first_byte: 1m, total: 1m}"];
    let pillion = Pillion::route("upstash-vector", &upstream, &lines).await;
    upstream.push(Answer::ok("{}"));
    assert_eq!(pillion.post("/upsert/one", "{}").await.status, 200);
    upstream.push(Answer::ok(r#"{"result":["old"]}"#).held(&early));
    let mut before = asking(&pillion, 1, &[]).await;
    upstream.seen(2).await;
    advance(Duration::from_secs(11)).await;
    upstream.push(Answer::ok(r#"{"result":["new"]}"#));
    let after = pillion.post("/query/one", "{}").await;
    assert_eq!(
        (after.text().as_str(), after.cache()),
        (r#"{"result":["new"]}"#, "pillion; fwd=miss; stored")
    );
    early.open();
    let before = answers(&mut before).await.remove(0);
    assert_eq!(
        (before.text().as_str(), before.cache()),
        (r#"{"result":["old"]}"#, "pillion; fwd=bypass; detail=settle")
    );
    assert_eq!(pillion.post("/query/one", "{}").await.text(), r#"{"result":["new"]}"#);
}
