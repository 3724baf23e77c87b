//! Finds a way to compile plugins to wasm: the installed target, rustup, or Debian's compiler.

use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::{debian_rustc, process, workspace};

pub(crate) const TARGET: &str = "wasm32-unknown-unknown";

/// Names the one way to use, for those who know better than the search.
const OVERRIDE: &str = "TIDEGATE_GUEST_TOOLCHAIN";

/// A way to compile plugins.
pub(crate) struct Toolchain {
    arguments: Vec<&'static str>,
    environment: Vec<(&'static str, OsString)>,
    /// Where cargo builds.
    target: PathBuf,
    /// Path prefixes and what stands for them in a plugin: its panic messages tell nothing of the machine it was
    /// built on, and the same source gives the same file everywhere.
    prefixes: Vec<(PathBuf, &'static str)>,
}

#[derive(Clone, Copy, PartialEq)]
enum Way {
    Installed,
    Rustup,
    Debian,
}

impl Toolchain {
    /// Tries each way in order, telling the user which one serves.
    pub(crate) fn find() -> Result<Self> {
        let chosen = chosen(env::var(OVERRIDE).ok().as_deref())?;
        let ways = match chosen {
            Some(way) => vec![way],
            None => vec![Way::Installed, Way::Rustup, Way::Debian],
        };
        let mut refusals = Vec::new();
        for way in ways {
            let found = match way {
                Way::Installed => {
                    Self::installed().inspect(|_| eprintln!("compiling plugins: the target is installed"))
                }
                Way::Rustup => Self::rustup(),
                Way::Debian => Self::debian(),
            };
            match found {
                Ok(toolchain) => return Ok(toolchain),
                Err(error) => {
                    eprintln!("compiling plugins: not with {}: {error:#}", way.told());
                    refusals.push(format!("  - with {}: {error:#}", way.told()));
                }
            }
        }
        bail!(
            "no way to compile plugins to wasm was found:\n{}\n\
             Install the target with `rustup target add {TARGET}` (rustup: https://rustup.rs), or run this on Debian, \
             where `apt-get download rustc-web` works.{}",
            refusals.join("\n"),
            match chosen {
                Some(_) => format!("\nOnly this way was tried, because {OVERRIDE} is set."),
                None => String::new(),
            }
        )
    }

    /// `cargo build` for one plugin's package.
    pub(crate) fn build(&self, package: &str) -> Command {
        let mut command = workspace::cargo(&["build", "--profile", "guest", "--target", TARGET, "--package", package]);
        command
            .args(&self.arguments)
            .env("CARGO_TARGET_DIR", &self.target)
            .env("CARGO_ENCODED_RUSTFLAGS", self.rustflags())
            .envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// The file that [`Toolchain::build`] leaves for a library of this name.
    pub(crate) fn output(&self, library: &str) -> PathBuf {
        self.target.join(TARGET).join("guest").join(library).with_extension("wasm")
    }

    fn installed() -> Result<Self> {
        let libraries = process::answer(workspace::rustc().args(["--print", "target-libdir", "--target", TARGET]))?;
        if !Path::new(&libraries).is_dir() {
            bail!("this Rust toolchain has no {TARGET} target ({libraries} is missing)");
        }
        Ok(Self {
            arguments: Vec::new(),
            environment: Vec::new(),
            target: workspace::target(),
            prefixes: common_prefixes(),
        })
    }

    fn rustup() -> Result<Self> {
        if workspace::which("rustup").is_none() {
            bail!("rustup is not installed");
        }
        eprintln!("compiling plugins: adding the target with `rustup target add {TARGET}` …");
        process::run(Command::new("rustup").args(["target", "add", TARGET]))?;
        Self::installed().context("rustup added the target, but the compiler in use does not have it")
    }

    fn debian() -> Result<Self> {
        let home = workspace::target().join("guest-toolchain");
        let compiler = debian_rustc::prepare(&home)?;
        let mut prefixes = common_prefixes();
        // Cargo names files inside the repository relative to it.
        if let Ok(inside) = compiler.root.strip_prefix(workspace::root()) {
            prefixes.push((inside.to_owned(), "rust"));
        }
        prefixes.push((compiler.root, "rust"));
        Ok(Self {
            arguments: vec!["-Zbuild-std=std,panic_abort"],
            environment: vec![
                // Building std is an unstable feature of cargo; a stable one needs to be asked like this.
                ("RUSTC_BOOTSTRAP", "1".into()),
                ("RUSTC", compiler.rustc.into()),
                ("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", compiler.linker.into()),
            ],
            // A folder of its own: two compilers in one throw away each other's work.
            target: home.join("target"),
            prefixes,
        })
    }

    fn rustflags(&self) -> String {
        let flag = |(from, to): &(PathBuf, &str)| format!("--remap-path-prefix={}={to}", from.display());
        self.prefixes.iter().map(flag).collect::<Vec<_>>().join("\u{1f}")
    }
}

impl Way {
    fn told(self) -> &'static str {
        match self {
            Way::Installed => "the installed target",
            Way::Rustup => "a target added by rustup",
            Way::Debian => "Debian's compiler",
        }
    }
}

fn chosen(value: Option<&str>) -> Result<Option<Way>> {
    Ok(Some(match value {
        None | Some("") => return Ok(None),
        Some("installed") => Way::Installed,
        Some("rustup") => Way::Rustup,
        Some("debian") => Way::Debian,
        Some(other) => bail!("{OVERRIDE} is `{other}`; it may be installed, rustup or debian"),
    }))
}

fn common_prefixes() -> Vec<(PathBuf, &'static str)> {
    let mut prefixes = vec![(workspace::root(), "tidegate")];
    let cargo_home = env::var_os("CARGO_HOME").map(PathBuf::from);
    if let Some(home) = cargo_home.or_else(|| env::home_dir().map(|home| home.join(".cargo"))) {
        prefixes.push((home, "cargo"));
    }
    prefixes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_override_is_one_of_three_words() {
        assert!(matches!(chosen(None), Ok(None)));
        assert!(matches!(chosen(Some("debian")), Ok(Some(Way::Debian))));
        assert!(chosen(Some("nix")).is_err());
    }
}
