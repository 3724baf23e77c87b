//! The configuration file: what it may say, and what it says where it is silent.

mod check;
mod compression;
mod connections;
mod drain;
mod hosts;
mod http2;
mod load;
mod plugin;
mod proxy;
mod record;
mod redis;
mod reload;
mod route;
mod tls;
mod units;
mod upstream;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use toml::Spanned;

pub use check::is_name;
pub use compression::CompressionConfig;
pub use connections::ConnectionsConfig;
pub use drain::DrainConfig;
pub use hosts::HostPattern;
pub use http2::{Http2Config, Http2Mode};
pub use load::{ConfigError, plugin_file};
pub use plugin::{
    BreakerConfig, CanaryConfig, CanaryStep, Grants, PluginConfig, PluginLimits, RollbackConfig, ShadowConfig,
};
pub use proxy::{ForwardedHeader, Network, ProxyConfig};
pub use record::{RecordConfig, RedactConfig, Redaction};
pub use redis::{RedisConfig, Secret, Urls, without_password};
pub use reload::{Attempt, ConfigStatus, Overrides};
pub use route::{
    BatchConfig, FailedEvent, HeartbeatConfig, HeartbeatText, HttpConfig, Overflow, RateExceeded, RedisGone,
    RefusedEffect, RouteConfig, RouteLimits, Transport,
};
pub use tls::{CertificateConfig, ClientAuth, Pem, TlsConfig, TlsVersion};
pub use units::{Size, Span};
pub use upstream::UpstreamConfig;

/// A gateway's configuration, `tidegate.toml`. Paths are relative to the file.
#[derive(Debug, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where clients connect.
    pub listen: SocketAddr,
    /// Where `/live`, `/ready`, `/metrics` and `/plugins` are served. Not for the public.
    pub admin: SocketAddr,
    /// Who asks the admin address for more than `/live` and `/ready` must show this, as `Authorization: Bearer TOKEN`.
    /// `{ env = "NAME" }` and `{ file = "PATH" }` stand for secrets. Absent: everybody who can connect there may.
    #[cfg_attr(test, schemars(with = "Option<String>"))]
    pub admin_token: Option<Secret>,
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
    /// Who may connect, and how often.
    pub connections: ConnectionsConfig,
    /// From the accepted connection to the end of the request's headers.
    pub handshake_timeout: Span,
    /// How long a new process may take to serve before an upgrade is given up.
    pub upgrade_timeout: Span,
    /// How long a changed file (a plugin, this file, a secret) must look the same before it is loaded. A plugin's file that was
    /// renamed to its place is loaded at once.
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
    /// How a gateway that is told to stop lets its clients go.
    pub drain: DrainConfig,
    /// What several nodes share. Absent: this node stands alone.
    pub redis: Option<RedisConfig>,
    /// TLS towards clients. Absent: plain HTTP.
    pub tls: Option<TlsConfig>,
    /// HTTP/2 towards clients.
    pub http2: Http2Config,
    /// What stands in front of the gateway and may say where clients come from.
    pub proxy: ProxyConfig,
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
            admin_token: None,
            plugin_directory: "plugins".into(),
            cache_directory: ".tidegate-cache".into(),
            plugin_stack: Size(256 << 10),
            record_directory: "recordings".into(),
            max_connections: 16_384,
            connections: ConnectionsConfig::default(),
            handshake_timeout: seconds(10),
            upgrade_timeout: seconds(60),
            reload_settle: Span(Duration::from_millis(200)),
            kv_memory: Size(64 << 20),
            history_memory: Size(256 << 20),
            topics: Vec::new(),
            routes: Vec::new(),
            upstreams: Vec::new(),
            files: Vec::new(),
            drain: DrainConfig::default(),
            redis: None,
            tls: None,
            http2: Http2Config::default(),
            proxy: ProxyConfig::default(),
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
