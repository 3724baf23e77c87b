//! How a gateway that is told to stop lets its clients go.

use std::time::Duration;

use serde::Deserialize;

use super::load::{ConfigError, Source};
use super::{Config, Span, seconds};

/// How a gateway that is told to stop lets its clients go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct DrainConfig {
    /// From SIGTERM to the end of the process, at most. Whoever is still there then is broken off.
    pub timeout: Span,
    /// From `/ready` saying no to the first close; new clients are served meanwhile. For load balancers that must first
    /// see it. Not before an upgrade, where nothing moves.
    pub pause: Span,
    /// Sessions that are closed in a second. It is exceeded only where `spread` would be too short for all of them.
    pub rate: u32,
    /// The closes take no longer than this, however many they are. Absent: half of the time behind the pause.
    pub spread: Option<Span>,
    /// Each client is told to wait a random time up to this before it comes back.
    pub retry: Span,
}

impl Default for DrainConfig {
    fn default() -> Self {
        Self { timeout: seconds(10), pause: seconds(0), rate: 500, spread: None, retry: seconds(1) }
    }
}

impl DrainConfig {
    /// How long the closes may take.
    pub fn spread(&self) -> Duration {
        self.spread.map_or_else(|| self.timeout.0.saturating_sub(self.pause.0) / 2, |spread| spread.0)
    }
}

impl Config {
    pub(super) fn check_drain(&self, source: &Source<'_>) -> Result<(), ConfigError> {
        let drain = &self.drain;
        let what = if drain.rate == 0 {
            "drain.rate is 0: nobody would ever be closed; write how many sessions a second".to_owned()
        } else if drain.pause.0 + drain.spread() > drain.timeout.0 || drain.pause.0 == drain.timeout.0 {
            format!(
                "drain.pause ({}) and drain.spread ({}) leave nothing of drain.timeout ({}): make that longer",
                drain.pause,
                Span(drain.spread()),
                drain.timeout
            )
        } else {
            return Ok(());
        };
        let at = source.text.find("[drain]").or_else(|| source.text.find("drain")).map(|at| at..at + 1);
        Err(source.error(at, what))
    }
}
