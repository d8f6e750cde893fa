//! The addresses of an upstream's name: asked for anew while it is used, and never while a request waits that could have
//! gone to those known.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, timeout};

use crate::error::{Error, Kind};

/// Seconds after which an answer is asked for anew, while the upstream is used. The system's resolver does not tell how
/// long an answer holds.
const REFRESH: u64 = 30;
/// An answer as old as this is of a time before a long silence: the next connection waits for a new one ...
const MAX_AGE: Duration = Duration::from_secs(300);
/// ... for so long, and then takes the old.
const MAX_WAIT: Duration = Duration::from_secs(1);

type Answer = Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>> + Send>>;

type Resolve = dyn Fn(&str, u16) -> Answer + Send + Sync;

/// Tells the addresses of a name: host and port.
#[derive(Clone)]
pub struct Resolver(Arc<Resolve>);

impl Resolver {
    /// The system's.
    pub fn system() -> Self {
        Self::new(|host, port| {
            let host = host.to_owned();
            async move { Ok(tokio::net::lookup_host((host, port)).await?.collect()) }
        })
    }

    /// Another one.
    pub fn new<F>(resolve: impl Fn(&str, u16) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = io::Result<Vec<SocketAddr>>> + Send + 'static,
    {
        Self(Arc::new(move |host, port| Box::pin(resolve(host, port))))
    }
}

impl std::fmt::Debug for Resolver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Resolver")
    }
}

/// An address of the name, held by the connections to it.
#[derive(Debug)]
pub(super) struct Address {
    pub(super) socket: SocketAddr,
    /// The name has it no more.
    gone: AtomicBool,
}

impl Address {
    fn new(socket: SocketAddr) -> Arc<Self> {
        Arc::new(Self { socket, gone: AtomicBool::new(false) })
    }

    pub(super) fn is_gone(&self) -> bool {
        self.gone.load(Relaxed)
    }
}

/// What is known of one name.
#[derive(Debug)]
pub(super) struct Names {
    host: String,
    port: u16,
    resolver: Resolver,
    begun: Instant,
    /// When to ask again, in seconds after `begun`. Never, before the first answer and of an address.
    due: AtomicU64,
    known: Mutex<Known>,
}

#[derive(Debug)]
struct Known {
    addresses: Vec<Arc<Address>>,
    /// When they were told; `None` of an address, which stays what it is.
    at: Option<Instant>,
}

impl Names {
    pub(super) fn new(host: &str, port: u16, resolver: Resolver) -> Arc<Self> {
        let literal = host.parse::<IpAddr>().map(|ip| Address::new(SocketAddr::new(ip, port)));
        let known = Known { addresses: literal.into_iter().collect(), at: None };
        Arc::new(Self {
            host: host.to_owned(),
            port,
            resolver,
            begun: Instant::now(),
            due: AtomicU64::new(u64::MAX),
            known: Mutex::new(known),
        })
    }

    /// Asks anew in the background, where it is time to. Called by every request.
    pub(super) fn keep_fresh(self: &Arc<Self>, now: Instant) {
        if self.seconds(now) >= self.due.load(Relaxed) {
            self.refresh(now);
        }
    }

    #[cold]
    fn refresh(self: &Arc<Self>, now: Instant) {
        let due = self.due.load(Relaxed);
        let next = self.seconds(now) + REFRESH;
        // Of many requests at a time one asks.
        if self.seconds(now) < due || self.due.compare_exchange(due, next, Relaxed, Relaxed).is_err() {
            return;
        }
        let names = Arc::clone(self);
        tokio::spawn(async move {
            if let Err(error) = names.ask().await {
                tracing::debug!("the addresses known of {} are kept: {}", names.host, error.detail);
            }
        });
    }

    /// The addresses to connect to.
    pub(super) async fn addresses(&self) -> Result<Vec<Arc<Address>>, Error> {
        let (known, at) = {
            let known = self.lock();
            (known.addresses.clone(), known.at)
        };
        if known.is_empty() {
            return self.ask().await;
        }
        if at.is_none_or(|at| at.elapsed() < MAX_AGE) {
            return Ok(known);
        }
        match timeout(MAX_WAIT, self.ask()).await {
            Ok(Ok(addresses)) => Ok(addresses),
            Ok(Err(_)) | Err(_) => Ok(known),
        }
    }

    /// Asks, and remembers the answer if it is one.
    async fn ask(&self) -> Result<Vec<Arc<Address>>, Error> {
        let host = &self.host;
        let answer = (self.resolver.0)(host, self.port)
            .await
            .map_err(|e| Error::new(Kind::Dns, format!("{host} does not resolve: {e}")))?;
        if answer.is_empty() {
            return Err(Error::new(Kind::Dns, format!("{host} has no address")));
        }
        let now = Instant::now();
        let mut known = self.lock();
        let mut addresses: Vec<Arc<Address>> = Vec::with_capacity(answer.len());
        for socket in answer {
            if addresses.iter().all(|told| told.socket != socket) {
                let before = known.addresses.iter().find(|before| before.socket == socket);
                addresses.push(before.map_or_else(|| Address::new(socket), Arc::clone));
            }
        }
        for before in &known.addresses {
            let is_told = addresses.iter().any(|told| told.socket == before.socket);
            before.gone.store(!is_told, Relaxed);
        }
        known.addresses.clone_from(&addresses);
        known.at = Some(now);
        drop(known);
        self.due.store(self.seconds(now) + REFRESH, Relaxed);
        Ok(addresses)
    }

    fn seconds(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.begun).as_secs()
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        // A panic while it was held cannot have left it half changed.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    const S: Duration = Duration::from_secs(1);

    /// Answers by a script: of addresses, or failures. Beyond it, it never answers.
    #[derive(Clone, Default)]
    struct Script {
        answers: Arc<Mutex<VecDeque<Option<&'static [&'static str]>>>>,
        asked: Arc<AtomicU64>,
    }

    impl Script {
        fn resolver(&self) -> Resolver {
            let script = self.clone();
            Resolver::new(move |host, port| {
                assert_eq!((host, port), ("api.test", 443));
                script.asked.fetch_add(1, Relaxed);
                let answer = script.answers.lock().unwrap().pop_front();
                async move {
                    match answer {
                        Some(Some(ips)) => {
                            Ok(ips.iter().map(|ip| SocketAddr::new(ip.parse().unwrap(), port)).collect())
                        }
                        Some(None) => Err(io::Error::other("SERVFAIL")),
                        None => std::future::pending().await,
                    }
                }
            })
        }

        fn push(&self, answer: Option<&'static [&'static str]>) {
            self.answers.lock().unwrap().push_back(answer);
        }

        fn asked(&self) -> u64 {
            self.asked.load(Relaxed)
        }
    }

    async fn known(names: &Names) -> Vec<String> {
        names.addresses().await.unwrap().iter().map(|address| address.socket.ip().to_string()).collect()
    }

    /// Time goes by; then there is a request, and what it set off is done.
    async fn used_after(names: &Arc<Names>, time: Duration) {
        tokio::time::advance(time).await;
        names.keep_fresh(Instant::now());
        for _ in 0..3 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_answer_is_waited_for_and_later_ones_come_in_the_background() {
        let script = Script::default();
        let names = Names::new("api.test", 443, script.resolver());
        used_after(&names, 100 * S).await;
        assert_eq!(script.asked(), 0, "nothing to keep fresh");
        script.push(None);
        assert_eq!(names.addresses().await.unwrap_err().kind, Kind::Dns);
        script.push(Some(&[]));
        assert_eq!(names.addresses().await.unwrap_err().kind, Kind::Dns);
        script.push(Some(&["192.0.2.1", "192.0.2.2", "192.0.2.1"]));
        let first = names.addresses().await.unwrap();
        assert_eq!(known(&names).await, ["192.0.2.1", "192.0.2.2"]);
        assert_eq!(script.asked(), 3);
        used_after(&names, 29 * S).await;
        assert_eq!(script.asked(), 3);
        script.push(Some(&["192.0.2.2", "192.0.2.3"]));
        used_after(&names, S).await;
        assert_eq!((script.asked(), known(&names).await), (4, vec!["192.0.2.2".into(), "192.0.2.3".into()]));
        assert_eq!(first.iter().map(|address| address.is_gone()).collect::<Vec<_>>(), [true, false]);
        // The next does not come, and nobody waits for it.
        used_after(&names, 30 * S).await;
        used_after(&names, S).await;
        assert_eq!((script.asked(), known(&names).await.len()), (5, 2));
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_and_an_empty_answer_leave_what_is_known() {
        let script = Script::default();
        let names = Names::new("api.test", 443, script.resolver());
        script.push(Some(&["192.0.2.1"]));
        let address = names.addresses().await.unwrap().remove(0);
        for answer in [None, Some(&[] as &[&str])] {
            script.push(answer);
            used_after(&names, 30 * S).await;
            assert_eq!(known(&names).await, ["192.0.2.1"]);
            assert!(!address.is_gone());
        }
        assert_eq!(script.asked(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_long_silence_a_connection_waits_a_moment_for_the_new_answer() {
        let script = Script::default();
        let names = Names::new("api.test", 443, script.resolver());
        script.push(Some(&["192.0.2.1"]));
        assert_eq!(known(&names).await, ["192.0.2.1"]);
        tokio::time::advance(301 * S).await;
        let before = Instant::now();
        assert_eq!(known(&names).await, ["192.0.2.1"], "no answer comes");
        assert_eq!(before.elapsed(), S);
        script.push(None);
        assert_eq!(known(&names).await, ["192.0.2.1"], "a failure comes");
        script.push(Some(&["192.0.2.2"]));
        assert_eq!(known(&names).await, ["192.0.2.2"]);
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_is_not_asked_for() {
        for host in ["192.0.2.1", "2001:db8::1"] {
            let script = Script::default();
            let names = Names::new(host, 443, script.resolver());
            for _ in 0..5 {
                assert_eq!(known(&names).await, [host]);
                used_after(&names, 400 * S).await;
            }
            assert_eq!(script.asked(), 0);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn of_many_requests_one_asks() {
        let script = Script::default();
        let names = Names::new("api.test", 443, script.resolver());
        script.push(Some(&["192.0.2.1"]));
        known(&names).await;
        tokio::time::advance(30 * S).await;
        for _ in 0..100 {
            names.keep_fresh(Instant::now());
        }
        tokio::task::yield_now().await;
        assert_eq!(script.asked(), 2);
    }
}
