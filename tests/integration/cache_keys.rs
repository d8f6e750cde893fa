//! Which requests share a stored answer: those that the store cannot answer differently, and no others.

use crate::support::{Answer, Pillion, Upstream};

const BODY: &str = r#"{"topK":3,"filter":"a = 1","id":9007199254740993,"vector":[0.1,0.25]}"#;

type Field = (&'static str, &'static str);
/// What differs, target, fields, content.
type Case = (&'static str, &'static str, Vec<Field>, String);

/// Answers that are all different.
async fn upstash() -> (Upstream, Pillion) {
    let count = std::sync::atomic::AtomicU32::new(0);
    let upstream = Upstream::answering(move |_| {
        let n = count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        Answer::ok(format!(r#"{{"result":[{n}]}}"#))
    })
    .await;
    let pillion = Pillion::route("upstash-vector", &upstream, &[]).await;
    (upstream, pillion)
}

const KEY: (&str, &str) = ("authorization", "Bearer tenant-1");

#[tokio::test]
async fn what_the_answer_may_depend_on_keeps_requests_apart() {
    let (upstream, pillion) = upstash().await;
    let first = pillion.post_with("/query/ns?a=1&b=2", &[KEY], BODY).await;
    assert_eq!(first.cache(), "pillion; fwd=miss; stored");
    let cases: Vec<Case> = vec![
        ("another credential", "/query/ns?a=1&b=2", vec![("authorization", "Bearer tenant-2")], BODY.into()),
        ("no credential", "/query/ns?a=1&b=2", vec![], BODY.into()),
        (
            "two credentials",
            "/query/ns?a=1&b=2",
            vec![KEY, ("authorization", "Bearer tenant-2")],
            BODY.into(),
        ),
        ("an api key beside it", "/query/ns?a=1&b=2", vec![KEY, ("api-key", "k")], BODY.into()),
        ("another namespace", "/query/nt?a=1&b=2", vec![KEY], BODY.into()),
        ("no namespace", "/query?a=1&b=2", vec![KEY], BODY.into()),
        ("another command", "/query-data/ns?a=1&b=2", vec![KEY], BODY.into()),
        ("another query", "/query/ns?a=1&b=3", vec![KEY], BODY.into()),
        ("no query", "/query/ns", vec![KEY], BODY.into()),
        ("another topK", "/query/ns?a=1&b=2", vec![KEY], BODY.replace(":3", ":4")),
        ("another filter", "/query/ns?a=1&b=2", vec![KEY], BODY.replace("a = 1", "a = 2")),
        ("white space in a string", "/query/ns?a=1&b=2", vec![KEY], BODY.replace("a = 1", "a  = 1")),
        ("the last digit beyond 2^53", "/query/ns?a=1&b=2", vec![KEY], BODY.replace("40993", "40992")),
        ("the last digit of a float", "/query/ns?a=1&b=2", vec![KEY], BODY.replace("0.25", "0.26")),
        ("another spelling of a number", "/query/ns?a=1&b=2", vec![KEY], BODY.replace("0.25", "0.250")),
        ("another order of an array", "/query/ns?a=1&b=2", vec![KEY], BODY.replace("0.1,0.25", "0.25,0.1")),
        ("a member more", "/query/ns?a=1&b=2", vec![KEY], BODY.replace('{', r#"{"includeData":false,"#)),
        ("null for absent", "/query/ns?a=1&b=2", vec![KEY], BODY.replace('{', r#"{"includeData":null,"#)),
        ("a member twice", "/query/ns?a=1&b=2", vec![KEY], BODY.replace('{', r#"{"topK":3,"#)),
        ("a number as a string", "/query/ns?a=1&b=2", vec![KEY], BODY.replace(":3", r#":"3""#)),
        ("another language", "/query/ns?a=1&b=2", vec![KEY, ("accept-language", "de")], BODY.into()),
        ("not JSON", "/query/ns?a=1&b=2", vec![KEY], format!("{BODY},")),
        ("nothing", "/query/ns?a=1&b=2", vec![KEY], String::new()),
    ];
    for (n, (what, target, headers, body)) in cases.iter().enumerate() {
        let answer = pillion.post_with(target, headers, body).await;
        assert_eq!(answer.cache(), "pillion; fwd=miss; stored", "{what}");
        assert_eq!(upstream.count(), n + 2, "{what}");
    }
    let by_get = pillion.connect().await.exchange("GET", "/query/ns?a=1&b=2", &[KEY], "").await;
    assert!(!by_get.is_hit(), "another method");
    // All of them are there, each with its own answer.
    let count = upstream.count();
    for (n, (what, target, headers, body)) in cases.iter().enumerate() {
        let answer = pillion.post_with(target, headers, body).await;
        assert!(answer.is_hit(), "{what}");
        assert_eq!(answer.json()["result"][0], n + 1, "{what}");
    }
    assert_eq!(upstream.count(), count);
}

#[tokio::test]
async fn what_does_not_matter_does_not_keep_them_apart() {
    let (upstream, pillion) = upstash().await;
    pillion.post_with("/query/ns?a=1&b=2", &[KEY], BODY).await;
    let spaced = "{ \"vector\" : [ 0.1 , 0.25 ] ,\n\t\"id\":9007199254740993, \"filter\":\"a = 1\", \"topK\" : 3 }\r\n";
    let cases: [(&str, &str, &[Field], &str); 7] = [
        ("the same", "/query/ns?a=1&b=2", &[], BODY),
        ("white space and order of members", "/query/ns?a=1&b=2", &[], spaced),
        ("escapes", "/query/ns?a=1&b=2", &[], &BODY.replace("topK", "top\\u004b")),
        ("order of parameters", "/query/ns?b=2&a=1", &[], BODY),
        ("telemetry", "/query/ns?a=1&b=2", &[("upstash-telemetry-sdk", "x"), ("user-agent", "y")], BODY),
        ("what it accepts", "/query/ns?a=1&b=2", &[("accept-encoding", "gzip, br")], BODY),
        (
            "trace and conversation",
            "/query/ns?a=1&b=2",
            &[
                ("traceparent", "00-1"),
                ("x-conversation-id", "c"),
                ("idempotency-key", "k"),
                ("x-request-id", "r"),
            ],
            BODY,
        ),
    ];
    for (what, target, headers, body) in cases {
        let answer = pillion.post_with(target, &[&[KEY], headers].concat(), body).await;
        assert!(answer.is_hit(), "{what}: {}", answer.cache());
        assert_eq!(answer.json()["result"][0], 0, "{what}");
    }
    let mut client = pillion.connect().await;
    client.send("POST /query/ns?a=1&b=2 HTTP/1.1\r\nhost: y\r\nauthorization: Bearer tenant-1\r\ncontent-type: application/json\r\n").await;
    client.send("transfer-encoding: chunked\r\n\r\n").await;
    for piece in BODY.as_bytes().chunks(7) {
        client.send(Answer::chunk(piece)).await;
    }
    client.send("0\r\n\r\n").await;
    assert!(client.response().await.is_hit(), "other framing, other Host");
    assert_eq!(upstream.count(), 1);
}

#[tokio::test]
async fn routes_to_different_upstreams_share_nothing() {
    let (one, two) = (Upstream::start().await, Upstream::start().await);
    one.push(Answer::ok(r#"{"result":[1]}"#));
    two.push(Answer::ok(r#"{"result":[2]}"#));
    two.push(Answer::ok(r#"{"result":[3]}"#));
    let yaml = "
routes:
  - {name: a, path: /a, upstream: '${A}', preset: upstash-vector}
  - {name: b, path: /b, upstream: '${B}', preset: upstash-vector}
  - {name: c, path: /c, upstream: '${B}/base', preset: upstash-vector}
  - {name: d, path: /d, upstream: '${B}', preset: upstash-vector}
";
    let pillion = Pillion::start(yaml, &[("A", &one.url()), ("B", &two.url())]).await;
    for (path, result) in [("/a/query", 1), ("/b/query", 2), ("/c/query", 3)] {
        let answer = pillion.post(path, "{}").await;
        assert_eq!((answer.is_hit(), &answer.json()["result"][0]), (false, &result.into()), "{path}");
    }
    let shared = pillion.post("/d/query", "{}").await;
    assert_eq!((shared.is_hit(), &shared.json()["result"][0]), (true, &2.into()), "the same store");
}

/// One rule takes them all, and each is forwarded as it came: what the store makes of it is the store's to say.
#[tokio::test]
async fn another_spelling_of_the_path_is_another_request() {
    let (_upstream, pillion) = upstash().await;
    for target in [
        "/query/a/b",
        "//query/a/b",
        "/query/a//b",
        "/query/a/b/",
        "/query/%61/b",
        "/query/a/b+",
        "/query/a/b%2B",
    ] {
        assert!(!pillion.post_with(target, &[KEY], BODY).await.is_hit(), "{target}");
        assert!(pillion.post_with(target, &[KEY], BODY).await.is_hit(), "{target}");
    }
}

/// What one of two routes would not have stored, or not for so long, is no answer of it.
#[tokio::test]
async fn routes_to_one_store_that_store_differently_share_nothing() {
    let upstream = Upstream::answering(|_| Answer::ok(r#"{"result":[]}"#)).await;
    let yaml = "
routes:
  - {name: long, path: /long, upstream: '${UP}', preset: upstash-vector, cache: {ttl: 1h, cache_empty: true}}
  - {name: short, path: /short, upstream: '${UP}', preset: upstash-vector, cache: {ttl: 2s, cache_empty: true}}
  - {name: full, path: /full, upstream: '${UP}', preset: upstash-vector, cache: {ttl: 1h, cache_empty: false}}
  - {name: same, path: /same, upstream: '${UP}', preset: upstash-vector, cache: {ttl: 1h, cache_empty: true}}
";
    let pillion = Pillion::start(yaml, &[("UP", &upstream.url())]).await;
    let cached = async |path: &str| pillion.post(path, "{}").await.cache().to_owned();
    assert_eq!(cached("/long/query").await, "pillion; fwd=miss; stored");
    assert!(cached("/same/query").await.starts_with("pillion; hit"));
    assert_eq!(cached("/short/query").await, "pillion; fwd=miss; stored");
    for _ in 0..2 {
        assert_eq!(cached("/full/query").await, "pillion; fwd=miss");
    }
}

#[tokio::test]
async fn a_route_may_leave_out_a_header_of_its_bot() {
    let (upstream, path) = (Upstream::answering(|_| Answer::ok(r#"{"result":[1]}"#)).await, "/query/ns");
    let pillion = Pillion::route("upstash-vector", &upstream, &["cache: {ignore_headers: [X-Turn]}"]).await;
    assert!(!pillion.post_with(path, &[("x-turn", "1"), ("x-bot", "b")], BODY).await.is_hit());
    assert!(pillion.post_with(path, &[("x-bot", "b"), ("x-turn", "2")], BODY).await.is_hit());
    assert!(pillion.post_with(path, &[("x-bot", "b")], BODY).await.is_hit());
    assert!(!pillion.post_with(path, &[("x-bot", "c")], BODY).await.is_hit());
}

/// A header that nobody here has heard of keeps two callers apart.
#[tokio::test]
async fn what_may_be_a_credential_is_one() {
    let (_upstream, pillion) = upstash().await;
    for name in [
        "x-chroma-token",
        "x-service-auth",
        "x-tenant-id",
        "x-forwarded-user",
        "x-account",
        "ocp-apim-subscription-key",
        "cf-access-jwt-assertion",
        "x-goog-iap-jwt-assertion",
        "x-amzn-oidc-identity",
        "x-ms-client-principal",
        "x-forwarded-email",
        "x-forwarded-for",
        "x-user-id",
        "x-ssl-client-s-dn",
        "x-proxy-roles",
        "x-anything",
    ] {
        for value in ["good", "evil"] {
            let answer = pillion.post_with("/query/ns", &[(name, value)], BODY).await;
            assert!(!answer.is_hit(), "{name}: {value}");
        }
        assert!(pillion.post_with("/query/ns", &[(name, "good")], BODY).await.is_hit(), "{name}");
    }
}
