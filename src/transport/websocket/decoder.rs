//! Frames on their way in: strict, in place, and without memory while nothing is under way.
//!
//! Frames are parsed where they were read. Only the beginning of a frame that has not arrived as a whole, and the
//! fragments of a message, are kept. What a frame announces is checked against the limit before any of it is kept.

use crate::message::{Close, MessageRef};
use crate::wire::deflate::{self, Inflater, Parts};
use crate::wire::{FIN, RSV1, opcode};

/// The longest payload of a control frame (RFC 6455 section 5.5).
const CONTROL_MAX: usize = 125;
/// Fragments of a message that may have nothing in them. The others are bounded by what the message may be.
const EMPTY_FRAGMENTS: u16 = 1_000;

/// Something whole that has arrived.
#[derive(Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    Message(MessageRef<'a>),
    /// A message that was compressed, to so many bytes.
    Inflated(MessageRef<'a>, usize),
    Ping(&'a [u8]),
    Pong(&'a [u8]),
    Close(Close),
}

/// What the client must not do. Its session ends with the code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    #[error("a reserved bit is set that no extension was agreed on for")]
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
    #[error("the message inflates to more than {0} bytes")]
    InflatesTooBig(usize),
    #[error("a compressed message cannot be inflated")]
    NotDeflate,
    #[error("a message has more than {EMPTY_FRAGMENTS} empty fragments")]
    EmptyFragments,
}

impl Violation {
    /// RFC 6455 section 7.4.1. What cannot be inflated is "not consistent with the type of the message", as text that is
    /// not UTF-8 is; RFC 7692 names no code.
    pub fn code(self) -> u16 {
        match self {
            Self::NotUtf8 | Self::NotDeflate => Close::NOT_UTF8,
            Self::TooBig(_) | Self::InflatesTooBig(_) => Close::TOO_BIG,
            // No rule is broken, but nobody means it.
            Self::EmptyFragments => Close::POLICY,
            _ => Close::PROTOCOL,
        }
    }

    /// Why a compressed message was not inflated, for the metric's label.
    pub fn inflation(self) -> Option<&'static str> {
        match self {
            Self::InflatesTooBig(_) => Some("size"),
            Self::NotDeflate => Some("data"),
            _ => None,
        }
    }

    fn of(refused: deflate::Refused, limit: usize) -> Self {
        match refused {
            deflate::Refused::TooBig => Self::InflatesTooBig(limit),
            deflate::Refused::NotDeflate => Self::NotDeflate,
        }
    }
}

/// Whether the client's messages may be compressed, as the handshake has agreed.
#[derive(Default)]
pub enum Inflation {
    #[default]
    Off,
    /// Each for itself.
    Alone,
    /// A message may refer to those before it. The inflater is there from the first compressed one on.
    Takeover(Option<Box<Inflater>>),
}

impl Inflation {
    /// The session's own inflater, if it has one.
    fn own(&mut self) -> Option<&mut Inflater> {
        match self {
            Self::Takeover(own) => Some(own.get_or_insert_default()),
            Self::Off | Self::Alone => None,
        }
    }
}

/// What is under way from one client.
#[derive(Default)]
pub struct Decoder {
    /// The beginning of a frame, or frames that could not be handled yet.
    #[allow(clippy::box_collection, reason = "most often there is nothing: a word in each session instead of three")]
    left: Option<Box<Vec<u8>>>,
    fragments: Option<Box<Fragments>>,
    inflation: Inflation,
}

struct Fragments {
    text: bool,
    /// Inflated, where the message is compressed.
    payload: Vec<u8>,
    parts: Option<Parts>,
    /// So much of a text is known to be UTF-8.
    checked: usize,
    empty: u16,
}

/// Whether to go on with the next frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    Next,
    Stop,
}

struct Header {
    fin: bool,
    compressed: bool,
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
        let Some(mut left) = self.left.take() else {
            let used = self.parse(read, limit, &mut on)?;
            if used < read.len() {
                self.left = Some(Box::new(read[used..].to_vec()));
            }
            return Ok(());
        };
        left.extend_from_slice(read);
        let used = self.parse(&mut left, limit, &mut on)?;
        if used < left.len() {
            left.drain(..used);
            self.left = Some(left);
        }
        Ok(())
    }

    /// Begins with bytes that were read already.
    pub fn resume(left: Vec<u8>, inflation: Inflation) -> Self {
        Self { left: (!left.is_empty()).then(|| Box::new(left)), fragments: None, inflation }
    }

    /// Whether whole frames may be waiting since `Flow::Stop`.
    pub fn has_left(&self) -> bool {
        self.left.is_some()
    }

    /// How many bytes are kept.
    #[cfg(any(test, feature = "fuzzing"))]
    pub fn kept(&self) -> usize {
        let of = |fragments: &Fragments| fragments.payload.len() + fragments.parts.as_ref().map_or(0, Parts::waiting);
        self.left.as_ref().map_or(0, |left| left.len()) + self.fragments.as_deref().map_or(0, of)
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
            if self.frame(&header, payload, limit, on)? == Flow::Stop {
                break;
            }
        }
        Ok(at)
    }

    /// None: the header is not whole yet. All that it can be refused for is refused here, before the payload is there.
    fn header(&self, bytes: &[u8], limit: usize) -> Result<Option<Header>, Violation> {
        let &[first, second, ..] = bytes else { return Ok(None) };
        let (fin, compressed, opcode) = (first & FIN != 0, first & RSV1 != 0, first & 0x0f);
        let may_be_compressed =
            !matches!(self.inflation, Inflation::Off) && matches!(opcode, opcode::TEXT | opcode::BINARY);
        if first & 0x30 != 0 || (compressed && !may_be_compressed) {
            return Err(Violation::ReservedBit);
        }
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
        // What it inflates to is seen when it is inflated.
        let (before, most) = match self.fragments.as_deref() {
            Some(Fragments { parts: Some(parts), .. }) => (parts.arrived(), deflate::most(limit)),
            Some(fragments) => (fragments.payload.len(), limit),
            None if compressed => (0, deflate::most(limit)),
            None => (0, limit),
        };
        if !is_control && len > (most - before.min(most)) as u64 {
            return Err(Violation::TooBig(limit));
        }
        let Some(mask) = bytes.get(head..head + 4).and_then(|mask| <[u8; 4]>::try_from(mask).ok()) else {
            return Ok(None);
        };
        head += 4;
        // It fits: it is not over the limit, which is a usize.
        Ok(Some(Header { fin, compressed, opcode, mask, head, len: len as usize }))
    }

    fn frame(
        &mut self,
        header: &Header,
        payload: &[u8],
        limit: usize,
        on: &mut impl FnMut(Frame<'_>) -> Flow,
    ) -> Result<Flow, Violation> {
        match (header.opcode, header.fin) {
            (opcode::TEXT | opcode::BINARY, true) if header.compressed => {
                let is_text = header.opcode == opcode::TEXT;
                deflate::inflated(self.inflation.own(), payload, limit, |plain| {
                    Ok(on(Frame::Inflated(message(is_text, plain)?, payload.len())))
                })
                .map_err(|refused| Violation::of(refused, limit))?
            }
            (opcode::TEXT, true) => Ok(on(Frame::Message(MessageRef::Text(text(payload)?)))),
            (opcode::BINARY, true) => Ok(on(Frame::Message(MessageRef::Binary(payload)))),
            (opcode::PING, _) => Ok(on(Frame::Ping(payload))),
            (opcode::PONG, _) => Ok(on(Frame::Pong(payload))),
            (opcode::CLOSE, _) => Ok(on(Frame::Close(close(payload)?))),
            (opcode, fin) => {
                let known = self.fragments.as_ref().is_some_and(|fragments| fragments.parts.is_some());
                let own = if header.compressed || known { self.inflation.own() } else { None };
                let fragments = self.fragments.get_or_insert_with(|| {
                    let parts = header.compressed.then(|| Parts::begin(own.is_some()));
                    Box::new(Fragments {
                        text: opcode == opcode::TEXT,
                        payload: Vec::new(),
                        parts,
                        checked: 0,
                        empty: 0,
                    })
                });
                fragments.add(own, payload, fin, limit)?;
                if !fin {
                    return Ok(Flow::Next);
                }
                let Some(fragments) = self.fragments.take() else {
                    return Ok(Flow::Next);
                };
                let message = message(fragments.text, &fragments.payload)?;
                Ok(on(match fragments.parts {
                    Some(parts) => Frame::Inflated(message, parts.arrived()),
                    None => Frame::Message(message),
                }))
            }
        }
    }
}

impl Fragments {
    /// Text is checked as it arrives, so that what cannot become UTF-8 is refused at once.
    fn add(&mut self, own: Option<&mut Inflater>, payload: &[u8], fin: bool, limit: usize) -> Result<(), Violation> {
        if payload.is_empty() {
            self.empty += 1;
            if self.empty > EMPTY_FRAGMENTS {
                return Err(Violation::EmptyFragments);
            }
        }
        match &mut self.parts {
            Some(parts) => parts
                .add(own, &mut self.payload, payload, fin, limit)
                .map_err(|refused| Violation::of(refused, limit))?,
            None => self.payload.extend_from_slice(payload),
        }
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

fn message(is_text: bool, payload: &[u8]) -> Result<MessageRef<'_>, Violation> {
    Ok(if is_text { MessageRef::Text(text(payload)?) } else { MessageRef::Binary(payload) })
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
        fed_to(Inflation::Off, bytes, piece)
    }

    fn fed_to(inflation: Inflation, bytes: &[u8], piece: usize) -> Result<Vec<String>, Violation> {
        let mut decoder = Decoder::resume(Vec::new(), inflation);
        let mut out = Vec::new();
        for piece in bytes.chunks(piece) {
            decoder.feed(&mut piece.to_vec(), LIMIT, |frame| {
                out.push(format!("{frame:?}"));
                Flow::Next
            })?;
        }
        assert!(!decoder.has_left() || out.is_empty(), "whole frames leave nothing");
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

    /// "Hello", compressed (RFC 7692 section 7.2.3.1), and a second one that refers to it (7.2.3.2).
    const HELLO: [u8; 7] = [0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00];
    const AGAIN: [u8; 5] = [0xf2, 0x00, 0x11, 0x00, 0x00];

    #[test]
    fn compressed_messages_come_out_inflated() {
        let mut bytes = frame(0xc1, &HELLO);
        bytes.extend(frame(0x81, b"plain"));
        // Section 7.2.3.1's fragments, with a ping between.
        bytes.extend(frame(0x41, &HELLO[..3]));
        bytes.extend(frame(0x89, b"ping"));
        bytes.extend(frame(0x80, &HELLO[3..]));
        bytes.extend(frame(0xc2, &[0x00]));
        let expected = [
            "Inflated(Text(\"Hello\"), 7)",
            "Message(Text(\"plain\"))",
            "Ping([112, 105, 110, 103])",
            "Inflated(Text(\"Hello\"), 7)",
            "Inflated(Binary([]), 1)",
        ];
        for piece in [1, 2, 3, 7, 100] {
            assert_eq!(fed_to(Inflation::Alone, &bytes, piece).unwrap(), expected, "in pieces of {piece}");
        }
        let two = [frame(0xc1, &HELLO), frame(0x81, b"x"), frame(0xc1, &AGAIN)].concat();
        assert_eq!(fed_to(Inflation::Alone, &two, 100), Err(Violation::NotDeflate));
        let seen = fed_to(Inflation::Takeover(None), &two, 100).unwrap();
        assert_eq!(seen[2], "Inflated(Text(\"Hello\"), 5)");
    }

    #[test]
    fn violations_of_compression_have_their_codes() {
        // 1,001 bytes, once in fragments; and what is so long that no reasonable sender can have meant 1,000.
        let stored =
            |len: u16| [&[0x00], &len.to_le_bytes()[..], &(!len).to_le_bytes(), &vec![b'x'; len.into()]].concat();
        let (long, longest) = ([stored(1001), vec![0]].concat(), [stored(1000), vec![0]].concat());
        let cases = [
            (frame(0xc9, b"x"), Violation::ReservedBit, 1002),
            ([frame(0x41, &HELLO), frame(0xc0, b"")].concat(), Violation::ReservedBit, 1002),
            ([frame(0x01, b"x"), frame(0xc0, b"")].concat(), Violation::ReservedBit, 1002),
            (frame(0xa1, b"x"), Violation::ReservedBit, 1002),
            (frame(0x91, b"x"), Violation::ReservedBit, 1002),
            (frame(0xc1, &HELLO[..5]), Violation::NotDeflate, 1007),
            (frame(0x41, &[0x07]), Violation::NotDeflate, 1007),
            (frame(0xc1, &[0x00, 0x01, 0x00, 0xfe, 0xff, 0xff, 0x00]), Violation::NotUtf8, 1007),
            (frame(0x41, &[0x00, 0x01, 0x00, 0xfe, 0xff, 0xff, 0x00]), Violation::NotUtf8, 1007),
            (frame(0xc2, &long), Violation::InflatesTooBig(LIMIT), 1009),
            (frame(0x42, &long), Violation::InflatesTooBig(LIMIT), 1009),
            (vec![0xc2, 0x80 | 126, 0x06, 0x00], Violation::TooBig(LIMIT), 1009),
            ([frame(0x42, &longest), frame(0x00, &[0; 400])].concat(), Violation::TooBig(LIMIT), 1009),
        ];
        for inflation in [|| Inflation::Alone, || Inflation::Takeover(None)] {
            for (bytes, violation, code) in &cases {
                // Where messages refer to each other, a short one cannot be told from one that goes on.
                if *violation == Violation::NotDeflate && matches!(inflation(), Inflation::Takeover(_)) {
                    continue;
                }
                assert_eq!(fed_to(inflation(), bytes, bytes.len()), Err(*violation), "{bytes:x?}");
                assert_eq!(violation.code(), *code);
            }
            assert_eq!(fed_to(inflation(), &frame(0xc2, &longest), 5000).unwrap().len(), 1);
        }
        assert_eq!(fed(&frame(0xc1, &HELLO), 100), Err(Violation::ReservedBit));
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
