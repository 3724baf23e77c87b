//! What the configuration says of an upstream.

use serde::Deserialize;
use toml::Spanned;

use super::{Size, Span, seconds};

/// A backend that plugins can send messages to, over HTTP.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct UpstreamConfig {
    /// What plugins call it.
    #[cfg_attr(test, schemars(with = "String"))]
    pub name: Spanned<String>,
    /// Where messages are posted to: `http://127.0.0.1:9000/events`.
    #[cfg_attr(test, schemars(with = "String"))]
    pub url: Spanned<String>,
    /// For the whole of one request, connecting included.
    #[serde(default = "upstream_timeout")]
    pub timeout: Span,
    /// Requests at a time. Messages of one session are sent one after the other.
    #[serde(default = "upstream_concurrency")]
    pub concurrency: usize,
    /// Messages that may wait. More are refused as effects.
    #[serde(default = "upstream_queue")]
    pub queue: usize,
    /// An answer's body, at most.
    #[serde(default = "upstream_response")]
    pub response: Size,
    /// Failures in a row that open the breaker: messages are refused then, until a probe after `breaker_pause` succeeds.
    #[serde(default = "upstream_failures")]
    pub breaker_failures: u32,
    /// How long an open breaker stays open before one message is tried.
    #[serde(default = "upstream_pause")]
    pub breaker_pause: Span,
    /// Headers that go with each message. `{ env = "NAME" }` and `{ file = "PATH" }` stand for secrets.
    #[serde(default)]
    #[cfg_attr(test, schemars(with = "std::collections::BTreeMap<String, serde_json::Value>"))]
    pub headers: toml::Table,
}

fn upstream_timeout() -> Span {
    seconds(10)
}

fn upstream_concurrency() -> usize {
    32
}

fn upstream_queue() -> usize {
    1_024
}

fn upstream_response() -> Size {
    Size(1 << 20)
}

fn upstream_failures() -> u32 {
    5
}

fn upstream_pause() -> Span {
    seconds(5)
}
