//! A store whose every namespace has a version, which counts its writes.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::LAG;
use crate::support::{Answer, Seen, Step};

pub(super) struct Origin {
    namespaces: Vec<Mutex<Namespace>>,
    late: bool,
    dice: Mutex<fastrand::Rng>,
}

#[derive(Default)]
struct Namespace {
    /// The last write.
    given: u64,
    /// Acknowledged, and not to be seen before then.
    unseen: Vec<(u64, Instant)>,
}

impl Namespace {
    fn write(&mut self, lag: Duration) -> u64 {
        self.given += 1;
        if !lag.is_zero() {
            self.unseen.push((self.given, Instant::now() + lag));
        }
        self.given
    }

    /// This write and all before it are seen. By the clock, not by a timer: a busy machine applies none too late.
    fn version(&mut self) -> u64 {
        let now = Instant::now();
        self.unseen.retain(|(_, at)| *at > now);
        self.unseen.iter().map(|(write, _)| write - 1).min().unwrap_or(self.given)
    }
}

impl Origin {
    pub(super) fn new(namespaces: usize, late: bool, seed: u64) -> Arc<Self> {
        let namespaces = (0..namespaces).map(|_| Mutex::default()).collect();
        Arc::new(Self { namespaces, late, dice: Mutex::new(fastrand::Rng::with_seed(seed)) })
    }

    /// What a request is answered, and when; one in twenty fails.
    pub(super) fn answer(self: &Arc<Self>, seen: &Seen) -> Answer {
        let mut dice = self.dice.lock().unwrap();
        let namespace: usize = seen.target.rsplit('/').next().unwrap().parse().unwrap();
        let write = seen.target.starts_with("/upsert");
        let lag = if self.late { LAG.mul_f64(dice.f64()) } else { Duration::ZERO };
        let origin = Arc::clone(self);
        let act = move || {
            let mut namespace = origin.namespaces[namespace].lock().unwrap();
            let version = if write { namespace.write(lag) } else { namespace.version() };
            Answer::ok(format!(r#"{{"result":[{version}]}}"#))
        };
        let before = Step::Yield(dice.usize(..30));
        let after = match dice.u8(..10) {
            // Under way while the store settles after one write, and after another.
            0 | 1 if self.late && !write => Step::Pause(LAG.mul_f64(2.5 * dice.f64())),
            2 => Step::Pause(Duration::from_millis(dice.u64(1..10))),
            _ => Step::Yield(dice.usize(..30)),
        };
        let fails = dice.u8(..20) == 0;
        match (fails, dice.bool()) {
            // It acts when the request arrives, when the answer leaves, or in between.
            (false, at_once) if at_once || self.late => act().after(after).after(before),
            (false, _) => Answer::late(act).after(before).after(after),
            // Done, and nobody is told; or not done.
            (true, true) if write => {
                act();
                Answer(vec![before, Step::Reset])
            }
            (true, true) => Answer::status(503, "{}").after(before),
            (true, false) => Answer(vec![before, Step::Close]),
        }
    }
}
