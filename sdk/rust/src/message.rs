//! What a client or a topic carries, and what becomes of it.

use serde::{Serialize, de::DeserializeOwned};

/// What a client or a topic carries.
///
/// ```
/// # use tidegate_sdk::Message;
/// let message = Message::from("hello");
/// assert_eq!(message, "hello");
/// assert_eq!(message.as_text(), Some("hello"));
/// assert_eq!(Message::from("[1, 2]").json::<Vec<u8>>().unwrap(), [1, 2]);
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Message {
    /// UTF-8 text: a WebSocket text frame.
    Text(String),
    /// Bytes: a WebSocket binary frame.
    Binary(Vec<u8>),
}

impl Message {
    /// A text message that holds `value` as JSON.
    ///
    /// # Errors
    /// The value cannot be written as JSON: a map whose keys are no strings, or its own `Serialize` says no.
    pub fn from_json<T: Serialize + ?Sized>(value: &T) -> serde_json::Result<Self> {
        serde_json::to_string(value).map(Self::Text)
    }

    /// The content read as JSON, of a text or of a binary message.
    ///
    /// # Errors
    /// It is not JSON, or not of this type.
    pub fn json<T: DeserializeOwned>(&self) -> serde_json::Result<T> {
        serde_json::from_slice(self.as_bytes())
    }

    /// The text of a text message.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Binary(_) => None,
        }
    }

    /// The content, of a text message in UTF-8.
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Text(text) => text.as_bytes(),
            Self::Binary(bytes) => bytes,
        }
    }

    /// The content's length in bytes.
    pub fn len(&self) -> usize {
        self.as_bytes().len()
    }

    /// Whether there is no content.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl From<String> for Message {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<&str> for Message {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<Vec<u8>> for Message {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Binary(bytes)
    }
}

impl From<&[u8]> for Message {
    fn from(bytes: &[u8]) -> Self {
        Self::Binary(bytes.to_vec())
    }
}

impl PartialEq<str> for Message {
    fn eq(&self, text: &str) -> bool {
        self.as_text() == Some(text)
    }
}

impl PartialEq<&str> for Message {
    fn eq(&self, text: &&str) -> bool {
        self == *text
    }
}

/// What becomes of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The next plugin of the chain sees it unchanged.
    Next,
    /// The next plugin of the chain sees this in its place.
    Replace(Message),
    /// It goes no further, and that is no error.
    Stop,
}

impl Verdict {
    /// The next plugin of the chain sees this in its place.
    pub fn replace(message: impl Into<Message>) -> Self {
        Self::Replace(message.into())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn keeps_text_and_bytes_apart() {
        assert_eq!(Message::from("a"), "a");
        assert_ne!(Message::from(b"a".to_vec()), "a");
        assert_eq!(Message::from(b"a".to_vec()).as_text(), None);
        assert_eq!(Message::from("é").len(), 2);
    }

    #[test]
    fn reads_json_from_text_and_from_bytes() {
        assert_eq!(Message::from("7").json::<u8>().unwrap(), 7);
        assert_eq!(Message::from(b"7".to_vec()).json::<u8>().unwrap(), 7);
        assert!(Message::from("seven").json::<u8>().is_err());
        assert_eq!(Message::from_json(&[1, 2]).unwrap(), "[1,2]");
    }
}
