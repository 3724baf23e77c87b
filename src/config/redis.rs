//! `[redis]`: the server that nodes share, and how long to wait for it.

use std::fmt;

use serde::Deserialize;
use toml::Value;

use super::load::{ConfigError, Source, resolve_secrets};
use super::{Config, Size, Span, seconds};

/// A Redis that several nodes share, 7.0 or newer. Without this table one node stands alone, and keeps all in memory.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct RedisConfig {
    /// `redis://HOST:PORT/DATABASE`, `rediss://` behind TLS, `unix:///PATH`. A list where Sentinels are asked: all of them. Of a
    /// Redis Cluster one or more of its servers; the others are found.
    #[cfg_attr(test, schemars(with = "String"))]
    pub url: Urls,
    /// The master's name among Sentinels: the addresses are theirs then.
    pub master: Option<String>,
    /// Who to sign in as. Absent: the server's default user.
    pub username: Option<String>,
    /// `{ env = "NAME" }` and `{ file = "PATH" }` stand for secrets. What stands in an address goes before.
    #[cfg_attr(test, schemars(with = "Option<String>"))]
    pub password: Option<Secret>,
    /// All keys and channels begin with this and a colon. Gateways with the same prefix are one cluster.
    pub prefix: String,
    /// Where clients reach this node and no other, such as `wss://node-2.example.com`: what `/nodes` tells. Another one on
    /// each node, so rather `--advertise` than in a file that all of them share. Absent: `listen`, if that is one address.
    pub advertise: Option<String>,
    /// For a connection, from the first packet to the server's greeting.
    pub connect_timeout: Span,
    /// For the answer to a command. A publication without an answer by then is refused.
    pub timeout: Span,
    /// How often the node publishes to itself, to see that it would hear others.
    pub probe: Span,
    /// A probe that has not come back by then ends the connections, which are made anew.
    pub probe_timeout: Span,
    /// How long a node may be silent before it counts as gone, and its members leave their topics.
    pub lease: Span,
    /// The longest pause before the next attempt to connect. The first is a hundredth of it.
    pub backoff: Span,
    /// Publications on their way to Redis. More are refused.
    pub pending: usize,
    /// Publications that wait for Redis to come back, of routes that say `redis_gone = "queue"`. More are refused.
    pub queue: usize,
    /// The same in bytes.
    pub queue_memory: Size,
}

impl Default for RedisConfig {
    fn default() -> Self {
        Self {
            url: Urls(Vec::new()),
            master: None,
            username: None,
            password: None,
            prefix: "tidegate".to_owned(),
            advertise: None,
            connect_timeout: seconds(2),
            timeout: seconds(1),
            probe: seconds(1),
            probe_timeout: seconds(3),
            lease: seconds(10),
            backoff: seconds(5),
            pending: 8_192,
            queue: 10_000,
            queue_memory: Size(16 << 20),
        }
    }
}

/// One address, or several.
#[derive(Clone, PartialEq, Default)]
pub struct Urls(pub Vec<String>);

impl<'de> Deserialize<'de> for Urls {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let wrong = || serde::de::Error::custom("an address is a text, \"redis://HOST:PORT\", or a list of them");
        match Value::deserialize(deserializer)? {
            Value::String(url) => Ok(Self(vec![url])),
            Value::Array(urls) => {
                let url = |url: Value| url.as_str().map(str::to_owned).ok_or_else(wrong);
                urls.into_iter().map(url).collect::<Result<_, _>>().map(Self)
            }
            _ => Err(wrong()),
        }
    }
}

/// Addresses may hold passwords, which no log shows.
impl fmt::Debug for Urls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|url| without_password(url))).finish()
    }
}

/// A text that no log shows, or what stands for it.
#[derive(Clone, PartialEq, Deserialize)]
#[serde(transparent)]
pub struct Secret(Value);

impl Secret {
    pub fn text(&self) -> &str {
        self.0.as_str().unwrap_or_default()
    }

    pub(super) fn value(&self) -> &Value {
        &self.0
    }

    /// Puts the secret in the place of what refers to it.
    pub(super) fn resolve(&mut self, base: &std::path::Path, at: &str) -> Result<(), String> {
        self.0 = resolve_secrets(&mut self.0, base, at, &mut Vec::new())?;
        match self.0.as_str() {
            Some(_) => Ok(()),
            None => Err(format!("{at}: write a text, or {{ env = \"NAME\" }} or {{ file = \"PATH\" }}")),
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// An address as logs may show it.
pub fn without_password(url: &str) -> String {
    match (url.find("://"), url.rfind('@')) {
        (Some(scheme), Some(at)) if at > scheme => format!("{}{}", &url[..scheme + 3], &url[at + 1..]),
        _ => url.to_owned(),
    }
}

impl Config {
    pub(super) fn resolve_redis(&mut self, source: &Source<'_>, base: &std::path::Path) -> Result<(), ConfigError> {
        let Some(password) = self.redis.as_mut().and_then(|redis| redis.password.as_mut()) else { return Ok(()) };
        password.resolve(base, "redis.password").map_err(|what| source.error(table(source), what))
    }

    pub(super) fn check_redis(&self, source: &Source<'_>) -> Result<(), ConfigError> {
        let Some(redis) = &self.redis else {
            if self.origin.overrides.advertise.is_some() {
                let what = "--advertise tells other nodes where this one is: it needs --redis, or a table [redis]";
                return Err(source.error(None, what));
            }
            let waits = self.routes.iter().find(|route| route.redis_gone != super::RedisGone::default());
            return match waits {
                Some(route) => {
                    let what = format!(
                        "route `{}` says what to do without Redis, but there is no [redis] table",
                        route.name.get_ref()
                    );
                    Err(source.error(Some(route.name.span()), what))
                }
                None => Ok(()),
            };
        };
        let error = |what: String| Err(source.error(table(source), what));
        if redis.url.0.is_empty() {
            return error("redis.url is missing: write url = \"redis://HOST:PORT\"".to_owned());
        }
        for url in &redis.url.0 {
            // The library's own words may quote the address, password included.
            if ::redis::IntoConnectionInfo::into_connection_info(url.as_str()).is_err() {
                let shown = without_password(url);
                return error(format!("redis.url: {shown:?} is not an address: write redis://HOST:PORT/DATABASE"));
            }
        }
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ':');
        if !(1..=64).contains(&redis.prefix.len()) || !redis.prefix.chars().all(fits) {
            let what = "redis.prefix is 1 to 64 letters, digits, `-`, `_`, `.` and `:`";
            return error(format!("{what}, not {:?}", redis.prefix));
        }
        let shown = |text: &String| (1..=255).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
        if let Some(wrong) = redis.advertise.as_ref().filter(|text| !shown(text)) {
            let what = "redis.advertise is an address that clients reach this node at, 255 characters at most";
            return error(format!("{what}, not {wrong:?}"));
        }
        let spans = [
            ("connect_timeout", redis.connect_timeout),
            ("timeout", redis.timeout),
            ("probe", redis.probe),
            ("probe_timeout", redis.probe_timeout),
            ("lease", redis.lease),
            ("backoff", redis.backoff),
        ];
        if let Some((key, _)) = spans.iter().find(|(_, span)| span.0.is_zero()) {
            return error(format!("redis.{key} must be above 0"));
        }
        if redis.probe_timeout.0 <= redis.probe.0 {
            return error("redis.probe_timeout must be longer than redis.probe".to_owned());
        }
        if redis.pending == 0 {
            return error("redis.pending must be above 0: nothing could be published".to_owned());
        }
        Ok(())
    }
}

fn table(source: &Source<'_>) -> Option<std::ops::Range<usize>> {
    source.text.find("[redis]").map(|at| at..at + 1)
}
