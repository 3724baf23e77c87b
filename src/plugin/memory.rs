//! How much memory and how many table elements an instance may have.

use wasmtime::ResourceLimiter;

use crate::config::PluginLimits;

/// Counts and limits an instance's linear memories and tables.
pub struct Memory {
    limit: usize,
    bytes: usize,
    tables_limit: usize,
    elements: usize,
    /// A limit was hit in this call: a trap that follows is likely its consequence.
    pub refused: Option<Full>,
}

/// What there is no more of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    Memory,
    Tables,
}

impl Memory {
    pub fn new(limits: &PluginLimits) -> Self {
        Self { limit: limits.memory.0, bytes: 0, tables_limit: limits.tables, elements: 0, refused: None }
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl ResourceLimiter for Memory {
    fn memory_growing(&mut self, current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        let bytes = self.bytes + desired.saturating_sub(current);
        if bytes > self.limit {
            self.refused = Some(Full::Memory);
            return Ok(false);
        }
        self.bytes = bytes;
        Ok(true)
    }

    fn table_growing(&mut self, current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        let elements = self.elements + desired.saturating_sub(current);
        if elements > self.tables_limit {
            self.refused = Some(Full::Tables);
            return Ok(false);
        }
        self.elements = elements;
        Ok(true)
    }

    fn instances(&self) -> usize {
        64
    }

    fn tables(&self) -> usize {
        64
    }

    fn memories(&self) -> usize {
        16
    }
}
