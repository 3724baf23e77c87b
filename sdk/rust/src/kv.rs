//! A store shared by the plugin's instances on every node. Needs the grant `kv` for the key's prefix.
//!
//! These act at once: they are no effects, and what is written stays when the event fails. Keys up to 255 bytes, values
//! up to 64 KiB. A time to live of none is for ever. They wait for a store: a plugin that calls one of them runs on a
//! stack of its own, a bit slower.
//!
//! Every function may be refused: `Invalid`, `Denied`, `TooLarge`, `Unavailable`.

use std::time::Duration;

use crate::{Refusal, host};

/// The value of a key.
///
/// # Errors
/// As said above.
pub fn get(key: &str) -> Result<Option<Vec<u8>>, Refusal> {
    host::kv::get(key)
}

/// Write a value.
///
/// # Errors
/// As said above.
pub fn set(key: &str, value: impl AsRef<[u8]>, ttl: Option<Duration>) -> Result<(), Refusal> {
    host::kv::set(key, value.as_ref(), host::ttl(ttl))
}

/// Forget a key.
///
/// # Errors
/// As said above.
pub fn delete(key: &str) -> Result<(), Refusal> {
    host::kv::delete(key)
}

/// Add to a number, and get the new one. A missing key counts as 0 and gets the time to live; one that is there keeps
/// its own.
///
/// # Errors
/// As said above; `Invalid` also where the value is not a decimal number.
pub fn increment(key: &str, by: i64, ttl: Option<Duration>) -> Result<i64, Refusal> {
    host::kv::increment(key, by, host::ttl(ttl))
}

/// Write a value if the present one is `expected` (none: if the key is missing). False: it was something else.
///
/// # Errors
/// As said above.
pub fn compare_and_set(
    key: &str,
    expected: Option<&[u8]>,
    value: impl AsRef<[u8]>,
    ttl: Option<Duration>,
) -> Result<bool, Refusal> {
    host::kv::compare_and_set(key, expected, value.as_ref(), host::ttl(ttl))
}
