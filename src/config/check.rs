//! What a configuration must be, beyond being well formed, and what to do where it is not.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::load::{ConfigError, Source, plugin_file};
use super::{CanaryConfig, Config};

/// Longer than this, nobody would find out why nothing comes.
const MAX_BATCH_TIME: Duration = Duration::from_secs(10);
/// Characters of the admin address's token, at least: fewer can be guessed.
const ADMIN_TOKEN: usize = 16;

impl Config {
    pub(super) fn check(&self, source: &Source<'_>) -> Result<(), ConfigError> {
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
            if route.plugins.is_empty() && !route.echo && route.upstream.is_none() {
                let what = format!(
                    "route `{name}` has no plugins: nothing would decide what happens on it; name one, or an `upstream`"
                );
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
            Self::check_compression(route, |what| source.error(Some(route.name.span()), what))?;
            let limits = &route.limits;
            if route.batch.is_some_and(|batch| batch.messages == 0 || batch.time.0 > MAX_BATCH_TIME) {
                let what = format!("route `{name}`: `batch` needs `messages` above 0 and a `time` of 10s at most");
                return Err(source.error(Some(route.name.span()), what));
            }
            if let Some(wrong) = route.heartbeat.wrong().or(limits.wrong()) {
                return Err(source.error(Some(route.name.span()), format!("route `{name}`: {wrong}")));
            }
        }
        if !(32 << 10..=1 << 20).contains(&self.plugin_stack.0) {
            let at = source.text.find("plugin_stack").map(|at| at..at + 1);
            let what = format!("plugin_stack is {}: write a size from 32KiB to 1MiB", self.plugin_stack);
            return Err(source.error(at, what));
        }
        self.check_connections(source)?;
        self.check_drain(source)?;
        self.check_recordings(source)?;
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

    /// What stands between the network and the routes.
    pub(super) fn check_edge(&self, source: &Source<'_>) -> Result<(), ConfigError> {
        self.check_tls(source)?;
        self.check_http2(source)?;
        self.check_proxy(source)
    }

    /// Puts the secret in the place of what refers to it.
    pub(super) fn resolve_admin_token(&mut self, source: &Source<'_>, base: &Path) -> Result<(), ConfigError> {
        let Some(token) = &mut self.admin_token else { return Ok(()) };
        let at = source.text.find("admin_token").map(|at| at..at + 1);
        token.resolve(base, "admin_token").map_err(|what| source.error(at.clone(), what))?;
        if token.text().len() < ADMIN_TOKEN || !token.text().bytes().all(|byte| byte.is_ascii_graphic()) {
            let what = "admin_token: write 16 or more characters without spaces: `openssl rand -hex 32` makes some";
            return Err(source.error(at, what));
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

    pub(super) fn check_upstreams(&self, source: &Source<'_>) -> Result<(), ConfigError> {
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

    /// Two recordings in one file would be none, and one among the static files would be everybody's.
    fn check_recordings(&self, source: &Source<'_>) -> Result<(), ConfigError> {
        let mut files = std::collections::HashMap::new();
        for route in &self.routes {
            let name = route.name.get_ref();
            let error = |what: String| source.error(Some(route.name.span()), what);
            if route.record.share > 100 {
                return Err(error(format!("route `{name}`: `record.share` is a percentage: 100 at most")));
            }
            let file = self.recording(route);
            let served = self.files.iter().find(|files| place(&file).starts_with(place(files.directory.get_ref())));
            if let Some(served) = served {
                return Err(error(format!(
                    "route `{name}` would be recorded to {}, which is served to clients at {}: choose another \
                     `record_directory`",
                    file.display(),
                    served.path.get_ref()
                )));
            }
            if let Some(first) = files.insert(file, name) {
                return Err(error(format!(
                    "the routes `{first}` and `{name}` would be recorded to one file: give one of them another \
                     `record.file`"
                )));
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

/// Where a file is or will be, whichever links lead there.
fn place(file: &Path) -> PathBuf {
    let there = file.ancestors().find_map(|above| Some((above, above.canonicalize().ok()?)));
    let Some((above, place)) = there else { return std::path::absolute(file).unwrap_or_else(|_| file.to_owned()) };
    file.strip_prefix(above).map_or(place.clone(), |rest| place.join(rest))
}

pub fn is_name(name: &str) -> bool {
    (1..=64).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}
