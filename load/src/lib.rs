//! WebSocket load against any server: echo, fan-out, and connections that are only held.
//!
//! ```no_run
//! use tidegate_load::{Kind, Load, run};
//!
//! let load = Load { connections: 500, size: 128, ..Load::new("ws://127.0.0.1:8080/ws", Kind::echo(4)) };
//! let report = run(&load, &mut |progress| eprintln!("{} messages a second", progress.per_second)).unwrap();
//! println!("{} messages, p99 {:?}", report.messages, report.latency.map(|latency| latency.p99));
//! ```
//!
//! Each thread is one loop over a table of connections: edge-triggered epoll, one read buffer for all, frames that were
//! encoded before the run. An idle connection is some tens of bytes here, and a message costs less than it costs the
//! server; where it does not, the report says so ([`Report::client_limited`]).

#![forbid(unsafe_code)]

mod board;
mod clock;
mod connection;
mod deflate;
mod director;
mod echo;
mod engine;
mod failure;
mod fanout;
mod frame;
mod handshake;
mod idle;
mod mark;
mod opening;
mod plan;
mod process;
mod progress;
mod report;
mod shared;
mod socket;
mod tally;
mod target;
mod template;
mod tls;

pub use director::run;
pub use failure::{Failure, FailureKind, LoadError};
pub use hdrhistogram::Histogram;
pub use plan::{Fanout, Kind, Load, Pace};
pub use progress::{Progress, Stage};
pub use report::{Client, Connections, Histograms, Latency, Point, Publications, Report, Server};

/// The hosts that a run would connect to, each with the first of its addresses.
pub fn addresses(load: &Load) -> Result<Vec<(String, std::net::SocketAddr)>, LoadError> {
    let published = match &load.kind {
        Kind::Fanout(fanout) if fanout.publishers > 0 => fanout.publish_url.as_ref(),
        _ => None,
    };
    let targets = load.urls.iter().chain(published).map(|url| target::Target::parse(url));
    targets.map(|target| target.and_then(|target| Ok((target.host.clone(), target.addresses()?[0])))).collect()
}
