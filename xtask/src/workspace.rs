//! Where things are: the repository, the target folder, the cargo that runs us.

use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
    process::Command,
};

/// The repository's root.
pub(crate) fn root() -> PathBuf {
    // Asked for at run time first, so that a repository that was moved after the build still works.
    let here = env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    let here = PathBuf::from(here);
    here.parent().map_or_else(|| here.clone(), Path::to_path_buf)
}

/// Cargo's target folder: every cargo run is told it, so that nobody has to ask where its output went.
pub(crate) fn target() -> PathBuf {
    match env::var_os("CARGO_TARGET_DIR") {
        Some(folder) => root().join(folder),
        None => root().join("target"),
    }
}

/// Where the built plugins are put: always in the repository, because the examples' configuration names it.
pub(crate) fn plugin_directory() -> PathBuf {
    root().join("target/plugins")
}

/// The cargo that started us, in the repository's root, building into [`target`].
pub(crate) fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new(program("CARGO", "cargo"));
    command.current_dir(root()).env("CARGO_TARGET_DIR", target()).args(arguments);
    // What cargo has told this program of itself: build scripts that look at it would run again, and all that depends on
    // them be compiled again, whenever one goes from `cargo xtask` to cargo and back.
    for (name, _) in env::vars_os() {
        let of_package = |name: &str| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_");
        if name.to_str().is_some_and(of_package) {
            command.env_remove(name);
        }
    }
    command
}

/// The compiler that this cargo uses.
pub(crate) fn rustc() -> Command {
    Command::new(program("RUSTC", "rustc"))
}

/// The full path of a program on the `PATH`.
pub(crate) fn which(program: &str) -> Option<PathBuf> {
    env::split_paths(&env::var_os("PATH")?).map(|folder| folder.join(program)).find(|path| path.is_file())
}

fn program(variable: &str, default: &str) -> OsString {
    env::var_os(variable).filter(|value| !value.is_empty()).unwrap_or_else(|| default.into())
}
