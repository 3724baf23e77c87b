//! Of `log`, `config`, `clock` and `random`.

use crate::testing::call;

pub(crate) mod log {
    use super::call;
    use crate::host::data::Level;
    use crate::log;
    use crate::testing::state::Line;

    pub(crate) fn enabled(_: Level) -> bool {
        call::with(|_| true)
    }

    pub(crate) fn write(level: Level, message: &str) {
        line(level, message, &[]);
    }

    pub(crate) fn write_fields(level: Level, message: &str, fields: &[(String, String)]) {
        line(level, message, fields);
    }

    fn line(level: Level, message: &str, fields: &[(String, String)]) {
        let level = match level {
            Level::Trace => log::Level::Trace,
            Level::Debug => log::Level::Debug,
            Level::Info => log::Level::Info,
            Level::Warn => log::Level::Warn,
            Level::Error => log::Level::Error,
        };
        let line = Line { level, message: message.to_owned(), fields: fields.to_vec() };
        call::with(|call| call.state().lines.push(line));
    }
}

pub(crate) mod config {
    use serde_json::Value;

    use super::call;

    pub(crate) fn get(path: &str) -> Option<String> {
        call::with(|call| {
            let state = call.state();
            let value = path.split('.').try_fold(&state.config, |table, key| table.get(key))?;
            Some(match value {
                Value::String(text) => text.clone(),
                other => other.to_string(),
            })
        })
    }

    pub(crate) fn json() -> String {
        call::with(|call| call.state().config.to_string())
    }
}

pub(crate) mod clock {
    use super::call;

    pub(crate) fn now() -> u64 {
        call::with(|call| call.state().now)
    }

    pub(crate) fn monotonic() -> u64 {
        call::with(|call| {
            let state = call.state();
            (state.now - state.started).saturating_mul(1_000_000)
        })
    }
}

pub(crate) mod random {
    use super::call;

    pub(crate) fn number() -> u64 {
        call::with(|call| call.state().random())
    }

    pub(crate) fn bytes(length: u32) -> Vec<u8> {
        assert!(length <= 64 * 1024, "trap: more than 65,536 random bytes");
        call::with(|call| {
            let mut state = call.state();
            let mut bytes = Vec::new();
            while bytes.len() < length as usize {
                bytes.extend(state.random().to_le_bytes());
            }
            bytes.truncate(length as usize);
            bytes
        })
    }
}
