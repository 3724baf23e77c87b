//! The lines of a recording. The form of the file: docs/reference/recording.md.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::config::{Grants, PluginLimits, Redaction};
use crate::plugin::outcome::Described;

/// The version of the form; another one is another form.
pub const VERSION: u32 = 1;

/// One line. It is an object with a single key, which says what it is.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Line {
    #[serde(rename = "tidegate-recording")]
    Head(Box<Head>),
    Generation(Box<Made>),
    Call(Box<Recorded>),
    Dropped(Dropped),
    End(End),
}

/// The first line.
#[derive(Debug, Serialize, Deserialize)]
pub struct Head {
    pub version: u32,
    /// The gateway's version.
    pub gateway: String,
    pub route: String,
    /// Unix time in milliseconds, here and elsewhere.
    pub at: u64,
    /// Percent of the sessions that are recorded.
    pub share: u8,
    /// `plugin_stack`, in bytes.
    pub stack: usize,
    pub redacted: Redaction,
}

/// A plugin's generation, before its first call.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Made {
    pub plugin: String,
    pub number: u64,
    pub sha256: String,
    pub hooks: Vec<String>,
    pub limits: Limits,
    pub grants: Grants,
    pub config: Value,
    /// Whether something of `config` was redacted.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub redacted: bool,
}

/// Limits with all of their digits.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(transparent)]
pub struct Limits(pub PluginLimits);

impl Serialize for Limits {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(limits) = self;
        let mut all = match serde_json::to_value(limits) {
            Ok(Value::Object(all)) => all,
            _ => Map::new(),
        };
        let sizes = [
            ("memory", limits.memory),
            ("output", limits.output),
            ("http_response", limits.http_response),
            ("file", limits.file),
            ("compile_memory", limits.compile_memory),
        ];
        for (name, size) in sizes {
            all.insert(name.to_owned(), size.0.into());
        }
        all.serialize(serializer)
    }
}

/// A call.
#[derive(Debug, Serialize, Deserialize)]
pub struct Recorded {
    /// When it began.
    pub at: u64,
    /// How long it took, in microseconds.
    #[serde(default)]
    pub took: u64,
    pub plugin: String,
    pub generation: u64,
    pub hook: String,
    /// Of the event's session: what the plugin could read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<Value>,
    /// What the hook was called with.
    pub given: Value,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub publication: Option<Value>,
    /// What it asked beyond that, with the answers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub asked: Vec<Value>,
    #[serde(flatten)]
    pub outcome: Described,
    /// What was redacted: the places.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub redacted: Vec<String>,
}

/// Calls that are missing here.
#[derive(Debug, Serialize, Deserialize)]
pub struct Dropped {
    pub calls: u64,
}

/// The last line. A recording without one was broken off.
#[derive(Debug, Serialize, Deserialize)]
pub struct End {
    pub at: u64,
    pub why: Option<Value>,
    pub calls: u64,
    pub dropped: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Size;

    #[test]
    fn limits_are_read_as_they_were() {
        let limits = PluginLimits { memory: Size(1_234_567), output: Size(99_999), ..PluginLimits::default() };
        let text = serde_json::to_string(&Limits(limits)).unwrap();
        assert_eq!(serde_json::from_str::<Limits>(&text).unwrap().0, limits, "{text}");
        let grants: Grants = toml::from_str("http = [\"*.a:1\"]\nkv = [\"\"]\nusers = true").unwrap();
        let text = serde_json::to_string(&grants).unwrap();
        assert_eq!(serde_json::from_str::<Grants>(&text).unwrap(), grants, "{text}");
    }
}
