//! What every request writes to, once for each thread.
//!
//! A number that two cores write is in the cache of one of them at a time, and each addition of the other waits for it.
//! So threads count apart, and who reads adds up.

use std::cell::Cell;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// One value for each of so many threads. With more threads than values some share one, so a value must bear that.
///
/// The first is there from the start. Any other is made by the thread that first has a use for it: what nobody uses
/// takes no memory, and an allocator that keeps threads apart keeps their values on cache lines apart, too.
#[derive(Debug)]
pub struct Sharded<T> {
    first: T,
    others: Box<[OnceLock<T>]>,
}

impl<T> Sharded<T> {
    /// Values for so many threads, one at least.
    pub fn new(first: T, shards: usize) -> Self {
        Self { first, others: (1..shards).map(|_| OnceLock::new()).collect() }
    }

    /// The first of these values, with room for so many threads.
    #[must_use]
    pub fn resized(self, shards: usize) -> Self {
        Self::new(self.first, shards)
    }

    /// How many there can be.
    pub fn shards(&self) -> usize {
        1 + self.others.len()
    }

    /// The value of this thread.
    pub fn here(&self, make: impl FnOnce() -> T) -> &T {
        if self.others.is_empty() {
            return &self.first;
        }
        let other = (thread() % self.shards()).checked_sub(1).and_then(|index| self.others.get(index));
        other.map_or(&self.first, |other| other.get_or_init(make))
    }

    /// All there are.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        std::iter::once(&self.first).chain(self.others.iter().filter_map(OnceLock::get))
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
        let sharded = Sharded::new(AtomicUsize::new(0), 3);
        assert_eq!((sharded.shards(), sharded.iter().count()), (3, 1));
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let here = sharded.here(AtomicUsize::default);
                    for _ in 0..100 {
                        assert!(std::ptr::eq(here, sharded.here(AtomicUsize::default)));
                        here.fetch_add(1, Relaxed);
                    }
                });
            }
        });
        assert_eq!(sharded.iter().map(|value| value.load(Relaxed)).sum::<usize>(), 800);
    }

    #[test]
    fn one_is_everybodys() {
        let sharded = Sharded::new(7, 1);
        assert_eq!(thread::scope(|scope| scope.spawn(|| *sharded.here(|| 8)).join().unwrap()), 7);
        assert_eq!(sharded.here(|| 9), &7);
        assert_eq!(Sharded::new(7, 0).shards(), 1);
    }
}
