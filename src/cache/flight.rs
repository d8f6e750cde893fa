//! Single flight: identical searches under way share one fetch.
//!
//! The fetch runs in a task of its own, so whoever began it may leave without harming the others; when the last one
//! has left, it is cancelled. The generation is part of a flight's name: a search that starts after a write never
//! receives an answer that was fetched before it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use tokio::task::AbortHandle;

use super::key::Key;

type Name = (Key, u64);

/// The fetches under way.
#[derive(Debug)]
pub struct Flights<T>(Arc<Mutex<Board<T>>>);

#[derive(Debug)]
struct Board<T> {
    flights: HashMap<Name, Flight<T>>,
    departures: u64,
}

#[derive(Debug)]
struct Flight<T> {
    number: u64,
    seats: usize,
    landing: watch::Receiver<Option<T>>,
    task: AbortHandle,
}

/// A place on a flight. Dropping it gives the place up.
#[derive(Debug)]
pub struct Ticket<T> {
    landing: watch::Receiver<Option<T>>,
    /// This request began the fetch.
    pub leads: bool,
    seat: Seat<T>,
}

#[derive(Debug)]
struct Seat<T> {
    board: Arc<Mutex<Board<T>>>,
    name: Name,
    number: u64,
}

impl<T> Default for Flights<T> {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Board { flights: HashMap::new(), departures: 0 })))
    }
}

impl<T: Clone + Send + Sync + 'static> Flights<T> {
    /// Joins the flight of this key and generation, or begins it with `fetch`.
    pub fn join<F>(&self, key: Key, generation: u64, fetch: impl FnOnce() -> F) -> Ticket<T>
    where
        F: Future<Output = T> + Send + 'static,
    {
        let name = (key, generation);
        let mut board = lock(&self.0);
        if let Some(flight) = board.flights.get_mut(&name) {
            flight.seats += 1;
            let seat = Seat { board: Arc::clone(&self.0), name, number: flight.number };
            return Ticket { landing: flight.landing.clone(), leads: false, seat };
        }
        board.departures += 1;
        let number = board.departures;
        let (arrived, landing) = watch::channel(None);
        let (fetch, flown) = (fetch(), Flown { board: Arc::clone(&self.0), name, number });
        let task = tokio::spawn(async move {
            let answer = fetch.await;
            // First off the board, then the news: whoever comes now starts anew rather than getting an old answer.
            drop(flown);
            arrived.send_replace(Some(answer));
        });
        let flight = Flight { number, seats: 1, landing: landing.clone(), task: task.abort_handle() };
        board.flights.insert(name, flight);
        Ticket { landing, leads: true, seat: Seat { board: Arc::clone(&self.0), name, number } }
    }
}

impl<T: Clone> Ticket<T> {
    /// Waits for the answer. `None`: the fetch ended without one (it panicked).
    pub async fn land(mut self) -> Option<T> {
        let answer = self.landing.wait_for(Option::is_some).await.ok()?.clone();
        drop(self.seat);
        answer
    }
}

/// Takes the flight off the board when its fetch is over, panics included.
struct Flown<T> {
    board: Arc<Mutex<Board<T>>>,
    name: Name,
    number: u64,
}

impl<T> Drop for Flown<T> {
    fn drop(&mut self) {
        let mut board = lock(&self.board);
        if board.flights.get(&self.name).is_some_and(|flight| flight.number == self.number) {
            board.flights.remove(&self.name);
        }
    }
}

impl<T> Drop for Seat<T> {
    fn drop(&mut self) {
        let mut board = lock(&self.board);
        let Some(flight) = board.flights.get_mut(&self.name).filter(|flight| flight.number == self.number)
        else {
            return;
        };
        flight.seats -= 1;
        if flight.seats == 0
            && let Some(flight) = board.flights.remove(&self.name)
        {
            // Aborting drops the fetch, which takes this lock: not while it is held here.
            drop(board);
            flight.task.abort();
        }
    }
}

fn lock<T>(board: &Mutex<Board<T>>) -> MutexGuard<'_, Board<T>> {
    // A panic while it was held cannot have left the board half changed.
    board.lock().unwrap_or_else(PoisonError::into_inner)
}
