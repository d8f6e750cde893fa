//! Two instances and a real Redis: what one has stored serves the other, and what one writes the other forgets.

use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

use crate::support::redis::Redis;
use crate::support::{Answer, Pillion, Response, Upstream, eventually};

/// Searches get answers that are all different, everything else an empty success.
pub(crate) async fn store() -> Upstream {
    let count = AtomicU32::new(0);
    Upstream::answering(move |seen| {
        if seen.target.contains("query") {
            return Answer::ok(format!(r#"{{"result":["answer-{}"]}}"#, count.fetch_add(1, SeqCst)));
        }
        Answer::ok(r#"{"result":"Success"}"#)
    })
    .await
}

/// With a secret fences have fixed places, and no write drops a bystander by chance.
pub(crate) const SECRET: &str = "secret: a-secret-of-the-tests";

pub(crate) async fn instance(upstream: &Upstream, redis: &str, more: &str) -> Pillion {
    let yaml = format!(
        "redis: {{url: '{redis}', {more}}}\nroutes:\n  - {{name: r, path: /, upstream: '${{UP}}', preset: \
         upstash-vector, cache: {{settle: 0s}}, retry: {{enabled: false}}}}\n"
    );
    Pillion::start(&yaml, &[("UP", &upstream.url())]).await
}

/// In use, with a timeout that a busy machine keeps.
pub(crate) async fn joined(upstream: &Upstream, redis: &Redis, more: &str) -> Pillion {
    let pillion = instance(upstream, &redis.url(), &format!("timeout: 2s, {more}")).await;
    pillion.metric_is("pillion_redis_up", &[], 1.0).await;
    pillion
}

pub(crate) async fn search(pillion: &Pillion) -> Response {
    let answer = pillion.post("/query/one", r#"{"topK":1}"#).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer
}

pub(crate) async fn write(pillion: &Pillion, target: &str) {
    assert_eq!(pillion.post(target, "{}").await.status, 200);
}

/// Until what was stored by this instance lies in Redis.
pub(crate) async fn stored(pillion: &Pillion, count: f64) {
    pillion.metric_is("pillion_redis_stores_total", &[("result", "stored")], count).await;
}

fn from_redis(answer: &Response) -> bool {
    answer.is_hit() && answer.cache().ends_with("; detail=redis")
}

fn from_memory(answer: &Response) -> bool {
    answer.is_hit() && !answer.cache().ends_with("; detail=redis")
}

/// Until an answer comes out of this instance's own memory: it has one, and a lease.
pub(crate) async fn in_memory(pillion: &Pillion) -> Response {
    let mut last = None;
    eventually("a hit in memory", async || {
        let answer = search(pillion).await;
        let found = from_memory(&answer);
        last = Some(answer);
        found
    })
    .await;
    last.unwrap()
}

#[tokio::test]
async fn what_one_has_stored_serves_the_other_byte_for_byte() {
    for secret in ["", SECRET] {
        let (upstream, redis) = (store().await, Redis::start().await);
        let one = joined(&upstream, &redis, secret).await;
        let two = joined(&upstream, &redis, secret).await;
        let miss = search(&one).await;
        assert_eq!(miss.cache(), "pillion; fwd=miss; stored");
        stored(&one, 1.0).await;
        let hit = search(&two).await;
        assert!(from_redis(&hit), "{hit:?}");
        assert_eq!((&hit.body, hit.header("content-type")), (&miss.body, miss.header("content-type")));
        assert!(hit.has_age(0), "{hit:?}");
        let hit = in_memory(&two).await;
        assert_eq!(hit.body, miss.body);
        assert_eq!(upstream.count(), 1, "{secret}");
        assert!(two.metric("pillion_redis_lookups_total", &[("result", "hit")]).await >= 1.0);
    }
}

#[tokio::test]
async fn a_write_through_one_is_seen_by_the_next_search_through_the_other() {
    let (upstream, redis) = (store().await, Redis::start().await);
    let one = joined(&upstream, &redis, SECRET).await;
    let two = joined(&upstream, &redis, SECRET).await;
    let other = async |pillion: &Pillion| pillion.post("/query/two", "{}").await;
    let before = search(&one).await;
    other(&one).await;
    stored(&one, 2.0).await;
    for round in 1..=3 {
        in_memory(&two).await;
        let heard = two.metric("pillion_redis_messages_total", &[]).await;
        write(&one, "/upsert/one").await;
        // Its beginning and its end.
        eventually("the messages", async || {
            two.metric("pillion_redis_messages_total", &[]).await >= heard + 2.0
        })
        .await;
        let after = search(&two).await;
        assert!(!after.is_hit(), "round {round}: {after:?}");
        assert_ne!(after.body, before.body);
        assert!(other(&two).await.is_hit(), "another namespace is not touched");
        stored(&two, f64::from(round)).await;
        assert_eq!(search(&one).await.body, after.body, "and back");
    }
}

#[tokio::test]
async fn a_write_is_seen_at_once_where_nothing_is_in_memory() {
    let (upstream, redis) = (store().await, Redis::start().await);
    let one = joined(&upstream, &redis, "").await;
    let two = joined(&upstream, &redis, "").await;
    for round in 1..=20 {
        // Nothing has a lease to trust: what is stored in Redis counts as soon as it is there.
        redis.ask::<i64>(&["CLIENT", "KILL", "TYPE", "pubsub"]).await;
        search(&one).await;
        write(&two, "/upsert/one").await;
        assert!(!from_redis(&search(&one).await), "round {round}");
    }
}

#[tokio::test]
async fn nothing_is_stored_while_a_write_through_another_is_under_way() {
    let (upstream, redis) = (Upstream::start().await, Redis::start().await);
    let one = joined(&upstream, &redis, SECRET).await;
    let two = joined(&upstream, &redis, SECRET).await;
    let gate = crate::support::Gate::new();
    upstream.push(Answer::ok(r#"{"result":"Success"}"#).held(&gate));
    let writing = async {
        write(&one, "/upsert/one").await;
    };
    let searching = async {
        upstream.seen(1).await;
        upstream.push(Answer::ok(r#"{"result":["old"]}"#));
        let during = search(&two).await;
        assert_eq!(during.cache(), "pillion; fwd=bypass; detail=settle");
        gate.open();
    };
    tokio::join!(writing, searching);
    upstream.push(Answer::ok(r#"{"result":["new"]}"#));
    let after = search(&two).await;
    assert!(!after.is_hit() && after.text().contains("new"), "{after:?}");
}

#[tokio::test]
async fn every_key_has_the_prefix_and_an_end_and_none_tells_a_credential() {
    for (secret, readable) in [("", true), (SECRET, false)] {
        let (upstream, redis) = (store().await, Redis::start().await);
        let one = joined(&upstream, &redis, &format!("prefix: 'mine:', {secret}")).await;
        let headers = [("authorization", "Bearer canary-credential")];
        one.post_with("/query/one", &headers, r#"{"data":"canary-question"}"#).await;
        stored(&one, 1.0).await;
        write(&one, "/upsert/canary-namespace").await;
        let keys = redis.keys().await;
        assert_eq!(keys.len(), 2, "{keys:?}");
        for key in keys {
            assert!(key.starts_with("mine:{cache}:"), "{key}");
            let left: i64 = redis.ask(&["PTTL", &key]).await;
            assert!(left > 0, "{key} has {left} ms left");
            if !key.ends_with(":fences") {
                assert!(left <= 300_000, "{left}");
            }
        }
        let everything = redis.everything().await;
        let found = |part: &str| memchr::memmem::find(&everything, part.as_bytes()).is_some();
        assert!(!found("canary") && !found("a-secret-of"), "{}", String::from_utf8_lossy(&everything));
        assert_eq!(found("answer-0"), readable, "with a secret the answer is sealed");
    }
}

#[tokio::test]
async fn credentials_and_prefixes_keep_answers_apart() {
    let (upstream, redis) = (store().await, Redis::start().await);
    let one = joined(&upstream, &redis, SECRET).await;
    let two = joined(&upstream, &redis, SECRET).await;
    let three = joined(&upstream, &redis, &format!("prefix: 'other:', {SECRET}")).await;
    let as_user = async |pillion: &Pillion, user: &str| {
        pillion.post_with("/query/one", &[("authorization", user)], "{}").await
    };
    as_user(&one, "a").await;
    stored(&one, 1.0).await;
    assert!(!as_user(&two, "b").await.is_hit());
    assert!(from_redis(&as_user(&two, "a").await));
    assert!(!as_user(&three, "a").await.is_hit());
}

#[tokio::test]
async fn what_another_version_has_stored_or_somebody_changed_is_a_miss() {
    for secret in ["", SECRET] {
        let (upstream, redis) = (store().await, Redis::start().await);
        let one = joined(&upstream, &redis, secret).await;
        let entries = async || {
            let keys = redis.keys().await;
            keys.into_iter().filter(|key| key.contains(":e:")).collect::<Vec<_>>()
        };
        search(&one).await;
        stored(&one, 1.0).await;
        let key = entries().await.remove(0);
        one.post("/query/one", r#"{"topK":2}"#).await;
        stored(&one, 2.0).await;
        let other = entries().await.into_iter().find(|other| *other != key).unwrap();
        let get = async |key: &str| redis.ask::<Vec<u8>>(&["GET", key]).await;
        let plant = async |bytes: &[u8], left: &str| {
            redis.ask_bytes::<()>(&[b"SET", key.as_bytes(), bytes, b"PX", left.as_bytes()]).await;
        };
        let (entry, other) = (get(&key).await, get(&other).await);
        let mut older = entry.clone();
        older[1] = b'1';
        let mut planted = vec![
            ("an older one", older, "60000"),
            ("another's", other, "60000"),
            ("cut by its last byte", entry[..entry.len() - 1].to_vec(), "60000"),
            ("a byte too long", [&entry[..], b" "].concat(), "60000"),
            ("nothing but a version", b"P2".to_vec(), "60000"),
            ("nothing", Vec::new(), "60000"),
            ("more left than its lifetime", entry.clone(), "3600000"),
        ];
        if !secret.is_empty() {
            let mut changed = entry.clone();
            *changed.last_mut().unwrap() ^= 1;
            planted.push(("changed", changed, "60000"));
        }
        for (what, bytes, left) in planted {
            // One that has nothing in memory.
            let two = joined(&upstream, &redis, secret).await;
            plant(&bytes, left).await;
            assert!(!from_redis(&search(&two).await), "{what}");
            // Not on its way any more when the next is planted.
            stored(&two, 1.0).await;
        }
        let two = joined(&upstream, &redis, secret).await;
        plant(&entry, "60000").await;
        assert!(from_redis(&search(&two).await), "as it was");
        write(&one, "/upsert/one").await;
        let three = joined(&upstream, &redis, secret).await;
        plant(&entry, "60000").await;
        assert!(!from_redis(&search(&three).await), "a write has passed it");
    }
}

#[tokio::test]
async fn a_refresh_is_seen_by_all_and_a_bypass_asks_nobody() {
    let (upstream, redis) = (store().await, Redis::start().await);
    let one = joined(&upstream, &redis, "").await;
    let two = joined(&upstream, &redis, "").await;
    search(&one).await;
    stored(&one, 1.0).await;
    let bypass = two.post_with("/query/one", &[("pillion-cache", "bypass")], r#"{"topK":1}"#).await;
    assert!(bypass.text().contains("answer-1"), "{bypass:?}");
    let fresh = two.post_with("/query/one", &[("pillion-cache", "refresh")], r#"{"topK":1}"#).await;
    assert!(fresh.text().contains("answer-2"), "{fresh:?}");
    stored(&two, 1.0).await;
    let three = joined(&upstream, &redis, "").await;
    assert!(search(&three).await.text().contains("answer-2"));
}

#[tokio::test]
async fn users_of_the_acl_and_passwords_are_admitted() {
    let redis = Redis::start().await;
    let user = [
        "ACL",
        "SETUSER",
        "bot",
        "on",
        ">p@ss",
        "resetkeys",
        "~pillion:*",
        "resetchannels",
        "&pillion:*",
        "-@all",
        "+eval",
        "+evalsha",
        "+subscribe",
        "+publish",
        "+time",
        "+hget",
        "+hset",
        "+hmget",
        "+pexpire",
        "+get",
        "+set",
        "+pttl",
        "+del",
    ];
    redis.ask::<()>(&user).await;
    let upstream = store().await;
    let url = format!("redis://bot:p%40ss@127.0.0.1:{}", redis.port);
    let one = instance(&upstream, &url, "timeout: 2s").await;
    one.metric_is("pillion_redis_up", &[], 1.0).await;
    // Without `+info` each may be on another server, and what was stored before it came is not believed.
    let two = instance(&upstream, &url, "timeout: 2s").await;
    two.metric_is("pillion_redis_up", &[], 1.0).await;
    search(&one).await;
    stored(&one, 1.0).await;
    assert!(from_redis(&search(&two).await));
    in_memory(&two).await;
    write(&one, "/upsert/one").await;
    assert_eq!(one.metric("pillion_redis_unpublished_writes_total", &[]).await, 0.0);
}

#[tokio::test]
async fn a_command_to_one_reaches_the_other() {
    let (upstream, redis) = (store().await, Redis::start().await);
    let one = joined(&upstream, &redis, SECRET).await;
    let two = joined(&upstream, &redis, SECRET).await;
    search(&one).await;
    stored(&one, 1.0).await;
    in_memory(&two).await;
    let heard = two.metric("pillion_redis_messages_total", &[]).await;
    let path = "/cache/invalidate?route=r&scope=one";
    let told = one.admin_with("POST", path, &[("pillion-admin", "1")]).await;
    assert_eq!(told.json()["reached"], "every instance", "{told:?}");
    eventually("the message", async || two.metric("pillion_redis_messages_total", &[]).await > heard).await;
    assert!(!search(&two).await.is_hit());
}

/// Two routes of one instance: a store with `stale_if_error`, and embeddings.
async fn of_two_kinds(upstream: &Upstream, redis: &Redis) -> Pillion {
    let yaml = format!(
        "redis: {{url: '{}', timeout: 2s, {SECRET}}}\nroutes:\n  - {{name: r, path: /, upstream: '${{UP}}', preset: \
         upstash-vector, cache: {{settle: 0s, ttl: 100ms, stale_if_error: 1h}}, retry: {{enabled: false}}}}\n  - {{name: e, \
         path: /e, upstream: '${{EMBED}}', preset: openai}}\n",
        redis.url()
    );
    let embed = upstream.url().replace("127.0.0.1", "localhost");
    let pillion = Pillion::start(&yaml, &[("UP", &upstream.url()), ("EMBED", &embed)]).await;
    pillion.metric_is("pillion_redis_up", &[], 1.0).await;
    pillion
}

#[tokio::test]
async fn without_a_lease_nothing_stands_in_for_a_failure_and_vectors_still_count() {
    const VECTOR: &str = r#"{"object":"list","data":[{"object":"embedding","index":0,"embedding":[0.5]}],"model":"m","usage":{"prompt_tokens":1,"total_tokens":1}}"#;
    let upstream = Upstream::answering(|seen| match &*seen.target {
        "/v1/embeddings" => Answer::ok(VECTOR),
        _ => Answer::status(503, "{}"),
    })
    .await;
    let mut redis = Redis::start().await;
    let pillion = of_two_kinds(&upstream, &redis).await;
    let embed = async || pillion.post("/e/v1/embeddings", r#"{"model":"m","input":"a"}"#).await;
    assert!(!embed().await.is_hit());
    upstream.push(Answer::ok(r#"{"result":["old"]}"#));
    assert_eq!(search(&pillion).await.cache(), "pillion; fwd=miss; stored");
    // Fresh at first, and then not.
    eventually("what is stored in place of a failure", async || {
        pillion.post("/query/one", r#"{"topK":1}"#).await.cache().starts_with("pillion; fwd=stale")
    })
    .await;
    redis.kill().await;
    pillion.metric_is("pillion_redis_lease", &[], 0.0).await;
    assert_eq!(pillion.post("/query/one", r#"{"topK":1}"#).await.status, 503, "others may have written");
    assert!(embed().await.is_hit(), "no write changes them");
}
