//! A tap on what plugins do, for scenarios: whoever holds it is told of each call, with what came of it.

use serde_json::Value;

use crate::message::SessionId;

/// Is told in the order in which things happen.
pub trait Tap: Send + Sync {
    fn note(&self, note: Note);
}

/// One thing that a plugin did, as JSON where it is the interface's own.
#[derive(Debug)]
pub enum Note {
    /// A hook was called and has answered.
    Call(Box<Called>),
    /// A log line; `level` in lower case.
    Log { plugin: String, level: &'static str, message: String, fields: Vec<(String, String)> },
    /// A call of the key-value store, with its result.
    Kv { plugin: String, call: Value },
    /// Something was denied for want of a grant.
    Denied { plugin: String, grant: &'static str, what: String },
    /// An effect was refused as it was applied.
    Refused { why: String },
}

/// A call of a hook.
#[derive(Debug)]
pub struct Called {
    pub plugin: String,
    pub hook: &'static str,
    pub session: Option<SessionId>,
    /// What it was called with.
    pub given: Value,
    /// What it answered, or why it failed.
    pub answer: Result<Value, String>,
    /// What it asked for. Nothing of it is applied if a plugin of the chain fails.
    pub effects: Vec<Value>,
    /// From the call to its answer.
    pub took: std::time::Duration,
}
