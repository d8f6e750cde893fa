//! How each failure is made.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::SeqCst;

use tokio::io::AsyncWriteExt;

use super::requests::Ask;
use crate::support::frames::{self, RST_STREAM, frame};
use crate::support::relay::{After, Does, Fault, Relay, refusing, unanswering};
use crate::support::secure::{Authority, accept, relay as without_tls};
use crate::support::{Answer, Step, Upstream};

/// One way to fail.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Cause {
    /// The name of the upstream does not resolve.
    Unresolved,
    Refused,
    /// Nobody answers the attempt to connect.
    Unanswered,
    /// The upstream's part of the TLS handshake breaks off.
    Handshake(Does),
    /// A certificate by an authority that is not known.
    Untrusted,
    RefusedStream,
    /// GOAWAY with this error code, whose last stream is before the request's (RFC 9113 section 6.8).
    GoAway(u32),
    /// At the second request of a connection, before a byte of the answer.
    Reused(Does),
    /// On the wire.
    Cut(At, Does),
    /// An answer with these fields.
    Status(u16, &'static [(&'static str, &'static str)]),
    /// A 429 that says: pay first.
    Bill,
    /// A stream that begins with an error of this type.
    FirstEvent(&'static str),
    /// A stream that comes to an error of this type.
    LaterEvent(&'static str),
    /// 503, after other requests have used the budget up.
    BudgetEmpty,
    /// After other requests have found the upstream dead.
    BreakerOpen,
    /// While another request is under way, and no second may be.
    Full,
}

/// Where in an answer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum At {
    /// Before its first byte.
    Head,
    /// Between the head of a stream and its first event.
    FirstEvent,
    /// Within content; of a stream, behind its first event.
    Content,
}

/// How often it happens.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Times {
    Always,
    /// The first time only.
    Once,
}

/// What is refused.
const REFUSAL: &str = r#"{"error":{"message":"not now","type":"server_error"}}"#;
/// As OpenAI says it.
const BILL: &str = r#"{"error":{"type":"insufficient_quota","code":"insufficient_quota"}}"#;
/// As Anthropic does.
const BILL_ANTHROPIC: &str = r#"{"type":"error","error":{"type":"billing_error","message":"m"}}"#;

/// An upstream that fails, and whatever must stay there for it.
pub(super) struct Stage {
    pub(super) url: String,
    /// Requests that arrived; `None` where none can.
    arrived: Option<Box<dyn Fn() -> usize>>,
    _kept: Box<dyn Any>,
}

impl Cause {
    /// Whether there is such a thing for this request.
    pub(super) fn applies(self, ask: &Ask) -> bool {
        match self {
            Cause::Cut(At::FirstEvent, _) | Cause::FirstEvent(_) | Cause::LaterEvent(_) => ask.is_stream(),
            Cause::Bill => ask.bills(),
            _ => true,
        }
    }

    /// Whether providers tell it in different ways.
    pub(super) fn is_told(self) -> bool {
        matches!(self, Cause::FirstEvent(_) | Cause::LaterEvent(_))
    }

    /// Whether it can happen once only, and all be well after.
    pub(super) fn passes(self) -> bool {
        !matches!(
            self,
            Cause::Unresolved
                | Cause::Refused
                | Cause::Unanswered
                | Cause::Untrusted
                | Cause::BudgetEmpty
                | Cause::BreakerOpen
                | Cause::Full
                | Cause::Reused(_)
        )
    }

    /// Something is waited for.
    pub(super) fn is_slow(self) -> bool {
        matches!(self, Cause::Unanswered | Cause::Full | Cause::Cut(_, Does::Stall))
    }

    /// The upstream's own answer, where it is that which fails.
    pub(super) fn answer(self, ask: &Ask) -> Option<Answer> {
        Some(match self {
            Cause::Status(status, fields) => {
                let fields = [&[("content-type", "application/json")], fields].concat();
                Answer::with(status, &fields, REFUSAL)
            }
            Cause::Bill => Answer::status(429, if ask.preset == "anthropic" { BILL_ANTHROPIC } else { BILL }),
            Cause::Full => Answer::hang(),
            Cause::BudgetEmpty => Answer::status(503, REFUSAL),
            Cause::FirstEvent(kind) => ask.error_event(kind, false),
            Cause::LaterEvent(kind) => ask.error_event(kind, true),
            _ => return None,
        })
    }

    pub(super) async fn stage(self, ask: Ask, times: Times, authority: &Authority) -> Stage {
        let fails = move |number: usize| times == Times::Always || number == 0;
        match self {
            Cause::Unresolved => {
                // No label may be as long (RFC 1035 section 2.3.4), so that no resolver is asked.
                let url = format!("http://{}.test", "a".repeat(64));
                Stage { url, arrived: None, _kept: Box::new(()) }
            }
            Cause::Refused | Cause::BreakerOpen => {
                let (socket, address) = refusing();
                let url = format!("http://{address}");
                Stage { url, arrived: None, _kept: Box::new(socket) }
            }
            Cause::Unanswered => {
                let (listener, waiting, address) = unanswering().await;
                let url = format!("http://{address}");
                Stage { url, arrived: None, _kept: Box::new((listener, waiting)) }
            }
            Cause::Handshake(_) | Cause::Untrusted => self.secure(ask, fails, authority).await,
            Cause::RefusedStream => {
                http2(authority, move |number, id| match number {
                    _ if fails(number) => frame(RST_STREAM, 0, id, &7_u32.to_be_bytes()),
                    _ => frames::ok(id),
                })
                .await
            }
            Cause::GoAway(code) => {
                http2(authority, move |number, id| match number {
                    _ if fails(number) => frames::goaway(0, code),
                    _ => frames::ok(id),
                })
                .await
            }
            Cause::Reused(does) => {
                relayed(ask, move |number| (number == 1).then_some(Fault(After::Bytes(0), does))).await
            }
            Cause::Cut(at, does) => {
                let after = match at {
                    At::Head => After::Bytes(0),
                    At::FirstEvent => After::Bytes(length_of_head(&ask.success())),
                    At::Content if ask.is_stream() => After::Events(1),
                    At::Content => After::Bytes(ask.success().len() - 5),
                };
                relayed(ask, move |number| fails(number).then_some(Fault(after, does))).await
            }
            _ => {
                let number = AtomicUsize::new(0);
                let upstream = Upstream::answering(move |_| {
                    let failing = fails(number.fetch_add(1, SeqCst));
                    if failing { self.answer(&ask).unwrap() } else { ask.success() }
                })
                .await;
                Stage::of(Arc::new(upstream), None)
            }
        }
    }

    /// Behind TLS.
    async fn secure(
        self,
        ask: Ask,
        fails: impl Fn(usize) -> bool + Send + Sync + 'static,
        known: &Authority,
    ) -> Stage {
        let unknown = Authority::new();
        let upstream = Upstream::answering(move |_| ask.success()).await;
        let issuer = if self == Cause::Untrusted { &unknown } else { known };
        let mut address = without_tls(issuer.acceptor("localhost", &["http/1.1"]), upstream.addr).await;
        let mut kept: Box<dyn Any> = Box::new(());
        if let Cause::Handshake(does) = self {
            // Within the upstream's first record. The first exchange of a connection is its handshake.
            let relay =
                Relay::before(address, move |number| fails(number).then_some(Fault(After::Bytes(20), does)))
                    .await;
            address = relay.addr;
            kept = Box::new(relay);
        }
        let url = format!("https://localhost:{}", address.port());
        Stage { url, arrived: None, _kept: Box::new((kept, upstream)) }
    }

    /// How many requests come before the one that is looked at.
    pub(super) fn earlier(self) -> usize {
        match self {
            Cause::Reused(_) => 1,
            // Three retries of each but the last, for which one is left; or five connections in a row.
            Cause::BudgetEmpty | Cause::BreakerOpen => 7,
            _ => 0,
        }
    }
}

impl Stage {
    /// Whether requests can arrive.
    pub(super) fn counts(&self) -> bool {
        self.arrived.is_some()
    }

    /// Requests that have arrived.
    pub(super) fn arrived(&self) -> usize {
        self.arrived.as_ref().map_or(0, |arrived| arrived())
    }

    fn of(upstream: Arc<Upstream>, relay: Option<Relay>) -> Self {
        let address = relay.as_ref().map_or(upstream.addr, |relay| relay.addr);
        let counted = Arc::clone(&upstream);
        Self {
            url: format!("http://{address}"),
            arrived: Some(Box::new(move || counted.count())),
            _kept: Box::new((upstream, relay)),
        }
    }
}

/// An upstream that succeeds, behind a relay that does not let it.
async fn relayed(ask: Ask, faults: impl Fn(usize) -> Option<Fault> + Send + Sync + 'static) -> Stage {
    let upstream = Upstream::answering(move |_| ask.success()).await;
    let relay = Relay::before(upstream.addr, faults).await;
    Stage::of(Arc::new(upstream), Some(relay))
}

/// An HTTP/2 upstream that answers with the frames that the function makes of a request's number, and of its stream.
async fn http2(
    authority: &Authority,
    answer: impl Fn(usize, u32) -> Vec<u8> + Send + Sync + 'static,
) -> Stage {
    let requests: Arc<AtomicUsize> = Arc::default();
    let (count, answer) = (Arc::clone(&requests), Arc::new(answer));
    let address = accept(authority.acceptor("localhost", &["h2"]), move |_, mut stream| {
        let (count, answer) = (Arc::clone(&count), Arc::clone(&answer));
        async move {
            frames::greet(&mut stream).await;
            while let Some(id) = frames::next_request(&mut stream).await {
                let frames = answer(count.fetch_add(1, SeqCst), id);
                let _ = stream.write_all(&frames).await;
            }
        }
    })
    .await;
    Stage {
        url: format!("https://localhost:{}", address.port()),
        arrived: Some(Box::new(move || requests.load(SeqCst))),
        _kept: Box::new(()),
    }
}

fn length_of_head(answer: &Answer) -> usize {
    let [Step::Write(bytes)] = &answer.0[..] else { panic!("{answer:?}") };
    memchr::memmem::find(bytes, b"\r\n\r\n").unwrap() + 4
}
