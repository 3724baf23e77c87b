//! Frames on their way in: whatever a client sends, however the network cuts it.

use super::input::{Input, Random};
use crate::message::Message;
use crate::transport::websocket::{Decoder, Flow, Frame, Inflation, Violation};
use crate::wire::deflate::{self, Compression, Context};
use crate::wire::{self, FIN, RSV1, opcode};

/// A frame's longest header.
const HEAD: usize = 14;
/// The longest control frame's payload.
const CONTROL: usize = 125;

/// Decodes the same bytes whole, in pieces, and with stops, and compares.
pub fn decoder(input: &[u8]) {
    let mut input = Input::new(input);
    let limit = input.pick(&[0, 1, 20, 125, 126, 300, 65_535, 70_000]);
    let mut random = Random(input.u64());
    let raw = input.often(40);
    let stops = input.often(128);
    let longest = input.pick(&[1, 2, 3, 7, 16, 200, 70_000]);
    let mode = input.pick(&[Mode::Plain, Mode::Alone, Mode::Takeover]);
    let bytes = if raw { input.rest().to_vec() } else { frames(&mut input, mode) };

    let whole = run(&[&bytes], limit, mode, None);
    let mut pieces = Vec::new();
    let mut rest = bytes.as_slice();
    while !rest.is_empty() {
        let (piece, after) = rest.split_at((random.below(longest) as usize + 1).min(rest.len()));
        pieces.push(piece);
        rest = after;
    }
    let cut = run(&pieces, limit, mode, stops.then_some(&mut random));
    assert!(whole == cut, "in one piece: {whole:?}\nin {} pieces: {cut:?}\nof: {bytes:?}", pieces.len());
}

/// What was agreed on in the handshake.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Plain,
    Alone,
    Takeover,
}

/// What came out.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    Message(Message),
    Ping(Vec<u8>),
    Pong,
    Close(u16, Box<str>),
}

/// What comes out, and how it ends.
fn run(pieces: &[&[u8]], limit: usize, mode: Mode, mut stops: Option<&mut Random>) -> (Vec<Seen>, Option<Violation>) {
    let mut decoder = Decoder::resume(
        Vec::new(),
        match mode {
            Mode::Plain => Inflation::Off,
            Mode::Alone => Inflation::Alone,
            Mode::Takeover => Inflation::Takeover(None),
        },
    );
    let mut seen = Vec::new();
    for piece in pieces {
        let mut read = piece.to_vec();
        loop {
            let mut stopped = false;
            let fed = decoder.feed(&mut read, limit, |frame| {
                assert!(!stopped, "a frame came after the stop");
                seen.push(match frame {
                    Frame::Inflated(..) if mode == Mode::Plain => panic!("nobody has agreed on compression"),
                    Frame::Message(message) | Frame::Inflated(message, _) => {
                        assert!(message.len() <= limit, "a message over the limit of {limit}");
                        Seen::Message(message.to_owned())
                    }
                    Frame::Ping(payload) => Seen::Ping(payload.to_vec()),
                    Frame::Pong(_) => Seen::Pong,
                    Frame::Close(close) => Seen::Close(close.code, (&*close.reason).into()),
                });
                stopped = stops.as_mut().is_some_and(|random| random.below(3) == 0);
                if stopped { Flow::Stop } else { Flow::Next }
            });
            if let Err(violation) = fed {
                return (seen, Some(violation));
            }
            if !stopped {
                break;
            }
            read.clear();
        }
        let frame = if mode == Mode::Plain { limit } else { deflate::most(limit) };
        let most = frame.max(CONTROL) + HEAD + limit;
        assert!(decoder.kept() <= most, "{} bytes are kept, the limit is {limit}", decoder.kept());
    }
    (seen, None)
}

/// Payloads of compressed messages, in fragments.
struct Deflated {
    context: Option<Context>,
    /// What is left of the message that has begun.
    rest: Vec<u8>,
}

impl Deflated {
    /// The next fragment of a message that is mostly right; the last one is all that is left.
    fn next(&mut self, input: &mut Input<'_>, begins: bool, last: bool) -> Vec<u8> {
        if begins {
            let length = input.pick(&[0, 1, 20, 125, 126, 299, 300, 301, 1000, 70_000, 70_001]);
            let noise = usize::from(input.byte());
            let text = b"\xe4\xb8\xad {\"a\": 1} ".iter().copied().cycle();
            let plain: Vec<u8> = (0..noise).map(|_| input.byte()).chain(text).take(length).collect();
            let how = Compression { window: input.pick(&[9, 12, 15]), level: input.pick(&[1, 3, 9]), threshold: 0 };
            let (mut frame, mut frames) = (Vec::new(), Vec::new());
            wire::frame(&mut frame, opcode::BINARY, &plain);
            match &mut self.context {
                Some(context) => context.compress(&mut frames, &frame, how, input.often(60)),
                None => deflate::compress(&mut frames, &frame, how),
            };
            let head = match frames.get(1) {
                Some(126) => 4,
                Some(127) => 10,
                _ => 2,
            };
            // What could not be compressed is nothing that can be inflated.
            self.rest = frames.split_off(head);
            if input.often(30) && !self.rest.is_empty() {
                let at = input.below(self.rest.len());
                self.rest[at] ^= input.byte();
            }
        }
        let whole = self.rest.len();
        let some = if last { whole } else { input.below(whole + 1) };
        self.rest.drain(..some).collect()
    }
}

/// Frames that are mostly right.
fn frames(input: &mut Input<'_>, mode: Mode) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut deflated = Deflated { context: (mode == Mode::Takeover).then(Context::default), rest: Vec::new() };
    while !input.is_empty() && bytes.len() < 100_000 {
        let opcode = match input.often(230) {
            true => input.pick(&[opcode::TEXT, opcode::BINARY, 0, 0, opcode::PING, opcode::PONG, opcode::CLOSE]),
            false => input.byte() & 0x0f,
        };
        let fin = if input.often(170) { FIN } else { 0 };
        let begins = matches!(opcode, opcode::TEXT | opcode::BINARY);
        let goes_on = opcode == opcode::CONTINUATION && !deflated.rest.is_empty();
        if mode != Mode::Plain && (goes_on || (begins && input.often(150))) {
            let body = deflated.next(input, begins, fin != 0);
            let first = bytes.len();
            wire::frame(&mut bytes, opcode, &body);
            let head = bytes.len() - body.len();
            bytes[first] = fin | opcode | if begins { RSV1 } else { 0 };
            bytes[first + 1] |= 0x80;
            // A mask that changes nothing.
            bytes.splice(head..head, [0; 4]);
            continue;
        }
        let reserved = if input.often(3) { input.byte() & 0x70 } else { 0 };
        bytes.push(fin | reserved | opcode);
        let length = input.pick(&[0, 1, 2, 5, 20, 60, 124, 125, 126, 127, 300, 1000, 65_535, 65_536, 0, 1]);
        let masked = if input.often(250) { 0x80 } else { 0 };
        match input.pick(&[0, 0, 0, 0, 0, 0, 0, 1, 2]) {
            0 if length < 126 => bytes.push(masked | length as u8),
            0 | 1 if length <= 0xffff => {
                bytes.push(masked | 126);
                bytes.extend((length as u16).to_be_bytes());
            }
            _ => {
                bytes.push(masked | 127);
                let length = if input.often(20) { input.u64() } else { length as u64 };
                bytes.extend(length.to_be_bytes());
            }
        }
        let mask: [u8; 4] = if input.often(128) { [0; 4] } else { input.take() };
        bytes.extend(mask);
        let body: Vec<u8> = match input.pick(&[0, 0, 0, 1, 2, 3]) {
            0 => b"abcdefg".iter().copied().cycle().take(length).collect(),
            1 => "\u{e4}\u{2603}\u{1f30a}".bytes().cycle().take(length).collect(),
            2 => [3, 232].into_iter().chain([b'x'; 200]).take(length.min(200)).collect(),
            _ => (0..length.min(40)).map(|_| input.byte()).collect(),
        };
        bytes.extend(body.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    }
    bytes
}
