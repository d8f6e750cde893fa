//! The bot, the upstream and the checker together, over sockets.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Mutex;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;

use super::*;
use crate::cli::http::{self as client, Base};

#[tokio::test(flavor = "multi_thread")]
async fn what_the_index_answers_directly_is_never_stale() {
    let script = Script::new(1, 60, 2);
    let upstream = Upstream::start(1, [0, 0]).await.unwrap();
    let target = target(upstream.model, "/v1", upstream.vector, "").unwrap();
    let direct = side("directly", &script, &target, &upstream, false).await;
    assert_eq!(direct.stale_answers, Some(0));
    assert_eq!(direct.failed as u64, direct.upstream_faults);
    assert_eq!(direct.calls as u64, direct.upstream_calls);
    assert!(direct.checked_answers > 100);
    assert!(direct.failed > 0 && direct.failed < 30, "{}", direct.failed);
}

/// Where a cache that never forgets listens. It is what Pillion must not be.
async fn forgetless(upstream: SocketAddr) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let base: Base = format!("http://{upstream}").parse().unwrap();
    let stored: Arc<Mutex<HashMap<(String, Bytes), Bytes>>> = Arc::default();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (base, stored) = (base.clone(), Arc::clone(&stored));
            let answer = service_fn(move |request: http::Request<hyper::body::Incoming>| {
                let (base, stored) = (base.clone(), Arc::clone(&stored));
                async move {
                    let path = request.uri().path().to_owned();
                    let content = request.into_body().collect().await.unwrap().to_bytes();
                    let key = (path.clone(), content.clone());
                    if let Some(answer) = stored.lock().unwrap().get(&key) {
                        let hit = http::Response::builder().header("cache-status", "pillion; hit; ttl=9");
                        return Ok::<_, Infallible>(hit.body(Full::new(answer.clone())).unwrap());
                    }
                    let patience = Duration::from_secs(5);
                    let answer = client::call(
                        &base,
                        http::Method::POST,
                        &path,
                        None,
                        http::HeaderMap::new(),
                        content,
                        patience,
                    )
                    .await;
                    let Ok(answer) = answer else {
                        return Ok(http::Response::builder().status(502).body(Full::default()).unwrap());
                    };
                    if answer.status == 200 && path.starts_with("/query") {
                        stored.lock().unwrap().insert(key, answer.content.clone());
                    }
                    let response = http::Response::builder().status(answer.status);
                    Ok(response.body(Full::new(answer.content)).unwrap())
                }
            });
            let server = hyper::server::conn::http1::Builder::new();
            tokio::spawn(server.serve_connection(TokioIo::new(stream), answer));
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cache_that_forgets_nothing_is_found_out() {
    let script = Script::new(1, 100, 8);
    let upstream = Upstream::start(1, [0, 0]).await.unwrap();
    let cache = forgetless(upstream.vector).await;
    let target = target(upstream.model, "/v1", cache, "").unwrap();
    let cached = side("with a bad cache", &script, &target, &upstream, true).await;
    assert!(cached.hit_rate.is_some_and(|rate| rate > 0.5), "{:?}", cached.hit_rate);
    assert!(cached.stale_answers.is_some_and(|stale| stale > 5), "{:?}", cached.stale_answers);
}
