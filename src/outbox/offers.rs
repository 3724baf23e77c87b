//! Deliveries that a session decides on one by one: its plugins see each of them, or its transport has no frames to share.

use std::collections::VecDeque;
use std::sync::Arc;

use super::slow::{self, Missing};
use super::{Outbox, Written};
use crate::config::Overflow;
use crate::message::{Message, Publication};

/// A delivery that the session decides on; no publication: it was sent directly.
pub type Offer = (Option<Arc<Publication>>, Message);

#[derive(Default)]
pub(super) struct Offers {
    waiting: VecDeque<Offer>,
    bytes: usize,
}

impl Outbox {
    /// Hands the session a delivery.
    pub fn offer(&self, publication: Option<Arc<Publication>>, message: Message) -> Written {
        self.counted(self.take_offer(publication, message))
    }

    fn take_offer(&self, publication: Option<Arc<Publication>>, message: Message) -> Written {
        let state = &mut *self.state.lock();
        if state.over {
            return Written::Over;
        }
        if let Some(publication) = &publication {
            match slow::missing(state, publication) {
                Missing::This => return Written::Dropped(1),
                Missing::Nothing { known: true } => return Written::Sent,
                Missing::Nothing { known: false } => {}
            }
        }
        let offers = state.offers.get_or_insert_default();
        let mut dropped = 0;
        if self.overflow == Overflow::KeepLatest
            && let Some(publication) = &publication
        {
            dropped += offers.forget(publication);
        }
        let size = cost(&message);
        if offers.bytes + size > self.room_for(publication.is_some()) {
            match self.overflow {
                Overflow::Disconnect | Overflow::Recover => {
                    if let (Overflow::Recover, Some(publication)) = (self.overflow, &publication) {
                        self.is_full(state);
                        slow::miss(state, publication);
                        return Written::Dropped(1);
                    }
                    state.offers = None;
                    return self.too_slow(state);
                }
                Overflow::DropOldest | Overflow::KeepLatest if size <= self.limit => {
                    dropped += offers.make_room(self.limit - size);
                    self.is_full(state);
                }
                Overflow::DropOldest | Overflow::KeepLatest | Overflow::DropNewest => {
                    self.is_full(state);
                    return Written::Dropped(dropped + 1);
                }
            }
        }
        let offers = state.offers.get_or_insert_default();
        offers.bytes += size;
        offers.waiting.push_back((publication, message));
        state.wake();
        if dropped > 0 { Written::Dropped(dropped) } else { Written::Queued }
    }

    /// The next delivery that the session decides on.
    pub fn next_offer(&self) -> Option<Offer> {
        let mut state = self.state.lock();
        let offers = state.offers.as_mut()?;
        let next = offers.waiting.pop_front();
        match &next {
            Some((_, message)) => offers.bytes -= cost(message),
            None => {
                state.offers = None;
                if state.ask_for_missed() {
                    state.wake();
                }
            }
        }
        next
    }
}

impl Offers {
    /// Drops what waits under the same key.
    fn forget(&mut self, publication: &Publication) -> u32 {
        let same = |one: &Offer| {
            one.0.as_ref().is_some_and(|one| one.topic == publication.topic && one.key == publication.key)
        };
        let Some(place) = self.waiting.iter().rposition(same) else { return 0 };
        if let Some((_, message)) = self.waiting.remove(place) {
            self.bytes -= cost(&message);
        }
        1
    }

    /// Drops the oldest until no more than this is left.
    fn make_room(&mut self, bytes: usize) -> u32 {
        let mut dropped = 0;
        while self.bytes > bytes {
            let Some((_, oldest)) = self.waiting.pop_front() else { break };
            self.bytes -= cost(&oldest);
            dropped += 1;
        }
        dropped
    }
}

fn cost(message: &Message) -> usize {
    message.len() + size_of::<Offer>()
}
