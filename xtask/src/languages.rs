//! The tour of examples/languages in each language: what compiles it, and whether that is here.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::SystemTime,
};

use anyhow::{Context, Result};

use crate::{clang::Clang, npm::Npm, plugins, process, workspace};

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Language {
    C,
    AssemblyScript,
    JavaScript,
}

/// A plugin that is one file.
struct Guest {
    name: &'static str,
    source: &'static str,
    /// Beside the plugins that people try, or with those that only tests load.
    directory: &'static str,
}

impl Language {
    pub(crate) const ALL: [Self; 3] = [Self::C, Self::AssemblyScript, Self::JavaScript];

    /// For the summary of `cargo xtask test`.
    pub(crate) fn step(self) -> &'static str {
        match self {
            Self::C => "plugins in C",
            Self::AssemblyScript => "plugins in AssemblyScript",
            Self::JavaScript => "plugins in JavaScript",
        }
    }

    /// The tour's name.
    pub(crate) fn tour(self) -> &'static str {
        self.guests()[0].name
    }

    /// Finds what compiles it. `install`: it may be downloaded.
    pub(crate) fn tools(self, install: bool) -> Result<Tools> {
        let compile: Compile = match self {
            Self::C => {
                let clang = Clang::find(install)?;
                Box::new(move |source, output| clang.compile(Path::new("sdk/c"), source, output))
            }
            Self::AssemblyScript => {
                let npm = Npm::find(install)?;
                Box::new(move |source, output| npm.asc(source, output))
            }
            Self::JavaScript => {
                let npm = Npm::find(install)?;
                Box::new(move |source, output| npm.componentize(source, output))
            }
        };
        Ok(Tools { language: self, compile })
    }

    fn guests(self) -> &'static [Guest] {
        const TOURS: &str = "languages";
        const TESTS: &str = "test";
        match self {
            Self::C => &[
                Guest { name: "tour-c", source: "examples/languages/c/tour.c", directory: TOURS },
                Guest { name: "everything-c", source: "sdk/c/tests/everything.c", directory: TESTS },
                Guest { name: "new-c", source: "target/guest-tools/new/c/plugin.c", directory: TESTS },
            ],
            Self::AssemblyScript => &[
                Guest {
                    name: "tour-assemblyscript",
                    source: "examples/languages/assemblyscript/tour.ts",
                    directory: TOURS,
                },
                Guest {
                    name: "everything-assemblyscript",
                    source: "sdk/assemblyscript/tests/everything.ts",
                    directory: TESTS,
                },
                Guest {
                    name: "new-assemblyscript",
                    source: "target/guest-tools/new/assemblyscript/plugin.ts",
                    directory: TESTS,
                },
            ],
            Self::JavaScript => &[
                Guest { name: "tour-javascript", source: "examples/languages/javascript/tour.js", directory: TOURS },
                Guest { name: "everything-javascript", source: "sdk/js/tests/everything.js", directory: TESTS },
                Guest {
                    name: "new-javascript",
                    source: "target/guest-tools/new/javascript/plugin.js",
                    directory: TESTS,
                },
            ],
        }
    }
}

type Compile = Box<dyn Fn(&Path, &Path) -> Command>;

/// What compiles a language.
pub(crate) struct Tools {
    language: Language,
    compile: Compile,
}

impl Tools {
    /// Compiles the tour, and what else tests load.
    pub(crate) fn build(&self) -> Result<()> {
        self.language.lay_out()?;
        for guest in self.language.guests() {
            let output = workspace::plugin_directory().join(guest.directory).join(guest.name).with_extension("wasm");
            plugins::build_file(guest.name, &output, || {
                if self.language.is_older_than(&output) {
                    return Ok(fs::read(&output)?);
                }
                let made = workspace::target().join("guest-tools").join(guest.name).with_extension("wasm");
                process::answer(&mut (self.compile)(Path::new(guest.source), &made))?;
                fs::read(&made).with_context(|| format!("{} was not made", made.display()))
            })?;
        }
        Ok(())
    }
}

impl Language {
    /// Puts the template of new plugins where it has the SDK beside it, as `tidegate plugin new` does.
    fn lay_out(self) -> Result<()> {
        let (folder, file) = match self {
            Self::C => ("c", "plugin.c"),
            Self::AssemblyScript => ("assemblyscript", "plugin.ts"),
            Self::JavaScript => ("javascript", "plugin.js"),
        };
        let new = workspace::root().join("target/guest-tools/new").join(folder);
        fs::create_dir_all(&new)?;
        fs::copy(workspace::root().join("sdk/templates").join(folder).join(file), new.join(file))?;
        if matches!(self, Self::JavaScript) {
            // What it imports by a relative path has to be below it, and no link.
            fs::create_dir_all(new.join("sdk/js"))?;
            fs::copy(workspace::root().join("sdk/js/tidegate.js"), new.join("sdk/js/tidegate.js"))?;
        }
        Ok(())
    }

    /// Whether all that a file is made of is older than the file. A component of JavaScript differs from build to build, and a
    /// gateway that watches it would compile it for nothing.
    fn is_older_than(self, output: &Path) -> bool {
        let folders: &[&str] = match self {
            Self::C => &["examples/languages/c", "sdk/c", "sdk/templates/c"],
            Self::AssemblyScript => {
                &["examples/languages/assemblyscript", "sdk/assemblyscript", "sdk/templates/assemblyscript"]
            }
            Self::JavaScript => &["examples/languages/javascript", "sdk/js", "sdk/templates/javascript", "sdk/wit"],
        };
        let Ok(made) = fs::metadata(output).and_then(|file| file.modified()) else {
            return false;
        };
        let mut sources: Vec<PathBuf> = folders.iter().map(|folder| workspace::root().join(folder)).collect();
        sources.push(workspace::root().join("examples/languages/package.json"));
        sources.iter().all(|source| latest(source).is_some_and(|changed| changed < made))
    }
}

/// When a file, or anything in a folder, was changed last.
fn latest(path: &Path) -> Option<SystemTime> {
    let own = fs::metadata(path).ok()?.modified().ok()?;
    let Ok(entries) = fs::read_dir(path) else {
        return Some(own);
    };
    entries.flatten().try_fold(own, |newest, entry| Some(newest.max(latest(&entry.path())?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_source_is_there() {
        for guest in Language::ALL.iter().flat_map(|language| language.guests()) {
            // What is laid out comes from the templates, and is there only after the first build.
            let source = guest.source.replace("target/guest-tools/new/", "sdk/templates/");
            assert!(workspace::root().join(&source).is_file(), "{source} is missing");
        }
    }

    #[test]
    fn a_folder_is_as_new_as_its_newest_file() {
        let folder = std::env::temp_dir().join(format!("tidegate-latest-{}", std::process::id()));
        fs::create_dir_all(folder.join("deep")).unwrap();
        fs::write(folder.join("deep/file"), "").unwrap();
        assert_eq!(latest(&folder), latest(&folder.join("deep/file")).max(latest(&folder)));
        assert_eq!(latest(&folder.join("missing")), None);
        fs::remove_dir_all(folder).unwrap();
    }
}
