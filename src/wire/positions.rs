//! Where a client stands on its topics, as one text: the id of an event, which the client hands back when it returns.

use std::borrow::Cow;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use crate::message::{Position, TopicName};

/// What stands for itself in a topic's name. The id goes into a header, so it is ASCII without spaces.
const ENCODED: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b':').remove(b'/').remove(b'~').remove(b'@');
/// The longest text that is read, in bytes. A header of 64 topics with ordinary names is far shorter.
const TEXT_MAX: usize = 16 << 10;

/// Topics with a history, and what the client has got of each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Positions(Vec<(TopicName, Position)>);

impl Positions {
    /// Reads what `Display` wrote. None for anything else: a position that is half understood recovers half.
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() > TEXT_MAX {
            return None;
        }
        let one = |part: &str| {
            let (topic, position) = part.split_once('=')?;
            let topic: Cow<'_, str> = percent_decode_str(topic).decode_utf8().ok()?;
            let (epoch, offset) = position.split_once('.')?;
            let position = Position { epoch: u64::from_str_radix(epoch, 16).ok()?, offset: offset.parse().ok()? };
            Some((TopicName::parse(&topic)?, position))
        };
        text.split(',').filter(|part| !part.is_empty()).map(one).collect::<Option<_>>().map(Self)
    }

    /// Where the client stood on a topic.
    pub fn get(&self, topic: &TopicName) -> Option<Position> {
        self.0.iter().find(|(known, _)| known == topic).map(|(_, position)| *position)
    }

    /// Whether this changed anything.
    pub fn set(&mut self, topic: &TopicName, position: Position) -> bool {
        match self.0.iter_mut().find(|(known, _)| known == topic) {
            Some((_, known)) => std::mem::replace(known, position) != position,
            None => {
                self.0.push((topic.clone(), position));
                true
            }
        }
    }

    /// Whether this changed anything.
    pub fn remove(&mut self, topic: &TopicName) -> bool {
        let before = self.0.len();
        self.0.retain(|(known, _)| known != topic);
        self.0.len() != before
    }
}

impl std::fmt::Display for Positions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, (topic, position)) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            let topic = utf8_percent_encode(topic.as_str(), ENCODED);
            write!(f, "{comma}{topic}={:x}.{}", position.epoch, position.offset)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_and_nothing_else() {
        let mut positions = Positions::default();
        for (topic, epoch, offset) in [("room:blue", 1, 0), ("a=b,c d\u{2603}%", u64::MAX, u64::MAX)] {
            assert!(positions.set(&TopicName::parse(topic).unwrap(), Position { epoch, offset }));
        }
        let text = positions.to_string();
        assert!(text.is_ascii() && !text.contains(' '), "{text}");
        assert_eq!(Positions::parse(&text), Some(positions.clone()));
        assert_eq!(Positions::parse(""), Some(Positions::default()));
        for bad in ["room", "room=", "room=1", "room=1.x", "room=g.1", "=1.1", "%00=1.1", "room=1.1;x", "room=-1.1"] {
            assert_eq!(Positions::parse(bad), None, "{bad}");
        }
        assert_eq!(Positions::parse(&"a=1.1,".repeat(4_000)), None);
        let topic = TopicName::parse("room:blue").unwrap();
        assert!(!positions.set(&topic, Position { epoch: 1, offset: 0 }), "it stood there before");
        assert!(positions.remove(&topic) && positions.get(&topic).is_none());
    }
}
