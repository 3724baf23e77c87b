//! Time, which a replay or a test may set.

use std::time::Duration;

use crate::host;

/// Unix time in milliseconds.
pub fn now() -> u64 {
    host::clock::now()
}

/// The time since some point in the past; never goes back.
pub fn monotonic() -> Duration {
    Duration::from_nanos(host::clock::monotonic())
}
