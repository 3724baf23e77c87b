//! From the file to a configuration that can be trusted: errors with file, line and cure; secrets; paths.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::Value;

use super::{Config, Overrides, PluginConfig, RouteConfig, TlsConfig, reload};

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub struct ConfigError {
    file: PathBuf,
    /// Line and column, both from 1, where the error has a place.
    place: Option<(usize, usize)>,
    line: Option<String>,
    what: String,
    /// The files that decided: it is worth another look when one of them has changed.
    pub inputs: Vec<PathBuf>,
}

impl ConfigError {
    /// The error without its place.
    pub fn what(&self) -> &str {
        &self.what
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some((line, column)) = self.place {
            write!(f, ":{line}:{column}")?;
        }
        write!(f, ": {}", self.what)?;
        if let (Some((number, _)), Some(line)) = (self.place, &self.line) {
            write!(f, "\n{number:>5} | {line}")?;
        }
        Ok(())
    }
}

/// The file's text, to name places in it.
pub(super) struct Source<'a> {
    file: &'a Path,
    pub text: &'a str,
}

impl Source<'_> {
    pub fn error(&self, span: Option<Range<usize>>, what: impl Into<String>) -> ConfigError {
        let start = span.map(|span| span.start.min(self.text.len()));
        let before = start.and_then(|start| self.text.get(..start));
        let place = before.map(|before| {
            let line_start = before.rfind('\n').map_or(0, |at| at + 1);
            (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
        });
        let line = place.and_then(|(line, _)| self.text.lines().nth(line - 1)).map(str::to_owned);
        ConfigError { file: self.file.to_owned(), place, line, what: what.into(), inputs: vec![self.file.to_owned()] }
    }
}

/// Where the file of a plugin lies.
pub fn plugin_file(config: &Config, name: &str) -> PathBuf {
    let file = config.plugins.get(name).and_then(|plugin| plugin.file.clone());
    config.plugin_directory.join(file.unwrap_or_else(|| format!("{name}.wasm").into()))
}

impl Config {
    /// Reads and checks a configuration file. What is checked here needs no plugin to be loaded.
    pub fn load(file: &Path) -> Result<Self, ConfigError> {
        Self::load_with(file, &Overrides::default())
    }

    /// The same, with what the command line says.
    pub fn load_with(file: &Path, overrides: &Overrides) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(file).map_err(|error| ConfigError {
            file: file.to_owned(),
            place: None,
            line: None,
            what: format!("cannot be read: {error}"),
            inputs: vec![file.to_owned()],
        })?;
        Self::parse_with(file, &text, file.parent().unwrap_or(Path::new(".")), overrides)
    }

    /// The same for a text; paths in it are relative to `base`. `file` is what errors name.
    pub fn parse(file: &Path, text: &str, base: &Path) -> Result<Self, ConfigError> {
        Self::parse_with(file, text, base, &Overrides::default())
    }

    fn parse_with(file: &Path, text: &str, base: &Path, overrides: &Overrides) -> Result<Self, ConfigError> {
        let source = Source { file, text };
        let mut config: Config =
            toml::from_str(text).map_err(|error| source.error(error.span(), error.message().trim_end()))?;
        config.overridden(overrides);
        config.plugin_directory = base.join(&config.plugin_directory);
        config.cache_directory = base.join(&config.cache_directory);
        config.record_directory = base.join(&config.record_directory);
        for files in &mut config.files {
            let directory = base.join(files.directory.get_ref());
            *files.directory.get_mut() = directory;
        }
        config.place_tls(base);
        config.origin.file = file.to_owned();
        config.origin.secrets =
            config.plugins.values().flat_map(|plugin| reload::secret_files(&plugin.config, base)).collect();
        let headers = config.upstreams.iter().flat_map(|upstream| reload::secret_files(&upstream.headers, base));
        config.origin.secrets.extend(headers.collect::<Vec<_>>());
        let password = config.redis.as_ref().and_then(|redis| redis.password.as_ref());
        let password = password.map(|password| toml::Table::from_iter([(String::new(), password.value().clone())]));
        config.origin.secrets.extend(password.iter().flat_map(|table| reload::secret_files(table, base)));
        let token = config.admin_token.as_ref();
        let token = token.map(|token| toml::Table::from_iter([(String::new(), token.value().clone())]));
        config.origin.secrets.extend(token.iter().flat_map(|table| reload::secret_files(table, base)));
        config.origin.secrets.extend(config.tls.iter().flat_map(TlsConfig::files).cloned());
        let checked = config.resolve(&source, base);
        let checked = checked.and_then(|()| config.check(&source)).and_then(|()| config.check_upstreams(&source));
        let checked = checked.and_then(|()| config.check_redis(&source)).and_then(|()| config.check_edge(&source));
        checked.map_err(|error| ConfigError { inputs: config.inputs(), ..error })?;
        config.origin.text = text.to_owned();
        Ok(config)
    }

    /// Puts secrets in the place of what refers to them.
    fn resolve(&mut self, source: &Source<'_>, base: &Path) -> Result<(), ConfigError> {
        for (name, plugin) in &mut self.plugins {
            let mut settings = Value::Table(plugin.config.clone());
            let mut secrets = Vec::new();
            let resolved = resolve_secrets(&mut settings, base, &format!("plugin.{name}.config"), &mut secrets);
            plugin.secrets = secrets;
            let table = format!("[plugin.{name}.config");
            let at = source.text.find(&table).map(|at| at..at + 1);
            if let Value::Table(table) = resolved.map_err(|what| source.error(at, what))? {
                plugin.config = table;
            }
        }
        self.resolve_redis(source, base)?;
        self.resolve_admin_token(source, base)?;
        self.resolve_tls(source)?;
        for upstream in &mut self.upstreams {
            let at = format!("upstream {}: headers", upstream.name.get_ref());
            let resolved = resolve_secrets(&mut Value::Table(upstream.headers.clone()), base, &at, &mut Vec::new());
            if let Value::Table(table) = resolved.map_err(|what| source.error(Some(upstream.name.span()), what))? {
                upstream.headers = table;
            }
        }
        Ok(())
    }

    /// Where a route is recorded to.
    pub fn recording(&self, route: &RouteConfig) -> PathBuf {
        let named = || format!("{}.jsonl", route.name.get_ref()).into();
        self.record_directory.join(route.record.file.clone().unwrap_or_else(named))
    }

    /// The plugin's own settings as JSON.
    pub fn plugin_json(plugin: &PluginConfig) -> serde_json::Value {
        serde_json::to_value(&plugin.config).unwrap_or_else(|_| serde_json::Value::Object(serde_json::Map::new()))
    }
}

/// Replaces `{ env = "NAME" }` and `{ file = "PATH" }` by what they name, which `found` keeps too.
pub(super) fn resolve_secrets(
    value: &mut Value,
    base: &Path,
    at: &str,
    found: &mut Vec<String>,
) -> Result<Value, String> {
    match value {
        Value::Table(table) => {
            if let (1, Some((key, Value::String(name)))) = (table.len(), table.iter().next()) {
                match key.as_str() {
                    "env" => {
                        let text = std::env::var(name).map_err(|_| {
                            format!(
                                "{at}: the environment variable {name} is not set: set it before the gateway starts"
                            )
                        })?;
                        found.push(text.clone());
                        return Ok(Value::String(text));
                    }
                    "file" => {
                        let path = base.join(name);
                        let text = std::fs::read_to_string(&path)
                            .map_err(|error| format!("{at}: {} cannot be read: {error}", path.display()))?;
                        let text = text.trim_end_matches(['\r', '\n']).to_owned();
                        found.push(text.clone());
                        return Ok(Value::String(text));
                    }
                    _ => {}
                }
            }
            for (key, value) in table.iter_mut() {
                *value = resolve_secrets(value, base, &format!("{at}.{key}"), found)?;
            }
        }
        Value::Array(array) => {
            for (index, value) in array.iter_mut().enumerate() {
                *value = resolve_secrets(value, base, &format!("{at}[{index}]"), found)?;
            }
        }
        _ => {}
    }
    Ok(value.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Size, Urls};

    fn load(text: &str) -> Result<Config, String> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("plugins")).unwrap();
        std::fs::write(folder.path().join("plugins/chat.wasm"), "").unwrap();
        std::fs::write(folder.path().join("secret.txt"), "hush\n").unwrap();
        let file = folder.path().join("tidegate.toml");
        std::fs::write(&file, text).unwrap();
        Config::load(&file).map_err(|error| error.to_string().replace(&folder.path().display().to_string(), "DIR"))
    }

    const CHAT: &str = "[[route]]\nname = \"chat\"\npath = \"/chat/{room}\"\nplugins = [\"chat\"]\n";

    #[test]
    fn errors_name_file_line_and_cure() {
        let cases = [
            ("listen = 3", "DIR/tidegate.toml:1:10: "),
            ("listne = \"127.0.0.1:1\"", "DIR/tidegate.toml:1:1: unknown field `listne`"),
            (&format!("{CHAT}limits = {{ mesage = 1 }}"), "tidegate.toml:5:12: unknown field `mesage`"),
            (
                &CHAT.replace("[\"chat\"]", "[\"chta\"]"),
                "tidegate.toml:4:12: route `chat` names the plugin `chta`, but there is no file DIR/plugins/chta.wasm",
            ),
            (
                &format!("{CHAT}{}", CHAT.replace("name = \"chat\"", "name = \"other\"")),
                "tidegate.toml:7:8: route `other` can never be reached",
            ),
            (&format!("{CHAT}{CHAT}"), "two routes with the name `chat`"),
            (&format!("{CHAT}[plugin.chta]\n"), "tidegate.toml:5:1: the plugin `chta` has settings, but no route"),
            (&format!("{CHAT}origins = [\"example.org\"]"), "is not an origin"),
            (
                &format!("{CHAT}[plugin.chat.breaker]\nfailures = 80"),
                "tidegate.toml:5:1: plugin.chat.breaker.failures is 80: write a share above 0 and up to 1",
            ),
            (
                &format!("{CHAT}[plugin.chat.canary]\nfile = \"chat.wasm\""),
                "tidegate.toml:5:1: plugin.chat.canary: it needs either a `share` or a `schedule`",
            ),
            (
                &format!("{CHAT}[plugin.chat.canary]\nfile = \"next.wasm\"\nshare = 5"),
                "tidegate.toml:5:1: plugin.chat.canary: there is no file DIR/plugins/next.wasm",
            ),
            (
                &format!(
                    "{CHAT}[plugin.chat.canary]\nfile = \"chat.wasm\"\nschedule = [{{ share = 20 }}, {{ share = 100 }}]"
                ),
                "each step of a `schedule` needs a `for`",
            ),
            (&format!("{CHAT}limits = {{ burst = 3 }}"), "`burst` needs a `rate`"),
            (
                &format!("{CHAT}compression = 6"),
                "tidegate.toml:5:15: invalid type: integer `6`, expected `true`, `false` or a table",
            ),
            (&format!("{CHAT}compression = {{ levle = 6 }}"), "tidegate.toml:5:17: unknown field `levle`"),
            (&format!("{CHAT}compression = {{ level = 0 }}"), "`compression.level` is 0: write 1 to 9"),
            (&format!("{CHAT}compression = {{ window = 8 }}"), "`compression.window` is 8: write 9 (512 bytes) to 15"),
            (
                &format!("{CHAT}[[files]]\npath = \"/\"\ndirectory = \"plugins/..\""),
                "would be recorded to DIR/recordings/chat.jsonl, which is served to clients at /: choose another",
            ),
            (&format!("{CHAT}record = {{ share = 101 }}"), "route `chat`: `record.share` is a percentage: 100 at most"),
            (
                &format!(
                    "{CHAT}record = {{ file = \"b.jsonl\" }}\n{}",
                    CHAT.replace("\"chat\"\npath = \"/chat", "\"b\"\npath = \"/b")
                ),
                "the routes `chat` and `b` would be recorded to one file",
            ),
            (
                &format!("{CHAT}[plugin.chat.config]\nkey = {{ env = \"TIDEGATE_NOT_SET\" }}"),
                "plugin.chat.config.key: the environment variable TIDEGATE_NOT_SET is not set",
            ),
            (&format!("{CHAT}[redis]\n"), "tidegate.toml:5:1: redis.url is missing"),
            (
                &format!("{CHAT}[redis]\nurl = \"http://u:hush@h\""),
                "redis.url: \"http://h\" is not an address: write redis://HOST:PORT/DATABASE",
            ),
            (&format!("{CHAT}[redis]\nurl = \"redis://h\"\nprefix = \"a{{b\""), "redis.prefix is 1 to 64 letters"),
            (
                &format!("{CHAT}[redis]\nurl = \"redis://h\"\nadvertise = \"a b\""),
                "tidegate.toml:5:1: redis.advertise is an address that clients reach this node at",
            ),
            (&format!("{CHAT}redis_gone = \"local\""), "route `chat` says what to do without Redis"),
            (&format!("{CHAT}[[files]]\npath = \"/\"\ndirectory = \"nowhere\""), "there is no directory DIR/nowhere"),
        ];
        for (text, expected) in cases {
            let error = load(text).unwrap_err();
            assert!(error.contains(expected), "{text}\n{error}\nexpected: {expected}");
        }
    }

    #[test]
    fn secrets_come_from_files_and_the_environment() {
        let config = load(&format!(
            "{CHAT}[plugin.chat.config]\nsecret = {{ file = \"secret.txt\" }}\nlist = [{{ env = \"PATH\" }}]\ntable = {{ a = 1 }}"
        ))
        .unwrap();
        let json = Config::plugin_json(&config.plugins["chat"]);
        assert_eq!(json["secret"], "hush");
        assert!(json["list"][0].as_str().is_some_and(|path| path.contains('/')));
        assert_eq!(json["table"]["a"], 1);
        assert_eq!(config.plugins["chat"].secrets.len(), 2);
        assert!(config.plugins["chat"].secrets.contains(&"hush".to_owned()), "what is not to be shown is known");
    }

    #[test]
    fn the_password_of_redis_is_a_secret() {
        let table = "[redis]\nurl = [\"redis://ann:pass@h:1\", \"redis://h:2\"]\npassword = { file = \"secret.txt\" }";
        let config = load(&format!("{CHAT}{table}")).unwrap();
        let redis = config.redis.unwrap();
        assert_eq!(redis.password.as_ref().unwrap().text(), "hush");
        let shown = format!("{redis:?}");
        assert!(shown.contains("redis://h:1") && !shown.contains("pass@") && !shown.contains("hush"), "{shown}");
    }

    #[test]
    fn the_command_line_goes_before_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("tidegate.toml");
        let load = |text: &str, overrides: &Overrides| {
            std::fs::write(&file, text).unwrap();
            Config::load_with(&file, overrides)
        };
        let overrides = Overrides {
            redis: Some(Urls(vec!["redis://here".to_owned()])),
            advertise: Some("ws://me".to_owned()),
            ..Overrides::default()
        };
        let config = load("", &overrides).unwrap();
        let redis = config.redis.as_ref().unwrap();
        assert_eq!((&*redis.url.0, redis.advertise.as_deref()), (&["redis://here".to_owned()][..], Some("ws://me")));
        std::fs::write(&file, "[redis]\nurl = \"redis://there\"\nprefix = \"p\"").unwrap();
        let again = config.again().unwrap().redis.unwrap();
        assert_eq!((again.url, again.prefix.as_str()), (config.redis.unwrap().url, "p"));
        let wrong = |overrides: Overrides| load("", &overrides).unwrap_err().to_string();
        let redis = Some(Urls(vec!["http://h".to_owned()]));
        assert!(wrong(Overrides { redis, ..Overrides::default() }).contains("redis.url: \"http://h\" is not"));
        let advertise = Some("ws://me".to_owned());
        assert!(wrong(Overrides { advertise, ..Overrides::default() }).contains("it needs --redis"));
    }

    #[test]
    fn compression_is_a_switch_or_a_table() {
        let of = |text: &str| load(&format!("{CHAT}{text}")).unwrap().routes[0].compression;
        let default = crate::config::CompressionConfig::default();
        assert_eq!(of("compression = true"), Some(default));
        assert_eq!(of("compression = false"), None);
        let table = "[route.compression]\nthreshold = \"1KiB\"\nlevel = 9\ncontext_takeover = true\nwindow = 12";
        let expected =
            crate::config::CompressionConfig { threshold: Size(1024), level: 9, context_takeover: true, window: 12 };
        assert_eq!(of(table), Some(expected));
        assert_eq!(of("[route.compression]"), Some(default));
    }

    #[test]
    fn silence_means_the_defaults() {
        let config = load(CHAT).unwrap();
        assert_eq!(config.routes[0].limits.message.0, 64 << 10);
        assert_eq!(config.routes[0].slow_consumer, crate::config::Overflow::Disconnect);
        assert_eq!(config.routes[0].compression, None);
        assert!(config.plugin_directory.ends_with("plugins"));
    }
}
