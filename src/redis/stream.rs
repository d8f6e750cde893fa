//! The bytes below: TCP, and TLS where the address says so.

use std::sync::Arc;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::either::Either;

use super::{Address, Failure};

/// The TLS side: whoever starts this says what is trusted.
#[derive(Clone)]
pub struct Tls(pub Arc<ClientConfig>);

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tls")
    }
}

pub(super) type Stream = Either<TcpStream, TlsStream<TcpStream>>;

/// A stream to it. Not bounded in time.
pub(super) async fn open(address: &Address, tls: &Tls) -> Result<Stream, Failure> {
    let lost = |what: &str, e: &std::io::Error| Failure::Lost(format!("{what}: {e}"));
    let tcp =
        TcpStream::connect((address.host(), address.port())).await.map_err(|e| lost("cannot connect", &e))?;
    // Commands are written whole; waiting to fill a segment would only delay them.
    let _ = tcp.set_nodelay(true);
    if !address.is_tls() {
        return Ok(Either::Left(tcp));
    }
    let name = ServerName::try_from(address.host().to_owned())
        .map_err(|e| Failure::Lost(format!("the host's name is not one for TLS: {e}")))?;
    let stream = TlsConnector::from(Arc::clone(&tls.0)).connect(name, tcp).await;
    stream.map(Either::Right).map_err(|e| lost("TLS", &e))
}
