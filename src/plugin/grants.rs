//! What a plugin may do beyond the session that it is called for; nothing unless it is written down.

use crate::config::Grants;
use crate::message::Pattern;

/// Grants, ready to be asked.
#[derive(Debug, Default)]
pub struct Granted {
    pub publish: Vec<Pattern>,
    pub subscribe: Vec<Pattern>,
    pub users: bool,
    pub sessions: bool,
    kv: Vec<Box<str>>,
}

impl Granted {
    pub fn new(grants: &Grants) -> Self {
        let patterns = |list: &[String]| list.iter().map(|pattern| Pattern::new(pattern)).collect();
        Self {
            publish: patterns(&grants.publish),
            subscribe: patterns(&grants.subscribe),
            users: grants.users,
            sessions: grants.sessions,
            kv: grants.kv.iter().map(|prefix| prefix.as_str().into()).collect(),
        }
    }

    /// Whether the plugin may use this key of the store.
    pub fn key(&self, key: &str) -> bool {
        self.kv.iter().any(|prefix| key.starts_with(&**prefix))
    }
}
