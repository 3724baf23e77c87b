//! The publications of a run that are under way, for all threads: which of them still wait for deliveries.

use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use mio::Waker;

/// Publications that may be under way. A power of two.
pub const PLACES: usize = 1 << 14;

pub struct Board {
    places: Vec<Place>,
    /// Threads that have subscribers.
    pub threads: AtomicUsize,
    pub complete: AtomicU64,
    /// Of the thread that publishes.
    publisher: OnceLock<Arc<Waker>>,
    /// Tells this run's publications from those of another.
    pub run: u32,
}

#[derive(Default)]
struct Place {
    sequence: AtomicU32,
    /// Threads whose subscribers do not all have it yet; 0 too when it was given up.
    left: AtomicU32,
}

impl Board {
    pub fn new() -> Self {
        Self {
            places: (0..PLACES).map(|_| Place::default()).collect(),
            threads: AtomicUsize::new(0),
            complete: AtomicU64::new(0),
            publisher: OnceLock::new(),
            run: std::process::id() ^ crate::clock::now() as u32,
        }
    }

    fn place(&self, sequence: u32) -> &Place {
        &self.places[sequence as usize % PLACES]
    }

    pub fn publisher_is(&self, waker: Arc<Waker>) {
        let _ = self.publisher.set(waker);
    }

    pub fn begin(&self, sequence: u32) {
        let place = self.place(sequence);
        place.sequence.store(sequence, Ordering::Relaxed);
        place.left.store(self.threads.load(Ordering::Relaxed) as u32, Ordering::Release);
    }

    /// All subscribers of a thread have it; whether all of all threads do.
    pub fn reached(&self, sequence: u32, is_publisher: bool) -> bool {
        let place = self.place(sequence);
        if place.sequence.load(Ordering::Relaxed) != sequence {
            return false;
        }
        let less = |left: u32| left.checked_sub(1);
        if place.left.fetch_update(Ordering::AcqRel, Ordering::Acquire, less) != Ok(1) {
            return false;
        }
        self.complete.fetch_add(1, Ordering::AcqRel);
        if let Some(publisher) = self.publisher.get()
            && !is_publisher
        {
            // If it cannot be woken it looks again within a tenth of a second.
            let _ = publisher.wake();
        }
        true
    }

    pub fn is_over(&self, sequence: u32) -> bool {
        self.place(sequence).left.load(Ordering::Acquire) == 0
    }

    /// Whether it was still under way.
    pub fn give_up(&self, sequence: u32) -> bool {
        self.place(sequence).left.swap(0, Ordering::AcqRel) != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_publication_is_complete_when_all_threads_have_it() {
        let board = Board::new();
        board.threads.store(2, Ordering::Relaxed);
        board.begin(7);
        assert!(!board.reached(7, true) && !board.is_over(7));
        assert!(board.reached(7, true) && board.is_over(7));
        assert!(!board.reached(7, true), "it is complete once");
        assert!(!board.reached(7 + PLACES as u32, true), "another one in its place");
        assert_eq!(board.complete.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn what_was_given_up_is_never_complete() {
        let board = Board::new();
        board.threads.store(1, Ordering::Relaxed);
        board.begin(1);
        assert!(board.give_up(1) && !board.give_up(1));
        assert!(!board.reached(1, true));
        assert_eq!(board.complete.load(Ordering::Relaxed), 0);
    }
}
