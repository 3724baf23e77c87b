//! What the kernel says about processes: the server's, and this one.

use std::collections::HashMap;
use std::fs;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::LoadError;

/// Descriptors beside the connections'.
const SPARE: u64 = 64;
/// The kernel's clock ticks in /proc/PID/stat: 100 a second on every machine that Linux runs on.
const TICK: u64 = 10_000_000;

/// CPU time of processes at an instant.
pub struct Usage {
    /// Of each thread, in nanoseconds.
    threads: HashMap<u64, u64>,
    /// Of the processes with the threads that have ended, in ticks.
    ticks: u64,
}

impl Usage {
    pub fn of(pids: &[u32]) -> Self {
        let mut usage = Self { threads: HashMap::new(), ticks: 0 };
        for pid in pids {
            for task in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
                let text = fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
                let id = task.file_name().to_string_lossy().parse();
                if let (Ok(id), Some(Ok(ns))) = (id, text.split(' ').next().map(str::parse)) {
                    usage.threads.insert(id, ns);
                }
            }
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            // The name before it may have spaces and brackets of its own.
            let fields = stat.rsplit_once(')').map(|(_, fields)| fields).unwrap_or_default();
            let ticks = fields.split_whitespace().skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok());
            usage.ticks += ticks.sum::<u64>();
        }
        usage
    }

    /// Nanoseconds between two instants. A thread that has ended in between is in the ticks alone, which are coarse.
    pub fn since(&self, before: &Self) -> u64 {
        let of = |(id, ns): (&u64, &u64)| ns.saturating_sub(before.threads.get(id).copied().unwrap_or(0));
        let fine = self.threads.iter().map(of).sum::<u64>();
        let coarse = self.ticks.saturating_sub(before.ticks) * TICK;
        if coarse > fine + fine / 20 + 5 * TICK { coarse } else { fine }
    }
}

/// Resident memory of the processes, in bytes.
pub fn resident(pids: &[u32]) -> u64 {
    let of = |pid: &u32| {
        let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) * 1024
    };
    pids.iter().map(of).sum()
}

/// The processes that are not there.
pub fn missing(pids: &[u32]) -> Vec<u32> {
    pids.iter().copied().filter(|pid| fs::metadata(format!("/proc/{pid}/stat")).is_err()).collect()
}

/// How long this thread has waited for a processor, in nanoseconds.
pub fn waited() -> u64 {
    let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    text.split_whitespace().nth(1).and_then(|ns| ns.parse().ok()).unwrap_or(0)
}

/// Sees to it that so many sockets may be open.
pub fn allow(connections: usize) -> Result<(), LoadError> {
    let needed = connections as u64 + SPARE;
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= needed) {
        return Ok(());
    }
    // Up to the hard limit anybody may; beyond it only who may do more than others.
    let maximum = limit.maximum.map(|maximum| maximum.max(needed));
    let raised = Rlimit { current: Some(needed), maximum };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => Ok(()),
        Err(_) => {
            let allowed = limit.maximum.unwrap_or(0);
            Err(LoadError::Descriptors { wanted: connections, needed, allowed })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_seen_in_the_cpu_time() {
        let pids = [std::process::id()];
        let (before, began) = (Usage::of(&pids), std::time::Instant::now());
        let mut work = 0u64;
        while began.elapsed() < std::time::Duration::from_millis(50) {
            work = std::hint::black_box(work.wrapping_mul(31).wrapping_add(7));
        }
        assert!(Usage::of(&pids).since(&before) > 1_000_000);
        assert!(resident(&pids) > 1 << 20);
        assert_eq!(missing(&[pids[0], 0]), [0]);
    }
}
