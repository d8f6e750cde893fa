//! A plain HTTP/1.1 client over TCP, for what the commands themselves ask: `report`, `health`, the demo's bot.
//!
//! It retries nothing and pools nothing: a failure is the caller's to see. Never on the path of a proxied request.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// Where requests go: `http://host:port`, and a path put before each request's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Base {
    authority: String,
    path: String,
}

impl FromStr for Base {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let uri: http::Uri = text.parse().map_err(|error| format!("{text}: not a URL ({error})"))?;
        if uri.scheme_str() != Some("http") {
            return Err(format!("{text}: a URL such as http://127.0.0.1:9901 is needed"));
        }
        let authority = uri.authority().map(ToString::to_string).unwrap_or_default();
        let authority = if uri.port_u16().is_some() { authority } else { format!("{authority}:80") };
        Ok(Self { authority, path: uri.path().trim_end_matches('/').to_owned() })
    }
}

impl fmt::Display for Base {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}{}", self.authority, self.path)
    }
}

/// One connection to a [`Base`], kept between requests and made anew when the other side closed it.
#[derive(Debug)]
pub struct Connection {
    base: Base,
    sender: Option<http1::SendRequest<Full<Bytes>>>,
}

impl Connection {
    /// A connection that is made with the first request.
    pub fn new(base: Base) -> Self {
        Self { base, sender: None }
    }

    /// Sends one request; the response's content is the caller's to read, before the next request.
    pub async fn send(
        &mut self,
        method: Method,
        path: &str,
        headers: HeaderMap,
        content: Bytes,
    ) -> Result<Response<Incoming>, String> {
        let mut request = Request::new(Full::new(content));
        *request.method_mut() = method;
        let target = format!("{}{path}", self.base.path);
        *request.uri_mut() = target.parse().map_err(|error| format!("{target}: not a path ({error})"))?;
        *request.headers_mut() = headers;
        let host = HeaderValue::from_str(&self.base.authority).map_err(|error| error.to_string())?;
        request.headers_mut().insert(header::HOST, host);
        let sender = self.ready().await?;
        let sent = sender.send_request(request).await;
        if sent.is_err() {
            self.sender = None;
        }
        sent.map_err(|error| format!("{}: {}", self.base, causes(&error)))
    }

    /// The kept connection if it still takes requests, else a new one.
    async fn ready(&mut self) -> Result<&mut http1::SendRequest<Full<Bytes>>, String> {
        if let Some(mut sender) = self.sender.take()
            && sender.ready().await.is_ok()
        {
            return Ok(self.sender.insert(sender));
        }
        let sender = connect(&self.base).await?;
        Ok(self.sender.insert(sender))
    }
}

async fn connect(base: &Base) -> Result<http1::SendRequest<Full<Bytes>>, String> {
    let unreachable = |error: &dyn std::error::Error| format!("cannot reach {base}: {}", causes(error));
    let stream = TcpStream::connect(&base.authority).await.map_err(|error| unreachable(&error))?;
    stream.set_nodelay(true).map_err(|error| unreachable(&error))?;
    let (sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|error| unreachable(&error))?;
    // Its outcome is seen by whoever waits for a response.
    tokio::spawn(connection);
    Ok(sender)
}

/// hyper keeps the reason one level down; a person needs both.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

/// A response read to its end.
#[derive(Debug)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its header fields.
    pub headers: HeaderMap,
    /// Its whole content.
    pub content: Bytes,
}

/// Reads a response to its end; content that is cut short is a failure.
pub async fn read(response: Response<Incoming>) -> Result<Answer, String> {
    let (head, content) = response.into_parts();
    let content = content.collect().await.map_err(|error| causes(&error))?.to_bytes();
    Ok(Answer { status: head.status, headers: head.headers, content })
}

/// One request on a connection of its own, within a deadline. A token is sent as `Authorization: Bearer`.
pub async fn call(
    base: &Base,
    method: Method,
    path: &str,
    token: Option<&str>,
    mut headers: HeaderMap,
    content: Bytes,
    within: Duration,
) -> Result<Answer, String> {
    if let Some(token) = token {
        let value = HeaderValue::from_str(&format!("Bearer {token}"));
        let mut value = value.map_err(|_| "the token holds characters that no header takes".to_owned())?;
        value.set_sensitive(true);
        headers.insert(header::AUTHORIZATION, value);
    }
    let exchange = async {
        let mut connection = Connection::new(base.clone());
        read(connection.send(method, path, headers, content).await?).await
    };
    match tokio::time::timeout(within, exchange).await {
        Ok(answer) => answer,
        Err(_) => Err(format!("{base} did not answer within {within:?}")),
    }
}

/// `GET` of a path.
pub async fn get(base: &Base, path: &str, token: Option<&str>, within: Duration) -> Result<Answer, String> {
    call(base, Method::GET, path, token, HeaderMap::new(), Bytes::new(), within).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_is_an_authority_and_a_path() {
        let base: Base = "http://127.0.0.1:8080/vector/".parse().unwrap();
        assert_eq!(base.to_string(), "http://127.0.0.1:8080/vector");
        let base: Base = "http://localhost".parse().unwrap();
        assert_eq!(base.authority, "localhost:80");
        assert_eq!(base.path, "");
    }

    #[test]
    fn what_it_cannot_do_is_said() {
        for text in ["https://localhost:1", "127.0.0.1:9901", "", "http://a b"] {
            assert!(text.parse::<Base>().is_err(), "{text}");
        }
    }

    #[tokio::test]
    async fn nobody_there_is_a_clear_failure() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let base: Base = format!("http://{}", free.local_addr().unwrap()).parse().unwrap();
        drop(free);
        let failure = get(&base, "/livez", None, Duration::from_secs(5)).await.unwrap_err();
        assert!(failure.starts_with("cannot reach http://127.0.0.1:"), "{failure}");
        assert!(failure.contains("refused"), "{failure}");
    }
}
