//! What a plugin may do beyond the session that it is called for; nothing unless it is written down.

use crate::config::{Grants, HostPattern};
use crate::message::Pattern;

/// Grants, ready to be asked.
#[derive(Debug, Default)]
pub struct Granted {
    pub publish: Vec<Pattern>,
    pub subscribe: Vec<Pattern>,
    pub users: bool,
    pub sessions: bool,
    pub upstreams: Vec<Box<str>>,
    headers: Vec<Pattern>,
    kv: Vec<Box<str>>,
    http: Vec<HostPattern>,
}

impl Granted {
    pub fn new(grants: &Grants) -> Self {
        let patterns = |list: &[String]| list.iter().map(|pattern| Pattern::new(pattern)).collect();
        Self {
            publish: patterns(&grants.publish),
            subscribe: patterns(&grants.subscribe),
            users: grants.users,
            sessions: grants.sessions,
            upstreams: grants.upstreams.iter().map(|name| name.as_str().into()).collect(),
            headers: patterns(&grants.headers.iter().map(|name| name.to_ascii_lowercase()).collect::<Vec<_>>()),
            kv: grants.kv.iter().map(|prefix| prefix.as_str().into()).collect(),
            http: grants.http.clone(),
        }
    }

    /// Whether the plugin may read this request header.
    pub fn header(&self, name: &str) -> bool {
        let name = name.to_ascii_lowercase();
        self.headers.iter().any(|pattern| pattern.matches(&name))
    }

    /// Whether the plugin may ask this host. `default`: the port that the scheme implies.
    pub fn host(&self, host: &str, port: u16, default: u16) -> bool {
        self.http.iter().any(|pattern| pattern.matches(host, port, default))
    }

    /// Whether the plugin may use this key of the store.
    pub fn key(&self, key: &str) -> bool {
        self.kv.iter().any(|prefix| key.starts_with(&**prefix))
    }
}
