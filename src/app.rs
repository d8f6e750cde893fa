//! The composition root: the one file that knows every part, and that no part imports.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use http::{Request, Response};
use hyper::body::Incoming;
use pingora_core::server::configuration::ServerConf;
use pingora_core::server::{ListenFds, RunArgs, Server, ShutdownWatch};
use pingora_core::services::Service;
use tokio::task::JoinSet;

use crate::cache::shared::{self, Shared};
use crate::config::{self, Config};
use crate::conversations::{self, Conversations};
use crate::metrics::Metrics;
use crate::plan::{Action, Address, Operation};
use crate::proxy::{Budgets, Downstream, Proxy, VOCABULARY};
use crate::redis;
use crate::server::admin::Admin;
use crate::server::drain::{Drain, Signals};
use crate::server::listener::{Bound, Handler};
use crate::upstream::Tls;
use crate::window::Counter;

/// Why it did not start.
#[derive(Debug)]
pub enum StartError {
    /// A listener could not be bound.
    Bind {
        /// The address as configured.
        address: String,
        /// Why not.
        error: io::Error,
    },
    /// Anything else, in a sentence.
    Other(String),
}

impl std::fmt::Display for StartError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            StartError::Bind { address, error } if error.kind() == io::ErrorKind::AddrInUse => write!(
                f,
                "cannot listen on {address}: the port is taken. Is another Pillion running? Change `listen` (or \
                 `admin.listen`), or stop what holds it"
            ),
            StartError::Bind { address, error } => write!(f, "cannot listen on {address}: {error}"),
            StartError::Other(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for StartError {}

/// Everything made and bound, nothing accepted yet.
#[derive(Debug)]
pub struct App {
    config: Config,
    proxy: Arc<Proxy>,
    metrics: Arc<Metrics>,
    drain: Drain,
    data: Vec<DataListener>,
    admin: Bound,
}

/// A bound data listener, and what it serves.
#[derive(Debug)]
struct DataListener {
    bound: Bound,
    /// The route it belongs to; `None` for a shared one.
    route: Option<String>,
    index: usize,
}

/// One listener's share of the proxy.
#[derive(Debug)]
struct Data {
    proxy: Arc<Proxy>,
    listener: usize,
}

impl Handler for Data {
    type Content = Downstream;

    async fn handle(&self, request: Request<Incoming>) -> Response<Downstream> {
        self.proxy.handle(self.listener, request).await
    }
}

impl App {
    /// Makes every part and binds every listener.
    pub fn new(config: Config) -> Result<Self, StartError> {
        let (tls, missing) = Tls::new(config.tls_ca.as_deref()).map_err(StartError::Other)?;
        for what in missing {
            tracing::warn!("trusted roots: {what}");
        }
        let names: Vec<&str> = config.routes.iter().map(|plan| plan.name.as_str()).collect();
        let operations = Operation::ALL.map(Operation::word);
        let metrics = Arc::new(Metrics::new(&names, &operations, &VOCABULARY, config.workers));
        let (listeners, served) = bind_data(&config)?;
        let admin = bind(&config.admin.listen)?;
        let budgets = Budgets {
            cache: config.memory.cache,
            buffers: config.memory.buffers,
            max_in_flight: config.max_in_flight,
        };
        let randomness = |e| StartError::Other(format!("no randomness from the system: {e}"));
        let shared = shared(&config, &tls).map_err(randomness)?;
        let conversations = conversations(&config, &tls, shared.is_some()).map_err(randomness)?;
        let proxy = Proxy::new(
            config.routes.clone(),
            &served,
            budgets,
            &tls,
            Arc::clone(&metrics),
            shared,
            Arc::new(conversations),
        )
        .map_err(randomness)?;
        let drain = Drain::new(proxy.tasks().clone(), config.drain);
        Ok(Self { config, proxy: Arc::new(proxy), metrics, drain, data: listeners, admin })
    }

    /// What was bound: where, and for which route (`None`: shared).
    pub fn listeners(&self) -> impl Iterator<Item = (&Address, Option<&str>)> {
        self.data.iter().map(|listener| (listener.bound.address(), listener.route.as_deref()))
    }

    /// Where the admin listener was bound.
    pub fn admin(&self) -> &Address {
        self.admin.address()
    }

    /// What it was made from.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Accepts on every listener, until the drain closes them. A listener that ends without being told to is a defect:
    /// the error names it.
    async fn serve(self) -> Result<(), String> {
        let Self { config, proxy, metrics, drain, data, admin } = self;
        let _sharing = Sharing::start(&proxy);
        let mut accepting = JoinSet::new();
        for DataListener { bound, index, .. } in data {
            let name = bound.address().to_string();
            let handler = Data { proxy: Arc::clone(&proxy), listener: index };
            let serve = bound.serve(handler, proxy.tasks().clone(), drain.stop());
            // Counted, so that the drain waits until the socket is closed and the file of a Unix one is removed.
            accepting.spawn(proxy.tasks().track_future(async move {
                serve.await;
                name
            }));
        }
        drain.begin();
        let effective = config::effective(&config);
        let handler =
            Admin::new(&config.admin, admin.address(), effective, Arc::clone(&proxy), metrics, drain.clone());
        // Its own signal, which nobody sends: it answers until the process ends. Its connections are not waited for.
        let (_never, stop) = tokio::sync::watch::channel(false);
        let admin = tokio::spawn(admin.serve(handler, tokio_util::task::TaskTracker::new(), stop));
        let admin = AbortOnDrop(admin);
        while let Some(ended) = accepting.join_next().await {
            if !drain.is_stopping() {
                let name = ended.unwrap_or_else(|e| e.to_string());
                return Err(format!("the listener on {name} has ended"));
            }
        }
        // All data listeners are closed; the admin one answers on while requests in flight end.
        let _admin = admin;
        std::future::pending().await
    }
}

/// The tier that instances share, if there is one and a route that stores.
fn shared(config: &Config, tls: &Tls) -> Result<Option<Arc<Shared>>, getrandom::Error> {
    let rules = || config.routes.iter().flat_map(|plan| &plan.rules);
    let longest_ttl = rules().filter_map(|rule| match &rule.action {
        Action::Cache(policy) => Some(policy.ttl),
        Action::Embeddings(_) | Action::Invalidate(_) | Action::Pass => None,
    });
    let (Some(redis), Some(longest_ttl)) = (&config.redis, longest_ttl.max()) else { return Ok(None) };
    let unmatched = config.routes.iter().map(|plan| &plan.unmatched_unsafe);
    let longest_write = rules().chain(unmatched).filter_map(|rule| match &rule.action {
        Action::Invalidate(settle) => Some(rule.timeouts.total + settle.longest().max(rule.timeouts.total)),
        Action::Cache(_) | Action::Embeddings(_) | Action::Pass => None,
    });
    let policy = shared::Policy {
        address: redis.address.clone(),
        timeout: redis.timeout,
        prefix: redis.prefix.clone(),
        secret: redis.secret.as_ref().map(|secret| secret.expose().to_owned()),
        longest_ttl,
        settle: config.routes.iter().map(|plan| plan.settle).max().unwrap_or_default(),
        longest_write: longest_write.max().unwrap_or_default(),
    };
    Shared::new(policy, redis::Tls(tls.of_another_protocol())).map(Some)
}

/// What is known of conversations, if a route has any; in Redis, too, if there is one.
fn conversations(config: &Config, tls: &Tls, others_tell: bool) -> Result<Conversations, getrandom::Error> {
    let windows = || {
        let rules = config.routes.iter().flat_map(|plan| &plan.rules);
        rules.filter_map(|rule| rule.window.as_ref()).filter(|window| window.enabled)
    };
    for window in windows().filter(|window| window.max_tokens > 0) {
        let encoding = window.encoding;
        std::thread::spawn(move || Counter::load(encoding));
    }
    let bytes = if windows().next().is_some() { config.memory.conversations } else { 0 };
    let policy = config.redis.as_ref().map(|redis| conversations::Policy {
        address: redis.address.clone(),
        prefix: redis.prefix.clone(),
        secret: redis.secret.as_ref().map(|secret| secret.expose().to_owned()),
        tells: !others_tell,
    });
    Conversations::new(bytes, policy.map(|policy| (policy, redis::Tls(tls.of_another_protocol()))))
}

/// The tasks of what is shared and kept in mind, as long as this lives.
struct Sharing(Option<Arc<Shared>>, Arc<Conversations>);

impl Sharing {
    fn start(proxy: &Proxy) -> Self {
        let (shared, conversations) = (proxy.shared().cloned(), Arc::clone(proxy.conversations()));
        if let Some(shared) = &shared {
            shared.start();
        }
        conversations.start();
        Self(shared, conversations)
    }
}

impl Drop for Sharing {
    fn drop(&mut self) {
        if let Some(shared) = &self.0 {
            shared.stop();
        }
        self.1.stop();
    }
}

struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn bind(address: &Address) -> Result<Bound, StartError> {
    Bound::new(address).map_err(|error| StartError::Bind { address: address.to_string(), error })
}

/// Binds the shared listeners and those of single routes. Beside them: which plans each serves.
fn bind_data(config: &Config) -> Result<(Vec<DataListener>, Vec<Vec<usize>>), StartError> {
    let shared: Vec<usize> = (0..config.routes.len())
        .filter(|index| config.routes.get(*index).is_some_and(|plan| plan.listen.is_empty()))
        .collect();
    let (mut listeners, mut served) = (Vec::new(), Vec::new());
    for address in &config.listen {
        listeners.push(DataListener { bound: bind(address)?, route: None, index: served.len() });
        served.push(shared.clone());
    }
    // Several routes may share a listener of their own, on different paths: it is bound once.
    let mut own: Vec<(&Address, Vec<usize>)> = Vec::new();
    for (index, plan) in config.routes.iter().enumerate() {
        for address in &plan.listen {
            match own.iter_mut().find(|(known, _)| *known == address && !is_any_port(address)) {
                Some((_, routes)) => routes.push(index),
                None => own.push((address, vec![index])),
            }
        }
    }
    for (address, routes) in own {
        let route = routes.first().and_then(|index| config.routes.get(*index)).map(|plan| plan.name.clone());
        listeners.push(DataListener { bound: bind(address)?, route, index: served.len() });
        served.push(routes);
    }
    Ok((listeners, served))
}

/// Port 0 is a new port each time.
fn is_any_port(address: &Address) -> bool {
    matches!(address, Address::Tcp(text) if text.ends_with(":0"))
}

/// Runs the whole process until a signal has drained it.
pub fn run(app: App) -> Result<(), StartError> {
    let threads = app.config.workers.max(1);
    // One worker has nobody to steal from, and is the cheaper for not looking.
    let conf = ServerConf {
        threads,
        work_stealing: threads > 1,
        // Its handshakes' timeouts are tokio's: its own keep a thread that wakes a hundred times a second.
        fast_timeout_to_tokio_threshold_seconds: Some(0),
        ..ServerConf::default()
    };
    let drain = app.drain.clone();
    let failure = Arc::new(std::sync::Mutex::new(None));
    let mut server = Server::new_with_opt_and_conf(None, conf);
    server.add_service(Accept { app: Some(app), failure: Arc::clone(&failure) });
    server.run(RunArgs { shutdown_signal: Box::new(Signals(drain)) });
    let failed = failure.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
    failed.map_or(Ok(()), |text| Err(StartError::Other(text)))
}

/// The one service that owns all listeners.
struct Accept {
    app: Option<App>,
    failure: Arc<std::sync::Mutex<Option<String>>>,
}

#[async_trait]
impl Service for Accept {
    async fn start_service(&mut self, _: Option<ListenFds>, _: ShutdownWatch, _: usize) {
        let Some(app) = self.app.take() else { return };
        let drain = app.drain.clone();
        drain.armed().await;
        if let Err(text) = app.serve().await {
            tracing::error!("{text}");
            *self.failure.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(text);
            drain.run().await;
        }
    }

    fn name(&self) -> &'static str {
        "pillion"
    }
}

/// A whole Pillion on the runtime it is started from: for `pillion demo` and for tests.
#[derive(Debug)]
pub struct Running {
    data: Vec<(SocketAddr, Option<String>)>,
    admin: SocketAddr,
    drain: Drain,
    accepting: tokio::task::JoinHandle<Result<(), String>>,
}

impl Running {
    /// Starts it; TCP listeners only.
    #[expect(clippy::unused_async, reason = "says in its type that it needs a runtime to be called on")]
    pub async fn start(config: Config) -> Result<Self, StartError> {
        let app = App::new(config)?;
        let tcp = |bound: &Bound| {
            bound.socket_addr().ok_or_else(|| StartError::Other("TCP listeners only here".into()))
        };
        let data = app
            .data
            .iter()
            .map(|listener| Ok((tcp(&listener.bound)?, listener.route.clone())))
            .collect::<Result<_, StartError>>()?;
        let (admin, drain) = (tcp(&app.admin)?, app.drain.clone());
        let accepting = tokio::spawn(app.serve());
        Ok(Self { data, admin, drain, accepting })
    }

    /// The first shared data listener; else the first of a route.
    pub fn data_addr(&self) -> SocketAddr {
        let shared = self.data.iter().find(|(_, route)| route.is_none()).or(self.data.first());
        shared.map_or(self.admin, |(address, _)| *address)
    }

    /// The listener of a route's own.
    pub fn route_addr(&self, route: &str) -> Option<SocketAddr> {
        self.data.iter().find(|(_, own)| own.as_deref() == Some(route)).map(|(address, _)| *address)
    }

    /// The admin listener.
    pub fn admin_addr(&self) -> SocketAddr {
        self.admin
    }

    /// Drains and stops. Tells whether everything in flight ended in time.
    pub async fn stop(self) -> bool {
        let done = self.drain.run().await;
        self.accepting.abort();
        done
    }
}
