//! `cargo xtask plugins`: compiles the plugins and puts them where the examples' gateways look.

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Instant,
};

use anyhow::{Context, Result, bail, ensure};

use crate::{languages::Language, process, toolchain::Toolchain, workspace};

/// The tour of examples/languages that is in Rust.
const TOUR: &str = "tour-rust";

#[derive(Debug, Default)]
pub(crate) struct Options {
    pub(crate) names: Vec<String>,
    /// Download the tools of other languages.
    pub(crate) install: bool,
}

/// A plugin in Rust. Its name is its folder's.
struct Plugin {
    name: String,
    package: String,
    artifact: String,
}

pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let of_languages = |name: &String| name == TOUR || Language::ALL.iter().any(|language| language.tour() == name);
    let (tours, names): (Vec<_>, Vec<_>) = options.names.iter().cloned().partition(of_languages);
    let wanted = |name: &str| options.names.is_empty() || tours.iter().any(|tour| tour == name);
    if options.names.is_empty() || !names.is_empty() {
        build(&names)?;
    }
    if options.names.is_empty() {
        build_test_guests()?;
    }
    if wanted(TOUR) {
        build_tour()?;
    }
    let mut skipped = Vec::new();
    for language in Language::ALL.into_iter().filter(|language| wanted(language.tour())) {
        match language.tools(options.install) {
            Ok(tools) => tools.build()?,
            // What was asked for by name must be built, and so must what was to be installed.
            Err(error) if options.install || !options.names.is_empty() => return Err(error.context(language.step())),
            Err(error) => skipped.push(format!("{}: {error:#}", language.step())),
        }
    }
    if !skipped.is_empty() {
        println!("\n{} skipped; `cargo xtask plugins --install` downloads what they need:", skipped.len());
        skipped.iter().for_each(|skipped| println!("  SKIPPED {skipped}"));
    }
    Ok(ExitCode::SUCCESS)
}

/// Builds these plugins of plugins/, or all of them, and prints a line for each.
pub(crate) fn build(names: &[String]) -> Result<()> {
    let plugins = select(discover(&workspace::root().join("plugins"))?, names)?;
    build_into(&plugins, &workspace::plugin_directory())
}

/// Builds the tour that is in Rust. Those in other languages: [`Language::tools`].
pub(crate) fn build_tour() -> Result<()> {
    let tour = read(&workspace::root().join("examples/languages/rust/Cargo.toml"))?;
    build_into(&[Plugin { name: TOUR.to_owned(), ..tour }], &workspace::plugin_directory().join("languages"))
}

/// Builds the guests that only tests load, apart from the plugins, which the examples' gateways watch.
pub(crate) fn build_test_guests() -> Result<()> {
    let guests = discover(&workspace::root().join("tests/guests"))?;
    build_into(&guests, &workspace::plugin_directory().join("test"))
}

fn build_into(plugins: &[Plugin], directory: &Path) -> Result<()> {
    let toolchain = Toolchain::find()?;
    for plugin in plugins {
        build_file(&plugin.name, &directory.join(&plugin.name).with_extension("wasm"), || {
            // One cargo for each plugin: built together they would share features of their dependencies, and a plugin's
            // bytes would depend on which others were named.
            process::run(&mut toolchain.build(&plugin.package))?;
            let source = toolchain.output(&plugin.artifact);
            fs::read(&source).with_context(|| format!("{} was not made", source.display()))
        })?;
    }
    Ok(())
}

/// Compiles one plugin, puts it in place and prints a line.
pub(crate) fn build_file(name: &str, place: &Path, compile: impl FnOnce() -> Result<Vec<u8>>) -> Result<()> {
    let started = Instant::now();
    let content =
        compile().with_context(|| format!("plugin {name} was not built; the one in place, if any, is untouched"))?;
    if let Some(directory) = place.parent() {
        fs::create_dir_all(directory).with_context(|| format!("{} cannot be made", directory.display()))?;
    }
    let changed = put(place, &content)?;
    println!(
        "plugin {name:<25} {:>7.1} KiB  {:>8}  {}",
        content.len() as f64 / 1024.0,
        process::spell(started.elapsed()),
        if changed { "new" } else { "unchanged" },
    );
    Ok(())
}

/// Writes a file so that a watching gateway sees the old content or the new, never half; an equal file is not touched.
fn put(path: &Path, content: &[u8]) -> Result<bool> {
    if fs::read(path).is_ok_and(|present| present == content) {
        return Ok(false);
    }
    let temporary = path.with_extension(format!("wasm.{}.tmp", std::process::id()));
    fs::write(&temporary, content).with_context(|| format!("{} cannot be written", temporary.display()))?;
    fs::rename(&temporary, path).with_context(|| format!("{} cannot be replaced", path.display()))?;
    Ok(true)
}

fn discover(folder: &Path) -> Result<Vec<Plugin>> {
    let mut manifests = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("{} cannot be read", folder.display()))? {
        let manifest: PathBuf = entry?.path().join("Cargo.toml");
        if manifest.is_file() {
            manifests.push(manifest);
        }
    }
    manifests.sort();
    manifests.iter().map(|manifest| read(manifest)).collect()
}

fn read(manifest: &Path) -> Result<Plugin> {
    let text = fs::read_to_string(manifest)?;
    let name = manifest.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy().into_owned();
    let package = value(&text, "package", "name").with_context(|| format!("{} has no name", manifest.display()))?;
    let artifact = value(&text, "lib", "name").unwrap_or(package).replace('-', "_");
    Ok(Plugin { name, package: package.to_owned(), artifact })
}

fn select(plugins: Vec<Plugin>, names: &[String]) -> Result<Vec<Plugin>> {
    ensure!(!plugins.is_empty(), "there are no plugins under plugins/");
    if let Some(unknown) = names.iter().find(|name| !plugins.iter().any(|plugin| plugin.name == **name)) {
        let known: Vec<_> = plugins.into_iter().map(|plugin| plugin.name).collect();
        let tours = Language::ALL.map(Language::tour).join(", ");
        bail!("there is no plugin `{unknown}`; there are: {}, {TOUR}, {tours}", known.join(", "));
    }
    Ok(plugins.into_iter().filter(|plugin| names.is_empty() || names.contains(&plugin.name)).collect())
}

/// A string of a manifest. Enough TOML for the manifests that cargo has accepted, and no parser to compile.
fn value<'a>(text: &'a str, table: &str, key: &str) -> Option<&'a str> {
    let mut lines = text.lines().map(str::trim).skip_while(|line| *line != format!("[{table}]")).skip(1);
    lines.by_ref().take_while(|line| !line.starts_with('[')).find_map(|line| {
        let (name, value) = line.split_once('=')?;
        (name.trim() == key).then(|| value.trim().trim_matches('"'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_names_package_and_library() {
        let text =
            "[package]\nname = \"tidegate-jwt-auth\"\n\n[lib]\nname = \"jwt_auth\"\n[dependencies]\nname = \"no\"\n";
        assert_eq!(value(text, "package", "name"), Some("tidegate-jwt-auth"));
        assert_eq!(value(text, "lib", "name"), Some("jwt_auth"));
        assert_eq!(value("[lib]\n[other]\nname = \"x\"", "lib", "name"), None);
    }

    #[test]
    fn an_unknown_plugin_is_told_with_those_that_exist() {
        let plugins = discover(&workspace::root().join("plugins")).unwrap();
        let error = select(plugins, &["ecko".into()]).err().unwrap().to_string();
        assert!(error.contains("`ecko`") && error.contains("echo"), "{error}");
    }

    #[test]
    fn an_equal_file_is_not_touched() {
        let folder = std::env::temp_dir().join(format!("tidegate-put-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let file = folder.join("a.wasm");
        assert!(put(&file, b"one").unwrap());
        assert!(!put(&file, b"one").unwrap());
        assert!(put(&file, b"two").unwrap());
        assert_eq!(fs::read(&file).unwrap(), b"two");
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1, "a temporary file was left");
        fs::remove_dir_all(&folder).unwrap();
    }
}
