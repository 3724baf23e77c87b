//! `random`: from the operating system, or from a seed.

use serde_json::json;
use wasmtime::{Error, Result};

use super::{Quota, State, wit};
use crate::plugin::script::nothing;

/// Bytes of one call.
const MAX: u32 = 64 << 10;

impl wit::random::Host for State {
    fn number(&mut self) -> Result<u64> {
        self.enter()?;
        let number = self.known("random.number", nothing, false, |node| node.random.number());
        number.map_err(none)
    }

    fn bytes(&mut self, length: u32) -> Result<Vec<u8>> {
        self.enter()?;
        if length > MAX {
            return Err(Error::new(Quota::Fixed("random bytes in one call, 65536")));
        }
        let bytes = self.known(
            "random.bytes",
            || json!({ "length": length }),
            false,
            |node| {
                let mut bytes = vec![0; length as usize];
                node.random.fill(&mut bytes).map(|()| bytes)
            },
        );
        bytes.map_err(none)
    }
}

fn none(error: getrandom::Error) -> Error {
    Error::msg(format!("no randomness: {error}"))
}
