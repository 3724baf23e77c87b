//! The embedded store: in this process, for one node alone, lost with it.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::{KvError, number};
use crate::source::Clock;

const SHARDS: usize = 16;
/// What a key costs beside its own and its value's bytes, roughly.
const OVERHEAD: usize = 96;

/// Values, sharded by key.
pub struct MemoryKv {
    shards: Box<[Mutex<Shard>]>,
    hasher: RandomState,
    limit_per_shard: usize,
    clock: Clock,
}

#[derive(Default)]
struct Shard {
    entries: HashMap<Box<str>, Entry>,
    bytes: usize,
}

struct Entry {
    value: Bytes,
    expires: Option<Instant>,
}

impl MemoryKv {
    /// A store of about `limit` bytes.
    pub fn new(limit: usize, clock: Clock) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
            limit_per_shard: limit / SHARDS,
            clock,
        }
    }

    fn shard(&self, key: &str) -> &Mutex<Shard> {
        &self.shards[self.hasher.hash_one(key) as usize % SHARDS]
    }

    pub fn get(&self, key: &str) -> Option<Bytes> {
        self.shard(key).lock().live(key, self.clock.now()).map(|entry| entry.value.clone())
    }

    /// A `ttl` of zero keeps the value for ever.
    pub fn set(&self, key: &str, value: Bytes, ttl: Duration) -> Result<(), KvError> {
        self.shard(key).lock().set(key, value, deadline(self.clock.now(), ttl), self.limit_per_shard)
    }

    pub fn delete(&self, key: &str) {
        self.shard(key).lock().remove(key);
    }

    /// Adds to a decimal number and returns the sum. A missing key counts as 0 and gets the `ttl`.
    pub fn increment(&self, key: &str, by: i64, ttl: Duration) -> Result<i64, KvError> {
        let mut shard = self.shard(key).lock();
        let (old, expires) = match shard.live(key, self.clock.now()) {
            None => (0, deadline(self.clock.now(), ttl)),
            Some(entry) => (number(&entry.value)?, entry.expires),
        };
        let sum = old.checked_add(by).ok_or(KvError::NotANumber)?;
        shard.set(key, Bytes::from(sum.to_string()), expires, self.limit_per_shard)?;
        Ok(sum)
    }

    /// Sets the value if it is `expected` now (None: if the key is missing); says whether it was.
    pub fn compare_and_set(
        &self,
        key: &str,
        expected: Option<&[u8]>,
        value: Bytes,
        ttl: Duration,
    ) -> Result<bool, KvError> {
        let mut shard = self.shard(key).lock();
        if shard.live(key, self.clock.now()).map(|entry| &*entry.value) != expected {
            return Ok(false);
        }
        shard.set(key, value, deadline(self.clock.now(), ttl), self.limit_per_shard)?;
        Ok(true)
    }

    /// Forgets what has outlived its time. Called now and then.
    pub fn sweep(&self) {
        let now = self.clock.now();
        self.shards.iter().for_each(|shard| shard.lock().sweep(now));
    }
}

fn deadline(now: Instant, ttl: Duration) -> Option<Instant> {
    if ttl.is_zero() { None } else { now.checked_add(ttl) }
}

impl Shard {
    fn live(&mut self, key: &str, now: Instant) -> Option<&Entry> {
        if self.entries.get(key)?.expires.is_some_and(|expires| expires <= now) {
            self.remove(key);
        }
        self.entries.get(key)
    }

    fn set(&mut self, key: &str, value: Bytes, expires: Option<Instant>, limit: usize) -> Result<(), KvError> {
        let cost = key.len() + value.len() + OVERHEAD;
        let former = self.entries.get(key).map_or(0, |entry| key.len() + entry.value.len() + OVERHEAD);
        if self.bytes - former + cost > limit {
            self.sweep(Instant::now());
            let former = self.entries.get(key).map_or(0, |entry| key.len() + entry.value.len() + OVERHEAD);
            if self.bytes - former + cost > limit {
                return Err(KvError::Full);
            }
        }
        self.remove(key);
        self.bytes += cost;
        self.entries.insert(key.into(), Entry { value, expires });
        Ok(())
    }

    fn remove(&mut self, key: &str) {
        if let Some(entry) = self.entries.remove(key) {
            self.bytes -= key.len() + entry.value.len() + OVERHEAD;
        }
    }

    fn sweep(&mut self, now: Instant) {
        let mut freed = 0;
        self.entries.retain(|key, entry| {
            let keep = entry.expires.is_none_or(|expires| expires > now);
            if !keep {
                freed += key.len() + entry.value.len() + OVERHEAD;
            }
            keep
        });
        self.bytes -= freed;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[tokio::test(start_paused = true)]
    async fn values_live_as_long_as_they_were_told_to() {
        let kv = MemoryKv::new(1 << 20, Clock::default());
        kv.set("short", "a".into(), MINUTE).unwrap();
        kv.set("for ever", "b".into(), Duration::ZERO).unwrap();
        assert_eq!(kv.increment("hits", 2, MINUTE), Ok(2));
        tokio::time::advance(MINUTE / 2).await;
        assert_eq!(kv.increment("hits", -5, MINUTE), Ok(-3), "the first time to live goes on");
        tokio::time::advance(MINUTE / 2).await;
        assert_eq!((kv.get("short"), kv.get("hits")), (None, None));
        assert_eq!(kv.get("for ever"), Some("b".into()));
        kv.delete("for ever");
        assert_eq!(kv.shards.iter().map(|shard| shard.lock().bytes).sum::<usize>(), 0);
    }

    #[test]
    fn numbers_are_checked_and_do_not_wrap() {
        let kv = MemoryKv::new(1 << 20, Clock::default());
        kv.set("word", "x".into(), Duration::ZERO).unwrap();
        assert_eq!(kv.increment("word", 1, Duration::ZERO), Err(KvError::NotANumber));
        assert_eq!(kv.increment("big", i64::MAX, Duration::ZERO), Ok(i64::MAX));
        assert_eq!(kv.increment("big", 1, Duration::ZERO), Err(KvError::NotANumber));
    }

    #[test]
    fn compare_and_set_sees_missing_keys() {
        let kv = MemoryKv::new(1 << 20, Clock::default());
        assert_eq!(kv.compare_and_set("k", Some(b"x"), "y".into(), MINUTE), Ok(false));
        assert_eq!(kv.compare_and_set("k", None, "x".into(), MINUTE), Ok(true));
        assert_eq!(kv.compare_and_set("k", None, "z".into(), MINUTE), Ok(false));
        assert_eq!(kv.compare_and_set("k", Some(b"x"), "y".into(), MINUTE), Ok(true));
        assert_eq!(kv.get("k"), Some("y".into()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_store_refuses_until_something_expires() {
        let kv = MemoryKv::new(SHARDS * 4096, Clock::default());
        let stored: Vec<_> =
            (0..4096).map(|n| n.to_string()).filter(|key| kv.set(key, "x".into(), MINUTE).is_ok()).collect();
        assert!(stored.len() < 1000, "{}", stored.len());
        assert_eq!(kv.set(&stored[0], "y".into(), MINUTE), Ok(()), "what is there can be replaced");
        tokio::time::advance(MINUTE).await;
        assert!((0..100).all(|n| kv.set(&format!("new {n}"), "x".into(), MINUTE).is_ok()));
    }
}
