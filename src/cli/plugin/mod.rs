//! `tidegate plugin`: for those who write plugins.

mod bench;
mod inspect;
mod new;
mod test;

use clap::{Args, Subcommand};

/// Tools for those who write plugins.
#[derive(Args)]
pub struct Plugin {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measure its calls, by hook
    Bench(bench::Bench),
    /// Say what a file has, wants and costs: hooks, imports, grants, memory
    Inspect(inspect::Inspect),
    /// Begin a plugin: a folder with a small one, its scenario, and the SDK
    New(new::New),
    /// Run scenarios on a plugin and compare what comes of them with what they expect
    Test(test::Test),
}

impl Plugin {
    pub fn run(self) -> anyhow::Result<()> {
        match self.command {
            Command::Bench(bench) => bench.run(),
            Command::Inspect(inspect) => inspect.run(),
            Command::New(new) => new.run(),
            Command::Test(test) => test.run(),
        }
    }
}
