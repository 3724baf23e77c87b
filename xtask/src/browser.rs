//! The browser that the page test needs: found, or installed where that is allowed.

use std::env;

use anyhow::{Result, bail};

use crate::{apt, workspace};

const BROWSERS: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];

/// Makes sure that Chromium and its driver are there.
pub(crate) fn ensure() -> Result<()> {
    if found() {
        return Ok(());
    }
    apt::install("Chromium and chromedriver", &["chromium", "chromium-driver"], "both")?;
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
