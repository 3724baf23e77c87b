//! The CPU time of a call: counted on the thread's own clock, so a busy machine kills no innocent call.
//!
//! The engine's epoch ticks every few milliseconds. A call that sees no tick costs nothing here; from the first tick
//! on the thread's CPU clock is read at each, so a call may use up to one tick more than its budget.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// The call used more CPU time than it may; becomes a trap.
#[derive(Debug, thiserror::Error)]
#[error("over the CPU budget (`cpu`) of {}", humantime::format_duration(*.0))]
pub struct Overrun(pub Duration);

/// One call's account.
pub struct Budget {
    limit: Duration,
    used: Duration,
    /// The thread's clock at the last tick, and the poll in which that was.
    last: Option<(u64, Duration)>,
    /// Counts the polls of a call that waits: between two, the call may have moved to another thread.
    polls: Arc<AtomicU64>,
}

impl Budget {
    pub fn new(limit: Duration) -> Self {
        Self { limit, used: Duration::ZERO, last: None, polls: Arc::default() }
    }

    pub fn begin(&mut self) {
        self.used = Duration::ZERO;
        self.last = None;
    }

    /// The counter that whoever polls a waiting call must raise before each poll.
    pub fn polls(&self) -> Arc<AtomicU64> {
        self.polls.clone()
    }

    /// Called at each tick while the call runs.
    pub fn tick(&mut self) -> Result<(), Overrun> {
        let poll = self.polls.load(Ordering::Relaxed);
        let now = thread_time();
        if let Some((same, last)) = self.last
            && same == poll
        {
            self.used += now.saturating_sub(last);
        }
        self.last = Some((poll, now));
        if self.used > self.limit { Err(Overrun(self.limit)) } else { Ok(()) }
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
