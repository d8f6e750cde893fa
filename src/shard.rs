//! What every request writes to, once for each thread.
//!
//! A number that two cores write is in the cache of one of them at a time, and each addition of the other waits for it.
//! So threads count apart, and who reads adds up.

use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Values there are at most: beyond it, that two threads now and then wait for each other costs less than the memory.
const MOST: usize = 8;

/// One value for each of so many threads. With more threads than values some share one, so a value must bear that.
///
/// All are made from the start, one after the other: made by the thread that first has a use for it, one would hold up
/// the requests of that thread.
#[derive(Debug)]
pub struct Sharded<T> {
    first: T,
    others: Box<[T]>,
}

impl<T> Sharded<T> {
    /// Values for so many threads, one at least.
    pub fn new(threads: usize, make: impl Fn() -> T) -> Self {
        Self { first: make(), others: (1..threads.min(MOST)).map(|_| make()).collect() }
    }

    /// How many there are.
    pub fn shards(&self) -> usize {
        1 + self.others.len()
    }

    /// The value of this thread.
    pub fn here(&self) -> &T {
        if self.others.is_empty() {
            return &self.first;
        }
        let other = (thread() % self.shards()).checked_sub(1).and_then(|index| self.others.get(index));
        other.unwrap_or(&self.first)
    }

    /// All there are.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        std::iter::once(&self.first).chain(&self.others)
    }
}

/// The number of this thread among those that have asked for theirs, in the order in which they did.
fn thread() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    const UNKNOWN: usize = usize::MAX;
    thread_local!(static NUMBER: Cell<usize> = const { Cell::new(UNKNOWN) });
    let mut number = NUMBER.get();
    if number == UNKNOWN {
        number = NEXT.fetch_add(1, Relaxed);
        NUMBER.set(number);
    }
    number
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn a_thread_keeps_its_value_and_all_are_found() {
        let sharded = Sharded::new(3, AtomicUsize::default);
        assert_eq!((sharded.shards(), sharded.iter().count()), (3, 3));
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let here = sharded.here();
                    for _ in 0..100 {
                        assert!(std::ptr::eq(here, sharded.here()));
                        here.fetch_add(1, Relaxed);
                    }
                });
            }
        });
        assert_eq!(sharded.iter().map(|value| value.load(Relaxed)).sum::<usize>(), 800);
    }

    #[test]
    fn one_is_everybodys_and_there_are_not_too_many() {
        let one = Sharded::new(1, || 7);
        assert_eq!(thread::scope(|scope| scope.spawn(|| *one.here()).join().unwrap()), 7);
        assert_eq!(Sharded::new(0, || 7).shards(), 1);
        assert_eq!(Sharded::new(1000, || 7).shards(), MOST);
    }
}
