//! What can go wrong: with a run as a whole, and with single connections and messages.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("{0}")]
    Plan(String),
    #[error("{url}: {reason}")]
    Url { url: String, reason: String },
    #[error("{host}: the name has no address: {reason}")]
    Resolve { host: String, reason: String },
    #[error(
        "{wanted} connections need {needed} open files, and a process here may have {allowed}: \
         raise the limit (ulimit -Hn), or start several with fewer connections each"
    )]
    Descriptors { wanted: usize, needed: u64, allowed: u64 },
    #[error("no secure connections: {0}")]
    Tls(String),
    /// What happened to the connections that were tried, the most frequent first.
    #[error("{url}: no connection: {}", told(failures))]
    NoConnection { url: String, failures: Vec<Failure> },
    #[error("{url}: no publisher's connection: {}", told(failures))]
    NoPublisher { url: String, failures: Vec<Failure> },
    #[error("{what}: {source}")]
    System { what: &'static str, source: std::io::Error },
}

fn told(failures: &[Failure]) -> String {
    match failures.first() {
        Some(first) => format!("{} ({} times)", first.example, first.count),
        None => "it was stopped before the first was ready".to_owned(),
    }
}

/// What went wrong in the same way, how often, and the first case in words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    pub kind: FailureKind,
    /// Of an answer to the handshake.
    pub status: Option<u16>,
    pub count: u64,
    pub example: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// Nobody listens there.
    Refused,
    /// The network does not lead there.
    Unreachable,
    /// No connection, or not ready, within the time for it.
    ConnectTimeout,
    /// This machine has no more ports or descriptors for it.
    Exhausted,
    Tls,
    /// The server answered the handshake with something else than a WebSocket.
    Handshake,
    /// A connection that was there ended: by a close frame, by the end of the stream, by a reset.
    Closed,
    Ended,
    Reset,
    /// The server sent what no WebSocket server may send.
    Protocol,
    /// A message came back as another than was sent.
    WrongAnswer,
    /// A message that nobody waited for.
    Unexpected,
    /// Messages that were never answered.
    Unanswered,
    /// Publications that did not reach every subscriber in time.
    Incomplete,
    /// Deliveries of the same publication to the same subscriber, or after it was given up.
    LateOrTwice,
    /// The whole server fell silent.
    Silent,
}

impl FailureKind {
    /// Connections that were never ready.
    pub fn is_of_opening(self) -> bool {
        matches!(
            self,
            Self::Refused | Self::Unreachable | Self::ConnectTimeout | Self::Exhausted | Self::Tls | Self::Handshake
        )
    }
}

impl fmt::Display for FailureKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Refused => "connections refused",
            Self::Unreachable => "connections without a way there",
            Self::ConnectTimeout => "connections not ready in time",
            Self::Exhausted => "connections that this machine had no port or descriptor for",
            Self::Tls => "TLS failures",
            Self::Handshake => "refused handshakes",
            Self::Closed => "connections closed by the server",
            Self::Ended => "connections that ended without a close frame",
            Self::Reset => "connections reset",
            Self::Protocol => "breaches of the protocol",
            Self::WrongAnswer => "wrong answers",
            Self::Unexpected => "unexpected messages",
            Self::Unanswered => "messages without an answer",
            Self::Incomplete => "incomplete publications",
            Self::LateOrTwice => "deliveries too late or twice",
            Self::Silent => "server silent",
        })
    }
}
