//! `tidegate plugin inspect`: what a plugin's file has, wants and costs.

use std::path::{Path, PathBuf};

use clap::Args;

use crate::cli::runtime;
use crate::plugin::{Grant, Report};

#[derive(Args)]
#[command(after_help = "\
The file is compiled and one instance is made of it, without configuration and grants. Grants are read off the imports: some
languages import whole interfaces, used or not, and then show more than the plugin needs.

Exit codes: 0 this gateway can serve it, 1 it cannot, 64 bad usage.")]
pub struct Inspect {
    /// The plugin
    #[arg(value_name = "FILE.wasm")]
    file: PathBuf,
    /// Print JSON; sizes are in bytes, times in microseconds
    #[arg(long)]
    json: bool,
}

impl Inspect {
    pub fn run(self) -> anyhow::Result<()> {
        let report = runtime()?.block_on(crate::inspect(&self.file))?;
        if self.json {
            say!("{}", serde_json::to_string_pretty(&report)?);
        } else {
            put!(told(&self.file, &report));
        }
        Ok(())
    }
}

fn told(file: &Path, report: &Report) -> String {
    let mut text = format!("{}: a plugin for this gateway\n", file.display());
    let mut put = |key: &str, value: &str| {
        let value = value.replace('\n', "\n             ");
        text.push_str(&format!("  {key:<10} {value}\n"));
    };
    put("form", &format!("{}, {} bytes", report.form, thousands(report.bytes as u64)));
    put("sha256", &report.sha256);
    let spoken = report.speaks.join(", ");
    put("interface", &format!("tidegate:plugin {spoken} (this gateway speaks {})", report.gateway_speaks));
    put("hooks", &report.hooks.join(", "));
    put("memory", &memory(report));
    put("compile", &time(report.compile_us));
    match (&report.init_error, report.instance_us) {
        (Some(why), _) => put("init", &format!("not without its configuration: {why}")),
        (None, Some(took)) => put("instance", &format!("{}, with its init", time(took))),
        (None, None) => {}
    }
    match report.waits_for.as_slice() {
        [] if report.direct => put("calls", "never wait, and need no component around the module"),
        [] => put("calls", "never wait"),
        because => put("calls", &format!("may wait, because it imports {}", short(because).join(", "))),
    }
    let widest = report.imports.iter().map(|import| name(&import.interface).len()).max().unwrap_or(0);
    let imports: Vec<_> =
        report.imports.iter().map(|import| wrapped(&import.interface, &import.functions, widest)).collect();
    let imports = imports.join("\n");
    put("imports", if imports.is_empty() { "nothing" } else { &imports });
    if report.grants.is_empty() {
        put("grants", "needs none");
        return text;
    }
    put("grants", "these may be needed:");
    text.push_str(&format!("\n[plugin.{}.grants]\n", plugin_name(file)));
    report.grants.iter().for_each(|grant| text.push_str(&snippet(grant)));
    text
}

fn memory(report: &Report) -> String {
    let memory = &report.memory;
    let maximum =
        memory.maximum.map_or("no maximum of its own".to_owned(), |maximum| format!("{} at most", size(maximum)));
    let after = memory.after_init.map_or(String::new(), |after| format!(", {} after init", size(after)));
    format!("{} at first{after}, {maximum}", size(memory.initial))
}

fn snippet(grant: &Grant) -> String {
    let line = format!("{} = {}", grant.key, grant.value);
    let because = grant.because.join(", ");
    let what = if grant.what.is_empty() { String::new() } else { format!("{}; ", grant.what) };
    format!("{line:<16}  # {what}for {because}\n")
}

/// An interface with its functions behind it, in lines of a terminal's width.
fn wrapped(interface: &str, functions: &[String], widest: usize) -> String {
    const WIDTH: usize = 100;
    let mut lines = vec![format!("{:<widest$} ", name(interface))];
    for function in functions {
        let last = lines.len() - 1;
        if lines[last].len() + function.len() > WIDTH {
            lines.push(" ".repeat(widest + 1));
        }
        let last = lines.len() - 1;
        lines[last].push_str(&format!(" {function}"));
    }
    lines.join("\n")
}

fn short(interfaces: &[String]) -> Vec<&str> {
    interfaces.iter().map(|interface| name(interface)).collect()
}

/// The gateway's own interfaces by their short names.
fn name(interface: &str) -> &str {
    match interface.strip_prefix("tidegate:plugin/") {
        Some(name) => name.split('@').next().unwrap_or(name),
        None => interface,
    }
}

/// What tidegate.toml would call the plugin.
fn plugin_name(file: &Path) -> String {
    let stem = file.file_stem().unwrap_or_default().to_string_lossy();
    stem.chars().map(|c| if c.is_ascii_alphanumeric() || c == '-' || c == '_' { c } else { '-' }).collect()
}

fn size(bytes: u64) -> String {
    crate::config::Size(bytes as usize).to_string()
}

fn time(micros: u64) -> String {
    if micros < 10_000 { format!("{micros} µs") } else { format!("{} ms", micros / 1000) }
}

fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let groups: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().filter_map(|group| std::str::from_utf8(group).ok()).collect();
    groups.join(",")
}
