//! What a call asks beyond its event, and what it hears: kept while it is recorded, answered from a recording while it is
//! replayed.
//!
//! A question is an object: `ask` is the function, its arguments follow, and `is` is the answer or `refused` the
//! refusal. Whoever asks the same again hears the next answer that was recorded for it; once there is none left, the
//! last one, unless the call itself has written there since.

use parking_lot::Mutex;
use serde_json::{Map, Value, json};

/// What stands where something was redacted.
pub const REDACTED: &str = "REDACTED";

/// Arguments by which an answer is not found: what is written does not decide what is heard.
const WRITTEN: [&str; 4] = ["value", "ttl", "body", "headers"];
/// Questions of one call that are kept. A call may ask some ten thousand times, and nobody reads that.
const ASKED: usize = 10_000;

/// The questions of one call. Shared with what a guest asks by WASI.
pub struct Script(Mutex<Inner>);

enum Inner {
    Recording(Vec<Value>),
    Replaying(Replay),
}

/// A replayed call: what was recorded of it, and what it asks now.
#[derive(Default)]
struct Replay {
    recorded: Vec<Known>,
    now: Now,
    /// What of the things done is known only when the call has ended.
    later: Vec<Later>,
}

type Later = (usize, &'static str, Box<dyn FnOnce() -> Option<Value> + Send>);

struct Known {
    question: Value,
    heard: bool,
    /// The call has written there since.
    stale: bool,
}

/// What a replayed call has asked for.
#[derive(Debug, Default, PartialEq)]
pub struct Now {
    /// What it would have done at once: the store's writes, requests to other servers.
    pub done: Vec<Value>,
    /// What the recording has no answer for.
    pub unanswered: Vec<Value>,
    /// It was given something that was redacted.
    pub saw_redacted: bool,
}

/// What a question hears.
#[derive(Debug, PartialEq)]
pub enum Heard {
    /// What there is: the call is not replayed.
    Live,
    Recorded(Value),
    /// The recording has no answer.
    Nothing,
}

impl Script {
    /// For a call that is recorded.
    pub fn recording() -> Self {
        Self(Mutex::new(Inner::Recording(Vec::new())))
    }

    /// For a call that is replayed, with the questions of a recording.
    pub fn replaying(recorded: Vec<Value>) -> Self {
        let known = |question| Known { question, heard: false, stale: false };
        let recorded = recorded.into_iter().map(known).collect();
        Self(Mutex::new(Inner::Replaying(Replay { recorded, ..Replay::default() })))
    }

    /// What a question hears. Its arguments are an object. A question that nothing answers is noted, unless it is
    /// `lenient`: whoever asks it has an answer of its own that serves as well.
    pub fn ask(&self, ask: &str, with: impl FnOnce() -> Value, lenient: bool) -> Heard {
        match &mut *self.0.lock() {
            Inner::Recording(_) => Heard::Live,
            Inner::Replaying(replay) => replay.ask(question(ask, with()), lenient),
        }
    }

    /// Keeps a question with its answer, `is` or `refused`, if the call is recorded. Returns its place.
    pub fn keep(
        &self,
        ask: &str,
        with: impl FnOnce() -> Value,
        answer: impl FnOnce() -> (&'static str, Value),
    ) -> usize {
        if let Inner::Recording(asked) = &mut *self.0.lock()
            && asked.len() < ASKED
        {
            let mut question = question(ask, with());
            let (key, answer) = answer();
            question.insert(key.to_owned(), answer);
            asked.push(question.into());
            return asked.len() - 1;
        }
        usize::MAX
    }

    /// Adds to a question that was kept at this place.
    pub fn add(&self, place: usize, key: &str, value: Value) {
        if let Inner::Recording(asked) = &mut *self.0.lock()
            && let Some(Value::Object(question)) = asked.get_mut(place)
        {
            question.insert(key.to_owned(), value);
        }
    }

    /// Notes what a replayed call does at once. Returns its place.
    pub fn done(&self, ask: &str, with: impl FnOnce() -> Value) -> usize {
        if let Inner::Replaying(replay) = &mut *self.0.lock() {
            replay.now.done.push(question(ask, with()).into());
            return replay.now.done.len() - 1;
        }
        usize::MAX
    }

    /// Adds to what is done at this place, once the call has ended.
    pub fn later(&self, place: usize, key: &'static str, value: impl FnOnce() -> Option<Value> + Send + 'static) {
        if let Inner::Replaying(replay) = &mut *self.0.lock() {
            replay.later.push((place, key, Box::new(value)));
        }
    }

    pub fn is_replaying(&self) -> bool {
        matches!(*self.0.lock(), Inner::Replaying(_))
    }

    /// The guest is given this text.
    pub fn gives(&self, text: &str) {
        if let Inner::Replaying(replay) = &mut *self.0.lock() {
            replay.now.saw_redacted |= text.contains(REDACTED);
        }
    }

    /// What a recorded call has asked, in its order.
    pub fn asked(&self) -> Vec<Value> {
        match &mut *self.0.lock() {
            Inner::Recording(asked) => std::mem::take(asked),
            Inner::Replaying(_) => Vec::new(),
        }
    }

    /// What a replayed call has done and missed.
    pub fn now(&self) -> Now {
        match &mut *self.0.lock() {
            Inner::Recording(_) => Now::default(),
            Inner::Replaying(replay) => {
                for (place, key, value) in std::mem::take(&mut replay.later) {
                    if let (Some(Value::Object(done)), Some(value)) = (replay.now.done.get_mut(place), value()) {
                        done.insert(key.to_owned(), value);
                    }
                }
                std::mem::take(&mut replay.now)
            }
        }
    }
}

impl Replay {
    fn ask(&mut self, question: Map<String, Value>, lenient: bool) -> Heard {
        let is_same = |known: &Known| same(&known.question, &question);
        let mut found = self.recorded.iter_mut().filter(|known| is_same(known));
        let next = found.find(|known| !known.heard);
        let known = match next {
            Some(known) => Some(known),
            None => self.recorded.iter_mut().rev().find(|known| !known.stale && is_same(known)),
        };
        let Some(known) = known else {
            if !lenient {
                self.now.unanswered.push(question.into());
            }
            return Heard::Nothing;
        };
        known.heard = true;
        let answer = known.question.clone();
        self.now.saw_redacted |= answer.to_string().contains(REDACTED);
        // What was heard of a key before it was written says nothing about it any more.
        if is_write(&answer)
            && let Some(key) = answer.get("key")
        {
            let before = self.recorded.iter_mut().filter(|known| known.heard && known.question.get("key") == Some(key));
            before.for_each(|known| known.stale = true);
        }
        Heard::Recorded(answer)
    }
}

/// Whether something outside has changed by it.
pub fn is_write(question: &Value) -> bool {
    let ask = question.get("ask").and_then(Value::as_str);
    matches!(ask, Some("kv.set" | "kv.delete" | "kv.increment" | "kv.compare-and-set" | "http.request"))
}

/// What a recorded call has done at once, without what it heard.
pub fn done(asked: &[Value]) -> Vec<Value> {
    let without_answer = |question: &Value| {
        let mut question = question.clone();
        if let Value::Object(keys) = &mut question {
            keys.remove("is");
            keys.remove("refused");
        }
        question
    };
    asked.iter().filter(|question| is_write(question)).map(without_answer).collect()
}

fn question(ask: &str, with: Value) -> Map<String, Value> {
    let mut question = Map::new();
    question.insert("ask".to_owned(), ask.into());
    if let Value::Object(with) = with {
        question.extend(with);
    }
    question
}

/// Whether a recorded question is this one.
fn same(recorded: &Value, question: &Map<String, Value>) -> bool {
    let Value::Object(recorded) = recorded else { return false };
    let decides = |key: &&String| !WRITTEN.contains(&key.as_str()) && !matches!(key.as_str(), "is" | "refused");
    recorded.keys().filter(decides).count() == question.keys().filter(decides).count()
        && question.iter().filter(|(key, _)| decides(key)).all(|(key, value)| recorded.get(key) == Some(value))
}

/// No arguments.
pub fn nothing() -> Value {
    json!({})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(script: &Script, ask: &str, with: Value) -> Value {
        match script.ask(ask, || with, false) {
            Heard::Recorded(answer) => answer["is"].clone(),
            other => format!("{other:?}").into(),
        }
    }

    #[test]
    fn answers_come_in_their_order_by_what_was_asked() {
        let script = Script::replaying(vec![
            json!({ "ask": "clock.now", "is": 1 }),
            json!({ "ask": "kv.get", "key": "a", "is": "A1" }),
            json!({ "ask": "kv.get", "key": "b", "is": "B1" }),
            json!({ "ask": "clock.now", "is": 2 }),
            json!({ "ask": "kv.get", "key": "a", "is": "A2" }),
        ]);
        let get = |key: &str| heard(&script, "kv.get", json!({ "key": key }));
        assert_eq!([get("b"), get("a"), get("a"), get("a")], ["B1", "A1", "A2", "A2"]);
        assert_eq!([1, 2, 3].map(|_| heard(&script, "clock.now", nothing())), [json!(1), json!(2), json!(2)]);
        assert_eq!(script.now(), Now::default());
        assert_eq!(get("c"), "Nothing");
        assert_eq!(heard(&script, "random.number", nothing()), "Nothing");
        assert_eq!(script.ask("wasi.random", nothing, true), Heard::Nothing);
        let unanswered = script.now().unanswered;
        assert_eq!(unanswered, [json!({ "ask": "kv.get", "key": "c" }), json!({ "ask": "random.number" })]);
    }

    #[test]
    fn what_is_written_is_no_part_of_the_question_and_ends_what_was_known() {
        let script = Script::replaying(vec![
            json!({ "ask": "kv.get", "key": "a", "is": "REDACTED" }),
            json!({ "ask": "kv.set", "key": "a", "value": "old", "ttl": 5, "is": true }),
        ]);
        assert_eq!(heard(&script, "kv.get", json!({ "key": "a" })), "REDACTED");
        assert_eq!(heard(&script, "kv.set", json!({ "key": "a", "value": "new", "ttl": 0 })), true);
        assert_eq!(heard(&script, "kv.get", json!({ "key": "a" })), "Nothing");
        assert!(script.now().saw_redacted);
    }

    #[test]
    fn a_recording_keeps_questions_with_their_answers() {
        let script = Script::recording();
        assert_eq!(script.ask("clock.now", nothing, false), Heard::Live);
        script.keep("clock.now", nothing, || ("is", 5.into()));
        let place = script.keep("http.request", || json!({ "method": "PUT" }), || ("is", Value::Null));
        script.add(place, "is", json!({ "status": 200 }));
        script.add(usize::MAX, "is", Value::Null);
        let asked = script.asked();
        assert_eq!(
            asked,
            [
                json!({ "ask": "clock.now", "is": 5 }),
                json!({ "ask": "http.request", "method": "PUT", "is": { "status": 200 } })
            ]
        );
        assert_eq!(done(&asked), [json!({ "ask": "http.request", "method": "PUT" })]);
    }
}
