//! What clients and the chat say to each other: JSON in text frames.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tidegate_sdk::{Message, Result};

/// What a client sends.
#[derive(Deserialize)]
pub(crate) struct Ask {
    #[serde(rename = "type", default)]
    pub(crate) kind: Kind,
    to: Option<String>,
    text: Option<String>,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    Say,
    Direct,
    Typing,
    Who,
    #[default]
    #[serde(other)]
    Unknown,
}

impl Ask {
    pub(crate) fn read(message: &Message) -> Result<Self, Trouble> {
        let text = message.as_text().ok_or(Trouble::TextOnly)?;
        // A list would be read as the fields in their order.
        if !text.trim_start().starts_with('{') {
            return Err(Trouble::BadJson);
        }
        serde_json::from_str(text).map_err(|error| match error.is_data() {
            true => Trouble::BadField,
            false => Trouble::BadJson,
        })
    }

    pub(crate) fn to(&self) -> Result<&str, Trouble> {
        self.to.as_deref().filter(|to| !to.is_empty()).ok_or(Trouble::MissingTo)
    }

    /// The text, which must not be blank, nor longer than this many characters.
    pub(crate) fn text(&self, longest: usize) -> Result<&str, Trouble> {
        let text = self.text.as_deref().ok_or(Trouble::MissingText)?;
        if text.trim().is_empty() {
            return Err(Trouble::EmptyText);
        }
        // Without counting all of a text that is far too long.
        match text.chars().nth(longest) {
            Some(_) => Err(Trouble::TooLong(longest)),
            None => Ok(text),
        }
    }
}

/// What a client receives.
#[derive(Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub(crate) enum Tell<'a> {
    Welcome {
        user: &'a str,
        room: &'a str,
        members: &'a [String],
        history: &'a [Box<RawValue>],
    },
    Message {
        id: &'a str,
        user: &'a str,
        room: &'a str,
        text: &'a str,
        at: u64,
    },
    Direct {
        user: &'a str,
        /// On the copy for the sender only.
        #[serde(skip_serializing_if = "Option::is_none")]
        to: Option<&'a str>,
        text: &'a str,
        at: u64,
    },
    Joined {
        user: &'a str,
    },
    Left {
        user: &'a str,
    },
    Typing {
        user: &'a str,
    },
    Members {
        members: &'a [String],
    },
    Error {
        code: &'a str,
        text: &'a str,
    },
}

pub(crate) fn frame(tell: &Tell<'_>) -> Result<Message> {
    Ok(Message::from_json(tell)?)
}

/// Whether this is a `message` of [`Tell`]: other publications are no part of the conversation.
pub(crate) fn is_message(text: &str) -> bool {
    #[derive(Deserialize)]
    struct Typed<'a> {
        #[serde(rename = "type", borrow)]
        kind: &'a str,
    }
    serde_json::from_str(text).is_ok_and(|typed: Typed<'_>| typed.kind == "message")
}

/// Why a client does not get what it asks for.
#[derive(Clone, Copy)]
pub(crate) enum Trouble {
    TextOnly,
    BadJson,
    BadField,
    UnknownType,
    MissingTo,
    MissingText,
    EmptyText,
    TooLong(usize),
    UnknownUser,
    Unavailable,
}

impl Trouble {
    pub(crate) fn frame(self) -> Result<Message> {
        let too_long;
        let (code, text) = match self {
            Self::TextOnly => ("text_only", "Send text frames; binary ones mean nothing here."),
            Self::BadJson => ("bad_json", "Send a JSON object."),
            Self::BadField => ("bad_field", "`type`, `to` and `text` must be strings."),
            Self::UnknownType => ("unknown_type", "`type` must be `say`, `direct`, `typing` or `who`."),
            Self::MissingTo => ("missing_to", "Say in `to` whom the message is for."),
            Self::MissingText => ("missing_text", "Say something in `text`."),
            Self::EmptyText => ("empty_text", "`text` is empty."),
            Self::TooLong(longest) => {
                too_long = format!("`text` is over {longest} characters.");
                ("too_long", too_long.as_str())
            }
            Self::UnknownUser => ("unknown_user", "Nobody of this name is in the room."),
            Self::Unavailable => ("unavailable", "That did not work just now. Try again in a moment."),
        };
        frame(&Tell::Error { code, text })
    }
}
