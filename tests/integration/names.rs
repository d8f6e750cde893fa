//! Where an upstream's name leads: addresses asked for anew, raced, and left when the name leaves them.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pillion::error::Kind;
use pillion::upstream::{Phase, Resolver};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use crate::support::direct::Direct;
use crate::support::{Answer, Upstream, advance, eventually};

const S: Duration = Duration::from_secs(1);

/// What the resolver says: addresses, a failure, or nothing at all.
#[derive(Clone)]
enum Says {
    Addresses(Vec<SocketAddr>),
    Failure,
    Nothing,
}

/// A resolver that says what it was told last.
#[derive(Clone)]
struct Script {
    says: Arc<Mutex<Says>>,
    answered: Arc<AtomicUsize>,
}

impl Script {
    fn saying(addresses: &[SocketAddr]) -> Self {
        Self { says: Arc::new(Mutex::new(Says::Addresses(addresses.to_vec()))), answered: Arc::default() }
    }

    fn say(&self, says: Says) {
        *self.says.lock().unwrap() = says;
    }

    fn resolver(&self) -> Resolver {
        let script = self.clone();
        Resolver::new(move |host, port| {
            assert_eq!((host, port), ("store.test", 80));
            let (says, answered) = (script.says.lock().unwrap().clone(), Arc::clone(&script.answered));
            async move {
                answered.fetch_add(1, SeqCst);
                match says {
                    Says::Addresses(addresses) => Ok(addresses),
                    Says::Failure => Err(io::Error::other("SERVFAIL")),
                    Says::Nothing => std::future::pending().await,
                }
            }
        })
    }

    /// Waits until it was asked so often, and what it said was taken in.
    async fn asked(&self, count: usize) {
        eventually("the question", async || self.answered.load(SeqCst) >= count).await;
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        assert_eq!(self.answered.load(SeqCst), count);
    }
}

async fn named(name: &'static str) -> Upstream {
    Upstream::answering(move |_| Answer::ok(name)).await
}

#[tokio::test]
async fn a_name_that_moves_is_followed_and_no_request_waits_for_it() {
    let (old, new) = (named("old").await, named("new").await);
    let script = Script::saying(&[old.addr]);
    let direct = Direct::new("store.test", script.resolver(), 0);
    assert_eq!(direct.get().await, "old");
    script.say(Says::Addresses(vec![new.addr]));
    advance(29 * S).await;
    assert_eq!(direct.get().await, "old");
    script.asked(1).await;
    advance(2 * S).await;
    assert_eq!(direct.get().await, "old", "it did not wait for the answer that it caused");
    script.asked(2).await;
    assert_eq!(direct.get().await, "new", "though the connection to the old one is as good as before");
    assert_eq!((old.connections(), old.count(), new.connections()), (1, 3, 1));
    old.closed(0).await;
}

#[tokio::test]
async fn a_resolver_that_fails_is_silent_or_says_nothing_leaves_all_as_it_was() {
    let upstream = named("it").await;
    let script = Script::saying(&[upstream.addr]);
    let direct = Direct::new("store.test", script.resolver(), 0);
    assert_eq!(direct.get().await, "it");
    let mut asked = 1;
    for says in [Says::Failure, Says::Addresses(Vec::new()), Says::Nothing] {
        script.say(says);
        for _ in 0..2 {
            advance(16 * S).await;
            assert_eq!(direct.get().await, "it");
        }
        asked += 1;
        script.asked(asked).await;
    }
    assert_eq!((upstream.connections(), upstream.count()), (1, 7));
}

#[tokio::test]
async fn a_name_that_does_not_resolve_was_never_sent_to() {
    let script = Script::saying(&[]);
    let direct = Direct::new("store.test", script.resolver(), 0);
    for says in [Says::Failure, Says::Addresses(Vec::new())] {
        script.say(says);
        let failed = direct.send(false).await.unwrap_err();
        assert_eq!((failed.error.kind, failed.phase), (Kind::Dns, Phase::NeverSent));
    }
}

/// Listens, and answers no one: its queue is full. What fills it has to be kept.
async fn unanswering() -> (SocketAddr, TcpListener, TcpStream) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(0).unwrap();
    let address = listener.local_addr().unwrap();
    let fills = TcpStream::connect(address).await.unwrap();
    (address, listener, fills)
}

/// A port where nobody listens.
async fn refusing(host: &str) -> SocketAddr {
    TcpListener::bind((host, 0)).await.unwrap().local_addr().unwrap()
}

#[tokio::test]
async fn an_address_that_refuses_or_does_not_answer_holds_up_no_other() {
    let upstream = named("it").await;
    let (silent, _listener, _fills) = unanswering().await;
    let refuses = refusing("::1").await;
    for (addresses, least) in [
        (vec![refuses, upstream.addr], 0),
        (vec![silent, upstream.addr], 250),
        // IPv4 has its turn before the second of IPv6.
        (vec![refuses, refuses, silent, upstream.addr], 250),
    ] {
        let direct = Direct::new("store.test", Script::saying(&addresses).resolver(), 0);
        let begun = std::time::Instant::now();
        assert_eq!(direct.get().await, "it", "{addresses:?}");
        let took = begun.elapsed();
        assert!(took >= Duration::from_millis(least) && took < 4 * S, "{addresses:?}: {took:?}");
    }
}

#[tokio::test]
async fn no_connection_within_connect_was_never_sent() {
    let (silent, _listener, _fills) = unanswering().await;
    let direct = Direct::new("store.test", Script::saying(&[silent]).resolver(), 0);
    // With nothing else to do, the time goes on by itself.
    tokio::time::pause();
    let begun = tokio::time::Instant::now();
    let failed = direct.send(false).await.unwrap_err();
    assert_eq!((failed.error.kind, failed.phase), (Kind::ConnectionTimeout, Phase::NeverSent));
    assert_eq!(begun.elapsed().as_secs(), 5);
}

#[tokio::test]
async fn nobody_at_any_address_was_never_sent() {
    let addresses = [refusing("127.0.0.1").await, refusing("::1").await];
    let direct = Direct::new("store.test", Script::saying(&addresses).resolver(), 0);
    let failed = direct.send(false).await.unwrap_err();
    assert_eq!((failed.error.kind, failed.phase), (Kind::ConnectionRefused, Phase::NeverSent));
}
