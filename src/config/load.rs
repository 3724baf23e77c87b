//! From the file to a configuration that can be trusted: errors with file, line and cure; secrets; paths.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::Value;

use super::{CanaryConfig, Config, PluginConfig, reload};

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
struct Source<'a> {
    file: &'a Path,
    text: &'a str,
}

impl Source<'_> {
    fn error(&self, span: Option<Range<usize>>, what: impl Into<String>) -> ConfigError {
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
        let text = std::fs::read_to_string(file).map_err(|error| ConfigError {
            file: file.to_owned(),
            place: None,
            line: None,
            what: format!("cannot be read: {error}"),
            inputs: vec![file.to_owned()],
        })?;
        Self::parse(file, &text, file.parent().unwrap_or(Path::new(".")))
    }

    /// The same for a text; paths in it are relative to `base`. `file` is what errors name.
    pub fn parse(file: &Path, text: &str, base: &Path) -> Result<Self, ConfigError> {
        let source = Source { file, text };
        let mut config: Config =
            toml::from_str(text).map_err(|error| source.error(error.span(), error.message().trim_end()))?;
        config.plugin_directory = base.join(&config.plugin_directory);
        config.cache_directory = base.join(&config.cache_directory);
        for files in &mut config.files {
            let directory = base.join(files.directory.get_ref());
            *files.directory.get_mut() = directory;
        }
        config.origin.file = file.to_owned();
        config.origin.secrets =
            config.plugins.values().flat_map(|plugin| reload::secret_files(&plugin.config, base)).collect();
        let headers = config.upstreams.iter().flat_map(|upstream| reload::secret_files(&upstream.headers, base));
        config.origin.secrets.extend(headers.collect::<Vec<_>>());
        let checked = config.resolve(&source, base);
        let checked = checked.and_then(|()| config.check(&source)).and_then(|()| config.check_upstreams(&source));
        checked.map_err(|error| ConfigError { inputs: config.inputs(), ..error })?;
        config.origin.text = text.to_owned();
        Ok(config)
    }

    /// Puts secrets in the place of what refers to them.
    fn resolve(&mut self, source: &Source<'_>, base: &Path) -> Result<(), ConfigError> {
        for (name, plugin) in &mut self.plugins {
            let mut settings = Value::Table(plugin.config.clone());
            let resolved = resolve_secrets(&mut settings, base, &format!("plugin.{name}.config"));
            let table = format!("[plugin.{name}.config");
            let at = source.text.find(&table).map(|at| at..at + 1);
            if let Value::Table(table) = resolved.map_err(|what| source.error(at, what))? {
                plugin.config = table;
            }
        }
        for upstream in &mut self.upstreams {
            let at = format!("upstream {}: headers", upstream.name.get_ref());
            let resolved = resolve_secrets(&mut Value::Table(upstream.headers.clone()), base, &at);
            if let Value::Table(table) = resolved.map_err(|what| source.error(Some(upstream.name.span()), what))? {
                upstream.headers = table;
            }
        }
        Ok(())
    }

    fn check(&self, source: &Source<'_>) -> Result<(), ConfigError> {
        let mut paths = matchit::Router::new();
        let mut names = std::collections::HashSet::new();
        for route in &self.routes {
            let name = route.name.get_ref();
            if !is_name(name) {
                let what = format!("{name:?} cannot name a route: use letters, digits, `-` and `_`, 64 at most");
                return Err(source.error(Some(route.name.span()), what));
            }
            if !names.insert(name) {
                let what = format!("there are two routes with the name `{name}`: give one of them another");
                return Err(source.error(Some(route.name.span()), what));
            }
            let path = route.path.get_ref();
            if !path.starts_with('/') {
                return Err(source.error(Some(route.path.span()), format!("the path {path:?} must begin with `/`")));
            }
            paths.insert(path.clone(), name).map_err(|error| {
                let what = format!("route `{name}` can never be reached: {error}; remove it or change its path");
                source.error(Some(route.path.span()), what)
            })?;
            if route.plugins.is_empty() {
                let what = format!("route `{name}` has no plugins: nothing would decide what happens on it");
                return Err(source.error(Some(route.path.span()), what));
            }
            for plugin in &route.plugins {
                self.check_plugin(source, name, plugin)?;
            }
            if route.transports.is_empty() {
                let what = format!("route `{name}` allows no transport: name one, `transports = [\"websocket\"]`");
                return Err(source.error(Some(route.name.span()), what));
            }
            for origin in route.origins.iter().flatten() {
                let host = origin.split_once("://").map_or("", |(_, host)| host);
                if origin != "*" && (host.is_empty() || host.contains('/')) {
                    let what = format!(
                        "route `{name}`: {origin:?} is not an origin: write scheme and host, \"https://example.org\", \
                         or \"*\" for any"
                    );
                    return Err(source.error(Some(route.name.span()), what));
                }
            }
            let limits = &route.limits;
            if limits.rate == Some(0) || limits.burst == Some(0) || (limits.burst.is_some() && limits.rate.is_none()) {
                let what = format!("route `{name}`: `rate` and `burst` must be above 0, and `burst` needs a `rate`");
                return Err(source.error(Some(route.name.span()), what));
            }
            if route.heartbeat.interval.0.is_zero() || route.heartbeat.timeout.0.is_zero() {
                let what = format!("route `{name}`: the heartbeat's interval and timeout must be above 0");
                return Err(source.error(Some(route.name.span()), what));
            }
        }
        self.check_claims(source)?;
        self.check_used(source)?;
        self.check_shares(source)?;
        self.check_seconds(source)?;
        for files in &self.files {
            if !files.path.get_ref().starts_with('/') {
                let what = format!("the path {:?} must begin with `/`", files.path.get_ref());
                return Err(source.error(Some(files.path.span()), what));
            }
            if !files.directory.get_ref().is_dir() {
                let what = format!("there is no directory {}", files.directory.get_ref().display());
                return Err(source.error(Some(files.directory.span()), what));
            }
        }
        Ok(())
    }

    fn check_plugin(
        &self,
        source: &Source<'_>,
        route: &str,
        plugin: &toml::Spanned<String>,
    ) -> Result<(), ConfigError> {
        let name = plugin.get_ref();
        if !is_name(name) {
            let what = format!("{name:?} cannot name a plugin: use letters, digits, `-` and `_`, 64 at most");
            return Err(source.error(Some(plugin.span()), what));
        }
        let file = plugin_file(self, name);
        if !file.is_file() {
            let what = format!(
                "route `{route}` names the plugin `{name}`, but there is no file {}: put it there, or correct the name \
                 or `plugin_directory`",
                file.display()
            );
            return Err(source.error(Some(plugin.span()), what));
        }
        Ok(())
    }

    fn check_upstreams(&self, source: &Source<'_>) -> Result<(), ConfigError> {
        let mut names = std::collections::HashSet::new();
        for upstream in &self.upstreams {
            let name = upstream.name.get_ref();
            if !is_name(name) || !names.insert(name.as_str()) {
                let what =
                    format!("{name:?} cannot name an upstream: use letters, digits, `-` and `_`, and each name once");
                return Err(source.error(Some(upstream.name.span()), what));
            }
            let url = upstream.url.get_ref().parse::<hyper::Uri>().ok();
            if !url.is_some_and(|url| matches!(url.scheme_str(), Some("http" | "https")) && url.host().is_some()) {
                let what = format!("{:?} is not a URL: write http://HOST:PORT/PATH", upstream.url.get_ref());
                return Err(source.error(Some(upstream.url.span()), what));
            }
            for (header, value) in &upstream.headers {
                let fits = hyper::header::HeaderName::try_from(header).is_ok()
                    && value.as_str().is_some_and(|value| hyper::header::HeaderValue::try_from(value).is_ok());
                if !fits {
                    let what = format!("upstream `{name}`: {header:?} is not a header with a text for its value");
                    return Err(source.error(Some(upstream.name.span()), what));
                }
            }
        }
        for route in &self.routes {
            if let Some(upstream) = route.upstream.as_ref().filter(|name| !names.contains(name.get_ref().as_str())) {
                let what = format!("there is no [[upstream]] with the name `{}`", upstream.get_ref());
                return Err(source.error(Some(upstream.span()), what));
            }
        }
        for (plugin, settings) in &self.plugins {
            if let Some(unknown) = settings.grants.upstreams.iter().find(|name| !names.contains(name.as_str())) {
                let at = source.text.find(&format!("[plugin.{plugin}")).map(|at| at..at + 1);
                let what = format!("the plugin `{plugin}` is granted the upstream `{unknown}`, which there is not");
                return Err(source.error(at, what));
            }
        }
        Ok(())
    }

    /// A topic belongs to one route at the most; the same pattern twice can only be a mistake.
    fn check_claims(&self, source: &Source<'_>) -> Result<(), ConfigError> {
        let mut claims = std::collections::HashMap::new();
        for route in &self.routes {
            for topic in &route.topics {
                if let Some(first) = claims.insert(topic.get_ref(), route.name.get_ref()) {
                    let what = format!(
                        "the topics {:?} are claimed by the route `{first}` already: a topic belongs to one route",
                        topic.get_ref()
                    );
                    return Err(source.error(Some(topic.span()), what));
                }
            }
        }
        let mut patterns = std::collections::HashSet::new();
        for topic in &self.topics {
            if !patterns.insert(topic.pattern.get_ref()) {
                let what =
                    format!("the pattern {:?} stands here twice: the second is never used", topic.pattern.get_ref());
                return Err(source.error(Some(topic.pattern.span()), what));
            }
        }
        Ok(())
    }

    /// Shares are parts of one.
    fn check_shares(&self, source: &Source<'_>) -> Result<(), ConfigError> {
        for (name, plugin) in &self.plugins {
            let shares = [
                ("rollback", "failures", plugin.rollback.failures),
                ("rollback", "refusals", plugin.rollback.refusals),
                ("breaker", "failures", plugin.breaker.failures),
            ];
            for (table, key, share) in shares {
                if !(share > 0.0 && share <= 1.0) {
                    let at = source.text.find(&format!("[plugin.{name}.{table}")).map(|at| at..at + 1);
                    let what = format!("plugin.{name}.{table}.{key} is {share}: write a share above 0 and up to 1");
                    return Err(source.error(at, what));
                }
            }
        }
        Ok(())
    }

    /// The files beside a plugin's own.
    fn check_seconds(&self, source: &Source<'_>) -> Result<(), ConfigError> {
        for (name, plugin) in &self.plugins {
            let error = |table: &str, what: String| {
                let at = source.text.find(&format!("[plugin.{name}.{table}")).map(|at| at..at + 1);
                source.error(at, format!("plugin.{name}.{table}: {what}"))
            };
            let files = [
                ("canary", plugin.canary.as_ref().map(|canary| &canary.file)),
                ("shadow", plugin.shadow.as_ref().map(|shadow| &shadow.file)),
            ];
            for (table, file) in files {
                if let Some(file) = file.map(|file| self.plugin_directory.join(file)).filter(|file| !file.is_file()) {
                    return Err(error(table, format!("there is no file {}", file.display())));
                }
            }
            if let Some(canary) = &plugin.canary {
                canary.check().map_err(|what| error("canary", what))?;
            }
            if plugin.shadow.as_ref().is_some_and(|shadow| shadow.sample > 100) {
                return Err(error("shadow", "`sample` is a percentage: 100 at most".to_owned()));
            }
        }
        Ok(())
    }

    /// A table of a plugin that no route names is likely a misspelt name.
    fn check_used(&self, source: &Source<'_>) -> Result<(), ConfigError> {
        for name in self.plugins.keys() {
            let used = self.routes.iter().any(|route| route.plugins.iter().any(|plugin| plugin.get_ref() == name));
            if !used {
                let at = source.text.find(&format!("[plugin.{name}")).map(|at| at..at + 1);
                let what =
                    format!("the plugin `{name}` has settings, but no route names it: add it to a route's `plugins`");
                return Err(source.error(at, what));
            }
        }
        Ok(())
    }

    /// The plugin's own settings as JSON.
    pub fn plugin_json(plugin: &PluginConfig) -> serde_json::Value {
        serde_json::to_value(&plugin.config).unwrap_or_else(|_| serde_json::Value::Object(serde_json::Map::new()))
    }
}

impl CanaryConfig {
    fn check(&self) -> Result<(), String> {
        let steps = &self.schedule;
        if self.share.is_some() != steps.is_empty() {
            return Err("it needs either a `share` or a `schedule`".to_owned());
        }
        if self.share.into_iter().chain(steps.iter().map(|step| step.share)).any(|share| share > 100) {
            return Err("a share is a percentage: 100 at most".to_owned());
        }
        if !steps.is_sorted_by(|one, next| one.share < next.share) {
            return Err("the shares of a `schedule` must grow: to go back, set one by hand".to_owned());
        }
        match steps.split_last() {
            Some((last, before)) if last.time.is_some() || before.iter().any(|step| step.time.is_none()) => {
                Err("each step of a `schedule` needs a `for`, but the last, which stays".to_owned())
            }
            _ => Ok(()),
        }
    }
}

fn is_name(name: &str) -> bool {
    (1..=64).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

/// Replaces `{ env = "NAME" }` and `{ file = "PATH" }` by what they name.
fn resolve_secrets(value: &mut Value, base: &Path, at: &str) -> Result<Value, String> {
    match value {
        Value::Table(table) => {
            if let (1, Some((key, Value::String(name)))) = (table.len(), table.iter().next()) {
                match key.as_str() {
                    "env" => {
                        return std::env::var(name).map(Value::String).map_err(|_| {
                            format!(
                                "{at}: the environment variable {name} is not set: set it before the gateway starts"
                            )
                        });
                    }
                    "file" => {
                        let path = base.join(name);
                        return std::fs::read_to_string(&path)
                            .map(|text| Value::String(text.trim_end_matches(['\r', '\n']).to_owned()))
                            .map_err(|error| format!("{at}: {} cannot be read: {error}", path.display()));
                    }
                    _ => {}
                }
            }
            for (key, value) in table.iter_mut() {
                *value = resolve_secrets(value, base, &format!("{at}.{key}"))?;
            }
        }
        Value::Array(array) => {
            for (index, value) in array.iter_mut().enumerate() {
                *value = resolve_secrets(value, base, &format!("{at}[{index}]"))?;
            }
        }
        _ => {}
    }
    Ok(value.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

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
                &format!("{CHAT}[plugin.chat.config]\nkey = {{ env = \"TIDEGATE_NOT_SET\" }}"),
                "plugin.chat.config.key: the environment variable TIDEGATE_NOT_SET is not set",
            ),
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
    }

    #[test]
    fn silence_means_the_defaults() {
        let config = load(CHAT).unwrap();
        assert_eq!(config.routes[0].limits.message.0, 64 << 10);
        assert_eq!(config.routes[0].slow_consumer, crate::config::Overflow::Disconnect);
        assert!(config.plugin_directory.ends_with("plugins"));
    }
}
