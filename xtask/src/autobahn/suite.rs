//! The suite itself: PyPI's `autobahntestsuite`, which is Python 2 code, in an environment of its own under target/.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::{process, workspace};

/// The last virtualenv that makes environments for Python 2.7.
const VIRTUALENV: &str = "virtualenv==20.21.1";
/// In the order in which they must be there: what is built later imports what was installed before.
const PACKAGES: [&[&str]; 3] = [
    &["setuptools==44.0.0", "wheel==0.36.2", "incremental==16.10.1"],
    &["Twisted==19.10.0", "pyOpenSSL==19.1.0", "cryptography==3.3.2"],
    &["autobahntestsuite==25.10.1"],
];

/// The file that says what was installed, written last.
const COMPLETE: &str = "complete";

pub(crate) struct Suite {
    /// The environment's `bin`.
    programs: PathBuf,
}

impl Suite {
    /// Finds it, or installs it where there is a Python 2.7 to install it for.
    pub(crate) fn ensure() -> Result<Self> {
        let home = home();
        let suite = Self { programs: home.join("python/bin") };
        if is_installed() {
            return Ok(suite);
        }
        let Some(python) = python() else { bail!("{NO_PYTHON}") };
        println!("installing the Autobahn test suite under {} …", home.display());
        fs::create_dir_all(&home).with_context(|| format!("{} cannot be made", home.display()))?;
        let tool = home.join("tool");
        process::answer(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&tool))?;
        process::answer(Command::new(tool.join("bin/pip")).args(["--quiet", "install", VIRTUALENV]))?;
        let mut virtualenv = Command::new(tool.join("bin/virtualenv"));
        process::answer(virtualenv.args(["--quiet", "--clear", "--python"]).arg(python).arg(home.join("python")))?;
        for packages in PACKAGES {
            let mut pip = suite.python();
            pip.args(["-W", "ignore", "-m", "pip", "--quiet", "--no-python-version-warning", "install"]);
            process::answer(pip.arg("--no-build-isolation").args(packages))?;
        }
        fs::write(home.join(COMPLETE), versions())?;
        Ok(suite)
    }

    /// Whether it is there, or could be installed.
    pub(crate) fn is_possible() -> Result<()> {
        if !is_installed() && python().is_none() {
            bail!("{NO_PYTHON}");
        }
        Ok(())
    }

    /// The suite as a client, which asks all that the specification says.
    pub(super) fn client(&self, specification: &Path) -> Command {
        let mut command = Command::new(self.programs.join("wstest"));
        command.env("PYTHONWARNINGS", "ignore").args(["-m", "fuzzingclient", "-s"]).arg(specification);
        command
    }

    pub(super) fn python(&self) -> Command {
        Command::new(self.programs.join("python"))
    }
}

fn home() -> PathBuf {
    workspace::target().join("autobahn")
}

fn versions() -> String {
    format!("{VIRTUALENV} {PACKAGES:?}")
}

fn is_installed() -> bool {
    fs::read_to_string(home().join(COMPLETE)).is_ok_and(|present| present == versions())
}

const NO_PYTHON: &str = "there is no Python 2.7, which the Autobahn test suite is written in: put a `python2.7` on the PATH \
                         (`pyenv install 2.7.18` makes one), or its path into PYTHON27";

/// A Python 2.7: the one of the variable, on the `PATH`, or of pyenv.
fn python() -> Option<PathBuf> {
    let named = env::var_os("PYTHON27").map(PathBuf::from);
    let pyenv = env::var_os("PYENV_ROOT").map(PathBuf::from);
    let pyenv = pyenv.or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".pyenv")));
    let versions = pyenv.and_then(|pyenv| fs::read_dir(pyenv.join("versions")).ok());
    let of_pyenv = versions.into_iter().flatten().filter_map(Result::ok).map(|entry| entry.path());
    let of_pyenv = of_pyenv.map(|version| version.join("bin/python2.7"));
    named.into_iter().chain(workspace::which("python2.7")).chain(of_pyenv).find(|python| is_right(python))
}

/// pyenv puts a `python2.7` on the `PATH` that starts nothing while no such version is chosen.
fn is_right(python: &Path) -> bool {
    let asked = "import sys; sys.stdout.write('%d.%d' % sys.version_info[:2])";
    process::answer(Command::new(python).args(["-c", asked])).is_ok_and(|version| version == "2.7")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_is_no_python() {
        assert!(!is_right(Path::new("/bin/sh")));
        assert!(!is_right(Path::new("/nowhere/python2.7")));
    }
}
