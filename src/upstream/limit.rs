//! How many requests one upstream may have at a time. Beyond it a short queue, and then a fast no: an upstream that is
//! slow is not made slower, and whoever waits for it hears so in time.

use std::collections::VecDeque;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use crate::error::{Error, Kind};

/// The longest wait in the queue.
const MAX_WAIT: Duration = Duration::from_secs(1);

/// Somebody waits: set on the count while the queue is not empty, so that nobody passes it by.
const QUEUED: usize = 1 << (usize::BITS - 1);

/// The requests of one upstream, counted and bounded. All routes to one authority share one.
#[derive(Debug)]
pub struct Limit {
    max: usize,
    /// Requests in flight, and [`QUEUED`].
    taken: AtomicUsize,
    /// Touched only by those who wait, and by those who find them waiting.
    queue: Mutex<Queue>,
}

/// Who waits, the first to come first. Whoever is not in it any more has been given a place.
#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<(u64, oneshot::Sender<()>)>,
    next: u64,
}

/// A request's place. Given back when dropped, to who waits first.
#[derive(Debug)]
pub struct Permit(Arc<Limit>);

impl Limit {
    /// So many at a time, and as many waiting; 0: no limit.
    pub fn new(max_in_flight: usize) -> Arc<Self> {
        let max = if max_in_flight == 0 { QUEUED - 1 } else { max_in_flight };
        Arc::new(Self { max, taken: AtomicUsize::new(0), queue: Mutex::default() })
    }

    /// Requests in flight.
    pub fn in_flight(&self) -> usize {
        self.taken.load(Relaxed) & !QUEUED
    }

    /// A place, if one is free and nobody waits for it.
    pub fn try_enter(self: &Arc<Self>) -> Option<Permit> {
        let free = |taken: usize| (taken < self.max).then_some(taken + 1);
        self.taken.fetch_update(AcqRel, Relaxed, free).ok().map(|_| Permit(Arc::clone(self)))
    }

    /// A place, waited for if need be: for a second, and not beyond the deadline. Fails with [`Kind::ConnectionLimit`].
    pub async fn enter(self: &Arc<Self>, deadline: Instant) -> Result<Permit, Error> {
        if let Some(permit) = self.try_enter() {
            return Ok(permit);
        }
        let full = || {
            let detail = format!("{} requests to the upstream are under way, and others wait", self.max);
            Error::new(Kind::ConnectionLimit, detail)
        };
        let (number, given) = match self.join() {
            Joined::Entered(permit) => return Ok(permit),
            Joined::Full => return Err(full()),
            Joined::Waits(number, given) => (number, given),
        };
        let waiting = Waiting { limit: self, number };
        let limit = deadline.min(Instant::now() + MAX_WAIT);
        // A sender that is dropped has sent before: it is dropped with a place given, or with this one who waits.
        if timeout_at(limit, given).await.is_ok() {
            std::mem::forget(waiting);
            return Ok(Permit(Arc::clone(self)));
        }
        Err(full())
    }

    fn join(self: &Arc<Self>) -> Joined {
        let mut queue = self.queue();
        // Either a place has become free meanwhile, or it is known from here on that somebody waits for one.
        let mark = |taken: usize| Some(if taken < self.max { taken + 1 } else { taken | QUEUED });
        if queue.waiting.len() >= self.max {
            return Joined::Full;
        }
        match self.taken.fetch_update(AcqRel, Acquire, mark) {
            Ok(taken) if taken < self.max => Joined::Entered(Permit(Arc::clone(self))),
            _ => {
                let (give, given) = oneshot::channel();
                let number = queue.next;
                queue.next += 1;
                queue.waiting.push_back((number, give));
                Joined::Waits(number, given)
            }
        }
    }

    fn leave(&self) {
        let free = |taken: usize| (taken & QUEUED == 0).then(|| taken.saturating_sub(1));
        if self.taken.fetch_update(AcqRel, Acquire, free).is_err() {
            self.hand_over();
        }
    }

    #[cold]
    fn hand_over(&self) {
        let mut queue = self.queue();
        match queue.waiting.pop_front() {
            // It may be about to give up: then it finds itself out of the queue, and hands the place on.
            Some((_, give)) => drop(give.send(())),
            None => drop(self.taken.fetch_sub(1, AcqRel)),
        }
        self.unmark(&queue);
    }

    fn unmark(&self, queue: &Queue) {
        if queue.waiting.is_empty() {
            self.taken.fetch_and(!QUEUED, AcqRel);
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        // A panic while it was held cannot have left a queue half changed.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

enum Joined {
    Entered(Permit),
    Waits(u64, oneshot::Receiver<()>),
    Full,
}

/// A place in the queue, left when dropped.
struct Waiting<'a> {
    limit: &'a Limit,
    number: u64,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut queue = self.limit.queue();
        let place = queue.waiting.iter().position(|(number, _)| *number == self.number);
        if let Some(place) = place {
            queue.waiting.remove(place);
            self.limit.unmark(&queue);
        } else {
            drop(queue);
            self.limit.leave();
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.leave();
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use proptest::prelude::*;

    use super::*;

    fn far() -> Instant {
        Instant::now() + Duration::from_secs(3600)
    }

    /// Polled once.
    async fn begun<F: Future>(future: std::pin::Pin<&mut F>) -> Option<F::Output> {
        let mut future = Some(future);
        std::future::poll_fn(|cx| {
            let polled = future.take().unwrap().poll(cx);
            std::task::Poll::Ready(match polled {
                std::task::Poll::Ready(output) => Some(output),
                std::task::Poll::Pending => None,
            })
        })
        .await
    }

    #[tokio::test(start_paused = true)]
    async fn as_many_again_wait_for_a_second_and_the_next_not_at_all() {
        let limit = Limit::new(2);
        let held = [limit.enter(far()).await.unwrap(), limit.enter(far()).await.unwrap()];
        let (mut third, mut fourth) = (pin!(limit.enter(far())), pin!(limit.enter(far())));
        assert!(begun(third.as_mut()).await.is_none() && begun(fourth.as_mut()).await.is_none());
        let start = Instant::now();
        assert_eq!(limit.enter(far()).await.unwrap_err().kind, Kind::ConnectionLimit);
        assert_eq!(start.elapsed(), Duration::ZERO);
        assert_eq!(third.await.unwrap_err().kind, Kind::ConnectionLimit);
        assert_eq!(start.elapsed(), Duration::from_secs(1));
        assert!(fourth.await.is_err());
        let soon = Instant::now() + Duration::from_millis(300);
        assert!(limit.enter(soon).await.is_err());
        assert_eq!(start.elapsed(), Duration::from_millis(1300), "not beyond the deadline");
        assert_eq!(limit.in_flight(), 2);
        drop(held);
        assert_eq!(limit.in_flight(), 0);
        assert!(limit.try_enter().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_place_goes_to_who_waits_first_and_nobody_passes_them_by() {
        let limit = Limit::new(1);
        let held = limit.enter(far()).await.unwrap();
        let mut second = pin!(limit.enter(far()));
        assert!(begun(second.as_mut()).await.is_none());
        drop(held);
        assert!(limit.try_enter().is_none(), "it is the second's, though it has not come to take it");
        let second = second.await.unwrap();
        assert_eq!(limit.in_flight(), 1);
        drop(second);
        assert_eq!(limit.in_flight(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn who_leaves_with_a_place_in_hand_hands_it_on() {
        let limit = Limit::new(2);
        let held = [limit.enter(far()).await.unwrap(), limit.enter(far()).await.unwrap()];
        let mut third = Box::pin(limit.enter(far()));
        let mut fourth = Box::pin(limit.enter(far()));
        assert!(begun(third.as_mut()).await.is_none() && begun(fourth.as_mut()).await.is_none());
        let [one, other] = held;
        drop(one);
        drop(third);
        let fourth = fourth.await.unwrap();
        assert_eq!(limit.in_flight(), 2);
        drop((other, fourth));
        assert_eq!(limit.in_flight(), 0);
    }

    #[test]
    fn none_is_no_limit() {
        let limit = Limit::new(0);
        let permits: Vec<_> = (0..10_000).map(|_| limit.try_enter().unwrap()).collect();
        assert_eq!(limit.in_flight(), 10_000);
        drop(permits);
        assert_eq!(limit.in_flight(), 0);
    }

    proptest! {
        /// Whoever comes, leaves and gives up in whatever order: never too many, never too few.
        #[test]
        fn places_neither_leak_nor_multiply(max in 1_usize..4, steps in prop::collection::vec((0_u8..4, 0_usize..8), 1..60)) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
            runtime.block_on(async {
                let limit = Limit::new(max);
                let (mut held, mut waiting) = (Vec::new(), Vec::new());
                for (step, which) in steps {
                    match step {
                        0 | 1 => {
                            let limit = Arc::clone(&limit);
                            let mut entering = Box::pin(async move { limit.enter(far()).await });
                            match begun(entering.as_mut()).await {
                                Some(Ok(permit)) => held.push(permit),
                                Some(Err(_)) => prop_assert!(waiting.len() >= max),
                                None => waiting.push(entering),
                            }
                        }
                        2 if !held.is_empty() => drop(held.swap_remove(which % held.len())),
                        3 if !waiting.is_empty() => drop(waiting.swap_remove(which % waiting.len())),
                        _ => {}
                    }
                    // Those that were given a place take it, or not yet.
                    if which % 2 == 0 {
                        let mut still = Vec::new();
                        for mut entering in waiting {
                            match begun(entering.as_mut()).await {
                                Some(permit) => held.push(permit.unwrap()),
                                None => still.push(entering),
                            }
                        }
                        waiting = still;
                        prop_assert_eq!(limit.in_flight(), held.len());
                        prop_assert!(waiting.is_empty() || held.len() == max);
                    }
                    prop_assert!(limit.in_flight() <= max);
                }
                drop(held);
                for entering in waiting {
                    drop(entering.await);
                }
                prop_assert_eq!(limit.taken.load(Relaxed), 0);
                Ok(())
            })?;
        }
    }
}
