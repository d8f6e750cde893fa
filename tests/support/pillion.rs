//! A whole Pillion in this process, on ports of its own.

use std::net::SocketAddr;
use std::time::Duration;

use pillion::app::Running;
use pillion::config::{self, Config};

use super::client::{self, Client};
use super::secure::Authority;
use super::{Response, Upstream, advance, eventually, metric};

/// A Pillion at work.
pub(crate) struct Pillion {
    pub(crate) running: Running,
    /// The shared data listener.
    pub(crate) addr: SocketAddr,
    pub(crate) admin: SocketAddr,
}

/// Reads a configuration: the text, with the variables it names. `version`, `listen` and `admin` are put before it
/// where it does not begin a line with them.
pub(crate) fn parse(yaml: &str, variables: &[(&str, &str)]) -> Config {
    let mut text = String::new();
    for (key, value) in [("version", "1"), ("listen", "127.0.0.1:0"), ("admin", "{listen: 127.0.0.1:0}")] {
        if !yaml.lines().any(|line| line.starts_with(&format!("{key}:"))) {
            text += &format!("{key}: {value}\n");
        }
    }
    text += yaml;
    let environment = variables.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
    config::parse(&text, None, &environment).unwrap_or_else(|problems| panic!("{problems}\n{text}"))
}

impl Pillion {
    /// Starts one, and lets the time pass in which nothing is stored because another process may have written. The text
    /// says `${NAME}` where a variable goes.
    pub(crate) async fn start(yaml: &str, variables: &[(&str, &str)]) -> Self {
        let config = parse(yaml, variables);
        let settle = config.routes.iter().map(|plan| plan.settle).max().unwrap_or_default();
        let alone = config.redis.is_none();
        let pillion = Self::of(config).await;
        if alone && !settle.is_zero() {
            // Over at the turn of a second.
            advance(settle + Duration::from_secs(1)).await;
        }
        pillion
    }

    /// As it is in its first moment.
    pub(crate) async fn start_now(yaml: &str, variables: &[(&str, &str)]) -> Self {
        Self::of(parse(yaml, variables)).await
    }

    async fn of(config: Config) -> Self {
        let running = Running::start(config).await.unwrap();
        let (addr, admin) = (running.data_addr(), running.admin_addr());
        Self { running, addr, admin }
    }

    /// One route `r` on `/`, with this preset and further lines of the route (`cache: {ttl: 1s}`). Failures come one after
    /// the other in tests; what many of them do together is for those that say `budget` or `breaker`.
    pub(crate) async fn route(preset: &str, upstream: &Upstream, more: &[&str]) -> Self {
        let more: String = more.iter().map(|line| format!("    {line}\n")).collect();
        let yaml = format!(
            "defaults: {{retry: {{budget: 100%}}, breaker: {{enabled: false}}}}\nroutes:\n  - name: r\n    path: /\n    upstream: ${{UP}}\n    preset: {preset}\n{more}"
        );
        Self::start(&yaml, &[("UP", &upstream.url())]).await
    }

    /// One route `r` on `/` to `/base` of this name behind TLS, with this preset. It trusts the authority.
    pub(crate) async fn trusting(
        authority: &Authority,
        preset: &str,
        name: &str,
        upstream: SocketAddr,
    ) -> Self {
        let yaml = format!(
            "tls: {{ca: '{}'}}\nroutes: [{{name: r, path: /, upstream: 'https://{name}:{}/base', preset: {preset}, \
             retry: {{base: 1ms}}}}]\n",
            authority.file(),
            upstream.port()
        );
        Self::start(&yaml, &[]).await
    }

    /// A connection to the data listener.
    pub(crate) async fn connect(&self) -> Client {
        Client::connect(self.addr).await
    }

    pub(crate) async fn get(&self, target: &str) -> Response {
        client::exchange(self.addr, "GET", target, &[], "").await
    }

    /// POST of JSON.
    pub(crate) async fn post(&self, target: &str, body: &str) -> Response {
        self.post_with(target, &[], body).await
    }

    pub(crate) async fn post_with(&self, target: &str, headers: &[(&str, &str)], body: &str) -> Response {
        let headers = [&[("content-type", "application/json")], headers].concat();
        client::exchange(self.addr, "POST", target, &headers, body).await
    }

    /// GET on the admin listener.
    pub(crate) async fn admin_get(&self, target: &str) -> Response {
        self.admin_with("GET", target, &[]).await
    }

    pub(crate) async fn admin_with(&self, method: &str, target: &str, headers: &[(&str, &str)]) -> Response {
        client::exchange(self.admin, method, target, headers, "").await
    }

    /// The text of `/metrics`.
    pub(crate) async fn metrics(&self) -> String {
        self.admin_get("/metrics").await.text()
    }

    /// The sum of a metric over all series with these labels.
    pub(crate) async fn metric(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        metric(&self.metrics().await, name, labels)
    }

    /// Waits until a metric has this value: an exchange is observed a moment after its last byte is out.
    pub(crate) async fn metric_is(&self, name: &str, labels: &[(&str, &str)], value: f64) {
        eventually(&format!("{name} {labels:?} = {value}"), async || {
            (self.metric(name, labels).await - value).abs() < 1e-9
        })
        .await;
    }
}
