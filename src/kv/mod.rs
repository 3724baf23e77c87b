//! A store of small values with time to live, shared by a plugin's instances, on every node where nodes share a Redis.
//!
//! The contract, for every implementation: what is written is read by whoever comes next, on whichever node; `increment`
//! and `compare_and_set` are one step; a time to live of zero is none; numbers are decimal, without a sign of plus or
//! zeros in front, and do not wrap.

#[cfg(test)]
mod contract;
mod memory;
mod redis;

use std::time::Duration;

use bytes::Bytes;

pub use self::memory::MemoryKv;
pub use self::redis::RedisKv;

/// The longest key, in bytes.
pub const KEY_MAX: usize = 255;
/// The longest value, in bytes.
pub const VALUE_MAX: usize = 64 << 10;

/// The store's no.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KvError {
    #[error("the store holds as much as it may")]
    Full,
    #[error("the value is not a decimal number")]
    NotANumber,
    /// What was to be written may have been.
    #[error("the store does not answer")]
    Unavailable,
}

/// One of the two.
pub enum Kv {
    Memory(MemoryKv),
    Redis(RedisKv),
}

impl Kv {
    pub async fn get(&self, key: &str) -> Result<Option<Bytes>, KvError> {
        match self {
            Self::Memory(kv) => Ok(kv.get(key)),
            Self::Redis(kv) => kv.get(key).await,
        }
    }

    /// A `ttl` of zero keeps the value for ever.
    pub async fn set(&self, key: &str, value: Bytes, ttl: Duration) -> Result<(), KvError> {
        match self {
            Self::Memory(kv) => kv.set(key, value, ttl),
            Self::Redis(kv) => kv.set(key, &value, ttl).await,
        }
    }

    pub async fn delete(&self, key: &str) -> Result<(), KvError> {
        match self {
            Self::Memory(kv) => {
                kv.delete(key);
                Ok(())
            }
            Self::Redis(kv) => kv.delete(key).await,
        }
    }

    /// Adds to a decimal number and returns the sum. A missing key counts as 0 and gets the `ttl`.
    pub async fn increment(&self, key: &str, by: i64, ttl: Duration) -> Result<i64, KvError> {
        match self {
            Self::Memory(kv) => kv.increment(key, by, ttl),
            Self::Redis(kv) => kv.increment(key, by, ttl).await,
        }
    }

    /// What `increment` would answer.
    pub async fn incremented(&self, key: &str, by: i64) -> Result<i64, KvError> {
        let value = self.get(key).await?;
        value.map_or(Ok(0), |value| number(&value))?.checked_add(by).ok_or(KvError::NotANumber)
    }

    /// Sets the value if it is `expected` now (None: if the key is missing); says whether it was.
    pub async fn compare_and_set(
        &self,
        key: &str,
        expected: Option<&[u8]>,
        value: Bytes,
        ttl: Duration,
    ) -> Result<bool, KvError> {
        match self {
            Self::Memory(kv) => kv.compare_and_set(key, expected, value, ttl),
            Self::Redis(kv) => kv.compare_and_set(key, expected, &value, ttl).await,
        }
    }

    /// Forgets what has outlived its time. Called now and then.
    pub fn sweep(&self) {
        if let Self::Memory(kv) = self {
            kv.sweep();
        }
    }
}

fn number(value: &[u8]) -> Result<i64, KvError> {
    let number = std::str::from_utf8(value).ok().and_then(|text| text.parse::<i64>().ok());
    number.filter(|number| number.to_string().as_bytes() == value).ok_or(KvError::NotANumber)
}
