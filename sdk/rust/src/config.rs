//! The plugin's table in the gateway's configuration, `[plugin.NAME.config]`. A change makes a new generation, so read
//! it in [`Plugin::init`](crate::Plugin::init).

use serde::de::DeserializeOwned;

use crate::{Context, Result, host};

/// The value at a dotted path: a string as it is, anything else as JSON. None: not there.
pub fn get(path: &str) -> Option<String> {
    host::config::get(path)
}

/// The whole table as a JSON object.
pub fn json() -> String {
    host::config::json()
}

/// The whole table, read into a type. Say `#[serde(deny_unknown_fields)]` there, so that a misspelt key is found.
///
/// ```no_run
/// #[derive(serde::Deserialize)]
/// #[serde(deny_unknown_fields)]
/// struct Settings {
///     secret: String,
///     #[serde(default)]
///     leeway: u64,
/// }
///
/// # fn init() -> tidegate_sdk::Result {
/// let settings: Settings = tidegate_sdk::config::parse()?;
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// The table is not of this type; the sentence says which key.
pub fn parse<T: DeserializeOwned>() -> Result<T> {
    serde_json::from_str(&json()).context("config")
}
