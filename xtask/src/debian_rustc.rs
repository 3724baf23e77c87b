//! Debian's Rust compiler: compiles plugins where neither the target nor rustup can be had.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result};

use crate::{debian, process, workspace};

/// The compiler that Debian keeps recent for its browsers, and the source of std, which is built with it: no package
/// has std compiled for wasm32-unknown-unknown.
const BUNDLE: debian::Bundle = debian::Bundle {
    told: "Debian's Rust compiler, about 140 MB",
    packages: &["rustc-web", "rust-web-src"],
    // What rustc-web wants for linking native programs. Whoever has cargo has these.
    not_needed: &["gcc", "binutils", "libc6-dev", "libc-dev"],
};

pub(crate) struct Compiler {
    pub(crate) rustc: PathBuf,
    pub(crate) linker: PathBuf,
    /// Where the packages were unpacked: a prefix of paths in std.
    pub(crate) root: PathBuf,
}

/// Makes the compiler ready under `home`, downloading some 140 MB the first time.
pub(crate) fn prepare(home: &Path) -> Result<Compiler> {
    let linker = linker()?;
    let root = BUNDLE.unpack(home)?;
    let rustc = home.join("rustc");
    debian::write_wrapper(&rustc, &root, "bin/rustc")?;
    let version = process::answer(Command::new(&rustc).arg("--version")).with_context(|| {
        format!("Debian's compiler was unpacked but does not run; delete {} to try afresh", home.display())
    })?;
    eprintln!(
        "compiling plugins: with Debian's {version} (the first build also compiles std, which takes some minutes)"
    );
    Ok(Compiler { rustc, linker, root })
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
