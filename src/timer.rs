//! One timer for all that an exchange waits for, one thing after the other.
//!
//! To register a timer with the runtime and to take it out again each takes a lock; to move a registered one to a later
//! time is one atomic exchange, and most of what an exchange waits for may take longer than what it waited for before.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::Poll;

use tokio::time::{Instant, Sleep, sleep_until};

/// It took too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overdue;

/// A timer, registered when it is first needed and then moved.
#[derive(Debug, Default)]
pub struct Timer(Option<Pin<Box<Sleep>>>);

impl Timer {
    /// What comes of `work`, unless it is not there by `until`.
    pub async fn within<T>(&mut self, until: Instant, work: impl Future<Output = T>) -> Result<T, Overdue> {
        let mut work = pin!(work);
        let mut is_set = false;
        poll_fn(|cx| {
            if let Poll::Ready(done) = work.as_mut().poll(cx) {
                return Poll::Ready(Ok(done));
            }
            let timer = self.0.get_or_insert_with(|| Box::pin(sleep_until(until)));
            if !std::mem::replace(&mut is_set, true) && timer.deadline() != until {
                timer.as_mut().reset(until);
            }
            timer.as_mut().poll(cx).map(|()| Err(Overdue))
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};
    use std::time::Duration;

    use tokio::time::sleep;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_wait_has_its_own_end() {
        let (mut timer, begun) = (Timer::default(), Instant::now());
        let after = |seconds| begun + Duration::from_secs(seconds);
        assert_eq!(timer.within(after(60), ready(1)).await, Ok(1));
        // Registered for a minute, then moved nearer, then further away.
        assert_eq!(timer.within(after(60), sleep(Duration::from_secs(1))).await, Ok(()));
        assert_eq!(timer.within(after(5), pending::<()>()).await, Err(Overdue));
        assert_eq!(begun.elapsed().as_secs(), 5);
        assert_eq!(timer.within(after(90), pending::<()>()).await, Err(Overdue));
        assert_eq!(begun.elapsed().as_secs(), 90);
        // What is there in time is there, even where the time is over.
        assert_eq!(timer.within(after(7), ready(2)).await, Ok(2));
        assert_eq!(timer.within(after(7), pending::<()>()).await, Err(Overdue));
        assert_eq!(begun.elapsed().as_secs(), 90);
    }
}
