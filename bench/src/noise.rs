//! What else the machine did: a figure that was taken beside a compilation is one of the compilation too.

use std::{collections::HashMap, fs, time::Instant};

/// Processors that others kept busy in some time, and who did so.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Others {
    pub(crate) processors: f64,
    /// The busiest of them, with the processors that it kept busy.
    pub(crate) who: Option<(String, f64)>,
}

/// From here on.
pub(crate) struct Watch {
    begun: Instant,
    ticks: HashMap<u32, u64>,
    busy: u64,
    ours: Vec<u32>,
}

const HERTZ: f64 = 100.0;
/// Less is the kernel's own work for us, and the coarseness of its clock.
const AUDIBLE: f64 = 0.15;

impl Watch {
    /// This process and those are not others.
    pub(crate) fn start(servers: &[u32]) -> Self {
        let ours = servers.iter().copied().chain([std::process::id()]).collect();
        Self { begun: Instant::now(), ticks: ticks(), busy: busy(), ours }
    }

    pub(crate) fn stop(&self) -> Others {
        let time = self.begun.elapsed().as_secs_f64().max(0.01);
        let now = ticks();
        let spent = |pid: &u32| {
            let before = self.ticks.get(pid).copied().unwrap_or(0);
            now.get(pid).map_or(0, |now| now.saturating_sub(before))
        };
        let ours: u64 = self.ours.iter().map(spent).sum();
        let share = |ticks: u64| ticks as f64 / HERTZ / time;
        let processors = share(busy().saturating_sub(self.busy).saturating_sub(ours));
        let busiest = now.keys().filter(|pid| !self.ours.contains(pid)).max_by_key(|pid| spent(pid));
        let who = busiest.filter(|pid| share(spent(pid)) > AUDIBLE / 3.0).map(|pid| (name(*pid), share(spent(pid))));
        Others { processors, who }
    }
}

impl Others {
    pub(crate) fn are_audible(&self) -> bool {
        self.processors > AUDIBLE
    }
}

/// CPU time of each process, in ticks (proc(5), /proc/pid/stat, fields 14 and 15).
fn ticks() -> HashMap<u32, u64> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter_map(|pid| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // Behind the program's name, which may have spaces in it.
        let mut fields = stat.rsplit_once(") ")?.1.split(' ').skip(11).map(str::parse::<u64>);
        Some((pid, fields.next()?.ok()? + fields.next()?.ok()?))
    })
    .collect()
}

/// Of the whole machine: all but idle, waiting for disks, and what guests are counted twice for. Time that a hypervisor took
/// away counts: it was not ours.
fn busy() -> u64 {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let numbers = stat.lines().next().unwrap_or_default().split(' ').filter_map(|number| number.parse::<u64>().ok());
    numbers.enumerate().filter(|(at, _)| !matches!(at, 3 | 4 | 8..)).map(|(_, ticks)| ticks).sum()
}

fn name(pid: u32) -> String {
    fs::read_to_string(format!("/proc/{pid}/comm"))
        .map_or_else(|_| format!("process {pid}"), |name| name.trim().to_owned())
}

/// The load average of the last minute, as the kernel tells it.
pub(crate) fn load_average() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn somebody_else_who_is_busy_is_heard_and_named() {
        let mut other = std::process::Command::new("sh").args(["-c", "while :; do :; done"]).spawn().unwrap();
        let watch = Watch::start(&[]);
        let begun = Instant::now();
        let others = loop {
            let others = watch.stop();
            if others.are_audible() && others.who.is_some() || begun.elapsed().as_secs() > 20 {
                break others;
            }
            std::thread::yield_now();
        };
        other.kill().unwrap();
        other.wait().unwrap();
        assert!(others.are_audible() && others.who.is_some(), "{others:?}");
    }
}
