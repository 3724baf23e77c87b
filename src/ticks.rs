//! Instants as numbers of half their size, for what every session has.

use std::sync::LazyLock;

use tokio::time::Instant;

/// Nanoseconds since some instant, the same for the whole process; instants before it have a number too.
pub fn nanos(at: Instant) -> u64 {
    static BEGIN: LazyLock<Instant> = LazyLock::new(Instant::now);
    const OFFSET: u64 = 1 << 62;
    match at.checked_duration_since(*BEGIN) {
        Some(since) => OFFSET.saturating_add(since.as_nanos() as u64),
        None => OFFSET.saturating_sub((*BEGIN - at).as_nanos() as u64),
    }
}

/// The same in microseconds.
pub fn micros(at: Instant) -> u64 {
    nanos(at) / 1_000
}
