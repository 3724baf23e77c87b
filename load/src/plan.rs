//! What a run is to do.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use crate::LoadError;

/// One run. [`Load::new`] has defaults for everything but the address and the kind.
#[derive(Clone, Debug)]
pub struct Load {
    /// `ws://` or `wss://`; connections take turns where there are several. `{i}` in the path is the connection's number.
    pub urls: Vec<String>,
    pub kind: Kind,
    /// How many; of a fan-out, the subscribers.
    pub connections: usize,
    /// Bytes of a payload. A publication has at least 37, which say when it was made.
    pub size: usize,
    /// Binary messages instead of texts.
    pub binary: bool,
    /// How long is measured. Idle connections are held for it.
    pub duration: Duration,
    /// How long the same goes on before that, uncounted.
    pub warm_up: Duration,
    /// From the last connection to the first message: subscriptions may still be settling in the server.
    pub settle: Duration,
    /// More headers of the handshake, by name and value. `{i}` is the connection's number.
    pub headers: Vec<(String, String)>,
    /// `Sec-WebSocket-Protocol`.
    pub subprotocols: Vec<String>,
    /// Offers permessage-deflate without context takeover, and compresses what is sent if the server agrees.
    pub compression: bool,
    /// Messages sent after the handshake. `{i}` is the connection's number.
    pub hello: Vec<Vec<u8>>,
    /// A connection is ready when a message with this in it has come; without it, when its handshake is over.
    pub wait: Option<Vec<u8>>,
    /// What the messages of an echo look like: `{payload}` stands for `size` bytes. An answer is right if it contains the
    /// payload then; without a template it is the payload and nothing else.
    pub template: Option<Vec<u8>>,
    /// A message of the server's own protocol that wants an answer, and the answer.
    pub keepalive: Option<(Vec<u8>, Vec<u8>)>,
    /// Addresses that connections come from, in turn: the kernel has some 28,000 ports for each of them and each of the
    /// server's. Without any the kernel chooses, but for more than 12,000 connections to 127.0.0.1, which come from as
    /// many loopback addresses as they need.
    pub sources: Vec<IpAddr>,
    /// Any certificate is taken from a `wss://` server.
    pub insecure: bool,
    pub threads: usize,
    /// Connections begun in a second. Without it, as fast as `opening` lets.
    pub connect_rate: Option<f64>,
    /// Connections that may be opening at once.
    pub opening: usize,
    /// For a connection to be ready.
    pub connect_timeout: Duration,
    /// The run ends when nothing has come from any connection for so long, although something was asked for.
    pub watchdog: Duration,
    /// The server's processes, if they are on this machine: their CPU time and memory are told.
    pub server_pids: Vec<u32>,
    /// Ends the run early once it is true; what was measured by then is the report.
    pub stop: Option<Arc<AtomicBool>>,
}

/// What the connections do.
#[derive(Clone, Debug)]
pub enum Kind {
    /// Each connection sends and expects each message back.
    Echo { pace: Pace },
    /// Publishers' messages reach all connections.
    Fanout(Fanout),
    /// Connections are opened and held for `duration`.
    Idle,
}

/// What is published for a fan-out.
#[derive(Clone, Debug)]
pub struct Fanout {
    /// Where publishers connect to; the first of `urls` unless it is given.
    pub publish_url: Option<String>,
    /// None at all: somebody else publishes (another such run on the same machine), and only deliveries are counted.
    pub publishers: usize,
    pub pace: Pace,
    /// What is sent; `{payload}` stands for the `size` bytes that subscribers recognise.
    pub template: Vec<u8>,
    /// The publishers' headers, hello messages and what they wait for, as those of the subscribers.
    pub headers: Vec<(String, String)>,
    pub hello: Vec<Vec<u8>>,
    pub wait: Option<Vec<u8>>,
    /// A publication that has not reached everybody after this is incomplete, and no longer under way.
    pub give_up: Duration,
}

/// When the next message is sent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pace {
    /// Closed loop: so many are under way at once (of each connection; of a fan-out, publications of all publishers).
    InFlight(usize),
    /// Open loop: so many a second, of all connections together. Latencies count from when a message should have been
    /// sent, so that a server that stalls is not spared the messages that it kept from being sent.
    Rate(f64),
}

impl Kind {
    /// Echo with so many messages of each connection under way.
    pub fn echo(depth: usize) -> Self {
        Self::Echo { pace: Pace::InFlight(depth) }
    }

    /// Fan-out from one publisher with so many publications under way.
    pub fn fanout(in_flight: usize) -> Self {
        Self::Fanout(Fanout { pace: Pace::InFlight(in_flight), ..Fanout::default() })
    }

    /// Its word in reports and on command lines.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Echo { .. } => "echo",
            Self::Fanout(_) => "fanout",
            Self::Idle => "idle",
        }
    }
}

impl Default for Fanout {
    fn default() -> Self {
        Self {
            publish_url: None,
            publishers: 1,
            pace: Pace::InFlight(1),
            template: b"{payload}".to_vec(),
            headers: Vec::new(),
            hello: Vec::new(),
            wait: None,
            give_up: Duration::from_secs(5),
        }
    }
}

impl Load {
    pub fn new(url: impl Into<String>, kind: Kind) -> Self {
        Self {
            urls: vec![url.into()],
            kind,
            connections: 50,
            size: 64,
            binary: false,
            duration: Duration::from_secs(10),
            warm_up: Duration::from_secs(1),
            settle: Duration::from_millis(300),
            headers: Vec::new(),
            subprotocols: Vec::new(),
            compression: false,
            hello: Vec::new(),
            wait: None,
            template: None,
            keepalive: None,
            sources: Vec::new(),
            insecure: false,
            threads: 1,
            connect_rate: None,
            opening: 128,
            connect_timeout: Duration::from_secs(10),
            watchdog: Duration::from_secs(10),
            server_pids: Vec::new(),
            stop: None,
        }
    }

    /// Whether it can be done at all, before anything is connected.
    pub(crate) fn check(&self) -> Result<(), LoadError> {
        let bad = |text: &str| Err(LoadError::Plan(text.to_owned()));
        let positive = |rate: f64| rate.is_finite() && rate > 0.0;
        if self.urls.is_empty() {
            return bad("there is no address to connect to");
        }
        if self.connections == 0 || self.threads == 0 || self.opening == 0 {
            return bad("connections, threads and connections that open at once are at least 1");
        }
        if u32::try_from(self.connections).is_err() {
            return bad("so many connections have no numbers");
        }
        if self.size > MAX_MESSAGE {
            return bad("a payload is at most 16 MiB");
        }
        if self.connect_rate.is_some_and(|rate| !positive(rate)) {
            return bad("the rate of connecting is above 0");
        }
        let pace = match &self.kind {
            Kind::Echo { pace } => pace,
            Kind::Fanout(fanout) => {
                if fanout.publishers > 0 && memchr::memmem::find(&fanout.template, PAYLOAD).is_none() {
                    return bad("what is published contains no {payload}");
                }
                if fanout.publishers == 0 && self.threads > 1 {
                    return bad("who only listens has one thread: for more, start several processes");
                }
                &fanout.pace
            }
            Kind::Idle => return Ok(()),
        };
        match pace {
            Pace::InFlight(depth) if !(1..=MAX_IN_FLIGHT).contains(depth) => bad("1 to 8,192 messages are under way"),
            Pace::Rate(rate) if !positive(*rate) || *rate > 50e6 => {
                bad("a rate is above 0 and at most 50 million a second")
            }
            _ => match &self.template {
                Some(template) if memchr::memmem::find(template, PAYLOAD).is_none() => {
                    bad("the template contains no {payload}")
                }
                _ => Ok(()),
            },
        }
    }
}

/// What stands for the payload in a template.
pub(crate) const PAYLOAD: &[u8] = b"{payload}";
/// The largest message that is taken from a server.
pub(crate) const MAX_MESSAGE: usize = 16 << 20;
pub(crate) const MAX_IN_FLIGHT: usize = 8192;
