//! Guests: the plugins of plugins/ as `cargo xtask plugins` builds them, and small ones written as text.

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

/// The chat plugin with another behaviour: every message ends in " (v2)". Built with the others from tests/guests.
pub(crate) fn chat_v2() -> PathBuf {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/plugins/test/chat-v2.wasm");
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
