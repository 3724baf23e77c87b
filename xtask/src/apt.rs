//! Programs that some commands and tests start: found, or had from Debian where that is allowed.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::{
    debian::{self, Bundle},
    process, workspace,
};

/// A program that Debian has a package of.
pub(crate) struct Program {
    pub(crate) name: &'static str,
    pub(crate) package: &'static str,
    /// What to get where there is no apt.
    pub(crate) elsewhere: &'static str,
    /// Its package does what nobody wants who only runs tests: it is unpacked under target/ instead of installed.
    pub(crate) unpacked: Option<&'static Bundle>,
}

/// Debian's package also starts a server as a service, on loopback, which nothing here uses.
pub(crate) const REDIS: Program =
    Program { name: "redis-server", package: "redis-server", elsewhere: "Redis 7.0 or newer", unpacked: None };

/// As a service it listens nowhere until it is configured.
pub(crate) const HAPROXY: Program =
    Program { name: "haproxy", package: "haproxy", elsewhere: "HAProxy 2.6 or newer", unpacked: None };

pub(crate) const NGINX: Program = Program {
    name: "nginx",
    package: "nginx-light",
    elsewhere: "nginx 1.18 or newer",
    // Installed, it starts a server on port 80.
    unpacked: Some(&Bundle {
        told: "Debian's nginx, about 1 MB",
        packages: &["nginx"],
        not_needed: &["iproute2", "nginx-common"],
    }),
};

impl Program {
    /// Where it is, after it was installed if it must be and may be.
    pub(crate) fn ensure(&self) -> Result<PathBuf> {
        if let Some(found) = self.find() {
            return Ok(found);
        }
        if let Some(bundle) = self.unpacked {
            let home = workspace::target().join(self.name);
            let root = bundle
                .unpack(&home)
                .with_context(|| format!("{}: not installed; {} will do", self.name, self.elsewhere))?;
            let program = home.join(self.name);
            debian::write_wrapper(&program, &root, &format!("sbin/{}", self.name))?;
            return Ok(program);
        }
        install(self.name, &[self.package], self.elsewhere)?;
        match self.find() {
            Some(found) => Ok(found),
            None => bail!("apt-get installed {}, but there is no {} on the PATH", self.package, self.name),
        }
    }

    /// Servers lie where the `PATH` of a user who is not root may not lead.
    pub(crate) fn find(&self) -> Option<PathBuf> {
        workspace::which(self.name)
            .or_else(|| Some(Path::new("/usr/sbin").join(self.name)).filter(|path| path.is_file()))
    }
}

/// Installs packages as root on Debian; everywhere else the error says what to do.
pub(crate) fn install(told: &str, packages: &[&str], elsewhere: &str) -> Result<()> {
    if workspace::which("apt-get").is_none() {
        bail!("{told}: not installed; install {elsewhere} and put it on the PATH");
    }
    if !rustix::process::geteuid().is_root() {
        bail!("{told}: not installed; run `sudo apt-get install {}`", packages.join(" "));
    }
    println!("installing {} with apt-get …", packages.join(" and "));
    process::answer(Command::new("apt-get").args(["--quiet", "update"]))?;
    process::answer(
        Command::new("apt-get")
            .args(["--quiet", "--yes", "--no-install-recommends", "install"])
            .args(packages)
            .env("DEBIAN_FRONTEND", "noninteractive"),
    )?;
    Ok(())
}
