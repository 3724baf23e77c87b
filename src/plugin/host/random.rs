//! `random`: from the operating system, or from a seed.

use wasmtime::{Error, Result};

use super::{Quota, State, wit};

/// Bytes of one call.
const MAX: u32 = 64 << 10;

impl wit::random::Host for State {
    fn number(&mut self) -> Result<u64> {
        self.enter()?;
        self.context.node.random.number().map_err(|error| Error::msg(format!("no randomness: {error}")))
    }

    fn bytes(&mut self, length: u32) -> Result<Vec<u8>> {
        self.enter()?;
        if length > MAX {
            return Err(Error::new(Quota::Fixed("random bytes in one call, 65536")));
        }
        let mut bytes = vec![0; length as usize];
        self.context.node.random.fill(&mut bytes).map_err(|error| Error::msg(format!("no randomness: {error}")))?;
        Ok(bytes)
    }
}
