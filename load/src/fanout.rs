//! Publications that reach all connections: who publishes when, and who has got what.

use std::sync::atomic::Ordering;

use crate::board::{Board, PLACES};
use crate::clock::{self, SECOND};
use crate::engine::{Behaviour, Reach};
use crate::mark::{LENGTH, Mark, Marks};
use crate::plan::{Fanout, Load, PAYLOAD, Pace};
use crate::shared::Shared;
use crate::tally::Tally;
use crate::{FailureKind, deflate, frame, template};

/// A publisher whose socket has not taken so much gets nothing more to do.
const BACKLOG: usize = 1 << 20;

pub struct Subscribers<'a> {
    load: &'a Load,
    fanout: &'a Fanout,
    board: &'a Board,
    marks: Marks,
    deliveries: Deliveries<'a>,
    /// Connections of this thread that subscribe; publishers come after them.
    own: usize,
    /// The thread that has the publishers, if there are any.
    publishes: bool,
    began: u64,
    turn: usize,
    next: u32,
    oldest: u32,
    given_up: u64,
    /// For each publication under way, when it was sent.
    sent: Vec<u64>,
    /// The next publication was due and could not be sent.
    is_held: bool,
}

/// What has reached the subscribers of a thread.
struct Deliveries<'a> {
    board: &'a Board,
    /// Nobody publishes here: whatever comes counts.
    is_listener: bool,
    publishes: bool,
    own: u32,
    /// Those that are there. None before all are open.
    alive: Option<u32>,
    places: Vec<Place>,
}

#[derive(Clone, Copy, Default)]
struct Place {
    run: u32,
    sequence: u32,
    sent: u64,
    got: u32,
    is_complete: bool,
}

impl<'a> Subscribers<'a> {
    pub fn new(shared: &'a Shared<'a>, thread: usize, fanout: &'a Fanout) -> Self {
        let load = shared.load;
        let publishes = thread == 0 && fanout.publishers > 0;
        let own = shared.own(thread);
        let deliveries = Deliveries {
            board: &shared.board,
            is_listener: fanout.publishers == 0,
            publishes,
            own: own as u32,
            alive: None,
            places: vec![Place::default(); PLACES],
        };
        Self {
            load,
            fanout,
            board: &shared.board,
            marks: Marks::new(),
            deliveries,
            own,
            publishes,
            began: 0,
            turn: 0,
            next: 0,
            oldest: 0,
            given_up: 0,
            sent: if publishes { vec![0; PLACES] } else { Vec::new() },
            is_held: false,
        }
    }

    fn in_flight(&self) -> u64 {
        u64::from(self.next).saturating_sub(self.board.complete.load(Ordering::Acquire) + self.given_up)
    }

    /// Publications whose time is up.
    fn give_up(&mut self, now: u64, tally: &mut Tally) {
        while self.oldest < self.next {
            if !self.board.is_over(self.oldest) {
                let age = now.saturating_sub(self.sent[self.oldest as usize % PLACES]);
                if age < self.fanout.give_up.as_nanos() as u64 {
                    return;
                }
                if self.board.give_up(self.oldest) {
                    self.given_up += 1;
                    let words = || format!("not everybody had it after {:?}", self.fanout.give_up);
                    tally.fail(FailureKind::Incomplete, None, 1, words);
                }
            }
            self.oldest += 1;
        }
    }

    /// The publisher whose turn it is, if its socket takes more.
    fn publisher(&mut self, reach: &mut Reach<'_>) -> Option<usize> {
        for _ in 0..self.fanout.publishers {
            let index = self.own + self.turn;
            self.turn = (self.turn + 1) % self.fanout.publishers;
            if reach.ready(index).is_some_and(|connection| connection.backlog() < BACKLOG) {
                return Some(index);
            }
        }
        None
    }

    /// Whether it was sent.
    fn publish(&mut self, sent: u64, reach: &mut Reach<'_>) -> bool {
        if self.next - self.oldest >= PLACES as u32 {
            return false;
        }
        let Some(index) = self.publisher(reach) else { return false };
        let mut payload = Mark { run: self.board.run, sequence: self.next, sent }.text().into_bytes();
        payload.extend(template::payload(self.load.size.saturating_sub(LENGTH)));
        let text = template::filled(&self.fanout.template, &String::from_utf8_lossy(PAYLOAD), &payload);
        let is_deflate = reach.ready(index).is_some_and(|connection| connection.deflate);
        let opcode = if self.load.binary { frame::BINARY } else { frame::TEXT };
        let mut bytes = Vec::new();
        match deflate::compressed(&text).filter(|_| is_deflate) {
            Some(short) => frame::append(&mut bytes, opcode | frame::RSV1, &short),
            None => frame::append(&mut bytes, opcode, &text),
        }
        self.sent[self.next as usize % PLACES] = sent;
        self.board.begin(self.next);
        self.next += 1;
        reach.tally.counts.published += 1;
        reach.send(index, &bytes);
        true
    }
}

impl Deliveries<'_> {
    #[inline]
    fn deliver(&mut self, mark: Mark, now: u64, tally: &mut Tally) {
        let Some(alive) = self.alive else { return };
        if mark.run != self.board.run && !self.is_listener {
            // Somebody else's, or out of a history.
            return;
        }
        let place = &mut self.places[mark.sequence as usize % PLACES];
        if (place.run, place.sequence, place.sent) != (mark.run, mark.sequence, mark.sent) {
            if mark.sent < place.sent {
                tally.fail(FailureKind::LateOrTwice, None, 1, || "after it was given up".to_owned());
                return;
            }
            if self.is_listener {
                incomplete(place, tally);
                tally.counts.published += 1;
            }
            *place = Place { run: mark.run, sequence: mark.sequence, sent: mark.sent, got: 0, is_complete: false };
        }
        tally.counts.messages += 1;
        let latency = now.saturating_sub(mark.sent).max(1);
        if tally.recording {
            tally.histograms.latency.saturating_record(latency);
        }
        place.got += 1;
        if place.got > self.own {
            tally.fail(FailureKind::LateOrTwice, None, 1, || "more deliveries than subscribers".to_owned());
        }
        if place.got < alive || place.is_complete {
            return;
        }
        place.is_complete = true;
        if self.is_listener || self.board.reached(mark.sequence, self.publishes) {
            tally.counts.complete += 1;
            if tally.recording {
                tally.histograms.last.saturating_record(latency);
            }
        }
    }

    fn opened(&mut self, alive: u32) {
        self.alive = Some(alive);
        if alive > 0 {
            self.board.threads.fetch_add(1, Ordering::AcqRel);
        }
    }

    fn gone(&mut self) {
        if let Some(alive) = &mut self.alive {
            *alive -= 1;
            if *alive == 0 {
                self.board.threads.fetch_sub(1, Ordering::AcqRel);
            }
        }
    }
}

/// A publication whose place another takes.
fn incomplete(place: &Place, tally: &mut Tally) {
    let missing = u64::from(place.got > 0 && !place.is_complete);
    tally.fail(FailureKind::Incomplete, None, missing, || "not everybody has got it".to_owned());
}

impl Behaviour for Subscribers<'_> {
    fn opened(&mut self, reach: &mut Reach<'_>) {
        let alive = (0..self.own).filter(|&index| reach.ready(index).is_some()).count();
        self.deliveries.opened(alive as u32);
    }

    fn begin(&mut self, _reach: &mut Reach<'_>) {
        self.began = clock::now();
    }

    #[inline]
    fn message(&mut self, index: usize, now: u64, _is_binary: bool, payload: &[u8], tally: &mut Tally) {
        // Publishers are answered too, by some servers.
        if index >= self.own {
            return;
        }
        self.marks.each(payload, |mark| self.deliveries.deliver(mark, now, tally));
    }

    fn after(&mut self, _index: usize, _reach: &mut Reach<'_>) {}

    fn drive(&mut self, now: u64, reach: &mut Reach<'_>) -> Option<u64> {
        if !self.publishes {
            return None;
        }
        self.give_up(now, reach.tally);
        if !reach.is_sending() {
            return None;
        }
        match self.fanout.pace {
            Pace::InFlight(most) => {
                while self.in_flight() < most as u64 && self.publish(clock::now(), reach) {}
                None
            }
            Pace::Rate(rate) => loop {
                let due = self.began + (f64::from(self.next) / rate * SECOND as f64) as u64;
                if due > now {
                    return Some(due);
                }
                let late = clock::now().saturating_sub(due).max(1);
                let was_held = std::mem::take(&mut self.is_held);
                if !self.publish(due, reach) {
                    self.is_held = true;
                    return None;
                }
                if !was_held {
                    reach.tally.histograms.late.saturating_record(late);
                }
            },
        }
    }

    fn gone(&mut self, index: usize) {
        if index < self.own {
            self.deliveries.gone();
        }
    }

    fn outstanding(&self) -> u64 {
        if self.publishes { self.in_flight() } else { 0 }
    }

    fn end(&mut self, tally: &mut Tally) {
        if self.publishes {
            let left = self.in_flight();
            tally.fail(FailureKind::Incomplete, None, left, || "not everybody had it at the end".to_owned());
        }
        if self.deliveries.is_listener {
            self.deliveries.places.iter().for_each(|place| incomplete(place, tally));
        }
    }
}
