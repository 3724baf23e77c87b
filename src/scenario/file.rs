//! A scenario file, read and checked before anything happens.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::{Spanned, Table};

use super::backends;
use super::keys::{Keys, START, time};
use super::pattern::Names;
use super::reply::Reply;
use super::servers::Server;
use super::step::Step;
use super::words::{self, document};
use crate::config::{Config, is_name};

/// No heartbeat falls due in a scenario that does not ask for one.
const NEVER: &str = "3650d";

/// A scenario file that cannot be run: a mistake in the file, not in the plugin.
#[derive(Debug, thiserror::Error)]
pub struct BadScenario {
    file: PathBuf,
    line: Option<usize>,
    what: String,
}

impl fmt::Display for BadScenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        write!(f, ": {}", self.what)
    }
}

/// A story and what must come of it.
pub struct Scenario {
    pub about: String,
    /// Unix time in milliseconds.
    pub start: u64,
    pub seed: u64,
    pub config: Config,
    /// The name of the plugin that is tested.
    pub plugin: String,
    /// What upstreams answer by themselves, by their names.
    pub replies: BTreeMap<String, Reply>,
    /// The servers that plugins may find.
    pub servers: Vec<Server>,
    pub steps: Vec<Step>,
}

#[derive(Deserialize)]
struct Placed {
    #[serde(default)]
    step: Vec<Spanned<Table>>,
    #[serde(default)]
    upstream: Vec<Spanned<Table>>,
    #[serde(default)]
    server: Vec<Spanned<Table>>,
    /// Others of the route's chain.
    #[serde(default)]
    plugins: BTreeMap<String, Spanned<Table>>,
}

/// What is made of `[[upstream]]`.
#[derive(Default)]
struct Upstreams {
    tables: Vec<Table>,
    replies: BTreeMap<String, Reply>,
}

/// A mistake, and where it begins in the text.
type Mistake = (usize, String);

impl Scenario {
    /// Reads a scenario for the plugin in a file.
    pub fn load(file: &Path, plugin: &Path) -> Result<Self, BadScenario> {
        let text = std::fs::read_to_string(file).map_err(|error| BadScenario {
            file: file.to_owned(),
            line: None,
            what: format!("cannot be read: {error}"),
        })?;
        Self::parse(file, &text, plugin)
    }

    /// The same for a text; `file` is what errors name, and what paths are relative to.
    pub fn parse(file: &Path, text: &str, plugin: &Path) -> Result<Self, BadScenario> {
        let bad = |line: Option<usize>, what: String| BadScenario { file: file.to_owned(), line, what };
        let line_at = |at: usize| text.get(..at).map_or(1, |before| before.matches('\n').count() + 1);
        let wrong = |error: toml::de::Error| {
            bad(error.span().map(|span| line_at(span.start)), error.message().trim_end().to_owned())
        };
        let mut table: Table = toml::from_str(text).map_err(wrong)?;
        let placed: Placed = toml::from_str(text).map_err(wrong)?;
        table.remove("step");
        let mut head = Keys(table);
        let read = |head: &mut Keys| -> Result<(Option<String>, u64, u64), String> {
            let start = match head.0.remove("start") {
                Some(value) => time(&words::json(&value))?,
                None => time(&START.into())?,
            };
            let seed = head.0.remove("seed").map_or(Ok(0), |seed| {
                seed.as_integer().and_then(|seed| u64::try_from(seed).ok()).ok_or("`seed` must be a number from 0 on")
            })?;
            Ok((head.text("about")?, start, seed))
        };
        let (about, start, seed) = read(&mut head).map_err(|what| bad(None, what))?;
        let base = file.parent().unwrap_or(Path::new("."));
        let mistake = |(at, what)| bad(Some(line_at(at)), what);
        let Upstreams { tables, replies } = upstreams(placed.upstream).map_err(mistake)?;
        if !tables.is_empty() {
            head.0.insert("upstream".to_owned(), tables.into());
        }
        head.0.remove("server");
        let servers = placed.server.into_iter().map(|server| {
            let at = server.span().start;
            Server::read(server.into_inner()).map_err(|what| (at, what))
        });
        let servers = servers.collect::<Result<_, _>>().map_err(mistake)?;
        head.0.remove("plugins");
        let others = others(placed.plugins, base).map_err(mistake)?;
        let (plugin, text) = configuration(head.0, plugin, others).map_err(|what| bad(None, what))?;
        let mut config = Config::parse(file, &text, base)
            .map_err(|error| bad(None, format!("[route], [topic], [upstream] or [plugin]: {}", error.what())))?;
        config.cache_directory = cache();
        let steps = placed.step.into_iter().map(|step| {
            let line = line_at(step.span().start);
            Step::read(line, step.into_inner()).map_err(|what| bad(Some(line), what))
        });
        let steps: Vec<Step> = steps.collect::<Result<_, _>>()?;
        for step in &steps {
            step.check(&config).map_err(|what| bad(Some(step.line), what))?;
        }
        let about = about.unwrap_or_else(|| file.file_stem().unwrap_or_default().to_string_lossy().into_owned());
        Ok(Self { about, start, seed, config, plugin, replies, servers, steps })
    }
}

/// Gives the upstreams a place that nobody connects to, and takes out what they answer.
fn upstreams(placed: Vec<Spanned<Table>>) -> Result<Upstreams, Mistake> {
    let mut upstreams = Upstreams::default();
    for upstream in placed {
        let at = upstream.span().start;
        let mut upstream = upstream.into_inner();
        let name = upstream.get("name").and_then(toml::Value::as_str).filter(|name| is_name(name)).map(str::to_owned);
        let name = name.ok_or((at, "an upstream needs a `name` of letters, digits, `-` and `_`".to_owned()))?;
        upstream.insert("url".to_owned(), backends::url(&name).into());
        if let Some(reply) = upstream.remove("replies") {
            let reply = Reply::read(reply).map_err(|what| (at, what))?;
            // It is given before any step has found what a name stands for.
            reply.filled(&Names::default()).map_err(|error| (at, format!("`replies`: {error:#}")))?;
            upstreams.replies.insert(name, reply);
        }
        upstreams.tables.push(upstream);
    }
    Ok(upstreams)
}

/// The other plugins, with their files where they can be found from anywhere.
fn others(placed: BTreeMap<String, Spanned<Table>>, base: &Path) -> Result<Table, Mistake> {
    let mut others = Table::new();
    for (name, plugin) in placed {
        let at = plugin.span().start;
        let mut plugin = plugin.into_inner();
        let Some(toml::Value::String(file)) = plugin.get("file") else {
            return Err((
                at,
                format!("where is the plugin `{name}`? Add `file = \"PATH.wasm\"`, relative to this file"),
            ));
        };
        let file = base.join(file);
        let file = std::path::absolute(&file).unwrap_or(file);
        if !file.is_file() {
            return Err((at, format!("the plugin `{name}`: there is no file {}", file.display())));
        }
        plugin.insert("file".to_owned(), file.to_string_lossy().into_owned().into());
        others.insert(name, plugin.into());
    }
    Ok(others)
}

/// Where compiled plugins are kept: nothing is left beside the scenario.
fn cache() -> PathBuf {
    let set = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let home = || set("HOME").map(|home| home.join(".cache"));
    set("XDG_CACHE_HOME").or_else(home).unwrap_or_else(std::env::temp_dir).join("tidegate")
}

/// The name of the plugin in `file`, and the gateway's configuration, of which the scenario says what matters to it.
fn configuration(mut head: Table, file: &Path, others: Table) -> Result<(String, String), String> {
    let table = |head: &mut Table, key: &str| match head.remove(key) {
        None => Ok(Table::new()),
        Some(toml::Value::Table(table)) => Ok(table),
        Some(_) => Err(format!("`{key}` must be a table, [{key}]")),
    };
    let mut plugin = table(&mut head, "plugin")?;
    let mut route = table(&mut head, "route")?;
    let name = match plugin.remove("name") {
        None => "plugin".to_owned(),
        Some(toml::Value::String(name)) => name,
        Some(_) => return Err("the plugin's `name` must be a string".to_owned()),
    };
    let file = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
    plugin.insert("file".to_owned(), file.to_string_lossy().into_owned().into());
    check_chain(&name, &route, &others)?;
    let plugins = toml::Value::Array(vec![name.clone().into()]);
    let heartbeat = Table::from_iter([("interval".to_owned(), NEVER.into())]);
    for (key, value) in [
        ("name", "scenario".into()),
        ("path", "/".into()),
        ("plugins", plugins),
        ("heartbeat", toml::Value::Table(heartbeat)),
    ] {
        route.entry(key).or_insert(value);
    }
    head.insert("route".to_owned(), toml::Value::Array(vec![route.into()]));
    let mut plugins = others;
    plugins.insert(name.clone(), plugin.into());
    head.insert("plugin".to_owned(), plugins.into());
    Ok((name, document(&head)))
}

/// Whether the route's plugins are the ones that there are.
fn check_chain(tested: &str, route: &Table, others: &Table) -> Result<(), String> {
    if others.contains_key(tested) {
        return Err(format!("[plugins.{tested}] has the name of the plugin that is tested: its own table is [plugin]"));
    }
    let Some(toml::Value::Array(chain)) = route.get("plugins") else {
        return match others.keys().next() {
            Some(other) => Err(format!(
                "in which order are the plugins called? Add `plugins = [\"{other}\", \"{tested}\"]` to [route]"
            )),
            None => Ok(()),
        };
    };
    let chain: Vec<_> = chain.iter().filter_map(toml::Value::as_str).collect();
    if let Some(unknown) = chain.iter().find(|name| **name != tested && !others.contains_key(**name)) {
        return Err(format!("[route] names the plugin `{unknown}`: add [plugins.{unknown}] with its `file`"));
    }
    match others.keys().map(String::as_str).chain([tested]).find(|name| !chain.contains(name)) {
        Some(missing) => Err(format!("the plugin `{missing}` is in no chain: add it to `plugins` of [route]")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::expected::Effects;
    use super::*;

    fn read(text: &str) -> Result<Scenario, String> {
        let folder = tempfile::tempdir().unwrap();
        let (file, plugin) = (folder.path().join("a.toml"), folder.path().join("x.wasm"));
        std::fs::write(&file, text).unwrap();
        std::fs::write(&plugin, "").unwrap();
        Scenario::load(&file, &plugin).map_err(|bad| bad.to_string().replace(&file.display().to_string(), "a.toml"))
    }

    #[test]
    fn a_scenario_is_read_with_its_lines() {
        let scenario = read(
            "about = \"a story\"\nstart = 2030-01-01T00:00:01Z\n[plugin.grants]\nusers = true\n[route]\npath = \"/x/{id}\"\n\
             [[topic]]\npattern = \"*\"\n\n[[step]]\nconnect = \"alice\"\n\n[[step]]\nname = \"hi\"\nclient = \"alice\"\n\
             sends = [\"a\", { hex = \"00\" }]\neffects = [{ set-timer = \"t\", after = \"30s\" }]\n",
        )
        .unwrap();
        assert_eq!((&*scenario.about, scenario.start), ("a story", 1_893_456_001_000));
        assert!(scenario.config.plugins["plugin"].grants.users);
        assert_eq!(scenario.config.routes[0].path.get_ref(), "/x/{id}");
        let steps: Vec<_> = scenario.steps.iter().map(|step| (step.line, &*step.name)).collect();
        assert_eq!(steps, [(10, "alice connects"), (13, "hi")]);
        let Some(Effects::These(effects)) = &scenario.steps[1].expected.effects else { panic!() };
        assert_eq!(effects[0], json!({ "set-timer": "t", "after": 30_000 }));
    }

    #[test]
    fn mistakes_are_told_with_their_line_and_a_cure() {
        let step = |text: &str| read(&format!("about = \"x\"\n[[step]]\n{text}")).err().unwrap();
        for (text, expected) in [
            ("konnect = \"a\"", "a.toml:2: nothing happens: a step has one of `connect`"),
            ("connect = \"a\"\nrecieves = {}", "a.toml:2: `recieves` is no word of this step"),
            ("client = \"a\"", "what does a do?"),
            ("client = \"a\"\nsends = { hex = \"0\" }", "is not hexadecimal"),
            ("advance = \"soon\"", "\"soon\" is no duration"),
            ("connect = \"a b\"", "cannot name a client"),
            ("connect = \"a\"\npeer = \"here\"", "no IP address"),
            ("connect = \"a\"\nadmitted = true\nrefused = 401", "either `admitted` or `refused`"),
            ("client = \"a\"\nsends = \"x\"\nadmitted = true", "`admitted` is no word"),
            ("connect = \"a\"\neffects = [\"x\"]", "an effect is a table"),
            ("upstream = \"back\"", "what does back do?"),
            ("upstream = \"back\"\nreplies = 200", "a.toml:2: there is no upstream `back`: add [[upstream]]"),
            ("request = \"/\"", "\"/\" is no request: write a method and a path"),
            ("request = \"GET a\"", "the path \"a\" must begin with `/`"),
            ("request = \"GET /\"\nresponds = { stauts = 200 }", "`responds` is a status, or a table"),
            ("request = \"GET /\"\nservers = [{ url = \"a.test\" }]", "a.toml:2: \"a.test\" is no URL"),
            ("connect = \"a\"\nresponds = 200", "`responds` is no word of this step"),
            ("connect = ", "a.toml:3: "),
        ] {
            let told = step(text);
            assert!(told.contains(expected), "{text}: {told}");
        }
        let told = read("[plugin.grants]\npublishes = []").err().unwrap();
        assert!(told.contains("unknown field `publishes`"), "{told}");
        for (text, expected) in [
            ("\n[[upstream]]\nurl = \"http://a/\"", "a.toml:2: an upstream needs a `name`"),
            ("\n\n[[server]]\nurl = \"http://a.test\"", "a.toml:3: what does http://a.test/ answer?"),
            ("[[upstream]]\nname = \"back\"\nreplies = \"ok\"", "a.toml:1: `replies` is a status"),
            (
                "[[upstream]]\nname = \"back\"\nreplies = { body = \"${id}\" }",
                "a.toml:1: `replies`: ${id} stands for nothing",
            ),
            ("[[upstream]]\nname = \"back\"\ntimeuot = \"1s\"", "unknown field `timeuot`"),
        ] {
            let told = read(text).err().unwrap();
            assert!(told.contains(expected), "{text}: {told}");
        }
        for (text, expected) in [
            ("[plugins.a]\ngrants = {}", "a.toml:1: where is the plugin `a`? Add `file"),
            ("\n[plugins.a]\nfile = \"no.wasm\"", "a.toml:2: the plugin `a`: there is no file "),
            (
                "[plugins.a]\nfile = \"x.wasm\"",
                "in which order are the plugins called? Add `plugins = [\"a\", \"plugin\"]`",
            ),
            ("[plugins.plugin]\nfile = \"x.wasm\"", "its own table is [plugin]"),
            ("[route]\nplugins = [\"a\", \"plugin\"]", "add [plugins.a] with its `file`"),
            ("[route]\nplugins = [\"a\"]\n[plugins.a]\nfile = \"x.wasm\"", "the plugin `plugin` is in no chain"),
        ] {
            let told = read(text).err().unwrap();
            assert!(told.contains(expected), "{text}: {told}");
        }
        let told = read("start = \"noon\"").err().unwrap();
        assert!(told.contains("\"noon\" is no time"), "{told}");
    }
}
