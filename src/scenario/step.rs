//! What happens in a step of a scenario file.

use std::net::IpAddr;
use std::time::Duration;

use serde_json::Value;
use toml::Table;

use super::expected::Expected;
use super::keys::{Keys, check_message, duration};
use super::pattern::is_name;
use super::reply::Reply;
use crate::config::Config;

pub struct Step {
    pub line: usize,
    pub name: String,
    pub event: Event,
    pub expected: Expected,
}

/// What happens.
pub enum Event {
    Connect(Box<Connect>),
    Send {
        client: String,
        messages: Vec<Value>,
    },
    Close {
        client: String,
        code: u16,
        reason: String,
    },
    Break {
        client: String,
    },
    Advance(Duration),
    /// What an upstream was asked is answered: the oldest, or the oldest of a client.
    Reply {
        upstream: String,
        to: Option<String>,
        reply: Reply,
    },
    Publish {
        topic: String,
        message: Value,
        key: Option<String>,
        metadata: Vec<(String, String)>,
    },
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

impl Step {
    pub fn read(line: usize, table: Table) -> Result<Self, String> {
        let mut keys = Keys(table);
        let name = keys.text("name")?;
        let event = Event::read(&mut keys)?;
        let expected = Expected::read(&mut keys, matches!(event, Event::Connect(_)))?;
        keys.done("this step")?;
        let name = name.unwrap_or_else(|| event.name());
        Ok(Self { line, name, event, expected })
    }

    /// What only the rest of the file can tell.
    pub fn check(&self, config: &Config) -> Result<(), String> {
        let Event::Reply { upstream, .. } = &self.event else { return Ok(()) };
        match config.upstreams.iter().any(|known| known.name.get_ref() == upstream) {
            true => Ok(()),
            false => Err(format!("there is no upstream `{upstream}`: add [[upstream]] with `name = \"{upstream}\"`")),
        }
    }
}

impl Event {
    fn read(keys: &mut Keys) -> Result<Self, String> {
        if let Some(client) = keys.text("connect")? {
            return Ok(Self::Connect(Box::new(Connect::read(client, keys)?)));
        }
        if let Some(upstream) = keys.text("upstream")? {
            let reply = keys
                .0
                .remove("replies")
                .ok_or_else(|| format!("what does {upstream} do? Add `replies = {{ status = 200, body = \"…\" }}`"))?;
            return Ok(Self::Reply { upstream, to: keys.text("to")?, reply: Reply::read(reply)? });
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
        Err("nothing happens: a step has one of `connect`, `client`, `advance`, `publish` and `upstream`".to_owned())
    }

    fn name(&self) -> String {
        match self {
            Self::Connect(connect) => format!("{} connects", connect.client),
            Self::Send { client, .. } => format!("{client} sends"),
            Self::Close { client, .. } => format!("{client} closes"),
            Self::Break { client } => format!("the connection of {client} breaks"),
            Self::Advance(by) => format!("{} pass", humantime::format_duration(*by)),
            Self::Reply { upstream, .. } => format!("{upstream} replies"),
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
