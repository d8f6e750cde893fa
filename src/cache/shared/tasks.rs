//! What runs beside the requests: the connection, the ear, the lease, and what is still to be told.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use super::Shared;
use super::trust::{LENGTH, TICK};
use crate::redis::{Join, Listen, listen};

/// Between two attempts to listen, at most.
const AGAIN: std::time::Duration = std::time::Duration::from_millis(500);

/// What the ear and the lease tell each other.
#[derive(Debug, Default)]
struct Ear {
    /// Ticks that were sent were not heard: the connection is dead.
    deaf: Notify,
    /// Nanoseconds of the last tick that was heard.
    heard: std::sync::atomic::AtomicU64,
}

pub(super) fn spawn(shared: &Arc<Shared>) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    let ear = Arc::new(Ear::default());
    let (listening, listens) = watch::channel(false);
    let join: Arc<dyn Join> = Arc::clone(shared) as Arc<dyn Join>;
    tasks.spawn(Arc::clone(&shared.keeper).keep(join));
    let this = Arc::clone(shared);
    tasks.spawn(async move { this.tell_kept().await });
    tasks.spawn(hear(Arc::clone(shared), Arc::clone(&ear), listening));
    tasks.spawn(renew(Arc::clone(shared), ear, listens));
    tasks
}

/// Moves what messages say.
struct Hearing<'a> {
    shared: &'a Shared,
    ear: &'a Ear,
    listening: &'a watch::Sender<bool>,
}

impl Listen for Hearing<'_> {
    fn subscribed(&self) {
        // What was told before was not heard.
        self.shared.trust.mirror.shift_all();
        self.listening.send_replace(true);
    }

    fn message(&self, channel: &[u8], text: &[u8]) {
        let shared = self.shared;
        let text = std::str::from_utf8(text).unwrap_or_default();
        if channel == shared.keys.ticks.as_bytes() {
            if let Ok(sent) = text.parse() {
                self.ear.heard.fetch_max(sent, Relaxed);
                shared.trust.grant(sent);
            }
            return;
        }
        let mut words = text.split(' ');
        let birth = words.next().unwrap_or_default();
        if shared.bound().is_some_and(|bound| bound.birth == birth) {
            let slots = words.map(|word| word.strip_prefix('f').and_then(|slot| slot.parse().ok()));
            for slot in slots {
                match slot {
                    Some(slot) => shared.trust.mirror.shift(slot),
                    None => shared.trust.mirror.shift_all(),
                }
            }
        } else {
            // The fences were made anew, or are those of another secret: it may be about anything.
            shared.trust.mirror.shift_all();
            // Whoever made them knows nothing of what is under way or settles here.
            if shared.writes.matter(Instant::now()) {
                shared.keeper.renew();
            }
        }
        shared.counts.messages.fetch_add(1, Relaxed);
    }
}

/// Listens, again and again. Never ends.
async fn hear(shared: Arc<Shared>, ear: Arc<Ear>, listening: watch::Sender<bool>) {
    let mut changes = shared.keeper.changes();
    loop {
        // Whoever cannot ask has nothing to trust either.
        let _ = changes.wait_for(|up| *up).await;
        let channels = [shared.keys.writes.as_str(), shared.keys.ticks.as_str()];
        let hearing = Hearing { shared: &shared, ear: &ear, listening: &listening };
        let why = tokio::select! {
            why = listen(shared.keeper.address(), shared.keeper.tls(), &channels, &hearing) => why.to_string(),
            () = ear.deaf.notified() => "nothing is heard on it any more".to_owned(),
            // Another server may have taken over: what this connection tells may not be all.
            _ = changes.wait_for(|up| !*up) => "Redis is not in use".to_owned(),
        };
        listening.send_replace(false);
        shared.trust.revoke();
        tracing::debug!(why, "the subscription has ended");
        sleep(AGAIN.mul_f64(0.2 + 0.8 * fastrand::f64())).await;
    }
}

/// Sends ticks while somebody searches, or Redis must not forget a write unnoticed. Never ends.
async fn renew(shared: Arc<Shared>, ear: Arc<Ear>, mut listens: watch::Receiver<bool>) {
    let mut interval = interval(TICK);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut deaf_since: Option<Instant> = None;
    loop {
        let _ = listens.wait_for(|listens| *listens).await;
        let now = Instant::now();
        if shared.trust.is_idle(now) && !shared.writes.are_watched(now) {
            deaf_since = None;
            shared.trust.woken.notified().await;
            interval.reset_immediately();
            continue;
        }
        interval.tick().await;
        let Some(bound) = shared.bound() else { continue };
        let now = Instant::now();
        let sent = shared.trust.nanos(now).to_string();
        let lifetime = shared.lifetime();
        let arguments = [&bound.birth, &lifetime, &shared.keys.ticks, &sent].map(String::as_bytes);
        let told = shared.keeper.run(&shared.scripts.tick, &[&shared.keys.fences], &arguments, LENGTH).await;
        if told.is_err() {
            continue;
        }
        // Two ticks and a second without a word, although Redis took them.
        let quiet = ear.heard.load(Relaxed) + LENGTH.as_nanos() as u64 <= shared.trust.nanos(now);
        match deaf_since {
            _ if !quiet => deaf_since = None,
            None => deaf_since = Some(now),
            Some(since) if now - since >= LENGTH => {
                deaf_since = None;
                ear.deaf.notify_one();
            }
            Some(_) => {}
        }
    }
}
