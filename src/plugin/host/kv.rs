//! `kv`: small values, shared by the plugin's instances. A shadow's writes are answered as they would be, and not done.

use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use wasmtime::Result;

use super::asked::{refusal_name, shown};
use super::wit::types::Refusal;
use super::{State, wit};
use crate::kv::{KEY_MAX, KvError, VALUE_MAX};
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
        KvError::Unavailable => Refusal::Unavailable,
    }
}

fn sized(value: &[u8]) -> Result<(), Refusal> {
    if value.len() > VALUE_MAX { Err(Refusal::TooLarge) } else { Ok(()) }
}

fn outcome<T>(result: &Result<T, Refusal>, is: impl FnOnce(&T) -> Value) -> Value {
    match result {
        Ok(value) => is(value),
        Err(refusal) => json!({ "refused": refusal_name(*refusal) }),
    }
}

impl State {
    fn tell_kv(&self, call: impl FnOnce() -> Value) {
        if let Some(tap) = self.context.node.tap.as_ref().filter(|_| !self.context.shadow) {
            tap.note(Note::Kv { plugin: self.context.name.to_string(), call: call() });
        }
    }
}

impl wit::kv::Host for State {
    async fn get(&mut self, key: String) -> Result<Result<Option<Vec<u8>>, Refusal>> {
        let (script, node) = (self.script().cloned(), self.context.node.clone());
        let live = async { node.kv.get(&key).await.map(|value| value.map(|value| value.to_vec())).map_err(refusal) };
        let result = match self.key(&key)? {
            Ok(()) => Self::awaited(script, "kv.get", || json!({ "key": key }), None, live).await,
            Err(refusal) => Err(refusal),
        };
        self.tell_kv(
            || json!({ "get": key, "is": outcome(&result, |value| value.as_deref().map_or(false.into(), shown)) }),
        );
        Ok(result)
    }

    async fn set(&mut self, key: String, value: Vec<u8>, ttl: u64) -> Result<Result<(), Refusal>> {
        let value = Bytes::from(value);
        let (script, node, shadow) = (self.script().cloned(), self.context.node.clone(), self.context.shadow);
        let with = || json!({ "key": key, "value": shown(&value), "ttl": ttl });
        let live = async {
            if shadow {
                return Ok(());
            }
            node.kv.set(&key, value.clone(), Duration::from_millis(ttl)).await.map_err(refusal)
        };
        let result = match self.key(&key)?.and_then(|()| sized(&value)) {
            Ok(()) => {
                self.does("kv.set", with);
                Self::awaited(script, "kv.set", with, Some(()), live).await
            }
            Err(refusal) => Err(refusal),
        };
        self.tell_kv(|| {
            let mut call = json!({ "set": key, "value": shown(&value), "ttl": ttl });
            if result.is_err() {
                call["is"] = outcome(&result, |()| Value::Null);
            }
            call
        });
        Ok(result)
    }

    async fn delete(&mut self, key: String) -> Result<Result<(), Refusal>> {
        let (script, node, shadow) = (self.script().cloned(), self.context.node.clone(), self.context.shadow);
        let with = || json!({ "key": key });
        let live = async {
            if shadow {
                return Ok(());
            }
            node.kv.delete(&key).await.map_err(refusal)
        };
        let result = match self.key(&key)? {
            Ok(()) => {
                self.does("kv.delete", with);
                Self::awaited(script, "kv.delete", with, Some(()), live).await
            }
            Err(refusal) => Err(refusal),
        };
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
        let (script, node, shadow) = (self.script().cloned(), self.context.node.clone(), self.context.shadow);
        let with = || json!({ "key": key, "by": by, "ttl": ttl });
        let live = async {
            let sum = match shadow {
                true => node.kv.incremented(&key, by).await,
                false => node.kv.increment(&key, by, Duration::from_millis(ttl)).await,
            };
            sum.map_err(refusal)
        };
        let result = match self.key(&key)? {
            Ok(()) => {
                self.does("kv.increment", with);
                Self::awaited(script, "kv.increment", with, None, live).await
            }
            Err(refusal) => Err(refusal),
        };
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
        let value = Bytes::from(value);
        let (script, node, shadow) = (self.script().cloned(), self.context.node.clone(), self.context.shadow);
        let told = || (expected.as_deref().map_or(false.into(), shown), shown(&value));
        let with = || {
            let (expected, value) = told();
            json!({ "key": key, "expected": expected, "value": value, "ttl": ttl })
        };
        let live = async {
            let expected = expected.as_deref();
            let was = match shadow {
                true => node.kv.get(&key).await.map(|value| value.as_deref() == expected),
                false => {
                    let ttl = Duration::from_millis(ttl);
                    node.kv.compare_and_set(&key, expected, value.clone(), ttl).await
                }
            };
            was.map_err(refusal)
        };
        let result = match self.key(&key)?.and_then(|()| sized(&value)) {
            Ok(()) => {
                self.does("kv.compare-and-set", with);
                Self::awaited(script, "kv.compare-and-set", with, None, live).await
            }
            Err(refusal) => Err(refusal),
        };
        self.tell_kv(|| {
            let (expected, value) = told();
            let is = outcome(&result, |was| (*was).into());
            json!({ "compare-and-set": key, "expected": expected, "value": value, "ttl": ttl, "is": is })
        });
        Ok(result)
    }
}
