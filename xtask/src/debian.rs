//! Debian's Rust compiler, unpacked privately: compiles plugins where neither the target nor rustup can be had.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail, ensure};

use crate::{process, workspace};

/// The compiler that Debian keeps recent for its browsers, and the source of std, which is built with it: no package
/// has std compiled for wasm32-unknown-unknown.
const PACKAGES: [&str; 2] = ["rustc-web", "rust-web-src"];

/// What rustc-web wants for linking native programs. Whoever has cargo has these.
const NOT_NEEDED: [&str; 4] = ["gcc", "binutils", "libc6-dev", "libc-dev"];

pub(crate) struct Compiler {
    pub(crate) rustc: PathBuf,
    pub(crate) linker: PathBuf,
    /// Where the packages were unpacked: a prefix of paths in std.
    pub(crate) root: PathBuf,
}

/// Makes the compiler ready under `home`, downloading some 140 MB the first time.
pub(crate) fn prepare(home: &Path) -> Result<Compiler> {
    let linker = linker()?;
    let root = home.join("root");
    let rustc = home.join("rustc");
    if !root.is_dir() {
        unpack(home, &root)?;
    }
    write_wrapper(&rustc, &root)?;
    let version = process::answer(Command::new(&rustc).arg("--version")).with_context(|| {
        format!("Debian's compiler was unpacked but does not run; delete {} to try afresh", home.display())
    })?;
    eprintln!(
        "compiling plugins: with Debian's {version} (the first build also compiles std, which takes some minutes)"
    );
    Ok(Compiler { rustc, linker, root })
}

/// Leaves `root` complete or not there: it is unpacked beside, and renamed.
fn unpack(home: &Path, root: &Path) -> Result<()> {
    for tool in ["apt-get", "apt-cache", "dpkg-query", "dpkg-deb"] {
        ensure!(workspace::which(tool).is_some(), "`{tool}` is not installed: this is not Debian");
    }
    let packages = packages()?;
    eprintln!("compiling plugins: downloading Debian's compiler ({}), about 140 MB …", packages.join(", "));
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
    fs::rename(&partial, root).with_context(|| format!("{} cannot be put in place", root.display()))
}

/// What must be downloaded: the compiler, and those of its dependencies that this machine lacks. Their names carry
/// versions that move, so apt is asked.
fn packages() -> Result<Vec<String>> {
    if !has_candidate(PACKAGES[0])? {
        if rustix::process::geteuid().is_root() {
            eprintln!("compiling plugins: asking for Debian's package lists with `apt-get update` …");
            process::answer(Command::new("apt-get").args(["--quiet", "update"]))?;
        }
        ensure!(has_candidate(PACKAGES[0])?, "apt knows no package {}; `apt-get update` may help", PACKAGES[0]);
    }
    let mut wanted = BTreeSet::new();
    let mut open: Vec<String> = PACKAGES.map(str::to_owned).to_vec();
    while let Some(package) = open.pop() {
        if wanted.contains(&package) || NOT_NEEDED.contains(&package.as_str()) || is_installed(&package) {
            continue;
        }
        let answer = process::answer(Command::new("apt-cache").args(["depends", "--important", &package]))?;
        open.extend(dependencies(&answer));
        wanted.insert(package);
    }
    Ok(wanted.into_iter().collect())
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

/// A script, because the compiler's libraries are not where the system looks for them.
fn write_wrapper(script: &Path, root: &Path) -> Result<()> {
    let usr = fs::canonicalize(root)?.join("usr");
    let libraries = library_folder(&usr.join("lib"))?;
    let text = format!(
        "#!/bin/sh\nLD_LIBRARY_PATH='{}'\nexport LD_LIBRARY_PATH\nexec '{}' \"$@\"\n",
        libraries.display(),
        usr.join("bin/rustc").display()
    );
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

/// The linker for wasm. rustup's toolchains bring one, otherwise it is the system's.
fn linker() -> Result<PathBuf> {
    let sysroot = PathBuf::from(process::answer(workspace::rustc().args(["--print", "sysroot"]))?);
    let host = process::answer(workspace::rustc().args(["--print", "host-tuple"]))?;
    let own = sysroot.join("lib/rustlib").join(host).join("bin/rust-lld");
    if own.is_file() {
        return Ok(own);
    }
    let systems = ["rust-lld", "wasm-ld"].into_iter().find_map(workspace::which);
    systems.filter(|linker| runs(linker)).context("no linker for wasm: install Debian's package lld")
}

fn runs(program: &Path) -> bool {
    let mut command = Command::new(program);
    command.arg("--version").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn real_dependencies_are_read_and_virtual_ones_left_out() {
        let answer = "rustc-web\n  Depends: libc6\n |Depends: libfoo\n  Depends: <libc-dev>\n    libc6-dev\n  Conflicts: rustc\n";
        assert_eq!(dependencies(answer), ["libc6", "libfoo"]);
    }
}
