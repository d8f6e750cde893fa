//! Redis behind TLS.

use crate::cache_shared::{search, store};
use crate::support::redis::Redis;
use crate::support::secure::{Authority, relay};
use crate::support::{Pillion, eventually};

#[tokio::test]
async fn redis_over_tls_is_used_where_its_certificate_is_trusted() {
    let (upstream, redis, authority) = (store().await, Redis::start().await, Authority::new());
    let to = std::net::SocketAddr::from(([127, 0, 0, 1], redis.port));
    // Both kinds of connection go through it: the one for commands and the one that listens.
    let secure = relay(authority.acceptor("localhost", &[]), to).await;
    let yaml = |ca: &str| {
        format!(
            "{ca}redis: {{url: 'rediss://localhost:{}', timeout: 2s}}\nroutes:\n  - {{name: r, path: /, upstream: \
             '${{UP}}', preset: upstash-vector, cache: {{settle: 0s}}}}\n",
            secure.port()
        )
    };
    let trusted = yaml(&format!("tls: {{ca: '{}'}}\n", authority.file()));
    let one = Pillion::start(&trusted, &[("UP", &upstream.url())]).await;
    one.metric_is("pillion_redis_up", &[], 1.0).await;
    eventually("a lease", async || {
        search(&one).await;
        one.metric("pillion_redis_lease", &[]).await == 1.0
    })
    .await;
    let other = Pillion::start(&yaml(""), &[("UP", &upstream.url())]).await;
    assert_eq!(search(&other).await.status, 200);
    assert_eq!(other.metric("pillion_redis_up", &[]).await, 0.0);
}
