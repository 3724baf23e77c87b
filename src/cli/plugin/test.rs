//! `tidegate plugin test`: scenarios, and how they went.

use std::fmt::Write as _;
use std::io::IsTerminal as _;
use std::path::PathBuf;

use clap::Args;

use crate::cli::paint::Paint;
use crate::cli::runtime;
use crate::scenario::{self, BadScenario, Came, Line, Outcome, Run};

#[derive(Args)]
#[command(after_help = "\
The form of scenario files: docs/reference/scenario.md. Nothing waits: the clock is moved by the steps alone.

Exit codes: 0 all is as expected, 1 something is not, or the plugin cannot serve, 64 a scenario cannot be read.")]
pub struct Test {
    /// The plugin
    #[arg(value_name = "FILE.wasm")]
    plugin: PathBuf,
    /// Scenario files, each run from its own beginning
    #[arg(value_name = "SCENARIO", required = true)]
    scenarios: Vec<PathBuf>,
    /// Print all that happened in every step, in the words of a scenario file
    #[arg(long, short)]
    verbose: bool,
}

/// Some steps went other than expected, which has been told.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Failed(String);

impl Test {
    pub fn run(self) -> anyhow::Result<()> {
        let paint = Paint(std::io::stdout().is_terminal());
        let runtime = runtime()?;
        let (mut steps, mut failed) = (0, 0);
        for file in &self.scenarios {
            let run = runtime.block_on(scenario::run(&self.plugin, file)).map_err(|error| {
                if error.is::<BadScenario>() { error } else { error.context(format!("{}", self.plugin.display())) }
            })?;
            steps += run.steps;
            failed += run.failed();
            put!(told(&file.display().to_string(), &run, self.verbose, paint));
        }
        runtime.shutdown_background();
        if failed > 0 {
            return Err(Failed(format!("{failed} of {steps} steps went other than expected")).into());
        }
        say!("{}", paint.good(&format!("{steps} steps as expected")));
        Ok(())
    }
}

fn told(file: &str, run: &Run, verbose: bool, paint: Paint) -> String {
    let mut text = String::new();
    let result = match run.failed() {
        0 => paint.good(&format!("{} steps", run.steps)),
        failed => paint.bad(&format!("{failed} of {} steps failed", run.steps)),
    };
    // Writing into a string does not fail.
    let _ = writeln!(text, "{file}: {}: {result}", run.about);
    for outcome in &run.outcomes {
        if outcome.differences.is_empty() && !verbose {
            continue;
        }
        let mark = if outcome.differences.is_empty() { paint.good("ok") } else { paint.bad("FAILED") };
        let _ = writeln!(text, "\n  {file}:{} {} {mark}", outcome.line, outcome.name);
        if verbose {
            text.push_str(&all(&outcome.came, paint));
        }
        text.push_str(&differences(outcome, paint));
    }
    if let Some((line, why)) = &run.broken {
        let left = run.steps - run.outcomes.len() - 1;
        let _ = writeln!(text, "\n  {file}:{line} {}", paint.bad(why));
        if left > 0 {
            let _ = writeln!(text, "  {left} steps after it were not run");
        }
    }
    if run.failed() > 0 || verbose {
        text.push('\n');
    }
    text
}

fn differences(outcome: &Outcome, paint: Paint) -> String {
    let mut text = String::new();
    for difference in &outcome.differences {
        let legend = paint.faint("(- expected, + got)");
        let _ = writeln!(text, "    {} {legend}", difference.what);
        for line in &difference.lines {
            let line = match line {
                Line::Same(line) => paint.faint(&format!("        {line}")),
                Line::Expected(line) => paint.bad(&format!("      - {line}")),
                Line::Got(line) => paint.good(&format!("      + {line}")),
                Line::Why(why) => format!("          {why}"),
            };
            let _ = writeln!(text, "{line}");
        }
    }
    text
}

/// All that happened, ready to be pasted.
fn all(came: &Came, paint: Paint) -> String {
    let mut text = String::new();
    let mut put = |key: &str, value: &str| {
        let value = value.replace('\n', "\n    ");
        let _ = writeln!(text, "    {} = {value}", paint.faint(key));
    };
    if let Some(handshake) = &came.handshake {
        if handshake.status == 101 {
            put(
                "admitted",
                &came.user.as_ref().map_or("true".to_owned(), |user| scenario::inline(&user.as_str().into())),
            );
        } else {
            let body = scenario::inline(&handshake.body.as_str().into());
            put("refused", &format!("{{ status = {}, body = {body} }}", handshake.status));
        }
    }
    if let Some(response) = &came.response {
        put("responds", &scenario::inline(&response.told()));
    }
    for (key, values) in [
        ("hooks", &came.hooks),
        ("answers", &came.answers),
        ("effects", &came.effects),
        ("denied", &came.denied),
        ("logs", &came.logs),
        ("kv", &came.kv),
        ("asks", &came.asks),
    ] {
        if !values.is_empty() {
            put(key, &scenario::list(values));
        }
    }
    if let Some(first) = came.failures.first() {
        put("fails", &scenario::inline(&first.as_str().into()));
    }
    if let Some(first) = came.refused.first() {
        put("refuses", &scenario::inline(&first.as_str().into()));
    }
    let received: Vec<_> =
        came.received.iter().map(|(client, list)| format!("{client} = {}", scenario::list(list))).collect();
    if !received.is_empty() {
        put("receives", &format!("{{ {} }}", received.join(", ")));
    }
    text
}
