//! Frames on their way in: strict, in place, and without memory while nothing is under way.
//!
//! Frames are parsed where they were read. Only the beginning of a frame that has not arrived as a whole, and the
//! fragments of a message, are kept. What a frame announces is checked against the limit before any of it is kept.

use crate::message::{Close, MessageRef};
use crate::wire::opcode;

/// The longest payload of a control frame (RFC 6455 section 5.5).
const CONTROL_MAX: usize = 125;

/// Something whole that has arrived.
#[derive(Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    Message(MessageRef<'a>),
    Ping(&'a [u8]),
    Pong,
    Close(Close),
}

/// What the client must not do. Its session ends with the code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    #[error("a reserved bit is set and no extension is negotiated")]
    ReservedBit,
    #[error("opcode {0} is reserved")]
    ReservedOpcode(u8),
    #[error("a client's frames must be masked")]
    Unmasked,
    #[error("a control frame is fragmented")]
    FragmentedControl,
    #[error("a control frame is longer than 125 bytes")]
    LongControl,
    #[error("a continuation without a beginning")]
    StrayContinuation,
    #[error("a new message within a fragmented one")]
    Interleaved,
    #[error("a length is not in its shortest form")]
    OverlongLength,
    #[error("a close frame's body is one byte, or its code may not be sent")]
    BadClose,
    #[error("a text is not UTF-8")]
    NotUtf8,
    #[error("the message is larger than {0} bytes")]
    TooBig(usize),
}

impl Violation {
    /// RFC 6455 section 7.4.1.
    pub fn code(self) -> u16 {
        match self {
            Self::NotUtf8 => Close::NOT_UTF8,
            Self::TooBig(_) => Close::TOO_BIG,
            _ => Close::PROTOCOL,
        }
    }
}

/// What is under way from one client.
#[derive(Default)]
pub struct Decoder {
    /// The beginning of a frame, or frames that could not be handled yet.
    left: Vec<u8>,
    fragments: Option<Box<Fragments>>,
}

struct Fragments {
    text: bool,
    payload: Vec<u8>,
    /// So much of a text is known to be UTF-8.
    checked: usize,
}

/// Whether to go on with the next frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    Next,
    Stop,
}

struct Header {
    fin: bool,
    opcode: u8,
    mask: [u8; 4],
    /// Bytes of the header itself.
    head: usize,
    len: usize,
}

impl Decoder {
    /// Takes what was read, after what is left from before, and hands on each frame that is whole. After `Flow::Stop`
    /// the rest is kept; call again with nothing to go on. `limit` is the largest message, in bytes.
    pub fn feed(
        &mut self,
        read: &mut [u8],
        limit: usize,
        mut on: impl FnMut(Frame<'_>) -> Flow,
    ) -> Result<(), Violation> {
        if self.left.is_empty() {
            let used = self.parse(read, limit, &mut on)?;
            if used < read.len() {
                self.left = read[used..].to_vec();
            }
            return Ok(());
        }
        let mut left = std::mem::take(&mut self.left);
        left.extend_from_slice(read);
        let used = self.parse(&mut left, limit, &mut on)?;
        if used < left.len() {
            left.drain(..used);
            self.left = left;
        }
        Ok(())
    }

    /// Begins with bytes that were read already.
    pub fn resume(left: Vec<u8>) -> Self {
        Self { left, fragments: None }
    }

    /// Whether whole frames may be waiting since `Flow::Stop`.
    pub fn has_left(&self) -> bool {
        !self.left.is_empty()
    }

    /// How many bytes are kept.
    #[cfg(any(test, feature = "fuzzing"))]
    pub fn kept(&self) -> usize {
        self.left.len() + self.fragments.as_ref().map_or(0, |fragments| fragments.payload.len())
    }

    /// How much of the bytes was handled.
    fn parse(
        &mut self,
        bytes: &mut [u8],
        limit: usize,
        on: &mut impl FnMut(Frame<'_>) -> Flow,
    ) -> Result<usize, Violation> {
        let mut at = 0;
        while let Some(header) = self.header(&bytes[at..], limit)? {
            let begin = at + header.head;
            let Some(payload) = bytes.get_mut(begin..begin + header.len) else {
                break;
            };
            unmask(payload, header.mask);
            at = begin + header.len;
            if self.frame(&header, payload, on)? == Flow::Stop {
                break;
            }
        }
        Ok(at)
    }

    /// None: the header is not whole yet. All that it can be refused for is refused here, before the payload is there.
    fn header(&self, bytes: &[u8], limit: usize) -> Result<Option<Header>, Violation> {
        let &[first, second, ..] = bytes else { return Ok(None) };
        if first & 0x70 != 0 {
            return Err(Violation::ReservedBit);
        }
        let (fin, opcode) = (first & 0x80 != 0, first & 0x0f);
        if !matches!(opcode, 0..=2 | 8..=10) {
            return Err(Violation::ReservedOpcode(opcode));
        }
        if second & 0x80 == 0 {
            return Err(Violation::Unmasked);
        }
        let short = usize::from(second & 0x7f);
        let is_control = opcode >= opcode::CLOSE;
        if is_control && !fin {
            return Err(Violation::FragmentedControl);
        }
        if is_control && short > CONTROL_MAX {
            return Err(Violation::LongControl);
        }
        match (opcode, &self.fragments) {
            (opcode::CONTINUATION, None) => return Err(Violation::StrayContinuation),
            (opcode::TEXT | opcode::BINARY, Some(_)) => return Err(Violation::Interleaved),
            _ => {}
        }
        let (len, mut head) = match short {
            126 => match bytes.get(2..4) {
                Some(len) => (u64::from(u16::from_be_bytes([len[0], len[1]])), 4),
                None => return Ok(None),
            },
            127 => match bytes.get(2..10).and_then(|len| <[u8; 8]>::try_from(len).ok()) {
                Some(len) => (u64::from_be_bytes(len), 10),
                None => return Ok(None),
            },
            len => (len as u64, 2),
        };
        if (short == 126 && len < 126) || (short == 127 && len < 65536) {
            return Err(Violation::OverlongLength);
        }
        let before = self.fragments.as_ref().map_or(0, |fragments| fragments.payload.len());
        if !is_control && len > (limit - before.min(limit)) as u64 {
            return Err(Violation::TooBig(limit));
        }
        let Some(mask) = bytes.get(head..head + 4).and_then(|mask| <[u8; 4]>::try_from(mask).ok()) else {
            return Ok(None);
        };
        head += 4;
        // It fits: it is not over the limit, which is a usize.
        Ok(Some(Header { fin, opcode, mask, head, len: len as usize }))
    }

    fn frame(
        &mut self,
        header: &Header,
        payload: &[u8],
        on: &mut impl FnMut(Frame<'_>) -> Flow,
    ) -> Result<Flow, Violation> {
        match (header.opcode, header.fin) {
            (opcode::TEXT, true) => Ok(on(Frame::Message(MessageRef::Text(text(payload)?)))),
            (opcode::BINARY, true) => Ok(on(Frame::Message(MessageRef::Binary(payload)))),
            (opcode::PING, _) => Ok(on(Frame::Ping(payload))),
            (opcode::PONG, _) => Ok(on(Frame::Pong)),
            (opcode::CLOSE, _) => Ok(on(Frame::Close(close(payload)?))),
            (opcode, fin) => {
                let is_text = opcode == opcode::TEXT;
                let fragments = self
                    .fragments
                    .get_or_insert_with(|| Box::new(Fragments { text: is_text, payload: Vec::new(), checked: 0 }));
                fragments.add(payload, fin)?;
                if !fin {
                    return Ok(Flow::Next);
                }
                let Some(fragments) = self.fragments.take() else {
                    return Ok(Flow::Next);
                };
                let message = match fragments.text {
                    true => MessageRef::Text(text(&fragments.payload)?),
                    false => MessageRef::Binary(&fragments.payload),
                };
                Ok(on(Frame::Message(message)))
            }
        }
    }
}

impl Fragments {
    /// Text is checked as it arrives, so that what cannot become UTF-8 is refused at once.
    fn add(&mut self, payload: &[u8], fin: bool) -> Result<(), Violation> {
        self.payload.extend_from_slice(payload);
        if !self.text || fin {
            return Ok(());
        }
        match std::str::from_utf8(&self.payload[self.checked..]) {
            Ok(_) => self.checked = self.payload.len(),
            // The last character is not whole yet.
            Err(error) if error.error_len().is_none() => self.checked += error.valid_up_to(),
            Err(_) => return Err(Violation::NotUtf8),
        }
        Ok(())
    }
}

fn text(payload: &[u8]) -> Result<&str, Violation> {
    simdutf8::basic::from_utf8(payload).map_err(|_| Violation::NotUtf8)
}

fn close(payload: &[u8]) -> Result<Close, Violation> {
    match payload {
        [] => Ok(Close { code: Close::NO_CODE, reason: "".into() }),
        [_] => Err(Violation::BadClose),
        [high, low, reason @ ..] => {
            let code = u16::from_be_bytes([*high, *low]);
            // Clients may send 1010 as well: an extension that they need was not offered.
            if !Close::may_send(code) && !matches!(code, 1002 | 1010) {
                return Err(Violation::BadClose);
            }
            Ok(Close { code, reason: text(reason)?.into() })
        }
    }
}

/// RFC 6455 section 5.3, eight bytes at a time.
fn unmask(payload: &mut [u8], mask: [u8; 4]) {
    let [a, b, c, d] = mask;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (words, rest) = payload.as_chunks_mut::<8>();
    for word in words {
        *word = (u64::from_ne_bytes(*word) ^ wide).to_ne_bytes();
    }
    for (byte, mask) in rest.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= mask;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: usize = 1000;

    /// A masked frame, as clients send.
    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![first];
        match payload.len() {
            len @ 0..126 => bytes.push(0x80 | len as u8),
            len => {
                bytes.push(0x80 | 126);
                bytes.extend((len as u16).to_be_bytes());
            }
        }
        let mask = [1, 2, 3, 4];
        bytes.extend(mask);
        bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        bytes
    }

    /// What comes out, as text, when the bytes are fed in pieces.
    fn fed(bytes: &[u8], piece: usize) -> Result<Vec<String>, Violation> {
        let mut decoder = Decoder::default();
        let mut out = Vec::new();
        for piece in bytes.chunks(piece) {
            decoder.feed(&mut piece.to_vec(), LIMIT, |frame| {
                out.push(format!("{frame:?}"));
                Flow::Next
            })?;
        }
        assert!(decoder.left.is_empty() || out.is_empty(), "whole frames leave nothing");
        Ok(out)
    }

    #[test]
    fn frames_come_out_whole_however_they_came_in() {
        let mut bytes = frame(0x81, "h\u{e9}llo".as_bytes());
        bytes.extend(frame(0x01, b"frag"));
        bytes.extend(frame(0x89, b"ping"));
        bytes.extend(frame(0x00, b"men"));
        bytes.extend(frame(0x80, b"ted"));
        bytes.extend(frame(0x82, &[7; 300]));
        bytes.extend(frame(0x88, &[3, 232]));
        let whole = fed(&bytes, bytes.len()).unwrap();
        assert_eq!(whole.len(), 5);
        assert_eq!(whole[0], "Message(Text(\"h\u{e9}llo\"))");
        assert_eq!(whole[1], "Ping([112, 105, 110, 103])");
        assert_eq!(whole[2], "Message(Text(\"fragmented\"))");
        assert_eq!(whole[4], "Close(Close { code: 1000, reason: \"\" })");
        for piece in [1, 2, 3, 7, 100] {
            assert_eq!(fed(&bytes, piece).unwrap(), whole, "in pieces of {piece}");
        }
    }

    #[test]
    fn violations_have_their_codes() {
        let unmasked = vec![0x81, 0x01, b'x'];
        let cases = [
            (frame(0xc1, b"x"), Violation::ReservedBit, 1002),
            (frame(0x83, b"x"), Violation::ReservedOpcode(3), 1002),
            (frame(0x8b, b"x"), Violation::ReservedOpcode(11), 1002),
            (unmasked, Violation::Unmasked, 1002),
            (frame(0x09, b"x"), Violation::FragmentedControl, 1002),
            (frame(0x89, &[0; 126]), Violation::LongControl, 1002),
            (frame(0x80, b"x"), Violation::StrayContinuation, 1002),
            ([frame(0x01, b"x"), frame(0x81, b"y")].concat(), Violation::Interleaved, 1002),
            (vec![0x82, 0x80 | 126, 0, 5], Violation::OverlongLength, 1002),
            (frame(0x88, &[3]), Violation::BadClose, 1002),
            (frame(0x88, &1005u16.to_be_bytes()), Violation::BadClose, 1002),
            (frame(0x88, &2999u16.to_be_bytes()), Violation::BadClose, 1002),
            (frame(0x88, &[3, 232, 0xff]), Violation::NotUtf8, 1007),
            (frame(0x81, &[0xff]), Violation::NotUtf8, 1007),
            ([frame(0x01, &[0xe2, 0x98]), frame(0x80, b"x")].concat(), Violation::NotUtf8, 1007),
            (frame(0x01, &[0xff]), Violation::NotUtf8, 1007),
            (frame(0x82, &[0; LIMIT + 1])[..4].to_vec(), Violation::TooBig(LIMIT), 1009),
            ([frame(0x02, &[0; LIMIT]), frame(0x80, b"x")].concat(), Violation::TooBig(LIMIT), 1009),
            (vec![0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0], Violation::TooBig(LIMIT), 1009),
        ];
        for (bytes, violation, code) in cases {
            assert_eq!(fed(&bytes, bytes.len()), Err(violation), "{bytes:?}");
            assert_eq!(violation.code(), code);
        }
        assert_eq!(fed(&frame(0x82, &[0; LIMIT]), 5000).unwrap().len(), 1);
    }

    #[test]
    fn a_character_may_be_split_over_fragments() {
        let bytes = [frame(0x01, &[0xe2]), frame(0x00, &[0x98]), frame(0x80, &[0x83])].concat();
        assert_eq!(fed(&bytes, 3).unwrap(), ["Message(Text(\"\u{2603}\"))"]);
    }

    #[test]
    fn what_was_stopped_goes_on_where_it_was() {
        let mut decoder = Decoder::default();
        let mut bytes = [frame(0x81, b"one"), frame(0x81, b"two"), frame(0x81, b"three")].concat();
        let mut seen = 0;
        for expected in 1..=3 {
            let mut read = std::mem::take(&mut bytes);
            decoder
                .feed(&mut read, LIMIT, |_| {
                    seen += 1;
                    Flow::Stop
                })
                .unwrap();
            assert_eq!(seen, expected);
            assert_eq!(decoder.has_left(), expected < 3);
        }
    }
}
