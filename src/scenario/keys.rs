//! Words of a scenario file: what is left to be read of a table, messages, durations and times.

use serde_json::Value;
use toml::Table;

use super::pattern::binary;
use super::words;

/// What the clock shows unless the file says something else.
pub const START: &str = "2030-01-01T00:00:00Z";

/// What is left to be read of a table.
pub struct Keys(pub Table);

impl Keys {
    pub fn json(&mut self, key: &str) -> Option<Value> {
        self.0.remove(key).as_ref().map(words::json)
    }

    pub fn text(&mut self, key: &str) -> Result<Option<String>, String> {
        match self.0.remove(key) {
            None => Ok(None),
            Some(toml::Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(format!("`{key}` must be a string")),
        }
    }

    pub fn list(&mut self, key: &str) -> Result<Option<Vec<Value>>, String> {
        match self.json(key) {
            None => Ok(None),
            Some(Value::Array(list)) => Ok(Some(list)),
            Some(_) => Err(format!("`{key}` must be a list")),
        }
    }

    /// Nothing may be left: `of` is what has no such word.
    pub fn done(&self, of: &str) -> Result<(), String> {
        match self.0.keys().next() {
            Some(key) => Err(format!("`{key}` is no word of {of}: see docs/reference/scenario.md")),
            None => Ok(()),
        }
    }

    /// A table of strings; a list of values repeats the key.
    pub fn pairs(&mut self, key: &str) -> Result<Vec<(String, String)>, String> {
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

pub fn check_message(message: &Value) -> Result<(), String> {
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

/// Milliseconds: a number of them, or `"30s"`.
pub fn duration(value: &Value) -> Result<u64, String> {
    match value {
        Value::Number(millis) => millis.as_u64().ok_or_else(|| format!("{millis} is no duration")),
        Value::String(text) => humantime::parse_duration(text)
            .map(|duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
            .map_err(|error| format!("{text:?} is no duration such as \"30s\": {error}")),
        other => Err(format!("{other} is no duration such as \"30s\"")),
    }
}

/// Unix time in milliseconds: a number of them, or RFC 3339.
pub fn time(value: &Value) -> Result<u64, String> {
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
