//! What a call asks for: kept in one buffer along the chain, applied after the last plugin has answered well.

use std::sync::Arc;

use crate::message::{Close, Message, Position, SessionId, TopicName};

/// One thing that is to be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// With the place in the chain of the plugin that sends it.
    Send(Message, u16),
    SetUser(Option<Arc<str>>),
    SetAttribute(Box<str>, Option<Box<str>>),
    SetExpiry(Option<u64>),
    Subscribe(Subscribe),
    Unsubscribe(TopicName),
    Close(Close),
    /// `after` in milliseconds.
    SetTimer {
        plugin: Arc<str>,
        name: Box<str>,
        after: u64,
    },
    CancelTimer {
        plugin: Arc<str>,
        name: Box<str>,
    },
    LimitSessions(u32, Keep),
    Publish(Box<Publish>),
    Forward(Box<Forward>),
    ToUser(Arc<str>, Remote),
    ToSession(SessionId, Remote),
}

/// Which of a user's sessions stay where there are too many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    Newest,
    Oldest,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Subscribe {
    pub topic: TopicName,
    /// Be seen there, with this information.
    pub presence: Option<Arc<str>>,
    pub since: Option<Position>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Publish {
    pub topic: TopicName,
    pub message: Message,
    pub exclude: Vec<SessionId>,
    /// Size and time to live in milliseconds, where the plugin differs from the topic's rule.
    pub history: Option<(u32, u64)>,
    pub idempotency_key: Option<Box<str>>,
    pub key: Option<Box<str>>,
    pub metadata: Vec<(Box<str>, Box<str>)>,
}

/// A message for an upstream.
#[derive(Clone, Debug, PartialEq)]
pub struct Forward {
    pub upstream: Box<str>,
    pub message: Message,
    /// Who wants the answer, and under which tag.
    pub reply_to: Option<(Arc<str>, Box<str>)>,
    pub headers: Vec<(Box<str>, Box<str>)>,
    /// Milliseconds.
    pub timeout: Option<u64>,
}

impl Forward {
    /// A message for which nobody awaits an answer.
    pub fn plain(upstream: Box<str>, message: Message) -> Self {
        Self { upstream, message, reply_to: None, headers: Vec::new(), timeout: None }
    }
}

/// What can be done to sessions that the event does not belong to.
#[derive(Clone, Debug, PartialEq)]
pub enum Remote {
    Send(Message),
    Subscribe(TopicName),
    Unsubscribe(TopicName),
    Close(Close),
}

/// The effects of one event, in the order of the calls.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Effects {
    pub list: Vec<Effect>,
    /// What the client hears instead, when one of the effects is refused as it is applied.
    pub if_refused: Vec<(Message, u16)>,
    pub response: Response,
}

/// What `authenticate` has to say on the HTTP response.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Response {
    pub subprotocol: Option<Box<str>>,
    pub headers: Vec<(Box<str>, Box<str>)>,
    /// Content type and content.
    pub body: Option<(Box<str>, Vec<u8>)>,
}

impl Effect {
    /// Whether it concerns nothing but what is known of the session.
    pub fn is_local(&self) -> bool {
        matches!(
            self,
            Self::SetUser(_)
                | Self::SetAttribute(..)
                | Self::SetExpiry(_)
                | Self::Unsubscribe(_)
                | Self::Close(_)
                | Self::SetTimer { .. }
                | Self::CancelTimer { .. }
        )
    }
}

impl Effects {
    pub fn is_empty(&self) -> bool {
        self.list.is_empty() && self.if_refused.is_empty()
    }

    /// Keeps the room for the next event.
    pub fn clear(&mut self) {
        self.list.clear();
        self.if_refused.clear();
        self.response = Response::default();
    }

    /// The user that the session will have.
    pub fn user(&self) -> Option<&Option<Arc<str>>> {
        self.list.iter().rev().find_map(|effect| match effect {
            Effect::SetUser(user) => Some(user),
            _ => None,
        })
    }

    /// The value that the attribute will have.
    pub fn attribute(&self, name: &str) -> Option<Option<&str>> {
        self.list.iter().rev().find_map(|effect| match effect {
            Effect::SetAttribute(known, value) if **known == *name => Some(value.as_deref()),
            _ => None,
        })
    }
}
