//! What Pillion knows of conversations, as operators are told of it; and what lies of it in Redis.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::redis::Redis;
use crate::support::{Answer, Pillion, Response, Upstream, advance, eventually};

const CHAT: &str = "/v1/chat/completions";

fn body(messages: usize, more: &str) -> String {
    let messages: Vec<String> = (0..messages)
        .map(|n| {
            format!(
                r#"{{"role":"{}","content":"ten chars\n"}}"#,
                if n % 2 == 0 { "user" } else { "assistant" }
            )
        })
        .collect();
    format!(r#"{{"messages":[{{"role":"system","content":"Be brief."}},{}]{more}}}"#, messages.join(","))
}

async fn told(pillion: &Pillion, id: &str) -> Value {
    let answer = pillion.admin_get(&format!("/conversations/{id}")).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

async fn instance(upstream: &Upstream, redis: &str, more: &str) -> Pillion {
    let redis =
        if redis.is_empty() { String::new() } else { format!("redis: {{url: '{redis}', timeout: 2s}}\n") };
    let yaml = format!("{redis}routes: [{{name: r, path: /, upstream: '${{UP}}', preset: openai{more}}}]\n");
    Pillion::start(&yaml, &[("UP", &upstream.url())]).await
}

async fn say(pillion: &Pillion, headers: &[(&str, &str)], body: &str) -> Response {
    let answer = pillion.post_with(CHAT, headers, body).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer
}

#[tokio::test]
async fn a_conversation_is_told_by_the_name_that_the_bot_gives_it() {
    let upstream = Upstream::answering(|_| Answer::ok("{}")).await;
    let pillion = instance(&upstream, "", "").await;
    let named = [("x-conversation-id", "chat/42 ä"), ("authorization", "Bearer sk-1")];
    say(&pillion, &named, &body(19, "")).await;
    say(&pillion, &named, &body(31, "")).await;
    let found = told(&pillion, "chat%2F42%20%C3%A4").await;
    assert_eq!(found["known_to"], "this instance");
    let [one] = found["conversations"].as_array().unwrap().as_slice() else { panic!("{found}") };
    let bytes = |messages: std::ops::Range<usize>| -> usize {
        // Of each, and the comma behind it.
        messages.map(|n| if n % 2 == 0 { 40 } else { 45 }).sum::<usize>()
    };
    assert_eq!(
        (&one["route"], &one["requests"], &one["total_messages"], &one["has_system_prompt"]),
        (&json!("r"), &json!(2), &json!(32), &json!(true))
    );
    assert_eq!((&one["user_messages"], &one["assistant_messages"]), (&json!(16), &json!(15)));
    assert_eq!(one["total_characters"], 31 * 10 + 9);
    assert_eq!(one["history_bytes"], bytes(0..31) - 1);
    assert_eq!(one["forwarded"]["messages"], 19 + 19);
    assert_eq!(one["saved"]["messages"], 12);
    assert_eq!(one["saved"]["bytes"], bytes(0..12));
    let sum = |part: &str| one["forwarded"][part].as_u64().unwrap() + one["saved"][part].as_u64().unwrap();
    assert_eq!(sum("bytes"), (bytes(0..19) + bytes(0..31) - 2) as u64);
    assert!((300..400).contains(&one["estimated_tokens"].as_u64().unwrap()), "{one}");
    pillion.metric_is("pillion_conversations", &[], 1.0).await;
    // The name is Pillion's, not the upstream's.
    assert_eq!(upstream.last().header("x-conversation-id"), None);

    assert_eq!(pillion.admin_get("/conversations/43").await.status, 404);
    assert_eq!(pillion.admin_with("DELETE", "/conversations/chat%2F42%20%C3%A4", &[]).await.status, 403);
    let meant = [("pillion-admin", "1")];
    assert_eq!(pillion.admin_with("DELETE", "/conversations/chat%2F42%20%C3%A4", &meant).await.status, 200);
    assert_eq!(pillion.admin_get("/conversations/chat%2F42%20%C3%A4").await.status, 404);
}

#[tokio::test]
async fn names_in_the_body_count_where_there_is_no_header() {
    let upstream = Upstream::answering(|_| Answer::ok("{}")).await;
    let pillion = instance(&upstream, "", "").await;
    for (more, id) in [
        (r#","user":"u1""#, "u1"),
        (r#","user":"u2","prompt_cache_key":"k2""#, "k2"),
        (r#","prompt_cache_key":"k3","metadata":{"conversation_id":"c3"},"user":"u3""#, "c3"),
        (r#","metadata":{"x":[{"conversation_id":"no"}],"conversation_id":"c\u00344"}"#, "c44"),
    ] {
        say(&pillion, &[], &body(2, more)).await;
        assert_eq!(told(&pillion, id).await["conversations"][0]["requests"], 1, "{more}");
    }
    say(&pillion, &[("x-conversation-id", "h5")], &body(2, r#","user":"u5""#)).await;
    assert_eq!(told(&pillion, "h5").await["conversations"][0]["requests"], 1);
    for id in ["u2", "u3", "k3", "no", "u5"] {
        assert_eq!(pillion.admin_get(&format!("/conversations/{id}")).await.status, 404, "{id}");
    }
    // Nothing to go by.
    for more in ["", r#","user":"""#, r#","user":5,"metadata":{"conversation_id":{}}"#] {
        say(&pillion, &[], &body(2, more)).await;
    }
    pillion.metric_is("pillion_conversations", &[], 5.0).await;
    // Another key's conversation of the same name is another one.
    say(&pillion, &[("authorization", "Bearer other")], &body(4, r#","user":"u1""#)).await;
    let found = told(&pillion, "u1").await;
    let sizes: Vec<u64> = found["conversations"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["total_messages"].as_u64().unwrap())
        .collect();
    assert_eq!(sizes, [5, 3]);
}

#[tokio::test]
async fn one_that_is_idle_is_forgotten() {
    let upstream = Upstream::answering(|_| Answer::ok("{}")).await;
    let pillion = instance(&upstream, "", "").await;
    say(&pillion, &[("x-conversation-id", "a")], &body(2, "")).await;
    advance(Duration::from_secs(24 * 3600 - 5)).await;
    told(&pillion, "a").await;
    advance(Duration::from_secs(5)).await;
    assert_eq!(pillion.admin_get("/conversations/a").await.status, 404);
    advance(Duration::from_secs(60)).await;
    pillion.metric_is("pillion_conversations", &[], 0.0).await;
}

#[tokio::test]
async fn of_what_is_refused_trimmed_nothing_was_saved() {
    let upstream = Upstream::start().await;
    let pillion = instance(&upstream, "", "").await;
    upstream.push(Answer::status(400, r#"{"error":{}}"#));
    upstream.push(Answer::ok("{}"));
    say(&pillion, &[("x-conversation-id", "a")], &body(31, "")).await;
    let found = told(&pillion, "a").await;
    let one = &found["conversations"][0];
    assert_eq!((&one["requests"], &one["forwarded"]["messages"]), (&json!(1), &json!(31)));
    assert_eq!(one["saved"], json!({"messages": 0, "bytes": 0, "tokens": 0}));
}

#[tokio::test]
async fn instances_with_one_redis_tell_the_same() {
    for secret in ["", ", secret: of-the-tests"] {
        let redis = Redis::start().await;
        let upstream = Upstream::answering(|_| Answer::ok("{}")).await;
        let yaml = format!(
            "redis: {{url: '{}', timeout: 2s, prefix: 'p:'{secret}}}\nroutes: [{{name: r, path: /, upstream: '${{UP}}', preset: openai}}]\n",
            redis.url()
        );
        let one = Pillion::start(&yaml, &[("UP", &upstream.url())]).await;
        let two = Pillion::start(&yaml, &[("UP", &upstream.url())]).await;
        let named = [("x-conversation-id", "canary-conversation"), ("authorization", "Bearer canary-key")];
        // Until both have a connection: what is said before is told by nobody.
        for pillion in [&one, &two] {
            eventually("it is told by Redis", async || {
                say(pillion, &named, &body(31, "")).await;
                told(pillion, "canary-conversation").await["known_to"] == "all instances"
            })
            .await;
        }
        let found =
            async |pillion: &Pillion| told(pillion, "canary-conversation").await["conversations"][0].clone();
        let before = found(&one).await["requests"].as_u64().unwrap();
        for pillion in [&one, &two, &one] {
            say(pillion, &named, &body(33, "")).await;
        }
        eventually("all three are told", async || found(&two).await["requests"] == before + 3).await;
        let (mut a, mut b) = (found(&one).await, found(&two).await);
        for told in [&mut a, &mut b] {
            assert!(told["idle_seconds"].as_f64().unwrap() < 60.0);
            told["idle_seconds"] = Value::Null;
        }
        assert_eq!(a, b);
        assert_eq!((&a["total_messages"], &a["route"]), (&json!(34), &json!("r")));
        assert_eq!(a["saved"]["messages"], 12 * before + 14 * 3);

        // Hashes lie there, and every key has an end.
        let everything = redis.everything().await;
        assert!(!String::from_utf8_lossy(&everything).contains("canary"));
        let keys = redis.keys().await;
        assert_eq!(keys.iter().filter(|key| key.contains(":c:")).count(), 1, "{keys:?}");
        for key in keys.iter().filter(|key| key.starts_with("p:{conversations}")) {
            let left: i64 = redis.ask(&["PTTL", key]).await;
            let most = if key.contains(":c:") { 24 * 3_600_000 } else { 30 * 24 * 3_600_000 };
            assert!((1..=most).contains(&left), "{key} {left}");
        }
        if secret.is_empty() {
            // Everything is lost, the key that names conversations too: both find the same one again.
            let _: String = redis.ask(&["FLUSHALL"]).await;
            eventually("both tell the same again", async || {
                for pillion in [&one, &two] {
                    say(pillion, &named, &body(33, "")).await;
                }
                let told = [found(&one).await, found(&two).await];
                told[0]["requests"] == told[1]["requests"] && told[0]["requests"].as_u64() > Some(3)
            })
            .await;
            let keys = redis.keys().await;
            assert_eq!(keys.iter().filter(|key| key.contains(":c:")).count(), 1, "{keys:?}");
        }
        // What one forgets the other does not know either.
        let meant = [("pillion-admin", "1")];
        let answer = one.admin_with("DELETE", "/conversations/canary-conversation", &meant).await;
        assert_eq!(answer.json()["reached"], "all instances");
        assert_eq!(two.admin_get("/conversations/canary-conversation").await.status, 404);
    }
}

#[tokio::test]
async fn ten_thousand_conversations_end_in_redis_too() {
    const MANY: usize = 10_000;
    let redis = Redis::start().await;
    let upstream = Upstream::answering(|_| Answer::ok("{}")).await;
    let pillion = instance(&upstream, &redis.url(), ", window: {idle_ttl: 24h}").await;
    eventually("it is told by Redis", async || {
        say(&pillion, &[("x-conversation-id", "first")], &body(2, "")).await;
        told(&pillion, "first").await["known_to"] == "all instances"
    })
    .await;
    let mut client = pillion.connect().await;
    let content = body(2, "");
    for number in 0..MANY {
        let headers = [("x-conversation-id", &*number.to_string()), ("content-type", "application/json")];
        client.ask("POST", CHAT, &headers, &content).await;
        assert_eq!(client.response().await.status, 200);
    }
    pillion.metric_is("pillion_conversations", &[], MANY as f64 + 1.0).await;
    let untold = pillion.metric("pillion_conversations_untold_total", &[]).await;
    let lying = async || -> usize {
        let count: usize = redis.ask(&["DBSIZE"]).await;
        // Not the key, nor what the cache keeps.
        let keys: Vec<String> = redis.ask(&["KEYS", "pillion:{conversations}:c:*"]).await;
        assert!(keys.len() <= count);
        keys.len()
    };
    eventually("all lie there", async || lying().await as f64 + untold == MANY as f64 + 1.0).await;
    assert_eq!(untold, 0.0);
    // Each ends after a day.
    let script = "local longest, none = 0, 0 for _, key in ipairs(redis.call('KEYS', ARGV[1])) do \
                  local left = redis.call('PTTL', key) if left < 0 then none = none + 1 end \
                  longest = math.max(longest, left) end return { longest, none }";
    let left: Vec<i64> = redis.ask(&["EVAL", script, "0", "pillion:{conversations}:c:*"]).await;
    assert!((23 * 3_600_000..=24 * 3_600_000).contains(&left[0]) && left[1] == 0, "{left:?}");
    // A day later, for Redis: it has no clock that could be set, so each ends a day sooner.
    let script = "for _, key in ipairs(redis.call('KEYS', ARGV[1])) do \
                  redis.call('PEXPIRE', key, redis.call('PTTL', key) - 86400000) end return 0";
    let _: i64 = redis.ask(&["EVAL", script, "0", "pillion:{conversations}:c:*"]).await;
    assert_eq!(lying().await, 0);
    // And for Pillion.
    advance(Duration::from_secs(24 * 3600)).await;
    advance(Duration::from_secs(60)).await;
    pillion.metric_is("pillion_conversations", &[], 0.0).await;
    assert_eq!(pillion.admin_get("/conversations/17").await.status, 404);
}

#[tokio::test]
async fn without_redis_nothing_waits() {
    let upstream = Upstream::answering(|_| Answer::ok("{}")).await;
    let pillion = instance(&upstream, "redis://127.0.0.1:1", "").await;
    let answer = say(&pillion, &[("x-conversation-id", "a")], &body(2, "")).await;
    assert_eq!(answer.status, 200);
    let found = told(&pillion, "a").await;
    assert_eq!(
        (&found["known_to"], &found["conversations"][0]["requests"]),
        (&json!("this instance"), &json!(1))
    );
}
