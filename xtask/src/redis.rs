//! The server that the tests of several nodes start: found, or installed where that is allowed.

use std::process::Command;

use anyhow::{Result, bail};

use crate::{process, workspace};

/// Makes sure that redis-server is there. Debian's package also starts one as a service, which no test uses.
pub(crate) fn ensure() -> Result<()> {
    if found() {
        return Ok(());
    }
    if workspace::which("apt-get").is_none() {
        bail!("redis-server is not installed; install Redis 7.0 or newer and put it on the PATH");
    }
    if !rustix::process::geteuid().is_root() {
        bail!("redis-server is not installed; run `sudo apt-get install redis-server`");
    }
    println!("installing redis-server with apt-get …");
    process::answer(Command::new("apt-get").args(["--quiet", "update"]))?;
    process::answer(
        Command::new("apt-get")
            .args(["--quiet", "--yes", "--no-install-recommends", "install", "redis-server"])
            .env("DEBIAN_FRONTEND", "noninteractive"),
    )?;
    if !found() {
        bail!("apt-get installed redis-server, but it is not on the PATH");
    }
    Ok(())
}

fn found() -> bool {
    workspace::which("redis-server").is_some()
}
