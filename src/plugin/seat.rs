//! A plugin's seat in a chain: which of its generations is called for whom, and whether it is called at all.

use std::sync::Arc;

use super::breaker::{Breaker, Pass};
use super::call::{Answer, Call, Decision, Verdict};
use super::canary::is_among;
use super::event::{Event, Hook};
use super::failure::{Failure, Why};
use super::generation::Generation;
use super::shadow::Shadow;
use super::warm::Warm;
use crate::message::MessageRef;

/// What a chain knows of a plugin. A chain is made anew when any of it changes.
#[derive(Clone)]
pub struct Seat {
    pub serving: Arc<Generation>,
    /// With its share of the sessions, in percent.
    pub canary: Option<(Arc<Generation>, u8)>,
    pub shadow: Option<Arc<Shadow>>,
    pub breaker: Arc<Breaker>,
}

/// A seat, and the generation of it for one event.
#[derive(Clone, Copy)]
pub struct Seated<'a> {
    pub generation: &'a Arc<Generation>,
    seat: &'a Seat,
    is_canary: bool,
}

impl Seat {
    pub fn has(&self, hook: Hook) -> bool {
        self.generations().any(|generation| generation.has(hook))
    }

    pub fn waits(&self) -> bool {
        self.generations().any(|generation| generation.waits())
    }

    /// Whether messages that were read together may come in one call, whichever generation a session has.
    pub fn batches(&self) -> bool {
        self.shadow.is_none() && self.generations().all(|generation| generation.has(Hook::Batch))
    }

    fn generations(&self) -> impl Iterator<Item = &Arc<Generation>> {
        std::iter::once(&self.serving).chain(self.canary.iter().map(|(canary, _)| canary))
    }

    /// For the session with this number; 0: the event belongs to none, and is the canary's when every session is.
    pub fn of(&self, session: u64) -> Seated<'_> {
        let among = |share| if session == 0 { share >= 100 } else { is_among(share, session) };
        match &self.canary {
            Some((canary, share)) if among(*share) => Seated { generation: canary, seat: self, is_canary: true },
            _ => Seated { generation: &self.serving, seat: self, is_canary: false },
        }
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

    /// Calls `inbound` without a future around it. None: this call has to go the usual way, and nothing has happened.
    pub fn inbound_now(
        self,
        session: u64,
        message: MessageRef<'_>,
        event: &mut Option<Box<Event>>,
        warm: &mut Warm,
    ) -> Option<Result<Verdict, Failure>> {
        if self.seat.shadow.is_some() || !self.seat.breaker.is_closed() {
            return None;
        }
        self.generation.inbound_now(session, message, event, warm)
    }

    /// The same for `batch`, with messages that were read together.
    pub fn batch_now(
        self,
        session: u64,
        messages: &[MessageRef<'_>],
        event: &mut Option<Box<Event>>,
        warm: &mut Warm,
    ) -> Option<Result<Vec<Verdict>, Failure>> {
        if self.seat.shadow.is_some() || !self.seat.breaker.is_closed() {
            return None;
        }
        self.generation.batch_now(session, messages, event, warm)
    }

    async fn called(self, call: Call<'_>, event: &mut Option<Box<Event>>) -> Result<Answer, Failure> {
        let copied = match &self.seat.shadow {
            Some(shadow) if !self.is_canary => shadow.copy(&call, event),
            _ => None,
        };
        let answer = self.generation.call(call, event).await;
        if let Some(copied) = copied {
            copied.compare(&answer, event);
        }
        if let Ok(Answer::Decision(Decision::Refuse(_) | Decision::Pass)) = answer {
            self.generation.refused();
        }
        answer
    }
}
