//! As much of WebSocket's frames as clients need that only listen, and what the scale test's publications carry.

use anyhow::{Result, bail};

/// What stands before a publication's number and time.
const MARK: &str = "tidegate-scale";

/// A publication of this number, sent now, in so many bytes at least.
pub(super) fn published(number: u32, now: u64, size: usize) -> String {
    let mut text = format!("{MARK} {number} {now} ");
    while text.len() < size {
        text.push('.');
    }
    text
}

/// What a publication of the scale test carries: its number, and when it was sent.
pub(super) fn publication(payload: &[u8]) -> Option<(u32, u64)> {
    let mut words = std::str::from_utf8(payload).ok()?.strip_prefix(MARK)?.split_ascii_whitespace();
    Some((words.next()?.parse().ok()?, words.next()?.parse().ok()?))
}

/// A frame's first byte, the size of its header, and of its payload; None: not all of the header is there.
pub(super) fn header(bytes: &[u8]) -> Result<Option<(u8, usize, usize)>> {
    Ok(match *bytes {
        [first, 126, high, low, ..] => Some((first, 4, usize::from(u16::from_be_bytes([high, low])))),
        [_, 126, ..] | [] | [_] => None,
        [first, short, ..] if short < 126 => Some((first, 2, usize::from(short))),
        _ => bail!("a frame of more than 64 KiB, or with a mask"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn publications_are_told_from_other_messages() {
        assert_eq!(publication(b"tidegate-scale 7 123456 ......"), Some((7, 123_456)));
        for other in [&b"hello"[..], b"tidegate-scale", b"tidegate-scale x 1", b"tidegate-scale 1", b"\xff"] {
            assert_eq!(publication(other), None);
        }
    }

    #[test]
    fn headers_of_frames_whole_and_in_part() {
        assert_eq!(header(&[0x81, 5, b'h']).unwrap(), Some((0x81, 2, 5)));
        assert_eq!(header(&[0x81, 126, 1, 0]).unwrap(), Some((0x81, 4, 256)));
        for part in [&[][..], &[0x81], &[0x81, 126], &[0x81, 126, 1]] {
            assert_eq!(header(part).unwrap(), None);
        }
        assert!(header(&[0x81, 127]).is_err() && header(&[0x81, 0x85]).is_err());
    }
}
