//! The same file read again while the gateway serves: what it was read from, what cannot change, and what came of it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::Serialize;
use toml::Value;

use super::{Config, ConfigError, Urls, plugin_file};

/// Where a configuration was read from.
#[derive(Debug, Default)]
pub(super) struct Origin {
    pub file: PathBuf,
    pub text: String,
    /// What is referred to by `{ file = "PATH" }`, certificates and their keys.
    pub secrets: Vec<PathBuf>,
    pub overrides: Overrides,
}

/// What the command line says, which goes before the file, now and when the file is read again.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    pub listen: Option<SocketAddr>,
    pub admin: Option<SocketAddr>,
    /// `redis.url`, with or without a table in the file.
    pub redis: Option<Urls>,
    /// `redis.advertise`.
    pub advertise: Option<String>,
}

impl Config {
    /// Puts what the command line says in the place of what the file says.
    pub(super) fn overridden(&mut self, overrides: &Overrides) {
        let Overrides { listen, admin, redis, advertise } = overrides.clone();
        self.listen = listen.unwrap_or(self.listen);
        self.admin = admin.unwrap_or(self.admin);
        if let Some(url) = redis {
            self.redis.get_or_insert_default().url = url;
        }
        if let Some(redis) = &mut self.redis {
            redis.advertise = advertise.or(redis.advertise.take());
        }
        self.origin.overrides = overrides.clone();
    }

    /// The configuration that stands in the same file now.
    pub fn again(&self) -> Result<Self, ConfigError> {
        Self::load_with(&self.origin.file, &self.origin.overrides)
    }

    pub fn file(&self) -> &Path {
        &self.origin.file
    }

    /// The file itself, and the secrets that it refers to.
    pub fn files(&self) -> Vec<PathBuf> {
        std::iter::once(&self.origin.file).chain(&self.origin.secrets).cloned().collect()
    }

    /// Every file that decides whether this configuration can serve.
    pub fn inputs(&self) -> Vec<PathBuf> {
        let names = self.routes.iter().flat_map(|route| route.plugins.iter().map(toml::Spanned::get_ref));
        let mut files = self.files();
        files.extend(names.map(|name| plugin_file(self, name)));
        let seconds = self.plugins.values().flat_map(|plugin| {
            let (canary, shadow) = (plugin.canary.as_ref(), plugin.shadow.as_ref());
            canary.map(|canary| &canary.file).into_iter().chain(shadow.map(|shadow| &shadow.file))
        });
        files.extend(seconds.map(|file| self.plugin_directory.join(file)));
        files.sort();
        files.dedup();
        files
    }

    /// Whether another reading says the same, secrets included.
    pub fn says_the_same(&self, other: &Self) -> bool {
        self.origin.text == other.origin.text
            && self.plugins == other.plugins
            && self.upstreams == other.upstreams
            && self.redis == other.redis
            && self.tls == other.tls
            && self.admin_token == other.admin_token
    }

    /// The keys in which `new` differs and that only a restart can change.
    pub fn fixed(&self, new: &Self) -> Vec<&'static str> {
        // Whether TLS is spoken, and where. All else of it can change.
        let of_tls = |config: &Self| config.tls.as_ref().map(|tls| tls.listen);
        let differs = [
            ("listen", self.listen != new.listen),
            ("admin", self.admin != new.admin),
            ("cache_directory", self.cache_directory != new.cache_directory),
            ("plugin_stack", self.plugin_stack != new.plugin_stack),
            ("max_connections", self.max_connections != new.max_connections),
            ("handshake_timeout", self.handshake_timeout != new.handshake_timeout),
            ("upgrade_timeout", self.upgrade_timeout != new.upgrade_timeout),
            ("drain", self.drain != new.drain),
            ("kv_memory", self.kv_memory != new.kv_memory),
            ("history_memory", self.history_memory != new.history_memory),
            ("redis", self.redis != new.redis),
            ("tls.listen", of_tls(self) != of_tls(new)),
        ];
        differs.into_iter().filter(|(_, differs)| *differs).map(|(key, _)| key).collect()
    }
}

/// The files that a plugin's settings refer to.
pub(super) fn secret_files(settings: &toml::Table, base: &Path) -> Vec<PathBuf> {
    fn of(value: &Value, base: &Path, found: &mut Vec<PathBuf>) {
        match value {
            Value::Table(table) => match (table.len(), table.get("file")) {
                (1, Some(Value::String(name))) => found.push(base.join(name)),
                _ => table.values().for_each(|value| of(value, base, found)),
            },
            Value::Array(array) => array.iter().for_each(|value| of(value, base, found)),
            _ => {}
        }
    }
    let mut found = Vec::new();
    settings.values().for_each(|value| of(value, base, &mut found));
    found
}

/// What became of the last look at the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Attempt {
    /// The file serves as it is.
    Applied,
    /// It says what it said before.
    Unchanged,
    /// It cannot be used: the former configuration goes on.
    Refused,
}

impl Attempt {
    /// The metric's label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Unchanged => "unchanged",
            Self::Refused => "refused",
        }
    }
}

/// The configuration that serves, for the admin page.
#[derive(Clone, Debug, Serialize)]
pub struct ConfigStatus {
    pub file: PathBuf,
    /// When the configuration that serves was read: Unix time in milliseconds.
    pub since: u64,
    pub last: Attempt,
    /// When the file was last read.
    pub at: u64,
    /// Why the file as it is does not serve.
    pub trouble: Option<String>,
    /// Keys that the file has changed and that only a restart can.
    pub restart_for: Vec<String>,
}

impl ConfigStatus {
    /// At the start.
    pub fn new(config: &Config) -> Self {
        let now = unix_millis();
        Self {
            file: config.file().to_owned(),
            since: now,
            last: Attempt::Applied,
            at: now,
            trouble: None,
            restart_for: Vec::new(),
        }
    }

    /// After a look at the file.
    pub fn looked(&mut self, last: Attempt) {
        self.last = last;
        self.at = unix_millis();
        if last == Attempt::Applied {
            self.since = self.at;
        }
    }
}

fn unix_millis() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}
