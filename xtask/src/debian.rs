//! Packages of Debian's, unpacked privately under target/: tools are had without being installed.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};

use crate::{process, workspace};

/// Packages that are downloaded together, with those of their dependencies that this machine lacks.
pub(crate) struct Bundle {
    /// What it is, with its size, for the user who waits.
    pub(crate) told: &'static str,
    pub(crate) packages: &'static [&'static str],
    /// Dependencies that are left out; one that ends in `-` stands for all that begin so.
    pub(crate) not_needed: &'static [&'static str],
}

impl Bundle {
    /// Unpacks the packages into `home/root`, unless they are there.
    pub(crate) fn unpack(&self, home: &Path) -> Result<PathBuf> {
        let root = home.join("root");
        if root.is_dir() {
            return Ok(root);
        }
        for tool in ["apt-get", "apt-cache", "dpkg-query", "dpkg-deb"] {
            ensure!(workspace::which(tool).is_some(), "`{tool}` is not installed: this is not Debian");
        }
        let packages = self.closure()?;
        eprintln!("downloading {} ({}) …", self.told, packages.join(", "));
        let (download, partial) = (home.join("download"), home.join("root.partial"));
        for folder in [&download, &partial] {
            let _ = fs::remove_dir_all(folder);
            fs::create_dir_all(folder).with_context(|| format!("{} cannot be made", folder.display()))?;
        }
        // Some warnings of apt's (it downloads as root) help nobody; a failure still shows them.
        process::answer(Command::new("apt-get").args(["--quiet", "download"]).args(&packages).current_dir(&download))?;
        for package in fs::read_dir(&download)? {
            process::answer(Command::new("dpkg-deb").arg("--extract").arg(package?.path()).arg(&partial))?;
        }
        fs::remove_dir_all(&download)?;
        // Complete or not there.
        fs::rename(&partial, &root).with_context(|| format!("{} cannot be put in place", root.display()))?;
        Ok(root)
    }

    /// What must be downloaded. Names of dependencies carry versions that move, so apt is asked.
    fn closure(&self) -> Result<Vec<String>> {
        for package in self.packages {
            if !has_candidate(package)? {
                if rustix::process::geteuid().is_root() {
                    eprintln!("asking for Debian's package lists with `apt-get update` …");
                    process::answer(Command::new("apt-get").args(["--quiet", "update"]))?;
                }
                ensure!(has_candidate(package)?, "apt knows no package {package}; `apt-get update` may help");
            }
        }
        let mut wanted = BTreeSet::new();
        let mut open: Vec<String> = self.packages.iter().map(|package| (*package).to_owned()).collect();
        while let Some(package) = open.pop() {
            let named = self.packages.contains(&package.as_str());
            if wanted.contains(&package) || self.leaves_out(&package) || (!named && is_installed(&package)) {
                continue;
            }
            let answer = process::answer(Command::new("apt-cache").args(["depends", "--important", &package]))?;
            open.extend(dependencies(&answer));
            wanted.insert(package);
        }
        Ok(wanted.into_iter().collect())
    }

    fn leaves_out(&self, package: &str) -> bool {
        self.not_needed
            .iter()
            .any(|left| if left.ends_with('-') { package.starts_with(left) } else { package == *left })
    }
}

fn has_candidate(package: &str) -> Result<bool> {
    let policy = process::answer(Command::new("apt-cache").args(["policy", package]).env("LC_ALL", "C"))?;
    Ok(policy.lines().any(|line| line.trim().starts_with("Candidate:") && !line.contains("(none)")))
}

fn is_installed(package: &str) -> bool {
    let mut query = Command::new("dpkg-query");
    query.args(["--show", "--showformat=${db:Status-Status}", package]);
    process::answer(&mut query).is_ok_and(|status| status == "installed")
}

/// The packages that `apt-cache depends` names. Virtual ones (`<libc-dev>`) are left to those that provide them.
fn dependencies(answer: &str) -> Vec<String> {
    let named = answer.lines().filter_map(|line| line.trim().trim_start_matches('|').strip_prefix("Depends: "));
    named.filter(|name| !name.starts_with('<')).map(str::to_owned).collect()
}

/// Writes a script that starts an unpacked program, because its libraries are not where the system looks for them.
pub(crate) fn write_wrapper(script: &Path, root: &Path, program: &str) -> Result<()> {
    let usr = fs::canonicalize(root)?.join("usr");
    // There are none where the system has all that it needs.
    let libraries = match library_folder(&usr.join("lib")) {
        Ok(folder) => format!("LD_LIBRARY_PATH='{}'\nexport LD_LIBRARY_PATH\n", folder.display()),
        Err(_) => String::new(),
    };
    let text = format!("#!/bin/sh\n{libraries}exec '{}' \"$@\"\n", usr.join(program).display());
    // An unchanged compiler keeps its time of change: cargo would build everything anew.
    if fs::read_to_string(script).is_ok_and(|present| present == text) {
        return Ok(());
    }
    fs::write(script, text).with_context(|| format!("{} cannot be written", script.display()))?;
    fs::set_permissions(script, fs::Permissions::from_mode(0o755))?;
    Ok(())
}

/// `usr/lib/x86_64-linux-gnu`, or what it is called on this architecture: where LLVM lies.
fn library_folder(lib: &Path) -> Result<PathBuf> {
    for entry in fs::read_dir(lib)? {
        let folder = entry?.path();
        if folder.to_string_lossy().ends_with("-linux-gnu") && folder.is_dir() {
            return Ok(folder);
        }
    }
    bail!("{} has no libraries: the packages are not what was expected", lib.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn real_dependencies_are_read_and_virtual_ones_left_out() {
        let answer = "rustc-web\n  Depends: libc6\n |Depends: libfoo\n  Depends: <libc-dev>\n    libc6-dev\n  Conflicts: rustc\n";
        assert_eq!(dependencies(answer), ["libc6", "libfoo"]);
    }

    #[test]
    fn dependencies_are_left_out_by_name_or_by_beginning() {
        let bundle = Bundle { told: "", packages: &[], not_needed: &["gcc", "libstdc++-"] };
        assert!(bundle.leaves_out("gcc") && bundle.leaves_out("libstdc++-12-dev"));
        assert!(!bundle.leaves_out("gcc-12") && !bundle.leaves_out("libstdc++6"));
    }
}
