//! `cargo xtask bench`: builds what is to be measured and the program that measures, and runs that. It is a program of its own
//! (`bench/`), optimised like the gateway, so that whoever types another command does not wait for what it needs.

use std::{
    ffi::OsString,
    fs,
    path::PathBuf,
    process::{Command, ExitCode},
};

use anyhow::{Context, Result};

use crate::{demo, gateway::exit_code, pieces, plugins, process, workspace};

#[derive(Debug, Default)]
pub(crate) struct Options {
    /// Take this gateway, and the plugins as they are.
    pub(crate) gateway: Option<PathBuf>,
    /// Not the gateway, but its pieces.
    pub(crate) pieces: Option<Pieces>,
    /// Instructions that were counted before.
    pub(crate) against: Option<PathBuf>,
    /// What the program that measures is told.
    pub(crate) passed: Vec<OsString>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pieces {
    Time,
    Instructions,
}

pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    match options.pieces {
        Some(Pieces::Time) => return pieces::time(),
        Some(Pieces::Instructions) => return pieces::instructions(options.against.as_deref()),
        None => {}
    }
    let gateway = match &options.gateway {
        Some(path) => fs::canonicalize(path).with_context(|| format!("--gateway {}", path.display()))?,
        None => {
            println!("building the gateway, optimised (the first time this takes some minutes) …");
            let binary = demo::build_gateway(true)?;
            plugins::build(&["echo".to_owned(), "fanout".to_owned()])?;
            binary
        }
    };
    println!("building what measures …");
    process::run(&mut workspace::cargo(&["build", "--release", "--package", "tidegate-bench"]))?;
    let mut bench = Command::new(workspace::target().join("release/tidegate-bench"));
    bench.arg("--gateway").arg(gateway).arg("--plugins").arg(workspace::plugin_directory());
    bench.arg("--out").arg(workspace::target().join("bench")).args(&options.passed);
    // Its errors are told already; ctrl-c reaches it as it reaches us, and it ends what it has started.
    let told = process::told(&bench);
    let status = bench.status().with_context(|| format!("`{told}` could not be started"))?;
    Ok(ExitCode::from(exit_code(status)))
}
