//! The command line: what can be asked of `tidegate`, and its exit codes.

/// Prints a line. Whoever has read enough has closed the pipe, which is no reason to fail.
macro_rules! say {
    ($($text:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stdout(), $($text)*);
    }};
}

/// The same for text that has its own line ends.
macro_rules! put {
    ($text:expr) => {{
        use std::io::Write as _;
        let _ = write!(std::io::stdout(), "{}", $text);
    }};
}

mod bench;
mod check;
mod paint;
mod plugin;
mod replay;
mod run;
mod token;
mod upgrade;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::config::{Config, ConfigError};
use crate::replay::Unusable as Unreplayable;
use crate::scenario::BadScenario;

/// Bad usage or a bad configuration (`EX_USAGE` of BSD's sysexits.h).
const USAGE: u8 = 64;
/// Anything else that went wrong.
const FAILURE: u8 = 1;
/// A recording, or a plugin for it, that nothing can be compared with: for scripts that take 1 for a difference.
const UNUSABLE: u8 = 2;

/// A realtime gateway that is programmed in WebAssembly.
///
/// Plugins decide who may come in, what a message becomes and where it goes; the gateway keeps the sockets, the topics
/// and the queues, and replaces plugins while clients stay connected.
#[derive(Parser)]
#[command(
    name = "tidegate",
    version,
    after_help = "Exit codes: 0 ended well, 64 bad usage or configuration, 1 anything else."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve until SIGTERM or ctrl-c, then drain
    Run(run::Run),
    /// Have a running gateway replaced by the program that lies in its place now, without refusing a connection
    Upgrade(upgrade::Upgrade),
    /// Read the configuration and load every plugin, without serving
    Check(check::Check),
    /// Load a WebSocket server, this gateway or any other, and tell rates and latencies
    Bench(Box<bench::Bench>),
    /// Look into a plugin, test it, measure it
    Plugin(plugin::Plugin),
    /// Make code of a plugin's file, for the gateway that started this
    #[command(name = crate::plugin::COMMAND, hide = true)]
    Compile { cpu_seconds: u64, memory: u64 },
    /// Make a recording's calls again on another build of a plugin, and compare
    Replay(replay::Replay),
    /// Print a development token for the jwt-auth plugin of a configuration
    Token(token::Token),
}

#[derive(Args)]
struct ConfigArgs {
    /// The configuration file
    #[arg(long, value_name = "FILE", default_value = "tidegate.toml")]
    config: PathBuf,
}

/// How log lines look.
#[derive(Clone, Copy, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

/// Runs the command that the arguments name.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let asked = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
            // Nowhere to say it is no reason to fail.
            let _ = error.print();
            return if asked { ExitCode::SUCCESS } else { ExitCode::from(USAGE) };
        }
    };
    crate::plugin::compile_apart();
    let result = match cli.command {
        Command::Run(run) => run.run(),
        Command::Upgrade(upgrade) => upgrade.run(),
        Command::Check(check) => check.run(),
        Command::Bench(bench) => bench.run(),
        Command::Plugin(plugin) => plugin.run(),
        Command::Compile { cpu_seconds, memory } => {
            return ExitCode::from(crate::plugin::compiler(cpu_seconds, memory));
        }
        Command::Replay(replay) => replay.run(),
        Command::Token(token) => token.run(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "tidegate: {error:#}");
            let usage = error.is::<ConfigError>() || error.is::<Unusable>() || error.is::<BadScenario>();
            let unusable = error.is::<Unreplayable>();
            ExitCode::from(if usage {
                USAGE
            } else if unusable {
                UNUSABLE
            } else {
                FAILURE
            })
        }
    }
}

/// What the configuration asks for cannot be done.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Unusable(String);

impl ConfigArgs {
    fn load(&self) -> Result<Config, ConfigError> {
        Config::load(&self.config)
    }
}

/// Log lines on stderr. `RUST_LOG` chooses what is logged, `info` unless it is set.
fn start_log(format: LogFormat) {
    use std::io::IsTerminal;

    use tracing_subscriber::EnvFilter;
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // Where a log is started already (in tests), it stays as it is.
    let _ = match format {
        LogFormat::Text => log.with_ansi(std::io::stderr().is_terminal()).try_init(),
        LogFormat::Json => log.json().flatten_event(true).try_init(),
    };
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    let workers = match std::env::var("TOKIO_WORKER_THREADS").ok().and_then(|count| count.parse().ok()) {
        Some(count @ 1..) => count,
        _ => std::thread::available_parallelism().map_or(1, usize::from),
    };
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    // A worker's own queue has room for 256 tasks; what is too much goes to a common one, the oldest first, at which workers
    // look seldom as a rule, so that sessions wait there ten times as long as others. A worker alone looks there first. One of
    // several must not: what is in its own queue has nobody else (docs/decisions/0029-runtime.md).
    runtime.worker_threads(workers).global_queue_interval(if workers == 1 { 1 } else { 3 });
    Ok(runtime.enable_all().build()?)
}
