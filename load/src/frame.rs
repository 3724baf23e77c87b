//! Frames of RFC 6455 as far as a client needs them: its own are masked, the server's are not.

use crate::plan::MAX_MESSAGE;

pub const CONTINUATION: u8 = 0;
pub const TEXT: u8 = 1;
pub const BINARY: u8 = 2;
pub const CLOSE: u8 = 8;
pub const PING: u8 = 9;
pub const PONG: u8 = 10;

pub const FIN: u8 = 0x80;
pub const RSV1: u8 = 0x40;

/// The same for all frames. RFC 6455 wants masks that nobody can foresee, for the sake of caches between a browser and a
/// server; here frames are encoded once, before the run, and the server's work is the same.
const MASK: [u8; 4] = [0x9e, 0x37, 0x79, 0xb9];

/// Appends a whole message, or a control frame. `first`: opcode, and RSV1 if the payload is compressed.
pub fn append(out: &mut Vec<u8>, first: u8, payload: &[u8]) {
    out.push(FIN | first);
    match payload.len() {
        length @ 0..126 => out.push(0x80 | length as u8),
        length if u16::try_from(length).is_ok() => {
            out.push(0x80 | 126);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            out.push(0x80 | 127);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(&MASK);
    out.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
}

/// What stands before a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// FIN, RSV bits, opcode.
    pub first: u8,
    /// Bytes of the header itself.
    pub head: usize,
    pub length: usize,
}

/// The header of a server's frame; none while it is not all there.
#[inline]
pub fn header(bytes: &[u8]) -> Result<Option<Header>, String> {
    let [first, second, ..] = *bytes else { return Ok(None) };
    if second & 0x80 != 0 {
        return Err("it sent a masked frame".to_owned());
    }
    let (head, length) = match second {
        126 => match bytes.get(2..4).and_then(|bytes| bytes.try_into().ok()) {
            Some(length) => (4, usize::from(u16::from_be_bytes(length))),
            None => return Ok(None),
        },
        127 => match bytes.get(2..10).and_then(|bytes| bytes.try_into().ok()) {
            Some(length) => (10, usize::try_from(u64::from_be_bytes(length)).unwrap_or(usize::MAX)),
            None => return Ok(None),
        },
        length => (2, usize::from(length)),
    };
    if length > MAX_MESSAGE + 4096 {
        return Err(format!("it sent a frame of {length} bytes, and 16 MiB are taken"));
    }
    Ok(Some(Header { first, head, length }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_masked_and_have_the_shortest_length() {
        for (length, head) in [(0, 6), (125, 6), (126, 8), (65_535, 8), (65_536, 14)] {
            let payload: Vec<u8> = (0..length).map(|i| i as u8).collect();
            let mut out = Vec::new();
            append(&mut out, BINARY, &payload);
            assert_eq!(out.len(), head + length);
            assert_eq!(out[0], FIN | BINARY);
            let mask = &out[head - 4..head];
            let plain: Vec<u8> = out[head..].iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect();
            assert_eq!(plain, payload);
            assert!(header(&out).unwrap_err().contains("masked"), "servers do not mask");
        }
    }

    #[test]
    fn a_header_is_read_when_all_of_it_is_there() {
        let cases: [(&[u8], usize, usize); 3] =
            [(&[0x81, 5], 2, 5), (&[0x82, 126, 1, 0], 4, 256), (&[0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0], 10, 65_536)];
        for (bytes, head, length) in cases {
            assert_eq!(header(bytes).unwrap(), Some(Header { first: bytes[0], head, length }));
            for cut in 0..bytes.len() {
                assert_eq!(header(&bytes[..cut]).unwrap(), None, "{cut} bytes of {bytes:?}");
            }
        }
        assert!(header(&[0x82, 127, 0xff, 0, 0, 0, 0, 0, 0, 0]).is_err(), "nobody waits for so much");
    }
}
