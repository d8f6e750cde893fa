//! The admin listener: probes, metrics, the summary, the configuration in force. Never on the data port.
//!
//! On an address beyond loopback only `/metrics`, `/livez` and `/readyz` answer without a token; once a token is set
//! everything else needs it, from loopback too. `Host` must be an address, `localhost` or a configured name, so that a
//! page in a browser cannot reach it by a name of its own (DNS rebinding).

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, combinators::MapErr};
use hyper::body::Incoming;
use tokio::time::Instant;

use super::drain::Drain;
use super::listener::Handler;
use crate::config::{Admin as Settings, Secret, units};
use crate::error::Error;
use crate::exchange::{Timing, X_REQUEST_ID, request_id};
use crate::metrics::Metrics;
use crate::plan::{Address, percent_decode};
use crate::proxy::{NoSuchRoute, Proxy};

/// The widest window of `/summary`.
const HOUR: Duration = Duration::from_secs(3600);
/// Drops stored responses.
const INVALIDATE: &str = "/cache/invalidate";
/// Tells of a conversation, and forgets it.
const CONVERSATIONS: &str = "/conversations/";
/// Comes with what changes state.
const PILLION_ADMIN: HeaderName = HeaderName::from_static("pillion-admin");
const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
/// <https://prometheus.io/docs/instrumenting/exposition_formats/>
const EXPOSITION: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Answers the admin listener's requests.
#[derive(Debug)]
pub struct Admin {
    metrics: Arc<Metrics>,
    proxy: Arc<Proxy>,
    drain: Drain,
    /// The configuration in force, secrets masked.
    effective: String,
    token: Option<Secret>,
    hosts: Vec<String>,
    loopback: bool,
}

/// A whole answer.
type Content = MapErr<Full<Bytes>, fn(std::convert::Infallible) -> Error>;

impl Admin {
    /// The admin side of a proxy, listening where `bound` says.
    pub fn new(
        settings: &Settings,
        bound: &Address,
        effective: String,
        proxy: Arc<Proxy>,
        metrics: Arc<Metrics>,
        drain: Drain,
    ) -> Self {
        let loopback = match bound {
            Address::Unix(_) => true,
            Address::Tcp(text) => text.parse::<std::net::SocketAddr>().is_ok_and(|a| a.ip().is_loopback()),
        };
        let (token, hosts) = (settings.token.clone(), settings.hosts.clone());
        Self { metrics, proxy, drain, effective, token, hosts, loopback }
    }

    async fn answer(&self, request: &Request<Incoming>) -> (StatusCode, &'static str, String) {
        let path = request.uri().path();
        let open = matches!(path, "/metrics" | "/livez" | "/readyz");
        if !open && !self.is_known_host(request.headers()) {
            let hint = "Host is neither an address, localhost, nor in admin.hosts\n";
            return (StatusCode::MISDIRECTED_REQUEST, TEXT, hint.into());
        }
        if !open && !self.is_allowed(request.headers()) {
            let hint = if self.token.is_some() {
                "needs `Authorization: Bearer <admin.token>`\n"
            } else {
                "beyond loopback this needs admin.token to be set, and sent as `Authorization: Bearer <token>`\n"
            };
            return (StatusCode::UNAUTHORIZED, TEXT, hint.into());
        }
        if path == INVALIDATE {
            return self.change(request).await;
        }
        if let Some(id) = path.strip_prefix(CONVERSATIONS).filter(|id| !id.is_empty()) {
            return self.conversation(request, &percent_decode(id)).await;
        }
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return (StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET here\n".into());
        }
        match path {
            "/livez" => (StatusCode::OK, TEXT, "ok\n".into()),
            "/readyz" if self.drain.is_ready() => (StatusCode::OK, TEXT, "ok\n".into()),
            "/readyz" => (StatusCode::SERVICE_UNAVAILABLE, TEXT, "draining\n".into()),
            "/metrics" if wants_json(request.headers()) => self.summary(request.uri().query()),
            "/metrics" => (StatusCode::OK, EXPOSITION, self.metrics.gather(self.proxy.gauges())),
            "/summary" => self.summary(request.uri().query()),
            "/config" => (StatusCode::OK, "application/yaml", self.effective.clone()),
            "/" => (
                StatusCode::OK,
                TEXT,
                "pillion: /metrics /summary /livez /readyz /config /conversations/ID, POST /cache/invalidate\n".into(),
            ),
            _ => (StatusCode::NOT_FOUND, TEXT, "no such page; / lists them\n".into()),
        }
    }

    fn summary(&self, query: Option<&str>) -> (StatusCode, &'static str, String) {
        let asked = query.and_then(|query| query.split('&').find_map(|p| p.strip_prefix("window=")));
        let window = match asked.map(|text| units::Time::parse(text).map(|window| window.0)) {
            None => HOUR,
            Some(Ok(window)) if window > Duration::ZERO && window <= HOUR => window,
            Some(_) => {
                return (
                    StatusCode::BAD_REQUEST,
                    TEXT,
                    "window is a duration of up to 60m, such as 15m\n".into(),
                );
            }
        };
        match serde_json::to_string(&self.metrics.summary(window)) {
            Ok(text) => (StatusCode::OK, JSON, text),
            Err(e) => (StatusCode::INTERNAL_SERVER_ERROR, TEXT, format!("{e}\n")),
        }
    }

    /// What is known of a conversation, under the identifier that the bot gives it.
    async fn conversation(
        &self,
        request: &Request<Incoming>,
        id: &str,
    ) -> (StatusCode, &'static str, String) {
        let conversations = self.proxy.conversations();
        match *request.method() {
            Method::GET | Method::HEAD => {
                let found = conversations.tell(id).await;
                if found.conversations.is_empty() {
                    let hint = if conversations.are_tracked() {
                        "no conversation of this identifier was heard of, or it is over\n"
                    } else {
                        "no route has a window, or memory.conversations is 0: nothing is known of conversations\n"
                    };
                    return (StatusCode::NOT_FOUND, TEXT, hint.into());
                }
                let told = serde_json::json!({
                    "conversations": found.conversations,
                    "known_to": if found.shared { "all instances" } else { "this instance" },
                });
                (StatusCode::OK, JSON, told.to_string())
            }
            Method::DELETE if !is_meant(request) => not_meant(),
            Method::DELETE => {
                let reached = if conversations.forget(id).await { "all instances" } else { "this instance" };
                (StatusCode::OK, JSON, serde_json::json!({"reached": reached}).to_string())
            }
            _ => (StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET and DELETE here\n".into()),
        }
    }

    async fn change(&self, request: &Request<Incoming>) -> (StatusCode, &'static str, String) {
        if *request.method() != Method::POST {
            return (StatusCode::METHOD_NOT_ALLOWED, TEXT, "only POST here\n".into());
        }
        if !is_meant(request) {
            return not_meant();
        }
        let bad = |hint: String| (StatusCode::BAD_REQUEST, TEXT, hint);
        let asked = match Invalidate::read(request.uri().query()) {
            Ok(asked) => asked,
            Err(hint) => return bad(hint),
        };
        match self.proxy.invalidate(asked.route.as_deref(), asked.scope.as_deref()).await {
            Ok(dropped) => {
                let (routes, reached) = (&dropped.routes, dropped.reached());
                let told = serde_json::json!({"routes": routes, "scope": asked.scope, "reached": reached});
                (StatusCode::OK, JSON, told.to_string())
            }
            Err(NoSuchRoute { known }) => {
                let hint = format!("no route has this name; there are: {}\n", known.join(", "));
                (StatusCode::NOT_FOUND, TEXT, hint)
            }
        }
    }

    fn is_allowed(&self, headers: &HeaderMap) -> bool {
        let Some(token) = &self.token else { return self.loopback };
        let sent = headers.get(header::AUTHORIZATION).map(HeaderValue::as_bytes);
        sent.and_then(|value| value.strip_prefix(b"Bearer "))
            .is_some_and(|sent| same(sent, token.expose().as_bytes()))
    }

    fn is_known_host(&self, headers: &HeaderMap) -> bool {
        let Some(host) = headers.get(header::HOST).and_then(|host| host.to_str().ok()) else { return false };
        let name = host.rsplit_once(':').filter(|(_, port)| port.bytes().all(|b| b.is_ascii_digit()));
        let name = name.map_or(host, |(name, _)| name).trim_start_matches('[').trim_end_matches(']');
        name.parse::<IpAddr>().is_ok()
            || name.eq_ignore_ascii_case("localhost")
            || self.hosts.iter().any(|known| known.eq_ignore_ascii_case(name))
    }
}

impl Handler for Admin {
    type Content = Content;

    async fn handle(&self, request: Request<Incoming>) -> Response<Content> {
        let begun = Instant::now();
        let (status, media, text) = self.answer(&request).await;
        let content = Full::new(Bytes::from(text)).map_err((|never| match never {}) as fn(_) -> Error);
        let mut response = Response::new(content);
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(X_REQUEST_ID, request.headers().get(X_REQUEST_ID).cloned().unwrap_or_else(request_id));
        Timing { total: begun.elapsed(), ..Timing::default() }.write(headers);
        response
    }
}

/// What `/cache/invalidate` is asked: a route, and a scope of it. Neither is everything.
#[derive(Debug, Default, PartialEq, Eq)]
struct Invalidate {
    route: Option<String>,
    scope: Option<String>,
}

impl Invalidate {
    /// Anything that is not understood is refused: a misspelt name would drop everything.
    fn read(query: Option<&str>) -> Result<Self, String> {
        let mut asked = Self::default();
        for parameter in query.into_iter().flat_map(|query| query.split('&')).filter(|p| !p.is_empty()) {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            let place = match name {
                "route" => &mut asked.route,
                "scope" => &mut asked.scope,
                _ => return Err("the parameters are route and scope\n".to_owned()),
            };
            if place.replace(percent_decode(&value.replace('+', " ")).into_owned()).is_some() {
                return Err("route and scope can be named once\n".to_owned());
            }
        }
        if asked.scope.is_some() && asked.route.is_none() {
            return Err("a scope is a route's: name the route too\n".to_owned());
        }
        Ok(asked)
    }
}

fn not_meant() -> (StatusCode, &'static str, String) {
    (StatusCode::FORBIDDEN, TEXT, "needs the header `Pillion-Admin: 1`\n".into())
}

/// What changes state wants a header that a page cannot send across sites without being asked first.
fn is_meant(request: &Request<Incoming>) -> bool {
    request.headers().get(PILLION_ADMIN).is_some_and(|value| value == "1")
}

/// `Accept: application/json` is asked for, and not as one of many.
fn wants_json(headers: &HeaderMap) -> bool {
    headers
        .get(header::ACCEPT)
        .and_then(|accept| accept.to_str().ok())
        .is_some_and(|accept| accept.trim_start().starts_with("application/json"))
}

/// Compares in a time that depends on the lengths only.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |difference, (a, b)| difference | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_to_drop_is_understood_whole_or_refused() {
        let read = |query| Invalidate::read(query).map(|asked| (asked.route, asked.scope));
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(read(None), Ok((None, None)));
        assert_eq!(read(Some("")), Ok((None, None)));
        assert_eq!(read(Some("route=v")), Ok((some("v"), None)));
        assert_eq!(read(Some("scope=a%2Fb+c&route=v")), Ok((some("v"), some("a/b c"))));
        assert_eq!(read(Some("route=v&scope=")), Ok((some("v"), some(""))));
        for wrong in ["rout=v", "scope=a", "route=v&route=w", "route=v&scope=a&scope=b", "v"] {
            assert!(read(Some(wrong)).is_err(), "{wrong}");
        }
    }

    #[test]
    fn tokens_are_compared_whole() {
        assert!(same(b"abc", b"abc"));
        assert!(!same(b"abc", b"abd") && !same(b"abc", b"ab") && !same(b"", b"a"));
    }
}
