//! `tidegate plugin new`: what it makes is whole, builds, and does what its scenario says.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use crate::support::{guests, tidegate};

async fn run(directory: &Path, arguments: &[&str]) -> (i32, String) {
    let output = tidegate(directory).args(arguments).output().await.unwrap();
    let told = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    (output.status.code().unwrap(), told.into_owned())
}

/// A new plugin in a folder.
async fn new(directory: &Path, name: &str, language: &str) -> PathBuf {
    let (code, told) = run(directory, &["plugin", "new", name, "--language", language]).await;
    assert_eq!(code, 0, "{told}");
    directory.join(name)
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found
}

#[tokio::test]
async fn it_is_whole_and_bears_its_name() {
    let directory = tempfile::tempdir().unwrap();
    for language in ["rust", "c", "assemblyscript", "javascript"] {
        let folder = new(directory.path(), &format!("my-{language}"), language).await;
        for file in ["README.md", ".gitignore", "build.sh", "scenario.toml", "tidegate.toml", "sdk/wit/tidegate.wit"] {
            assert!(folder.join(file).is_file(), "{language}: no {file}");
        }
        assert!(!folder.join("NEEDS.md").exists());
        let readme = std::fs::read_to_string(folder.join("README.md")).unwrap();
        assert!(readme.trim_end().len() > readme.find("## What it needs").unwrap() + 40, "{readme}");
        for file in files(&folder) {
            let text = String::from_utf8_lossy(&std::fs::read(&file).unwrap()).into_owned();
            assert!(!text.contains("new-plugin"), "{}", file.display());
        }
    }
}

/// As before `head -1`.
#[tokio::test]
async fn nobody_has_to_read_what_it_says() {
    let directory = tempfile::tempdir().unwrap();
    let mut child = tidegate(directory.path()).args(["plugin", "new", "mine"]).stdout(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    assert!(child.wait().await.unwrap().success());
    assert!(directory.path().join("mine/build.sh").is_file());
}

#[tokio::test]
async fn it_overwrites_nothing_and_takes_no_name_that_is_none() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir(directory.path().join("mine")).unwrap();
    let (code, told) = run(directory.path(), &["plugin", "new", "mine"]).await;
    assert_eq!(code, 1);
    assert!(told.contains("mine is there already"), "{told}");
    for name in ["../out", "9lives", "a b", "-x", ""] {
        let (code, told) = run(directory.path(), &["plugin", "new", "--", name]).await;
        assert_eq!(code, 64, "{name}: {told}");
    }
    assert_eq!(files(directory.path()), Vec::<PathBuf>::new());
}

#[tokio::test]
async fn the_templates_do_what_their_scenario_says_in_every_language() {
    let directory = tempfile::tempdir().unwrap();
    for (language, bytes) in guests::in_languages("test", "new", &["c", "assemblyscript", "javascript"]) {
        let folder = new(directory.path(), &format!("my-{language}"), language).await;
        std::fs::write(folder.join("plugin.wasm"), bytes).unwrap();
        let (code, told) = run(&folder, &["plugin", "test", "plugin.wasm", "scenario.toml"]).await;
        assert_eq!(code, 0, "{language}: {told}");
    }
}

/// From the first command of its README to the last.
#[tokio::test]
async fn one_in_rust_builds_tests_and_serves() {
    let directory = tempfile::tempdir().unwrap();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = new(directory.path(), "my_shout", "rust").await;
    // What this repository is built with is there already.
    std::fs::copy(root.join("Cargo.lock"), folder.join("Cargo.lock")).unwrap();
    let target = root.join("target/new-plugin");
    for command in [&["./build.sh"][..], &["cargo", "test", "--quiet"]] {
        // A compiler takes all the time that there is, and other tests wait for answers meanwhile.
        let mut run = tokio::process::Command::new("nice");
        run.args(["-n", "19"]).args(command).current_dir(&folder).env("CARGO_TARGET_DIR", &target).stdin(Stdio::null());
        let output = run.output().await.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let (code, told) = run(&folder, &["plugin", "test", "plugins/my_shout.wasm", "scenario.toml"]).await;
    assert_eq!(code, 0, "{told}");
    assert!(told.contains("4 steps as expected"), "{told}");
    let (code, told) = run(&folder, &["check"]).await;
    assert_eq!(code, 0, "{told}");
}
