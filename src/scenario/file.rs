//! A scenario file, read and checked before anything happens.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use toml::{Spanned, Table};

use super::pattern::{binary, is_name};
use super::words::{self, document};
use crate::config::Config;

/// What the clock shows unless the file says something else.
const START: &str = "2030-01-01T00:00:00Z";
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
    pub steps: Vec<Step>,
}

pub struct Step {
    pub line: usize,
    pub name: String,
    pub event: Event,
    pub expected: Expected,
}

/// What happens.
pub enum Event {
    Connect(Box<Connect>),
    Send { client: String, messages: Vec<Value> },
    Close { client: String, code: u16, reason: String },
    Break { client: String },
    Advance(Duration),
    Publish { topic: String, message: Value, key: Option<String>, metadata: Vec<(String, String)> },
}

pub struct Connect {
    pub client: String,
    pub path: String,
    pub headers: Vec<(String, String)>,
    pub peer: IpAddr,
    /// Let in by somebody before the plugin: as whom, with which attributes.
    #[allow(clippy::type_complexity, reason = "a user and attributes")]
    pub introduced: Option<(Option<String>, Vec<(String, String)>)>,
}

/// What must come of it. None: it is not looked at.
#[derive(Default)]
pub struct Expected {
    pub effects: Option<Effects>,
    pub receives: Option<BTreeMap<String, Vec<Value>>>,
    pub admitted: Option<Value>,
    pub refused: Option<Value>,
    pub answers: Option<Vec<Value>>,
    pub hooks: Option<Vec<Value>>,
    pub logs: Option<Vec<Value>>,
    pub kv: Option<Vec<Value>>,
    pub fails: Option<String>,
    pub denied: Vec<Value>,
}

pub enum Effects {
    Any,
    These(Vec<Value>),
}

#[derive(Deserialize)]
struct Steps {
    #[serde(default)]
    step: Vec<Spanned<Table>>,
}

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
        let steps: Steps = toml::from_str(text).map_err(wrong)?;
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
        let text = configuration(head.0, plugin).map_err(|what| bad(None, what))?;
        let base = file.parent().unwrap_or(Path::new("."));
        let mut config = Config::parse(file, &text, base)
            .map_err(|error| bad(None, format!("[route], [topic] or [plugin]: {}", error.what())))?;
        config.cache_directory = cache();
        let steps = steps.step.into_iter().map(|step| {
            let line = line_at(step.span().start);
            Step::read(line, step.into_inner()).map_err(|what| bad(Some(line), what))
        });
        let steps = steps.collect::<Result<_, _>>()?;
        let about = about.unwrap_or_else(|| file.file_stem().unwrap_or_default().to_string_lossy().into_owned());
        Ok(Self { about, start, seed, config, steps })
    }
}

/// Where compiled plugins are kept: nothing is left beside the scenario.
fn cache() -> PathBuf {
    let set = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let home = || set("HOME").map(|home| home.join(".cache"));
    set("XDG_CACHE_HOME").or_else(home).unwrap_or_else(std::env::temp_dir).join("tidegate")
}

/// The gateway's configuration, of which the scenario says what matters to it.
fn configuration(mut head: Table, file: &Path) -> Result<String, String> {
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
    let mut plugins = Table::new();
    plugins.insert(name, plugin.into());
    head.insert("plugin".to_owned(), plugins.into());
    Ok(document(&head))
}

impl Step {
    fn read(line: usize, table: Table) -> Result<Self, String> {
        let mut keys = Keys(table);
        let name = keys.text("name")?;
        let event = Event::read(&mut keys)?;
        let expected = Expected::read(&mut keys, matches!(event, Event::Connect(_)))?;
        if let Some((key, _)) = keys.0.iter().next() {
            return Err(format!("`{key}` is no word of this step: see docs/reference/scenario.md"));
        }
        let name = name.unwrap_or_else(|| event.name());
        Ok(Self { line, name, event, expected })
    }
}

impl Event {
    fn read(keys: &mut Keys) -> Result<Self, String> {
        if let Some(client) = keys.text("connect")? {
            return Ok(Self::Connect(Box::new(Connect::read(client, keys)?)));
        }
        if let Some(client) = keys.text("client")? {
            if let Some(messages) = keys.json("sends") {
                let messages = if let Value::Array(list) = messages { list } else { vec![messages] };
                messages.iter().try_for_each(check_message)?;
                return Ok(Self::Send { client, messages });
            }
            if let Some(close) = keys.json("closes") {
                let (code, reason) = match &close {
                    Value::Object(table) => (table.get("code"), table.get("reason").and_then(Value::as_str)),
                    code => (Some(code), None),
                };
                let code = code.and_then(Value::as_u64).and_then(|code| u16::try_from(code).ok());
                let code = code.ok_or("`closes` is a close code, or a table with `code` and `reason`")?;
                return Ok(Self::Close { client, code, reason: reason.unwrap_or_default().to_owned() });
            }
            if keys.0.remove("breaks").is_some_and(|breaks| breaks.as_bool() == Some(true)) {
                return Ok(Self::Break { client });
            }
            return Err(format!("what does {client} do? Add `sends`, `closes` or `breaks = true`"));
        }
        if let Some(by) = keys.json("advance") {
            return Ok(Self::Advance(Duration::from_millis(duration(&by)?)));
        }
        if let Some(topic) = keys.text("publish")? {
            let message = keys.json("message").ok_or("what is published? Add `message`")?;
            check_message(&message)?;
            return Ok(Self::Publish { topic, message, key: keys.text("key")?, metadata: keys.pairs("metadata")? });
        }
        Err("nothing happens: a step has one of `connect`, `client`, `advance` and `publish`".to_owned())
    }

    fn name(&self) -> String {
        match self {
            Self::Connect(connect) => format!("{} connects", connect.client),
            Self::Send { client, .. } => format!("{client} sends"),
            Self::Close { client, .. } => format!("{client} closes"),
            Self::Break { client } => format!("the connection of {client} breaks"),
            Self::Advance(by) => format!("{} pass", humantime::format_duration(*by)),
            Self::Publish { topic, .. } => format!("somebody publishes on {topic}"),
        }
    }
}

impl Connect {
    fn read(client: String, keys: &mut Keys) -> Result<Self, String> {
        if !is_name(&client) {
            return Err(format!("{client:?} cannot name a client: use letters, digits, `-` and `_`"));
        }
        let path = keys.text("path")?.unwrap_or_else(|| "/".to_owned());
        if !path.starts_with('/') || path.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return Err(format!("the path {path:?} must begin with `/` and have no spaces"));
        }
        let mut headers = keys.pairs("headers")?;
        if let Some(names) = keys.list("subprotocols")? {
            let names: Vec<_> = names.iter().filter_map(Value::as_str).collect();
            headers.push(("sec-websocket-protocol".to_owned(), names.join(", ")));
        }
        if let Some((name, _)) = headers.iter().find(|(name, value)| (name.clone() + value).contains(['\r', '\n'])) {
            return Err(format!("the header {name:?} has a line break in it"));
        }
        let peer = keys.text("peer")?.unwrap_or_else(|| "127.0.0.1".to_owned());
        let peer = peer.parse().map_err(|_| format!("{peer:?} is no IP address"))?;
        let (user, attributes) = (keys.text("user")?, keys.pairs("attributes")?);
        let introduced = (user.is_some() || !attributes.is_empty()).then_some((user, attributes));
        Ok(Self { client, path, headers, peer, introduced })
    }
}

impl Expected {
    fn read(keys: &mut Keys, connects: bool) -> Result<Self, String> {
        let effects = match keys.json("effects") {
            None => None,
            Some(Value::Array(list)) => Some(Effects::These(list.into_iter().map(effect).collect::<Result<_, _>>()?)),
            Some(Value::String(any)) if any == "any" => Some(Effects::Any),
            Some(_) => return Err("`effects` is a list, or \"any\"".to_owned()),
        };
        let receives = match keys.json("receives") {
            None => None,
            Some(Value::Object(table)) => Some(table.into_iter().map(received).collect::<Result<_, _>>()?),
            Some(_) => return Err("`receives` is a table: a list of messages for each client".to_owned()),
        };
        let expected = Self {
            effects,
            receives,
            admitted: if connects { keys.json("admitted") } else { None },
            refused: if connects { keys.json("refused") } else { None },
            answers: keys.list("answers")?,
            hooks: keys.list("hooks")?,
            logs: keys.list("logs")?.map(|logs| logs.into_iter().map(log).collect()),
            kv: keys.list("kv")?.map(|calls| calls.into_iter().map(kv).collect::<Result<_, _>>()).transpose()?,
            fails: keys.text("fails")?,
            denied: keys.list("denied")?.unwrap_or_default(),
        };
        if expected.admitted.is_some() && expected.refused.is_some() {
            return Err("the client is either `admitted` or `refused`".to_owned());
        }
        Ok(expected)
    }
}

/// What is left to be read of a table.
struct Keys(Table);

impl Keys {
    fn json(&mut self, key: &str) -> Option<Value> {
        self.0.remove(key).as_ref().map(words::json)
    }

    fn text(&mut self, key: &str) -> Result<Option<String>, String> {
        match self.0.remove(key) {
            None => Ok(None),
            Some(toml::Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(format!("`{key}` must be a string")),
        }
    }

    fn list(&mut self, key: &str) -> Result<Option<Vec<Value>>, String> {
        match self.json(key) {
            None => Ok(None),
            Some(Value::Array(list)) => Ok(Some(list)),
            Some(_) => Err(format!("`{key}` must be a list")),
        }
    }

    /// A table of strings; a list of values repeats the key.
    fn pairs(&mut self, key: &str) -> Result<Vec<(String, String)>, String> {
        let mut pairs = Vec::new();
        match self.json(key) {
            None => {}
            Some(Value::Object(table)) => {
                for (name, value) in table {
                    let values = if let Value::Array(list) = value { list } else { vec![value] };
                    for value in values {
                        let value = value.as_str().ok_or_else(|| format!("`{key}.{name}` must be a string"))?;
                        pairs.push((name.clone(), value.to_owned()));
                    }
                }
            }
            Some(_) => return Err(format!("`{key}` must be a table")),
        }
        Ok(pairs)
    }
}

fn check_message(message: &Value) -> Result<(), String> {
    match message {
        Value::String(_) => Ok(()),
        Value::Object(form) if form.len() == 1 => match form.iter().next() {
            Some((form, Value::String(text))) if form == "base64" || form == "hex" => binary(form, text).map(drop),
            Some((form, Value::String(_))) if form == "text" => Ok(()),
            Some((form, _)) if form == "json" => Ok(()),
            _ => Err("a message is a string, { text = … }, { json = … }, { base64 = … } or { hex = … }".to_owned()),
        },
        _ => Err("a message is a string, { text = … }, { json = … }, { base64 = … } or { hex = … }".to_owned()),
    }
}

/// An effect as the gateway would describe it: times in milliseconds, and what is always there.
fn effect(mut effect: Value) -> Result<Value, String> {
    let Value::Object(keys) = &mut effect else {
        return Err("an effect is a table, such as { send = \"hello\" }".to_owned());
    };
    if let Some(after) = keys.get_mut("after") {
        *after = duration(after)?.into();
    }
    if let Some(ttl) = keys.get_mut("history").and_then(|history| history.get_mut("ttl")) {
        *ttl = duration(ttl)?.into();
    }
    if let Some(at) = keys.get_mut("set-expiry").filter(|at| *at != "" && *at != "${_}") {
        *at = time(at)?.into();
    }
    let closes = ["close", "disconnect-user", "disconnect-session"].iter().any(|verb| keys.contains_key(*verb));
    if closes {
        keys.entry("reason").or_insert("".into());
    }
    Ok(effect)
}

fn received((client, list): (String, Value)) -> Result<(String, Vec<Value>), String> {
    let Value::Array(mut list) = list else {
        return Err(format!("what {client} receives must be a list"));
    };
    for message in &mut list {
        match message {
            Value::Object(close) if close.contains_key("close") => {
                if !close.contains_key("reason") {
                    close.insert("...".to_owned(), 0.into());
                }
            }
            message => check_message(message)?,
        }
    }
    Ok((client, list))
}

fn log(log: Value) -> Value {
    match log {
        Value::String(message) => json!({ "message": message, "...": 0 }),
        Value::Object(mut log) => {
            log.insert("...".to_owned(), 0.into());
            log.into()
        }
        other => other,
    }
}

fn kv(mut call: Value) -> Result<Value, String> {
    let Value::Object(keys) = &mut call else {
        return Err("a call of the store is a table, such as { get = \"key\", is = \"value\" }".to_owned());
    };
    let takes_ttl = ["set", "increment", "compare-and-set"].iter().any(|verb| keys.contains_key(*verb));
    if takes_ttl {
        let ttl = keys.entry("ttl").or_insert(0.into());
        *ttl = duration(ttl)?.into();
    }
    if !keys.contains_key("is") {
        keys.insert("...".to_owned(), 0.into());
    }
    Ok(call)
}

/// Milliseconds: a number of them, or `"30s"`.
fn duration(value: &Value) -> Result<u64, String> {
    match value {
        Value::Number(millis) => millis.as_u64().ok_or_else(|| format!("{millis} is no duration")),
        Value::String(text) => humantime::parse_duration(text)
            .map(|duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
            .map_err(|error| format!("{text:?} is no duration such as \"30s\": {error}")),
        other => Err(format!("{other} is no duration such as \"30s\"")),
    }
}

/// Unix time in milliseconds: a number of them, or RFC 3339.
fn time(value: &Value) -> Result<u64, String> {
    let text = match value {
        Value::Number(millis) => return millis.as_u64().ok_or_else(|| format!("{millis} is no time")),
        Value::String(text) => text,
        other => return Err(format!("{other} is no time such as 2030-01-01T00:00:00Z")),
    };
    let time =
        humantime::parse_rfc3339(text).map_err(|error| format!("{text:?} is no time such as {START}: {error}"))?;
    let since = time.duration_since(std::time::UNIX_EPOCH).map_err(|_| format!("{text} is before 1970"))?;
    Ok(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
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
            ("connect = ", "a.toml:3: "),
        ] {
            let told = step(text);
            assert!(told.contains(expected), "{text}: {told}");
        }
        let told = read("[plugin.grants]\npublishes = []").err().unwrap();
        assert!(told.contains("unknown field `publishes`"), "{told}");
        let told = read("start = \"noon\"").err().unwrap();
        assert!(told.contains("\"noon\" is no time"), "{told}");
    }
}
