//! Compressed messages (permessage-deflate, RFC 7692): whole messages in, payloads out, and the other way round.
//!
//! Where no message refers to an earlier one, all of them go through the few compressors of the thread, and a session
//! owns nothing. Where they do (context takeover), each side of each session has a window of its own, and the memory
//! that goes with it.

use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};

use zlib_rs::{Deflate, DeflateConfig, DeflateFlush, Inflate, InflateFlush, Status};

use super::{FIN, RSV1, frame, next, opcode};

/// What every compressed message ends with, and what is not sent (RFC 7692 section 7.2.1).
const TAIL: [u8; 4] = [0x00, 0x00, 0xff, 0xff];
/// A last block without content: what may follow a message that is whole.
const LAST: [u8; 5] = [0x01, 0x00, 0x00, 0xff, 0xff];
/// Compressors that a thread keeps, one for each window and level: 140 to 380 KB each.
const KEPT: usize = 4;
/// Messages in fragments that may have an inflater of their own at a time: 48 KB each. The fragments of others wait
/// until the last has come.
const LENT: usize = 64;
/// Buffers larger than this are given back.
const KEEP: usize = 64 << 10;
/// The least that a buffer grows by, and the most.
const GROW: (usize, usize) = (1 << 10, 256 << 10);

/// The smallest window that can be asked of zlib, and the largest there is, as powers of two.
pub const WINDOWS: std::ops::RangeInclusive<u8> = 9..=15;

/// How messages to a client are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compression {
    /// How far back a message may refer, as a power of two.
    pub window: u8,
    /// 1 to 9.
    pub level: u8,
    /// Payloads that are shorter go as they are.
    pub threshold: usize,
}

/// Payload bytes of what was compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    pub plain: u64,
    pub compressed: u64,
}

/// A message that cannot be inflated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// There is more than may be. What came before is there.
    TooBig,
    NotDeflate,
}

/// What a thread keeps for the messages that pass.
#[derive(Default)]
struct Bench {
    compressors: Vec<Compressor>,
    inflater: Option<Inflater>,
    compressed: Vec<u8>,
    plain: Vec<u8>,
}

thread_local! {
    static BENCH: Cell<Option<Box<Bench>>> = const { Cell::new(None) };
}

fn at_bench<T>(work: impl FnOnce(&mut Bench) -> T) -> T {
    let mut bench = BENCH.take().unwrap_or_default();
    let done = work(&mut bench);
    for buffer in [&mut bench.compressed, &mut bench.plain] {
        buffer.clear();
        buffer.shrink_to(KEEP);
    }
    BENCH.set(Some(bench));
    done
}

/// Appends the frames, which `wire` has written, with their messages compressed: those that are long enough, and that
/// become shorter by it.
pub fn compress(out: &mut Vec<u8>, frames: &[u8], how: Compression) -> Sizes {
    at_bench(|bench| {
        let place = bench.compressors.iter().position(|one| (one.window, one.level) == (how.window, how.level));
        let mut compressor = match place {
            Some(place) => bench.compressors.remove(place),
            None => Compressor::new(how.window, how.level),
        };
        let sizes = each(out, frames, how.threshold, &mut bench.compressed, |compressed, payload| {
            compressor.reset();
            compressor.compress(compressed, payload) && compressed.len() < payload.len()
        });
        // The one that was used last stands last.
        if bench.compressors.len() == KEPT {
            bench.compressors.remove(0);
        }
        bench.compressors.push(compressor);
        sizes
    })
}

/// Compresses frame by frame, where `with` can and it is worth it.
fn each(
    out: &mut Vec<u8>,
    mut frames: &[u8],
    threshold: usize,
    compressed: &mut Vec<u8>,
    mut with: impl FnMut(&mut Vec<u8>, &[u8]) -> bool,
) -> Sizes {
    let mut sizes = Sizes::default();
    while let Some(one) = next(&mut frames) {
        let opcode = one.first & 0x0f;
        let is_message = one.first & FIN != 0 && matches!(opcode, opcode::TEXT | opcode::BINARY);
        compressed.clear();
        if is_message && one.payload.len() >= threshold.max(1) && with(compressed, one.payload) {
            frame(out, RSV1 | opcode, compressed);
            sizes.plain += one.payload.len() as u64;
            sizes.compressed += compressed.len() as u64;
        } else {
            out.extend_from_slice(one.whole);
        }
    }
    sizes
}

/// One direction of a session in which a message may refer to those before it.
#[derive(Default)]
pub struct Context {
    compressor: Option<Compressor>,
    /// The client may not have got all that the window holds.
    uncertain: bool,
}

impl Context {
    /// As `compress`, but the messages refer to those before. `alone`: these frames may be dropped, or overtaken by later
    /// ones, so neither do they refer to anything before nor anything after to them.
    pub fn compress(&mut self, out: &mut Vec<u8>, frames: &[u8], how: Compression, alone: bool) -> Sizes {
        let compressor = self.compressor.get_or_insert_with(|| Compressor::new(how.window, how.level));
        let mut forget = self.uncertain || alone;
        let sizes = at_bench(|bench| {
            each(out, frames, how.threshold, &mut bench.compressed, |compressed, payload| {
                if forget {
                    compressor.reset();
                }
                let done = compressor.compress(compressed, payload);
                // Nothing may refer to what was not sent.
                forget = !done;
                done
            })
        });
        self.uncertain = alone || forget;
        sizes
    }

    /// What was compressed last will not reach the client.
    pub fn lost(&mut self) {
        self.uncertain = true;
    }
}

struct Compressor {
    deflate: Deflate,
    window: u8,
    level: u8,
}

impl Compressor {
    fn new(window: u8, level: u8) -> Self {
        let window = window.clamp(*WINDOWS.start(), *WINDOWS.end());
        let config = DeflateConfig {
            level: i32::from(level.clamp(1, 9)),
            // Negative: without zlib's own header.
            window_bits: -i32::from(window),
            // As zlib's default is for the largest window; what goes with smaller ones shrinks with them.
            mem_level: i32::from(window) - 7,
            ..DeflateConfig::default()
        };
        Self { deflate: Deflate::new_with_config(config), window, level }
    }

    fn reset(&mut self) {
        self.deflate.reset();
    }

    /// Appends the message's payload as RFC 7692 section 7.2.1 has it; false where the library fails, which leaves `out`
    /// with something that is not to be sent.
    fn compress(&mut self, out: &mut Vec<u8>, payload: &[u8]) -> bool {
        let mut rest = payload;
        // So much that one call is enough, whatever the payload.
        let mut room = payload.len() + payload.len() / 4 + 64;
        loop {
            let (read, written, before) = (self.deflate.total_in(), self.deflate.total_out(), out.len());
            out.resize(before + room, 0);
            let done = self.deflate.compress(rest, &mut out[before..], DeflateFlush::SyncFlush);
            let written = (self.deflate.total_out() - written) as usize;
            out.truncate(before + written);
            rest = &rest[(self.deflate.total_in() - read) as usize..];
            match done {
                Ok(Status::Ok) if rest.is_empty() && written < room => break,
                Ok(Status::Ok) if written > 0 => room = rest.len() + GROW.0,
                _ => return false,
            }
        }
        let is_whole = out.ends_with(&TAIL);
        out.truncate(out.len() - if is_whole { TAIL.len() } else { 0 });
        is_whole
    }
}

/// Inflates messages, one after the other.
pub struct Inflater {
    inflate: Inflate,
    /// The sender has ended its deflate stream with what came last.
    ended: bool,
}

impl Default for Inflater {
    fn default() -> Self {
        // A client may use the largest window whatever was agreed on, if it was not told otherwise.
        Self { inflate: Inflate::new(false, *WINDOWS.end()), ended: false }
    }
}

impl Inflater {
    fn reset(&mut self) {
        self.inflate.reset(false);
        self.ended = false;
    }

    /// Appends what a part of a message's payload inflates to; there may be `limit` bytes in all.
    pub fn add(&mut self, out: &mut Vec<u8>, part: &[u8], limit: usize) -> Result<(), Refused> {
        let mut rest = part;
        loop {
            if rest.is_empty() && self.ended {
                return Ok(());
            }
            if std::mem::take(&mut self.ended) {
                // A message may consist of several streams (RFC 7692 section 7.2.3.4).
                self.inflate.reset(false);
            }
            let before = out.len();
            // One byte more than may be there, which is how that is noticed.
            let room = (limit - limit.min(before)) + 1;
            let room = room.min((rest.len() * 4).max(before).clamp(GROW.0, GROW.1));
            let (read, written) = (self.inflate.total_in(), self.inflate.total_out());
            out.resize(before + room, 0);
            let done = self.inflate.decompress(rest, &mut out[before..], InflateFlush::SyncFlush);
            let read = (self.inflate.total_in() - read) as usize;
            let written = (self.inflate.total_out() - written) as usize;
            out.truncate(before + written);
            rest = &rest[read..];
            if out.len() > limit {
                out.truncate(limit);
                return Err(Refused::TooBig);
            }
            match done {
                Ok(Status::StreamEnd) => self.ended = true,
                Ok(_) if rest.is_empty() && written < room => return Ok(()),
                Ok(_) if read > 0 || written > 0 => {}
                Ok(_) | Err(_) => return Err(Refused::NotDeflate),
            }
        }
    }

    /// The message's end: what senders leave out (RFC 7692 section 7.2.2).
    pub fn finish(&mut self, out: &mut Vec<u8>, limit: usize) -> Result<(), Refused> {
        if self.ended { Ok(()) } else { self.add(out, &TAIL, limit) }
    }

    /// As `finish`, where no later message refers to this one: then it shows whether this one is whole.
    fn finish_last(&mut self, out: &mut Vec<u8>, limit: usize) -> Result<(), Refused> {
        self.finish(out, limit)?;
        if self.ended {
            return Ok(());
        }
        let before = out.len();
        self.add(out, &LAST, limit)?;
        if self.ended && out.len() == before { Ok(()) } else { Err(Refused::NotDeflate) }
    }
}

/// Inflates a whole message, and hands it on in a buffer of the thread's. `own` is the session's inflater, where messages
/// refer to earlier ones.
pub fn inflated<T>(
    own: Option<&mut Inflater>,
    payload: &[u8],
    limit: usize,
    then: impl FnOnce(&[u8]) -> T,
) -> Result<T, Refused> {
    // Nobody else's while the message is handled, which may compress.
    let mut plain = at_bench(|bench| std::mem::take(&mut bench.plain));
    let done = inflate_whole(own, &mut plain, payload, limit);
    let answer = done.map(|()| then(&plain));
    at_bench(|bench| bench.plain = plain);
    answer
}

fn inflate_whole(own: Option<&mut Inflater>, out: &mut Vec<u8>, payload: &[u8], limit: usize) -> Result<(), Refused> {
    if payload.is_empty() {
        return Ok(());
    }
    if let Some(own) = own {
        own.add(out, payload, limit)?;
        return own.finish(out, limit);
    }
    at_bench(|bench| {
        let inflater = bench.inflater.get_or_insert_default();
        inflater.reset();
        inflater.add(out, payload, limit)?;
        inflater.finish_last(out, limit)
    })
}

/// The most that a message of `limit` bytes can be when it is compressed, by whoever does so without reason.
pub fn most(limit: usize) -> usize {
    limit.saturating_add(limit / 8 + 256)
}

/// A compressed message that arrives in fragments.
pub struct Parts {
    inflater: Option<Lent>,
    /// What arrived, where no inflater could be lent: it is inflated when the message is whole.
    waiting: Vec<u8>,
    arrived: usize,
}

impl Parts {
    /// `own`: the session has an inflater, and hands it to `add`.
    pub fn begin(own: bool) -> Self {
        Self { inflater: (!own).then(Lent::new).flatten(), waiting: Vec::new(), arrived: 0 }
    }

    /// Payload bytes that have arrived.
    pub fn arrived(&self) -> usize {
        self.arrived
    }

    /// Payload bytes that wait.
    #[cfg(any(test, feature = "fuzzing"))]
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Appends what the next part inflates to, as far as that is known.
    pub fn add(
        &mut self,
        own: Option<&mut Inflater>,
        out: &mut Vec<u8>,
        part: &[u8],
        last: bool,
        limit: usize,
    ) -> Result<(), Refused> {
        self.arrived += part.len();
        let has_end = last && self.arrived > 0;
        match (own, &mut self.inflater) {
            (Some(own), _) => {
                own.add(out, part, limit)?;
                if has_end { own.finish(out, limit) } else { Ok(()) }
            }
            (None, Some(Lent(inflater))) => {
                inflater.add(out, part, limit)?;
                if has_end { inflater.finish_last(out, limit) } else { Ok(()) }
            }
            (None, None) => {
                self.waiting.extend_from_slice(part);
                if last { inflate_whole(None, out, &std::mem::take(&mut self.waiting), limit) } else { Ok(()) }
            }
        }
    }
}

static OUT: AtomicUsize = AtomicUsize::new(0);

/// An inflater of which there are only so many.
struct Lent(Inflater);

impl Lent {
    fn new() -> Option<Self> {
        let lent = OUT.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |out| (out < LENT).then_some(out + 1));
        lent.is_ok().then(|| Self(Inflater::default()))
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        OUT.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOW: Compression = Compression { window: 15, level: 6, threshold: 0 };

    fn frames(payloads: &[&[u8]]) -> Vec<u8> {
        let mut out = Vec::new();
        payloads.iter().for_each(|payload| frame(&mut out, opcode::TEXT, payload));
        out
    }

    /// First bytes and payloads.
    fn taken(mut frames: &[u8]) -> Vec<(u8, Vec<u8>)> {
        std::iter::from_fn(|| next(&mut frames).map(|one| (one.first, one.payload.to_vec()))).collect()
    }

    fn whole(own: Option<&mut Inflater>, payload: &[u8], limit: usize) -> Result<Vec<u8>, Refused> {
        inflated(own, payload, limit, <[u8]>::to_vec)
    }

    fn json(number: usize, len: usize) -> Vec<u8> {
        let one = format!("{{\"id\":{number},\"kind\":\"quote\",\"bid\":{}.25}},", number * 7);
        one.bytes().cycle().take(len).collect()
    }

    #[test]
    fn the_examples_of_the_rfc_are_inflated() {
        let hello: [&[u8]; 4] = [
            // Section 7.2.3.1, one block; 7.2.3.3, without compression; 7.2.3.4, a last block; 7.2.3.5, two blocks.
            &[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00],
            &[0x00, 0x05, 0x00, 0xfa, 0xff, 0x48, 0x65, 0x6c, 0x6c, 0x6f, 0x00],
            &[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00],
            &[0xf2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xff, 0xff, 0xca, 0xc9, 0xc9, 0x07, 0x00],
        ];
        for payload in hello {
            assert_eq!(whole(None, payload, 5).unwrap(), b"Hello", "{payload:x?}");
            assert_eq!(whole(Some(&mut Inflater::default()), payload, 5).unwrap(), b"Hello");
            for cut in 0..=payload.len() {
                let (mut parts, mut out) = (Parts::begin(false), Vec::new());
                parts.add(None, &mut out, &payload[..cut], false, 5).unwrap();
                parts.add(None, &mut out, &payload[cut..], true, 5).unwrap();
                assert_eq!(out, b"Hello");
            }
        }
        // Section 7.2.3.2: the second refers to the first.
        let mut own = Inflater::default();
        for payload in [&[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00][..], &[0xf2, 0x00, 0x11, 0x00, 0x00]] {
            assert_eq!(whole(Some(&mut own), payload, 5).unwrap(), b"Hello");
        }
        assert_eq!(whole(None, &[0xf2, 0x00, 0x11, 0x00, 0x00], 5), Err(Refused::NotDeflate), "there is none before");
        // Section 7.2.3.6, and what zlib makes of nothing where it has just ended a block.
        assert_eq!(whole(None, &[0x00], 0).unwrap(), b"");
        assert_eq!(whole(None, &[], 0).unwrap(), b"");
        // A last block without the byte that should follow it.
        assert_eq!(whole(None, &[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00], 5).unwrap(), b"Hello");
    }

    #[test]
    fn what_is_compressed_here_is_what_the_rfc_shows() {
        let mut compressor = Compressor::new(15, 6);
        let mut out = Vec::new();
        assert!(compressor.compress(&mut out, b"Hello"));
        assert_eq!(out, [0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00]);
        out.clear();
        assert!(compressor.compress(&mut out, b"Hello"));
        assert_eq!(out, [0xf2, 0x00, 0x11, 0x00, 0x00]);
    }

    #[test]
    fn every_window_level_and_length_comes_back() {
        for window in WINDOWS {
            for level in 1..=9 {
                let how = Compression { window, level, threshold: 0 };
                let (mut context, mut own) = (Context::default(), Inflater::default());
                for len in [0, 1, 2, 100, 1000, 70_000, 200_000] {
                    let plain = frames(&[&json(level.into(), len), &json(7, len / 2)]);
                    let (mut alone, mut referring) = (Vec::new(), Vec::new());
                    compress(&mut alone, &plain, how);
                    context.compress(&mut referring, &plain, how, false);
                    for ((first, payload), (_, expected)) in taken(&alone).iter().zip(taken(&plain)) {
                        let is_compressed = first & RSV1 != 0;
                        assert!(is_compressed || expected.len() <= 100, "{window} {level} {len}");
                        let message = if is_compressed { whole(None, payload, 1 << 20) } else { Ok(payload.clone()) };
                        assert!(message.unwrap() == expected, "{window} {level} {len}");
                    }
                    for ((first, payload), (_, expected)) in taken(&referring).iter().zip(taken(&plain)) {
                        let mut of_one = || whole(Some(&mut own), payload, 1 << 20);
                        let message = if first & RSV1 != 0 { of_one().unwrap() } else { payload.clone() };
                        assert!(message == expected, "{window} {level} {len}");
                    }
                }
            }
        }
    }

    #[test]
    fn only_messages_that_gain_are_compressed() {
        let (short, long, noise) = (json(1, 99), json(1, 100), (0..200_u8).collect::<Vec<_>>());
        let mut plain = frames(&[&short, &long, &noise]);
        frame(&mut plain, opcode::PING, &long);
        let mut out = Vec::new();
        let sizes = compress(&mut out, &plain, Compression { threshold: 100, ..HOW });
        let firsts: Vec<_> = taken(&out).iter().map(|(first, _)| *first).collect();
        assert_eq!(firsts, [0x81, 0xc1, 0x81, 0x89]);
        assert_eq!((sizes.plain, sizes.compressed), (100, taken(&out)[1].1.len() as u64));
    }

    #[test]
    fn nothing_refers_to_what_may_be_lost() {
        let (mut context, mut own) = (Context::default(), Inflater::default());
        let mut read = |frames: &[u8]| {
            for (_, payload) in taken(frames) {
                assert_eq!(whole(Some(&mut own), &payload, 1000).unwrap(), json(3, 500));
            }
        };
        let plain = frames(&[&json(3, 500)]);
        let mut next = |alone, lost| {
            let mut out = Vec::new();
            context.compress(&mut out, &plain, HOW, alone);
            if lost {
                context.lost();
            }
            out
        };
        let (first, second) = (next(false, false), next(false, false));
        assert!(second.len() < first.len() / 2, "it refers to the first: {} and {}", first.len(), second.len());
        read(&first);
        read(&second);
        let (lost, after) = (next(false, true), next(false, false));
        assert!(lost.len() < first.len() / 2 && after.len() == first.len());
        read(&after);
        let (alone, overtaking, after) = (next(true, false), next(true, false), next(false, false));
        assert_eq!([alone.len(), overtaking.len(), after.len()], [first.len(); 3]);
        read(&overtaking);
        read(&alone);
        read(&after);
        read(&next(false, false));
    }

    #[test]
    fn a_bomb_goes_no_further_than_the_limit() {
        let mut bomb = Vec::new();
        assert!(Compressor::new(15, 9).compress(&mut bomb, &vec![0; 32 << 20]));
        assert!(bomb.len() < 64 << 10);
        let (mut parts, mut out) = (Parts::begin(false), Vec::new());
        assert_eq!(parts.add(None, &mut out, &bomb, false, 1 << 20), Err(Refused::TooBig));
        assert_eq!(out.len(), 1 << 20);
        assert!(out.capacity() < 3 << 20);
        assert_eq!(whole(None, &bomb, (32 << 20) - 1), Err(Refused::TooBig));
        assert_eq!(whole(None, &bomb, 32 << 20).unwrap().len(), 32 << 20);
    }

    #[test]
    fn what_is_cut_off_or_changed_is_refused() {
        let mut out = Vec::new();
        compress(&mut out, &frames(&[&json(5, 3000)]), HOW);
        let payload = taken(&out).remove(0).1;
        for len in 1..payload.len() {
            assert_eq!(whole(None, &payload[..len], 1 << 20), Err(Refused::NotDeflate), "{len} of {}", payload.len());
        }
        assert_eq!(whole(None, &[0x07], 10), Err(Refused::NotDeflate), "there is no such block");
        assert_eq!(whole(None, &[&payload[..], &[0xff; 9]].concat(), 1 << 20), Err(Refused::NotDeflate));
    }

    #[test]
    fn without_an_inflater_the_parts_wait() {
        let mut out = Vec::new();
        compress(&mut out, &frames(&[&json(5, 3000)]), HOW);
        let payload = taken(&out).remove(0).1;
        let (early, late) = payload.split_at(payload.len() / 2);
        let mut parts = Parts { inflater: None, waiting: Vec::new(), arrived: 0 };
        let mut out = Vec::new();
        parts.add(None, &mut out, early, false, 3000).unwrap();
        assert_eq!((out.len(), parts.waiting()), (0, early.len()));
        parts.add(None, &mut out, late, true, 3000).unwrap();
        assert_eq!((out, parts.waiting()), (json(5, 3000), 0));
    }
}
