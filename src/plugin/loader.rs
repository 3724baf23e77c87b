//! From a plugin's file to a generation that can serve.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::Context as _;
use sha2::{Digest, Sha256};
use tokio::runtime::Handle;
use wasmtime::Engine;

use super::cache::{Cache, Loaded};
use super::compile::{Compiler, Exceeded};
use super::engine::Room;
use super::generation::Generation;
use super::host::Context;
use super::template::Template;
use crate::config::PluginConfig;
use crate::node::Node;

/// Makes generations. Called by one thread at a time.
pub struct Loader {
    pub engine: Engine,
    /// What instances can have at the most.
    pub room: Room,
    pub cache: Cache,
    pub node: Arc<Node>,
    pub runtime: Handle,
    /// Set when the gateway ends: a compilation is broken off then.
    pub leaving: AtomicBool,
}

/// A file's hash.
pub type Hash = [u8; 32];

/// What a generation is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    Serving,
    Canary,
    Shadow,
}

/// What a generation is made with, beside its code.
pub struct Making<'a> {
    pub settings: &'a PluginConfig,
    pub number: u64,
    pub role: Role,
}

/// A file that was read.
pub struct Bytes {
    bytes: Vec<u8>,
    pub hash: Hash,
}

impl Bytes {
    /// Reads a file that is not larger than it may be.
    pub fn read(file: &Path, settings: &PluginConfig) -> anyhow::Result<Self> {
        let limit = settings.limits.file.0 as u64;
        let length = fs::metadata(file).context("the file cannot be read")?.len();
        if length > limit {
            let what = format!("the file has {length} bytes: more than the {limit} of its limit (`file`)");
            return Err(Exceeded::new("file", what).into());
        }
        let bytes = fs::read(file).context("the file cannot be read")?;
        let hash = Sha256::digest(&bytes).into();
        Ok(Self { bytes, hash })
    }
}

impl Loader {
    /// Compiles what was read, and lets the first instance's `init` decide.
    pub fn load(&self, name: &str, read: &Bytes, made: &Making<'_>) -> anyhow::Result<Generation> {
        let compiler = Compiler { engine: &self.engine, limits: &made.settings.limits, leaving: &self.leaving };
        let loaded = self.cache.code(&compiler, &read.bytes)?;
        let Loaded { form, code, trouble } = loaded;
        if let Some(trouble) = trouble {
            self.node.metrics.cache_errors.inc();
            tracing::warn!(
                plugin = name,
                error = format!("{trouble:#}"),
                "the cache of compiled plugins is of no help"
            );
        }
        let (template, imports) = Template::new(&self.engine, &code)?;
        let file = (form, read.bytes.len(), read.hash);
        self.runtime.block_on(Generation::new(template, imports, file, self.context(name, made)))
    }

    /// The same code with other settings.
    pub fn renew(&self, former: &Generation, made: &Making<'_>) -> anyhow::Result<Generation> {
        let context = self.context(&former.context.name, made);
        let file = (former.form, former.size, former.hash);
        let renewed = Generation::new(former.template().clone(), former.imports.clone(), file, context);
        self.runtime.block_on(renewed)
    }

    fn context(&self, name: &str, made: &Making<'_>) -> Arc<Context> {
        let context = Context::new(name, made.number, made.settings, self.node.clone());
        Arc::new(Context { shadow: made.role == Role::Shadow, ..context })
    }
}
