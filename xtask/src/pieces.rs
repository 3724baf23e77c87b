//! `cargo xtask bench --pieces` and `--instructions`: the gateway's hot pieces by themselves, in time with Criterion, or in
//! instructions with callgrind, which say the same whatever else the machine does.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
};

use anyhow::{Context, Result, bail, ensure};

use crate::{plugins, process, workspace};

const BENCH: &[&str] = &["bench", "--package", "tidegate", "--bench", "pieces", "--features", "pieces"];
/// Runs of a piece: the instructions of the first number, set-up and all, are taken from those of the second.
const RUNS: (u64, u64) = (20, 120);

/// Criterion, which keeps what it finds in the target folder and tells what has changed since.
pub(crate) fn time() -> Result<ExitCode> {
    plugins::build(&["echo".to_owned()])?;
    println!("building what measures, optimised (the first time this takes some minutes) …");
    let mut bench = workspace::cargo(BENCH);
    process::run(bench.env("TIDEGATE_PLUGINS", workspace::plugin_directory()))?;
    Ok(ExitCode::SUCCESS)
}

/// Counts, and compares with an earlier count where one is given.
pub(crate) fn instructions(against: Option<&Path>) -> Result<ExitCode> {
    if workspace::which("valgrind").is_none() {
        bail!("valgrind counts the instructions, and is not installed: `apt-get install valgrind`");
    }
    let before = against.map(earlier).transpose()?.unwrap_or_default();
    plugins::build(&["echo".to_owned()])?;
    println!("building what is counted, optimised (the first time this takes some minutes) …");
    let bench = built()?;
    let names = process::answer(program(&bench).arg("--names"))?;
    println!("{:<28} {:>14}", "piece", "instructions");
    let mut found = BTreeMap::new();
    for line in names.lines() {
        let (units, name) =
            line.split_once('\t').context("`pieces --names` prints a number and a name in each line")?;
        let (few, many) = (counted(&bench, name, RUNS.0)?, counted(&bench, name, RUNS.1)?);
        ensure!(many > few, "{name}: {many} instructions in {} runs, {few} in {}", RUNS.1, RUNS.0);
        let each = (many - few) as f64 / ((RUNS.1 - RUNS.0) * units.parse::<u64>()?) as f64;
        let change = before.get(name).filter(|before| **before > 0.0).map(|before| (each / before - 1.0) * 100.0);
        let change = change.map_or_else(String::new, |change| format!("   {change:+.1} %"));
        println!("{name:<28} {each:>14.0}{change}");
        found.insert(name.to_owned(), each);
    }
    let folder = workspace::target().join("bench");
    fs::create_dir_all(&folder)?;
    let file = folder.join("instructions.json");
    fs::write(&file, serde_json::to_string_pretty(&found)?).with_context(|| format!("{}", file.display()))?;
    println!("\nfor a message or a delivery each; also in {}", file.display());
    Ok(ExitCode::SUCCESS)
}

fn earlier(file: &Path) -> Result<BTreeMap<String, f64>> {
    let text = fs::read_to_string(file).with_context(|| format!("--against {}", file.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} is no count of instructions", file.display()))
}

/// The benchmark's program, as cargo tells where it has put it.
fn built() -> Result<PathBuf> {
    let mut build = workspace::cargo(BENCH);
    let messages =
        process::answer(build.args(["--no-run", "--message-format=json-render-diagnostics"]).stderr(Stdio::inherit()))?;
    let of_pieces = |line: &str| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        let is_ours = message["reason"] == "compiler-artifact" && message["target"]["name"] == "pieces";
        if is_ours { message["executable"].as_str().map(PathBuf::from) } else { None }
    };
    messages.lines().find_map(of_pieces).context("cargo does not tell where the benchmark is")
}

fn program(bench: &Path) -> Command {
    let mut command = Command::new(bench);
    command.env("TIDEGATE_PLUGINS", workspace::plugin_directory());
    command
}

fn counted(bench: &Path, name: &str, runs: u64) -> Result<u64> {
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]).arg(bench);
    valgrind.args(["--once", name, &runs.to_string()]).env("TIDEGATE_PLUGINS", workspace::plugin_directory());
    let output = valgrind.stdin(Stdio::null()).output().context("valgrind could not be started")?;
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "`{}` failed ({}):\n{told}", process::told(&valgrind), output.status);
    collected(&told).with_context(|| format!("callgrind does not say what it has counted:\n{told}"))
}

/// The sum in callgrind's last words: `==123== Collected : 456`.
fn collected(told: &str) -> Option<u64> {
    told.lines().find_map(|line| line.split_once("Collected : ")?.1.split_whitespace().next()?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_count_is_found_in_what_callgrind_tells() {
        let told = "==1== Events    : Ir\n==1== Collected : 218912\n==1== \n==1== I   refs:      218,912\n";
        assert_eq!(collected(told), Some(218_912));
        assert_eq!(collected("==1== killed\n"), None);
    }
}
