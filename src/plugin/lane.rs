//! The slow lane: where the calls of plugins run that keep their thread for long.
//!
//! A call that does not wait cannot be interrupted before its budget is over, and all sessions of its thread would wait for
//! it. So a generation that was seen to be slow has its calls made on threads of low priority, of which there are few: the
//! kernel gives them what the others leave. It comes back when it has been quick for long enough.

use std::future::Future;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;

/// Threads of the lane. More would let slow plugins take more of the machine, fewer let one hold up the other.
const THREADS: usize = 2;
/// Beside threads that never rest they still get a tenth of what those get: a plugin that is slow is no plugin that stands still.
const NICE: i32 = 10;
/// Quick calls in a row that end a generation's time in the lane; twice as many each time that it comes back.
const QUICK: u32 = 1_000;
const QUICK_MAX: u32 = 1 << 20;

/// Runs a call in the lane.
pub fn spawn<F>(call: F) -> JoinHandle<F::Output>
where
    F: Future<Output: Send> + Send + 'static,
{
    static LANE: OnceLock<Option<Runtime>> = OnceLock::new();
    let lane = LANE.get_or_init(|| {
        let mut lane = Builder::new_multi_thread();
        lane.worker_threads(THREADS).thread_name("tidegate-slow").enable_all().on_thread_start(|| {
            let _ = rustix::process::nice(NICE);
        });
        lane.build().inspect_err(|error| tracing::error!(%error, "no threads for slow plugins")).ok()
    });
    match lane {
        Some(lane) => lane.spawn(call),
        None => tokio::spawn(call),
    }
}

/// Whether a generation is slow.
#[derive(Debug, Default)]
pub struct Pace {
    slow: AtomicBool,
    quick: AtomicU32,
    needed: AtomicU32,
}

impl Pace {
    pub fn is_slow(&self) -> bool {
        self.slow.load(Ordering::Relaxed)
    }

    /// Notes a call; true where it made the generation slow.
    pub fn note(&self, was_slow: bool) -> bool {
        if was_slow {
            self.quick.store(0, Ordering::Relaxed);
            let came = !self.slow.swap(true, Ordering::Relaxed);
            if came {
                let needed = self.needed.load(Ordering::Relaxed);
                self.needed.store((needed * 2).clamp(QUICK, QUICK_MAX), Ordering::Relaxed);
            }
            return came;
        }
        if self.is_slow() && self.quick.fetch_add(1, Ordering::Relaxed) + 1 >= self.needed.load(Ordering::Relaxed) {
            self.slow.store(false, Ordering::Relaxed);
            self.quick.store(0, Ordering::Relaxed);
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_takes_many_quick_calls_to_come_back_and_more_each_time() {
        let pace = Pace::default();
        assert!(!pace.note(false) && !pace.is_slow());
        assert!(pace.note(true) && pace.is_slow());
        assert!(!pace.note(true), "it is told once");
        (0..QUICK - 1).for_each(|_| assert!(!pace.note(false)));
        assert!(pace.is_slow());
        pace.note(false);
        assert!(!pace.is_slow());
        pace.note(true);
        (0..QUICK).for_each(|_| assert!(!pace.note(false)));
        assert!(pace.is_slow());
        (0..QUICK).for_each(|_| assert!(!pace.note(false)));
        assert!(!pace.is_slow());
    }
}
