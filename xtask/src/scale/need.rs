//! Whether so many sessions fit on this machine: open files, memory, source ports. The arithmetic, told before anything starts.

use std::fmt;

use anyhow::{Result, ensure};

/// Both ends of a connection over loopback, in the kernel, with their places in epoll.
const PAIR: u64 = 10_300;
/// A session in a gateway that is subscribed to a topic, with some air.
const SESSION: u64 = 2_500;
/// A gateway without sessions: its plugin, its pools, its share of the program.
const NODE: u64 = 12 << 20;
/// A process that holds clients.
const HOLDER: u64 = 4 << 20;
/// Redis, and what everything else on the machine goes on with.
const SPARE: u64 = 1 << 30;
/// Files of a gateway that are no sessions: listeners, Redis, epoll, what it keeps free.
const OTHER_FILES: u64 = 1_000;

/// How a number of sessions is spread, and what it takes.
#[derive(Debug, PartialEq)]
pub(crate) struct Need {
    pub(crate) sessions: u64,
    pub(crate) nodes: u64,
    memory: u64,
}

impl Need {
    /// With this limit of open files for a process; nodes are as few as fit, but two, unless somebody says how many.
    pub(crate) fn of(sessions: u64, nodes: Option<u64>, files: u64) -> Result<Self> {
        let each = files.saturating_sub(OTHER_FILES);
        ensure!(sessions > 0, "--sessions 0: nobody to hold");
        ensure!(each > 0, "a process may open {files} files here, too few for any sessions: raise `ulimit -Hn`");
        let fewest = sessions.div_ceil(each);
        let nodes = nodes.unwrap_or_else(|| fewest.max(2));
        ensure!(nodes > 0 && nodes <= sessions, "--nodes {nodes}: from 1 to as many as sessions");
        ensure!(
            nodes >= fewest,
            "--nodes {nodes}: {sessions} sessions need {fewest} at least, since a process may open {files} files here \
             (`ulimit -Hn`), {OTHER_FILES} of them for other things"
        );
        ensure!(
            nodes <= 250,
            "{nodes} nodes: 250 at most on one machine; raise `ulimit -Hn` to have fewer and larger ones"
        );
        let memory = sessions * (PAIR + SESSION) + nodes * (NODE + HOLDER) + SPARE;
        Ok(Self { sessions, nodes, memory })
    }

    pub(crate) fn fits(&self, available: u64) -> Result<()> {
        ensure!(
            self.memory <= available,
            "{} sessions do not fit: {self}, and {} are available. Fewer sessions, or a larger machine",
            self.sessions,
            gibibytes(available)
        );
        Ok(())
    }

    /// Sessions of a node, counted from 0: the first ones have one more where it does not come out even.
    pub(crate) fn share(&self, node: u64) -> u64 {
        self.sessions / self.nodes + u64::from(node < self.sessions % self.nodes)
    }
}

/// The arithmetic as a sentence.
impl fmt::Display for Need {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{} × ({PAIR} B in the kernel + {SESSION} B in a gateway) + {} × ({} MiB for a gateway + {} MiB for its clients) + 1 GiB \
             to spare = {}",
            self.sessions,
            self.nodes,
            NODE >> 20,
            HOLDER >> 20,
            gibibytes(self.memory)
        )
    }
}

pub(crate) fn gibibytes(bytes: u64) -> String {
    format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_million_takes_53_processes_of_20000_files() {
        let need = Need::of(1_000_000, None, 20_000).unwrap();
        assert_eq!(need.nodes, 53);
        assert_eq!((0..53).map(|node| need.share(node)).sum::<u64>(), 1_000_000);
        assert!((0..53).all(|node| need.share(node) <= 19_000));
        need.fits(23 << 30).unwrap();
        let error = need.fits(8 << 30).unwrap_err().to_string();
        assert!(error.contains("10300 B in the kernel") && error.contains("8.0 GiB are available"), "{error}");
    }

    #[test]
    fn nodes_are_two_unless_said_and_never_too_few() {
        assert_eq!(Need::of(100, None, 20_000).unwrap().nodes, 2);
        assert_eq!(Need::of(100, Some(7), 20_000).unwrap().nodes, 7);
        for (sessions, nodes, files) in
            [(0, None, 20_000), (5, Some(6), 20_000), (50_000, Some(2), 20_000), (5, None, 900)]
        {
            assert!(Need::of(sessions, nodes, files).is_err(), "{sessions} {nodes:?} {files}");
        }
        let error = Need::of(50_000, Some(2), 20_000).unwrap_err().to_string();
        assert!(error.contains("need 3 at least"), "{error}");
    }
}
