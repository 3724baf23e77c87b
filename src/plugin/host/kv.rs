//! `kv`: small values, shared by the plugin's instances.

use std::time::Duration;

use wasmtime::Result;

use super::wit::types::Refusal;
use super::{State, wit};
use crate::kv::{KEY_MAX, KvError, VALUE_MAX};

impl State {
    fn key(&mut self, key: &str) -> Result<Result<(), Refusal>> {
        self.enter()?;
        if !(1..=KEY_MAX).contains(&key.len()) {
            return Ok(Err(Refusal::Invalid));
        }
        let granted = self.context.granted.key(key);
        Ok(self.granted_flag(granted, "kv", key).ok_or(Refusal::Denied))
    }
}

fn refusal(error: KvError) -> Refusal {
    match error {
        KvError::Full => Refusal::TooMany,
        KvError::NotANumber => Refusal::Invalid,
    }
}

fn sized(value: &[u8]) -> Result<(), Refusal> {
    if value.len() > VALUE_MAX { Err(Refusal::TooLarge) } else { Ok(()) }
}

impl wit::kv::Host for State {
    async fn get(&mut self, key: String) -> Result<Result<Option<Vec<u8>>, Refusal>> {
        Ok(self.key(&key)?.map(|()| self.context.node.kv.get(&key).map(|value| value.to_vec())))
    }

    async fn set(&mut self, key: String, value: Vec<u8>, ttl: u64) -> Result<Result<(), Refusal>> {
        Ok(self.key(&key)?.and_then(|()| {
            sized(&value)?;
            self.context.node.kv.set(&key, value.into(), Duration::from_millis(ttl)).map_err(refusal)
        }))
    }

    async fn delete(&mut self, key: String) -> Result<Result<(), Refusal>> {
        Ok(self.key(&key)?.map(|()| self.context.node.kv.delete(&key)))
    }

    async fn increment(&mut self, key: String, by: i64, ttl: u64) -> Result<Result<i64, Refusal>> {
        Ok(self
            .key(&key)?
            .and_then(|()| self.context.node.kv.increment(&key, by, Duration::from_millis(ttl)).map_err(refusal)))
    }

    async fn compare_and_set(
        &mut self,
        key: String,
        expected: Option<Vec<u8>>,
        value: Vec<u8>,
        ttl: u64,
    ) -> Result<Result<bool, Refusal>> {
        Ok(self.key(&key)?.and_then(|()| {
            sized(&value)?;
            let ttl = Duration::from_millis(ttl);
            self.context.node.kv.compare_and_set(&key, expected.as_deref(), value.into(), ttl).map_err(refusal)
        }))
    }
}
