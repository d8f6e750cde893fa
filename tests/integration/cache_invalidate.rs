//! `POST /cache/invalidate`: dropping by route and scope, and who may.

use std::time::Duration;

use crate::support::{Answer, Pillion, Response, Upstream, advance};

const YAML: &str = "
routes:
  - {name: u, path: /u, upstream: '${U}', preset: upstash-vector, cache: {settle: 0s}}
  - {name: c, path: /c, upstream: '${C}', preset: chroma-v2}
  - {name: o, path: /o, upstream: '${O}', preset: openai}
";
const ONE: &str = "/u/query/one";
const NAMELESS: &str = "/u/query";
const COLLECTION: &str = "/c/api/v2/tenants/t/databases/d/collections/0195d1a2-b3c4/query";
const ALL: [&str; 4] = [ONE, "/u/query/two", NAMELESS, COLLECTION];

/// One answer stored of each.
async fn filled() -> (Upstream, Pillion) {
    let upstream = Upstream::answering(|_| Answer::ok(r#"{"result":[1],"ids":[["a"]]}"#)).await;
    let other = upstream.url().replace("127.0.0.1", "localhost");
    let pillion = Pillion::start(YAML, &[("U", &upstream.url()), ("C", &other), ("O", &other)]).await;
    for path in ALL {
        assert_eq!(pillion.post(path, "{}").await.cache(), "pillion; fwd=miss; stored", "{path}");
    }
    (upstream, pillion)
}

async fn invalidate(pillion: &Pillion, query: &str) -> Response {
    pillion.admin_with("POST", &format!("/cache/invalidate{query}"), &[("pillion-admin", "1")]).await
}

#[tokio::test]
async fn what_is_named_is_dropped_and_nothing_else() {
    let (_upstream, pillion) = filled().await;
    for (query, routes, dropped) in [
        ("?route=u&scope=one", r#"["u"]"#, &[ONE][..]),
        ("?route=u&scope=", r#"["u"]"#, &[NAMELESS]),
        ("?route=u&scope=three", r#"["u"]"#, &[]),
        ("?route=u&scope=*", r#"["u"]"#, &ALL[..3]),
        ("?route=u", r#"["u"]"#, &ALL[..3]),
        ("?route=c&scope=0195D1A2B3C4", r#"["c"]"#, &[COLLECTION]),
        ("", r#"["u","c","o"]"#, &ALL),
    ] {
        let answer = invalidate(&pillion, query).await;
        assert_eq!(answer.status, 200, "{query}: {answer:?}");
        assert_eq!(answer.json()["routes"].to_string(), routes, "{query}");
        assert_eq!(answer.json()["reached"], "this instance");
        for path in ALL {
            let answer = pillion.post(path, "{}").await;
            assert_eq!(answer.is_hit(), !dropped.contains(&path), "{query}: {path}: {}", answer.cache());
            if !answer.is_hit() {
                assert_eq!(answer.cache(), "pillion; fwd=miss; stored", "and stored again");
            }
        }
    }
    pillion.metric_is("pillion_invalidations_total", &[("route", "u"), ("operation", "other")], 6.0).await;
}

#[tokio::test]
async fn what_is_not_understood_drops_nothing() {
    let (_upstream, pillion) = filled().await;
    for (query, status, hint) in [
        ("?route=v", 404, "no route has this name; there are: u, c, o"),
        ("?rout=u", 400, "route and scope"),
        ("?scope=one", 400, "name the route too"),
        ("?route=u&route=c", 400, "once"),
    ] {
        let answer = invalidate(&pillion, query).await;
        assert_eq!(answer.status, status, "{query}");
        assert!(answer.text().contains(hint), "{query}: {}", answer.text());
    }
    for (method, headers, status) in [
        ("GET", &[("pillion-admin", "1")][..], 405),
        ("DELETE", &[("pillion-admin", "1")], 405),
        ("POST", &[], 403),
        ("POST", &[("pillion-admin", "yes")], 403),
        ("POST", &[("pillion-admin", "1"), ("host", "evil.example")], 421),
    ] {
        let answer = pillion.admin_with(method, "/cache/invalidate", headers).await;
        assert_eq!(answer.status, status, "{method} {headers:?}");
    }
    for path in ALL {
        assert!(pillion.post(path, "{}").await.is_hit(), "{path}");
    }
}

#[tokio::test]
async fn with_a_token_it_wants_the_token() {
    let upstream = Upstream::start().await;
    let yaml = "
admin: {listen: '127.0.0.1:0', token: '${TOKEN}'}
routes: [{name: r, path: /, upstream: '${UP}', preset: http}]";
    let pillion = Pillion::start(yaml, &[("UP", &upstream.url()), ("TOKEN", "s3cret-token")]).await;
    assert_eq!(invalidate(&pillion, "").await.status, 401);
    let both = [("authorization", "Bearer s3cret-token"), ("pillion-admin", "1")];
    let answer = pillion.admin_with("POST", "/cache/invalidate", &both).await;
    assert_eq!(
        (answer.status, answer.json()["routes"].to_string().as_str()),
        (200, "[]"),
        "it stores nothing"
    );
    assert_eq!(pillion.admin_with("POST", "/cache/invalidate", &both[..1]).await.status, 403);
}

#[tokio::test]
async fn a_store_that_settles_does_so_after_a_command_too() {
    let upstream = Upstream::answering(|_| Answer::ok(r#"{"result":[1]}"#)).await;
    let pillion = Pillion::route("upstash-vector", &upstream, &[]).await;
    pillion.post("/query", "{}").await;
    assert_eq!(invalidate(&pillion, "?route=r").await.status, 200);
    assert_eq!(pillion.post("/query", "{}").await.cache(), "pillion; fwd=bypass; detail=settle");
    advance(Duration::from_secs(31)).await;
    assert_eq!(pillion.post("/query", "{}").await.cache(), "pillion; fwd=miss; stored");
}

#[tokio::test]
async fn where_scopes_do_not_compare_all_of_the_store_is_dropped() {
    let upstream = Upstream::answering(|_| Answer::ok(r#"{"result":[1],"ids":[["a"]]}"#)).await;
    let yaml = "
routes:
  - {name: u, path: /u, upstream: '${UP}', preset: upstash-vector, cache: {settle: 0s}}
  - {name: c, path: /c, upstream: '${UP}', preset: chroma-v2, cache: {settle: 0s}}";
    let pillion = Pillion::start(yaml, &[("UP", &upstream.url())]).await;
    for path in [ONE, COLLECTION] {
        pillion.post(path, "{}").await;
    }
    assert_eq!(invalidate(&pillion, "?route=u&scope=three").await.status, 200);
    for path in [ONE, COLLECTION] {
        assert!(!pillion.post(path, "{}").await.is_hit(), "{path}");
    }
}
