//! The browser that the page test needs: found, or installed where that is allowed.

use std::{env, process::Command};

use anyhow::{Result, bail};

use crate::{process, workspace};

const BROWSERS: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];

/// Makes sure that Chromium and its driver are there.
pub(crate) fn ensure() -> Result<()> {
    if found() {
        return Ok(());
    }
    if workspace::which("apt-get").is_none() {
        bail!("Chromium and chromedriver are not installed; install both and put them on the PATH");
    }
    if !rustix::process::geteuid().is_root() {
        bail!("Chromium and chromedriver are not installed; run `sudo apt-get install chromium chromium-driver`");
    }
    println!("installing chromium and chromium-driver with apt-get …");
    process::answer(Command::new("apt-get").args(["--quiet", "update"]))?;
    process::answer(
        Command::new("apt-get")
            .args(["--quiet", "--yes", "--no-install-recommends", "install", "chromium", "chromium-driver"])
            .env("DEBIAN_FRONTEND", "noninteractive"),
    )?;
    if !found() {
        bail!("apt-get installed chromium and chromium-driver, but they are not on the PATH");
    }
    Ok(())
}

fn found() -> bool {
    named("CHROMIUM", &BROWSERS) && named("CHROMEDRIVER", &["chromedriver"])
}

/// The page test takes a program from its variable, or from the `PATH`.
fn named(variable: &str, programs: &[&str]) -> bool {
    env::var_os(variable).is_some() || programs.iter().any(|program| workspace::which(program).is_some())
}
