//! One connection: its handshake, the bytes that are not whole yet, the bytes that the socket would not take.

use std::io::{self, ErrorKind};

use crate::clock;
use crate::deflate::Inflater;
use crate::frame::{self, BINARY, CLOSE, CONTINUATION, FIN, PING, PONG, RSV1, TEXT};
use crate::plan::MAX_MESSAGE;
use crate::socket::Socket;
use crate::tally::Counts;

/// What a thread reads into, for all its connections.
const BUFFER: usize = 256 << 10;

/// Somebody who pings and does not read gets no more answers than this.
const MAX_PONGS: usize = 1 << 20;

/// Some tens of bytes: there are hundreds of thousands.
pub struct Connection {
    pub socket: Socket,
    pub state: State,
    /// Messages may be compressed.
    pub deflate: bool,
    rest: Option<Box<Rest>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    Connecting,
    Handshake,
    /// The handshake is over, and a certain message is awaited.
    Waiting,
    Ready,
    /// We have said that it is over.
    Closing,
}

/// What a connection has beside its socket while it is not idle.
#[derive(Default)]
struct Rest {
    /// The beginning of a frame, or of the answer to the handshake.
    part: Vec<u8>,
    /// What the socket would not take.
    out: Vec<u8>,
    /// The fragments of a message, and the first byte of the first.
    message: Vec<u8>,
    first: u8,
    /// When it began to connect.
    began: u64,
}

/// Why a connection is no more.
#[derive(Debug)]
pub enum Lost {
    Closed(u16, String),
    Ended,
    Broken(io::Error),
    Protocol(String),
}

/// What a thread has once for all its connections.
pub struct Scratch {
    buffer: Vec<u8>,
    inflater: Inflater,
}

impl Scratch {
    pub fn new() -> Self {
        Self { buffer: vec![0; BUFFER], inflater: Inflater::new() }
    }
}

impl Connection {
    pub fn new(socket: Socket, began: u64) -> Self {
        let rest = Some(Box::new(Rest { began, ..Rest::default() }));
        Self { socket, state: State::Connecting, deflate: false, rest }
    }

    fn rest(&mut self) -> &mut Rest {
        self.rest.get_or_insert_default()
    }

    pub fn began(&self) -> u64 {
        self.rest.as_ref().map_or(0, |rest| rest.began)
    }

    /// Bytes that the socket has not taken yet.
    #[inline]
    pub fn backlog(&self) -> usize {
        self.rest.as_ref().map_or(0, |rest| rest.out.len())
    }

    /// Sends, or keeps what the socket does not take.
    #[inline]
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.backlog() > 0 {
            self.rest().out.extend_from_slice(bytes);
            return Ok(());
        }
        let sent = self.push(bytes)?;
        if sent < bytes.len() {
            self.rest().out.extend_from_slice(&bytes[sent..]);
        }
        Ok(())
    }

    fn push(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut at = 0;
        while at < bytes.len() {
            match self.socket.write(&bytes[at..]) {
                Ok(count) => at += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(at)
    }

    /// Sends what was kept.
    #[inline]
    pub fn flush(&mut self) -> io::Result<()> {
        self.socket.flush()?;
        if self.backlog() == 0 {
            return Ok(());
        }
        let mut out = std::mem::take(&mut self.rest().out);
        let sent = self.push(&out)?;
        out.drain(..sent);
        self.rest().out = out;
        self.tidy();
        Ok(())
    }

    /// An idle connection has nothing beside its socket.
    #[inline]
    fn tidy(&mut self) {
        let is_idle =
            |rest: &Rest| rest.part.is_empty() && rest.out.is_empty() && rest.message.is_empty() && rest.first == 0;
        if self.rest.as_deref().is_some_and(is_idle) && self.state >= State::Ready {
            self.rest = None;
        }
    }

    /// Reads what there is of the answer to the handshake; whether the stream has ended.
    pub fn read_answer(&mut self, scratch: &mut Scratch) -> io::Result<bool> {
        loop {
            match self.socket.read(&mut scratch.buffer) {
                Ok((0, _)) => return Ok(true),
                Ok((count, more)) => {
                    self.rest().part.extend_from_slice(&scratch.buffer[..count]);
                    // Somebody who answers with a film is not read to its end.
                    if !more || self.rest().part.len() > BUFFER {
                        return Ok(false);
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
    }

    pub fn answer(&self) -> &[u8] {
        self.rest.as_ref().map_or(&[], |rest| &rest.part)
    }

    /// So much of what was read is the handshake's.
    pub fn forget_answer(&mut self, used: usize) {
        self.rest().part.drain(..used);
    }

    /// Reads all there is and hands on whole messages: when they were read, whether they are binary, and the payload.
    /// With an instant of its own for each read: the first of many messages is not late because of the last.
    #[inline]
    pub fn read(
        &mut self,
        scratch: &mut Scratch,
        counts: &mut Counts,
        mut on: impl FnMut(u64, bool, &[u8]),
    ) -> Result<(), Lost> {
        let Scratch { buffer, inflater } = scratch;
        if self.rest.as_ref().is_some_and(|rest| !rest.part.is_empty()) {
            // What came with the answer to the handshake.
            self.take_part(inflater, counts, &mut on)?;
        }
        loop {
            let (count, more) = match self.socket.read(buffer) {
                Ok((0, _)) => return Err(Lost::Ended),
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(Lost::Broken(error)),
            };
            counts.received += count as u64;
            if self.rest.as_ref().is_some_and(|rest| !rest.part.is_empty()) {
                self.rest().part.extend_from_slice(&buffer[..count]);
                self.take_part(inflater, counts, &mut on)?;
            } else {
                let used = self.frames(&buffer[..count], inflater, counts, &mut on)?;
                if used < count {
                    self.rest().part.extend_from_slice(&buffer[used..count]);
                }
            }
            if !more {
                break;
            }
        }
        self.tidy();
        Ok(())
    }

    fn take_part(
        &mut self,
        inflater: &mut Inflater,
        counts: &mut Counts,
        on: &mut impl FnMut(u64, bool, &[u8]),
    ) -> Result<(), Lost> {
        let mut part = std::mem::take(&mut self.rest().part);
        let used = self.frames(&part, inflater, counts, on)?;
        part.drain(..used);
        if !part.is_empty() {
            self.rest().part = part;
        }
        Ok(())
    }

    /// Takes the whole frames; the bytes that they were.
    #[inline]
    fn frames(
        &mut self,
        bytes: &[u8],
        inflater: &mut Inflater,
        counts: &mut Counts,
        on: &mut impl FnMut(u64, bool, &[u8]),
    ) -> Result<usize, Lost> {
        let now = clock::now();
        let mut at = 0;
        while let Some(header) = frame::header(&bytes[at..]).map_err(Lost::Protocol)? {
            let begin = at + header.head;
            let Some(payload) = bytes.get(begin..begin + header.length) else { break };
            at = begin + header.length;
            // By far the most.
            if header.first == FIN | TEXT || header.first == FIN | BINARY {
                on(now, header.first == FIN | BINARY, payload);
            } else {
                self.other(header.first, payload, now, inflater, counts, on)?;
            }
        }
        Ok(at)
    }

    /// Control frames, fragments, compressed messages.
    fn other(
        &mut self,
        first: u8,
        payload: &[u8],
        now: u64,
        inflater: &mut Inflater,
        counts: &mut Counts,
        on: &mut impl FnMut(u64, bool, &[u8]),
    ) -> Result<(), Lost> {
        let wrong = |what: &str| Err(Lost::Protocol(what.to_owned()));
        let (opcode, is_last) = (first & 0x0f, first & FIN != 0);
        match opcode {
            TEXT | BINARY | CONTINUATION => {}
            PING if payload.len() <= 125 => {
                counts.pings += 1;
                if self.backlog() > MAX_PONGS {
                    return Ok(());
                }
                let mut pong = Vec::with_capacity(payload.len() + 6);
                frame::append(&mut pong, PONG, payload);
                counts.sent += pong.len() as u64;
                return self.send(&pong).map_err(Lost::Broken);
            }
            PONG => return Ok(()),
            CLOSE => {
                let mut answer = Vec::with_capacity(8);
                frame::append(&mut answer, CLOSE, payload.get(..2).unwrap_or_default());
                // It is over whether this arrives or not.
                let _ = self.send(&answer);
                let code = payload.first_chunk().map_or(1005, |code| u16::from_be_bytes(*code));
                let reason = String::from_utf8_lossy(payload.get(2..).unwrap_or_default()).into_owned();
                return Err(Lost::Closed(code, reason));
            }
            _ => return wrong("it sent a frame with an unknown or an overlong control code"),
        }
        let is_begun = self.rest.as_ref().is_some_and(|rest| rest.first != 0);
        if is_begun != (opcode == CONTINUATION) {
            return wrong("it sent fragments out of their order");
        }
        if first & RSV1 != 0 && (!self.deflate || opcode == CONTINUATION) || first & 0x30 != 0 {
            return wrong("it used a reserved bit that was not agreed on");
        }
        if is_last && !is_begun {
            let plain = inflater.message(payload).map_err(Lost::Protocol)?;
            on(now, opcode == BINARY, plain);
            return Ok(());
        }
        let rest = self.rest();
        if rest.message.len() + payload.len() > MAX_MESSAGE {
            return wrong("it sent a message of more than 16 MiB");
        }
        rest.message.extend_from_slice(payload);
        if !is_begun {
            rest.first = first;
        }
        if is_last {
            let (message, first) = (std::mem::take(&mut rest.message), std::mem::take(&mut rest.first));
            let is_binary = first & 0x0f == BINARY;
            if first & RSV1 != 0 {
                on(now, is_binary, inflater.message(&message).map_err(Lost::Protocol)?);
            } else {
                on(now, is_binary, &message);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_connection_is_small() {
        assert!(size_of::<Option<Connection>>() <= 48, "{} bytes", size_of::<Option<Connection>>());
    }
}
