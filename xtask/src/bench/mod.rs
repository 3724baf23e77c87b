//! `cargo xtask bench`: what a message costs the gateway, and what of that is the plugin.
//!
//! The measure is the server's CPU time for each message, from the kernel's accounting: unlike rates and latencies it
//! does not depend on how much the clients take. Every row is measured in rounds, interleaved with the others, and its
//! median is told beside its spread.

mod load;

use std::{
    fmt::Write as _,
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    process::{Command, ExitCode},
    thread,
    time::Duration,
};

use anyhow::{Result, bail};
use load::Load;
use rustix::thread::{sched_getaffinity, sched_setaffinity};

use crate::{
    demo,
    gateway::{Gateway, Start},
    plugins, workspace,
};

#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) rounds: usize,
    pub(crate) seconds: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { rounds: 5, seconds: 2 }
    }
}

/// What the goal for a plugin's call with one send is, on the whole path, in microseconds.
const GOAL: f64 = 0.6;
const CONNECTIONS: usize = 50;
const SIZE: u8 = 64;
const DEPTHS: [usize; 3] = [1, 4, 16];
/// Routes of examples/bench: without a plugin, and with one that sends each message back.
const PATHS: [&str; 2] = ["/core", "/echo"];

/// Server CPU for a message, in microseconds: one value a round.
#[derive(Default)]
struct Row(Vec<f64>);

impl Row {
    fn median(&self) -> f64 {
        let mut values = self.0.clone();
        values.sort_by(f64::total_cmp);
        let middle = values.len() / 2;
        if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 }
    }

    fn spread(&self) -> (f64, f64) {
        let least = self.0.iter().copied().fold(f64::INFINITY, f64::min);
        (least, self.0.iter().copied().fold(0.0, f64::max))
    }
}

pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    println!("1/3  Building the gateway, optimised …");
    let binary = demo::build_gateway(true)?;
    println!("2/3  Building the plugins …");
    plugins::build(&["echo".to_owned(), "fanout".to_owned()])?;
    println!("3/3  Measuring: {} rounds of {} …", options.rounds, DEPTHS.len() * PATHS.len());
    let (listen, admin) = (free()?, free()?);
    // Server and clients shall not push each other around.
    let apart = thread::available_parallelism().is_ok_and(|processors| processors.get() > 1);
    let mut command = if apart { pinned(0)? } else { Command::new("env") };
    command.current_dir(workspace::root()).env("RUST_LOG", "warn").arg(&binary);
    command.args(["run", "--config", "examples/bench/tidegate.toml"]);
    command.args(["--listen", &listen.to_string(), "--admin", &admin.to_string()]);
    let mut gateway = Gateway::start(&mut command, admin)?;
    let measured = match gateway.wait_until_ready()? {
        Start::Ready => measure(listen, gateway.id(), options),
        _ => Err(anyhow::anyhow!("the gateway was not ready; what it said is above")),
    };
    gateway.kill()?;
    let rows = measured?;
    let report = report(&rows);
    print!("\n{report}");
    let folder = workspace::target().join("bench");
    fs::create_dir_all(&folder)?;
    fs::write(folder.join("report.md"), &report)?;
    println!("\nThis table: {}", folder.join("report.md").display());
    Ok(ExitCode::SUCCESS)
}

/// By depth, then by path.
type Rows = Vec<[Row; 2]>;

fn measure(address: SocketAddr, server: u32, options: &Options) -> Result<Rows> {
    let mut rows: Rows = DEPTHS.iter().map(|_| Default::default()).collect();
    for round in 1..=options.rounds {
        for (depth, row) in DEPTHS.into_iter().zip(&mut rows) {
            let mut told = Vec::new();
            for (path, row) in PATHS.into_iter().zip(row) {
                let time = Duration::from_secs(options.seconds);
                let load = Load { connections: CONNECTIONS, depth, size: SIZE, time };
                let measured = load::echo(address, path, load, server)?;
                let cost = measured.cpu.as_secs_f64() * 1e6 / measured.messages as f64;
                told.push(format!("{path} {cost:.2} µs"));
                row.0.push(cost);
            }
            println!("     round {round}, {depth:2} at a time: {}", told.join(", "));
        }
    }
    if rows.iter().flatten().any(|row| row.0.is_empty()) {
        bail!("no round was asked for");
    }
    Ok(rows)
}

fn report(rows: &Rows) -> String {
    let mut text = format!(
        "Server CPU for each message and its answer, in µs: {CONNECTIONS} clients, {SIZE} bytes, median of the rounds \
         (least to most).\nOther load when it ended (1 minute): {}\n\n\
         | messages at a time | no plugin | `echo` plugin | the plugin |\n|---|---|---|---|\n",
        load_average()
    );
    for (depth, [core, plugin]) in DEPTHS.into_iter().zip(rows) {
        let cell = |row: &Row| {
            let (least, most) = row.spread();
            format!("{:.2} ({least:.2} to {most:.2})", row.median())
        };
        let cost = plugin.median() - core.median();
        // Writing to a String cannot fail.
        let _ = writeln!(text, "| {depth} | {} | {} | {cost:.2} |", cell(core), cell(plugin));
    }
    let mut costs = rows.iter().map(|[core, plugin]| plugin.median() - core.median());
    let last = costs.next_back().unwrap_or_default();
    let verdict = if last <= GOAL { "reached" } else { "not reached" };
    let _ = writeln!(
        text,
        "\nThe goal for a plugin's call with one send is {GOAL} µs at most on the whole path: {verdict}, with {last:.2} µs."
    );
    text
}

/// A command on one of the processors, and this process on the others.
fn pinned(processor: usize) -> Result<Command> {
    let Some(taskset) = workspace::which("taskset") else { return Ok(Command::new("env")) };
    let mut others = sched_getaffinity(None)?;
    others.unset(processor);
    sched_setaffinity(None, &others)?;
    let mut command = Command::new(taskset);
    command.args(["-c", &processor.to_string()]);
    Ok(command)
}

fn load_average() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or_default().to_owned()
}

fn free() -> Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_tells_medians_and_what_the_plugin_costs() {
        let rows = DEPTHS.iter().map(|_| [Row(vec![1.0, 3.0, 1.5]), Row(vec![2.0, 1.9, 9.0, 2.1])]).collect();
        let report = report(&rows);
        assert!(report.contains("| 16 | 1.50 (1.00 to 3.00) | 2.05 (1.90 to 9.00) | 0.55 |"), "{report}");
        assert!(report.contains("reached, with 0.55 µs"), "{report}");
    }
}
