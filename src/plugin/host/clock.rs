//! `clock`: time.

use wasmtime::Result;

use super::{State, wit};
use crate::plugin::script::nothing;

impl wit::clock::Host for State {
    fn now(&mut self) -> Result<u64> {
        self.enter()?;
        self.known("clock.now", nothing, true, |node| Ok(node.clock.unix()))
    }

    fn monotonic(&mut self) -> Result<u64> {
        self.enter()?;
        self.known("clock.monotonic", nothing, true, |node| {
            Ok(u64::try_from(node.clock.monotonic().as_nanos()).unwrap_or(u64::MAX))
        })
    }
}
