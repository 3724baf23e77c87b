//! Connections that are only held.

use crate::engine::{Behaviour, Reach};
use crate::tally::Tally;

pub struct Idle;

impl Behaviour for Idle {
    fn begin(&mut self, _reach: &mut Reach<'_>) {}

    fn message(&mut self, _index: usize, _now: u64, _is_binary: bool, _payload: &[u8], tally: &mut Tally) {
        tally.counts.messages += 1;
    }

    fn after(&mut self, _index: usize, _reach: &mut Reach<'_>) {}

    fn drive(&mut self, _now: u64, _reach: &mut Reach<'_>) -> Option<u64> {
        None
    }

    fn gone(&mut self, _index: usize) {}

    fn outstanding(&self) -> u64 {
        0
    }

    fn end(&mut self, _tally: &mut Tally) {}
}
