//! What came of a step, in the words of a scenario file.
//!
//! The scenario is about one plugin, whose doings stand as they are. What the others of its chain do is told with their
//! names.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::client::Handshake;
use super::pattern::Names;
use super::request::Response;
use super::step::{Connect, Event};
use super::world::Happened;
use crate::tap::{Called, Note};

/// The key that says whose doing something is.
const PLUGIN: &str = "plugin";

/// What happened in a step, in the words of a scenario file.
#[derive(Debug, Default)]
pub struct Came {
    pub hooks: Vec<Value>,
    pub answers: Vec<Value>,
    pub effects: Vec<Value>,
    pub failures: Vec<String>,
    pub logs: Vec<Value>,
    pub kv: Vec<Value>,
    pub asks: Vec<Value>,
    pub denied: Vec<Value>,
    pub refused: Vec<String>,
    pub received: BTreeMap<String, Vec<Value>>,
    pub handshake: Option<Handshake>,
    pub response: Option<Response>,
    /// What was asked of servers that the scenario does not have.
    pub unanswered: Vec<String>,
    /// Whom the client was let in as.
    pub user: Option<String>,
}

impl Came {
    /// `tested` is the plugin that the scenario is about.
    pub fn of(tested: &str, event: &Event, happened: Happened) -> Self {
        let mut came = Self {
            received: happened.received,
            handshake: happened.handshake,
            response: happened.response,
            asks: happened.asked,
            unanswered: happened.unanswered,
            ..Self::default()
        };
        if let Event::Connect(connect) = event {
            came.user = introduced(connect);
        }
        for note in happened.notes {
            match note {
                Note::Call(called) => came.call(tested, *called),
                Note::Log { plugin, level, message, fields } => {
                    let mut line = json!({ "level": level, "message": message });
                    if !fields.is_empty() {
                        line["fields"] =
                            fields.into_iter().map(|(name, value)| (name, value.into())).collect::<Map<_, _>>().into();
                    }
                    came.logs.push(by(tested, &plugin, "message", line));
                }
                Note::Kv { plugin, call } => came.kv.push(by(tested, &plugin, "call", call)),
                Note::Denied { plugin, grant, what } => {
                    came.denied.push(by(tested, &plugin, "denied", format!("{grant} {what}").into()));
                }
                Note::Refused { why } => came.refused.push(why),
            }
        }
        came
    }

    fn call(&mut self, tested: &str, called: Called) {
        let by = |word: &str, value: Value| by(tested, &called.plugin, word, value);
        self.hooks.push(by("hook", called.hook.into()));
        match called.answer {
            Ok(answer) => {
                if let Some(user) = answer.get("admit") {
                    self.user = user.as_str().map(str::to_owned);
                }
                if answer != "done" {
                    self.answers.push(by("answer", without_nulls(answer)));
                }
                let effects = called.effects.into_iter().map(without_nulls);
                self.effects.extend(effects.map(|effect| by("effect", effect)));
            }
            // Nothing that it asked for is applied.
            Err(why) if called.plugin == tested => self.failures.push(format!("{}: {why}", called.hook)),
            Err(why) => self.failures.push(format!("{}: {}: {why}", called.plugin, called.hook)),
        }
    }

    /// With the clients' names for their sessions' ids.
    pub fn tell(&mut self, names: &Names) {
        let lists = [&mut self.effects, &mut self.kv, &mut self.asks].into_iter().chain(self.received.values_mut());
        for value in lists.flatten() {
            *value = names.told(value);
        }
    }
}

/// With the name of the plugin whose doing it is, where it is not the one that the scenario is about. A value that has no
/// place for it gets one, under `word`.
fn by(tested: &str, plugin: &str, word: &str, value: Value) -> Value {
    if plugin == tested {
        return value;
    }
    match value {
        Value::Object(mut keys) => {
            keys.insert(PLUGIN.to_owned(), plugin.into());
            keys.into()
        }
        other => json!({ word: other, PLUGIN: plugin }),
    }
}

/// What a list of expectations is about: the plugin that the scenario is about alone, unless others are named in it.
pub fn concerned(expected: &[Value], got: &[Value]) -> Vec<Value> {
    let is_other = |value: &Value| value.get(PLUGIN).is_some();
    let all = expected.iter().any(is_other);
    got.iter().filter(|value| all || !is_other(value)).cloned().collect()
}

/// The user that the scenario itself says the client is.
fn introduced(connect: &Connect) -> Option<String> {
    connect.caller.introduced.as_ref().and_then(|(user, _)| user.clone())
}

/// TOML has no null: nobody, and never, are empty; an attribute that is removed has no value.
fn without_nulls(value: Value) -> Value {
    let Value::Object(keys) = value else { return value };
    let kept = keys.into_iter().filter_map(|(key, value)| match value {
        Value::Null if key == "value" => None,
        Value::Null => Some((key, "".into())),
        value => Some((key, value)),
    });
    Value::Object(kept.collect())
}
