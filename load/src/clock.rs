//! Time in nanoseconds, as the kernel counts it for all processes of this machine: a publication may be made in one and
//! arrive in another.

use std::io;
use std::os::fd::OwnedFd;

use rustix::time::{
    ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, clock_gettime, timerfd_create,
    timerfd_settime,
};

pub const SECOND: u64 = 1_000_000_000;
pub const MILLISECOND: u64 = 1_000_000;

pub fn now() -> u64 {
    nanoseconds(clock_gettime(ClockId::Monotonic))
}

/// What this thread has had of a processor.
pub fn of_thread() -> u64 {
    nanoseconds(clock_gettime(ClockId::ThreadCPUTime))
}

fn nanoseconds(time: Timespec) -> u64 {
    time.tv_sec as u64 * SECOND + time.tv_nsec as u64
}

/// Wakes a loop at an instant. epoll itself knows only whole milliseconds, and an open loop of 5,000 messages a second
/// would have to spin through most of its time.
pub struct Alarm {
    pub descriptor: OwnedFd,
    at: u64,
}

impl Alarm {
    pub fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        Ok(Self { descriptor: timerfd_create(TimerfdClockId::Monotonic, flags)?, at: 0 })
    }

    pub fn set(&mut self, at: u64) -> io::Result<()> {
        if self.at == at {
            return Ok(());
        }
        self.at = at;
        let once = Timespec { tv_sec: 0, tv_nsec: 0 };
        let at = Timespec { tv_sec: (at / SECOND) as i64, tv_nsec: (at % SECOND) as i64 };
        timerfd_settime(&self.descriptor, TimerfdTimerFlags::ABSTIME, &Itimerspec { it_interval: once, it_value: at })?;
        Ok(())
    }
}
