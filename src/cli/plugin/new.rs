//! `tidegate plugin new`: a folder to begin a plugin in, with the SDK beside it.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::{Args, ValueEnum};

use crate::cli::Unusable;

/// The SDK's files, by their path in the repository.
const FILES: &[(&str, &[u8])] = &include!(concat!(env!("OUT_DIR"), "/sdk.rs"));
const TEMPLATES: &str = "sdk/templates/";
/// What stands for the plugin's name in the templates.
const NAME: &str = "new-plugin";

#[derive(Args)]
pub struct New {
    /// The plugin's name, and the folder's: letters, digits, `-` and `_`
    name: String,
    /// What it is to be written in
    #[arg(long, short, value_enum, default_value = "rust")]
    language: Language,
    /// Where the folder is made
    #[arg(long, value_name = "DIRECTORY", default_value = ".")]
    directory: PathBuf,
}

#[derive(Clone, Copy, ValueEnum)]
enum Language {
    Rust,
    C,
    #[value(name = "assemblyscript")]
    AssemblyScript,
    #[value(name = "javascript")]
    JavaScript,
}

impl Language {
    /// The folder of its templates, and the folders of the SDK that it needs.
    fn folders(self) -> (&'static str, &'static [&'static str]) {
        match self {
            Self::Rust => ("rust", &["sdk/rust/", "sdk/wit/"]),
            Self::C => ("c", &["sdk/c/", "sdk/wit/tidegate.wit"]),
            Self::AssemblyScript => ("assemblyscript", &["sdk/assemblyscript/", "sdk/wit/tidegate.wit"]),
            Self::JavaScript => ("javascript", &["sdk/js/", "sdk/wit/tidegate.wit"]),
        }
    }
}

impl New {
    pub fn run(self) -> anyhow::Result<()> {
        let name = &self.name;
        // Of all languages, Rust has the narrowest idea of what a name is.
        let begins = name.starts_with(|letter: char| letter.is_ascii_alphabetic());
        if !begins || !crate::config::is_name(name) {
            let what = format!(
                "{name:?} cannot name a plugin: begin with a letter, then letters, digits, `-` and `_`, 64 at most"
            );
            return Err(Unusable(what).into());
        }
        let folder = self.directory.join(name);
        if folder.exists() {
            bail!("{} is there already: choose another name, or another --directory", folder.display());
        }
        let files = self.files();
        for (path, content) in &files {
            write(&folder.join(path), content).with_context(|| format!("{path} cannot be written"))?;
        }
        say!("{}: {} files", folder.display(), files.len());
        say!("\n  cd {}", folder.display());
        say!("  ./build.sh");
        say!("  tidegate plugin test plugins/{name}.wasm scenario.toml");
        say!("  tidegate run\n\nREADME.md says what building it needs.");
        Ok(())
    }

    /// Paths in the new folder, and what they hold.
    fn files(&self) -> Vec<(String, Vec<u8>)> {
        let (templates, sdk) = self.language.folders();
        let (own, all) = (format!("{TEMPLATES}{templates}/"), format!("{TEMPLATES}all/"));
        let mut files = Vec::new();
        let mut needs = Vec::new();
        for (path, content) in FILES {
            if sdk.iter().any(|folder| path.starts_with(folder)) {
                files.push(((*path).to_owned(), content.to_vec()));
            }
            let Some(path) = path.strip_prefix(&own).or_else(|| path.strip_prefix(&all)) else { continue };
            let content = String::from_utf8_lossy(content).replace(NAME, &self.name).into_bytes();
            match path {
                "NEEDS.md" => needs = content,
                // Under its own name it would hide files of this repository.
                "gitignore" => files.push((".gitignore".to_owned(), content)),
                _ => files.push((path.to_owned(), content)),
            }
        }
        if let Some((_, readme)) = files.iter_mut().find(|(path, _)| path == "README.md") {
            readme.extend(needs);
        }
        files
    }
}

fn write(path: &Path, content: &[u8]) -> std::io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let mode = if content.starts_with(b"#!") { 0o777 } else { 0o666 };
    fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?.write_all(content)
}
