//! TLS for scripted upstreams: an authority of the test's own, a relay that takes TLS off, and HTTP/2.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::BodyExt;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// Who vouches for the certificates of a test.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    file: PathBuf,
}

impl Authority {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("ca-{}-{}.pem", std::process::id(), NEXT.fetch_add(1, Relaxed));
        let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        std::fs::write(&file, params.self_signed(&key).unwrap().pem()).unwrap();
        Self { issuer: Issuer::new(params, key), file }
    }

    /// What `tls.ca` names.
    pub(crate) fn file(&self) -> &str {
        self.file.to_str().unwrap()
    }

    /// A server with a certificate of this name, offering these protocols.
    pub(crate) fn acceptor(&self, name: &str, protocols: &[&str]) -> TlsAcceptor {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap().der().clone();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .unwrap();
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        TlsAcceptor::from(Arc::new(config))
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.file);
    }
}

/// Accepts TLS and hands every connection on, with its number from 0.
pub(crate) async fn accept<F>(
    acceptor: TlsAcceptor,
    serve: impl Fn(usize, TlsStream<TcpStream>) -> F + Send + Sync + 'static,
) -> SocketAddr
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serve = Arc::new(serve);
    tokio::spawn(async move {
        let mut number = 0;
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, serve) = (acceptor.clone(), Arc::clone(&serve));
            let _ = stream.set_nodelay(true);
            tokio::spawn(async move {
                if let Ok(stream) = acceptor.accept(stream).await {
                    serve(number, stream).await;
                }
            });
            number += 1;
        }
    });
    address
}

/// Takes TLS off, before a plain upstream.
pub(crate) async fn relay(acceptor: TlsAcceptor, to: SocketAddr) -> SocketAddr {
    accept(acceptor, move |_, mut secure| async move {
        if let Ok(mut plain) = TcpStream::connect(to).await {
            let _ = plain.set_nodelay(true);
            let _ = tokio::io::copy_bidirectional(&mut secure, &mut plain).await;
        }
    })
    .await
}

/// Content of an HTTP/2 answer.
pub(crate) type Content = UnsyncBoxBody<Bytes, std::io::Error>;

/// A request as it arrived over HTTP/2.
#[derive(Clone, Debug)]
pub(crate) struct SeenHttp2 {
    pub(crate) connection: usize,
    pub(crate) head: Arc<http::request::Parts>,
    pub(crate) body: Bytes,
}

/// An upstream that speaks HTTP/2 by hyper.
pub(crate) struct Http2 {
    pub(crate) address: SocketAddr,
    seen: Arc<Mutex<Vec<SeenHttp2>>>,
    connections: Arc<AtomicUsize>,
}

impl Http2 {
    pub(crate) async fn start<F>(
        acceptor: TlsAcceptor,
        respond: impl Fn(SeenHttp2) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Response<Content>> + Send + 'static,
    {
        let seen: Arc<Mutex<Vec<SeenHttp2>>> = Arc::default();
        let connections: Arc<AtomicUsize> = Arc::default();
        let respond = Arc::new(respond);
        let (log, begun) = (Arc::clone(&seen), Arc::clone(&connections));
        let address = accept(acceptor, move |connection, stream| {
            begun.fetch_add(1, Relaxed);
            let (log, respond) = (Arc::clone(&log), Arc::clone(&respond));
            let service = hyper::service::service_fn(move |request: Request<Incoming>| {
                let (log, respond) = (Arc::clone(&log), Arc::clone(&respond));
                async move {
                    let (head, body) = request.into_parts();
                    let body = body.collect().await?.to_bytes();
                    let seen = SeenHttp2 { connection, head: Arc::new(head), body };
                    log.lock().unwrap().push(seen.clone());
                    Ok::<_, hyper::Error>(respond(seen).await)
                }
            });
            async move {
                let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                let _ = builder.serve_connection(TokioIo::new(stream), service).await;
            }
        })
        .await;
        Self { address, seen, connections }
    }

    pub(crate) fn seen(&self) -> Vec<SeenHttp2> {
        self.seen.lock().unwrap().clone()
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Relaxed)
    }
}

/// Whole content.
pub(crate) fn whole(content: impl Into<Bytes>) -> Content {
    http_body_util::Full::new(content.into()).map_err(|never| match never {}).boxed_unsync()
}
