//! `[plugin.NAME]`: what a plugin may use and do, its own settings, and how a new file of it is taken in.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{HostPattern, Size, Span, seconds};

/// A plugin's settings. None of them is needed: without a table a plugin has the default limits and no grants.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct PluginConfig {
    /// The file in the plugin directory, if it is not `NAME.wasm`: one file can serve under several names.
    pub file: Option<PathBuf>,
    /// What its calls may use.
    pub limits: PluginLimits,
    /// What it may do beyond the session that it is called for.
    pub grants: Grants,
    /// When a new generation is taken back.
    pub rollback: RollbackConfig,
    /// When it is not called for a while.
    pub breaker: BreakerConfig,
    /// A second file that serves a share of the sessions.
    pub canary: Option<CanaryConfig>,
    /// A second file that is given copies of the calls, and whose effects are compared and thrown away.
    pub shadow: Option<ShadowConfig>,
    /// Its own settings, in its own words. A table that is exactly `{ env = "NAME" }` or `{ file = "PATH" }` becomes the
    /// text of that variable or file.
    #[cfg_attr(test, schemars(with = "serde_json::Value"))]
    pub config: toml::Table,
    /// The texts of such variables and files.
    #[serde(skip)]
    pub secrets: Vec<String>,
}

impl PluginConfig {
    /// Whether a generation that was made with these settings is what the others ask for.
    pub fn makes_the_same(&self, other: &Self) -> bool {
        self.limits == other.limits && self.grants == other.grants && self.config == other.config
    }
}

/// When a generation is found worse than the one before it. Each hook is looked at by itself.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct RollbackConfig {
    /// How long a new generation is watched, and the former one kept. `"0s"`: it is not.
    pub window: Span,
    /// Calls of a hook before anything is said about it.
    pub calls: u32,
    /// Share of failing calls, above the former generation's, that is too many.
    pub failures: f64,
    /// Share of handshakes that `authenticate` does not admit that is too many, where it was half of them at most.
    pub refusals: f64,
}

impl Default for RollbackConfig {
    fn default() -> Self {
        Self { window: seconds(60), calls: 20, failures: 0.2, refusals: 0.9 }
    }
}

/// A second file that serves a share of the sessions, with the plugin's own limits, grants and settings. The numbers of
/// `rollback` say when it is worse than the plugin's own file.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct CanaryConfig {
    /// In the plugin directory; watched like the plugin's own.
    pub file: PathBuf,
    /// Percent of the sessions, until somebody says otherwise. Either this or a schedule.
    #[serde(default)]
    pub share: Option<u8>,
    /// Shares one after the other, while it is well: `[{ share = 5, for = "5m" }, { share = 100 }]`.
    #[serde(default)]
    pub schedule: Vec<CanaryStep>,
}

/// A share, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct CanaryStep {
    /// Percent of the sessions.
    pub share: u8,
    /// From this step to the next. The last has none.
    #[serde(default, rename = "for")]
    pub time: Option<Span>,
}

impl CanaryStep {
    pub fn lasting(&self) -> Option<Duration> {
        self.time.map(|time| time.0)
    }
}

/// A second file that is given copies of the calls, with the plugin's own limits, grants and settings.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ShadowConfig {
    /// In the plugin directory; watched like the plugin's own.
    pub file: PathBuf,
    /// Percent of the calls.
    #[serde(default = "all")]
    pub sample: u8,
}

fn all() -> u8 {
    100
}

/// When a plugin is not called for a while: its routes answer 503 to handshakes, and their events fail at once.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct BreakerConfig {
    /// The time that is looked back on. `"0s"`: there is no breaker.
    pub window: Span,
    /// Calls in that time before anything is said about them.
    pub calls: u32,
    /// Share of calls that trap or overrun a limit that opens it. Errors that hooks answer do not count.
    pub failures: f64,
    /// From its opening to the first probes; twice as long each time that they fail.
    pub pause: Span,
    /// The longest pause.
    pub pause_max: Span,
    /// Calls that are let through to see, and that must all end well for it to close.
    pub probes: u32,
}

impl Default for BreakerConfig {
    fn default() -> Self {
        Self { window: seconds(10), calls: 20, failures: 0.8, pause: seconds(1), pause_max: seconds(60), probes: 3 }
    }
}

/// What a plugin's calls may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct PluginLimits {
    /// Linear memory of one instance.
    pub memory: Size,
    /// Elements of one instance's tables; function pointers are such.
    pub tables: usize,
    /// CPU time of one call; waiting does not count. Measured in ticks of some milliseconds.
    pub cpu: Span,
    /// From the begin to the end of a call that waits for something.
    pub wall: Span,
    /// Effects of one call.
    pub effects: usize,
    /// Bytes in the effects of one call, and as many in the HTTP bodies that it writes.
    pub output: Size,
    /// Calls of host functions in one call.
    pub host_calls: u32,
    /// Requests to other servers at a time. More are refused.
    pub http_requests: usize,
    /// The body of one of their answers.
    pub http_response: Size,
    /// Instances at a time. A call that finds none free waits, or fails where it cannot wait.
    pub instances: usize,
    /// The plugin's file.
    pub file: Size,
    /// CPU time that compiling the file may take, in whole seconds.
    pub compile: Span,
    /// Memory that compiling the file may take: address space of the process that does it.
    pub compile_memory: Size,
}

impl Default for PluginLimits {
    fn default() -> Self {
        Self {
            memory: Size(32 << 20),
            tables: 20_000,
            cpu: Span(Duration::from_millis(50)),
            wall: seconds(5),
            effects: 1_000,
            output: Size(4 << 20),
            host_calls: 10_000,
            http_requests: 32,
            http_response: Size(1 << 20),
            instances: 64,
            file: Size(64 << 20),
            compile: seconds(60),
            compile_memory: Size(2 << 30),
        }
    }
}

/// What a plugin may do beyond the session that it is called for. Nothing by default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Grants {
    /// Patterns of topics that it may publish on.
    pub publish: Vec<String>,
    /// Patterns of topics that it may subscribe sessions to, and read the history and presence of.
    pub subscribe: Vec<String>,
    /// Whether it may send to users and disconnect them.
    pub users: bool,
    /// Whether it may send to other sessions and disconnect them.
    pub sessions: bool,
    /// Prefixes of the keys that it may use in the key-value store.
    pub kv: Vec<String>,
    /// Patterns of request headers that it may read, in lower case; `cookie` also for single cookies. Whoever handles a
    /// plain HTTP request sees all but `authorization` and `cookie` without.
    pub headers: Vec<String>,
    /// Names of upstreams that it may send to.
    pub upstreams: Vec<String>,
    /// Servers that it may ask by HTTP: `"api.example.org"` on the usual port of http and https, `"127.0.0.1:9000"` on
    /// this one, `"host:*"` on any; `"*.example.org"` is every host below that name, `"*"` any at all.
    pub http: Vec<HostPattern>,
}
