//! What a tap is told of a call: put together before and after it, and only where somebody listens.

use std::time::Instant;

use serde_json::Value;

use super::call::{Answer, Call};
use super::describe;
use super::event::Event;
use super::failure::Why;
use super::host::Context;
use super::outcome::{Mark, Outcome};
use crate::message::SessionId;
use crate::tap::{Called, Note};

/// A call under way, as far as it is known.
pub struct Told {
    hook: &'static str,
    session: Option<SessionId>,
    given: Value,
    mark: Mark,
    begun: Instant,
}

impl Told {
    /// None: nobody listens.
    pub fn begin(context: &Context, call: &Call<'_>, event: &Option<Box<Event>>) -> Option<Self> {
        context.node.tap.as_ref().filter(|_| !context.shadow)?;
        Some(Self {
            hook: call.hook().name(),
            session: event.as_ref().and_then(|event| event.session.as_ref()).map(|session| session.id),
            given: describe::call(call),
            mark: Mark::of(event),
            begun: Instant::now(),
        })
    }

    pub fn end(self, context: &Context, result: &Result<Answer, Why>, event: &Option<Box<Event>>) {
        let took = self.begun.elapsed();
        let Some(tap) = &context.node.tap else { return };
        let outcome = Outcome::of(result.as_ref(), &self.mark, event).described();
        let Self { hook, session, given, .. } = self;
        let answer = match (outcome.answer, outcome.failed) {
            (Some(answer), _) => Ok(answer),
            (None, failed) => Err(failed.map(|failed| failed.what).unwrap_or_default()),
        };
        let plugin = context.name.to_string();
        tap.note(Note::Call(Box::new(Called { plugin, hook, session, given, answer, effects: outcome.effects, took })));
    }
}
