//! What the configuration says of a route.

use serde::{Deserialize, Serialize};
use toml::Spanned;

use super::{CompressionConfig, RecordConfig, Size, Span, compression, seconds};

/// A path, and what happens there.
#[derive(Clone, Debug, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct RouteConfig {
    /// What plugins, logs and metrics call it.
    #[cfg_attr(test, schemars(with = "String"))]
    pub name: Spanned<String>,
    /// The path of a request: `/chat/{room}`. `{name}` is one segment, `{*name}` all that remain.
    #[cfg_attr(test, schemars(with = "String"))]
    pub path: Spanned<String>,
    /// The chain: which plugins see the route's events, in this order.
    #[cfg_attr(test, schemars(with = "Vec<String>"))]
    pub plugins: Vec<Spanned<String>>,
    /// Where browsers may come from, as in the Origin header. Absent: only the host that they ask. `["*"]`: anywhere.
    #[serde(default)]
    pub origins: Option<Vec<String>>,
    /// Topic patterns that this route answers for: the hooks `publication` and `presence` of its chain run for them.
    #[serde(default)]
    #[cfg_attr(test, schemars(with = "Vec<String>"))]
    pub topics: Vec<Spanned<String>>,
    /// Request headers that plugins can read after `opened`; the others are forgotten then.
    #[serde(default)]
    pub keep_headers: Vec<String>,
    /// Subprotocols that are selected without a plugin, by the client's preference.
    #[serde(default)]
    pub subprotocols: Vec<String>,
    /// How clients may connect.
    #[serde(default = "websocket_only")]
    pub transports: Vec<Transport>,
    /// Whether the chain's `outbound` hooks see each delivery to each session: a call for every one of them.
    #[serde(default)]
    pub outbound: bool,
    /// The upstream that gets what passes the last plugin of the chain.
    #[serde(default)]
    #[cfg_attr(test, schemars(with = "Option<String>"))]
    pub upstream: Option<Spanned<String>>,
    /// Whether what passes the last plugin of the chain goes back to the client. To measure with: such a route needs no
    /// plugin, and shows what the gateway costs without one.
    #[serde(default)]
    pub echo: bool,
    /// Whether messages are compressed for clients that offer it: `true`, `false` or a table.
    #[serde(default, deserialize_with = "compression::switch_or_table")]
    pub compression: Option<CompressionConfig>,
    /// What happens to a client whose outbox is full.
    #[serde(default)]
    pub slow_consumer: Overflow,
    /// Deliveries of a topic are gathered before they are written: `{ messages = 100, time = "20ms" }`. Absent: they are not.
    #[serde(default)]
    pub batch: Option<BatchConfig>,
    /// What happens when an effect is refused as it is applied and the plugin said nothing about that case.
    #[serde(default)]
    pub refused_effect: RefusedEffect,
    /// What happens when a plugin fails in a client's message or timer: nothing of it is applied in either case.
    #[serde(default)]
    pub failed_event: FailedEvent,
    /// What happens to publications of the route's sessions while Redis cannot be reached.
    #[serde(default)]
    pub redis_gone: RedisGone,
    /// How silent clients are found out.
    #[serde(default)]
    pub heartbeat: HeartbeatConfig,
    /// Plain HTTP requests, where a plugin of the chain handles them (`wasi:http/incoming-handler`).
    #[serde(default)]
    pub http: HttpConfig,
    /// A recording of its plugin calls.
    #[serde(default)]
    pub record: RecordConfig,
    /// What a client, and all of them, may use.
    #[serde(default)]
    pub limits: RouteLimits,
}

/// Plain HTTP requests of a route.
#[derive(Clone, Copy, Debug, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct HttpConfig {
    /// Whether the chain's `authenticate` decides on them too, as it does on sessions. `false` leaves it to the handler:
    /// for webhooks and for those who come for a token.
    pub authenticate: bool,
    /// A request's body. A larger one is answered 413.
    pub body: Size,
    /// How long a request's body may take to arrive. A slower one is answered 408.
    pub body_timeout: Span,
    /// Requests at a time. More are answered 503.
    pub requests: usize,
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self { authenticate: true, body: Size(1 << 20), body_timeout: seconds(10), requests: 256 }
    }
}

/// A way for a client to connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Transport {
    /// RFC 6455, and RFC 8441 on HTTP/2.
    Websocket,
    /// Server-Sent Events: a GET that accepts `text/event-stream`; the client's own messages come by POST.
    Sse,
    /// One request after the other; the client's own messages come by POST.
    LongPoll,
}

fn websocket_only() -> Vec<Transport> {
    vec![Transport::Websocket]
}

/// What happens to a client whose outbox is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Overflow {
    /// Close the session with 1013: the client comes back and recovers what it missed.
    #[default]
    Disconnect,
    /// Forget the longest waiting messages.
    DropOldest,
    /// Forget the message that does not fit.
    DropNewest,
    /// While something waits, keep only the latest of each topic, or of each key that plugins publish with; where that
    /// does not fit, forget the longest waiting.
    KeepLatest,
    /// Forget what does not fit, and deliver it from the topic's history when the client has caught up. What the history
    /// does not have is told as a gap. What is no publication, and does not fit, closes with 1013.
    Recover,
}

impl Overflow {
    /// The metrics' label.
    pub fn name(self) -> &'static str {
        match self {
            Self::Disconnect => "disconnect",
            Self::DropOldest => "drop-oldest",
            Self::DropNewest => "drop-newest",
            Self::KeepLatest => "keep-latest",
            Self::Recover => "recover",
        }
    }
}

/// How deliveries are gathered, so that a busy topic is written with one system call for each client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct BatchConfig {
    /// So many publications of a topic are delivered at once.
    pub messages: usize,
    /// After so long, those that there are.
    pub time: Span,
}

/// What happens to messages over the rate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum RateExceeded {
    /// Close the session with 1008: a client that does this is not what was meant to connect.
    #[default]
    Close,
    /// Close the session with 1013: the client may come back later.
    TryLater,
    /// Forget the message. The client is not told.
    Drop,
}

/// What follows a refused effect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum RefusedEffect {
    /// Close the session with 1013: what the client believes about its message would be wrong.
    #[default]
    Close,
    /// Only log it.
    Ignore,
}

/// What follows a failed event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum FailedEvent {
    /// Go on with the next: only this one is lost, and the log says so.
    #[default]
    Ignore,
    /// Close the session with 1011, so that the client knows.
    Close,
}

/// What happens to publications while Redis cannot be reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum RedisGone {
    /// The effect is refused, so nobody is told that it was done.
    #[default]
    Refuse,
    /// Deliver to the subscribers on this node, without a position; the history and other nodes do not get it.
    Local,
    /// Keep it until Redis is back, `[redis] queue` of them at most, and refuse what comes then.
    Queue,
}

/// How silent clients are found out.
#[derive(Clone, Debug, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct HeartbeatConfig {
    /// A client that was silent for so long is pinged, and somewhat earlier, so that many do not answer at once: the first
    /// time in the second half of it, later in its last eighth.
    pub interval: Span,
    /// A client that stays silent for so long after the ping is closed. Half an hour at most.
    pub timeout: Span,
    /// Where it is set, the timeout follows what is measured of each client: a multiple of its round trips, from this to
    /// `timeout`. Absent: `timeout` for all.
    pub timeout_min: Option<Span>,
    /// Text messages that are answered without a plugin, for clients that see no pings: `{ ping = "ping", pong = "pong" }`.
    pub text: Option<HeartbeatText>,
}

/// A heartbeat in messages.
#[derive(Clone, Debug, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct HeartbeatText {
    /// What a client sends, exactly.
    pub ping: Box<str>,
    /// What it gets back.
    pub pong: Box<str>,
}

impl HeartbeatConfig {
    pub(super) fn wrong(&self) -> Option<&'static str> {
        let Self { interval, timeout, timeout_min, text } = self;
        Some(match text {
            _ if interval.0.is_zero() || timeout.0.is_zero() => "the heartbeat's interval and timeout must be above 0",
            _ if timeout.0.as_secs() > 1800 => "the heartbeat's timeout is half an hour at most",
            _ if timeout_min.is_some_and(|min| min.0.is_zero() || min.0 > timeout.0) => {
                "the heartbeat's `timeout_min` is above 0, and no longer than its `timeout`"
            }
            Some(text) if text.ping.is_empty() => {
                "the heartbeat's `text.ping` is empty: an empty message may be anything"
            }
            _ => return None,
        })
    }
}

impl Default for HeartbeatConfig {
    fn default() -> Self {
        Self { interval: seconds(25), timeout: seconds(10), timeout_min: None, text: None }
    }
}

/// What a route's clients may use.
#[derive(Clone, Copy, Debug, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct RouteLimits {
    /// A client's message, all fragments together. A larger one closes with 1009.
    pub message: Size,
    /// Messages a second of one client, after the burst. Absent: any number.
    pub rate: Option<u32>,
    /// Messages at once before the rate counts. Absent: as many as the rate.
    pub burst: Option<u32>,
    /// What happens to more.
    pub rate_exceeded: RateExceeded,
    /// Pings, pongs and heartbeat texts a second of one client, after ten seconds' worth of them. More closes with 1008.
    pub control_rate: u32,
    /// Sessions of the route on this node. More are answered 503.
    pub sessions: usize,
    /// Sessions of one user on this route and node. More are answered 503. Absent: any number. For all nodes together, and
    /// to end an older one instead, there is the plugins' `session.limit-sessions`.
    pub sessions_per_user: Option<u32>,
    /// What may wait for one client, in bytes.
    pub outbox: Size,
    /// Topics that one session may be subscribed to.
    pub topics: usize,
}

impl Default for RouteLimits {
    fn default() -> Self {
        Self {
            message: Size(64 << 10),
            rate: None,
            burst: None,
            rate_exceeded: RateExceeded::Close,
            control_rate: 100,
            sessions: 10_000,
            sessions_per_user: None,
            outbox: Size(1 << 20),
            topics: 64,
        }
    }
}

impl RouteLimits {
    pub(super) fn wrong(&self) -> Option<&'static str> {
        let Self { rate, burst, control_rate, sessions_per_user, .. } = self;
        Some(match (rate, burst) {
            (Some(0), _) | (_, Some(0)) | (None, Some(_)) => {
                "`rate` and `burst` must be above 0, and `burst` needs a `rate`"
            }
            _ if *control_rate == 0 => "`control_rate` must be above 0: clients answer pings",
            _ if *sessions_per_user == Some(0) => "`sessions_per_user` must be above 0",
            _ => return None,
        })
    }
}
