//! What is measured: each row a kind of work, and those who do it in turn.

use std::collections::BTreeMap;

use crate::{noise::Others, plan::Options};

/// Who does the work. Peers have the names that they are given.
pub(crate) const FLOOR: &str = "floor";
pub(crate) const BARE: &str = "tungstenite";
pub(crate) const CORE: &str = "no plugin";
pub(crate) const PLUGIN: &str = "plugin";
pub(crate) const DEFLATE: &str = "plugin, deflate";
pub(crate) const STALLED: &str = "plugin, one stalled";

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Work {
    Echo {
        connections: usize,
        depth: usize,
        size: usize,
    },
    Fanout {
        subscribers: usize,
        in_flight: usize,
        size: usize,
    },
    /// Clients with one message at a time, beside some that send as much as they can.
    Greedy {
        polite: usize,
        greedy: usize,
        depth: usize,
    },
    /// The same beside a fan-out.
    BesideFanout {
        polite: usize,
        subscribers: usize,
    },
    Idle(Idle),
    ColdStart,
    Reload,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Idle {
    Plain,
    Deflate,
    Tls,
}

/// What a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Metric {
    /// Server CPU for a message, or a delivery, in µs.
    Cpu,
    /// Latencies, in µs.
    P50,
    P99,
    /// p99 by p50.
    Fairness,
    PerSecond,
    /// Of the server for a connection: when all are open, and after each had one message.
    Bytes,
    BytesAfter,
    Milliseconds,
}

impl Metric {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Cpu => "server CPU, µs a message",
            Self::P50 => "p50, µs",
            Self::P99 => "p99, µs",
            Self::Fairness => "p99 by p50",
            Self::PerSecond => "messages a second",
            Self::Bytes => "bytes a connection",
            Self::BytesAfter => "after one echo of 1 KiB",
            Self::Milliseconds => "ms",
        }
    }

    /// As a name in JSON.
    pub(crate) fn key(self) -> &'static str {
        match self {
            Self::Cpu => "server_cpu_us",
            Self::P50 => "p50_us",
            Self::P99 => "p99_us",
            Self::Fairness => "p99_by_p50",
            Self::PerSecond => "per_second",
            Self::Bytes => "bytes",
            Self::BytesAfter => "bytes_after_echo",
            Self::Milliseconds => "ms",
        }
    }
}

pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) work: Work,
    pub(crate) who: Vec<String>,
}

impl Row {
    /// As a sentence for people.
    pub(crate) fn title(&self) -> String {
        match self.work {
            Work::Echo { connections, depth, size } => {
                format!("Echo: {connections} connections, {size} bytes, {depth} under way on each")
            }
            Work::Fanout { subscribers, in_flight, size } => {
                format!("Fan-out: {subscribers} subscribers, {size} bytes, {in_flight} under way")
            }
            Work::Greedy { polite, greedy, depth } => {
                format!("Echo, one at a time on {polite} connections, beside {greedy} with {depth} under way")
            }
            Work::BesideFanout { polite, subscribers } => {
                format!("Echo, one at a time on {polite} connections, beside a fan-out to {subscribers}")
            }
            Work::Idle(Idle::Plain) => "Idle connections".to_owned(),
            Work::Idle(Idle::Deflate) => "Idle connections, permessage-deflate negotiated".to_owned(),
            Work::Idle(Idle::Tls) => "Idle connections over TLS".to_owned(),
            Work::ColdStart => "Cold start to serving, plugins cached".to_owned(),
            Work::Reload => "A plugin, from saved to serving".to_owned(),
        }
    }

    /// The values that it is about; others are kept in JSON.
    pub(crate) fn metrics(&self) -> &'static [Metric] {
        match self.work {
            Work::Echo { .. } => &[Metric::Cpu, Metric::P50, Metric::P99, Metric::Fairness],
            Work::Fanout { .. } => &[Metric::Cpu, Metric::P50, Metric::P99],
            Work::Greedy { .. } | Work::BesideFanout { .. } => &[Metric::P50, Metric::P99],
            Work::Idle(_) => &[Metric::Bytes, Metric::BytesAfter],
            Work::ColdStart | Work::Reload => &[Metric::Milliseconds],
        }
    }
}

/// One round of one row by one of those who do it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sample {
    pub(crate) values: BTreeMap<Metric, f64>,
    pub(crate) latency: Option<tidegate_load::Histogram<u64>>,
    /// Processors that the clients kept busy.
    pub(crate) client: f64,
    pub(crate) others: Others,
    /// What did not go as it should.
    pub(crate) trouble: Option<String>,
}

/// All rows that this run is asked for.
pub(crate) fn rows(options: &Options) -> Vec<Row> {
    let peers = |who: &[&str]| {
        let own = who.iter().map(|name| (*name).to_owned());
        own.chain(options.peers.iter().map(|peer| peer.name.clone())).collect::<Vec<_>>()
    };
    let alone = |who: &[&str]| who.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let echo = |name, connections, depth, size| Row {
        name,
        work: Work::Echo { connections, depth, size },
        who: peers(&[FLOOR, BARE, CORE, PLUGIN]),
    };
    let fanout = |name, subscribers, in_flight| Row {
        name,
        work: Work::Fanout { subscribers, in_flight, size: 128 },
        who: peers(&[FLOOR, BARE, PLUGIN]),
    };
    let mut rows = vec![
        echo("echo-1", 50, 1, 64),
        echo("echo-16", 50, 16, 64),
        echo("echo-500", 500, 1, 64),
        echo("echo-500-16", 500, 16, 64),
        echo("echo-1k", 500, 16, 1024),
        fanout("fanout-1000", 1_000, 1),
        fanout("fanout-1000-8", 1_000, 8),
        fanout("fanout-10000", 10_000, 1),
        Row {
            name: "fanout-stalled",
            work: Work::Fanout { subscribers: 10_000, in_flight: 1, size: 128 },
            who: alone(&[PLUGIN, STALLED]),
        },
        Row {
            name: "fanout-deflate",
            work: Work::Fanout { subscribers: 1_000, in_flight: 1, size: 512 },
            who: alone(&[PLUGIN, DEFLATE]),
        },
        Row {
            name: "greedy",
            work: Work::Greedy { polite: 50, greedy: 10, depth: 512 },
            who: peers(&[BARE, CORE, PLUGIN]),
        },
        Row {
            name: "beside-fanout",
            work: Work::BesideFanout { polite: 50, subscribers: 10_000 },
            who: peers(&[FLOOR, BARE, PLUGIN]),
        },
        Row { name: "idle", work: Work::Idle(Idle::Plain), who: alone(&[FLOOR, BARE, CORE, PLUGIN]) },
        Row { name: "idle-deflate", work: Work::Idle(Idle::Deflate), who: alone(&[PLUGIN]) },
        Row { name: "idle-tls", work: Work::Idle(Idle::Tls), who: alone(&[PLUGIN]) },
        Row { name: "cold-start", work: Work::ColdStart, who: alone(&[PLUGIN]) },
        Row { name: "reload", work: Work::Reload, who: alone(&[PLUGIN]) },
    ];
    if let Some(names) = &options.rows {
        rows.retain(|row| names.iter().any(|name| name == row.name));
    }
    rows
}
