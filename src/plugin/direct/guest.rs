//! The guest of a call: its memory, and how room is made in it.

use wasmtime::{Func, Memory, Result, Store, StoreContextMut, ValRaw};

use super::abi::{Source, aligned, mistake};
use crate::plugin::host::State;

/// Where an instance's memory is, and the function that makes room in it.
#[derive(Clone, Copy)]
pub struct Parts {
    pub memory: Memory,
    pub realloc: Option<Func>,
}

/// A guest that is being called, or that calls.
pub struct Guest<'a> {
    store: StoreContextMut<'a, State>,
    parts: Parts,
}

impl<'a> Guest<'a> {
    pub fn new(store: StoreContextMut<'a, State>, parts: Parts) -> Self {
        Self { store, parts }
    }

    /// The instance's memory, to be read, and the state beside it.
    pub fn split(&mut self) -> (Source<'_>, &mut State) {
        let (memory, state) = self.parts.memory.data_and_store_mut(&mut self.store);
        (Source::new(memory, state.context.limits.memory.0), state)
    }

    /// Room that the guest makes, for what it is given.
    pub fn allocate(&mut self, align: u32, size: u32) -> Result<u32> {
        let Some(realloc) = self.parts.realloc else {
            return Err(mistake("it exports no `cabi_realloc`, and is given what needs room".to_owned()));
        };
        let mut values = [ValRaw::u32(0), ValRaw::u32(0), ValRaw::u32(align), ValRaw::u32(size)];
        self.store.data_mut().alone = true;
        // SAFETY: `Parts` has a `realloc` of this signature only; four numbers in, one out.
        unsafe { realloc.call_unchecked(&mut self.store, &raw mut values as *mut [ValRaw]) }?;
        self.store.data_mut().alone = false;
        let at = values[0].get_u32();
        aligned(at, align as usize)?;
        Source::new(self.parts.memory.data(&self.store), 0).bytes(at as usize, size as usize)?;
        Ok(at)
    }

    pub fn write(&mut self, at: usize, bytes: &[u8]) -> Result<()> {
        let memory = self.parts.memory.data_mut(&mut self.store);
        let place = memory.get_mut(at..).and_then(|rest| rest.get_mut(..bytes.len()));
        let beyond = || mistake(format!("{} bytes at {at} are not in its memory", bytes.len()));
        place.ok_or_else(beyond)?.copy_from_slice(bytes);
        Ok(())
    }
}

/// Calls a function of the guest's; its answer, if it has one, is in place of the first number.
pub fn call(store: &mut Store<State>, function: Func, values: &mut [ValRaw]) -> Result<()> {
    // SAFETY: who calls has compared the function's signature with the numbers when the instance was made.
    unsafe { function.call_unchecked(store, values) }
}
