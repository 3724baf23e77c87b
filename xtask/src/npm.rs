//! The tools that come from npm: AssemblyScript, and what makes components of JavaScript.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};

use crate::{process, workspace};

/// Which tools, in which versions.
const MANIFEST: &str = "examples/languages/package.json";

/// Where the tools are installed.
pub(crate) struct Npm {
    home: PathBuf,
}

impl Npm {
    /// Finds the tools, or installs them where that is allowed.
    pub(crate) fn find(install: bool) -> Result<Self> {
        ensure!(workspace::which("node").is_some(), "Node.js is not installed; install version 20 or newer, with npm");
        let home = workspace::target().join("guest-tools/npm");
        let wanted = fs::read_to_string(workspace::root().join(MANIFEST)).context(MANIFEST)?;
        let (manifest, complete) = (home.join("package.json"), home.join("complete"));
        if complete.is_file() && fs::read_to_string(&manifest).is_ok_and(|present| present == wanted) {
            return Ok(Self { home });
        }
        if !install {
            bail!("the tools of {MANIFEST} are not installed under {}", home.display());
        }
        ensure!(workspace::which("npm").is_some(), "npm is not installed; it comes with Node.js");
        eprintln!("compiling plugins: installing the tools of {MANIFEST} with npm …");
        fs::create_dir_all(&home).with_context(|| format!("{} cannot be made", home.display()))?;
        let _ = fs::remove_file(&complete);
        fs::write(&manifest, wanted).with_context(|| format!("{} cannot be written", manifest.display()))?;
        let mut npm = Command::new("npm");
        npm.args(["install", "--no-package-lock", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]);
        process::answer(npm.current_dir(&home))?;
        // As if the SDK had been installed as well; as it is now.
        let sdk = home.join("node_modules/tidegate");
        let _ = fs::remove_file(&sdk);
        symlink(fs::canonicalize(workspace::root())?.join("sdk/assemblyscript"), &sdk)?;
        fs::write(complete, "")?;
        Ok(Self { home })
    }

    /// AssemblyScript's compiler.
    pub(crate) fn asc(&self, source: &Path, output: &Path) -> Command {
        let modules = self.home.join("node_modules");
        let mut command = self.node(&modules.join("assemblyscript/bin/asc.js"));
        command.arg(source).arg("--path").arg(&modules);
        command.arg("--transform").arg(modules.join("tidegate/transform.mjs"));
        command.args(["-O2s", "--runtime", "incremental", "--use", "abort=~lib/tidegate/assembly/abi/abort"]);
        // The transform imports the compiler, which is beside the link and not beside what the link points to.
        command.env("NODE_OPTIONS", "--preserve-symlinks").arg("--outFile").arg(output);
        command
    }

    /// sdk/js/build.mjs.
    pub(crate) fn componentize(&self, source: &Path, output: &Path) -> Command {
        let mut command = self.node(&workspace::root().join("sdk/js/build.mjs"));
        command.arg(source).arg(output).env("NODE_PATH", self.home.join("node_modules"));
        command
    }

    fn node(&self, script: &Path) -> Command {
        let mut command = Command::new("node");
        command.current_dir(workspace::root()).arg(script);
        command
    }
}
