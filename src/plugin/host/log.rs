//! `log`: lines under the plugin's name.

use std::fmt::Write;

use serde_json::json;
use tracing::Level as TracingLevel;
use wasmtime::Result;

use super::wit::log::Level;
use super::{State, wit};
use crate::tap::Note;

/// Bytes of a line; the rest is cut.
const LINE: usize = 8 << 10;

impl wit::log::Host for State {
    fn enabled(&mut self, level: Level) -> Result<bool> {
        self.enter()?;
        if self.context.node.tap.is_some() {
            return Ok(true);
        }
        self.known(
            "log.enabled",
            || json!({ "level": name(level) }),
            true,
            |_| {
                Ok(match level {
                    Level::Trace => tracing::enabled!(target: "plugin", TracingLevel::TRACE),
                    Level::Debug => tracing::enabled!(target: "plugin", TracingLevel::DEBUG),
                    Level::Info => tracing::enabled!(target: "plugin", TracingLevel::INFO),
                    Level::Warn => tracing::enabled!(target: "plugin", TracingLevel::WARN),
                    Level::Error => tracing::enabled!(target: "plugin", TracingLevel::ERROR),
                })
            },
        )
    }

    fn write(&mut self, level: Level, message: String) -> Result<()> {
        self.write_fields(level, message, Vec::new())
    }

    fn write_fields(&mut self, level: Level, message: String, fields: Vec<(String, String)>) -> Result<()> {
        self.enter()?;
        if let Some(tap) = &self.context.node.tap {
            let (plugin, message, fields) = (self.context.name.to_string(), message.clone(), fields.clone());
            tap.note(Note::Log { plugin, level: name(level), message, fields });
        }
        let plugin = &*self.context.name;
        let generation = self.context.generation;
        let hook = self.hook.name();
        let session = self.event.as_ref().and_then(|event| event.session.as_deref());
        let route = session.map(|session| &*session.route.name);
        let session = session.map(|session| session.id.to_string());
        let mut line = message;
        for (name, value) in &fields {
            // Quoted, so that what a client sent cannot look like a field of its own.
            let _ = write!(line, " {name}={value:?}");
            if line.len() > LINE {
                break;
            }
        }
        let mut end = line.len().min(LINE);
        while !line.is_char_boundary(end) {
            end -= 1;
        }
        // A line break of a plugin's is no line of the log's.
        let line = line[..end].replace(['\n', '\r'], "\u{2424}");
        macro_rules! write_at {
            ($level:ident) => {
                tracing::event!(target: "plugin", TracingLevel::$level, plugin, generation, hook, route, session, "{line}")
            };
        }
        match level {
            Level::Trace => write_at!(TRACE),
            Level::Debug => write_at!(DEBUG),
            Level::Info => write_at!(INFO),
            Level::Warn => write_at!(WARN),
            Level::Error => write_at!(ERROR),
        }
        Ok(())
    }
}

fn name(level: Level) -> &'static str {
    match level {
        Level::Trace => "trace",
        Level::Debug => "debug",
        Level::Info => "info",
        Level::Warn => "warn",
        Level::Error => "error",
    }
}
