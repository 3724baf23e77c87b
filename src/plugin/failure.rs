//! Why a plugin's call failed: one word for the metric, a sentence for the log, and what becomes of the instance.

use wasmtime::{Error, Trap};

use super::budget::Overrun;
use super::event::Hook;
use super::host::Quota;
use super::memory::Full;

/// Functions of a backtrace that are told.
const FRAMES: usize = 8;

/// A call that did not answer well. None of its event's effects is applied.
#[derive(Debug, thiserror::Error)]
#[error("plugin {plugin} (generation {generation}) failed in `{}`: {why}", .hook.name())]
pub struct Failure {
    pub plugin: Box<str>,
    pub generation: u64,
    pub hook: Hook,
    pub why: Why,
}

#[derive(Debug, thiserror::Error)]
pub enum Why {
    /// The hook answered an error; the instance lives on.
    #[error("{0}")]
    Error(String),
    #[error("{0}")]
    Trap(String),
    #[error("{0}")]
    Cpu(String),
    #[error("no answer within {} (`wall`)", humantime::format_duration(*.0))]
    Wall(std::time::Duration),
    #[error("out of memory (`memory`): {0}")]
    Memory(String),
    #[error("out of table elements (`tables`): {0}")]
    Tables(String),
    #[error("out of stack (`plugin_stack`): {0}")]
    Stack(String),
    #[error("over the quota of {0}")]
    Quota(Quota),
    #[error("all of its instances are taken (`instances`)")]
    Busy,
    #[error("not called: its breaker is open")]
    Open,
    #[error("no instance can be made: {0}")]
    Instance(String),
}

impl Failure {
    /// The call was not made.
    pub fn is_barred(&self) -> bool {
        matches!(self.why, Why::Open)
    }

    /// Whether the same call may well succeed soon.
    pub fn is_passing(&self) -> bool {
        matches!(self.why, Why::Busy | Why::Wall(_) | Why::Instance(_) | Why::Open)
    }
}

impl Why {
    /// What a hook answered, cut to what a log line should have.
    pub fn error(mut sentence: String) -> Self {
        if sentence.is_empty() {
            sentence.push_str("it answered an error, and no word of why");
        }
        let mut end = sentence.len().min(8 << 10);
        while !sentence.is_char_boundary(end) {
            end -= 1;
        }
        sentence.truncate(end);
        Self::Error(sentence)
    }

    /// The metric's label.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Error(_) => "error",
            Self::Trap(_) => "trap",
            Self::Cpu(_) => "cpu",
            Self::Wall(_) => "wall",
            Self::Memory(_) => "memory",
            Self::Tables(_) => "tables",
            Self::Stack(_) => "stack",
            Self::Quota(quota) => quota.label(),
            Self::Busy => "busy",
            Self::Open => "open",
            Self::Instance(_) => "instance",
        }
    }

    /// What ended the guest's code. `full`: what the instance was refused more of in this call.
    pub fn of(error: &Error, full: Option<Full>) -> Self {
        if let Some(overrun) = error.downcast_ref::<Overrun>() {
            return Self::Cpu(overrun.to_string());
        }
        if let Some(quota) = error.downcast_ref::<Quota>() {
            return Self::Quota(*quota);
        }
        // The root cause first: the backtrace in front of it is long, and only the last lines of a log are read.
        let text = format!("{:#}", error.root_cause());
        let text = match error.downcast_ref::<Trap>() {
            Some(trap) => trap.to_string(),
            None => text,
        };
        let frames = error.downcast_ref::<wasmtime::WasmBacktrace>().map(|trace| {
            let names: Vec<_> = trace.frames().iter().map(|frame| name(frame.func_name())).collect();
            let of_runtime = names.iter().take_while(|name| is_of_runtime(name)).count();
            // All of them, if there are no others.
            let from = if of_runtime < names.len() { of_runtime } else { 0 };
            let shown: Vec<_> = names[from..].iter().take(FRAMES).map(String::as_str).collect();
            format!(" (in {})", shown.join(" < "))
        });
        let text = text + &frames.unwrap_or_default();
        match (error.downcast_ref::<Trap>(), full) {
            (Some(Trap::StackOverflow), _) => Self::Stack(text),
            (_, Some(Full::Memory)) => Self::Memory(text),
            (_, Some(Full::Tables)) => Self::Tables(text),
            (_, None) => Self::Trap(text),
        }
    }
}

/// A function's name as its author wrote it. Files without a name section have none.
fn name(symbol: Option<&str>) -> String {
    let symbol = symbol.unwrap_or("?");
    rustc_demangle::try_demangle(symbol).map_or_else(|_| symbol.to_owned(), |name| format!("{name:#}"))
}

/// What a panic of Rust's passes through on its way from where it began.
fn is_of_runtime(name: &str) -> bool {
    ["__rustc::", "std::", "<std::", "core::panicking", "core::result::", "core::option::", "core::slice::index"]
        .iter()
        .any(|prefix| name.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_source() {
        assert_eq!(name(Some("_ZN6panics7stumble17h373dd0649a9eba84E")), "panics::stumble");
        assert_eq!(name(Some("_RNvNtCsgXGp5Oqx2Ny_4core9panicking9panic_fmt")), "core::panicking::panic_fmt");
        assert_eq!(name(Some("assembly/index/abort")), "assembly/index/abort");
        assert_eq!(name(None), "?");
        assert!(is_of_runtime("core::panicking::panic_fmt") && !is_of_runtime("panics::stumble"));
    }
}
