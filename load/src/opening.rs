//! How a thread's connections come to be ready: connect, handshake, hello messages, a message that is awaited.

use std::collections::VecDeque;
use std::io::{Error, ErrorKind};
use std::sync::atomic::Ordering;

use mio::{Registry, Token};
use rustix::io::Errno;

use crate::clock::{self, SECOND};
use crate::connection::{Connection, Lost, Scratch, State};
use crate::handshake::{self, Answer};
use crate::plan::Kind;
use crate::shared::{ConnectError, Shared, Way};
use crate::tally::{Counts, Tally};
use crate::{FailureKind, frame, template};

/// After so many failures without one success the rest is not tried.
const HOPELESS: usize = 20;

pub struct Opening<'a> {
    shared: &'a Shared<'a>,
    thread: usize,
    /// Connections of this thread that are no publishers.
    own: usize,
    pub total: usize,
    started: usize,
    /// Begun and not ready yet, the oldest first, with when they were begun.
    under_way: VecDeque<(usize, u64)>,
    open: usize,
    most: usize,
    ready: usize,
    failed: usize,
    began: u64,
    is_told: bool,
}

type Failed = (FailureKind, Option<u16>, String);

impl<'a> Opening<'a> {
    pub fn new(shared: &'a Shared<'a>, thread: usize) -> Self {
        let load = shared.load;
        let own = shared.own(thread);
        let publishers = match &load.kind {
            Kind::Fanout(fanout) if thread == 0 => fanout.publishers,
            _ => 0,
        };
        Self {
            shared,
            thread,
            own,
            total: own + publishers,
            started: 0,
            under_way: VecDeque::new(),
            open: 0,
            most: (load.opening / shared.threads).max(1),
            ready: 0,
            failed: 0,
            began: clock::now(),
            is_told: false,
        }
    }

    pub fn is_publisher(&self, index: usize) -> bool {
        index >= self.own
    }

    /// The number that the whole run knows a connection by.
    pub fn number(&self, index: usize) -> usize {
        match index.checked_sub(self.own) {
            Some(publisher) => self.shared.load.connections + publisher,
            None => self.thread + index * self.shared.threads,
        }
    }

    fn way(&self, index: usize) -> (&'a Way, usize) {
        match &self.shared.publish {
            Some(way) if self.is_publisher(index) => (way, 0),
            _ => {
                let place = self.number(index) % self.shared.ways.len();
                (&self.shared.ways[place], place)
            }
        }
    }

    /// Whether everything is decided; true once.
    pub fn is_over(&mut self) -> bool {
        let is_over = self.started == self.total && self.open == 0;
        is_over && !std::mem::replace(&mut self.is_told, true)
    }

    /// Gives up what takes too long, begins what may be begun, and says when there is more to do.
    pub fn step(
        &mut self,
        now: u64,
        table: &mut [Option<Connection>],
        registry: &Registry,
        tally: &mut Tally,
    ) -> Option<u64> {
        let load = self.shared.load;
        let timeout = load.connect_timeout.as_nanos() as u64;
        while let Some(&(index, began)) = self.under_way.front() {
            if let Some(connection) = table[index].as_ref().filter(|connection| connection.state < State::Ready) {
                if now < began + timeout {
                    break;
                }
                let words = match connection.state {
                    State::Connecting => "no connection",
                    State::Handshake => "no answer to the handshake",
                    _ => "a connection, and the message that was awaited did not come",
                };
                let words = format!("{words} within {:?}", load.connect_timeout);
                self.fail(index, table, tally, (FailureKind::ConnectTimeout, None, words));
            }
            self.under_way.pop_front();
        }
        while self.started < self.total && self.open < self.most {
            if let Some(rate) = load.connect_rate {
                let share = self.started as f64 * self.shared.threads as f64 + self.thread as f64;
                let due = self.began + (share / rate * SECOND as f64) as u64;
                if due > now {
                    return Some(due);
                }
            }
            if self.failed >= HOPELESS && self.ready == 0 {
                self.started = self.total;
                break;
            }
            let index = self.started;
            self.started += 1;
            self.open += 1;
            match self.begin(index, table, registry) {
                Ok(()) => self.under_way.push_back((index, clock::now())),
                Err(failed) => self.fail(index, table, tally, failed),
            }
        }
        None
    }

    fn begin(&self, index: usize, table: &mut [Option<Connection>], registry: &Registry) -> Result<(), Failed> {
        let (way, place) = self.way(index);
        let began = clock::now();
        let mut socket = self.shared.connect(self.number(index), way, place).map_err(|error| match error {
            ConnectError::System(error) => of_system(&error, way),
            ConnectError::Tls(words) => (FailureKind::Tls, None, words),
        })?;
        socket.register(registry, Token(index)).map_err(|error| of_system(&error, way))?;
        table[index] = Some(Connection::new(socket, began));
        Ok(())
    }

    /// Something has happened on a connection that is not ready.
    pub fn advance(
        &mut self,
        index: usize,
        table: &mut [Option<Connection>],
        scratch: &mut Scratch,
        tally: &mut Tally,
        wire: &mut Counts,
    ) {
        let Some(connection) = table[index].as_mut() else { return };
        match self.goes_on(index, connection, scratch, tally, wire) {
            Ok(()) if connection.state == State::Ready => {
                let took = clock::now().saturating_sub(connection.began());
                tally.histograms.connect.saturating_record(took);
                self.open -= 1;
                self.ready += 1;
                let shared = self.shared;
                shared.last_ready.fetch_max(clock::now(), Ordering::AcqRel);
                let ready = if self.is_publisher(index) { &shared.publishers } else { &shared.ready };
                ready.fetch_add(1, Ordering::AcqRel);
            }
            Ok(()) => {}
            Err(failed) => self.fail(index, table, tally, failed),
        }
    }

    fn goes_on(
        &self,
        index: usize,
        connection: &mut Connection,
        scratch: &mut Scratch,
        tally: &mut Tally,
        wire: &mut Counts,
    ) -> Result<(), Failed> {
        let load = self.shared.load;
        let (way, _) = self.way(index);
        let system = |error: Error| of_system(&error, way);
        let fanout = match &load.kind {
            Kind::Fanout(fanout) if self.is_publisher(index) => Some(fanout),
            _ => None,
        };
        let (headers, hello, wait) = match fanout {
            Some(fanout) => (&fanout.headers, &fanout.hello, &fanout.wait),
            None => (&load.headers, &load.hello, &load.wait),
        };
        let number = self.number(index);
        if connection.state == State::Connecting {
            if !connection.socket.is_connected().map_err(system)? {
                return Ok(());
            }
            connection.send(&handshake::request(&way.target, load, headers, number)).map_err(system)?;
            connection.state = State::Handshake;
        }
        connection.flush().map_err(system)?;
        if connection.state == State::Handshake {
            let is_over = connection.read_answer(scratch).map_err(system)?;
            if connection.answer().is_empty() {
                let words = "it closed the connection without an answer to the handshake".to_owned();
                return if is_over { Err((FailureKind::Handshake, None, words)) } else { Ok(()) };
            }
            let (used, deflate) = match handshake::answer(connection.answer(), load, is_over) {
                Answer::Open { used, deflate } => (used, deflate),
                Answer::Partial => return Ok(()),
                Answer::Refused { status, text } => return Err((FailureKind::Handshake, Some(status), text)),
                Answer::Wrong(text) => return Err((FailureKind::Handshake, None, text)),
            };
            connection.forget_answer(used);
            connection.deflate = deflate;
            tally.deflate |= deflate;
            let mut messages = Vec::new();
            for text in hello {
                let opcode = if load.binary { frame::BINARY } else { frame::TEXT };
                frame::append(&mut messages, opcode, &template::numbered(text, number));
            }
            connection.send(&messages).map_err(system)?;
            connection.state = if wait.is_some() { State::Waiting } else { State::Ready };
        }
        if let (State::Waiting, Some(wait)) = (connection.state, wait) {
            let mut has_come = false;
            let read = connection.read(scratch, wire, |_, _, payload| {
                has_come |= memchr::memmem::find(payload, wait).is_some();
            });
            read.map_err(|lost| (FailureKind::Handshake, None, before_ready(lost)))?;
            if has_come {
                connection.state = State::Ready;
            }
        }
        Ok(())
    }

    fn fail(
        &mut self,
        index: usize,
        table: &mut [Option<Connection>],
        tally: &mut Tally,
        (kind, status, words): Failed,
    ) {
        table[index] = None;
        self.open -= 1;
        self.failed += 1;
        if !self.is_publisher(index) {
            self.shared.failed.fetch_add(1, Ordering::AcqRel);
        }
        tally.fail(kind, status, 1, || words);
    }
}

fn before_ready(lost: Lost) -> String {
    match lost {
        Lost::Closed(code, reason) => format!("it closed the connection with {code} before it was ready: {reason}"),
        Lost::Ended => "it ended the connection before it was ready".to_owned(),
        Lost::Broken(error) => format!("the connection broke before it was ready: {error}"),
        Lost::Protocol(words) => words,
    }
}

/// A failure of a socket that has not become a WebSocket yet.
fn of_system(error: &Error, way: &Way) -> Failed {
    let address = way.address;
    if let Some(tls) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        let cure = match tls {
            rustls::Error::InvalidCertificate(_) => " (a certificate of one's own making is taken with `insecure`)",
            _ => "",
        };
        return (FailureKind::Tls, None, format!("{address}: no secure connection: {tls}{cure}"));
    }
    let (kind, words) = match Errno::from_io_error(error) {
        Some(Errno::CONNREFUSED) => (FailureKind::Refused, "the connection was refused: nobody listens there"),
        Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => {
            (FailureKind::Exhausted, "this machine has no more descriptors or memory for sockets")
        }
        Some(Errno::ADDRNOTAVAIL | Errno::ADDRINUSE) => (
            FailureKind::Exhausted,
            "this machine has no more ports towards it: connect from several addresses, or to several of its ports",
        ),
        Some(Errno::HOSTUNREACH | Errno::NETUNREACH | Errno::TIMEDOUT | Errno::ACCESS | Errno::PERM) => {
            return (FailureKind::Unreachable, None, format!("{address}: {error}"));
        }
        _ if error.kind() == ErrorKind::ConnectionReset => {
            (FailureKind::Reset, "the connection was reset during the handshake")
        }
        _ => return (FailureKind::Unreachable, None, format!("{address}: {error}")),
    };
    (kind, None, format!("{address}: {words}"))
}
