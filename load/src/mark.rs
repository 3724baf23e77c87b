//! What a publication carries so that its deliveries are known again: which one it is, and when it was made. It may be
//! anywhere in a message, and several may be in one.

use memchr::memmem::Finder;

const BEGIN: &[u8] = b"~tide";
const DIGITS: usize = 32;
/// Bytes of a mark; a payload has at least as many.
pub const LENGTH: usize = BEGIN.len() + DIGITS;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    /// Which run has published it.
    pub run: u32,
    pub sequence: u32,
    /// When it was sent, or should have been, by the machine's clock.
    pub sent: u64,
}

impl Mark {
    pub fn text(self) -> String {
        format!("~tide{:08x}{:08x}{:016x}", self.run, self.sequence, self.sent)
    }

    fn parse(digits: &[u8]) -> Option<Self> {
        let mut value = 0u128;
        for digit in digits {
            value = value << 4 | u128::from(char::from(*digit).to_digit(16)?);
        }
        Some(Self { run: (value >> 96) as u32, sequence: (value >> 64) as u32, sent: value as u64 })
    }
}

/// Finds marks. Deliveries of one publication come one after the other, so the last is kept.
pub struct Marks {
    finder: Finder<'static>,
    digits: [u8; DIGITS],
    last: Mark,
}

impl Marks {
    pub fn new() -> Self {
        Self { finder: Finder::new(BEGIN), digits: [b'0'; DIGITS], last: Mark::default() }
    }

    #[inline]
    pub fn each(&mut self, mut message: &[u8], mut on: impl FnMut(Mark)) {
        while let Some(at) = self.finder.find(message) {
            let rest = &message[at + BEGIN.len()..];
            let Some(digits) = rest.first_chunk::<DIGITS>() else { return };
            if *digits != self.digits {
                let Some(mark) = Mark::parse(digits) else {
                    message = rest;
                    continue;
                };
                (self.digits, self.last) = (*digits, mark);
            }
            on(self.last);
            message = &rest[DIGITS..];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_found_wherever_they_are() {
        let marks = [Mark { run: 1, sequence: u32::MAX, sent: 2 }, Mark { run: 7, sequence: 0, sent: u64::MAX }];
        assert_eq!(marks[0].text().len(), LENGTH);
        let text = format!("{{\"a\":\"~tide\",\"b\":\"{}xx\"}}\n{}~tide12", marks[0].text(), marks[1].text());
        let mut found = Vec::new();
        let mut finder = Marks::new();
        finder.each(text.as_bytes(), |mark| found.push(mark));
        finder.each(marks[1].text().as_bytes(), |mark| found.push(mark));
        assert_eq!(found, [marks[0], marks[1], marks[1]]);
    }
}
