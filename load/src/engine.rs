//! One thread of a run: a loop over its connections, which opens them, reads what comes and closes them.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token, Waker};
use std::os::fd::AsRawFd;

use crate::clock::{self, Alarm, MILLISECOND, SECOND};
use crate::connection::{Connection, Lost, Scratch, State};
use crate::frame;
use crate::opening::Opening;
use crate::plan::Kind;
use crate::process::{self, Usage};
use crate::shared::Shared;
use crate::tally::{Counts, Tally};
use crate::{FailureKind, LoadError, Stage};

const WAKE: Token = Token(usize::MAX - 1);
const ALARM: Token = Token(usize::MAX - 2);
/// A loop looks at the stage this often even if nobody wakes it.
const LOOK: u64 = 100 * MILLISECOND;
/// How long servers may take to answer our close frames.
const GOODBYE: u64 = SECOND;

/// What the connections of a run do.
pub trait Behaviour {
    /// All connections of this thread are ready or given up.
    fn opened(&mut self, _reach: &mut Reach<'_>) {}
    /// All connections of all threads are ready or given up, and the first messages may be sent.
    fn begin(&mut self, reach: &mut Reach<'_>);
    /// A message has come.
    fn message(&mut self, index: usize, now: u64, is_binary: bool, payload: &[u8], tally: &mut Tally);
    /// All that was there has been read, and the socket may take more.
    fn after(&mut self, index: usize, reach: &mut Reach<'_>);
    /// Once a turn: sends what is due, and says when the next is.
    fn drive(&mut self, now: u64, reach: &mut Reach<'_>) -> Option<u64>;
    /// A connection that was ready is no more.
    fn gone(&mut self, index: usize);
    /// Messages under way.
    fn outstanding(&self) -> u64;
    /// Nothing more will come.
    fn end(&mut self, tally: &mut Tally);
}

/// What a behaviour reaches.
pub struct Reach<'a> {
    pub table: &'a mut [Option<Connection>],
    pub tally: &'a mut Tally,
    pub wire: &'a mut Counts,
    /// Connections whose socket failed while something was sent.
    pub broken: &'a mut Vec<(usize, io::Error)>,
    pub stage: Stage,
}

impl Reach<'_> {
    /// The connection, if messages may be sent on it.
    #[inline]
    pub fn ready(&mut self, index: usize) -> Option<&mut Connection> {
        self.table.get_mut(index)?.as_mut().filter(|connection| connection.state == State::Ready)
    }

    #[inline]
    pub fn send(&mut self, index: usize, bytes: &[u8]) {
        let Some(connection) = self.ready(index) else { return };
        match connection.send(bytes) {
            Ok(()) => self.wire.sent += bytes.len() as u64,
            Err(error) => self.broken.push((index, error)),
        }
    }

    pub fn is_sending(&self) -> bool {
        matches!(self.stage, Stage::WarmUp | Stage::Measuring)
    }
}

/// What a thread leaves behind.
pub struct Outcome {
    pub tally: Tally,
    pub measured: Option<Measured>,
}

/// What lies between the beginning and the end of measuring.
pub struct Measured {
    pub seconds: f64,
    pub counts: Counts,
    /// Nanoseconds on a processor, and waiting for one.
    pub cpu: u64,
    pub waited: u64,
    /// CPU time of the server, on the first thread.
    pub server: u64,
}

struct Instant {
    at: u64,
    counts: Counts,
    cpu: u64,
    waited: u64,
    server: Usage,
}

/// What epoll tells a loop by.
pub struct Bell {
    poll: Poll,
    pub waker: Arc<Waker>,
    alarm: Alarm,
}

impl Bell {
    pub fn new() -> io::Result<Self> {
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKE)?);
        let alarm = Alarm::new()?;
        poll.registry().register(&mut SourceFd(&alarm.descriptor.as_raw_fd()), ALARM, Interest::READABLE)?;
        Ok(Self { poll, waker, alarm })
    }

    fn wait(&mut self, events: &mut Events, now: u64, next: u64) -> io::Result<()> {
        let timeout = match next.saturating_sub(now) {
            0 => Duration::ZERO,
            LOOK.. => Duration::from_nanos(LOOK),
            _ => {
                self.alarm.set(next)?;
                Duration::from_nanos(LOOK)
            }
        };
        match self.poll.poll(events, Some(timeout)) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            polled => polled,
        }
    }
}

pub struct Engine<'a, B> {
    shared: &'a Shared<'a>,
    thread: usize,
    bell: Bell,
    table: Vec<Option<Connection>>,
    scratch: Scratch,
    tally: Tally,
    wire: Counts,
    broken: Vec<(usize, io::Error)>,
    opening: Opening<'a>,
    behaviour: B,
    stage: Stage,
    started: Option<Instant>,
    measured: Option<Measured>,
    deadline: u64,
}

impl<'a, B: Behaviour> Engine<'a, B> {
    pub fn new(shared: &'a Shared<'a>, thread: usize, bell: Bell, behaviour: B) -> Self {
        let opening = Opening::new(shared, thread);
        let mut table = Vec::new();
        table.resize_with(opening.total, || None);
        Self {
            shared,
            thread,
            bell,
            table,
            scratch: Scratch::new(),
            tally: Tally::default(),
            wire: Counts::default(),
            broken: Vec::new(),
            opening,
            behaviour,
            stage: Stage::Opening,
            started: None,
            measured: None,
            deadline: u64::MAX,
        }
    }

    pub fn run(mut self) -> Result<Outcome, LoadError> {
        let failed = |source| LoadError::System { what: "waiting for the sockets", source };
        let mut events = Events::with_capacity(2048);
        loop {
            let now = clock::now();
            self.enter(self.shared.stage(), now);
            let next = match self.stage {
                Stage::Opening | Stage::Settling => self.open(now),
                Stage::Ending if self.is_empty() || now >= self.deadline => break,
                Stage::Ending => None,
                Stage::WarmUp | Stage::Measuring | Stage::Answers => {
                    let (behaviour, mut reach) = self.parts();
                    behaviour.drive(now, &mut reach)
                }
            };
            self.bury();
            let share = &self.shared.shares[self.thread];
            share.messages.store(self.tally.counts.messages, Ordering::Relaxed);
            share.outstanding.store(self.behaviour.outstanding(), Ordering::Relaxed);
            self.bell.wait(&mut events, now, next.unwrap_or(u64::MAX)).map_err(failed)?;
            for event in &events {
                match event.token() {
                    WAKE | ALARM => {}
                    Token(index) => self.event(index),
                }
            }
        }
        self.behaviour.end(&mut self.tally);
        Ok(Outcome { tally: self.tally, measured: self.measured })
    }

    fn parts(&mut self) -> (&mut B, Reach<'_>) {
        let reach = Reach {
            table: &mut self.table,
            tally: &mut self.tally,
            wire: &mut self.wire,
            broken: &mut self.broken,
            stage: self.stage,
        };
        (&mut self.behaviour, reach)
    }

    fn is_empty(&self) -> bool {
        self.table.iter().all(Option::is_none)
    }

    /// The director has gone on.
    fn enter(&mut self, stage: Stage, now: u64) {
        if stage == self.stage {
            return;
        }
        let before = std::mem::replace(&mut self.stage, stage);
        if (Stage::WarmUp..Stage::Answers).contains(&stage) && before < Stage::WarmUp {
            let (behaviour, mut reach) = self.parts();
            behaviour.begin(&mut reach);
        }
        if stage == Stage::Measuring {
            self.tally.forget_latencies();
            self.started = Some(self.instant());
        }
        if before == Stage::Measuring {
            self.measured = self.started.take().map(|started| {
                let over = self.instant();
                Measured {
                    seconds: (over.at - started.at) as f64 / SECOND as f64,
                    counts: over.counts.since(started.counts),
                    cpu: over.cpu - started.cpu,
                    waited: over.waited.saturating_sub(started.waited),
                    server: over.server.since(&started.server),
                }
            });
        }
        // Of an open loop, answers that come late are still its answers.
        let is_open_loop = self.shared.load.is_open_loop();
        self.tally.recording = stage == Stage::Measuring || stage == Stage::Answers && is_open_loop;
        if stage == Stage::Ending {
            self.deadline = now + GOODBYE;
            self.say_goodbye();
        }
    }

    fn instant(&self) -> Instant {
        let mut counts = self.tally.counts;
        counts.add(self.wire);
        // Read in the loop's own time, so that it is of the same instant as the counts.
        let pids = if self.thread == 0 { self.shared.load.server_pids.as_slice() } else { &[] };
        let server = Usage::of(pids);
        Instant { at: clock::now(), counts, cpu: clock::of_thread(), waited: process::waited(), server }
    }

    fn say_goodbye(&mut self) {
        let mut close = Vec::new();
        frame::append(&mut close, frame::CLOSE, &1000u16.to_be_bytes());
        for place in &mut self.table {
            let Some(connection) = place else { continue };
            let is_said = connection.state == State::Ready && connection.send(&close).is_ok();
            if is_said {
                connection.state = State::Closing;
            } else {
                *place = None;
            }
        }
    }

    fn open(&mut self, now: u64) -> Option<u64> {
        let opening = &mut self.opening;
        let next = opening.step(now, &mut self.table, self.bell.poll.registry(), &mut self.tally);
        if opening.is_over() {
            let (behaviour, mut reach) = self.parts();
            behaviour.opened(&mut reach);
            self.shared.opened.fetch_add(1, Ordering::AcqRel);
            self.shared.tell();
        }
        next
    }

    #[inline]
    fn event(&mut self, index: usize) {
        let Some(connection) = self.table.get_mut(index).and_then(Option::as_mut) else { return };
        if connection.state < State::Ready {
            if self.stage == Stage::Ending {
                self.table[index] = None;
                return;
            }
            self.opening.advance(index, &mut self.table, &mut self.scratch, &mut self.tally, &mut self.wire);
            if !matches!(&self.table[index], Some(connection) if connection.state == State::Ready) {
                return;
            }
        }
        self.service(index);
    }

    #[inline]
    fn service(&mut self, index: usize) {
        let Some(connection) = self.table[index].as_mut() else { return };
        if let Err(error) = connection.flush() {
            return self.lose(index, Lost::Broken(error));
        }
        let (behaviour, tally) = (&mut self.behaviour, &mut self.tally);
        let keepalive = self.shared.load.keepalive.as_ref();
        let mut is_asked = false;
        let read = connection.read(&mut self.scratch, &mut self.wire, |now, is_binary, payload| match keepalive {
            Some((ask, _)) if ask == payload => is_asked = true,
            _ => behaviour.message(index, now, is_binary, payload, tally),
        });
        if let Err(lost) = read {
            return self.lose(index, lost);
        }
        let (behaviour, mut reach) = self.parts();
        behaviour.after(index, &mut reach);
        if is_asked && let Some((_, answer)) = keepalive {
            let mut message = Vec::new();
            let opcode = if self.shared.load.binary { frame::BINARY } else { frame::TEXT };
            frame::append(&mut message, opcode, answer);
            self.parts().1.send(index, &message);
        }
    }

    /// Connections whose socket failed.
    fn bury(&mut self) {
        while let Some((index, error)) = self.broken.pop() {
            self.lose(index, Lost::Broken(error));
        }
    }

    fn lose(&mut self, index: usize, lost: Lost) {
        let Some(connection) = self.table[index].take() else { return };
        if connection.state == State::Closing {
            return;
        }
        self.behaviour.gone(index);
        let (kind, words) = match lost {
            Lost::Closed(code, reason) => {
                *self.tally.close_codes.entry(code).or_default() += 1;
                let said = if reason.is_empty() { String::new() } else { format!(": {reason}") };
                (FailureKind::Closed, format!("it closed the connection with {code}{said}"))
            }
            Lost::Ended => (FailureKind::Ended, "it ended the connection without a close frame".to_owned()),
            Lost::Broken(error) => (FailureKind::Reset, format!("the connection broke: {error}")),
            Lost::Protocol(words) => (FailureKind::Protocol, words),
        };
        let lost = if self.opening.is_publisher(index) { &self.shared.publishers } else { &self.shared.lost };
        if self.opening.is_publisher(index) {
            lost.fetch_sub(1, Ordering::AcqRel);
        } else {
            lost.fetch_add(1, Ordering::AcqRel);
        }
        self.tally.fail(kind, None, 1, || words);
        self.shared.tell();
    }
}

impl crate::Load {
    fn is_open_loop(&self) -> bool {
        let pace = match &self.kind {
            Kind::Echo { pace } => pace,
            Kind::Fanout(fanout) => &fanout.pace,
            Kind::Idle => return false,
        };
        matches!(pace, crate::Pace::Rate(_))
    }
}
