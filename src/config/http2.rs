//! `[http2]`: where HTTP/2 is spoken, and what a connection of it may take.

use serde::Deserialize;

use super::load::{ConfigError, Source};
use super::{Config, Span, seconds};

/// HTTP/2 towards clients.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Http2Config {
    /// `"tls"`: where a client asks for it in the TLS handshake. `"clear-text"`: also without TLS, where a client begins with
    /// it ("prior knowledge"). `"off"`: nowhere.
    pub mode: Http2Mode,
    /// Requests and sessions of one connection at a time, 1 to 1,000. A client waits with more.
    pub streams: u32,
    /// How often a client of which nothing is heard is asked whether it is there.
    pub ping_interval: Span,
    /// How long it may take to answer before its connection is closed.
    pub ping_timeout: Span,
    /// How long a connection may be without a request or a session before it is told to go.
    pub idle_timeout: Span,
}

impl Default for Http2Config {
    fn default() -> Self {
        Self {
            mode: Http2Mode::default(),
            streams: 100,
            ping_interval: seconds(25),
            ping_timeout: seconds(20),
            idle_timeout: seconds(60),
        }
    }
}

/// Where HTTP/2 is spoken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Http2Mode {
    Off,
    #[default]
    Tls,
    ClearText,
}

impl Config {
    pub(super) fn check_http2(&self, source: &Source<'_>) -> Result<(), ConfigError> {
        let at = || source.text.find("[http2]").map(|at| at..at + 1);
        let http2 = &self.http2;
        if !(1..=1_000).contains(&http2.streams) {
            return Err(source.error(at(), format!("http2.streams is {}: write 1 to 1000", http2.streams)));
        }
        let spans = [
            ("ping_interval", http2.ping_interval),
            ("ping_timeout", http2.ping_timeout),
            ("idle_timeout", http2.idle_timeout),
        ];
        match spans.iter().find(|(_, span)| span.0.is_zero()) {
            Some((key, _)) => Err(source.error(at(), format!("http2.{key} must be above 0"))),
            None => Ok(()),
        }
    }
}
