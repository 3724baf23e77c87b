//! `tidegate plugin bench`: what a plugin's calls cost.

use std::fmt::Write as _;
use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;

use crate::cli::runtime;
use crate::scenario;

#[derive(Args)]
#[command(after_help = "\
A call is measured from the gateway's decision to make it to the answer: taking an instance, the guest's code, the host
functions that it calls. Without a scenario one client connects and says something short, which many plugins answer with
an error: measure what they are made for.

Exit codes: 0 measured, 1 the plugin cannot serve, 64 bad usage or scenario.")]
pub struct Bench {
    /// The plugin
    #[arg(value_name = "FILE.wasm")]
    plugin: PathBuf,
    /// What happens to it, again and again; its expectations are not looked at
    #[arg(long, value_name = "FILE")]
    scenario: Option<PathBuf>,
    /// How long
    #[arg(long, value_name = "DURATION", default_value = "3s", value_parser = humantime::parse_duration)]
    time: Duration,
    /// Print JSON; times in nanoseconds, memory in bytes
    #[arg(long)]
    json: bool,
}

impl Bench {
    pub fn run(self) -> anyhow::Result<()> {
        let terminal = std::io::stderr().is_terminal();
        let begun = Instant::now();
        let progress = |rounds: usize, calls: usize| {
            if terminal {
                let (seconds, of) = (begun.elapsed().as_secs_f64(), self.time.as_secs_f64());
                eprint!("\r\x1b[K{seconds:.1} s of {of:.1} s: {rounds} rounds, {calls} calls");
            }
        };
        let runtime = runtime()?;
        let measured = runtime.block_on(scenario::bench(&self.plugin, self.scenario.as_deref(), self.time, progress));
        if terminal {
            eprint!("\r\x1b[K");
        }
        let measured = measured?;
        runtime.shutdown_background();
        if self.json {
            say!("{}", serde_json::to_string_pretty(&measured)?);
        } else {
            put!(self.told(&measured));
        }
        Ok(())
    }

    fn told(&self, measured: &scenario::Bench) -> String {
        let scenario::Bench { about, rounds, seconds, instances, hooks } = measured;
        let mut text = format!("{}: {about}, {rounds} times in {seconds:.1} s\n", self.plugin.display());
        // Writing into a string does not fail.
        let _ = writeln!(text, "  {:<14}{:>9}{:>11}{:>11}{:>11}{:>9}", "hook", "calls", "p50", "p99", "max", "failed");
        for hook in hooks {
            let (p50, p99, max) = (time(hook.p50_ns), time(hook.p99_ns), time(hook.max_ns));
            let _ = writeln!(text, "  {:<14}{:>9}{p50:>11}{p99:>11}{max:>11}{:>9}", hook.hook, hook.calls, hook.failed);
        }
        if hooks.is_empty() {
            text.push_str("  no hook was called: does the scenario do what the plugin is for?\n");
        }
        let memory = crate::config::Size(instances.memory as usize);
        let (p50, p99) = (time(instances.p50_ns), time(instances.p99_ns));
        let _ =
            writeln!(text, "  instance      p50 {p50}, p99 {p99}, {memory} of memory each ({} made)", instances.made);
        let _ = writeln!(text, "  compile       {}", time(instances.compile_ns));
        if cfg!(debug_assertions) {
            text.push_str(
                "  This gateway was built without optimisations: its own part takes several times as long.\n",
            );
        }
        text
    }
}

fn time(nanos: u64) -> String {
    match nanos {
        0..1_000 => format!("{nanos} ns"),
        1_000..1_000_000 => format!("{:.2} µs", nanos as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} ms", nanos as f64 / 1e6),
        _ => format!("{:.2} s", nanos as f64 / 1e9),
    }
}
