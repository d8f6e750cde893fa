//! What can go wrong on Pillion's own account, and how each route's clients are told.
//!
//! One vocabulary serves the status, `Proxy-Status` (RFC 9209 section 2.3), the metric label, the log word and
//! the JSON type: [`Kind::word`]. An upstream's own error answer is not an [`Error`]: it passes through unchanged.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use http::StatusCode;
use serde_json::json;

/// The kinds of failure that Pillion answers itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// No route matches the path.
    NoRoute,
    /// The request breaks RFC 9110 or RFC 9112, or names a path with dot segments.
    Malformed,
    /// The client stopped sending its content.
    RequestTimeout,
    /// The content is larger than `limits.max_body`.
    ContentTooLarge,
    /// CONNECT, or an Upgrade this proxy does not do.
    NotImplemented,
    /// The upstream's name does not resolve.
    Dns,
    /// The upstream refused the connection, or cannot be reached.
    ConnectionRefused,
    /// The connection to the upstream was not made in time.
    ConnectionTimeout,
    /// The TLS handshake with the upstream failed.
    Tls,
    /// The certificate of the upstream does not verify.
    TlsCertificate,
    /// The upstream has failed again and again, and is left alone for a moment.
    Unavailable,
    /// As many requests to the upstream as are allowed are under way, and as many wait.
    ConnectionLimit,
    /// The upstream closed or reset the connection before its response head.
    ConnectionTerminated,
    /// The upstream broke HTTP.
    Protocol,
    /// The upstream's response ended before its content was complete.
    Incomplete,
    /// No response head in time, or the deadline of the whole request is over.
    ResponseTimeout,
    /// The request has passed through this process before.
    Loop,
    /// A defect of ours: a panic was caught.
    Internal,
}

impl Kind {
    /// Every kind, for label sets and documentation.
    pub const ALL: [Kind; 18] = [
        Kind::NoRoute,
        Kind::Malformed,
        Kind::RequestTimeout,
        Kind::ContentTooLarge,
        Kind::NotImplemented,
        Kind::Dns,
        Kind::ConnectionRefused,
        Kind::ConnectionTimeout,
        Kind::Tls,
        Kind::TlsCertificate,
        Kind::Unavailable,
        Kind::ConnectionLimit,
        Kind::ConnectionTerminated,
        Kind::Protocol,
        Kind::Incomplete,
        Kind::ResponseTimeout,
        Kind::Loop,
        Kind::Internal,
    ];

    /// The status of the answer.
    pub const fn status(self) -> StatusCode {
        match self {
            Kind::NoRoute => StatusCode::NOT_FOUND,
            Kind::Malformed => StatusCode::BAD_REQUEST,
            Kind::RequestTimeout => StatusCode::REQUEST_TIMEOUT,
            Kind::ContentTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Kind::NotImplemented => StatusCode::NOT_IMPLEMENTED,
            Kind::Dns
            | Kind::ConnectionRefused
            | Kind::Tls
            | Kind::TlsCertificate
            | Kind::ConnectionTerminated
            | Kind::Protocol
            | Kind::Incomplete => StatusCode::BAD_GATEWAY,
            Kind::Unavailable | Kind::ConnectionLimit => StatusCode::SERVICE_UNAVAILABLE,
            Kind::ConnectionTimeout | Kind::ResponseTimeout => StatusCode::GATEWAY_TIMEOUT,
            Kind::Loop => StatusCode::LOOP_DETECTED,
            Kind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// Whether it is the upstream that failed: it could not be reached, did not answer in time, or not whole, or cannot
    /// be asked because of that.
    pub const fn is_upstreams(self) -> bool {
        match self {
            Kind::Dns
            | Kind::ConnectionRefused
            | Kind::ConnectionTimeout
            | Kind::Tls
            | Kind::TlsCertificate
            | Kind::Unavailable
            | Kind::ConnectionLimit
            | Kind::ConnectionTerminated
            | Kind::Protocol
            | Kind::Incomplete
            | Kind::ResponseTimeout => true,
            Kind::NoRoute
            | Kind::Malformed
            | Kind::RequestTimeout
            | Kind::ContentTooLarge
            | Kind::NotImplemented
            | Kind::Loop
            | Kind::Internal => false,
        }
    }

    /// Whether to come back in a moment is worth it, where nobody else has said when: the answer tells so
    /// (`Retry-After`, RFC 9110 section 10.2.3). Never longer than a moment: some SDKs sleep for whatever they are told.
    pub const fn passes(self) -> bool {
        matches!(self, Kind::Unavailable | Kind::ConnectionLimit)
    }

    /// The word for it everywhere: an error type registered by RFC 9209 section 2.3.
    pub const fn word(self) -> &'static str {
        match self {
            Kind::NoRoute => "destination_not_found",
            Kind::Malformed | Kind::RequestTimeout | Kind::ContentTooLarge | Kind::NotImplemented => {
                "http_request_error"
            }
            Kind::Dns => "dns_error",
            Kind::ConnectionRefused => "connection_refused",
            Kind::ConnectionTimeout => "connection_timeout",
            Kind::Tls => "tls_protocol_error",
            Kind::TlsCertificate => "tls_certificate_error",
            Kind::Unavailable => "destination_unavailable",
            Kind::ConnectionLimit => "connection_limit_reached",
            Kind::ConnectionTerminated => "connection_terminated",
            Kind::Protocol => "http_protocol_error",
            Kind::Incomplete => "http_response_incomplete",
            Kind::ResponseTimeout => "http_response_timeout",
            Kind::Loop => "proxy_loop_detected",
            Kind::Internal => "proxy_internal_error",
        }
    }
}

/// A failure of Pillion's own, on its way to becoming a response.
///
/// The detail is for the bot's developer: it names hosts and limits, never a header value or content.
#[derive(Clone, Debug)]
pub struct Error {
    /// What kind of failure.
    pub kind: Kind,
    /// One sentence for a person.
    pub detail: Cow<'static, str>,
}

impl Error {
    /// A failure with a sentence of explanation.
    pub fn new(kind: Kind, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { kind, detail: detail.into() }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind.word(), self.detail)
    }
}

impl std::error::Error for Error {}

/// The shape in which a route's clients expect errors, so that the bot's SDK understands ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Dialect {
    /// `{"error":{message,type,param,code}}`.
    OpenAi,
    /// `{"type":"error","error":{type,message},"request_id"}`.
    Anthropic,
    /// `{"error":"...","status":502}`: the Python SDK parses JSON whatever the status.
    Upstash,
    /// `{"error":"Name","message":"..."}`.
    Chroma,
    /// RFC 9457 problem details.
    #[default]
    Problem,
}

impl Dialect {
    /// The media type of [`Dialect::render`].
    pub const fn content_type(self) -> &'static str {
        match self {
            Dialect::Problem => "application/problem+json",
            _ => "application/json",
        }
    }

    /// The error as content in this dialect.
    pub fn render(self, error: &Error, request_id: &str) -> Bytes {
        let (word, status, detail) = (error.kind.word(), error.kind.status(), &*error.detail);
        let value = match self {
            Dialect::OpenAi => {
                json!({"error": {"message": detail, "type": word, "param": null, "code": word}})
            }
            Dialect::Anthropic => {
                json!({"type": "error", "error": {"type": word, "message": detail}, "request_id": request_id})
            }
            Dialect::Upstash => json!({"error": format!("{word}: {detail}"), "status": status.as_u16()}),
            Dialect::Chroma => json!({"error": word, "message": detail}),
            // The extension member `error` is for SDKs that show nothing else.
            Dialect::Problem => json!({
                "error": {"message": detail, "type": word, "code": word},
                "type": format!("urn:pillion:error:{word}"),
                "title": word,
                "status": status.as_u16(),
                "detail": detail,
            }),
        };
        Bytes::from(value.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_dialect_is_what_its_sdk_reads() {
        let error = Error::new(Kind::ConnectionRefused, "127.0.0.1:9 refused");
        let text = |dialect: Dialect| String::from_utf8(dialect.render(&error, "r1").to_vec()).unwrap();
        assert_eq!(
            text(Dialect::OpenAi),
            r#"{"error":{"code":"connection_refused","message":"127.0.0.1:9 refused","param":null,"type":"connection_refused"}}"#
        );
        assert_eq!(
            text(Dialect::Anthropic),
            r#"{"error":{"message":"127.0.0.1:9 refused","type":"connection_refused"},"request_id":"r1","type":"error"}"#
        );
        assert_eq!(
            text(Dialect::Upstash),
            r#"{"error":"connection_refused: 127.0.0.1:9 refused","status":502}"#
        );
        assert_eq!(
            text(Dialect::Problem),
            r#"{"detail":"127.0.0.1:9 refused","error":{"code":"connection_refused","message":"127.0.0.1:9 refused","type":"connection_refused"},"status":502,"title":"connection_refused","type":"urn:pillion:error:connection_refused"}"#
        );
    }

    #[test]
    fn every_kind_is_an_error_status_and_an_rfc_9209_token() {
        for kind in Kind::ALL {
            assert!(kind.status().is_client_error() || kind.status().is_server_error(), "{kind:?}");
            assert!(kind.word().bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{kind:?}");
        }
    }
}
