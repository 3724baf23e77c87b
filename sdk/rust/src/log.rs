//! Log lines under the plugin's name, with generation, hook, route and session beside them.
//!
//! They are written even when the event fails. The macros format nothing when the level is off:
//!
//! ```no_run
//! # use tidegate_sdk::log;
//! # let (room, count) = ("blue", 3);
//! log::info!("{count} in the room");
//! log::warn!(room = room, count = count; "the room is full");
//! ```

use std::fmt;

use crate::host;

#[doc(inline)]
pub use crate::{__debug as debug, __error as error, __info as info, __trace as trace, __warn as warn};

/// How much a line matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// Each step.
    Trace,
    /// For whoever looks for a fault.
    Debug,
    /// What an operator likes to know.
    Info,
    /// What an operator should look at.
    Warn,
    /// What went wrong.
    Error,
}

impl Level {
    fn host(self) -> host::data::Level {
        match self {
            Self::Trace => host::data::Level::Trace,
            Self::Debug => host::data::Level::Debug,
            Self::Info => host::data::Level::Info,
            Self::Warn => host::data::Level::Warn,
            Self::Error => host::data::Level::Error,
        }
    }
}

/// Whether a line of this level would be written.
pub fn enabled(level: Level) -> bool {
    host::log::enabled(level.host())
}

/// Write a line, up to 8 KiB; the rest is cut.
pub fn write(level: Level, message: &str) {
    host::log::write(level.host(), message);
}

/// Write a line with fields.
pub fn write_fields(level: Level, message: &str, fields: &[(String, String)]) {
    host::log::write_fields(level.host(), message, fields);
}

/// Write panics to the log before they trap, with their place. Without it a panic's message would be lost: a trap says
/// only where it was. Every plugin does so before it is made.
#[doc(hidden)]
pub fn panics() {
    #[cfg(target_arch = "wasm32")]
    std::panic::set_hook(Box::new(|panic| {
        let what = panic.payload_as_str().unwrap_or("for a reason that is no text");
        match panic.location() {
            Some(place) => write(Level::Error, &format!("panicked at {place}: {what}")),
            None => write(Level::Error, &format!("panicked: {what}")),
        }
    }));
}

#[doc(hidden)]
pub fn __line(level: Level, message: fmt::Arguments<'_>) {
    match message.as_str() {
        Some(message) => write(level, message),
        None => write(level, &message.to_string()),
    }
}

#[doc(hidden)]
pub fn __line_with(level: Level, fields: &[(&str, &dyn fmt::Display)], message: fmt::Arguments<'_>) {
    let fields: Vec<_> = fields.iter().map(|(name, value)| ((*name).to_owned(), value.to_string())).collect();
    write_fields(level, &message.to_string(), &fields);
}

#[doc(hidden)]
#[macro_export]
macro_rules! __log {
    ($level:ident, $($name:ident = $value:expr),+; $($message:tt)+) => {
        if $crate::log::enabled($crate::log::Level::$level) {
            $crate::log::__line_with(
                $crate::log::Level::$level,
                &[$((::core::stringify!($name), &$value as &dyn ::core::fmt::Display)),+],
                ::core::format_args!($($message)+),
            );
        }
    };
    ($level:ident, $($message:tt)+) => {
        if $crate::log::enabled($crate::log::Level::$level) {
            $crate::log::__line($crate::log::Level::$level, ::core::format_args!($($message)+));
        }
    };
}

/// A `trace` line: `log::trace!("…")`, or with fields before the text, `log::trace!(name = value; "…")`.
#[doc(hidden)]
#[macro_export]
macro_rules! __trace {
    ($($line:tt)+) => { $crate::__log!(Trace, $($line)+) };
}

/// A `debug` line: `log::debug!("…")`, or with fields before the text, `log::debug!(name = value; "…")`.
#[doc(hidden)]
#[macro_export]
macro_rules! __debug {
    ($($line:tt)+) => { $crate::__log!(Debug, $($line)+) };
}

/// An `info` line: `log::info!("…")`, or with fields before the text, `log::info!(name = value; "…")`.
#[doc(hidden)]
#[macro_export]
macro_rules! __info {
    ($($line:tt)+) => { $crate::__log!(Info, $($line)+) };
}

/// A `warn` line: `log::warn!("…")`, or with fields before the text, `log::warn!(name = value; "…")`.
#[doc(hidden)]
#[macro_export]
macro_rules! __warn {
    ($($line:tt)+) => { $crate::__log!(Warn, $($line)+) };
}

/// An `error` line: `log::error!("…")`, or with fields before the text, `log::error!(name = value; "…")`.
#[doc(hidden)]
#[macro_export]
macro_rules! __error {
    ($($line:tt)+) => { $crate::__log!(Error, $($line)+) };
}
