//! `config`: the plugin's table in the gateway's configuration.

use serde_json::Value;
use wasmtime::Result;

use super::{State, wit};

impl wit::config::Host for State {
    fn get(&mut self, path: String) -> Result<Option<String>> {
        self.enter()?;
        let found = path.split('.').try_fold(&self.context.config, |value, key| match value {
            Value::Object(table) => table.get(key),
            Value::Array(list) => list.get(key.parse::<usize>().ok()?),
            _ => None,
        });
        Ok(found.map(|value| match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        }))
    }

    fn json(&mut self) -> Result<String> {
        self.enter()?;
        Ok(self.context.config.to_string())
    }
}
