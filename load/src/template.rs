//! Texts with places in them: `{payload}`, `{i}`.

use memchr::memmem;

/// The text with every `place` replaced.
pub fn filled(text: &[u8], place: &str, by: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len() + by.len());
    let mut rest = text;
    while let Some(at) = memmem::find(rest, place.as_bytes()) {
        out.extend_from_slice(&rest[..at]);
        out.extend_from_slice(by);
        rest = &rest[at + place.len()..];
    }
    out.extend_from_slice(rest);
    out
}

/// The text with the connection's number in it.
pub fn numbered(text: &[u8], number: usize) -> Vec<u8> {
    filled(text, "{i}", number.to_string().as_bytes())
}

/// Bytes of a payload: letters, so that they are a text too.
pub fn payload(size: usize) -> Vec<u8> {
    (b'a'..=b'z').cycle().take(size).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_place_is_filled() {
        assert_eq!(filled(b"{payload}-{payload}", "{payload}", b"x"), b"x-x");
        assert_eq!(numbered(b"/user/{i}?n={i}", 12), b"/user/12?n=12");
        assert_eq!(numbered(b"{i", 1), b"{i");
    }
}
