//! Guests: the plugins of plugins/ as `cargo xtask plugins` builds them, and small ones written as text.

use std::io::Write as _;
use std::path::{Path, PathBuf};

/// Name and file of each plugin that was built.
pub(crate) fn built() -> Vec<(String, PathBuf)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/plugins");
    let files =
        std::fs::read_dir(&folder).unwrap_or_else(|_| panic!("{} is missing: cargo xtask plugins", folder.display()));
    files
        .map(|file| file.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "wasm"))
        .map(|path| (path.file_stem().unwrap().to_string_lossy().into_owned(), path))
        .collect()
}

/// A guest that panics at each message.
pub(crate) fn panics() -> PathBuf {
    test_guest("panics")
}

/// The chat plugin with another behaviour: every message ends in " (v2)".
pub(crate) fn chat_v2() -> PathBuf {
    test_guest("chat-v2")
}

/// A guest with the hooks that deliveries go through.
pub(crate) fn hooks() -> Vec<u8> {
    std::fs::read(test_guest("hooks")).unwrap()
}

/// A guest that publishes and subscribes as it is asked to, and acknowledges what was published.
pub(crate) fn relay() -> Vec<u8> {
    std::fs::read(test_guest("relay")).unwrap()
}

/// What that one asks for.
pub(crate) const RELAY_MAY: &str = r#"
[plugin.relay.grants]
publish = ["*"]
subscribe = ["*"]
users = true
sessions = true
"#;

/// The plugin that answers plain HTTP requests.
pub(crate) fn http() -> Vec<u8> {
    std::fs::read(test_guest("http")).unwrap()
}

/// The plugin of the guide to plain HTTP: hooks and a handler in one file.
pub(crate) fn tickets() -> Vec<u8> {
    std::fs::read(test_guest("tickets")).unwrap()
}

/// Built with the plugins from tests/guests.
fn test_guest(name: &str) -> PathBuf {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("target/plugins/test/{name}.wasm"));
    assert!(file.is_file(), "{} is missing: cargo xtask plugins", file.display());
    file
}

/// A guest from tests/it/guests, by its name, with some of its text replaced.
pub(crate) fn wat(name: &str, replace: &[(&str, &str)]) -> Vec<u8> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/guests").join(format!("{name}.wat"));
    let mut text = std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    for (from, to) in replace {
        assert!(text.contains(from), "{name}.wat has no {from:?}");
        text = text.replace(from, to);
    }
    wat::parse_str(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

/// What `cargo xtask plugins` has built of the guests `NAME-LANGUAGE` in a folder of target/plugins. A language that is
/// missing is told even when the test passes; `cargo xtask test` counts it as skipped.
pub(crate) fn in_languages(folder: &str, name: &str, languages: &[&'static str]) -> Vec<(&'static str, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/plugins").join(folder);
    let mut guests = Vec::new();
    for language in languages {
        match std::fs::read(folder.join(format!("{name}-{language}.wasm"))) {
            Ok(bytes) => guests.push((*language, bytes)),
            Err(_) => {
                // Not by a macro, whose output a passing test keeps to itself.
                let _ = writeln!(std::io::stderr(), "SKIPPED {name} in {language}: cargo xtask plugins --install");
            }
        }
    }
    guests
}
