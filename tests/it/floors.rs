//! Keeps ARCHITECTURE.md's table of floors true: a module imports only from the rows below its own.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// Module → floor, as the table says.
fn table() -> HashMap<String, u32> {
    let text = std::fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let mut floors = HashMap::new();
    for line in text.lines() {
        let cells: Vec<_> = line.split('|').map(str::trim).collect();
        let [_, floor, modules, ..] = cells[..] else { continue };
        let Ok(floor) = floor.parse() else { continue };
        for module in modules.split(',').map(|module| module.trim().trim_matches('`')) {
            assert!(floors.insert(module.to_owned(), floor).is_none(), "{module} stands on two floors");
        }
    }
    floors
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The modules that a source names after `crate::`, outside of its tests.
fn imported(text: &str) -> Vec<String> {
    let code = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
    let name = |rest: &str| rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    code.split("crate::").skip(1).map(name).filter(|name| name.starts_with(|c: char| c.is_lowercase())).collect()
}

#[test]
fn modules_import_only_from_the_floors_below() {
    let floors = table();
    let mut files = Vec::new();
    sources(&root().join("src"), &mut files);
    assert!(files.len() > 30, "the sources are not where they were");
    let mut wrong = Vec::new();
    for file in files {
        let relative = file.strip_prefix(root().join("src")).unwrap();
        let module = relative.components().next().unwrap().as_os_str().to_string_lossy().replace(".rs", "");
        if module == "main" {
            continue;
        }
        let Some(floor) = floors.get(&module) else {
            wrong.push(format!("{module} is not in the table of ARCHITECTURE.md"));
            continue;
        };
        for import in imported(&std::fs::read_to_string(&file).unwrap()) {
            match floors.get(&import) {
                Some(below) if below < floor || import == module => {}
                Some(above) => {
                    wrong.push(format!("{} (floor {floor}) imports {import} (floor {above})", relative.display()))
                }
                // A function or type of the root, such as `crate::load`: only these stand above it.
                None if ["cli", "scenario", "replay"].contains(&&*module) => {}
                None => wrong.push(format!("{} imports crate::{import}, which has no floor", relative.display())),
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
