//! Keeps one connection, and knows whether there is one.
//!
//! The breaker is the connection's own absence: after [a few failures in a row](super::breaker), or when it breaks, it is
//! dropped, and calls fail without waiting until the one probe that is under way has made another.

use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout};

use super::breaker::{self, Run};
use super::{Address, Failure, Link, Reply, Script, Tls};

/// A connection that lasted so long was a good one: the next probe comes soon.
const GOOD: Duration = Duration::from_secs(2);

/// What has to be done on a new connection before anybody may use it.
#[async_trait]
pub trait Join: Send + Sync {
    /// Fails where the connection is of no use.
    async fn join(&self, link: &Link) -> Result<(), Failure>;
}

/// One connection for commands, if there is one.
#[derive(Debug)]
pub struct Keeper {
    address: Address,
    tls: Tls,
    /// What its absence means to users; `None`: somebody else tells the log.
    without: Option<&'static str>,
    state: Mutex<State>,
    up: watch::Sender<bool>,
    dropped: Notify,
}

#[derive(Debug)]
struct State {
    link: Option<Link>,
    run: Run,
    /// Since when there is none, or one.
    since: Instant,
    /// Why there is none any more.
    why: Option<Failure>,
}

impl Keeper {
    /// A keeper without a connection: [`Keeper::keep`] makes one. `without` says what that means to users, in the log;
    /// `None` leaves that to another keeper of the same Redis.
    pub fn new(address: Address, tls: Tls, without: Option<&'static str>) -> Self {
        let state = State { link: None, run: Run::default(), since: Instant::now(), why: None };
        let (up, _) = watch::channel(false);
        Self { address, tls, without, state: Mutex::new(state), up, dropped: Notify::new() }
    }

    /// Where it connects to.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// The TLS side of its connections.
    pub fn tls(&self) -> &Tls {
        &self.tls
    }

    /// Whether there is a connection.
    pub fn is_up(&self) -> bool {
        *self.up.borrow()
    }

    /// Tells each change of [`Keeper::is_up`].
    pub fn changes(&self) -> watch::Receiver<bool> {
        self.up.subscribe()
    }

    /// Since when there is no connection; `None` while there is one.
    pub fn down_since(&self) -> Option<Instant> {
        let state = self.lock();
        state.link.is_none().then_some(state.since)
    }

    /// Runs a script within that time. Without a connection it fails at once.
    pub async fn run(
        &self,
        script: &Script,
        keys: &[&str],
        arguments: &[&[u8]],
        within: Duration,
    ) -> Result<Reply, Failure> {
        let link = self.lock().link.clone().ok_or(Failure::Down)?;
        let outcome = link.run(script, keys, arguments, within).await;
        self.judge(&link, outcome.as_ref().err());
        outcome
    }

    /// Has another connection made in place of this one: what was found on it does not hold any more.
    pub fn renew(&self) {
        let Some(link) = self.lock().link.clone() else { return };
        self.drop_link(&link, &Failure::Lost("what was found on it has changed".into()));
        self.dropped.notify_one();
    }

    fn drop_link(&self, link: &Link, why: &Failure) {
        let mut state = self.lock();
        if state.link.as_ref().is_some_and(|current| current.is_same(link)) {
            tracing::debug!(%why, "the connection is dropped");
            *state = State { link: None, run: Run::default(), since: Instant::now(), why: Some(why.clone()) };
            drop(state);
            self.up.send_replace(false);
        }
    }

    fn judge(&self, link: &Link, failure: Option<&Failure>) {
        let mut state = self.lock();
        if !state.link.as_ref().is_some_and(|current| current.is_same(link)) {
            return;
        }
        match failure {
            None => state.run.succeeded(),
            // Memory is full: what only reads goes on. Whoever writes has to know what to do then.
            Some(failure) if failure.is("OOM") => state.run.succeeded(),
            Some(failure) => {
                // One that follows another may lead again a moment later, with what the other knows.
                let useless =
                    matches!(failure, Failure::Lost(_)) || failure.is("UNJOINED") || failure.is("READONLY");
                if useless || state.run.failed(Instant::now()) {
                    drop(state);
                    self.drop_link(link, failure);
                    self.dropped.notify_one();
                }
            }
        }
    }

    /// Makes a connection whenever there is none, for ever. One line of the log for each change of state.
    pub async fn keep(self: Arc<Self>, join: Arc<dyn Join>) {
        let (mut probes, mut told): (u32, Option<bool>) = (0, None);
        loop {
            let opened = match Link::open(&self.address, &self.tls).await {
                Ok(link) => join.join(&link).await.map(|()| link),
                Err(failure) => Err(failure),
            };
            match opened {
                Ok(link) => {
                    let begun = Instant::now();
                    self.set(link.clone());
                    let mut ended = pin!(self.ended(link));
                    // After it was not in use only when it lasts: one that is dropped again and again never is.
                    let soon = if told == Some(false) { timeout(GOOD, &mut ended).await.ok() } else { None };
                    let why = if let Some(why) = soon {
                        why
                    } else {
                        if told != Some(true) {
                            self.tell_of_use();
                            told = Some(true);
                        }
                        ended.await
                    };
                    if told == Some(true)
                        && matches!(why, Failure::Timeout | Failure::Refused { .. })
                        && !why.is("UNJOINED")
                    {
                        self.tell_of_loss(&why);
                        told = Some(false);
                    }
                    probes = if begun.elapsed() >= GOOD { 0 } else { probes + 1 };
                }
                // Not when a connection is dropped: one that is made anew at once was not missed.
                Err(why) => {
                    if told != Some(false) {
                        self.tell_of_loss(&why);
                        told = Some(false);
                    }
                    probes += 1;
                }
            }
            sleep(breaker::wait(probes, fastrand::f64())).await;
        }
    }

    fn tell_of_use(&self) {
        if self.without.is_some() {
            tracing::info!(redis = %self.address, "Redis is in use");
        }
    }

    fn tell_of_loss(&self, why: &Failure) {
        if let Some(without) = self.without {
            tracing::warn!(redis = %self.address, %why, "Redis is not in use: {without}");
        }
    }

    /// Waits until this connection is dropped, and tells why.
    async fn ended(&self, link: Link) -> Failure {
        tokio::select! {
            () = self.dropped.notified() => {}
            () = link.closed() => self.drop_link(&link, &Failure::Lost("the connection was closed".into())),
        }
        self.lock().why.take().unwrap_or(Failure::Down)
    }

    fn set(&self, link: Link) {
        let mut state = self.lock();
        *state = State { link: Some(link), run: Run::default(), since: Instant::now(), why: None };
        drop(state);
        self.up.send_replace(true);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic while it was held cannot have left it half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
