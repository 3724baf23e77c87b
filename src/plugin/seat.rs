//! A plugin's seat in a chain: which of its generations is called for whom, and whether it is called at all.

use std::sync::Arc;

use super::breaker::{Breaker, Pass};
use super::call::{Answer, Call, Decision};
use super::event::{Event, Hook};
use super::failure::{Failure, Why};
use super::generation::Generation;

/// What a chain knows of a plugin. A chain is made anew when any of it changes.
#[derive(Clone)]
pub struct Seat {
    pub serving: Arc<Generation>,
    pub breaker: Arc<Breaker>,
}

/// A seat, and the generation of it for one event.
#[derive(Clone, Copy)]
pub struct Seated<'a> {
    pub generation: &'a Arc<Generation>,
    seat: &'a Seat,
}

impl Seat {
    pub fn has(&self, hook: Hook) -> bool {
        self.serving.has(hook)
    }

    pub fn waits(&self) -> bool {
        self.serving.waits()
    }

    /// For the session with this number; 0: the event belongs to none.
    pub fn of(&self, _session: u64) -> Seated<'_> {
        Seated { generation: &self.serving, seat: self }
    }
}

impl Seated<'_> {
    /// Calls the plugin, unless its breaker is open.
    pub async fn call(self, call: Call<'_>, event: &mut Option<Box<Event>>) -> Result<Answer, Failure> {
        let breaker = &self.seat.breaker;
        match breaker.pass() {
            Pass::Free => self.called(call, event).await,
            Pass::Barred(_) => Err(self.generation.failed(call.hook(), Why::Open)),
            Pass::Probe => {
                let answer = self.called(call, event).await;
                let well = answer.as_ref().err().is_none_or(|failure| !failure.why.is_fault());
                breaker.probed(&self.generation.context.name, well, self.seat.serving.counts());
                answer
            }
        }
    }

    async fn called(self, call: Call<'_>, event: &mut Option<Box<Event>>) -> Result<Answer, Failure> {
        let answer = self.generation.call(call, event).await;
        if let Ok(Answer::Decision(Decision::Refuse(_) | Decision::Pass)) = answer {
            self.generation.refused();
        }
        answer
    }
}
