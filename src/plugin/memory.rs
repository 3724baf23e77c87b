//! How much memory an instance may have.

use wasmtime::ResourceLimiter;

/// Table elements of an instance; a table of function pointers has a few thousand.
const TABLE: usize = 100_000;

/// Counts and limits an instance's linear memories.
pub struct Memory {
    limit: usize,
    bytes: usize,
    /// The limit was hit in this call: a trap that follows is likely its consequence.
    pub refused: bool,
}

impl Memory {
    pub fn new(limit: usize) -> Self {
        Self { limit, bytes: 0, refused: false }
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl ResourceLimiter for Memory {
    fn memory_growing(&mut self, current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        let bytes = self.bytes + desired.saturating_sub(current);
        if bytes > self.limit {
            self.refused = true;
            return Ok(false);
        }
        self.bytes = bytes;
        Ok(true)
    }

    fn table_growing(&mut self, _current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        Ok(desired <= TABLE)
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
