//! Values in the words of a scenario file: from TOML to JSON, and back to what could be pasted.

use serde_json::{Map, Value};

/// What stands first in an effect or a call of the store, whatever the alphabet says.
const FIRST: &[&str] = &[
    "publish",
    "subscribe",
    "set-attribute",
    "set-timer",
    "set-body",
    "add-header",
    "close",
    "get",
    "set",
    "delete",
    "increment",
    "compare-and-set",
    "level",
    "send-to-user",
    "subscribe-user",
    "unsubscribe-user",
    "disconnect-user",
    "send-to-session",
    "subscribe-session",
    "unsubscribe-session",
    "disconnect-session",
    "forward",
    "request",
    "upstream",
    "status",
];

/// TOML as JSON. Dates become strings.
pub fn json(value: &toml::Value) -> Value {
    match value {
        toml::Value::String(text) => text.as_str().into(),
        toml::Value::Integer(number) => (*number).into(),
        toml::Value::Float(number) => (*number).into(),
        toml::Value::Boolean(yes) => (*yes).into(),
        toml::Value::Datetime(date) => date.to_string().into(),
        toml::Value::Array(list) => list.iter().map(json).collect(),
        toml::Value::Table(table) => table.iter().map(|(key, value)| (key.clone(), json(value))).collect(),
    }
}

/// A value as TOML on one line. What TOML has no word for, null, is the empty string.
pub fn inline(value: &Value) -> String {
    match value {
        Value::Null => "\"\"".to_owned(),
        Value::String(text) => string(text),
        Value::Array(list) => format!("[{}]", list.iter().map(inline).collect::<Vec<_>>().join(", ")),
        Value::Object(object) if object.is_empty() => "{}".to_owned(),
        Value::Object(object) => {
            let pairs: Vec<_> =
                ordered(object).map(|(key, value)| format!("{} = {}", word(key), inline(value))).collect();
            format!("{{ {} }}", pairs.join(", "))
        }
        plain => plain.to_string(),
    }
}

/// A list with an element on each line, as it stands behind `key =`.
pub fn list(values: &[Value]) -> String {
    let line = format!("[{}]", values.iter().map(inline).collect::<Vec<_>>().join(", "));
    match values {
        _ if line.len() < 100 => line,
        many => many.iter().fold("[\n".to_owned(), |text, one| text + "  " + &inline(one) + ",\n") + "]",
    }
}

/// A document of these tables, for the gateway's own reader.
pub fn document(table: &toml::Table) -> String {
    table.iter().fold(String::new(), |text, (key, value)| text + &word(key) + " = " + &inline(&json(value)) + "\n")
}

fn ordered(object: &Map<String, Value>) -> impl Iterator<Item = (&String, &Value)> {
    let place = |key: &str| match key {
        // Whose doing it is says less than what it is.
        "plugin" => 2,
        key => u8::from(!FIRST.contains(&key)),
    };
    (0..=2).flat_map(move |wanted| object.iter().filter(move |(key, _)| place(key) == wanted))
}

fn word(key: &str) -> String {
    let bare = !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    if bare { key.to_owned() } else { string(key) }
}

/// Literal where that reads better, which it does for JSON.
fn string(text: &str) -> String {
    let plain = !text.contains(['\'']) && !text.chars().any(char::is_control);
    if plain && text.contains(['"', '\\']) {
        return format!("'{text}'");
    }
    let mut quoted = String::from("\"");
    for character in text.chars() {
        match character {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            other if other.is_control() => quoted.push_str(&format!("\\u{:04X}", u32::from(other))),
            other => quoted.push(other),
        }
    }
    quoted + "\""
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json as value;

    #[test]
    fn what_is_written_can_be_read_again() {
        let all = value!({
            "plain": "héllo", "json": r#"{"a":"b"}"#, "both": "it's \"so\"\n\u{1}\\", "list": [1, 2.5, true, []],
            "a b": { "x": {} },
        });
        let text = format!("all = {}", inline(&all));
        let read: toml::Table = toml::from_str(&text).unwrap();
        assert_eq!(json(&read["all"]), all, "{text}");
        assert!(text.contains(r#"json = '{"a":"b"}'"#), "{text}");
    }

    #[test]
    fn an_effect_begins_with_its_verb() {
        let effect = value!({ "exclude": ["x"], "message": "m", "publish": "room" });
        assert_eq!(inline(&effect), r#"{ publish = "room", exclude = ["x"], message = "m" }"#);
        let others = value!({ "plugin": "auth", "set-expiry": 5 });
        assert_eq!(inline(&others), r#"{ set-expiry = 5, plugin = "auth" }"#);
    }
}
