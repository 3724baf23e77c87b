//! `clock`: time.

use std::sync::LazyLock;
use std::time::Instant;

use wasmtime::Result;

use super::{State, wit};
use crate::message::unix_now;

static BEGIN: LazyLock<Instant> = LazyLock::new(Instant::now);

impl wit::clock::Host for State {
    fn now(&mut self) -> Result<u64> {
        self.enter()?;
        Ok(unix_now())
    }

    fn monotonic(&mut self) -> Result<u64> {
        self.enter()?;
        Ok(u64::try_from(BEGIN.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }
}
