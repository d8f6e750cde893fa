//! The other side: where requests are sent.

use std::time::Duration;

use http::uri::{Authority, Scheme};

/// Where a route's requests go. Comes from the configuration only, never from a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// `http` or `https`.
    pub scheme: Scheme,
    /// Host, and port when it is not the scheme's own.
    pub authority: Authority,
    /// Put before what remains of the path, without a trailing slash; empty for none.
    pub base_path: String,
}

impl Target {
    /// The port to connect to.
    pub fn port(&self) -> u16 {
        self.authority.port_u16().unwrap_or(if self.scheme == Scheme::HTTPS { 443 } else { 80 })
    }
}

/// Time allowed for the parts of an exchange. All are limits, none is a delay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// Name resolution, TCP and TLS together.
    pub connect: Duration,
    /// From an attempt's request sent to its response head.
    pub first_byte: Duration,
    /// Between two chunks of content, in either direction.
    pub idle: Duration,
    /// From the request head read to the response head forwarded, all attempts and back-offs included.
    pub total: Duration,
}
