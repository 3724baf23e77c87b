//! The CPU time of a call: counted on the thread's own clock, so a busy machine kills no innocent call.
//!
//! The engine's epoch ticks every few milliseconds. A call that sees no tick costs nothing here; from the first tick
//! on the thread's CPU clock is read at each, so a call may use up to one tick more than its budget. A call that waits
//! gives up its thread at each tick, and has the clock read around each of its polls.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use super::epoch;

/// The call used more CPU time than it may; becomes a trap.
#[derive(Debug, thiserror::Error)]
#[error("over the CPU budget (`cpu`) of {}", humantime::format_duration(*.0))]
pub struct Overrun(pub Duration);

/// One call's account.
pub struct Budget {
    limit: Duration,
    /// The thread's clock at the first tick.
    begun: Option<Duration>,
    /// What a call that waits has used in its earlier polls, in nanoseconds: between two, it may change its thread.
    before: Arc<AtomicU64>,
    /// What the call had used when the clock was last looked at.
    used: Duration,
}

/// A call that is seen to have used as much is slow: others of its thread have felt it.
const SLOW: Duration = Duration::from_millis(3);

impl Budget {
    pub fn new(limit: Duration) -> Self {
        Self { limit, begun: None, before: Arc::default(), used: Duration::ZERO }
    }

    pub fn begin(&mut self) {
        self.begun = None;
        self.used = Duration::ZERO;
        self.before.store(0, Ordering::Relaxed);
        epoch::runs();
    }

    /// What `Metered` keeps the account of a call that waits in.
    pub fn account(&self) -> Arc<AtomicU64> {
        self.before.clone()
    }

    /// Called at each tick while a call that does not wait runs.
    pub fn tick(&mut self) -> Result<(), Overrun> {
        let now = thread_time();
        let begun = *self.begun.get_or_insert(now);
        self.check(now.saturating_sub(begun))
    }

    /// Called at each tick while a call that waits runs, which ends its poll.
    pub fn tick_waiting(&mut self) -> Result<(), Overrun> {
        self.check(Duration::from_nanos(self.before.load(Ordering::Relaxed)))
    }

    /// Whether the call has kept its thread for long.
    pub fn was_slow(&self) -> bool {
        self.used >= SLOW
    }

    fn check(&mut self, used: Duration) -> Result<(), Overrun> {
        epoch::runs();
        self.used = used;
        if used > self.limit { Err(Overrun(self.limit)) } else { Ok(()) }
    }
}

/// A call that waits, with the CPU time of each of its polls on its account.
pub struct Metered<'a, F> {
    pub account: &'a AtomicU64,
    pub call: Pin<&'a mut F>,
}

impl<F: Future> Future for Metered<'_, F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        epoch::runs();
        let begun = thread_time();
        let polled = self.call.as_mut().poll(context);
        let used = thread_time().saturating_sub(begun);
        self.account.fetch_add(u64::try_from(used.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
        polled
    }
}

fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_cpu_time_counts() {
        let mut budget = Budget::new(Duration::from_millis(5));
        budget.begin();
        assert!(budget.tick().is_ok());
        std::thread::sleep(Duration::from_millis(20));
        assert!(budget.tick().is_ok(), "sleeping is free");
        let begin = thread_time();
        while thread_time() - begin < Duration::from_millis(6) {
            std::hint::spin_loop();
        }
        assert!(budget.tick().is_err());
        budget.begin();
        assert!(budget.tick().is_ok());
    }
}
