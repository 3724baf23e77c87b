//! `kv`: small values, shared by the plugin's instances. A shadow's writes are answered as they would be, and not done.

use std::time::Duration;

use serde_json::{Value, json};
use wasmtime::Result;

use super::wit::types::Refusal;
use super::{State, wit};
use crate::kv::{KEY_MAX, KvError, VALUE_MAX};
use crate::message::MessageRef;
use crate::plugin::describe;
use crate::tap::Note;

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

/// A value as scenarios write it.
fn shown(value: &[u8]) -> Value {
    match std::str::from_utf8(value) {
        Ok(text) => describe::message(MessageRef::Text(text)),
        Err(_) => describe::message(MessageRef::Binary(value)),
    }
}

fn outcome<T>(result: &Result<T, Refusal>, is: impl FnOnce(&T) -> Value) -> Value {
    match result {
        Ok(value) => is(value),
        Err(refusal) => json!({ "refused": refusal_name(*refusal) }),
    }
}

fn refusal_name(refusal: Refusal) -> &'static str {
    match refusal {
        Refusal::Invalid => "invalid",
        Refusal::Denied => "denied",
        Refusal::TooLarge => "too-large",
        Refusal::TooMany => "too-many",
        Refusal::Unsupported => "unsupported",
        Refusal::Unavailable => "unavailable",
    }
}

impl State {
    fn tell_kv(&self, call: impl FnOnce() -> Value) {
        if let Some(tap) = self.context.node.tap.as_ref().filter(|_| !self.context.shadow) {
            tap.note(Note::Kv(call()));
        }
    }
}

impl wit::kv::Host for State {
    async fn get(&mut self, key: String) -> Result<Result<Option<Vec<u8>>, Refusal>> {
        let result = self.key(&key)?.map(|()| self.context.node.kv.get(&key).map(|value| value.to_vec()));
        self.tell_kv(
            || json!({ "get": key, "is": outcome(&result, |value| value.as_deref().map_or(false.into(), shown)) }),
        );
        Ok(result)
    }

    async fn set(&mut self, key: String, value: Vec<u8>, ttl: u64) -> Result<Result<(), Refusal>> {
        let told = self.context.node.tap.is_some().then(|| shown(&value));
        let result = self.key(&key)?.and_then(|()| {
            sized(&value)?;
            if self.context.shadow {
                return Ok(());
            }
            self.context.node.kv.set(&key, value.into(), Duration::from_millis(ttl)).map_err(refusal)
        });
        self.tell_kv(|| {
            let mut call = json!({ "set": key, "value": told, "ttl": ttl });
            if result.is_err() {
                call["is"] = outcome(&result, |()| Value::Null);
            }
            call
        });
        Ok(result)
    }

    async fn delete(&mut self, key: String) -> Result<Result<(), Refusal>> {
        let shadow = self.context.shadow;
        let result = self.key(&key)?.map(|()| {
            if !shadow {
                self.context.node.kv.delete(&key);
            }
        });
        self.tell_kv(|| {
            let mut call = json!({ "delete": key });
            if result.is_err() {
                call["is"] = outcome(&result, |()| Value::Null);
            }
            call
        });
        Ok(result)
    }

    async fn increment(&mut self, key: String, by: i64, ttl: u64) -> Result<Result<i64, Refusal>> {
        let result = self.key(&key)?.and_then(|()| {
            let kv = &self.context.node.kv;
            let sum = match self.context.shadow {
                true => kv.incremented(&key, by),
                false => kv.increment(&key, by, Duration::from_millis(ttl)),
            };
            sum.map_err(refusal)
        });
        self.tell_kv(|| json!({ "increment": key, "by": by, "ttl": ttl, "is": outcome(&result, |sum| (*sum).into()) }));
        Ok(result)
    }

    async fn compare_and_set(
        &mut self,
        key: String,
        expected: Option<Vec<u8>>,
        value: Vec<u8>,
        ttl: u64,
    ) -> Result<Result<bool, Refusal>> {
        let told =
            self.context.node.tap.is_some().then(|| (expected.as_deref().map_or(false.into(), shown), shown(&value)));
        let result = self.key(&key)?.and_then(|()| {
            sized(&value)?;
            let ttl = Duration::from_millis(ttl);
            if self.context.shadow {
                return Ok(self.context.node.kv.get(&key).as_deref() == expected.as_deref());
            }
            self.context.node.kv.compare_and_set(&key, expected.as_deref(), value.into(), ttl).map_err(refusal)
        });
        self.tell_kv(|| {
            let (expected, value) = told.unwrap_or_default();
            let is = outcome(&result, |was| (*was).into());
            json!({ "compare-and-set": key, "expected": expected, "value": value, "ttl": ttl, "is": is })
        });
        Ok(result)
    }
}
