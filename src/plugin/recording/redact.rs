//! What a recording does not have: values of certain names are replaced wherever they stand, and what stood there is
//! looked for in all of the same call, so that a token does not come back in a message or a key.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use super::fields;
use crate::config::Redaction;
use crate::plugin::script::REDACTED;

/// Shorter values are replaced where they stand and not looked for elsewhere: they would be found in everything.
const SHORT: usize = 6;
/// What a subprotocol that is longer must be: nobody calls a protocol so.
const SUBPROTOCOL: usize = 32;

/// One call, or whatever belongs together.
pub struct Redactor<'a> {
    names: &'a Redaction,
    secrets: Vec<String>,
    /// Where something was replaced.
    places: Vec<String>,
}

impl<'a> Redactor<'a> {
    /// `secrets` are known from elsewhere.
    pub fn new(names: &'a Redaction, secrets: &[String]) -> Self {
        let secrets = secrets.iter().filter(|secret| secret.len() >= SHORT).cloned().collect();
        Self { names, secrets, places: Vec::new() }
    }

    /// Replaces what names tell, in a value that stands under `key`.
    pub fn by_name(&mut self, key: &str, value: &mut Value) {
        match (key, value) {
            ("headers", value) => self.headers(value),
            ("attributes" | "parameters" | "metadata", Value::Object(pairs)) => self.pairs(key, pairs),
            ("target" | "url", Value::String(text)) => self.target(text),
            ("body", Value::String(text)) if !text.contains(['{', '[']) => self.form(text),
            (_, Value::String(text)) => {
                if let Some(new) = self.text(text, key) {
                    *text = new;
                }
            }
            (_, Value::Array(list)) => list.iter_mut().for_each(|value| self.by_name(key, value)),
            (_, Value::Object(object)) => self.object(object),
            _ => {}
        }
    }

    /// Replaces what was replaced elsewhere, in all of a value.
    pub fn everywhere(&mut self, value: &mut Value) {
        if self.secrets.is_empty() {
            return;
        }
        match value {
            Value::String(text) => {
                for secret in self.secrets.iter().filter(|secret| text.contains(secret.as_str())).collect::<Vec<_>>() {
                    *text = text.replace(secret.as_str(), REDACTED);
                }
            }
            Value::Array(list) => list.iter_mut().for_each(|value| self.everywhere(value)),
            Value::Object(object) => {
                if let Some((text, bytes)) = binary(object) {
                    let mut text = Value::String(text);
                    self.everywhere(&mut text);
                    if text.as_str().map(str::as_bytes) != Some(&*bytes) {
                        object.insert("base64".to_owned(), STANDARD.encode(text.as_str().unwrap_or_default()).into());
                    }
                    return;
                }
                object.values_mut().for_each(|value| self.everywhere(value));
            }
            _ => {}
        }
    }

    /// Where something was replaced, once each.
    pub fn places(mut self) -> Vec<String> {
        self.places.sort_unstable();
        self.places.dedup();
        self.places
    }

    /// An effect or a question may name what its value is.
    fn object(&mut self, object: &mut Map<String, Value>) {
        if let Some((mut text, _)) = binary(object) {
            if let Some(new) = self.text(&text, "message") {
                text = new;
                object.insert("base64".to_owned(), STANDARD.encode(text).into());
            }
            return;
        }
        let named = |verb: &str| object.get(verb).and_then(Value::as_str).map(str::to_owned);
        let header = named("add-header");
        let attribute = named("set-attribute").filter(|name| self.names.field(name));
        for (key, value) in object.iter_mut() {
            match (value, &header, &attribute) {
                (Value::String(value), Some(header), _) if key == "value" => self.header(header, value),
                (value @ Value::String(_), _, Some(name)) if key == "value" => {
                    self.replace(&format!("attributes.{name}"), value);
                }
                (value, ..) => self.by_name(key, value),
            }
        }
    }

    fn replace(&mut self, place: &str, value: &mut Value) {
        if let Value::String(text) = value {
            self.remember(text);
        }
        *value = REDACTED.into();
        self.places.push(place.to_owned());
    }

    fn remember(&mut self, secret: &str) {
        if secret.len() >= SHORT && secret != REDACTED && !self.secrets.iter().any(|known| known == secret) {
            self.secrets.push(secret.to_owned());
            // What contains another is looked for first.
            self.secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        }
    }

    /// Headers as pairs or by their names.
    fn headers(&mut self, value: &mut Value) {
        match value {
            Value::Array(pairs) => {
                for pair in pairs.iter_mut().filter_map(Value::as_array_mut) {
                    if let [Value::String(name), Value::String(value)] = &mut pair[..] {
                        self.header(name, value);
                    }
                }
            }
            Value::Object(pairs) => {
                for (name, value) in pairs.iter_mut() {
                    if let Value::String(value) = value {
                        self.header(name, value);
                    }
                }
            }
            _ => {}
        }
    }

    fn header(&mut self, name: &str, value: &mut String) {
        let lower = name.to_ascii_lowercase();
        let listed = self.names.header(name);
        let new = match &*lower {
            "sec-websocket-protocol" => Some(self.subprotocols(value, listed)),
            "cookie" | "set-cookie" if listed => Some(self.cookies(value, lower == "set-cookie")),
            "authorization" | "proxy-authorization" if listed => Some(match value.trim().split_once(' ') {
                Some((scheme, rest)) => {
                    self.remember(rest.trim());
                    format!("{scheme} {REDACTED}")
                }
                None => {
                    self.remember(value);
                    REDACTED.to_owned()
                }
            }),
            _ if listed => {
                self.remember(value);
                Some(REDACTED.to_owned())
            }
            // The token of another place may stand here as well.
            "referer" | "origin" | "location" => {
                let mut target = value.clone();
                self.target(&mut target);
                Some(target)
            }
            _ => self.text(value, name),
        };
        if let Some(new) = new.filter(|new| new != value) {
            *value = new;
            self.places.push(lower);
        }
    }

    /// The names stay, so that a plugin finds the cookie that it looks for.
    fn cookies(&mut self, value: &str, set: bool) -> String {
        let pairs: Vec<_> = value.split(';').collect();
        let shown = pairs.iter().enumerate().map(|(at, pair)| match pair.split_once('=') {
            // `Path`, `Max-Age` and the like.
            _ if set && at > 0 => (*pair).to_owned(),
            Some((name, value)) => {
                self.remember(value.trim());
                format!("{name}={REDACTED}")
            }
            None => (*pair).to_owned(),
        });
        shown.collect::<Vec<_>>().join(";")
    }

    /// `bearer, TOKEN` and what else is too long for a protocol's name.
    fn subprotocols(&mut self, value: &str, listed: bool) -> String {
        let mut after_bearer = false;
        let mut shown = Vec::new();
        for item in value.split(',').map(str::trim) {
            let is_token = listed || after_bearer || item.len() > SUBPROTOCOL;
            after_bearer = !is_token && (item.eq_ignore_ascii_case("bearer") || self.names.parameter(item));
            if is_token {
                self.remember(item);
            }
            shown.push(if is_token { REDACTED } else { item });
        }
        shown.join(", ")
    }

    fn pairs(&mut self, key: &str, pairs: &mut Map<String, Value>) {
        for (name, value) in pairs {
            if self.names.field(name) || self.names.parameter(name) {
                self.replace(&format!("{key}.{name}"), value);
            } else {
                self.by_name(name, value);
            }
        }
    }

    /// Path and query.
    fn target(&mut self, text: &mut String) {
        if let Some((path, query)) = text.split_once('?')
            && let Some(query) = self.query(query)
        {
            *text = format!("{path}?{query}");
        }
    }

    /// A form's fields, or what is no JSON in any case.
    fn form(&mut self, text: &mut String) {
        if let Some(new) = self.query(text) {
            *text = new;
        }
        if let Some(new) = self.text(text, "body") {
            *text = new;
        }
    }

    fn query(&mut self, query: &str) -> Option<String> {
        let mut changed = false;
        let mut shown = Vec::new();
        for pair in query.split('&') {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let decoded = |text: &str| {
                form_urlencoded::parse(text.as_bytes()).next().map(|(name, _)| name.into_owned()).unwrap_or_default()
            };
            let plain = decoded(name);
            if value.is_empty() || !self.names.parameter(&plain) {
                shown.push(pair.to_owned());
                continue;
            }
            self.remember(value);
            self.remember(&decoded(value));
            self.places.push(plain);
            shown.push(format!("{name}={REDACTED}"));
            changed = true;
        }
        changed.then(|| shown.join("&"))
    }

    /// Fields of JSON in a text.
    fn text(&mut self, text: &str, place: &str) -> Option<String> {
        let names = self.names;
        let mut found = Vec::new();
        let new = fields::replaced(text, &|name| names.field(name), &mut |name, value| {
            found.push((name.to_owned(), value.to_owned()));
        });
        for (name, value) in found {
            self.remember(&value);
            self.places.push(format!("{place}.{name}"));
        }
        new
    }
}

/// A plugin's own settings without what was told by files and variables, and without what is named like a secret. The
/// second says whether anything was replaced.
pub fn settings(names: &Redaction, secrets: &[String], settings: &Value) -> (Value, bool) {
    // Long enough to pass for a key.
    let placeholder = || Value::from(REDACTED.repeat(8));
    match settings {
        Value::String(text) if secrets.iter().any(|secret| secret == text) => (placeholder(), true),
        Value::Array(list) => {
            let (list, redacted): (Vec<_>, Vec<_>) = list.iter().map(|one| self::settings(names, secrets, one)).unzip();
            (list.into(), redacted.contains(&true))
        }
        Value::Object(object) => {
            let mut any = false;
            let mut one = |(key, value): (&String, &Value)| {
                let (value, redacted) = match value {
                    Value::String(_) if names.field(key) => (placeholder(), true),
                    value => self::settings(names, secrets, value),
                };
                any |= redacted;
                (key.clone(), value)
            };
            let object = object.iter().map(&mut one).collect::<Map<_, _>>();
            (object.into(), any)
        }
        plain => (plain.clone(), false),
    }
}

/// Bytes that are text, with that text.
fn binary(object: &Map<String, Value>) -> Option<(String, Vec<u8>)> {
    if object.len() != 1 {
        return None;
    }
    let bytes = STANDARD.decode(object.get("base64")?.as_str()?).ok()?;
    Some((String::from_utf8(bytes.clone()).ok()?, bytes))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::config::RedactConfig;

    fn redacted(key: &str, value: Value) -> (Value, Vec<String>) {
        let names = Redaction::new(&RedactConfig::default());
        let mut redactor = Redactor::new(&names, &["from-the-config".to_owned()]);
        let mut value = value;
        redactor.by_name(key, &mut value);
        redactor.everywhere(&mut value);
        (value, redactor.places())
    }

    #[test]
    fn what_was_replaced_is_replaced_elsewhere_too() {
        let (got, places) = redacted("message", r#"{"token":"hunter22","said":"it is hunter22!"}"#.into());
        assert_eq!(got, r#"{"token":"REDACTED","said":"it is REDACTED!"}"#);
        assert_eq!(places, ["message.token"]);
        assert_eq!(redacted("message", "from-the-config".into()).0, "REDACTED");
        // What is short is found in everything.
        let (got, _) = redacted("message", r#"{"token":"is","said":"it is so"}"#.into());
        assert_eq!(got, r#"{"token":"REDACTED","said":"it is so"}"#);
    }

    #[test]
    fn headers_and_queries_keep_what_is_not_secret() {
        let headers = json!([
            ["Authorization", "Bearer abcdefgh"],
            ["cookie", "theme=dark-one; sid=12345678"],
            ["set-cookie", "sid=12345678; Path=/; HttpOnly"],
            ["sec-websocket-protocol", "bearer, abcdefgh, v1"],
            ["x-api-key", "k"],
            ["accept", "*/*"],
            ["x-note", "abcdefgh again"],
        ]);
        let expected = json!([
            ["Authorization", "Bearer REDACTED"],
            ["cookie", "theme=REDACTED; sid=REDACTED"],
            ["set-cookie", "sid=REDACTED; Path=/; HttpOnly"],
            ["sec-websocket-protocol", "bearer, REDACTED, v1"],
            ["x-api-key", "REDACTED"],
            ["accept", "*/*"],
            ["x-note", "REDACTED again"],
        ]);
        let (got, places) = redacted("headers", headers);
        assert_eq!(got, expected);
        assert_eq!(places, ["authorization", "cookie", "sec-websocket-protocol", "set-cookie", "x-api-key"]);
        let long = "e".repeat(33);
        let (got, _) = redacted("headers", json!({ "Sec-WebSocket-Protocol": format!("v1, {long}"), "a": "b" }));
        assert_eq!(got, json!({ "Sec-WebSocket-Protocol": "v1, REDACTED", "a": "b" }));
        for (target, expected) in [
            ("/a?token=abc%2Bdef&x=1", "/a?token=REDACTED&x=1"),
            ("/a?access%5Ftoken=abcdef", "/a?access%5Ftoken=REDACTED"),
            ("/a?x=token", "/a?x=token"),
            ("/a?token=", "/a?token="),
        ] {
            assert_eq!(redacted("target", target.into()).0, expected);
        }
        assert_eq!(redacted("body", "user=ann&password=hunter22".into()).0, "user=ann&password=REDACTED");
    }

    #[test]
    fn settings_keep_their_shape() {
        let names = Redaction::new(&RedactConfig::default());
        let table = json!({ "keys": [{ "pem": "from a file", "kid": "a" }], "secret": "written down", "n": 1 });
        let (got, redacted) = settings(&names, &["from a file".to_owned()], &table);
        let hidden = "REDACTED".repeat(8);
        assert_eq!(got, json!({ "keys": [{ "pem": hidden, "kid": "a" }], "secret": hidden, "n": 1 }));
        assert!(redacted && !settings(&names, &[], &json!({ "n": ["a"] })).1);
    }

    #[test]
    fn a_secret_is_found_in_all_of_a_call() {
        let call = json!({
            "session": {
                "handshake": { "target": "/chat?token=abcdefgh", "headers": [], "parameters": { "password": "x" } },
                "attributes": { "token": "t", "role": "abcdefgh" },
            },
            "given": { "message": { "base64": STANDARD.encode(r#"{"secret":"qwertyui"}"#) } },
            "asked": [{ "ask": "kv.get", "key": "token:abcdefgh", "is": "qwertyui" }],
            "effects": [
                { "set-attribute": "session-token", "value": "zxcvbnm1" },
                { "add-header": "set-cookie", "value": "a=zxcvbnm1" },
                { "send": "zxcvbnm1" },
                { "forward": "u", "headers": { "Authorization": "Basic zzzzzzzz" }, "message": "zzzzzzzz" },
                { "close": 1000, "reason": "code" },
            ],
        });
        let (got, places) = redacted("", call);
        let expected = json!({
            "session": {
                "handshake": { "target": "/chat?token=REDACTED", "headers": [], "parameters": { "password": "REDACTED" } },
                "attributes": { "token": "REDACTED", "role": "REDACTED" },
            },
            "given": { "message": { "base64": STANDARD.encode(r#"{"secret":"REDACTED"}"#) } },
            "asked": [{ "ask": "kv.get", "key": "token:REDACTED", "is": "REDACTED" }],
            "effects": [
                { "set-attribute": "session-token", "value": "REDACTED" },
                { "add-header": "set-cookie", "value": "a=REDACTED" },
                { "send": "REDACTED" },
                { "forward": "u", "headers": { "Authorization": "Basic REDACTED" }, "message": "REDACTED" },
                { "close": 1000, "reason": "code" },
            ],
        });
        assert_eq!(got, expected);
        assert!(
            places.contains(&"attributes.token".to_owned()) && places.contains(&"message.secret".to_owned()),
            "{places:?}"
        );
        // Twice is once: what is redacted stays so.
        assert_eq!(redacted("", expected.clone()).0, expected);
    }
}
