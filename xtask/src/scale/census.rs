//! What processes use, by the kernel's accounting: memory and CPU time of each, and what the machine has left.

use std::{fs, ops::Sub, time::Duration};

use anyhow::{Context, Result};

/// Of some processes together.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Use {
    /// Resident pages that are the process' own, in bytes: what grows with sessions.
    pub(crate) own: i64,
    /// All resident pages; those that processes share, such as the program, count in each.
    pub(crate) resident: i64,
    pub(crate) cpu: Duration,
}

impl Use {
    pub(crate) fn of(pids: &[u32]) -> Result<Self> {
        let mut all = Self::default();
        for pid in pids {
            let status = fs::read_to_string(format!("/proc/{pid}/status"));
            let status = status.with_context(|| format!("process {pid} is gone"))?;
            all.own += field(&status, "RssAnon:").context("what is this /proc?")?;
            all.resident += field(&status, "VmRSS:").context("what is this /proc?")?;
            all.cpu += cpu(*pid)?;
        }
        Ok(all)
    }
}

impl Sub for Use {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self {
            own: self.own - before.own,
            resident: self.resident - before.resident,
            cpu: self.cpu.saturating_sub(before.cpu),
        }
    }
}

/// Of all threads that there are, in nanoseconds (the first number of `schedstat`).
fn cpu(pid: u32) -> Result<Duration> {
    let mut nanoseconds = 0;
    let threads = fs::read_dir(format!("/proc/{pid}/task")).with_context(|| format!("process {pid} is gone"))?;
    for thread in threads.flatten() {
        // A thread that has ended meanwhile.
        let Ok(text) = fs::read_to_string(thread.path().join("schedstat")) else { continue };
        let first = text.split(' ').next().and_then(|number| number.parse::<u64>().ok());
        nanoseconds += first.context("the kernel keeps no schedstat")?;
    }
    Ok(Duration::from_nanos(nanoseconds))
}

/// A field in kilobytes, as in `/proc/meminfo`.
fn field(text: &str, name: &str) -> Option<i64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix(" kB")?.trim().parse::<i64>().ok().map(|kilobytes| kilobytes << 10)
}

/// Of the machine, in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Machine {
    /// What could be had without swapping.
    pub(crate) available: i64,
    /// The kernel's own objects: sockets among them.
    pub(crate) slab: i64,
}

impl Machine {
    pub(crate) fn now() -> Result<Self> {
        let text = fs::read_to_string("/proc/meminfo").context("/proc/meminfo cannot be read")?;
        let field = |name| field(&text, name).context("what is this /proc/meminfo?");
        Ok(Self { available: field("MemAvailable:")?, slab: field("Slab:")? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory_and_takes_time() {
        let own = [std::process::id()];
        let before = Use::of(&own).unwrap();
        let big = std::hint::black_box(vec![1_u8; 32 << 20]);
        let grown = Use::of(&own).unwrap() - before;
        assert!(grown.own >= 31 << 20 && grown.resident >= 31 << 20, "{grown:?}");
        assert!(before.cpu > Duration::ZERO && grown.cpu > Duration::ZERO, "{before:?}, {grown:?}");
        drop(big);
        let machine = Machine::now().unwrap();
        assert!(machine.available > machine.slab / 1024 && machine.slab > 0, "{machine:?}");
    }

    #[test]
    fn a_process_that_is_gone_is_an_error() {
        let error = Use::of(&[u32::MAX >> 2]).unwrap_err().to_string();
        assert!(error.contains("is gone"), "{error}");
    }
}
