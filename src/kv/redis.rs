//! The store on Redis: what all nodes of a cluster share.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use redis::{Cmd, Value};

use super::KvError;
use crate::redis::{Fault, Redis, Script};

/// Read back as text: a number of Lua's has 53 bits.
const INCREMENT: &str = "
local there = redis.call('EXISTS', KEYS[1])
redis.call('INCRBY', KEYS[1], ARGV[1])
if there == 0 and ARGV[2] ~= '0' then
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
end
return redis.call('GET', KEYS[1])";

/// ARGV: the new value, its time to live, and the expected value where one is expected.
const COMPARE_AND_SET: &str = "
if redis.call('GET', KEYS[1]) ~= (ARGV[3] or false) then
  return 0
end
if ARGV[2] == '0' then
  redis.call('SET', KEYS[1], ARGV[1])
else
  redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
end
return 1";

/// What lives longer lives for ever: Redis counts from 1970, in 63 bits.
const FOR_EVER: Duration = Duration::from_secs(1_000 * 365 * 86_400);

/// Values in Redis. What evicts them there is Redis' own policy.
pub struct RedisKv {
    redis: Arc<Redis>,
    increment: Script,
    compare_and_set: Script,
}

impl RedisKv {
    pub fn new(redis: Arc<Redis>) -> Self {
        Self { redis, increment: Script::new(INCREMENT), compare_and_set: Script::new(COMPARE_AND_SET) }
    }

    pub async fn get(&self, key: &str) -> Result<Option<Bytes>, KvError> {
        match self.ask(redis::cmd("GET").arg(self.redis.keys.value(key))).await? {
            Value::Nil => Ok(None),
            Value::BulkString(value) => Ok(Some(value.into())),
            _ => Err(KvError::Unavailable),
        }
    }

    pub async fn set(&self, key: &str, value: &[u8], ttl: Duration) -> Result<(), KvError> {
        let mut set = redis::cmd("SET");
        set.arg(self.redis.keys.value(key)).arg(value);
        if let ttl @ 1.. = millis(ttl) {
            set.arg("PX").arg(ttl);
        }
        self.ask(&set).await.map(drop)
    }

    pub async fn delete(&self, key: &str) -> Result<(), KvError> {
        self.ask(redis::cmd("DEL").arg(self.redis.keys.value(key))).await.map(drop)
    }

    pub async fn increment(&self, key: &str, by: i64, ttl: Duration) -> Result<i64, KvError> {
        let (by, ttl) = (by.to_string(), millis(ttl).to_string());
        let key = self.redis.keys.value(key);
        let sum = self.redis.invoke(&self.increment, &[&key], &[by.as_bytes(), ttl.as_bytes()]).await;
        match sum.map_err(error)? {
            Value::BulkString(sum) => super::number(&sum),
            _ => Err(KvError::Unavailable),
        }
    }

    pub async fn compare_and_set(
        &self,
        key: &str,
        expected: Option<&[u8]>,
        value: &[u8],
        ttl: Duration,
    ) -> Result<bool, KvError> {
        let ttl = millis(ttl).to_string();
        let key = self.redis.keys.value(key);
        let mut arguments = vec![value, ttl.as_bytes()];
        arguments.extend(expected);
        match self.redis.invoke(&self.compare_and_set, &[&key], &arguments).await.map_err(error)? {
            Value::Int(was) => Ok(was == 1),
            _ => Err(KvError::Unavailable),
        }
    }

    async fn ask(&self, command: &Cmd) -> Result<Value, KvError> {
        self.redis.query(command).await.map_err(error)
    }
}

/// 0: for ever.
fn millis(ttl: Duration) -> u64 {
    if ttl >= FOR_EVER { 0 } else { ttl.as_millis() as u64 }
}

fn error(fault: Fault) -> KvError {
    match fault {
        Fault::Refused(why) if why.contains("not an integer") || why.contains("overflow") => KvError::NotANumber,
        Fault::Refused(why) if why.contains("OOM") => KvError::Full,
        Fault::Refused(why) => {
            tracing::error!(
                why,
                "Redis refuses what the key-value store asks: see its version (7.0 at least) and its users' rights"
            );
            KvError::Unavailable
        }
        Fault::Gone | Fault::Timeout | Fault::Broken => KvError::Unavailable,
    }
}
