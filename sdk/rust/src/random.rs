//! Randomness fit for secrets, which a replay or a test may repeat.

use crate::host;

/// A random number.
pub fn number() -> u64 {
    host::random::number()
}

/// Random bytes, up to 65,536.
pub fn bytes(length: u32) -> Vec<u8> {
    host::random::bytes(length)
}
