//! Whether what came is what was expected: JSON by its structure, `${name}` for what is not known beforehand.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use super::words::inline;
use crate::message::{Message, MessageRef};

/// Allows other keys in an object, and more elements at the end of a list.
const MORE: &str = "...";

/// What the names stand for that were found so far.
#[derive(Clone, Debug, Default)]
pub struct Names {
    found: BTreeMap<String, Value>,
    /// By the id of their session.
    clients: BTreeMap<String, String>,
}

/// The first place where the two differ.
#[derive(Debug, PartialEq, Eq)]
pub struct Mismatch {
    /// Keys and indices that lead there; empty: the whole.
    pub place: String,
    pub what: String,
}

impl Names {
    /// A client, by the id of its session.
    pub fn client(&mut self, name: &str, id: &str) {
        self.found.insert(name.to_owned(), id.into());
        self.clients.insert(id.to_owned(), name.to_owned());
    }

    /// A text with what its names stand for in their places; the error is a name that stands for nothing yet.
    pub fn fill(&self, text: &str) -> Result<String, String> {
        let mut filled = String::new();
        for part in parts(text) {
            match part {
                Part::Text(text) => filled.push_str(&text),
                Part::Name(name) => match self.found.get(name) {
                    Some(Value::String(text)) => filled.push_str(text),
                    Some(other) => filled.push_str(&other.to_string()),
                    None => return Err(name.to_owned()),
                },
            }
        }
        Ok(filled)
    }

    /// The same for what a step sends or answers.
    pub fn text(&self, text: &str) -> anyhow::Result<String> {
        self.fill(text)
            .map_err(|name| anyhow::anyhow!("${{{name}}} stands for nothing yet: no step before has found it"))
    }

    /// A message of the file, ready to be sent.
    pub fn message(&self, message: &Value) -> anyhow::Result<Message> {
        let text = match message {
            Value::String(text) => self.text(text)?,
            Value::Object(form) => match form.iter().next() {
                Some((form, Value::String(text))) if form == "text" => text.clone(),
                Some((form, Value::String(text))) if form == "base64" || form == "hex" => {
                    return Ok(MessageRef::Binary(&binary(form, text).map_err(anyhow::Error::msg)?).to_owned());
                }
                Some((_, json)) => self.text(&json.to_string())?,
                None => String::new(),
            },
            other => other.to_string(),
        };
        Ok(Message::Text(text.into()))
    }

    /// A value as a scenario could say it: with the clients' names for their sessions' ids.
    pub fn told(&self, value: &Value) -> Value {
        match value {
            Value::String(text) => match self.clients.get(text) {
                Some(client) => format!("${{{client}}}").into(),
                None => value.clone(),
            },
            Value::Array(list) => list.iter().map(|value| self.told(value)).collect(),
            Value::Object(keys) => keys.iter().map(|(key, value)| (key.clone(), self.told(value))).collect(),
            plain => plain.clone(),
        }
    }

    /// Compares, and keeps what the names stand for. After a mismatch they are as they were.
    pub fn compare(&mut self, expected: &Value, got: &Value) -> Result<(), Mismatch> {
        let mut names = self.clone();
        names.compare_at(expected, got, &mut Vec::new()).map(|()| *self = names)
    }

    fn compare_at(&mut self, expected: &Value, got: &Value, place: &mut Vec<String>) -> Result<(), Mismatch> {
        match (expected, got) {
            (Value::String(text), _) => self.compare_text(text, got, place),
            (Value::Object(expected), Value::Object(got)) if !is_message(expected, got) => {
                self.compare_objects(expected, got, place)
            }
            (Value::Object(expected), _) => self.compare_message(expected, got, place),
            (Value::Array(expected), Value::Array(got)) => self.compare_lists(expected, got, place),
            (Value::Number(one), Value::Number(other)) if one.as_f64() == other.as_f64() => Ok(()),
            (expected, got) if expected == got => Ok(()),
            (expected, got) => Err(differ(place, expected, got)),
        }
    }

    fn compare_text(&mut self, text: &str, got: &Value, place: &mut Vec<String>) -> Result<(), Mismatch> {
        if let [Part::Name(name)] = parts(text)[..] {
            if name == "_" {
                return Ok(());
            }
            if let Some(known) = self.found.get(name).filter(|known| *known != got) {
                let what = format!("${{{name}}} was {}, and now it is {}", inline(known), inline(got));
                return Err(Mismatch { place: place.join("."), what });
            }
            self.found.insert(name.to_owned(), got.clone());
            return Ok(());
        }
        let Value::String(got_text) = got else { return Err(differ(place, &text.into(), got)) };
        if let Some(expected) = structure(text)
            && let Ok(got) = serde_json::from_str::<Value>(got_text)
        {
            return self.compare_at(&expected, &got, place);
        }
        if self.compare_parts(&parts(text), got_text) { Ok(()) } else { Err(differ(place, &text.into(), got)) }
    }

    /// Names take as little as they can.
    fn compare_parts(&mut self, parts: &[Part<'_>], got: &str) -> bool {
        match parts {
            [] => got.is_empty(),
            [Part::Text(text), rest @ ..] => {
                got.strip_prefix(text.as_str()).is_some_and(|got| self.compare_parts(rest, got))
            }
            [Part::Name(name), rest @ ..] => {
                let known = self.found.get(*name).cloned();
                let ends = got.char_indices().map(|(at, _)| at).chain([got.len()]);
                for end in ends {
                    let taken = Value::from(&got[..end]);
                    if known.as_ref().is_some_and(|known| plain(known) != plain(&taken)) {
                        continue;
                    }
                    if *name != "_" && known.is_none() {
                        self.found.insert((*name).to_owned(), taken);
                    }
                    if self.compare_parts(rest, &got[end..]) {
                        return true;
                    }
                    if known.is_none() {
                        self.found.remove(*name);
                    }
                }
                false
            }
        }
    }

    fn compare_objects(
        &mut self,
        expected: &Map<String, Value>,
        got: &Map<String, Value>,
        place: &mut Vec<String>,
    ) -> Result<(), Mismatch> {
        for (key, expected) in expected.iter().filter(|(key, _)| *key != MORE) {
            place.push(key.clone());
            match got.get(key) {
                Some(got) => self.compare_at(expected, got, place)?,
                None => {
                    let what = format!("expected {}, and it is not there", inline(expected));
                    return Err(Mismatch { place: place.join("."), what });
                }
            }
            place.pop();
        }
        let more = got.iter().find(|(key, _)| !expected.contains_key(*key));
        if let Some((key, value)) = more.filter(|_| !expected.contains_key(MORE)) {
            place.push(key.clone());
            return Err(Mismatch { place: place.join("."), what: format!("not expected: {}", inline(value)) });
        }
        Ok(())
    }

    fn compare_lists(&mut self, expected: &[Value], got: &[Value], place: &mut Vec<String>) -> Result<(), Mismatch> {
        let (expected, more) = match expected {
            [expected @ .., Value::String(last)] if last == MORE => (expected, true),
            all => (all, false),
        };
        for (index, expected) in expected.iter().enumerate() {
            place.push(index.to_string());
            match got.get(index) {
                Some(got) => self.compare_at(expected, got, place)?,
                None => {
                    let what = format!("expected {}, and the list ends before it", inline(expected));
                    return Err(Mismatch { place: place.join("."), what });
                }
            }
            place.pop();
        }
        match got.get(expected.len()).filter(|_| !more) {
            Some(extra) => {
                place.push(expected.len().to_string());
                Err(Mismatch { place: place.join("."), what: format!("not expected: {}", inline(extra)) })
            }
            None => Ok(()),
        }
    }

    /// `{ text = … }`, `{ json = … }`, `{ base64 = … }`, `{ hex = … }`.
    fn compare_message(
        &mut self,
        expected: &Map<String, Value>,
        got: &Value,
        place: &mut Vec<String>,
    ) -> Result<(), Mismatch> {
        let whole = Value::Object(expected.clone());
        match (expected.iter().next(), got) {
            (Some((form, Value::String(text))), Value::String(got)) if form == "text" && text == got => Ok(()),
            (Some((form, expected)), Value::String(text)) if form == "json" => match serde_json::from_str(text) {
                Ok(got) => self.compare_at(expected, &got, place),
                Err(_) => Err(differ(place, &whole, got)),
            },
            (Some((form, Value::String(text))), Value::Object(object)) if form == "base64" || form == "hex" => {
                let got_bytes =
                    object.get("base64").and_then(Value::as_str).and_then(|text| STANDARD.decode(text).ok());
                let bytes = binary(form, text);
                if bytes.is_ok() && bytes.ok() == got_bytes { Ok(()) } else { Err(differ(place, &whole, got)) }
            }
            _ => Err(differ(place, &whole, got)),
        }
    }
}

/// The bytes that a `base64` or a `hex` stands for.
pub fn binary(form: &str, text: &str) -> Result<Vec<u8>, String> {
    if form == "base64" {
        return STANDARD.decode(text).map_err(|error| format!("{text:?} is not base64: {error}"));
    }
    let digits: Vec<u32> = text.chars().filter(|c| !c.is_whitespace()).filter_map(|c| c.to_digit(16)).collect();
    let clean = text.chars().all(|c| c.is_whitespace() || c.is_ascii_hexdigit()) && digits.len().is_multiple_of(2);
    if !clean {
        return Err(format!("{text:?} is not hexadecimal: two digits for each byte"));
    }
    Ok(digits.chunks(2).map(|pair| (pair[0] * 16 + pair[1]) as u8).collect())
}

/// An object or a list that a text holds.
fn structure(text: &str) -> Option<Value> {
    let begins = text.trim_start().starts_with(['{', '[']);
    begins.then(|| serde_json::from_str(text).ok()).flatten()
}

/// Whether these are a message's form and a binary message, and not two objects.
fn is_message(expected: &Map<String, Value>, got: &Map<String, Value>) -> bool {
    let form = expected.keys().next().map(String::as_str);
    expected.len() == 1 && matches!(form, Some("base64" | "hex" | "text" | "json")) && is_binary(got)
}

fn is_binary(got: &Map<String, Value>) -> bool {
    got.len() == 1 && got.contains_key("base64")
}

fn differ(place: &[String], expected: &Value, got: &Value) -> Mismatch {
    Mismatch { place: place.join("."), what: format!("expected {}, got {}", inline(expected), inline(got)) }
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[derive(Debug, PartialEq, Eq)]
enum Part<'a> {
    Text(String),
    Name(&'a str),
}

/// A text and the names in it; `$${` stands for `${`.
fn parts(text: &str) -> Vec<Part<'_>> {
    let mut parts = Vec::new();
    let mut plain = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        let name = rest[at + 2..].split_once('}').map(|(name, _)| name).filter(|name| is_name(name));
        match name {
            _ if rest[..at].ends_with('$') => {
                plain.push_str(&rest[..at - 1]);
                plain.push_str("${");
                rest = &rest[at + 2..];
            }
            Some(name) => {
                plain.push_str(&rest[..at]);
                if !plain.is_empty() {
                    parts.push(Part::Text(std::mem::take(&mut plain)));
                }
                parts.push(Part::Name(name));
                rest = &rest[at + 3 + name.len()..];
            }
            None => {
                plain.push_str(&rest[..at + 2]);
                rest = &rest[at + 2..];
            }
        }
    }
    plain.push_str(rest);
    if !plain.is_empty() {
        parts.push(Part::Text(plain));
    }
    parts
}

/// Whether it can stand between `${` and `}`.
pub fn is_name(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || c == '_' || c == '-')
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn compare(expected: Value, got: Value) -> Result<(), String> {
        Names::default().compare(&expected, &got).map_err(|m| format!("{}: {}", m.place, m.what))
    }

    #[test]
    fn json_is_compared_by_its_structure() {
        let got = json!(r#"{"b":[1,2.0],"a":"x"}"#);
        assert_eq!(compare(json!(r#"{ "a": "x", "b": [1, 2] }"#), got.clone()), Ok(()));
        assert_eq!(compare(json!({ "json": { "a": "x", "b": [1, 2] } }), got.clone()), Ok(()));
        let wrong = compare(json!(r#"{ "a": "y", "b": [1, 2] }"#), got.clone()).unwrap_err();
        assert_eq!(wrong, "a: expected \"y\", got \"x\"");
        assert_eq!(compare(json!(r#"{ "a": "x" }"#), got.clone()).unwrap_err(), "b: not expected: [1, 2.0]");
        assert_eq!(compare(json!(r#"{ "a": "x", "...": 0 }"#), got.clone()), Ok(()));
        assert_eq!(compare(json!(r#"{ "a": "x", "b": [1, "..."] }"#), got.clone()), Ok(()));
        assert!(compare(json!({ "text": r#"{ "a": "x", "b": [1, 2.0] }"# }), got.clone()).is_err());
        assert!(compare(json!(r#"{ "a": "x", "c": 1, "...": 0 }"#), got).unwrap_err().contains("not there"));
        assert!(compare(json!("[1]"), json!("no json")).is_err());
    }

    #[test]
    fn binary_messages_have_two_forms() {
        let got = json!({ "base64": "AP8=" });
        assert_eq!(compare(json!({ "hex": "00 ff" }), got.clone()), Ok(()));
        assert_eq!(compare(json!({ "base64": "AP8=" }), got.clone()), Ok(()));
        assert!(compare(json!({ "hex": "00" }), got.clone()).is_err());
        assert!(compare(json!({ "hex": "0x" }), got.clone()).is_err());
        assert!(compare(json!("text"), got).is_err());
    }

    #[test]
    fn names_are_bound_once() {
        let mut names = Names::default();
        names.client("alice", "s-1");
        names
            .compare(&json!(r#"{"id":"${id}","n":"${n}","to":"${alice}"}"#), &json!(r#"{"id":"x-7","n":5,"to":"s-1"}"#))
            .unwrap();
        assert_eq!(names.fill(r#"{"ack":"${id}","n":${n}} $${id}"#).unwrap(), r#"{"ack":"x-7","n":5} ${id}"#);
        assert_eq!(names.fill("${nobody}"), Err("nobody".to_owned()));
        let wrong = names.compare(&json!("${id}"), &json!("y")).unwrap_err();
        assert_eq!(wrong.what, "${id} was \"x-7\", and now it is \"y\"");
        assert!(names.compare(&json!("at ${_}: ${what}!"), &json!("at 5: no!")).is_ok());
        assert_eq!(names.fill("${what}").unwrap(), "no");
        assert!(names.compare(&json!("${a}-${a}"), &json!("12-13")).is_err());
        assert!(names.compare(&json!("${a}-${a}"), &json!("12-12")).is_ok());
        assert!(names.compare(&json!("${_}"), &json!({ "any": 1 })).is_ok());
        assert!(names.compare(&json!("<b>${_}</b>"), &json!("<b></b>")).is_ok());
    }
}
