//! How a route's messages are compressed: a switch, or a table that begins with the defaults.

use std::fmt;

use serde::de::value::MapAccessDeserializer;
use serde::de::{self, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::{Config, ConfigError, RouteConfig, Size};

/// The largest window is 32 KiB; zlib has none below 512 bytes.
const WINDOWS: std::ops::RangeInclusive<u8> = 9..=15;
const LEVELS: std::ops::RangeInclusive<u8> = 1..=9;

/// Compressed messages (permessage-deflate, RFC 7692), for clients that offer it. docs/guides/compression.md says when it
/// pays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct CompressionConfig {
    /// Messages to clients that are shorter go as they are.
    pub threshold: Size,
    /// 1 (fast) to 9 (small). Above 3 it costs up to twice the time for a few percent.
    pub level: u8,
    /// Whether a message may refer to those before it, where the client agrees: smaller messages, and some 430 KB for each
    /// session that has sent and received one. A publication is then compressed for each subscriber anew.
    pub context_takeover: bool,
    /// How far back messages to clients refer, as a power of two: 9 (512 bytes) to 15 (32 KiB). With `context_takeover`
    /// a smaller one takes less memory.
    pub window: u8,
}

impl Default for CompressionConfig {
    fn default() -> Self {
        Self { threshold: Size(256), level: 3, context_takeover: false, window: 15 }
    }
}

/// Reads `true`, `false` or a table.
pub(super) fn switch_or_table<'de, D: Deserializer<'de>>(from: D) -> Result<Option<CompressionConfig>, D::Error> {
    struct SwitchOrTable;

    impl<'de> Visitor<'de> for SwitchOrTable {
        type Value = Option<CompressionConfig>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("`true`, `false` or a table")
        }

        fn visit_bool<E: de::Error>(self, on: bool) -> Result<Self::Value, E> {
            Ok(on.then(CompressionConfig::default))
        }

        fn visit_map<A: MapAccess<'de>>(self, table: A) -> Result<Self::Value, A::Error> {
            CompressionConfig::deserialize(MapAccessDeserializer::new(table)).map(Some)
        }
    }
    from.deserialize_any(SwitchOrTable)
}

impl Config {
    pub(super) fn check_compression(
        route: &RouteConfig,
        error: impl FnOnce(String) -> ConfigError,
    ) -> Result<(), ConfigError> {
        let Some(compression) = &route.compression else { return Ok(()) };
        let name = route.name.get_ref();
        if !LEVELS.contains(&compression.level) {
            return Err(error(format!("route `{name}`: `compression.level` is {}: write 1 to 9", compression.level)));
        }
        if !WINDOWS.contains(&compression.window) {
            return Err(error(format!(
                "route `{name}`: `compression.window` is {}: write 9 (512 bytes) to 15 (32 KiB)",
                compression.window
            )));
        }
        Ok(())
    }
}
