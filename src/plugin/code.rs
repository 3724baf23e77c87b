//! A plugin's code, compiled: a component, or a core module that is called directly.

#![allow(unsafe_code, reason = "wasmtime's deserialize trusts what it reads; see `Code::stored`")]

use anyhow::Context as _;
use wasmtime::component::Component;
use wasmtime::{Engine, Module, Precompiled};

use super::encode::{self, Encoded, Form};
use super::engine::sentence;

pub enum Code {
    Component(Component),
    Module(Module),
}

impl Code {
    /// Compiles a plugin's file, here and now.
    pub fn new(engine: &Engine, file: &[u8], encoded: &Encoded) -> anyhow::Result<Self> {
        let code = if encoded.is_direct {
            Module::new(engine, file).map(Self::Module)
        } else {
            Component::new(engine, &encoded.component).map(Self::Component)
        };
        code.map_err(sentence).context("it does not compile")
    }

    /// What `stored` takes.
    pub fn precompiled(engine: &Engine, file: &[u8]) -> anyhow::Result<(Form, Vec<u8>)> {
        let Encoded { form, component, is_direct } = encode::encoded(file)?;
        let code = if is_direct { engine.precompile_module(file) } else { engine.precompile_component(&component) };
        Ok((form, code.map_err(sentence).context("it does not compile")?))
    }

    /// What `precompiled` has made.
    ///
    /// # Safety
    ///
    /// It is native code that will be run as it is: it must be what this program's compiler has made.
    pub unsafe fn stored(engine: &Engine, bytes: &[u8]) -> anyhow::Result<Self> {
        // SAFETY: as the caller says. wasmtime itself checks version and settings.
        let code = unsafe {
            match Engine::detect_precompiled(bytes) {
                Some(Precompiled::Module) => Module::deserialize(engine, bytes).map(Self::Module),
                _ => Component::deserialize(engine, bytes).map(Self::Component),
            }
        };
        code.map_err(sentence)
    }
}
