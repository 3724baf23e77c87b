//! What happens in a step of a scenario file.

use std::net::IpAddr;
use std::time::Duration;

use hyper::Method;
use serde_json::Value;
use toml::Table;

use super::expected::Expected;
use super::keys::{Keys, check_message, duration};
use super::pattern::is_name;
use super::reply::Reply;
use super::servers::Server;
use crate::config::Config;

pub struct Step {
    pub line: usize,
    pub name: String,
    pub event: Event,
    /// Servers that answer in this step.
    pub servers: Vec<Server>,
    pub expected: Expected,
}

/// What happens.
pub enum Event {
    Connect(Box<Connect>),
    Request(Box<Request>),
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
    pub caller: Caller,
}

/// Plain HTTP.
pub struct Request {
    pub method: Method,
    pub caller: Caller,
    pub body: Value,
}

/// Who comes to the gateway's door, and for what.
pub struct Caller {
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
        let expected = Expected::read(&mut keys, &event)?;
        let servers = servers(&mut keys)?;
        keys.done("this step")?;
        let name = name.unwrap_or_else(|| event.name());
        Ok(Self { line, name, event, servers, expected })
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
        if let Some(request) = keys.text("request")? {
            return Ok(Self::Request(Box::new(Request::read(&request, keys)?)));
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
        Err("nothing happens: a step has one of `connect`, `client`, `request`, `advance`, `publish` and `upstream`"
            .to_owned())
    }

    fn name(&self) -> String {
        match self {
            Self::Connect(connect) => format!("{} connects", connect.client),
            Self::Request(request) => format!("{} {}", request.method, request.caller.path),
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
        let mut caller = Caller::read(path, keys)?;
        if let Some(names) = keys.list("subprotocols")? {
            let names: Vec<_> = names.iter().filter_map(Value::as_str).collect();
            caller.headers.push(("sec-websocket-protocol".to_owned(), names.join(", ")));
        }
        Ok(Self { client, caller })
    }
}

impl Request {
    /// `GET /path`.
    fn read(request: &str, keys: &mut Keys) -> Result<Self, String> {
        let wrong = || format!("{request:?} is no request: write a method and a path, such as \"GET /\"");
        let (method, path) = request.split_once(' ').ok_or_else(wrong)?;
        let method = Method::from_bytes(method.as_bytes()).map_err(|_| wrong())?;
        let caller = Caller::read(path.to_owned(), keys)?;
        let body = keys.json("body").unwrap_or_else(|| "".into());
        check_message(&body)?;
        Ok(Self { method, caller, body })
    }
}

impl Caller {
    fn read(path: String, keys: &mut Keys) -> Result<Self, String> {
        if !path.starts_with('/') || path.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return Err(format!("the path {path:?} must begin with `/` and have no spaces"));
        }
        let headers = keys.pairs("headers")?;
        if let Some((name, _)) = headers.iter().find(|(name, value)| (name.clone() + value).contains(['\r', '\n'])) {
            return Err(format!("the header {name:?} has a line break in it"));
        }
        let peer = keys.text("peer")?.unwrap_or_else(|| "127.0.0.1".to_owned());
        let peer = peer.parse().map_err(|_| format!("{peer:?} is no IP address"))?;
        let (user, attributes) = (keys.text("user")?, keys.pairs("attributes")?);
        let introduced = (user.is_some() || !attributes.is_empty()).then_some((user, attributes));
        Ok(Self { path, headers, peer, introduced })
    }
}

fn servers(keys: &mut Keys) -> Result<Vec<Server>, String> {
    let list = match keys.0.remove("servers") {
        None => return Ok(Vec::new()),
        Some(toml::Value::Array(list)) => list,
        Some(_) => return Err("`servers` is a list of tables with `url` and `replies`".to_owned()),
    };
    let read = |server| match server {
        toml::Value::Table(table) => Server::read(table),
        _ => Err("a server is a table with `url` and `replies`".to_owned()),
    };
    list.into_iter().map(read).collect()
}
