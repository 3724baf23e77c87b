//! permessage-deflate without context takeover: each message for itself.

use zlib_rs::{Deflate, DeflateConfig, DeflateFlush, Inflate, InflateFlush, Status};

use crate::plan::MAX_MESSAGE;

/// What is asked for in the handshake.
pub const OFFER: &str = "permessage-deflate; client_no_context_takeover; server_no_context_takeover";

/// What a compressed message ends with, and what is not sent (RFC 7692, 7.2.1).
const TAIL: [u8; 4] = [0, 0, 0xff, 0xff];

/// Compresses a message; none where the library fails, or where it does not get shorter.
pub fn compressed(payload: &[u8]) -> Option<Vec<u8>> {
    // Negative: without zlib's own header.
    let mut deflate =
        Deflate::new_with_config(DeflateConfig { level: 6, window_bits: -15, ..DeflateConfig::default() });
    let mut out = vec![0; payload.len() + payload.len() / 8 + 128];
    let done = deflate.compress(payload, &mut out, DeflateFlush::SyncFlush);
    out.truncate(usize::try_from(deflate.total_out()).ok()?);
    let is_whole = done.is_ok() && deflate.total_in() == payload.len() as u64 && out.ends_with(&TAIL);
    out.truncate(out.len().saturating_sub(TAIL.len()));
    (is_whole && out.len() < payload.len()).then_some(out)
}

/// Inflates messages. A fan-out's deliveries are the same bytes for thousands of connections, so the last message is kept.
pub struct Inflater {
    inflate: Inflate,
    from: Vec<u8>,
    to: Vec<u8>,
}

impl Inflater {
    pub fn new() -> Self {
        Self { inflate: Inflate::new(false, 15), from: Vec::new(), to: Vec::new() }
    }

    pub fn message(&mut self, payload: &[u8]) -> Result<&[u8], String> {
        if self.from == payload && !payload.is_empty() {
            return Ok(&self.to);
        }
        self.to.clear();
        self.from.clear();
        self.inflate.reset(false);
        if !payload.is_empty() && !self.add(payload)? {
            self.add(&TAIL)?;
        }
        self.from.extend_from_slice(payload);
        Ok(&self.to)
    }

    /// Whether the stream has ended with it.
    fn add(&mut self, mut rest: &[u8]) -> Result<bool, String> {
        loop {
            let before = self.to.len();
            let room = (rest.len() * 4).max(before).clamp(1 << 10, 1 << 20);
            let (read, written) = (self.inflate.total_in(), self.inflate.total_out());
            self.to.resize(before + room, 0);
            let done = self.inflate.decompress(rest, &mut self.to[before..], InflateFlush::SyncFlush);
            let read = (self.inflate.total_in() - read) as usize;
            let written = (self.inflate.total_out() - written) as usize;
            self.to.truncate(before + written);
            rest = &rest[read..];
            if self.to.len() > MAX_MESSAGE {
                return Err("it sent a message that inflates to more than 16 MiB".to_owned());
            }
            match done {
                Ok(Status::StreamEnd) => return Ok(true),
                Ok(_) if rest.is_empty() && written < room => return Ok(false),
                Ok(_) if read > 0 || written > 0 => {}
                _ => return Err("it sent a message that does not inflate".to_owned()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_back_each_for_itself() {
        let mut inflater = Inflater::new();
        for text in ["{\"a\":1}".repeat(50), "x".repeat(200_000), "{\"b\":2}".repeat(50)] {
            let short = compressed(text.as_bytes()).unwrap();
            assert!(short.len() < text.len());
            for _ in 0..2 {
                assert_eq!(inflater.message(&short).unwrap(), text.as_bytes());
            }
        }
        assert_eq!(inflater.message(&[]).unwrap(), b"");
        assert!(inflater.message(&[0xff; 32]).is_err());
        assert_eq!(compressed(b"ab"), None, "nothing is gained");
    }

    #[test]
    fn a_bomb_is_refused() {
        let bomb = compressed(&vec![0; MAX_MESSAGE + 1]).unwrap();
        assert!(Inflater::new().message(&bomb).unwrap_err().contains("16 MiB"));
    }
}
