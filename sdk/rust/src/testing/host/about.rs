//! Of `log`, `metrics`, `config`, `clock` and `random`.

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

pub(crate) mod metrics {
    use super::call;
    use crate::testing::state::Series;

    /// What comes after is dropped, as in the gateway.
    const SERIES: usize = 1000;

    pub(crate) fn count(series: &str, by: u64) {
        change(series, Series::Counter(0), |series| match series {
            Series::Counter(count) => *count = count.saturating_add(by),
            other => panic!("counted what is no counter but {other:?}"),
        });
    }

    pub(crate) fn gauge(series: &str, value: f64) {
        change(series, Series::Gauge(0.0), |series| match series {
            Series::Gauge(gauge) => *gauge = value,
            other => panic!("set what is no gauge but {other:?}"),
        });
    }

    pub(crate) fn observe(series: &str, value: f64) {
        change(series, Series::Histogram(Vec::new()), |series| match series {
            Series::Histogram(values) => values.push(value),
            other => panic!("observed what is no histogram but {other:?}"),
        });
    }

    fn change(name: &str, new: Series, change: impl FnOnce(&mut Series)) {
        assert!(well_formed(name), "not a series, which is a name like `moves_total{{game=\"chess\"}}`: {name:?}");
        call::with(|call| {
            let series = &mut call.state().series;
            if series.len() < SERIES || series.contains_key(name) {
                change(series.entry(name.to_owned()).or_insert(new));
            }
        });
    }

    fn well_formed(series: &str) -> bool {
        let Some((name, labels)) = series.split_once('{') else {
            return is_name(series, ":");
        };
        is_name(name, ":") && labels_end(labels).is_some()
    }

    fn is_name(name: &str, more: &str) -> bool {
        let letter = |char: char| char.is_ascii_alphabetic() || char == '_' || more.contains(char);
        name.starts_with(letter) && name.chars().all(|char| letter(char) || char.is_ascii_digit())
    }

    /// `a="b",c="d"}`, a comma before the end allowed.
    fn labels_end(mut rest: &str) -> Option<()> {
        loop {
            if rest == "}" {
                return Some(());
            }
            let (name, value) = rest.split_once("=\"")?;
            let mut escaped = false;
            let end = value.find(|char| match char {
                '"' if !escaped => true,
                _ => {
                    escaped = char == '\\' && !escaped;
                    false
                }
            })?;
            rest = &value[end + 1..];
            if !is_name(name, "") || !(rest.starts_with(',') || rest == "}") {
                return None;
            }
            rest = rest.strip_prefix(',').unwrap_or(rest);
        }
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
