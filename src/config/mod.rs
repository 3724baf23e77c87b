//! The configuration file: what it may say, and what it says where it is silent.

mod check;
mod compression;
mod hosts;
mod load;
mod plugin;
mod record;
mod redis;
mod reload;
mod units;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use toml::Spanned;

pub use check::is_name;
pub use compression::CompressionConfig;
pub use hosts::HostPattern;
pub use load::{ConfigError, plugin_file};
pub use plugin::{
    BreakerConfig, CanaryConfig, CanaryStep, Grants, PluginConfig, PluginLimits, RollbackConfig, ShadowConfig,
};
pub use record::{RecordConfig, RedactConfig, Redaction};
pub use redis::{RedisConfig, Urls, without_password};
pub use reload::{Attempt, ConfigStatus, Overrides};
pub use units::{Size, Span};

/// A gateway's configuration, `tidegate.toml`. Paths are relative to the file.
#[derive(Debug, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where clients connect.
    pub listen: SocketAddr,
    /// Where `/live`, `/ready`, `/metrics` and `/plugins` are served. Not for the public.
    pub admin: SocketAddr,
    /// The plugins, `NAME.wasm`; watched while the gateway runs.
    pub plugin_directory: PathBuf,
    /// Compiled plugins. Only the gateway may be able to write here: what lies in it is run as it is.
    pub cache_directory: PathBuf,
    /// The stack of a plugin's call, for all plugins: 32KiB to 1MiB.
    pub plugin_stack: Size,
    /// Recordings of routes. Made when it is needed, for nobody else to read.
    pub record_directory: PathBuf,
    /// TCP connections at a time, handshakes included. More wait in the kernel's queue until one ends.
    pub max_connections: usize,
    /// From the accepted connection to the end of the request's headers.
    pub handshake_timeout: Span,
    /// How long sessions may take to leave after SIGTERM.
    pub drain_timeout: Span,
    /// How long a changed file (a plugin, this file, a secret) must look the same before it is loaded.
    pub reload_settle: Span,
    /// What all values of all plugins in the embedded key-value store may take together.
    pub kv_memory: Size,
    /// What the history of all topics may take together.
    pub history_memory: Size,
    /// What topics keep. The first pattern that matches a topic's name decides.
    #[serde(rename = "topic")]
    #[cfg_attr(test, schemars(with = "Vec<TopicConfig>"))]
    pub topics: Vec<TopicConfig>,
    /// Where clients can go.
    #[serde(rename = "route")]
    #[cfg_attr(test, schemars(with = "Vec<RouteConfig>"))]
    pub routes: Vec<RouteConfig>,
    /// Backends that plugins can send messages to.
    #[serde(rename = "upstream")]
    #[cfg_attr(test, schemars(with = "Vec<UpstreamConfig>"))]
    pub upstreams: Vec<UpstreamConfig>,
    /// Static files. Routes come first.
    pub files: Vec<FilesConfig>,
    /// What several nodes share. Absent: this node stands alone.
    pub redis: Option<RedisConfig>,
    /// Settings of plugins, by name.
    #[serde(rename = "plugin")]
    #[cfg_attr(test, schemars(with = "BTreeMap<String, PluginConfig>"))]
    pub plugins: BTreeMap<String, PluginConfig>,
    /// Where all this was read from.
    #[serde(skip)]
    origin: reload::Origin,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            admin: SocketAddr::from(([127, 0, 0, 1], 8081)),
            plugin_directory: "plugins".into(),
            cache_directory: ".tidegate-cache".into(),
            plugin_stack: Size(256 << 10),
            record_directory: "recordings".into(),
            max_connections: 16_384,
            handshake_timeout: seconds(10),
            drain_timeout: seconds(10),
            reload_settle: Span(Duration::from_millis(200)),
            kv_memory: Size(64 << 20),
            history_memory: Size(256 << 20),
            topics: Vec::new(),
            routes: Vec::new(),
            upstreams: Vec::new(),
            files: Vec::new(),
            redis: None,
            plugins: BTreeMap::new(),
            origin: reload::Origin::default(),
        }
    }
}

/// What the topics of a pattern keep.
#[derive(Clone, Debug, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct TopicConfig {
    /// A name, in which `*` stands for any run of characters.
    #[cfg_attr(test, schemars(with = "String"))]
    pub pattern: Spanned<String>,
    /// The last publications, for whoever comes later. Absent: none.
    #[serde(default)]
    pub history: Option<HistoryConfig>,
    /// Whether sessions can be seen on these topics.
    #[serde(default)]
    pub presence: bool,
}

/// How much of a topic is kept, and for how long.
#[derive(Clone, Copy, Debug, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct HistoryConfig {
    /// Publications, at most.
    pub size: u32,
    /// Since the topic's last publication.
    pub ttl: Span,
}

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
    Websocket,
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
#[derive(Clone, Copy, Debug, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct HeartbeatConfig {
    /// A client that was silent for so long is pinged.
    pub interval: Span,
    /// A client that stays silent for so long after the ping is closed.
    pub timeout: Span,
}

impl Default for HeartbeatConfig {
    fn default() -> Self {
        Self { interval: seconds(25), timeout: seconds(10) }
    }
}

/// What a route's clients may use.
#[derive(Clone, Copy, Debug, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct RouteLimits {
    /// A client's message, all fragments together. A larger one closes with 1009.
    pub message: Size,
    /// Messages a second of one client, after the burst. Absent: any number. More closes with 1008.
    pub rate: Option<u32>,
    /// Messages at once before the rate counts. Absent: as many as the rate.
    pub burst: Option<u32>,
    /// Sessions of the route on this node. More are answered 503.
    pub sessions: usize,
    /// What may wait for one client, in bytes.
    pub outbox: Size,
    /// Topics that one session may be subscribed to.
    pub topics: usize,
}

impl Default for RouteLimits {
    fn default() -> Self {
        Self { message: Size(64 << 10), rate: None, burst: None, sessions: 10_000, outbox: Size(1 << 20), topics: 64 }
    }
}

/// A backend that plugins can send messages to, over HTTP.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct UpstreamConfig {
    /// What plugins call it.
    #[cfg_attr(test, schemars(with = "String"))]
    pub name: Spanned<String>,
    /// Where messages are posted to: `http://127.0.0.1:9000/events`.
    #[cfg_attr(test, schemars(with = "String"))]
    pub url: Spanned<String>,
    /// For the whole of one request, connecting included.
    #[serde(default = "upstream_timeout")]
    pub timeout: Span,
    /// Requests at a time. Messages of one session are sent one after the other.
    #[serde(default = "upstream_concurrency")]
    pub concurrency: usize,
    /// Messages that may wait. More are refused as effects.
    #[serde(default = "upstream_queue")]
    pub queue: usize,
    /// An answer's body, at most.
    #[serde(default = "upstream_response")]
    pub response: Size,
    /// Failures in a row that open the breaker: messages are refused then, until a probe after `breaker_pause` succeeds.
    #[serde(default = "upstream_failures")]
    pub breaker_failures: u32,
    /// How long an open breaker stays open before one message is tried.
    #[serde(default = "upstream_pause")]
    pub breaker_pause: Span,
    /// Headers that go with each message. `{ env = "NAME" }` and `{ file = "PATH" }` stand for secrets.
    #[serde(default)]
    #[cfg_attr(test, schemars(with = "BTreeMap<String, serde_json::Value>"))]
    pub headers: toml::Table,
}

fn upstream_timeout() -> Span {
    seconds(10)
}

fn upstream_concurrency() -> usize {
    32
}

fn upstream_queue() -> usize {
    1_024
}

fn upstream_response() -> Size {
    Size(1 << 20)
}

fn upstream_failures() -> u32 {
    5
}

fn upstream_pause() -> Span {
    seconds(5)
}

/// A directory of static files.
#[derive(Clone, Debug, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct FilesConfig {
    /// The path that the files are under, `/` for all.
    #[cfg_attr(test, schemars(with = "String"))]
    pub path: Spanned<String>,
    /// Where they lie.
    #[cfg_attr(test, schemars(with = "String"))]
    pub directory: Spanned<PathBuf>,
}

fn seconds(seconds: u64) -> Span {
    Span(Duration::from_secs(seconds))
}
