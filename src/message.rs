//! What clients and topics carry: messages, publications, positions, and the names that they are found by.

use std::fmt;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

/// A whole message, text (UTF-8) or binary, cheap to clone.
#[derive(Clone, PartialEq, Eq)]
pub enum Message {
    Text(Text),
    Binary(Bytes),
}

/// Bytes that are known to be UTF-8.
#[derive(Clone, PartialEq, Eq)]
pub struct Text(Bytes);

impl Text {
    /// The text, without a second look at its bytes.
    pub fn as_bytes(&self) -> &Bytes {
        &self.0
    }

    /// The text as a string; it was one when it was made.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        Self(Bytes::from(text))
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Self(Bytes::copy_from_slice(text.as_bytes()))
    }
}

impl TryFrom<Bytes> for Text {
    type Error = simdutf8::basic::Utf8Error;

    fn try_from(bytes: Bytes) -> Result<Self, Self::Error> {
        simdutf8::basic::from_utf8(&bytes)?;
        Ok(Self(bytes))
    }
}

impl Message {
    /// The payload's length in bytes.
    #[allow(clippy::len_without_is_empty, reason = "an empty message is a message")]
    pub fn len(&self) -> usize {
        self.payload().len()
    }

    /// The payload, whichever kind it is.
    pub fn payload(&self) -> &Bytes {
        match self {
            Self::Text(text) => text.as_bytes(),
            Self::Binary(bytes) => bytes,
        }
    }

    /// The same message, borrowed.
    pub fn as_ref(&self) -> MessageRef<'_> {
        match self {
            Self::Text(text) => MessageRef::Text(text.as_str()),
            Self::Binary(bytes) => MessageRef::Binary(bytes),
        }
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => write!(f, "Text({:?})", text.as_str()),
            Self::Binary(bytes) => write!(f, "Binary({} bytes)", bytes.len()),
        }
    }
}

/// A message that still lies where it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageRef<'a> {
    Text(&'a str),
    Binary(&'a [u8]),
}

impl MessageRef<'_> {
    /// A copy that outlives the buffer.
    pub fn to_owned(self) -> Message {
        match self {
            Self::Text(text) => Message::Text(text.into()),
            Self::Binary(bytes) => Message::Binary(Bytes::copy_from_slice(bytes)),
        }
    }

    /// The same without an allocation of its own: a part of the arena, which is used again once all of its parts are gone. For
    /// messages that do not stay.
    pub fn to_owned_in(self, arena: &mut BytesMut) -> Message {
        let mut part = |bytes: &[u8]| {
            arena.extend_from_slice(bytes);
            arena.split().freeze()
        };
        match self {
            Self::Text(text) => Message::Text(Text(part(text.as_bytes()))),
            Self::Binary(bytes) => Message::Binary(part(bytes)),
        }
    }

    /// The payload's length in bytes.
    #[allow(clippy::len_without_is_empty, reason = "an empty message is a message")]
    pub fn len(self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Binary(bytes) => bytes.len(),
        }
    }
}

/// Where a topic's history stands. Offsets of one epoch grow by one with each publication; a new epoch means that the
/// history was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    pub epoch: u64,
    pub offset: u64,
}

/// A message on a topic.
#[derive(Clone, Debug)]
pub struct Publication {
    pub topic: TopicName,
    pub message: Message,
    /// None where the topic keeps no history, and before the broker has accepted it.
    pub position: Option<Position>,
    /// Unix time in milliseconds.
    pub time: u64,
    /// For outboxes that keep the latest by key.
    pub key: Option<Box<str>>,
    /// Travels with the publication; clients do not see it.
    pub metadata: Vec<(Box<str>, Box<str>)>,
    /// Sessions that are not delivered to.
    pub exclude: Vec<SessionId>,
}

/// What the names of users' own topics begin with.
const USERS: &str = "\u{1}user:";

/// A topic's name: 1 to 255 bytes of UTF-8 without control characters.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicName(Arc<str>);

impl TopicName {
    /// The longest name, in bytes.
    pub const MAX: usize = 255;

    /// None where the name is not well formed.
    pub fn parse(name: &str) -> Option<Self> {
        Self::is_valid(name).then(|| Self(name.into()))
    }

    /// Whether `parse` would take it.
    pub fn is_valid(name: &str) -> bool {
        (1..=Self::MAX).contains(&name.len()) && !name.chars().any(char::is_control)
    }

    /// Where a user's limited sessions are present. No plugin and no client can name it: it has a control character.
    pub fn of_user(user: &str) -> Self {
        Self(format!("{USERS}{user}").into())
    }

    /// Whether it is one that `parse` takes; the others are the gateway's own.
    pub fn is_public(&self) -> bool {
        !self.0.starts_with(USERS)
    }

    /// Reads what `as_str` gave for either kind.
    pub fn restore(name: &str) -> Option<Self> {
        match name.strip_prefix(USERS) {
            Some(user) => Some(Self::of_user(user)),
            None => Self::parse(name),
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::borrow::Borrow<str> for TopicName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for TopicName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

impl fmt::Display for TopicName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Names a session cluster-wide: the node that holds it and its number there. Not a secret, not an authority.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId {
    pub node: u64,
    pub number: u64,
}

impl SessionId {
    /// Reads what `Display` wrote; None for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let (node, number) = text.split_once('-')?;
        let hex = |part: &str, width| {
            let canonical = part.len() == width && part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
            canonical.then(|| u64::from_str_radix(part, 16).ok()).flatten()
        };
        Some(Self { node: hex(node, 16)?, number: hex(number, 16)? })
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}-{:016x}", self.node, self.number)
    }
}

/// Why a session ends: a WebSocket close code (RFC 6455 section 7.4) and a reason of at most 123 bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Close {
    pub code: u16,
    pub reason: Box<str>,
}

impl Close {
    pub const GOING_AWAY: u16 = 1001;
    pub const PROTOCOL: u16 = 1002;
    /// Reported to plugins when the client's close frame had no code; never sent.
    pub const NO_CODE: u16 = 1005;
    /// Reported to plugins when the connection broke; never sent.
    pub const BROKEN: u16 = 1006;
    pub const NOT_UTF8: u16 = 1007;
    pub const POLICY: u16 = 1008;
    pub const TOO_BIG: u16 = 1009;
    pub const INTERNAL: u16 = 1011;
    pub const RESTART: u16 = 1012;
    pub const TRY_LATER: u16 = 1013;
    /// The session's expiry has come ("unauthorized" in the IANA registry).
    pub const UNAUTHORIZED: u16 = 3000;
    /// What the client asked to recover is no longer in the history: it must load its state anew.
    pub const HISTORY_LOST: u16 = 4001;
    /// A newer session of the same user has taken this one's place.
    pub const REPLACED: u16 = 4002;
    /// The user has as many sessions as they may.
    pub const TOO_MANY_SESSIONS: u16 = 4003;

    /// Cuts the reason to what a close frame can carry, at a character's boundary.
    pub fn new(code: u16, reason: &str) -> Self {
        let mut end = reason.len().min(123);
        while !reason.is_char_boundary(end) {
            end -= 1;
        }
        Self { code, reason: reason[..end].into() }
    }

    /// Whether an endpoint may send this code: RFC 6455 section 7.4 and the IANA registry.
    pub fn may_send(code: u16) -> bool {
        matches!(code, 1000 | 1001 | 1003 | 1007..=1009 | 1011..=1014 | 3000..=4999)
    }
}

/// Who ended a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closer {
    Client,
    Plugin,
    Gateway,
    Network,
}

/// A pattern of topic names, key names or the like, in which `*` stands for any run of characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(Box<str>);

impl Pattern {
    pub fn new(pattern: &str) -> Self {
        Self(pattern.into())
    }

    /// Linear in both lengths but for patterns with many stars, which configurations do not have.
    pub fn matches(&self, name: &str) -> bool {
        let mut parts = self.0.split('*');
        let Some(rest) = name.strip_prefix(parts.next().unwrap_or_default()) else {
            return false;
        };
        let Some(last) = self.0.contains('*').then(|| self.0.rsplit('*').next().unwrap_or_default()) else {
            return rest.is_empty();
        };
        let middle = parts.clone().count().saturating_sub(1);
        let mut rest = rest;
        for part in parts.take(middle) {
            match rest.find(part) {
                Some(at) => rest = &rest[at + part.len()..],
                None => return false,
            }
        }
        rest.ends_with(last)
    }
}

/// Unix time in milliseconds.
pub fn unix_now() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_whole_names() {
        let cases = [
            ("room:*", "room:blue", true),
            ("room:*", "room:", true),
            ("room:*", "lobby:room:", false),
            ("*", "anything", true),
            ("a*c", "abc", true),
            ("a*c", "ac", true),
            ("a*c", "acd", false),
            ("a*b*c", "a-b-b-c", true),
            ("ab*ba", "aba", false),
            ("exact", "exact", true),
            ("exact", "exactly", false),
            ("*x*", "axb", true),
            ("*x*", "ab", false),
        ];
        for (pattern, name, expected) in cases {
            assert_eq!(Pattern::new(pattern).matches(name), expected, "{pattern} on {name}");
        }
    }

    #[test]
    fn topic_names_are_bounded_and_printable() {
        assert!(TopicName::parse("room:blue {}* \u{2603}").is_some());
        for bad in ["", "a\nb", "a\0", &"x".repeat(256)] {
            assert!(TopicName::parse(bad).is_none(), "{bad:?}");
        }
    }

    #[test]
    fn session_ids_read_back_what_they_wrote_and_nothing_else() {
        let id = SessionId { node: 0x1234, number: 7 };
        assert_eq!(SessionId::parse(&id.to_string()), Some(id));
        for bad in ["", "-", "1-1", "0000000000001234-000000000000000G", "+000000000001234-0000000000000007"] {
            assert_eq!(SessionId::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn close_reasons_are_cut_between_characters() {
        let close = Close::new(1000, &"\u{2603}".repeat(60));
        assert_eq!(close.reason.len(), 123);
        assert!(!Close::may_send(1005) && !Close::may_send(1006) && !Close::may_send(1015) && Close::may_send(4000));
    }
}
