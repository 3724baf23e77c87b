//! Core modules, called without a component around them.
//!
//! Most plugins come as core modules. wasmtime's component model serves them well and generally; a call by way of it costs
//! some 0.4 µs more than the functions themselves. So a module that imports nothing which may wait, and that looks as its
//! tools should have made it, is called directly: this is the canonical ABI for the types of one interface. Whatever is not
//! so (components, WASI, stores, other names of the same things) goes by way of a component
//! (docs/decisions/0027-direct-calls.md).

#![allow(unsafe_code, reason = "wasmtime's unchecked calls: signatures are compared once, when a module is loaded")]

mod abi;
mod compound;
mod guest;
mod hooks;
mod imports;
mod plain;
mod types;

use wasmtime::{Engine, ExternType, FuncType, InstancePre, Module, Result, Store, ValType};

pub use guest::Parts;
pub use hooks::Hooks;
pub use imports::offers;

use hooks::Names;

use super::event::Hook;
use super::host::State;

pub const MEMORY: &str = "memory";
pub const REALLOC: &str = "cabi_realloc";
/// What a reactor's tools export to be called first.
const INITIALIZE: &str = "_initialize";

/// A module that can be called directly.
#[derive(Clone)]
pub struct Direct {
    pre: InstancePre<State>,
    names: Names,
}

impl Direct {
    /// The error is that the module does not look as `encode` has said: a mistake of the gateway's.
    pub fn new(engine: &Engine, module: &Module) -> Result<Self> {
        let func = |params: &[ValType], results: &[ValType]| FuncType::new(engine, params.to_vec(), results.to_vec());
        let check = |name: &str, expected: FuncType| match module.get_export(name) {
            None => Ok(()),
            Some(ExternType::Func(ty)) if FuncType::eq(&ty, &expected) => Ok(()),
            Some(_) => Err(abi::mistake(format!("{name} has another type than it should"))),
        };
        let numbers = [const { ValType::I32 }; 4];
        check(REALLOC, func(&numbers, &numbers[..1]))?;
        check(INITIALIZE, func(&[], &[]))?;
        if !matches!(module.get_export(MEMORY), Some(ExternType::Memory(ty)) if !ty.is_64() && !ty.is_shared()) {
            return Err(abi::mistake("its memory is shared, or has addresses of 64 bits".to_owned()));
        }
        let (names, linker) = (hooks::names(engine, module)?, imports::link(engine, module)?);
        Ok(Self { pre: linker.instantiate_pre(module)?, names })
    }

    pub fn engine(&self) -> &Engine {
        self.pre.module().engine()
    }

    pub fn has(&self, hook: Hook) -> bool {
        self.names[hook as usize].is_some()
    }

    /// What the module imports: the interfaces, each once.
    pub fn imports(&self) -> Vec<String> {
        let mut names: Vec<_> = self.pre.module().imports().map(|import| import.module().to_owned()).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// Makes an instance. The error may be a trap of the module's own.
    pub fn instantiate(&self, store: &mut Store<State>) -> Result<Hooks> {
        let instance = self.pre.instantiate(&mut *store)?;
        let no_memory = || abi::mistake("its memory is gone".to_owned());
        let memory = instance.get_memory(&mut *store, MEMORY).ok_or_else(no_memory)?;
        let parts = Parts { memory, realloc: instance.get_func(&mut *store, REALLOC) };
        store.data_mut().parts = Some(parts);
        if let Some(initialize) = instance.get_func(&mut *store, INITIALIZE) {
            guest::call(store, initialize, &mut [])?;
        }
        Ok(Hooks::new(store, &instance, &self.names, parts))
    }
}
