//! `clock`: time.

use wasmtime::Result;

use super::{State, wit};
impl wit::clock::Host for State {
    fn now(&mut self) -> Result<u64> {
        self.enter()?;
        Ok(self.context.node.clock.unix())
    }

    fn monotonic(&mut self) -> Result<u64> {
        self.enter()?;
        Ok(u64::try_from(self.context.node.clock.monotonic().as_nanos()).unwrap_or(u64::MAX))
    }
}
