//! What is known of conversations, in Redis: replicas tell the same.
//!
//! A hash for each identifier, in it a field for each route and credential; it expires with the last of them. Told
//! behind the request's back, one step a request, and dropped (but counted) where too many wait or Redis does not answer.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Semaphore;

use super::account::{Account, Amount, Snapshot, Told};
use super::names::{SharedKey, SharedName, Whose, hex};
use crate::redis::{Address, CONNECT, Failure, Join, Keeper, Link, Reply, Script, Tls};

/// Conversations of one identifier that are told apart there; of more the one that was silent longest is forgotten.
const MOST: usize = 64;
/// Requests that are told of at a time; more are not.
const TELLING: usize = 512;
/// How long one of them may take, and a question.
const WITHIN: Duration = Duration::from_secs(1);
/// How long the key that lies there outlives the last conversation.
const SECRET: Duration = Duration::from_secs(30 * 86_400);

/// How Redis is used.
#[derive(Clone)]
pub struct Policy {
    /// Where it is.
    pub address: Address,
    /// Begins every key.
    pub prefix: String,
    /// Names what lies there; `None`: one that lies there too.
    pub secret: Option<String>,
    /// Nobody else tells the log whether Redis is in use.
    pub tells: bool,
}

impl std::fmt::Debug for Policy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Policy")
            .field("address", &self.address)
            .field("prefix", &self.prefix)
            .finish_non_exhaustive()
    }
}

pub(super) struct Shared {
    keeper: Arc<Keeper>,
    prefix: String,
    secret: Option<String>,
    /// Under which conversations are named there, and its secret where that lies there, too.
    key: RwLock<Option<(SharedKey, Arc<str>)>>,
    join: Script,
    note: Script,
    tell: Script,
    forget: Script,
    telling: Arc<Semaphore>,
    untold: Arc<AtomicU64>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("keeper", &self.keeper).finish_non_exhaustive()
    }
}

impl Shared {
    pub(super) fn new(policy: Policy, tls: Tls) -> Self {
        let without = policy.tells.then_some("each instance knows its own conversations only");
        Self {
            keeper: Arc::new(Keeper::new(policy.address, tls, without)),
            prefix: policy.prefix,
            key: RwLock::new(
                policy.secret.as_deref().map(|secret| (SharedKey::of(secret.as_bytes()), "".into())),
            ),
            secret: policy.secret,
            join: Script::new(include_str!("scripts/join.lua")),
            note: Script::new(include_str!("scripts/note.lua")),
            tell: Script::new("return { redis.call('TIME'), redis.call('HGETALL', KEYS[1]) }"),
            forget: Script::new("return redis.call('DEL', KEYS[1])"),
            telling: Arc::new(Semaphore::new(TELLING)),
            untold: Arc::default(),
        }
    }

    /// Makes a connection whenever there is none, for ever.
    pub(super) async fn keep(self: Arc<Self>) {
        let join: Arc<dyn Join> = Arc::clone(&self) as Arc<dyn Join>;
        Arc::clone(&self.keeper).keep(join).await;
    }

    pub(super) fn untold(&self) -> u64 {
        self.untold.load(Relaxed)
    }

    /// `None` before a key was found in Redis.
    pub(super) fn name(&self, whose: &Whose<'_>) -> Option<Arc<SharedName>> {
        Some(Arc::new(self.key()?.0.name(whose)))
    }

    fn key(&self) -> Option<(SharedKey, Arc<str>)> {
        self.key.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn conversation(&self, id: &str) -> String {
        format!("{}{{conversations}}:c:{id}", self.prefix)
    }

    fn secret_key(&self) -> String {
        format!("{}{{conversations}}:secret", self.prefix)
    }

    /// Tells of a request, when there is time for it, and then `told`.
    pub(super) fn note(
        &self,
        name: &Arc<SharedName>,
        idle: Duration,
        snapshot: Option<(&str, Snapshot)>,
        account: Account,
        told: impl FnOnce() + Send + 'static,
    ) {
        let Ok(permit) = Arc::clone(&self.telling).try_acquire_owned() else {
            self.untold.fetch_add(1, Relaxed);
            return;
        };
        let (keeper, untold, script) =
            (Arc::clone(&self.keeper), Arc::clone(&self.untold), self.note.clone());
        let keys = [self.conversation(&name.id), self.secret_key()];
        let lies_there = self.key().map(|(_, secret)| secret).unwrap_or_default();
        let snapshot = snapshot.map_or_else(String::new, |(route, snapshot)| written(route, snapshot));
        let Account { requests, forwarded, saved } = account;
        let numbers = [requests, forwarded.messages, forwarded.bytes, forwarded.tokens].into_iter().chain([
            saved.messages,
            saved.bytes,
            saved.tokens,
        ]);
        let arguments: Vec<String> = [
            name.whose.clone(),
            idle.as_millis().to_string(),
            SECRET.max(idle * 2).as_millis().to_string(),
            lies_there.to_string(),
            MOST.to_string(),
            snapshot,
        ]
        .into_iter()
        .chain(numbers.map(|number| number.to_string()))
        .collect();
        tokio::spawn(async move {
            let _permit = permit;
            let [one, secret] = &keys;
            let arguments: Vec<&[u8]> = arguments.iter().map(String::as_bytes).collect();
            match keeper.run(&script, &[one, secret], &arguments, WITHIN).await {
                Ok(_) => told(),
                Err(_) => _ = untold.fetch_add(1, Relaxed),
            }
        });
    }

    /// What Redis knows of an identifier; `None` where it cannot be asked.
    pub(super) async fn tell(&self, id: &str) -> Option<Vec<Told>> {
        let key = self.conversation(&self.key()?.0.id(id.as_bytes()));
        let reply = self.keeper.run(&self.tell, &[&key], &[], WITHIN).await.ok()?;
        let Reply::List(parts) = reply else { return None };
        let [Reply::List(time), Reply::List(fields)] = parts.as_slice() else { return None };
        let now = time.first()?.text()?.parse::<u64>().ok()? * 1000
            + time.get(1)?.text()?.parse::<u64>().ok()? / 1000;
        let values = fields.iter().skip(1).step_by(2).filter_map(Reply::text);
        let mut told: Vec<Told> = values.filter_map(|value| read(value, now)).collect();
        told.sort_by(|a, b| a.idle_seconds.total_cmp(&b.idle_seconds));
        Some(told)
    }

    pub(super) async fn forget(&self, id: &str) -> bool {
        let Some((key, _)) = self.key() else { return false };
        let key = self.conversation(&key.id(id.as_bytes()));
        self.keeper.run(&self.forget, &[&key], &[], WITHIN).await.is_ok()
    }
}

#[derive(serde::Serialize, serde::Deserialize)]
struct Written {
    route: String,
    #[serde(flatten)]
    snapshot: Snapshot,
}

fn written(route: &str, snapshot: Snapshot) -> String {
    serde_json::to_string(&Written { route: route.to_owned(), snapshot }).unwrap_or_default()
}

/// Reads a field: numbers, and behind them the snapshot. `None` where it is over, or not ours.
fn read(value: &str, now: u64) -> Option<Told> {
    let (numbers, snapshot) = value.split_once('\n')?;
    let numbers: Vec<i64> = numbers.split(' ').map(|number| number.parse().ok()).collect::<Option<_>>()?;
    let &[at, idle, requests, fm, fb, ft, sm, sb, st] = numbers.as_slice() else { return None };
    let silent = now.saturating_sub(u64::try_from(at).ok()?);
    if silent >= u64::try_from(idle).ok()? {
        return None;
    }
    let Written { route, snapshot } = serde_json::from_str(snapshot).ok()?;
    let amount = |messages, bytes, tokens| Amount { messages, bytes, tokens };
    let account = Account { requests, forwarded: amount(fm, fb, ft), saved: amount(sm, sb, st) };
    Some(Told::of(&route, snapshot, account, Duration::from_millis(silent)))
}

#[async_trait]
impl Join for Shared {
    /// Finds the key under which conversations are named there, or brings one.
    async fn join(&self, link: &Link) -> Result<(), Failure> {
        if self.secret.is_some() {
            return Ok(());
        }
        let mut own = [0; 32];
        getrandom::fill(&mut own).map_err(|_| Failure::Lost("no randomness from the system".into()))?;
        let (own, lifetime) = (hex(&own, own.len()), SECRET.as_millis().to_string());
        let arguments = [own.as_bytes(), lifetime.as_bytes()];
        let reply = link.run(&self.join, &[&self.secret_key()], &arguments, CONNECT).await?;
        let secret = reply.text().ok_or_else(|| Failure::Lost("an answer that no script gives".into()))?;
        let key = (SharedKey::of(secret.as_bytes()), secret.into());
        *self.key.write().unwrap_or_else(PoisonError::into_inner) = Some(key);
        Ok(())
    }
}
