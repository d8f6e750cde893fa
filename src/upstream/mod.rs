//! The other side: connections to upstreams, and one attempt over one of them.
//!
//! The authority comes from the configuration only. A pooled connection that turns out closed before a byte of the
//! request was written is replaced here, unseen by the retry policy; anything later is the policy's to judge.

mod connect;
mod dial;
mod idle;
mod limit;
mod names;
mod pool;
mod response;
mod streams;
mod wire;

pub use connect::Tls;
pub use limit::{Limit, Permit};
pub use names::Resolver;
pub use response::ResponseBody;

use std::sync::Arc;
use std::time::Duration;

use http::uri::{Authority, Scheme};
use http::{HeaderValue, Request, Response};
use tokio::time::{Instant, timeout_at};

use crate::body::Outgoing;
use crate::error::{Error, Kind};
use connect::Connection;
use names::Names;
use pool::{Lease, Pool};

/// Connections that one attempt may find closed before it says so. More than one is rare.
const REPLACEMENTS: usize = 8;

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

    /// The host to connect to, without the brackets of an IPv6 address.
    pub fn host(&self) -> &str {
        self.authority.host().trim_start_matches('[').trim_end_matches(']')
    }
}

/// Time allowed for the parts of an exchange. All are limits, none is a delay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// Name resolution, TCP and TLS together.
    pub connect: Duration,
    /// From an attempt's request sent to its response head. Not of content that streams up: only `total` bounds that.
    pub first_byte: Duration,
    /// Between two chunks of content, in either direction.
    pub idle: Duration,
    /// From the request head read to the response head forwarded, all attempts and back-offs included.
    pub total: Duration,
}

/// An attempt without a response head.
#[derive(Debug)]
pub struct Failed {
    /// What it means to the client if it stands.
    pub error: Error,
    /// How far the request had come.
    pub phase: Phase,
}

/// How far a request had come when its attempt failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The upstream cannot have seen it.
    NeverSent,
    /// The upstream has said that it did not look at it: an HTTP/2 stream refused, or behind the last of a connection.
    Refused,
    /// A connection that had been used before ended without a byte of an answer: the upstream had most likely closed it
    /// before the request came. Of HTTP/2, one that carried others as well.
    Reused,
    /// It may have.
    Sent,
    /// It has, most likely, and did not answer within `first_byte`.
    FirstByteTimeout,
    /// The deadline of the whole request is over.
    Deadline,
}

/// One upstream with its connections.
#[derive(Debug)]
pub struct Upstream {
    target: Target,
    host: HeaderValue,
    tls: Tls,
    limit: Arc<Limit>,
    names: Arc<Names>,
    pool: Arc<Pool>,
}

impl Upstream {
    /// An upstream without connections yet.
    pub fn new(target: Target, tls: Tls, limit: Arc<Limit>, resolver: Resolver) -> Self {
        // An authority is made of characters that a field may have. Never freed, and so without a reference count that
        // the threads of all requests would write to.
        let host = HeaderValue::from_static(target.authority.as_str().to_owned().leak());
        let names = Names::new(target.host(), target.port(), resolver);
        Self { target, host, tls, limit, names, pool: Arc::new(Pool::default()) }
    }

    /// `Host` of every request to it (RFC 9112 section 3.2).
    pub fn host(&self) -> &HeaderValue {
        &self.host
    }

    /// The bound on exchanges with it: each attempt takes a place.
    pub fn limit(&self) -> &Arc<Limit> {
        &self.limit
    }

    /// One attempt, begun `now`: takes and sends the request, and waits for the response head. The request's URI is in
    /// origin form. By reference, because every future that owned it on its way would copy it. `anew`: on a new
    /// connection.
    pub async fn send(
        &self,
        request: &mut Option<Request<Outgoing>>,
        timeouts: &Timeouts,
        deadline: Instant,
        now: Instant,
        anew: bool,
        permit: Permit,
    ) -> Result<Response<ResponseBody>, Failed> {
        self.names.keep_fresh(now);
        for replacements in 0.. {
            let pooled = if anew { None } else { self.pool.checkout(now) };
            let (mut lease, begun) = match pooled {
                Some(lease) => (lease, now),
                // Boxed: it is rare, and would make the future of every request several kilobytes larger.
                None => (Box::pin(self.connect(timeouts, deadline, anew)).await?, Instant::now()),
            };
            let Some(sending) = request.take() else { break };
            // An upload that streams may take longer than any answer to it; the deadline bounds both.
            let limit = match sending.body() {
                Outgoing::Streaming { .. } => deadline,
                Outgoing::Full(..) => begun + timeouts.first_byte,
            };
            let sent = lease.connection.send(sending, &self.target, &self.host);
            let mut failed = match timeout_at(limit.min(deadline), sent).await {
                Ok(Ok(response)) => {
                    lease.told(response.headers());
                    return Ok(
                        response.map(|incoming| ResponseBody::new(incoming, timeouts.idle, lease, permit))
                    );
                }
                Ok(Err(failed)) => failed,
                Err(_) if deadline <= limit => return Err(self.overdue(Phase::Deadline)),
                Err(_) => {
                    lease.forget();
                    return Err(self.overdue(Phase::FirstByteTimeout));
                }
            };
            *request = failed.take_message();
            let unsent = request.is_some();
            let failed = self.broken(&lease, &failed.into_error(), unsent);
            if !(unsent && lease.reused) || replacements == REPLACEMENTS {
                return Err(failed);
            }
        }
        Err(self.lost())
    }

    fn lost(&self) -> Failed {
        let detail = format!("no request to {} is left to send", self.target.authority);
        Failed { error: Error::new(Kind::Internal, detail), phase: Phase::Sent }
    }

    async fn connect(&self, timeouts: &Timeouts, deadline: Instant, anew: bool) -> Result<Lease, Failed> {
        let limit = Instant::now() + timeouts.connect;
        let may_share = self.target.scheme == Scheme::HTTPS;
        let making =
            self.pool.make(may_share, anew, || Connection::open(&self.target, &self.tls, &self.names));
        match timeout_at(limit.min(deadline), making).await {
            Ok(Ok(lease)) => Ok(lease),
            Ok(Err(error)) => Err(Failed { error, phase: Phase::NeverSent }),
            Err(_) if deadline <= limit => Err(self.overdue(Phase::Deadline)),
            Err(_) => {
                let detail =
                    format!("no connection to {} within {:?}", self.target.authority, timeouts.connect);
                Err(Failed { error: Error::new(Kind::ConnectionTimeout, detail), phase: Phase::NeverSent })
            }
        }
    }

    /// What a connection's end before the answer means.
    fn broken(&self, lease: &Lease, error: &hyper::Error, unsent: bool) -> Failed {
        // What was wrong with the content is told by who read it.
        if let Some(own) = cause::<Error>(error).filter(|own| own.kind == Kind::ContentTooLarge) {
            return Failed { error: own.clone(), phase: Phase::Sent };
        }
        let phase = match unsent {
            true if lease.reused => Phase::Refused,
            true => Phase::NeverSent,
            false if refused_stream(error) => Phase::Refused,
            false if error.is_user() => Phase::Sent,
            false if lease.is_unheard() || lease.is_shared() && is_connections_end(error) => Phase::Reused,
            false => Phase::Sent,
        };
        if phase != Phase::Sent && !is_reset(error) {
            lease.had_ended();
        }
        let (kind, what) = if error.is_parse() {
            (Kind::Protocol, "broke HTTP")
        } else if error.is_user() {
            (Kind::Malformed, "was not sent the whole request")
        } else {
            (Kind::ConnectionTerminated, "closed the connection before its response")
        };
        let detail = format!("{} {what}: {error}", self.target.authority);
        Failed { error: Error::new(kind, detail), phase }
    }

    fn overdue(&self, phase: Phase) -> Failed {
        let detail = format!("no response from {} in time", self.target.authority);
        Failed { error: Error::new(Kind::ResponseTimeout, detail), phase }
    }
}

/// HTTP/2 says in two ways that a request was not processed: `REFUSED_STREAM`, and a graceful GOAWAY whose last stream
/// is before it (RFC 9113 section 8.7).
fn refused_stream(error: &hyper::Error) -> bool {
    cause::<h2::Error>(error).is_some_and(|h2| {
        let graceful = h2.is_go_away() && h2.reason() == Some(h2::Reason::NO_ERROR);
        h2.is_remote() && (graceful || h2.reason() == Some(h2::Reason::REFUSED_STREAM))
    })
}

/// Whether a connection of HTTP/2 has ended without a word against anybody. A server that says GOAWAY and closes may be
/// heard only as the latter, and takes all streams with it.
fn is_connections_end(error: &hyper::Error) -> bool {
    cause::<h2::Error>(error).map_or(!error.is_parse(), |h2| {
        h2.is_io() || h2.is_go_away() && h2.reason() == Some(h2::Reason::NO_ERROR)
    })
}

/// Whether it was one stream of HTTP/2 that was ended, rather than its connection.
fn is_reset(error: &hyper::Error) -> bool {
    cause::<h2::Error>(error).is_some_and(h2::Error::is_reset)
}

/// The first of the causes of an error that is of this kind.
fn cause<T: std::error::Error + 'static>(error: &hyper::Error) -> Option<&T> {
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        if let Some(found) = cause.downcast_ref() {
            return Some(found);
        }
        source = cause.source();
    }
    None
}
