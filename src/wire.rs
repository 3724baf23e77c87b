//! How a message looks on the wire of each transport: what the hub encodes once and all subscribers share.

use crate::message::{Close, MessageRef};

/// Frame types (RFC 6455 section 5.2).
pub mod opcode {
    pub const CONTINUATION: u8 = 0;
    pub const TEXT: u8 = 1;
    pub const BINARY: u8 = 2;
    pub const CLOSE: u8 = 8;
    pub const PING: u8 = 9;
    pub const PONG: u8 = 10;
}

/// The longest header of a frame that a server sends: two bytes and a 64-bit length; servers do not mask.
const HEADER_MAX: usize = 10;

/// Appends one whole, unmasked frame (RFC 6455 section 5.2).
pub fn frame(out: &mut Vec<u8>, opcode: u8, payload: &[u8]) {
    out.reserve(payload.len() + HEADER_MAX);
    out.push(0x80 | opcode);
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
        }
    }

    #[test]
    fn codes_that_may_not_be_sent_leave_the_body_out() {
        let mut out = Vec::new();
        close(&mut out, &Close::new(Close::NO_CODE, "ignored"));
        assert_eq!(out, [0x88, 0]);
    }
}
