//! Every connection sends and expects each message back.

use crate::clock::{self, SECOND};
use crate::engine::{Behaviour, Reach};
use crate::plan::{Load, PAYLOAD, Pace};
use crate::shared::Shared;
use crate::tally::Tally;
use crate::{FailureKind, Stage, deflate, frame, template};

/// Frames that are encoded one after the other, to be sent with one call.
const CHUNK: usize = 64 << 10;
/// Of an open loop: instants that are kept for all connections, and for one.
const KEPT: usize = 1 << 20;
const KEPT_EACH: std::ops::RangeInclusive<usize> = 16..=1024;

pub struct Echo<'a> {
    load: &'a Load,
    pace: Pace,
    thread: usize,
    threads: usize,
    payload: Vec<u8>,
    /// Plain and compressed.
    frames: [Frames; 2],
    seats: Vec<Seat>,
    /// For each connection a ring of the instants at which its messages were sent, or should have been.
    rings: Vec<u64>,
    ring: usize,
    under_way: u64,
    /// Of an open loop: when it began, how many were due since, and the connection whose turn it is.
    began: u64,
    due: u64,
    turn: usize,
    alive: usize,
    /// Answers with the same latency: those of one read to one write.
    same: (u64, u64),
}

/// A connection's place in the rings.
#[derive(Clone, Copy, Default)]
struct Seat {
    head: u32,
    /// Sent and not answered.
    sent: u32,
    /// To be sent when the socket takes more.
    owed: u32,
    /// The first answer is compared whole.
    is_checked: bool,
}

/// The same frame several times.
struct Frames {
    bytes: Vec<u8>,
    one: usize,
    count: usize,
}

impl Frames {
    fn of(first: u8, payload: &[u8], count: usize) -> Self {
        let mut bytes = Vec::new();
        frame::append(&mut bytes, first, payload);
        let one = bytes.len();
        let count = count.min(CHUNK / one).max(1);
        Self { bytes: bytes.repeat(count), one, count }
    }
}

impl<'a> Echo<'a> {
    pub fn new(shared: &Shared<'a>, thread: usize, pace: Pace) -> Self {
        let load = shared.load;
        let own = shared.own(thread);
        let (ring, depth) = match pace {
            Pace::InFlight(depth) => (depth, depth),
            Pace::Rate(_) => ((KEPT / own).clamp(*KEPT_EACH.start(), *KEPT_EACH.end()), 16),
        };
        let payload = template::payload(load.size);
        let text = message(load, &payload);
        let opcode = opcode(load);
        let plain = Frames::of(opcode, &text, depth);
        let short = match deflate::compressed(&text).filter(|_| load.compression) {
            Some(short) => Frames::of(opcode | frame::RSV1, &short, depth),
            None => Frames::of(opcode, &text, depth),
        };
        Self {
            load,
            pace,
            thread,
            threads: shared.threads,
            payload,
            frames: [plain, short],
            seats: vec![Seat::default(); own],
            rings: vec![0; own * ring],
            ring,
            under_way: 0,
            began: 0,
            due: 0,
            turn: 0,
            alive: own,
            same: (0, 0),
        }
    }

    fn number(&self, index: usize) -> usize {
        self.thread + index * self.threads
    }

    /// The first payload of a connection, which no other connection sends.
    fn first_payload(&self, index: usize) -> Vec<u8> {
        let mut payload = self.payload.clone();
        let number = self.number(index).to_string();
        if payload.len() > number.len() {
            payload[..number.len()].copy_from_slice(number.as_bytes());
        }
        payload
    }

    /// Sends what is owed, as far as the socket takes it.
    #[inline]
    fn pay(&mut self, index: usize, reach: &mut Reach<'_>) {
        while self.seats[index].owed > 0 {
            let Some(connection) = reach.ready(index) else { return };
            if connection.backlog() > 0 {
                return;
            }
            let frames = &self.frames[usize::from(connection.deflate)];
            let seat = &mut self.seats[index];
            let count = frames.count.min(seat.owed as usize);
            if let Pace::InFlight(_) = self.pace {
                let now = clock::now();
                let ring = &mut self.rings[index * self.ring..(index + 1) * self.ring];
                let mut place = wrapped(seat.head + seat.sent, self.ring);
                for _ in 0..count {
                    ring[place] = now;
                    place = wrapped(place as u32 + 1, self.ring);
                }
                self.under_way += count as u64;
            }
            seat.owed -= count as u32;
            seat.sent += count as u32;
            reach.send(index, &frames.bytes[..count * frames.one]);
        }
    }

    /// The first message of a connection is its own.
    fn pay_first(&mut self, index: usize, reach: &mut Reach<'_>) {
        if reach.ready(index).is_none() {
            return;
        }
        let mut bytes = Vec::new();
        frame::append(&mut bytes, opcode(self.load), &message(self.load, &self.first_payload(index)));
        let seat = &mut self.seats[index];
        if let Pace::InFlight(_) = self.pace {
            self.rings[index * self.ring + seat.head as usize] = clock::now();
            self.under_way += 1;
        }
        seat.owed -= 1;
        seat.sent += 1;
        reach.send(index, &bytes);
    }

    fn is_right(&self, index: usize, is_binary: bool, payload: &[u8]) -> bool {
        let ours = &self.payload;
        let is_checked = self.seats[index].is_checked;
        if self.load.template.is_some() {
            let first;
            let wanted = if is_checked {
                ours
            } else {
                first = self.first_payload(index);
                &first
            };
            return memchr::memmem::find(payload, wanted).is_some();
        }
        if payload.len() != ours.len() || is_binary != self.load.binary {
            return false;
        }
        if !is_checked {
            return payload == self.first_payload(index);
        }
        let (length, edge) = (ours.len(), ours.len().min(8));
        payload[..edge] == ours[..edge] && payload[length - edge..] == ours[length - edge..]
    }

    #[inline]
    fn record(&mut self, tally: &mut Tally) {
        let (latency, count) = std::mem::take(&mut self.same);
        if count > 0 && tally.recording {
            tally.histograms.latency.saturating_record_n(latency, count);
        }
    }
}

impl Behaviour for Echo<'_> {
    fn begin(&mut self, reach: &mut Reach<'_>) {
        self.began = clock::now();
        self.alive = (0..self.seats.len()).filter(|&index| reach.ready(index).is_some()).count();
        if let Pace::InFlight(depth) = self.pace {
            for index in 0..self.seats.len() {
                self.seats[index].owed = depth as u32;
                self.pay_first(index, reach);
                self.pay(index, reach);
            }
        }
    }

    #[inline]
    fn message(&mut self, index: usize, now: u64, is_binary: bool, payload: &[u8], tally: &mut Tally) {
        if self.began == 0 {
            // A greeting.
            return;
        }
        let is_right = self.is_right(index, is_binary, payload);
        let seat = &mut self.seats[index];
        if seat.sent == 0 {
            tally.fail(FailureKind::Unexpected, None, 1, || excerpt("it sent what nobody waited for", payload));
            return;
        }
        seat.is_checked = true;
        let sent = self.rings[index * self.ring + seat.head as usize];
        seat.head = wrapped(seat.head + 1, self.ring) as u32;
        seat.sent -= 1;
        if let Pace::InFlight(_) = self.pace {
            seat.owed += 1;
        }
        self.under_way -= 1;
        if !is_right {
            tally.fail(FailureKind::WrongAnswer, None, 1, || excerpt("it answered with something else", payload));
            return;
        }
        tally.counts.messages += 1;
        let latency = now.saturating_sub(sent);
        if self.same.0 != latency {
            self.record(tally);
        }
        self.same = (latency, self.same.1 + 1);
    }

    #[inline]
    fn after(&mut self, index: usize, reach: &mut Reach<'_>) {
        self.record(reach.tally);
        let may_pay = match self.pace {
            Pace::InFlight(_) => reach.is_sending(),
            Pace::Rate(_) => reach.stage <= Stage::Answers,
        };
        if may_pay && self.began != 0 {
            self.pay(index, reach);
        }
    }

    fn drive(&mut self, now: u64, reach: &mut Reach<'_>) -> Option<u64> {
        let Pace::Rate(rate) = self.pace else { return None };
        if !reach.is_sending() {
            return None;
        }
        loop {
            let place = (self.due * self.threads as u64 + self.thread as u64) as f64;
            let due = self.began + (place / rate * SECOND as f64) as u64;
            if due > now {
                return Some(due);
            }
            if self.alive == 0 {
                return None;
            }
            self.due += 1;
            while reach.ready(self.turn).is_none() {
                // One of them is alive.
                self.turn = (self.turn + 1) % self.seats.len();
            }
            let index = self.turn;
            self.turn = (self.turn + 1) % self.seats.len();
            let seat = &mut self.seats[index];
            let waiting = (seat.sent + seat.owed) as usize;
            if waiting == self.ring {
                reach.tally.fail(FailureKind::Unanswered, None, 1, || {
                    format!("not sent: {waiting} messages of the connection wait for an answer already")
                });
                continue;
            }
            self.rings[index * self.ring + wrapped(seat.head + waiting as u32, self.ring)] = due;
            seat.owed += 1;
            self.under_way += 1;
            if seat.owed == 1 && reach.ready(index).is_some_and(|connection| connection.backlog() == 0) {
                reach.tally.histograms.late.saturating_record(clock::now().saturating_sub(due).max(1));
            }
            if self.seats[index].is_checked || self.seats[index].sent > 0 {
                self.pay(index, reach);
            } else {
                self.pay_first(index, reach);
            }
        }
    }

    fn gone(&mut self, index: usize) {
        if self.began == 0 {
            return;
        }
        let seat = std::mem::take(&mut self.seats[index]);
        let owed = if let Pace::Rate(_) = self.pace { seat.owed } else { 0 };
        self.under_way -= u64::from(seat.sent + owed);
        self.alive -= 1;
    }

    fn outstanding(&self) -> u64 {
        self.under_way
    }

    fn end(&mut self, tally: &mut Tally) {
        tally.fail(FailureKind::Unanswered, None, self.under_way, || "no answer until the end".to_owned());
    }
}

/// A place in a ring, of which it is less than one round further. A division would cost more.
#[inline]
fn wrapped(place: u32, ring: usize) -> usize {
    let place = place as usize;
    if place >= ring { place - ring } else { place }
}

fn opcode(load: &Load) -> u8 {
    if load.binary { frame::BINARY } else { frame::TEXT }
}

fn message(load: &Load, payload: &[u8]) -> Vec<u8> {
    let place = String::from_utf8_lossy(PAYLOAD);
    load.template.as_ref().map_or_else(|| payload.to_vec(), |text| template::filled(text, &place, payload))
}

/// What came, so far as it helps to understand it.
fn excerpt(what: &str, payload: &[u8]) -> String {
    let text = String::from_utf8_lossy(&payload[..payload.len().min(60)]);
    let shown: String = text.chars().map(|char| if char.is_control() { '·' } else { char }).collect();
    format!("{what}, {} bytes: {shown}{}", payload.len(), if payload.len() > 60 { "…" } else { "" })
}
