//! `record` of a route: its plugin calls in a file, without what is secret in them.

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{Size, Span};

/// A recording of a route's plugin calls, for `tidegate replay`. Every route can be recorded when an operator asks for it;
/// this says how, and whether one is made without being asked for.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct RecordConfig {
    /// Whether a recording begins with the gateway, and with each change of this table.
    pub on: bool,
    /// The file in `record_directory`, if it is not `ROUTE.jsonl`. One that is there becomes `FILE.old`.
    pub file: Option<PathBuf>,
    /// Percent of the sessions. What belongs to no session is recorded in any case.
    pub share: u8,
    /// The file's size, at most. The recording ends there.
    pub bytes: Size,
    /// How long it takes, at most. Absent: until the file is full.
    pub time: Option<Span>,
    /// What is replaced by `REDACTED` before anything is kept.
    pub redact: RedactConfig,
}

impl Default for RecordConfig {
    fn default() -> Self {
        Self { on: false, file: None, share: 100, bytes: Size(64 << 20), time: None, redact: RedactConfig::default() }
    }
}

/// Names whose values a recording does not have. Case, `-` and `_` make no difference.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct RedactConfig {
    /// Whether the usual suspects are among them; docs/guides/record-replay.md names them.
    pub usual: bool,
    /// Headers, of requests and of responses.
    pub headers: Vec<String>,
    /// Parameters of queries, forms and the route's pattern.
    pub query: Vec<String>,
    /// Fields of JSON, at any depth, in messages and bodies; attributes of sessions.
    pub fields: Vec<String>,
}

impl Default for RedactConfig {
    fn default() -> Self {
        Self { usual: true, headers: Vec::new(), query: Vec::new(), fields: Vec::new() }
    }
}

/// The names, ready to be compared with; a recording tells them in its first line.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Redaction {
    pub headers: BTreeSet<String>,
    pub query: BTreeSet<String>,
    pub fields: BTreeSet<String>,
}

const HEADERS: &[&str] = &[
    "authorization",
    "proxy-authorization",
    "cookie",
    "set-cookie",
    "x-api-key",
    "x-auth-token",
    "x-access-token",
    "x-amz-security-token",
    "x-csrf-token",
];
const QUERY: &[&str] = &[
    "token",
    "access_token",
    "id_token",
    "refresh_token",
    "auth",
    "authorization",
    "api_key",
    "jwt",
    "password",
    "secret",
    "client_secret",
    "code",
    "ticket",
    "signature",
    "sig",
];
const FIELDS: &[&str] = &[
    "password",
    "passwd",
    "passphrase",
    "secret",
    "client_secret",
    "token",
    "access_token",
    "id_token",
    "refresh_token",
    "auth_token",
    "session_token",
    "authorization",
    "credentials",
    "api_key",
    "private_key",
    "jwt",
    "cookie",
    "otp",
    "card_number",
    "cvv",
];

impl Redaction {
    pub fn new(config: &RedactConfig) -> Self {
        let usual = |names: &'static [&'static str]| if config.usual { names } else { &[] };
        let all = |usual: &[&str], own: &[String]| {
            usual.iter().copied().chain(own.iter().map(String::as_str)).map(plain).collect()
        };
        Self {
            headers: all(usual(HEADERS), &config.headers),
            query: all(usual(QUERY), &config.query),
            fields: all(usual(FIELDS), &config.fields),
        }
    }

    pub fn header(&self, name: &str) -> bool {
        self.headers.contains(&plain(name))
    }

    pub fn parameter(&self, name: &str) -> bool {
        self.query.contains(&plain(name))
    }

    pub fn field(&self, name: &str) -> bool {
        self.fields.contains(&plain(name))
    }
}

/// `accessToken`, `access_token` and `Access-Token` are one name.
fn plain(name: &str) -> String {
    name.chars().filter(|c| !matches!(c, '-' | '_')).map(|c| c.to_ascii_lowercase()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_found_however_it_is_written() {
        let config = RedactConfig { fields: vec!["Pin-Code".to_owned()], ..RedactConfig::default() };
        let names = Redaction::new(&config);
        assert!(["accessToken", "ACCESS_TOKEN", "access-token", "pin_code"].iter().all(|name| names.field(name)));
        assert!(names.header("Cookie") && names.parameter("api-key") && !names.field("tokens"));
        let bare = Redaction::new(&RedactConfig { usual: false, ..config });
        assert!(bare.field("pincode") && !bare.field("token") && !bare.header("cookie"));
    }
}
