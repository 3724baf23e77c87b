//! How a message looks on the wire of each transport: what the hub encodes once and all subscribers share.

pub mod deflate;
pub mod events;
pub mod polls;
mod positions;

use bytes::Bytes;

pub use self::positions::Positions;
use crate::message::{Close, Message, MessageRef};

/// Frame types (RFC 6455 section 5.2).
pub mod opcode {
    pub const CONTINUATION: u8 = 0;
    pub const TEXT: u8 = 1;
    pub const BINARY: u8 = 2;
    pub const CLOSE: u8 = 8;
    pub const PING: u8 = 9;
    pub const PONG: u8 = 10;
}

/// The first byte of a frame that is a whole message, or the last of one.
pub const FIN: u8 = 0x80;
/// On a message's first frame: the message is compressed (RFC 7692 section 6).
pub const RSV1: u8 = 0x40;

/// The longest header of a frame that a server sends: two bytes and a 64-bit length; servers do not mask.
const HEADER_MAX: usize = 10;

/// Appends one whole, unmasked frame (RFC 6455 section 5.2). `opcode` may come with `RSV1`.
pub fn frame(out: &mut Vec<u8>, opcode: u8, payload: &[u8]) {
    out.reserve(payload.len() + HEADER_MAX);
    out.push(FIN | opcode);
    match payload.len() {
        len @ 0..126 => out.push(len as u8),
        len @ 126..=0xffff => {
            out.push(126);
            out.extend_from_slice(&(len as u16).to_be_bytes());
        }
        len => {
            out.push(127);
            out.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(payload);
}

/// Appends a message as one frame.
pub fn message(out: &mut Vec<u8>, message: MessageRef<'_>) {
    match message {
        MessageRef::Text(text) => frame(out, opcode::TEXT, text.as_bytes()),
        MessageRef::Binary(bytes) => frame(out, opcode::BINARY, bytes),
    }
}

/// A frame of this module's making.
struct Framed<'a> {
    first: u8,
    payload: &'a [u8],
    /// Header and payload.
    whole: &'a [u8],
}

/// Takes the first of the frames that `frame` has written; None where there is none.
fn next<'a>(frames: &mut &'a [u8]) -> Option<Framed<'a>> {
    let &[first, short, ..] = *frames else { return None };
    let (len, head) = match short {
        126 => (u64::from(u16::from_be_bytes(frames.get(2..4)?.try_into().ok()?)), 4),
        127 => (u64::from_be_bytes(frames.get(2..10)?.try_into().ok()?), 10),
        len => (u64::from(len), 2),
    };
    let (whole, rest) = frames.split_at_checked(head + usize::try_from(len).ok()?)?;
    *frames = rest;
    Some(Framed { first, payload: &whole[head..], whole })
}

/// Takes the first of the messages that `message` has written; None where there is none.
pub fn take_message(frames: &mut &[u8]) -> Option<Message> {
    let Framed { first, payload, .. } = next(frames)?;
    Some(match first & 0x0f {
        opcode::TEXT => MessageRef::Text(std::str::from_utf8(payload).ok()?).to_owned(),
        _ => Message::Binary(Bytes::copy_from_slice(payload)),
    })
}

/// Appends a close frame. A code that must not be sent (1005, 1006) becomes a frame without a body.
pub fn close(out: &mut Vec<u8>, close: &Close) {
    if matches!(close.code, Close::NO_CODE | Close::BROKEN) {
        return frame(out, opcode::CLOSE, &[]);
    }
    let mut body = Vec::with_capacity(2 + close.reason.len());
    body.extend_from_slice(&close.code.to_be_bytes());
    body.extend_from_slice(close.reason.as_bytes());
    frame(out, opcode::CLOSE, &body);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_take_the_shortest_form() {
        for (len, header) in [
            (125, vec![0x82, 125]),
            (126, vec![0x82, 126, 0, 126]),
            (65535, vec![0x82, 126, 0xff, 0xff]),
            (65536, vec![0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
        ] {
            let mut out = Vec::new();
            message(&mut out, MessageRef::Binary(&vec![7; len]));
            assert_eq!(out[..header.len()], header);
            assert_eq!(out.len(), header.len() + len);
            out.extend([0x8a, 0]);
            let mut rest = out.as_slice();
            let read = next(&mut rest).unwrap();
            assert_eq!((read.first, read.payload.len(), read.whole.len()), (0x82, len, out.len() - 2));
            assert_eq!(next(&mut rest).unwrap().whole, [0x8a, 0]);
            assert!(next(&mut rest).is_none());
        }
    }

    #[test]
    fn codes_that_may_not_be_sent_leave_the_body_out() {
        let mut out = Vec::new();
        close(&mut out, &Close::new(Close::NO_CODE, "ignored"));
        assert_eq!(out, [0x88, 0]);
    }
}
