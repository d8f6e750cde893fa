//! Which route a request belongs to, and where it goes from there.

use crate::support::{Answer, Client, Pillion, Upstream};

async fn plain() -> (Upstream, Pillion) {
    let upstream = Upstream::answering(|_| Answer::ok("{}")).await;
    let pillion = Pillion::route("http", &upstream, &[]).await;
    (upstream, pillion)
}

#[tokio::test]
async fn the_longest_prefix_wins() {
    let (short, long) = (Upstream::answering(|_| Answer::ok("short")).await, Upstream::start().await);
    long.push(Answer::ok("long"));
    let yaml = "
routes:
  - {name: a, path: /v, upstream: '${A}', preset: http}
  - {name: b, path: /v/deep, upstream: '${B}/base/', preset: http}
";
    let pillion = Pillion::start(yaml, &[("A", &short.url()), ("B", &long.url())]).await;
    assert_eq!(pillion.get("/v/deep/x?q=1").await.text(), "long");
    assert_eq!(long.last().target, "/base/x?q=1");
    assert_eq!(pillion.get("/v/deeper").await.text(), "short");
    assert_eq!(short.last().target, "/deeper");
    assert_eq!(pillion.get("/vx").await.status, 404);
    assert_eq!((short.count(), long.count()), (1, 1));
}

#[tokio::test]
async fn a_prefix_matches_whole_segments_and_normalised() {
    let upstream = Upstream::answering(|_| Answer::ok("{}")).await;
    let yaml = "routes: [{name: o, path: /openai, upstream: '${UP}', preset: openai}]";
    let pillion = Pillion::start(yaml, &[("UP", &upstream.url())]).await;
    for (asked, forwarded) in [
        ("/openai", "/"),
        ("/openai/", "/"),
        ("/openai?a=1", "/?a=1"),
        ("/openai/v1/models", "/v1/models"),
        ("//openai//v1/models", "//v1/models"),
        ("/%6Fpenai/v1/models", "/v1/models"),
        ("/openai/v1/files/a%2Fb%20c/%e4?q=%2F&x=a+b&&y", "/v1/files/a%2Fb%20c/%e4?q=%2F&x=a+b&&y"),
        ("/openai/a//b/", "/a//b/"),
    ] {
        let answer = pillion.get(asked).await;
        assert_eq!(answer.status, 200, "{asked}");
        assert_eq!(upstream.last().target, forwarded, "{asked}");
    }
    let before = upstream.count();
    for asked in ["/openaix", "/openaix/v1", "/", "/open", "/OPENAI/v1", "/openai%2Fv1"] {
        let answer = pillion.get(asked).await;
        assert_eq!(answer.status, 404, "{asked}");
        assert!(answer.header("proxy-status").unwrap().contains("error=destination_not_found"), "{asked}");
    }
    assert_eq!(upstream.count(), before, "nothing of it went upstream");
}

#[tokio::test]
async fn the_base_path_of_the_upstream_is_put_before() {
    let upstream = Upstream::answering(|_| Answer::ok("{}")).await;
    let yaml = "routes: [{name: o, path: /o, upstream: '${UP}/base/v2/', preset: http}]";
    let pillion = Pillion::start(yaml, &[("UP", &upstream.url())]).await;
    for (asked, forwarded) in [
        ("/o/x%2Fy?z", "/base/v2/x%2Fy?z"),
        ("/o", "/base/v2"),
        ("/o/", "/base/v2/"),
        ("/o?q", "/base/v2?q"),
        ("/o//x", "/base/v2//x"),
    ] {
        assert_eq!(pillion.get(asked).await.status, 200, "{asked}");
        assert_eq!(upstream.last().target, forwarded, "{asked}");
    }
}

#[tokio::test]
async fn dot_segments_are_refused() {
    let (upstream, pillion) = plain().await;
    for path in ["/a/../b", "/./a", "/a/..", "/a/%2e%2e/b", "/%2E/a", "/a%2", "/a%zz", "/a/.%2e"] {
        let answer = pillion.get(path).await;
        assert_eq!(answer.status, 400, "{path}");
        assert!(answer.header("proxy-status").unwrap().contains("error=http_request_error"), "{path}");
    }
    assert_eq!(upstream.count(), 0);
    assert_eq!(pillion.get("/.well-known/a..b/...").await.status, 200, "dots in names are no dot segments");
    assert_eq!(upstream.last().target, "/.well-known/a..b/...");
}

#[tokio::test]
async fn path_and_query_are_forwarded_byte_for_byte() {
    let (upstream, pillion) = plain().await;
    // Every byte that may stand in a target of RFC 3986, and those that clients send all the same.
    let path: String = (b'!'..=b'~').map(char::from).filter(|c| !"?#%\\\"<>^`{|}".contains(*c)).collect();
    let query = "a=b&a=c&;=?/:@!$'()*,+%20%C3%A9&%7e~=%41";
    for target in [format!("/{path}"), format!("/x?{query}"), "/x?".to_owned(), "/*".to_owned()] {
        assert_eq!(pillion.get(&target).await.status, 200, "{target}");
        let line = upstream.last().head.split("\r\n").next().unwrap().to_owned();
        assert_eq!(line, format!("GET {target} HTTP/1.1"));
    }
}

#[tokio::test]
async fn rfc9110_7_2_host_becomes_the_upstreams() {
    let (upstream, pillion) = plain().await;
    let mut client = pillion.connect().await;
    let answer = client.exchange("GET", "/", &[("host", "internal.example:99")], "").await;
    assert_eq!(answer.status, 200);
    let seen = upstream.last();
    let hosts: Vec<_> = seen.headers.iter().filter(|(name, _)| name == "host").collect();
    assert_eq!(hosts, [&("host".to_owned(), upstream.addr.to_string())]);
}

#[tokio::test]
async fn rfc9112_3_2_2_the_authority_of_an_absolute_target_routes_nothing() {
    let (upstream, pillion) = plain().await;
    let elsewhere = Upstream::start().await;
    let target = format!("{}/x?y", elsewhere.url());
    let mut client = pillion.connect().await;
    let forwarded = [("x-forwarded-host", "evil.example"), ("forwarded", "host=evil.example")];
    let answer = client.exchange("GET", &target, &forwarded, "").await;
    assert_eq!(answer.status, 200);
    let seen = upstream.last();
    assert_eq!(seen.target, "/x?y");
    assert_eq!(seen.header("host").unwrap(), upstream.addr.to_string());
    assert_eq!(elsewhere.connections(), 0);
}

#[tokio::test]
async fn rfc9110_7_6_3_via_is_added_and_our_own_is_a_loop() {
    let (upstream, pillion) = plain().await;
    let answer = pillion.post_with("/", &[("via", "1.0 first (a, b)")], "{}").await;
    assert_eq!(answer.status, 200);
    let seen = upstream.last();
    let via: Vec<_> = seen.headers.iter().filter(|(name, _)| name == "via").map(|(_, v)| v.clone()).collect();
    assert_eq!(via.len(), 2, "{via:?}");
    assert_eq!(via[0], "1.0 first (a, b)");
    assert!(via[1].starts_with("1.1 pillion-"), "{via:?}");

    let looped = pillion.post_with("/", &[("via", &via.join(", "))], "{}").await;
    assert_eq!(looped.status, 508);
    assert!(looped.header("proxy-status").unwrap().contains("error=proxy_loop_detected"));
    assert_eq!(upstream.count(), 1);

    let other = Pillion::route("http", &upstream, &[]).await;
    let passed = other.post_with("/", &[("via", &via.join(", "))], "{}").await;
    assert_eq!(passed.status, 200, "another instance in line is no loop");
}

#[tokio::test]
async fn two_instances_in_line_both_tell() {
    let upstream = Upstream::answering(|_| Answer::ok("{}")).await;
    let inner = Pillion::route("http", &upstream, &[]).await;
    let yaml = "routes: [{name: o, path: /, upstream: '${UP}', preset: http}]";
    let outer = Pillion::start(yaml, &[("UP", &format!("http://{}", inner.addr))]).await;
    assert_eq!(outer.get("/").await.status, 200);
    assert_eq!(upstream.last().headers.into_iter().filter(|(name, _)| name == "via").count(), 2);
}

#[tokio::test]
async fn a_route_may_have_a_listener_of_its_own() {
    let (shared, own) = (Upstream::answering(|_| Answer::ok("shared")).await, Upstream::start().await);
    own.push(Answer::ok("own"));
    let yaml = "
routes:
  - {name: a, path: /, upstream: '${A}', preset: http}
  - {name: b, listen: '127.0.0.1:0', upstream: '${B}', preset: http}
";
    let pillion = Pillion::start(yaml, &[("A", &shared.url()), ("B", &own.url())]).await;
    let mut client = Client::connect(pillion.running.route_addr("b").unwrap()).await;
    assert_eq!(client.exchange("GET", "/x", &[], "").await.text(), "own");
    assert_eq!(own.last().target, "/x");
    assert_eq!(pillion.get("/x").await.text(), "shared");
}
