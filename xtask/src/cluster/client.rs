//! A client of the chat that blocks: as much HTTP and WebSocket as the self-check takes.

use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

/// How long one read may keep us from looking at the time.
const SLICE: Duration = Duration::from_millis(100);

/// Status and body of a GET; None: nobody answers.
pub(crate) fn get(address: SocketAddr, path: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_millis(500)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n")?;
    Some((status(head)?, body.to_owned()))
}

fn status(head: &str) -> Option<u16> {
    head.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()
}

/// An open WebSocket.
pub(crate) struct Client {
    stream: TcpStream,
    /// What has come and was not looked at.
    buffer: Vec<u8>,
}

#[derive(Debug, PartialEq)]
pub(crate) enum Heard {
    Text(String),
    /// The connection is over.
    End,
    /// Not in this time.
    Nothing,
}

impl Client {
    /// The inner error is a refusal, or nobody who answers, which is worth another attempt.
    pub(crate) fn connect(address: SocketAddr, path: &str) -> Result<Result<Self, String>> {
        let mut stream = match TcpStream::connect_timeout(&address, Duration::from_secs(2)) {
            Ok(stream) => stream,
            Err(error) => return Ok(Err(error.to_string())),
        };
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(SLICE))?;
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        if let Err(error) = stream.write_all(request.as_bytes()) {
            return Ok(Err(error.to_string()));
        }
        let mut client = Self { stream, buffer: Vec::new() };
        let asked = Instant::now();
        let end = loop {
            if let Some(at) = client.buffer.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            if !client.more()? || asked.elapsed() > Duration::from_secs(10) {
                return Ok(Err("no answer to the handshake".to_owned()));
            }
        };
        let head: Vec<u8> = client.buffer.drain(..end).collect();
        let head = String::from_utf8_lossy(&head);
        match status(&head) {
            Some(101) => Ok(Ok(client)),
            Some(status) => Ok(Err(format!("HTTP {status}"))),
            None => bail!("no HTTP: {head:?}"),
        }
    }

    /// Reads what is there; false: the connection is over.
    fn more(&mut self) -> Result<bool> {
        let mut piece = [0; 4096];
        match self.stream.read(&mut piece) {
            Ok(0) => Ok(false),
            Ok(count) => {
                self.buffer.extend(&piece[..count]);
                Ok(true)
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Ok(true),
            Err(error) if matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) => Ok(false),
            Err(error) => Err(error).context("a connection cannot be read"),
        }
    }

    /// Sends a text of up to 64 KiB.
    pub(crate) fn send(&mut self, text: &str) -> Result<()> {
        // RFC 6455, section 5.2: final, text; masked, by zeros, which changes nothing.
        let mut frame = vec![0x81];
        match u8::try_from(text.len()) {
            Ok(short @ 0..126) => frame.push(0x80 | short),
            _ => {
                frame.push(0x80 | 126);
                frame.extend(u16::try_from(text.len()).context("a text that is too long")?.to_be_bytes());
            }
        }
        frame.extend([0; 4]);
        frame.extend(text.as_bytes());
        self.stream.write_all(&frame).context("a connection cannot be written")
    }

    /// The next text.
    pub(crate) fn heard(&mut self, within: Duration) -> Result<Heard> {
        let asked = Instant::now();
        loop {
            match take_frame(&mut self.buffer)? {
                Some((0x81, payload)) => return Ok(Heard::Text(String::from_utf8(payload)?)),
                Some((0x88, _)) => return Ok(Heard::End),
                // A ping: nobody stays long enough for it to matter.
                Some(_) => {}
                None if asked.elapsed() > within => return Ok(Heard::Nothing),
                None if !self.more()? => return Ok(Heard::End),
                None => {}
            }
        }
    }
}

/// The first frame, if it is whole: its first byte and what it carries.
fn take_frame(buffer: &mut Vec<u8>) -> Result<Option<(u8, Vec<u8>)>> {
    let (head, length) = match buffer[..] {
        [_, 126, high, low, ..] => (4, usize::from(u16::from_be_bytes([high, low]))),
        [_, 126, ..] | [] | [_] => return Ok(None),
        [_, short, ..] if short < 126 => (2, usize::from(short)),
        _ => bail!("a frame of more than 64 KiB, or with a mask"),
    };
    if buffer.len() < head + length {
        return Ok(None);
    }
    let first = buffer[0];
    let payload = buffer.drain(..head + length).skip(head).collect();
    Ok(Some((first, payload)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_taken_when_they_are_whole() {
        let long = vec![b'x'; 300];
        let mut all = vec![0x81, 2, b'h', b'i', 0x89, 0, 0x81, 126, 1, 44];
        all.extend(&long);
        let mut buffer = Vec::new();
        let mut frames = Vec::new();
        for byte in all {
            buffer.push(byte);
            frames.extend(take_frame(&mut buffer).unwrap());
        }
        assert_eq!(frames, [(0x81, b"hi".to_vec()), (0x89, Vec::new()), (0x81, long)]);
        assert!(buffer.is_empty());
        assert!(take_frame(&mut vec![0x81, 0x80, 0, 0, 0, 0]).is_err());
    }
}
