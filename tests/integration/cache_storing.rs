//! What is never stored, and that it reaches the client all the same.

use crate::support::{Answer, Pillion, Step, Upstream};

const FOUND: &str = r#"{"result":[{"id":"a"}]}"#;
const JSON: (&str, &str) = ("content-type", "application/json");
const CHROMA: &str = "/api/v2/tenants/t/databases/d/collections/c1/query";

/// Asks twice; each time the upstream is asked and its answer is given.
async fn is_not_stored(
    preset: &str,
    path: &str,
    why: &str,
    answer: impl Fn() -> Answer,
    status: u16,
    body: &str,
) {
    let upstream = Upstream::start().await;
    let pillion = Pillion::route(preset, &upstream, &["retry: {enabled: false}"]).await;
    for n in 1..=2 {
        upstream.push(answer());
        let got = pillion.post(path, "{}").await;
        assert_eq!((got.status, got.text().as_str(), got.complete), (status, body, true), "{why}");
        assert_eq!(got.cache(), "pillion; fwd=miss", "{why}");
        assert_eq!(upstream.count(), n, "{why}");
    }
    assert_eq!(pillion.metric("pillion_cache_entries", &[]).await, 0.0, "{why}");
    pillion.metric_is("pillion_cache_not_stored_total", &[("reason", why)], 2.0).await;
}

#[tokio::test]
async fn statuses_other_than_200_are_not_stored() {
    for status in [201, 202, 203, 206, 400, 401, 403, 404, 422, 429, 500, 503] {
        is_not_stored("upstash-vector", "/query", "status", || Answer::status(status, FOUND), status, FOUND)
            .await;
    }
}

#[tokio::test]
async fn answers_without_success_are_not_stored() {
    for body in [
        r#"{"error":"quota","status":429}"#,
        r#"{"result":[{"id":"a"}],"error":"partly"}"#,
        r#"{"result":[]}"#,
        r#"{"result": [ ] }"#,
        r#"{"results":[1]}"#,
        r#"{"result":[1]"#,
        "<html>captive portal</html>",
        "",
    ] {
        is_not_stored("upstash-vector", "/query", "content", || Answer::ok(body), 200, body).await;
    }
    let body = r#"{"error":"InternalError","message":"x"}"#;
    is_not_stored("chroma-v2", CHROMA, "content", || Answer::ok(body), 200, body).await;
}

#[tokio::test]
async fn rfc9111_5_2_2_answers_that_forbid_it_are_not_stored() {
    for field in [
        ("set-cookie", "session=1"),
        ("cache-control", "no-store"),
        ("cache-control", "private, No-Store, max-age=60"),
    ] {
        let answer = || Answer::with(200, &[JSON, field], FOUND);
        is_not_stored("upstash-vector", "/query", "forbidden", answer, 200, FOUND).await;
    }
    let both =
        || Answer::with(200, &[JSON, ("cache-control", "max-age=60"), ("cache-control", "no-store")], FOUND);
    is_not_stored("upstash-vector", "/query", "forbidden", both, 200, FOUND).await;
}

#[tokio::test]
async fn rfc9111_4_1_answers_that_vary_beyond_the_key_are_not_stored() {
    for vary in ["*", "user-agent", "X-Opaque-Id, accept-encoding", "accept-encoding, *", "not a name"] {
        let answer = || Answer::with(200, &[JSON, ("vary", vary)], FOUND);
        is_not_stored("upstash-vector", "/query", "vary", answer, 200, FOUND).await;
    }
    let upstream = Upstream::start().await;
    let pillion = Pillion::route("upstash-vector", &upstream, &[]).await;
    upstream.push(Answer::with(
        200,
        &[JSON, ("vary", "Accept-Encoding, Authorization, X-Anything, , Access-Control-Request-Headers")],
        FOUND,
    ));
    assert_eq!(pillion.post("/query", "{}").await.cache(), "pillion; fwd=miss; stored");
    assert!(pillion.post("/query", "{}").await.is_hit());
}

#[tokio::test]
async fn identity_is_asked_for_and_an_encoded_answer_is_passed_not_stored() {
    let upstream = Upstream::start().await;
    let pillion = Pillion::route("upstash-vector", &upstream, &[]).await;
    for n in 1..=2 {
        upstream.push(Answer::with(200, &[JSON, ("content-encoding", "gzip")], b"\x1f\x8b\x08 not really"));
        let answer = pillion.post_with("/query", &[("accept-encoding", "gzip, deflate, br")], "{}").await;
        assert_eq!(answer.body, b"\x1f\x8b\x08 not really");
        assert_eq!((answer.header("content-encoding"), answer.cache()), (Some("gzip"), "pillion; fwd=miss"));
        assert_eq!(upstream.count(), n);
        assert_eq!(upstream.last().header("accept-encoding"), Some("identity"));
    }
    pillion.metric_is("pillion_cache_not_stored_total", &[("reason", "encoded")], 2.0).await;
    // Where nothing is read, what the client accepts is its own affair.
    upstream.push(Answer::ok("{}"));
    pillion.post_with("/info", &[("accept-encoding", "gzip, deflate, br")], "{}").await;
    assert_eq!(upstream.last().header("accept-encoding"), Some("gzip, deflate, br"));
}

#[tokio::test]
async fn rfc9112_6_3_an_answer_that_ends_with_its_connection_is_not_stored() {
    let answer = || Answer::until_close(200, &[JSON], FOUND);
    is_not_stored("upstash-vector", "/query", "incomplete", answer, 200, FOUND).await;
}

#[tokio::test]
async fn an_answer_larger_than_max_entry_streams_and_is_not_stored() {
    let large = format!(r#"{{"result":["{}"]}}"#, "x".repeat(3000));
    let by_length = || Answer::with(200, &[JSON], &large);
    let by_chunks = || Answer::chunked(200, &[JSON], &large.as_bytes().chunks(500).collect::<Vec<_>>());
    for chunked in [false, true] {
        let upstream = Upstream::start().await;
        let pillion = Pillion::route("upstash-vector", &upstream, &["cache: {max_entry: 2KiB}"]).await;
        for n in 1..=2 {
            upstream.push(if chunked { by_chunks() } else { by_length() });
            let answer = pillion.post("/query", "{}").await;
            assert_eq!((answer.text(), answer.complete), (large.clone(), true));
            assert_eq!((answer.cache(), upstream.count()), ("pillion; fwd=miss", n));
        }
        assert_eq!(pillion.metric("pillion_cache_entries", &[]).await, 0.0);
        upstream.push(Answer::ok(FOUND));
        assert_eq!(pillion.post("/query", "{}").await.cache(), "pillion; fwd=miss; stored");
    }
}

#[tokio::test]
async fn a_large_answer_is_not_waited_for() {
    let upstream = Upstream::start().await;
    let pillion = Pillion::route("upstash-vector", &upstream, &["cache: {max_entry: 1KiB}"]).await;
    let (feed, answer) = Answer::fed(200, &[JSON]);
    upstream.push(answer);
    feed.send(Answer::chunk("a".repeat(1025))).unwrap();
    let mut client = pillion.connect().await;
    client.ask("POST", "/query", &[], "{}").await;
    let head = client.head().await.unwrap();
    assert_eq!(head.status, 200, "its head is here while its content is still coming");
    client.take(1025).await;
    feed.send(Answer::chunk("the rest")).unwrap();
    let more = String::from_utf8_lossy(&client.take(8).await).into_owned();
    assert!(more.contains("the rest"), "{more}");
    feed.send(b"0\r\n\r\n".to_vec()).unwrap();
    assert_eq!(client.take(5).await, b"0\r\n\r\n");
}

/// The framings a small answer can have.
fn framed() -> [(&'static str, Answer); 3] {
    [
        ("length", Answer::with(200, &[JSON], FOUND)),
        ("chunks", Answer::chunked(200, &[JSON], &[&FOUND[..7], &FOUND[7..]])),
        ("close", Answer::until_close(200, &[JSON], FOUND)),
    ]
}

#[tokio::test]
async fn an_answer_cut_anywhere_is_tried_again_or_aborted_and_never_stored() {
    let lengths = framed().map(|(_, answer)| answer.len());
    for (kind, length) in lengths.into_iter().enumerate() {
        let upstream = Upstream::start().await;
        let pillion = Pillion::route("upstash-vector", &upstream, &["retry: {base: 0ms}"]).await;
        for cut in 0..length {
            for end in [|| Step::Close, || Step::Reset] {
                let [one, two, three] = framed();
                let (name, answer) = match kind {
                    0 => one,
                    1 => two,
                    _ => three,
                };
                let before = upstream.count();
                upstream.push(answer.cut_with(cut, end()));
                upstream.push(Answer::ok(r#"{"result":["whole"]}"#));
                let what = format!("{name} cut at {cut}");
                // Each its own question, so that a stored piece would be found by asking again.
                let body = format!(r#"{{"topK":{before}}}"#);
                let got = pillion.post("/query", &body).await;
                let is_whole = got.text() == r#"{"result":["whole"]}"#;
                if upstream.count() == before + 2 {
                    assert!(is_whole && got.complete && got.status == 200, "{what}: {got:?}");
                } else {
                    // Only where the end of the connection is the only end, and then nothing is stored.
                    assert_eq!((name, got.cache()), ("close", "pillion; fwd=miss"), "{what}: {got:?}");
                    let again = pillion.post("/query", &body).await;
                    assert!(
                        !again.is_hit() && again.text() == r#"{"result":["whole"]}"#,
                        "{what}: {again:?}"
                    );
                }
                assert_eq!(pillion.post("/query", &body).await.text(), r#"{"result":["whole"]}"#, "{what}");
            }
        }
    }
}

#[tokio::test]
async fn an_answer_cut_anywhere_without_retries_is_an_error_and_never_stored() {
    for kind in 0..2 {
        let length = framed()[kind].1.len();
        let upstream = Upstream::start().await;
        let pillion = Pillion::route("upstash-vector", &upstream, &["retry: {enabled: false}"]).await;
        for cut in 0..length {
            let mut answers: Vec<_> = framed().into_iter().collect();
            upstream.push(answers.swap_remove(kind).1.cut(cut));
            let got = pillion.post("/query", "{}").await;
            assert_eq!(got.status, 502, "cut at {cut}: {got:?}");
            assert!(got.json()["error"].is_string());
        }
        assert_eq!(upstream.count(), length);
        assert_eq!(pillion.metric("pillion_cache_entries", &[]).await, 0.0);
    }
}

#[tokio::test]
async fn a_large_answer_that_breaks_off_is_aborted_and_not_stored() {
    let large = format!(r#"{{"result":["{}"]}}"#, "x".repeat(3000));
    for end in [|| Step::Close, || Step::Reset] {
        for chunked in [false, true] {
            let upstream = Upstream::start().await;
            let pillion = Pillion::route("upstash-vector", &upstream, &["cache: {max_entry: 1KiB}"]).await;
            let answer = if chunked {
                Answer::chunked(200, &[JSON], &large.as_bytes().chunks(1100).collect::<Vec<_>>())
            } else {
                Answer::with(200, &[JSON], &large)
            };
            upstream.push(answer.cut_with(2500, end()));
            // A reset may destroy what was not read yet; then it is an attempt that failed.
            upstream.push(Answer::ok(FOUND));
            let mut client = pillion.connect().await;
            client.ask("POST", "/query", &[], "{}").await;
            let mut got = client.head().await.unwrap();
            client.content(&mut got, false).await;
            assert!(!got.complete || got.text() == FOUND, "{got:?}");
            let again = pillion.post("/query", "{}").await;
            assert!(again.complete && again.text() == FOUND, "{again:?}");
        }
    }
}
