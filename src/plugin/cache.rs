//! Compiled plugins on disk, so that a start or a reload does not compile what was compiled before.
//!
//! A file's name is the hash of the plugin's file, of the engine's version and settings. A cached file is native code that
//! is run as it is: it is written to a temporary name and renamed, so it is whole or not there, and it begins with its
//! own hash, so that a disk's error is found.

#![allow(unsafe_code, reason = "wasmtime's deserialize trusts what it reads; see `code`")]

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use sha2::{Digest, Sha256};
use wasmtime::Engine;

use super::code::Code;
use super::compile::{Compiled, Compiler};
use super::encode::Form;
use super::interface::WIT;

/// The compiled code of one node's plugins.
pub struct Cache {
    directory: PathBuf,
}

/// A plugin's file as code.
pub struct Loaded {
    pub form: Form,
    pub code: Code,
    /// Why the cache was of no help.
    pub trouble: Option<anyhow::Error>,
}

#[derive(Debug, thiserror::Error)]
#[error("{} can be written by others: it is not used; give it to the gateway's user alone (chmod go-w)", .0.display())]
struct NotPrivate(PathBuf);

impl Cache {
    pub fn new(directory: &Path) -> Self {
        Self { directory: directory.to_owned() }
    }

    /// Loads what a file was compiled to before, or compiles and stores. The error beside it says that storing failed or
    /// that what was stored could not be used: neither keeps a plugin from serving.
    pub fn code(&self, compiler: &Compiler<'_>, file: &[u8]) -> anyhow::Result<Loaded> {
        let engine = compiler.engine;
        let path = self.directory.join(name(engine, file));
        let private = self.check_private();
        let stored = if private.is_ok() { self.load(engine, &path) } else { Ok(None) };
        let mut trouble = private.err();
        match stored {
            Ok(Some((form, code))) => return Ok(Loaded { form, code, trouble }),
            Ok(None) => {}
            Err(error) => trouble = Some(error),
        }
        let compiled = compiler.compile(file)?;
        let code = code(engine, &compiled.code).context("what was compiled is of another engine")?;
        if !matches!(&trouble, Some(error) if error.is::<NotPrivate>())
            && let Err(error) = self.store(&path, &compiled)
        {
            trouble = Some(error);
        }
        Ok(Loaded { form: compiled.form, code, trouble })
    }

    /// Removes the oldest files, and with them what a crash has left half-written.
    fn prune(&self) -> std::io::Result<()> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            // One that is gone already was another gateway's to remove or rename.
            if let Ok(modified) = entry.metadata().and_then(|metadata| metadata.modified()) {
                files.push((modified, entry.path()));
            }
        }
        files.sort();
        let surplus = files.len().saturating_sub(KEPT);
        for (_, path) in files.iter().take(surplus) {
            match fs::remove_file(path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// Code from a directory that others may write to is theirs.
    fn check_private(&self) -> anyhow::Result<()> {
        use std::os::unix::fs::MetadataExt;
        let Ok(metadata) = fs::metadata(&self.directory) else { return Ok(()) };
        let owner = rustix::process::geteuid().as_raw();
        if metadata.uid() != owner || metadata.mode() & 0o022 != 0 {
            return Err(NotPrivate(self.directory.clone()).into());
        }
        Ok(())
    }

    fn load(&self, engine: &Engine, path: &Path) -> anyhow::Result<Option<(Form, Code)>> {
        let stored = match fs::read(path) {
            Ok(stored) => stored,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("{} cannot be read", path.display())),
        };
        let whole = stored.split_at_checked(32).filter(|(hash, rest)| Sha256::digest(rest)[..] == **hash);
        let parts = whole.and_then(|(_, rest)| rest.split_first());
        let Some((form, bytes)) = parts.and_then(|(form, bytes)| Some((Form::from_byte(*form)?, bytes))) else {
            anyhow::bail!("{} is damaged: it is compiled anew", path.display());
        };
        let code = code(engine, bytes).with_context(|| format!("{} is of another engine", path.display()))?;
        Ok(Some((form, code)))
    }

    fn store(&self, path: &Path, compiled: &Compiled) -> anyhow::Result<()> {
        make_private(&self.directory).with_context(|| format!("{} cannot be made", self.directory.display()))?;
        let temporary =
            self.directory.join(format!(".{}.{}", std::process::id(), getrandom::u32().unwrap_or_default()));
        let written = (|| {
            let mut file = fs::File::create(&temporary)?;
            let form = [compiled.form.byte()];
            file.write_all(&Sha256::new().chain_update(form).chain_update(&compiled.code).finalize())?;
            file.write_all(&form)?;
            file.write_all(&compiled.code)?;
            file.sync_all()?;
            fs::rename(&temporary, path)
        })();
        if written.is_err() {
            let _ = fs::remove_file(&temporary);
        }
        written.with_context(|| format!("{} cannot be written", path.display()))?;
        self.prune().with_context(|| format!("{} cannot be cleaned", self.directory.display()))
    }
}

/// Which files are compiled as what: 2 has core modules that are called directly.
const FORMAT: u8 = 2;

/// Files that are kept: the newest builds of a few dozen plugins.
const KEPT: usize = 128;

fn code(engine: &Engine, bytes: &[u8]) -> anyhow::Result<Code> {
    // SAFETY: the bytes are what the compiler made: this program wrote them itself, into a pipe or a file. The
    // directory is the gateway's own (it is made with mode 0700, and `check_private` has refused one that others may write
    // to), and a file's hash excludes a torn or damaged one. wasmtime itself checks version and settings.
    unsafe { Code::stored(engine, bytes) }
}

fn make_private(directory: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    if directory.is_dir() {
        return Ok(());
    }
    fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)
}

fn name(engine: &Engine, bytes: &[u8]) -> String {
    let mut settings = DefaultHasher::new();
    engine.precompile_compatibility_hash().hash(&mut settings);
    // What a bare module becomes depends on the interface that it is described by.
    (env!("CARGO_PKG_VERSION"), WIT, FORMAT).hash(&mut settings);
    let mut name: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    name.push_str(&format!("-{:016x}.cwasm", settings.finish()));
    name
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::PluginLimits;

    fn component(cache: &Cache, engine: &Engine, file: &[u8]) -> anyhow::Result<Loaded> {
        let compiler = Compiler { engine, limits: &PluginLimits::default(), leaving: &false.into() };
        cache.code(&compiler, file)
    }

    #[test]
    fn what_is_stored_is_loaded_and_what_is_damaged_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::new(&folder.path().join("cache"));
        let engine = crate::plugin::engine::compiling().unwrap();
        let bytes = wat::parse_str("(component)").unwrap();
        assert!(component(&cache, &engine, &bytes).unwrap().trouble.is_none());
        let path = cache.directory.join(name(&engine, &bytes));
        assert!(cache.load(&engine, &path).unwrap().is_some());

        let mut damaged = fs::read(&path).unwrap();
        *damaged.last_mut().unwrap() ^= 1;
        fs::write(&path, &damaged).unwrap();
        let trouble = component(&cache, &engine, &bytes).unwrap().trouble;
        assert!(trouble.is_some_and(|trouble| trouble.to_string().contains("damaged")));
        assert!(cache.load(&engine, &path).unwrap().is_some(), "compiled anew and stored");

        fs::write(&path, &damaged[..10]).unwrap();
        assert!(cache.load(&engine, &path).is_err());
    }

    #[test]
    fn the_oldest_files_make_room() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::new(&folder.path().join("cache"));
        make_private(&cache.directory).unwrap();
        for n in 0..KEPT + 10 {
            fs::write(cache.directory.join(format!(".left-{n}")), "").unwrap();
        }
        let engine = crate::plugin::engine::compiling().unwrap();
        let bytes = wat::parse_str("(component)").unwrap();
        assert!(component(&cache, &engine, &bytes).unwrap().trouble.is_none());
        assert_eq!(fs::read_dir(&cache.directory).unwrap().count(), KEPT);
        assert!(cache.load(&engine, &cache.directory.join(name(&engine, &bytes))).unwrap().is_some());
    }

    #[test]
    fn what_others_could_have_written_is_not_run() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let engine = crate::plugin::engine::compiling().unwrap();
        let cache = Cache::new(folder.path());
        let plugin = wat::parse_str("(component)").unwrap();
        let trouble = component(&cache, &engine, &plugin).unwrap().trouble;
        assert!(trouble.is_some_and(|trouble| trouble.to_string().contains("can be written by others")));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_directory_that_cannot_be_written_keeps_no_plugin_from_serving() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        let cache = Cache::new(&file.join("cache"));
        let engine = crate::plugin::engine::compiling().unwrap();
        let plugin = wat::parse_str("(component)").unwrap();
        let trouble = component(&cache, &engine, &plugin).unwrap().trouble;
        assert!(trouble.is_some());
    }
}
