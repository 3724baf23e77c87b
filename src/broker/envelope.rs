//! How a publication travels through Redis: `epoch sequence offset ` as texts, which the script writes, and then the
//! publication in bytes of our own.
//!
//! A format, and not JSON, because each node reads it for each publication; its first byte is its version, so that nodes
//! of two versions can share a Redis.

use std::sync::Arc;

use bytes::Bytes;

use super::{Arrival, Mark};
use crate::message::{Message, Position, Publication, SessionId, TopicName};

const VERSION: u8 = 1;
const BINARY: u8 = 1;

/// A publication that cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    #[error("it was written by a gateway of another version")]
    Version,
    #[error("it is not what a gateway writes")]
    Broken,
}

/// What comes behind the head.
pub fn body(publication: &Publication) -> Vec<u8> {
    let payload = publication.message.payload();
    let mut body = Vec::with_capacity(payload.len() + 64);
    let flags = if matches!(publication.message, Message::Binary(_)) { BINARY } else { 0 };
    body.extend([VERSION, flags]);
    body.extend(publication.time.to_le_bytes());
    // Keys and names are within the limits of the plugin interface, far below these widths.
    let short = |body: &mut Vec<u8>, text: &str| {
        let end = text.floor_char_boundary(usize::from(u16::MAX));
        body.extend((end as u16).to_le_bytes());
        body.extend(&text.as_bytes()[..end]);
    };
    short(&mut body, publication.key.as_deref().unwrap_or_default());
    let (metadata, exclude) = (publication.metadata.iter().take(255), publication.exclude.iter().take(255));
    body.push(metadata.len() as u8);
    for (name, value) in metadata {
        short(&mut body, name);
        short(&mut body, value);
    }
    body.push(exclude.len() as u8);
    for session in exclude {
        body.extend(session.node.to_le_bytes());
        body.extend(session.number.to_le_bytes());
    }
    body.extend_from_slice(payload);
    body
}

/// Reads what the script has written in front.
pub fn head(head: &[u8]) -> Result<Mark, Unreadable> {
    Reader { bytes: head }.head().map(|(mark, _)| mark)
}

/// Reads an envelope. The message's bytes stay where they are.
pub fn open(topic: TopicName, envelope: Vec<u8>) -> Result<Arrival, Unreadable> {
    let envelope = Bytes::from(envelope);
    let mut rest = Reader { bytes: &envelope };
    let (mark, kept) = rest.head()?;
    if rest.take(1)? != [VERSION] {
        return Err(Unreadable::Version);
    }
    let flags = rest.byte()?;
    let time = rest.long()?;
    let key = rest.short()?;
    let metadata = (0..rest.byte()?).map(|_| Ok((rest.short()?, rest.short()?))).collect::<Result<_, _>>()?;
    let exclude = (0..rest.byte()?).map(|_| Ok(SessionId { node: rest.long()?, number: rest.long()? }));
    let exclude = exclude.collect::<Result<_, _>>()?;
    let payload = envelope.slice_ref(rest.bytes);
    let message = match flags & BINARY {
        0 => Message::Text(payload.try_into().map_err(|_| Unreadable::Broken)?),
        _ => Message::Binary(payload),
    };
    let publication = Publication {
        topic,
        message,
        position: kept.then_some(Position { epoch: mark.epoch, offset: mark.offset }),
        time,
        key: (!key.is_empty()).then_some(key),
        metadata,
        exclude,
    };
    Ok(Arrival { mark, publication: Arc::new(publication) })
}

struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], Unreadable> {
        let (taken, rest) = self.bytes.split_at_checked(count).ok_or(Unreadable::Broken)?;
        self.bytes = rest;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, Unreadable> {
        Ok(self.take(1)?[0])
    }

    fn long(&mut self) -> Result<u64, Unreadable> {
        let bytes = self.take(8)?.try_into().map_err(|_| Unreadable::Broken)?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn short(&mut self) -> Result<Box<str>, Unreadable> {
        let width = self.take(2)?;
        let text = self.take(usize::from(u16::from_le_bytes([width[0], width[1]])))?;
        std::str::from_utf8(text).map(Into::into).map_err(|_| Unreadable::Broken)
    }

    /// The mark, and whether a history keeps the publication.
    fn head(&mut self) -> Result<(Mark, bool), Unreadable> {
        let (epoch, sequence) = (self.number()?, self.number()?);
        if let Some(bytes) = self.bytes.strip_prefix(b"- ") {
            self.bytes = bytes;
            return Ok((Mark { epoch, sequence, offset: 0 }, false));
        }
        Ok((Mark { epoch, sequence, offset: self.number()? }, true))
    }

    /// A decimal number and a blank.
    fn number(&mut self) -> Result<u64, Unreadable> {
        let end = self.bytes.iter().take(21).position(|byte| *byte == b' ').ok_or(Unreadable::Broken)?;
        let number = std::str::from_utf8(self.take(end)?).ok().and_then(|text| text.parse().ok());
        self.take(1)?;
        number.ok_or(Unreadable::Broken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::MessageRef;

    fn publication(message: MessageRef<'_>) -> Publication {
        Publication {
            topic: TopicName::parse("t").unwrap(),
            message: message.to_owned(),
            position: None,
            time: 1_700_000_000_123,
            key: Some("k".into()),
            metadata: vec![("a".into(), "b".into()), ("c".into(), "".into())],
            exclude: vec![SessionId { node: u64::MAX, number: 7 }],
        }
    }

    fn sealed(head: &str, publication: &Publication) -> Vec<u8> {
        [head.as_bytes(), &body(publication)].concat()
    }

    #[test]
    fn what_was_written_is_read() {
        for message in [MessageRef::Text("caf\u{e9}"), MessageRef::Binary(&[0, 255]), MessageRef::Text("")] {
            let written = publication(message);
            let arrival = open(written.topic.clone(), sealed("12345678901234567 9 4 ", &written)).unwrap();
            assert_eq!(arrival.mark, Mark { epoch: 12_345_678_901_234_567, sequence: 9, offset: 4 });
            let read = &*arrival.publication;
            assert_eq!(read.message, written.message);
            assert_eq!(read.position, Some(Position { epoch: 12_345_678_901_234_567, offset: 4 }));
            assert_eq!((read.time, &read.key, &read.metadata), (written.time, &written.key, &written.metadata));
            assert_eq!(read.exclude, written.exclude);
        }
        let plain =
            open(TopicName::parse("t").unwrap(), sealed("1 2 - ", &publication(MessageRef::Text("x")))).unwrap();
        assert_eq!((plain.mark.sequence, plain.publication.position), (2, None));
    }

    #[test]
    fn nothing_that_is_cut_or_changed_is_read_as_something_else() {
        let topic = TopicName::parse("t").unwrap();
        let whole = sealed("1 2 3 ", &publication(MessageRef::Text("caf\u{e9}")));
        let head = whole.len() - "caf\u{e9}".len();
        for end in 0..head {
            assert!(open(topic.clone(), whole[..end].to_vec()).is_err(), "{end}");
        }
        assert_eq!(open(topic.clone(), whole[..whole.len() - 1].to_vec()).unwrap_err(), Unreadable::Broken);
        let mut other = whole.clone();
        other[6] = 2;
        assert_eq!(open(topic.clone(), other).unwrap_err(), Unreadable::Version);
        for garbage in [&b""[..], b"hello", b"1 2 3", b"-1 2 3 \x01", b"1  2 3 ", b"999999999999999999999999 1 1 "] {
            assert!(open(topic.clone(), garbage.to_vec()).is_err());
        }
    }
}
