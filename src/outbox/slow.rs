//! What happens to a client that does not keep up: its route's policy.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use prometheus::IntCounter;

use super::queue::{self, Key, Queue, Waiting};
use super::requests::Request;
use super::{Outbox, State, Written};
use crate::config::Overflow;
use crate::message::{Close, Closer, Position, Publication, TopicName};
use crate::metrics::Metrics;
use crate::wire::deflate;

/// What slow clients of a route cause, by their policy.
#[derive(Clone)]
pub struct SlowCounters {
    dropped: IntCounter,
    /// Outboxes that became full.
    full: IntCounter,
}

impl SlowCounters {
    pub fn new(metrics: &Metrics, route: &str, policy: Overflow) -> Self {
        let labels = [route, policy.name()];
        Self {
            dropped: metrics.dropped.with_label_values(&labels),
            full: metrics.slow_consumers.with_label_values(&labels),
        }
    }
}

/// Frames of publications that lie side by side, for policies that tell one from the other.
pub struct Piece<'a> {
    pub frames: &'a Bytes,
    /// Where each frame ends, counted from where the first of them begins: `begin`.
    pub ends: &'a [u32],
    pub begin: u32,
    pub publications: &'a [Option<Arc<Publication>>],
    /// Compressed, if that is agreed on.
    pub ready: bool,
}

impl Piece<'_> {
    fn range(&self, index: usize) -> std::ops::Range<usize> {
        let begin = if index == 0 { self.begin } else { self.ends[index - 1] };
        (begin - self.begin) as usize..(self.ends[index] - self.begin) as usize
    }
}

/// Topics on which something did not fit; as many as the session has at most.
pub(super) type Missed = HashMap<TopicName, Miss>;

pub(super) enum Miss {
    /// Nothing more is taken before what came after `since` was read from the history.
    Since {
        since: Option<Position>,
        /// The last that was not taken.
        to: Option<Position>,
        /// The session knows of it.
        asked: bool,
    },
    /// The client has had everything up to here, by another way.
    Until(Position),
}

/// What a delivery is to a topic on which something did not fit.
pub(super) enum Missing {
    /// It is missing as well.
    This,
    Nothing {
        known: bool,
    },
}

/// Whether this publication is missing, with those before it.
pub(super) fn missing(state: &mut State, publication: &Publication) -> Missing {
    let none = Missing::Nothing { known: false };
    let Some(missed) = &mut state.missed else { return none };
    match missed.get_mut(&publication.topic) {
        None => none,
        Some(Miss::Since { since, to, .. }) => {
            // What is published without a position is not worth being kept, for those who come back either.
            *since = since.or_else(|| before(publication));
            *to = publication.position.or(*to);
            Missing::This
        }
        Some(Miss::Until(until)) => {
            let known = publication.position.is_some_and(|at| at.epoch == until.epoch && at.offset <= until.offset);
            if !known {
                state.forget_missed(&publication.topic);
            }
            Missing::Nothing { known }
        }
    }
}

fn before(publication: &Publication) -> Option<Position> {
    publication.position.map(|at| Position { offset: at.offset.saturating_sub(1), ..at })
}

/// This publication is the first of its topic that does not fit.
pub(super) fn miss(state: &mut State, publication: &Publication) {
    let miss = Miss::Since { since: before(publication), to: publication.position, asked: false };
    state.missed.get_or_insert_default().insert(publication.topic.clone(), miss);
}

impl State {
    /// Whether the session is asked to read what did not fit: its client has taken all that did.
    pub(super) fn ask_for_missed(&mut self) -> bool {
        let Some(missed) = &mut self.missed else { return false };
        let waits = self.queue.as_ref().is_some_and(|queue| !queue.waiting.is_empty() || queue.held.is_some());
        if waits || self.offers.is_some() || self.over {
            return false;
        }
        let before = self.requests.len();
        for (topic, miss) in missed.iter_mut() {
            if let Miss::Since { since, asked: asked @ false, .. } = miss {
                *asked = true;
                self.requests.push(Request::Missed(topic.clone(), *since));
            }
        }
        self.requests.len() > before
    }

    fn forget_missed(&mut self, topic: &TopicName) {
        if let Some(missed) = &mut self.missed {
            missed.remove(topic);
            if missed.is_empty() {
                self.missed = None;
            }
        }
    }
}

impl Outbox {
    /// Whether the policy looks at each publication.
    pub fn looks_at_each(&self) -> bool {
        matches!(self.overflow, Overflow::KeepLatest | Overflow::Recover)
    }

    /// Writes whole frames that are shared with other sessions, each of them by the policy.
    pub fn deliver_each(&self, piece: &Piece<'_>) -> Written {
        self.counted(self.take_each(piece))
    }

    fn take_each(&self, piece: &Piece<'_>) -> Written {
        let state = &mut *self.state.lock();
        if state.over {
            return Written::Over;
        }
        let (mut from, mut blocked) = (0, false);
        let as_they_are = piece.ready || self.packer.is_none();
        if state.queue.is_none() && state.missed.is_none() && as_they_are {
            let Ok(sent) = self.try_write(piece.frames) else {
                state.end();
                return Written::Over;
            };
            if sent == piece.frames.len() {
                return Written::Sent;
            }
            blocked = true;
            from = piece.ends.partition_point(|end| (end - piece.begin) as usize <= sent);
            let begun = piece.range(from);
            if sent > begun.start {
                let rest = Waiting::delivery(piece.frames.slice(sent..begun.end), 1);
                self.enqueue(state, Waiting { begun: true, ..rest });
                from += 1;
            }
        }
        let mut dropped = 0;
        for index in from..piece.ends.len() {
            let frame = piece.frames.slice(piece.range(index));
            // One without a byte is nobody's.
            if frame.is_empty() {
                continue;
            }
            let written = match &piece.publications[index] {
                Some(publication) if blocked => self.take_waiting(state, frame, publication),
                Some(publication) => self.take_one(state, frame, publication, as_they_are),
                None => self.push(state, &frame, 1, || frame.clone(), true),
            };
            match written {
                Written::Sent | Written::Queued => {}
                Written::Dropped(messages) => dropped += messages,
                Written::Over => return Written::Over,
            }
        }
        if dropped > 0 { Written::Dropped(dropped) } else { Written::Queued }
    }

    fn take_one(&self, state: &mut State, frame: Bytes, publication: &Publication, as_it_is: bool) -> Written {
        match missing(state, publication) {
            Missing::This => return Written::Dropped(1),
            Missing::Nothing { known: true } => return Written::Sent,
            Missing::Nothing { known: false } => {}
        }
        let waits = state.queue.is_some();
        let mut window = None;
        let frame = match &self.packer {
            Some(packer) if !as_it_is => {
                let mut packed = Vec::with_capacity(frame.len());
                window = packer.window.as_ref().map(|window| window.lock());
                packer.count(match &mut window {
                    Some(window) => window.compress(&mut packed, &frame, packer.how, waits),
                    None => deflate::compress(&mut packed, &frame, packer.how),
                });
                Bytes::from(packed)
            }
            _ => frame,
        };
        let written = match &mut state.queue {
            Some(queue) if !queue.waiting.is_empty() || queue.held.is_some() => {
                self.take_waiting(state, frame, publication)
            }
            // Straight to the socket, and a rest of it waits as it is.
            _ => self.push(state, &frame, 1, || frame.clone(), true),
        };
        if let (Written::Dropped(_), Some(window)) = (written, &mut window) {
            window.lost();
        }
        written
    }

    /// For a client that has to catch up already.
    fn take_waiting(&self, state: &mut State, frame: Bytes, publication: &Publication) -> Written {
        let queue = state.queue.get_or_insert_default();
        let fits = queue.bytes + queue::cost(&frame) <= self.room_for(true);
        match self.overflow {
            Overflow::KeepLatest if queue.held.is_none() && queue::cost(&frame) <= self.limit => {
                // A slice would keep all that it was cut out of, for as long as it is the latest.
                let frame = Bytes::copy_from_slice(&frame);
                let key = Key { topic: publication.topic.clone(), key: publication.key.clone() };
                let mut dropped = queue.push_latest(key, frame);
                if queue.bytes > self.limit {
                    dropped += make_room(queue, self.limit);
                    self.is_full(state);
                }
                state.wake();
                self.line.wake();
                if dropped > 0 { Written::Dropped(dropped) } else { Written::Queued }
            }
            Overflow::Recover if !fits => {
                self.is_full(state);
                miss(state, publication);
                Written::Dropped(1)
            }
            _ => self.push(state, &frame, 1, || frame.clone(), true),
        }
    }

    /// Bytes that may wait. What can be read once more leaves half of it to what cannot.
    pub(super) fn room_for(&self, recoverable: bool) -> usize {
        if recoverable && self.overflow == Overflow::Recover { self.limit / 2 } else { self.limit }
    }

    pub(super) fn overflow(&self, state: &mut State, newest: Option<Waiting>, messages: u32) -> Written {
        let Some(queue) = &mut state.queue else {
            return Written::Dropped(messages);
        };
        let cost = newest.as_ref().map_or(0, |newest| queue::cost(&newest.frames));
        match (self.overflow, newest) {
            (Overflow::Disconnect | Overflow::Recover, _) => self.too_slow(state),
            (Overflow::DropOldest | Overflow::KeepLatest, Some(newest)) if cost <= self.limit => {
                let dropped = make_room(queue, self.limit - cost);
                queue.push(newest);
                self.is_full(state);
                Written::Dropped(dropped)
            }
            _ => {
                self.is_full(state);
                Written::Dropped(messages)
            }
        }
    }

    /// Ends the session: what has been begun is finished, and the rest is not.
    pub(super) fn too_slow(&self, state: &mut State) -> Written {
        self.is_full(state);
        if let Some(queue) = &mut state.queue {
            queue.waiting.retain(|waiting| waiting.begun);
            queue.held = None;
            queue.bytes = queue.waiting.iter().map(|waiting| queue::cost(&waiting.frames)).sum();
        }
        let close = Close::new(Close::TRY_LATER, "outbox full: the client reads too slowly");
        state.requests.insert(0, Request::Close(close, Closer::Gateway));
        state.end();
        Written::Over
    }

    /// Counted once, until nothing waits any more.
    pub(super) fn is_full(&self, state: &mut State) {
        if !std::mem::replace(&mut state.was_full, true) {
            self.slow.full.inc();
        }
    }

    pub(super) fn counted(&self, written: Written) -> Written {
        if let Written::Dropped(messages) = written {
            self.slow.dropped.inc_by(u64::from(messages));
        }
        written
    }

    /// The client gets, or has been told that it has lost, what did not fit on this topic up to here. None: there is no
    /// such place, and what comes now is taken.
    pub fn recovered(&self, topic: &TopicName, up_to: Option<Position>) {
        let state = &mut *self.state.lock();
        let Some(at) = up_to else { return state.forget_missed(topic) };
        let Some(miss) = state.missed.as_mut().and_then(|missed| missed.get_mut(topic)) else { return };
        *miss = match *miss {
            // More did not fit meanwhile.
            Miss::Since { to: Some(to), .. } if to.epoch == at.epoch && to.offset > at.offset => {
                Miss::Since { since: Some(at), to: Some(to), asked: false }
            }
            _ => Miss::Until(at),
        };
        state.wake();
    }
}

/// Drops the oldest until no more than this is left.
fn make_room(queue: &mut Queue, bytes: usize) -> u32 {
    let mut dropped = 0;
    while queue.bytes > bytes {
        let Some(oldest) = queue.drop_oldest() else { break };
        dropped += oldest.messages;
    }
    dropped
}
