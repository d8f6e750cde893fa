//! Making a connection: names, TCP, TLS with ALPN, and the HTTP handshake.

use std::future::poll_fn;
use std::path::Path;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use http::uri::Scheme;
use http::{Request, Response, Uri, Version, header};
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::AbortHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::either::Either;

use super::Target;
use super::dial::dial;
use super::names::Names;
use super::streams::{Polling, Streams};
use super::wire::{Heard, Place, Wire};
use crate::body::Outgoing;
use crate::error::{Error, Kind};

/// Bytes of a response's header section, at most; hyper's own limit for HTTP/2 would be 16 MiB.
const MAX_HEADER_BYTES: u32 = 64 * 1024;
/// How often an HTTP/2 connection is pinged (RFC 9113 section 6.7).
const PING_INTERVAL: Duration = Duration::from_secs(20);
/// A ping not answered by then ends the connection.
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// The TLS side of upstream connections: rustls, the system's roots and the configured ones.
#[derive(Clone)]
pub struct Tls(Arc<ClientConfig>);

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tls")
    }
}

impl Tls {
    /// The same roots for another protocol than HTTP.
    pub fn of_another_protocol(&self) -> Arc<ClientConfig> {
        let mut config = ClientConfig::clone(&self.0);
        config.alpn_protocols.clear();
        Arc::new(config)
    }

    /// Loads the roots. The second value names what could not be loaded of the system's: without them an `https`
    /// upstream fails with a certificate error.
    pub fn new(extra_roots: Option<&Path>) -> Result<(Self, Vec<String>), String> {
        let mut roots = RootCertStore::empty();
        let system = rustls_native_certs::load_native_certs();
        roots.add_parsable_certificates(system.certs);
        let mut missing: Vec<String> = system.errors.iter().map(ToString::to_string).collect();
        if roots.is_empty() && missing.is_empty() {
            missing.push("the system has no trusted roots (install ca-certificates)".into());
        }
        if let Some(path) = extra_roots {
            let broken = |e: &dyn std::fmt::Display| format!("tls.ca: {}: {e}", path.display());
            let certificates = CertificateDer::pem_file_iter(path).map_err(|e| broken(&e))?;
            for certificate in certificates {
                let certificate = certificate.map_err(|e| broken(&e))?;
                roots.add(certificate).map_err(|e| broken(&e))?;
            }
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| e.to_string())?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok((Self(Arc::new(config)), missing))
    }
}

/// A connection: its sending half, and what is known of it. Its driver runs in a task of its own and ends with it, in the
/// middle of an exchange too.
#[derive(Debug)]
pub(super) struct Connection {
    sender: Sender,
    pub(super) wire: Arc<Wire>,
}

#[derive(Debug)]
enum Sender {
    Http1(Http1),
    Http2(Http2),
}

#[derive(Debug)]
struct Http1 {
    sender: http1::SendRequest<Outgoing>,
    driver: AbortHandle,
}

impl Drop for Http1 {
    fn drop(&mut self) {
        // The driver would first write what it has begun to write: for ever, where the upstream does not read. Between
        // two exchanges there is nothing of the kind, and it says goodbye (TLS does).
        if !self.sender.is_ready() {
            self.driver.abort();
        }
    }
}

#[derive(Debug)]
struct Http2 {
    sender: http2::SendRequest<Outgoing>,
    streams: Streams,
    /// Of the one exchange that this handle is for; the pool's own is for none.
    _place: Option<Place>,
}

impl Connection {
    pub(super) async fn open(target: &Target, tls: &Tls, names: &Names) -> Result<Self, Error> {
        let (stream, address) = dial(names.addresses().await?).await.map_err(|e| {
            Error::new(Kind::ConnectionRefused, format!("cannot reach {}: {e}", target.authority))
        })?;
        let wire = Wire::new(address);
        if target.scheme != Scheme::HTTPS {
            return handshake_http1(stream, target, wire).await;
        }
        let name = ServerName::try_from(target.host().to_owned())
            .map_err(|e| Error::new(Kind::Tls, format!("{}: {e}", target.host())))?;
        let stream = TlsConnector::from(Arc::clone(&tls.0))
            .connect(name, stream)
            .await
            .map_err(|e| Error::new(tls_failure(&e), format!("TLS with {}: {e}", target.authority)))?;
        if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
            handshake_http2(stream, target, wire).await
        } else {
            handshake_http1(stream, target, wire).await
        }
    }

    /// Sends one request: at once, what is waited for is the answer. On failure the request comes back if no byte of it
    /// was written.
    pub(super) fn send(
        &mut self,
        mut request: Request<Outgoing>,
        target: &Target,
        host: &header::HeaderValue,
    ) -> impl Future<Output = Result<Response<Incoming>, TrySendError<Request<Outgoing>>>> + Send + use<>
    {
        match &mut self.sender {
            Sender::Http1(Http1 { sender, .. }) => {
                *request.version_mut() = Version::HTTP_11;
                // It is there, unless an HTTP/2 connection has handed the request back.
                request.headers_mut().entry(header::HOST).or_insert_with(|| host.clone());
                Either::Left(sender.try_send_request(request))
            }
            Sender::Http2(Http2 { sender, .. }) => {
                *request.version_mut() = Version::HTTP_2;
                // `:authority` takes Host's place (RFC 9113 section 8.3.1).
                request.headers_mut().remove(header::HOST);
                let mut parts = std::mem::take(request.uri_mut()).into_parts();
                parts.scheme = Some(target.scheme.clone());
                parts.authority = Some(target.authority.clone());
                *request.uri_mut() = Uri::from_parts(parts).unwrap_or_default();
                Either::Right(sender.try_send_request(request))
            }
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        match &self.sender {
            Sender::Http1(http1) => http1.sender.is_closed(),
            Sender::Http2(http2) => http2.sender.is_closed(),
        }
    }

    /// Whether the next request can be written now. An HTTP/1.1 connection is busy until its last exchange is over.
    pub(super) fn is_ready(&self) -> bool {
        match &self.sender {
            Sender::Http1(http1) => http1.sender.is_ready(),
            Sender::Http2(http2) => http2.sender.is_ready(),
        }
    }

    /// Whether it carries several exchanges at a time: only HTTP/2 does.
    pub(super) fn is_shared(&self) -> bool {
        matches!(self.sender, Sender::Http2(_))
    }

    /// The same connection for one exchange more: where it [is shared](Self::is_shared), and its peer takes one more.
    /// Beyond that requests would wait unseen, and could be sent after nobody waits for them any more.
    pub(super) fn share(&self) -> Option<Self> {
        let Sender::Http2(Http2 { sender, streams, .. }) = &self.sender else { return None };
        let place = self.wire.enter(streams.max())?;
        let http2 = Http2 { sender: sender.clone(), streams: streams.clone(), _place: Some(place) };
        Some(Self { sender: Sender::Http2(http2), wire: Arc::clone(&self.wire) })
    }
}

/// A certificate that does not verify is told apart: no other attempt will verify it.
fn tls_failure(error: &std::io::Error) -> Kind {
    let error = error.get_ref().and_then(|error| error.downcast_ref());
    match error {
        Some(rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented) => {
            Kind::TlsCertificate
        }
        _ => Kind::Tls,
    }
}

async fn handshake_http1<S>(stream: S, target: &Target, wire: Arc<Wire>) -> Result<Connection, Error>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    // Fields of an answer: a hundred, hyper's own limit. To ask for a number takes it an allocation for every head.
    let (sender, connection) = http1::Builder::new()
        .handshake(TokioIo::new(Heard::new(stream, Arc::clone(&wire))))
        .await
        .map_err(|e| handshake_failed(target, &e))?;
    let known = Arc::clone(&wire);
    let driver = tokio::spawn(async move {
        let _ = connection.await;
        known.end();
    });
    let mut http1 = Http1 { sender, driver: driver.abort_handle() };
    ready(target, |cx| http1.sender.poll_ready(cx)).await?;
    Ok(Connection { sender: Sender::Http1(http1), wire })
}

async fn handshake_http2(
    stream: TlsStream<TcpStream>,
    target: &Target,
    wire: Arc<Wire>,
) -> Result<Connection, Error> {
    let executor = Polling::default();
    let settling = executor.clone();
    let (mut sender, connection) = http2::Builder::new(executor)
        .timer(TokioTimer::new())
        .max_header_list_size(MAX_HEADER_BYTES)
        // None until the peer has said how many it takes.
        .initial_max_send_streams(0)
        // A connection whose other side has gone without a word is found out, idle or not.
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .keep_alive_while_idle(true)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|e| handshake_failed(target, &e))?;
    let streams = Streams::drive(connection, &settling);
    settling.until(|| streams.max() > 0 || sender.is_closed()).await;
    ready(target, |cx| sender.poll_ready(cx)).await?;
    Ok(Connection { sender: Sender::Http2(Http2 { sender, streams, _place: None }), wire })
}

async fn ready(
    target: &Target,
    mut poll: impl FnMut(&mut std::task::Context<'_>) -> Poll<hyper::Result<()>>,
) -> Result<(), Error> {
    poll_fn(|cx| poll(cx)).await.map_err(|e| handshake_failed(target, &e))
}

fn handshake_failed(target: &Target, e: &hyper::Error) -> Error {
    Error::new(Kind::ConnectionTerminated, format!("{} closed the connection: {e}", target.authority))
}
