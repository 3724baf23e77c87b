//! What was asked for on the command line.

use std::path::PathBuf;

use lexopt::prelude::*;

use crate::rows;

/// A server that runs already, with the paths of the baselines behind its address: `/echo`, `/sub`, `/pub`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Peer {
    pub(crate) name: String,
    pub(crate) url: String,
    pub(crate) pid: u32,
}

#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) rounds: usize,
    pub(crate) seconds: f64,
    /// Connections of the rows about memory.
    pub(crate) idle: usize,
    /// Only these.
    pub(crate) rows: Option<Vec<String>>,
    pub(crate) peers: Vec<Peer>,
    pub(crate) gateway: PathBuf,
    pub(crate) plugins: PathBuf,
    pub(crate) folder: PathBuf,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            rounds: 5,
            seconds: 2.0,
            idle: 4_000,
            rows: None,
            peers: Vec::new(),
            gateway: PathBuf::new(),
            plugins: PathBuf::new(),
            folder: PathBuf::new(),
        }
    }
}

pub(crate) fn parse(mut parser: lexopt::Parser) -> Result<Options, lexopt::Error> {
    let mut options = Options::default();
    while let Some(argument) = parser.next()? {
        match argument {
            Long("quick") => (options.rounds, options.seconds, options.idle) = (2, 0.7, 1_000),
            Long("rounds") => options.rounds = parser.value()?.parse()?,
            Long("seconds") => options.seconds = parser.value()?.parse()?,
            Long("rows") => {
                let names = parser.value()?.string()?;
                options.rows = Some(names.split(',').map(str::to_owned).collect());
            }
            Long("peer") => options.peers.push(peer(&parser.value()?.string()?)?),
            Long("gateway") => options.gateway = parser.value()?.into(),
            Long("plugins") => options.plugins = parser.value()?.into(),
            Long("out") => options.folder = parser.value()?.into(),
            other => return Err(other.unexpected()),
        }
    }
    if options.rounds == 0 || !(0.1..=600.0).contains(&options.seconds) {
        return Err("--rounds from 1 on, --seconds from 0.1 to 600".into());
    }
    if let Some(names) = &options.rows {
        let known: Vec<_> = rows::rows(&Options::default()).into_iter().map(|row| row.name).collect();
        if let Some(name) = names.iter().find(|name| !known.contains(&name.as_str())) {
            return Err(format!("--rows: there is no row `{name}`; there are {}", known.join(", ")).into());
        }
    }
    Ok(options)
}

fn peer(text: &str) -> Result<Peer, lexopt::Error> {
    let wrong = || format!("--peer {text}: write NAME=URL,PID, such as gorilla=ws://127.0.0.1:9000,4711");
    let (name, rest) = text.split_once('=').ok_or_else(wrong)?;
    let (url, pid) = rest.rsplit_once(',').ok_or_else(wrong)?;
    let pid = pid.parse().map_err(|_| wrong())?;
    if name.is_empty() || !url.starts_with("ws://") {
        return Err(wrong().into());
    }
    Ok(Peer { name: name.to_owned(), url: url.trim_end_matches('/').to_owned(), pid })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Options, lexopt::Error> {
        parse(lexopt::Parser::from_args(line.split_whitespace()))
    }

    #[test]
    fn rows_and_peers_are_named() {
        let options = parsed("--rows echo-1,idle --peer gorilla=ws://127.0.0.1:9000/,17 --quick --rounds 3").unwrap();
        assert_eq!(options.rounds, 3);
        assert_eq!(options.peers, [Peer { name: "gorilla".into(), url: "ws://127.0.0.1:9000".into(), pid: 17 }]);
        let rows = rows::rows(&options);
        assert_eq!(rows.iter().map(|row| row.name).collect::<Vec<_>>(), ["echo-1", "idle"]);
        assert!(rows[0].who.iter().any(|who| who == "gorilla"));
    }

    #[test]
    fn mistakes_are_told_with_what_there_is() {
        let error = parsed("--rows echo-2").unwrap_err().to_string();
        assert!(error.contains("no row `echo-2`") && error.contains("echo-16"), "{error}");
        for line in ["--peer x", "--peer x=http://h,1", "--peer x=ws://h,pid", "--rounds 0", "--seconds 0", "--fast"] {
            assert!(parsed(line).is_err(), "{line}");
        }
    }
}
