//! Reads a table of the configuration field by field, so that every error names the field and its cure.

use serde_json::{Map, Value};

/// A table whose fields are taken out one by one. What is left at the end is an error.
pub(crate) struct Fields {
    /// What stands before a field's name in an error: empty, or `keys[2].`.
    prefix: String,
    left: Map<String, Value>,
    asked: Vec<&'static str>,
}

impl Fields {
    pub(crate) fn new(prefix: String, table: Map<String, Value>) -> Self {
        Self { prefix, left: table, asked: Vec::new() }
    }

    /// An error about this field.
    pub(crate) fn error(&self, name: &str, error: impl AsRef<str>) -> String {
        format!("`{}{name}` {}", self.prefix, error.as_ref())
    }

    pub(crate) fn text(&mut self, name: &'static str) -> Result<Option<String>, String> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(self.error(name, format!("is {}; write {name} = \"…\"", kind(&other)))),
        }
    }

    pub(crate) fn flag(&mut self, name: &'static str, default: bool) -> Result<bool, String> {
        match self.take(name) {
            None => Ok(default),
            Some(Value::Bool(flag)) => Ok(flag),
            Some(other) => Err(self.error(name, format!("is {}; write {name} = {}", kind(&other), !default))),
        }
    }

    pub(crate) fn number(&mut self, name: &'static str, default: u64) -> Result<u64, String> {
        match self.take(name) {
            None => Ok(default),
            Some(value) => value
                .as_u64()
                .ok_or_else(|| self.error(name, format!("is {value}; write a whole number: {name} = {default}"))),
        }
    }

    /// A string or a list of strings, none of them empty.
    pub(crate) fn texts(&mut self, name: &'static str) -> Result<Option<Vec<String>>, String> {
        let values = match self.take(name) {
            None => return Ok(None),
            Some(Value::Array(values)) => values,
            Some(value) => vec![value],
        };
        let text = |value: Value| match value {
            Value::String(text) if !text.is_empty() => Ok(text),
            Value::String(_) => Err(self.error(name, "holds an empty string; take it out")),
            other => Err(self.error(name, format!("holds {}; write {name} = [\"…\"]", kind(&other)))),
        };
        let texts: Vec<String> = values.into_iter().map(text).collect::<Result<_, _>>()?;
        match texts.is_empty() {
            true => Err(self.error(name, "is an empty list; name something, or take the line out")),
            false => Ok(Some(texts)),
        }
    }

    pub(crate) fn tables(&mut self, name: &'static str) -> Result<Vec<Fields>, String> {
        let values = match self.take(name) {
            None => return Ok(Vec::new()),
            Some(Value::Array(values)) => values,
            Some(other) => return Err(self.error(name, format!("is {}; write {name} = [{{ … }}]", kind(&other)))),
        };
        let table = |(index, value): (usize, Value)| match value {
            Value::Object(table) => Ok(Self::new(format!("{}{name}[{index}].", self.prefix), table)),
            other => Err(self.error(&format!("{name}[{index}]"), format!("is {} and must be a table", kind(&other)))),
        };
        values.into_iter().enumerate().map(table).collect()
    }

    /// A misspelt field must not pass for one that is not set.
    pub(crate) fn finish(self) -> Result<(), String> {
        match self.left.keys().next() {
            None => Ok(()),
            Some(unknown) => Err(format!(
                "`{}{unknown}` is not a setting of this plugin; there are {}",
                self.prefix,
                self.asked.join(", ")
            )),
        }
    }

    fn take(&mut self, name: &'static str) -> Option<Value> {
        self.asked.push(name);
        self.left.remove(name)
    }
}

/// Never the value itself: it may be a secret in the wrong place.
fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "a table",
    }
}
