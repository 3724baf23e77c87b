//! The floor: the least that a WebSocket server on sockets of this machine can do. One thread, one table, one epoll; reads all that is
//! there, answers with one write, checks nothing, limits nothing, counts nothing. `/echo` sends back; what comes by `/pub`
//! goes to everybody on `/sub`.

use std::{
    io::{ErrorKind, Read, Write},
    net::SocketAddr,
};

use anyhow::{Context, Result};
use mio::{
    Events, Interest, Poll, Token,
    net::{TcpListener, TcpStream},
};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

const LISTENER: Token = Token(usize::MAX);
/// What may wait for a client that does not read.
const BEHIND: usize = 64 << 20;

#[derive(Clone, Copy, PartialEq)]
enum Role {
    Handshake,
    Echo,
    Subscriber,
    Publisher,
}

struct Client {
    stream: TcpStream,
    role: Role,
    /// A part of a frame, or of a request.
    part: Vec<u8>,
    /// What the socket did not take.
    unsent: Vec<u8>,
}

pub(crate) fn serve(listen: SocketAddr) -> Result<()> {
    let mut poll = Poll::new()?;
    let mut listener = TcpListener::bind(listen).with_context(|| format!("{listen} cannot be listened on"))?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    let mut clients: Vec<Option<Client>> = Vec::new();
    let mut free = Vec::new();
    let mut events = Events::with_capacity(1024);
    let (mut buffer, mut answer) = (vec![0; 128 << 10], Vec::new());
    let mut subscribers: Vec<usize> = Vec::new();
    loop {
        match poll.poll(&mut events, None) {
            Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error.into()),
            _ => {}
        }
        for event in &events {
            if event.token() == LISTENER {
                while let Ok((mut stream, _)) = listener.accept() {
                    let index = free.pop().unwrap_or(clients.len());
                    stream.set_nodelay(true)?;
                    let both = Interest::READABLE | Interest::WRITABLE;
                    poll.registry().register(&mut stream, Token(index), both)?;
                    let client = Client { stream, role: Role::Handshake, part: Vec::new(), unsent: Vec::new() };
                    if index == clients.len() { clients.push(Some(client)) } else { clients[index] = Some(client) }
                }
                continue;
            }
            let index = event.token().0;
            let Some(client) = clients.get_mut(index).and_then(Option::as_mut) else { continue };
            answer.clear();
            let was = client.role;
            let mut lives = client.write(&[]);
            lives = client.read(&mut buffer, &mut answer) && lives;
            let role = client.role;
            if role == Role::Publisher && !answer.is_empty() {
                subscribers.retain(|index| match clients.get_mut(*index).and_then(Option::as_mut) {
                    Some(client) => client.write(&answer),
                    None => false,
                });
            } else if let Some(client) = clients.get_mut(index).and_then(Option::as_mut) {
                lives = client.write(&answer) && lives;
            }
            if was == Role::Handshake && role == Role::Subscriber {
                subscribers.push(index);
            }
            if !lives {
                if role == Role::Subscriber {
                    subscribers.retain(|other| *other != index);
                }
                clients[index] = None;
                free.push(index);
            }
        }
    }
}

impl Client {
    /// Reads until there is nothing more, and puts into `answer` what is to be written: the handshake's response, or the messages
    /// as frames of a server. False: it is over.
    fn read(&mut self, buffer: &mut [u8], answer: &mut Vec<u8>) -> bool {
        loop {
            let kept = self.part.len();
            if kept > buffer.len() / 2 {
                return false;
            }
            buffer[..kept].copy_from_slice(&self.part);
            let count = match self.stream.read(&mut buffer[kept..]) {
                Ok(0) => return false,
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return true,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(_) => return false,
            };
            let room = buffer.len() - kept;
            let all = &mut buffer[..kept + count];
            let Some(used) = self.take(all, answer) else { return false };
            self.part.clear();
            if used < all.len() {
                self.part.extend_from_slice(&all[used..]);
            } else if self.part.capacity() > 0 {
                self.part = Vec::new();
            }
            // Edge-triggered: what comes later wakes us again, and a close does when it is all that there is.
            if count < room {
                return true;
            }
        }
    }

    /// How much of it was whole.
    fn take(&mut self, bytes: &mut [u8], answer: &mut Vec<u8>) -> Option<usize> {
        let mut used = 0;
        if self.role == Role::Handshake {
            let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { return Some(0) };
            let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
            self.role = match head.split(' ').nth(1)? {
                "/sub" => Role::Subscriber,
                "/pub" => Role::Publisher,
                _ => Role::Echo,
            };
            let key = head.lines().find_map(|line| {
                let (name, value) = line.split_once(':')?;
                name.eq_ignore_ascii_case("sec-websocket-key").then(|| value.trim())
            })?;
            let accept = derive_accept_key(key.as_bytes());
            let response = format!(
                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
            );
            // Not into `answer`: a publisher's goes to others.
            if !self.write(response.as_bytes()) {
                return None;
            }
            used = end + 4;
        }
        while let Some((first, head, length)) = header(&bytes[used..]) {
            let Some(frame) = bytes.get_mut(used..used + head + length) else { break };
            let (head, payload) = frame.split_at_mut(head);
            let (_, mask) = head.split_last_chunk::<4>()?;
            unmask(payload, *mask);
            match first & 0x0f {
                1 | 2 if self.role != Role::Subscriber => encode(answer, first, payload),
                8 => return None,
                9 => {
                    let mut pong = Vec::new();
                    encode(&mut pong, 0x8a, payload);
                    if !self.write(&pong) {
                        return None;
                    }
                }
                _ => {}
            }
            used += head.len() + length;
        }
        Some(used)
    }

    /// Writes these behind what still waits. False: it is over.
    fn write(&mut self, bytes: &[u8]) -> bool {
        if !self.unsent.is_empty() {
            self.unsent.extend_from_slice(bytes);
            let waiting = std::mem::take(&mut self.unsent);
            return waiting.len() <= BEHIND && self.write(&waiting);
        }
        let mut bytes = bytes;
        while !bytes.is_empty() {
            match self.stream.write(bytes) {
                Ok(count) => bytes = &bytes[count..],
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.unsent.extend_from_slice(bytes);
                    return true;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
        true
    }
}

/// Of a client's frame: its first byte, the size of its header with the mask, and of its payload.
fn header(bytes: &[u8]) -> Option<(u8, usize, usize)> {
    let (head, length) = match bytes.get(1)? & 0x7f {
        126 => (8, usize::from(u16::from_be_bytes(*bytes.get(2..)?.first_chunk()?))),
        127 => (14, usize::try_from(u64::from_be_bytes(*bytes.get(2..)?.first_chunk()?)).ok()?),
        short => (6, usize::from(short)),
    };
    Some((bytes[0], head, length))
}

fn unmask(payload: &mut [u8], mask: [u8; 4]) {
    let wide = u64::from_ne_bytes([mask, mask].concat().try_into().unwrap_or_default());
    let (words, rest) = payload.as_chunks_mut::<8>();
    for word in words {
        *word = (u64::from_ne_bytes(*word) ^ wide).to_ne_bytes();
    }
    rest.iter_mut().zip(mask.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
}

fn encode(to: &mut Vec<u8>, first: u8, payload: &[u8]) {
    to.push(first);
    match u16::try_from(payload.len()) {
        Ok(short @ 0..126) => to.push(short as u8),
        Ok(length) => {
            to.push(126);
            to.extend(length.to_be_bytes());
        }
        Err(_) => {
            to.push(127);
            to.extend((payload.len() as u64).to_be_bytes());
        }
    }
    to.extend_from_slice(payload);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_read_unmasked_and_written() {
        for length in [0_usize, 5, 13, 125, 126, 300, 70_000] {
            let payload: Vec<u8> = (0..length).map(|at| at as u8).collect();
            let mut sent = Vec::new();
            encode(&mut sent, 0x81, &payload);
            // As a client: the same header with the mask's bit, and the mask.
            let mask = [1, 2, 3, 4];
            let mut masked = payload.clone();
            unmask(&mut masked, mask);
            let head = sent.len() - length;
            let mut frame = sent[..head].to_vec();
            frame[1] |= 0x80;
            frame.extend(mask);
            frame.extend(&masked);
            assert_eq!(header(&frame), Some((0x81, head + 4, length)));
            unmask(&mut masked, mask);
            assert_eq!(masked, payload);
            assert!((0..head).all(|short| header(&frame[..short]).is_none()));
        }
    }
}
