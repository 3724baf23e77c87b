//! A process that holds thousands of subscribers, 12 bytes each: one table, one epoll, one buffer. `cargo xtask scale` starts several.
//!
//! Commands come as lines from standard input, whose end is the end of this process too, so it never outlives who has
//! started it. What happens is told in lines, which [`super::holders`] reads:
//!
//! - `open N`: opens sessions until there are so many. Answered by `opened`, with what went wrong.
//! - `leave N`: closes N of them. Answered by `left N`.
//! - `tell K`: what is known of publication K: `has K COUNT TIMES`. Told without being asked when all have it.
//! - `state`: `state HELD LOST WRONG`.

use std::{
    collections::{BTreeMap, HashMap},
    io::{self, Write},
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
};

use anyhow::{Context, Result, bail};
use rustix::{
    buffer::spare_capacity,
    event::{
        Timespec,
        epoll::{self, EventData, EventFlags},
    },
    fd::{AsFd, OwnedFd},
    io::Errno,
    net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, ipproto, recv, send, socket_with, sockopt},
};

use super::{
    clock,
    frame::{header, publication},
    times::Times,
};

/// Connections that are on their way at a time: fewer than any listener's queue is long.
const IN_FLIGHT: usize = 128;
/// Source ports are chosen here, below those that the kernel hands out: it would look for a free one longer each time.
const PORTS: std::ops::Range<u16> = 2_000..32_000;
/// Publications that something is kept of.
const KEPT: usize = 4;
const STDIN: u64 = u64::MAX;
/// Most of a message that is looked at; longer ones are none of ours.
const LONGEST: usize = 32 << 10;

#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) to: SocketAddrV4,
    pub(crate) path: String,
    /// Where connections come from.
    pub(crate) source: Ipv4Addr,
}

impl Default for Options {
    fn default() -> Self {
        Self { to: SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0), path: "/".to_owned(), source: Ipv4Addr::LOCALHOST }
    }
}

#[derive(Clone, Copy, PartialEq)]
enum State {
    Away,
    Connecting,
    Handshake,
    Here,
    /// Its goodbye was said, and the server's is awaited.
    Leaving,
}

/// A client.
struct Seat {
    socket: Option<OwnedFd>,
    /// The last publication that it has got.
    seen: u32,
    state: State,
}

/// What came of a publication.
#[derive(Default)]
struct Tally {
    times: Times,
    told: bool,
}

struct Holder<'a> {
    options: &'a Options,
    epoll: OwnedFd,
    seats: Vec<Seat>,
    /// What has come of a frame or a response that is not whole.
    pieces: HashMap<usize, Vec<u8>>,
    buffer: Vec<u8>,
    tallies: BTreeMap<u32, Tally>,
    latest: u32,
    /// How many there are to be, and how many are on their way.
    wanted: usize,
    opening: usize,
    held: usize,
    leaving: usize,
    left: usize,
    failed: usize,
    why: String,
    lost: u64,
    /// Publications that came twice, or not in their order.
    wrong: u64,
    answered: bool,
    /// The last that a connection was made from.
    port: u16,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let stdin = io::stdin();
    epoll::add(&epoll, stdin.as_fd(), EventData::new_u64(STDIN), EventFlags::IN)?;
    let mut holder = Holder {
        options,
        epoll,
        seats: Vec::new(),
        pieces: HashMap::new(),
        buffer: vec![0; 64 << 10],
        tallies: BTreeMap::new(),
        latest: 0,
        wanted: 0,
        opening: 0,
        held: 0,
        leaving: 0,
        left: 0,
        failed: 0,
        why: String::new(),
        lost: 0,
        wrong: 0,
        answered: true,
        port: PORTS.start,
    };
    let mut events = Vec::with_capacity(1_024);
    let mut typed = Vec::new();
    loop {
        let timeout = Timespec { tv_sec: 1, tv_nsec: 0 };
        match epoll::wait(&holder.epoll, spare_capacity(&mut events), Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error).context("epoll_wait"),
        }
        for event in events.drain(..) {
            match event.data.u64() {
                STDIN => {
                    let mut piece = [0; 4096];
                    let count = rustix::io::read(stdin.as_fd(), &mut piece)?;
                    if count == 0 {
                        return Ok(());
                    }
                    typed.extend(&piece[..count]);
                    while let Some(end) = typed.iter().position(|byte| *byte == b'\n') {
                        let line: Vec<u8> = typed.drain(..=end).collect();
                        holder.obey(String::from_utf8_lossy(&line).trim())?;
                    }
                }
                index => {
                    let flags = event.flags;
                    let over = flags.intersects(EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR);
                    holder.serve(usize::try_from(index)?, over)?;
                }
            }
        }
        holder.open_more()?;
    }
}

/// A line for whoever has started us.
fn say(line: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}

impl Holder<'_> {
    fn obey(&mut self, line: &str) -> Result<()> {
        let (word, number) = line.split_once(' ').unwrap_or((line, "0"));
        let number: u32 = number.parse().with_context(|| format!("`{line}` is no command"))?;
        match word {
            "open" => {
                self.wanted = usize::try_from(number)?;
                (self.failed, self.answered) = (0, false);
                self.why.clear();
            }
            "leave" => self.leave(usize::try_from(number)?)?,
            "tell" => self.tell(number)?,
            "state" => say(&format!("state {} {} {}", self.held, self.lost, self.wrong))?,
            _ => bail!("`{line}` is no command"),
        }
        Ok(())
    }

    fn open_more(&mut self) -> Result<()> {
        while self.opening < IN_FLIGHT && self.held + self.opening + self.failed < self.wanted {
            let index = match self.seats.len() {
                // Seats that somebody has left come first, when all of them have left.
                length if length >= self.wanted => {
                    let Some(free) = self.seats.iter().rposition(|seat| seat.state == State::Away) else { break };
                    free
                }
                length => {
                    self.seats.push(Seat { socket: None, seen: 0, state: State::Away });
                    length
                }
            };
            match self.connect(index) {
                Ok(socket) => {
                    let seat = &mut self.seats[index];
                    (seat.socket, seat.state) = (Some(socket), State::Connecting);
                    self.opening += 1;
                }
                Err(error) => self.fail(&format!("connect: {error}")),
            }
        }
        if !self.answered && self.opening == 0 && self.held + self.failed >= self.wanted {
            self.answered = true;
            say(&format!("opened {} {} {}", self.held, self.failed, self.why))?;
        }
        Ok(())
    }

    /// From the next port that nobody has.
    fn connect(&mut self, index: usize) -> Result<OwnedFd> {
        let mut tried = 0;
        loop {
            self.port = if self.port + 1 < PORTS.end { self.port + 1 } else { PORTS.start };
            tried += 1;
            match self.connect_from(index, SocketAddr::from((self.options.source, self.port))) {
                Err(Errno::ADDRINUSE | Errno::ADDRNOTAVAIL) if tried < PORTS.len() => {}
                done => return Ok(done?),
            }
        }
    }

    fn connect_from(&self, index: usize, source: SocketAddr) -> Result<OwnedFd, Errno> {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = socket_with(AddressFamily::INET, SocketType::STREAM, flags, Some(ipproto::TCP))?;
        // Who left a moment ago had the same port.
        sockopt::set_socket_reuseaddr(&socket, true)?;
        rustix::net::bind(&socket, &source)?;
        sockopt::set_tcp_nodelay(&socket, true)?;
        match rustix::net::connect(&socket, &SocketAddr::V4(self.options.to)) {
            Ok(()) | Err(Errno::INPROGRESS) => {}
            Err(error) => return Err(error),
        }
        let interest = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        epoll::add(&self.epoll, &socket, EventData::new_u64(index as u64), interest)?;
        Ok(socket)
    }

    fn fail(&mut self, why: &str) {
        self.failed += 1;
        if self.why.is_empty() {
            self.why = why.replace('\n', " ");
        }
    }

    /// Somebody's connection is over, for whatever reason.
    fn gone(&mut self, index: usize, why: &str) -> Result<()> {
        let seat = &mut self.seats[index];
        // Closed by this, which also takes it out of epoll.
        seat.socket = None;
        self.pieces.remove(&index);
        match std::mem::replace(&mut seat.state, State::Away) {
            State::Away => {}
            State::Connecting | State::Handshake => {
                self.opening -= 1;
                self.fail(why);
            }
            State::Here => {
                self.held -= 1;
                self.lost += 1;
                self.wanted = self.wanted.min(self.held + self.opening);
            }
            State::Leaving => {
                self.leaving -= 1;
                self.left += 1;
                if self.leaving == 0 {
                    say(&format!("left {}", self.left))?;
                }
            }
        }
        Ok(())
    }

    fn leave(&mut self, count: usize) -> Result<()> {
        let here: Vec<_> = (0..self.seats.len()).filter(|index| self.seats[*index].state == State::Here).collect();
        // Spread over all of them: nobody's neighbours in the gateway's tables leave together.
        let step = (here.len() / count.max(1)).max(1);
        (self.leaving, self.left) = (0, 0);
        let leavers: Vec<_> = here.into_iter().step_by(step).take(count).collect();
        self.leaving = leavers.len();
        self.held -= leavers.len();
        self.wanted = self.held;
        if leavers.is_empty() {
            return say("left 0");
        }
        for index in leavers {
            self.seats[index].state = State::Leaving;
            // A masked Close, 1000.
            if self.send(index, &[0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe8]).is_err() {
                self.gone(index, "")?;
            }
        }
        Ok(())
    }

    /// Small things, which an idle connection takes as a whole.
    fn send(&self, index: usize, bytes: &[u8]) -> Result<()> {
        let socket = self.seats[index].socket.as_ref().context("nobody is there")?;
        let sent = send(socket, bytes, SendFlags::NOSIGNAL)?;
        if sent < bytes.len() { bail!("the server does not read") } else { Ok(()) }
    }

    /// Something has come, or the end has (`over`).
    fn serve(&mut self, index: usize, over: bool) -> Result<()> {
        if self.seats[index].state == State::Connecting {
            let Some(socket) = &self.seats[index].socket else { return Ok(()) };
            if let Err(error) = sockopt::socket_error(socket)? {
                return self.gone(index, &format!("connect: {error}"));
            }
            if rustix::net::getpeername(socket).is_err() {
                return Ok(());
            }
            let Options { to, path, .. } = self.options;
            let request = format!(
                "GET {path} HTTP/1.1\r\nHost: {to}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                 Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
            );
            if let Err(error) = self.send(index, request.as_bytes()) {
                return self.gone(index, &error.to_string());
            }
            self.seats[index].state = State::Handshake;
        }
        // Lent out, so that what is in it can be looked at while seats change.
        let mut buffer = std::mem::take(&mut self.buffer);
        let served = self.read(index, &mut buffer, over);
        self.buffer = buffer;
        served
    }

    fn read(&mut self, index: usize, buffer: &mut [u8], over: bool) -> Result<()> {
        loop {
            let Some(socket) = &self.seats[index].socket else { return Ok(()) };
            let before = self.pieces.get(&index).map_or(0, |piece| {
                buffer[..piece.len()].copy_from_slice(piece);
                piece.len()
            });
            let count = match recv(socket, &mut buffer[before..], RecvFlags::empty()) {
                Ok((0, _)) => return self.gone(index, "closed by the server"),
                Ok((count, _)) => count,
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::INTR) => continue,
                Err(error) => return self.gone(index, &error.to_string()),
            };
            let all = &buffer[..before + count];
            let room = buffer.len() - before;
            match self.take(index, all) {
                Ok(used) if used == all.len() => drop(self.pieces.remove(&index)),
                Ok(used) if all.len() - used > LONGEST => return self.gone(index, "a message that is too long"),
                Ok(used) => drop(self.pieces.insert(index, all[used..].to_vec())),
                Err(why) => return self.gone(index, &why.to_string()),
            }
            // Edge-triggered: whatever comes later wakes us again; the end that came with it does not.
            if count < room && !over {
                return Ok(());
            }
        }
    }

    /// Looks at what is whole, and says how much that is.
    fn take(&mut self, index: usize, bytes: &[u8]) -> Result<usize> {
        let mut used = 0;
        if self.seats[index].state == State::Handshake {
            let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { return Ok(0) };
            if !bytes.starts_with(b"HTTP/1.1 101") {
                bail!("refused: {}", String::from_utf8_lossy(bytes).lines().next().unwrap_or_default());
            }
            self.seats[index].state = State::Here;
            self.seats[index].seen = self.latest;
            self.opening -= 1;
            self.held += 1;
            used = end + 4;
        }
        while let Some((first, head, length)) = header(&bytes[used..])? {
            let Some(payload) = bytes[used..].get(head..head + length) else { break };
            match first {
                0x81 | 0x82 => self.heard(index, payload)?,
                0x89 => {
                    // A pong with a mask of zeros, which changes nothing.
                    let short = u8::try_from(length).context("a ping that is too long")?;
                    self.send(index, &[&[0x8a, 0x80 | short, 0, 0, 0, 0], payload].concat())?;
                }
                0x88 if self.seats[index].state != State::Leaving => {
                    let code = payload.first_chunk().map_or(1005, |code| u16::from_be_bytes(*code));
                    bail!("closed by the server with {code}");
                }
                _ => {}
            }
            used += head + length;
        }
        Ok(used)
    }

    fn heard(&mut self, index: usize, payload: &[u8]) -> Result<()> {
        let Some((number, sent)) = publication(payload) else { return Ok(()) };
        let seat = &mut self.seats[index];
        if number != seat.seen + 1 {
            self.wrong += 1;
        }
        seat.seen = number;
        self.latest = self.latest.max(number);
        let tally = self.tallies.entry(number).or_default();
        tally.times.record(clock().saturating_sub(sent));
        if !tally.told && tally.times.count() >= self.held as u64 {
            tally.told = true;
            self.tell(number)?;
        }
        while self.tallies.len() > KEPT {
            self.tallies.pop_first();
        }
        Ok(())
    }

    fn tell(&self, number: u32) -> Result<()> {
        match self.tallies.get(&number) {
            Some(Tally { times, .. }) => say(&format!("has {number} {} {times}", times.count())),
            None => say(&format!("has {number} 0 0")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_costs_a_few_bytes() {
        assert_eq!(size_of::<Seat>(), 12);
    }
}
