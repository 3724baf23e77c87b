//! Messages of one session that were read together, on their way to a plugin that takes them in one call.

use std::sync::Arc;

use super::turn::{Handled, Scratch};
use super::{Next, READ, Session, Waiting};
use crate::message::MessageRef;
use crate::plugin::{BATCH_MAX, Chain, Patience};

/// What is gathered, copied: what one frame is inflated to, or put together from, is gone with the next.
#[derive(Default)]
pub(super) struct Batch {
    texts: String,
    bytes: Vec<u8>,
    /// Whether each message is text, and where its content ends among its kind.
    ends: Vec<(bool, usize)>,
}

impl Batch {
    pub(super) fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    fn is_full(&self) -> bool {
        self.ends.len() == BATCH_MAX || self.texts.len() + self.bytes.len() >= READ
    }

    fn push(&mut self, message: MessageRef<'_>) {
        match message {
            MessageRef::Text(text) => {
                self.texts.push_str(text);
                self.ends.push((true, self.texts.len()));
            }
            MessageRef::Binary(bytes) => {
                self.bytes.extend_from_slice(bytes);
                self.ends.push((false, self.bytes.len()));
            }
        }
    }

    /// Fills `room` with the messages.
    fn messages<'a>(&'a self, room: &'a mut [MessageRef<'a>; BATCH_MAX]) -> &'a [MessageRef<'a>] {
        let (mut text, mut byte) = (0, 0);
        for (place, (is_text, end)) in room.iter_mut().zip(&self.ends) {
            *place = if *is_text {
                MessageRef::Text(&self.texts[std::mem::replace(&mut text, *end)..*end])
            } else {
                MessageRef::Binary(&self.bytes[std::mem::replace(&mut byte, *end)..*end])
            };
        }
        &room[..self.ends.len().min(BATCH_MAX)]
    }

    fn clear(&mut self) {
        self.ends.clear();
        self.texts.clear();
        self.bytes.clear();
        // One message may have been a large one.
        self.texts.shrink_to(READ * 2);
        self.bytes.shrink_to(READ * 2);
    }
}

impl Session {
    /// One more message of those that were read together. They are handled when enough are there, or by `gathered`.
    pub(super) fn gather(
        &mut self,
        message: MessageRef<'_>,
        chain: &Arc<Chain>,
        scratch: &mut Scratch,
    ) -> Option<Next> {
        scratch.batch.push(message);
        if scratch.batch.is_full() { self.gathered(chain, scratch) } else { None }
    }

    /// Handles what was gathered, before what comes after it.
    pub(super) fn gathered(&mut self, chain: &Arc<Chain>, scratch: &mut Scratch) -> Option<Next> {
        if scratch.batch.is_empty() {
            return None;
        }
        let batch = std::mem::take(&mut scratch.batch);
        let mut room = [MessageRef::Binary(&[]); BATCH_MAX];
        let next = match batch.messages(&mut room) {
            [only] => self.one(*only, chain, scratch),
            messages => match self.batch_now(messages, chain, scratch) {
                Some(handled) => self.handled(handled, chain, scratch),
                None => {
                    let each = messages.iter().map(|message| (*message).to_owned()).collect();
                    Some(Next::Await(Box::new(Waiting::Each(each))))
                }
            },
        };
        scratch.batch = batch;
        scratch.batch.clear();
        next
    }

    /// None: each message has to go its own way, and nothing has happened.
    fn batch_now(&mut self, messages: &[MessageRef<'_>], chain: &Chain, scratch: &mut Scratch) -> Option<Handled> {
        let mut event = scratch.event.take().unwrap_or_default();
        event.session = Some(self.state.take()?);
        event.patience = Patience::None;
        let mut event = Some(event);
        let called = chain.batch_now(&mut event, messages, &mut scratch.warm);
        let verdicts = match called {
            Some(Ok(verdicts)) => verdicts,
            failed => {
                if let Some(Err(failure)) = failed {
                    tracing::warn!(route = &*self.route.route.name, session = %self.outbox.id, why = %failure.why,
                        plugin = &*failure.plugin, generation = failure.generation, hook = failure.hook.name(),
                        "messages could not be handled together: each is handled alone");
                }
                scratch.event = self.take_back(event);
                return None;
            }
        };
        self.answered(event, verdicts.into_iter().zip(messages.iter().copied()), chain, scratch)
    }
}
