//! One call of a hook as a value: what it is given, and what it answers. So it can be made on another thread, written
//! down, or made again on another generation.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use hyper::{HeaderMap, Method};

use super::event::Hook;
use super::wit::BorrowedMessage;
use crate::message::{Closer, Message, MessageRef, Position};
use crate::upstream::Reply;

/// What a hook is called with. Handles: `session` is the number of the event's session, publications are places in the
/// event's list, counted from 1.
#[derive(Clone, Debug)]
pub enum Call<'a> {
    Init,
    Authenticate {
        session: u64,
    },
    Opened {
        session: u64,
    },
    Closed {
        session: u64,
        code: u16,
        reason: Cow<'a, str>,
        by: Closer,
    },
    Inbound {
        session: u64,
        message: Content<'a>,
    },
    Publication {
        topic: Cow<'a, str>,
        message: Content<'a>,
    },
    Broadcast {
        topic: Cow<'a, str>,
        message: Content<'a>,
    },
    Outbound {
        session: u64,
        publication: Option<u64>,
        message: Content<'a>,
    },
    Subscription {
        session: u64,
        topic: Cow<'a, str>,
        event: SubscriptionEvent,
        position: Option<Position>,
    },
    Timer {
        session: u64,
        name: Cow<'a, str>,
    },
    Reply {
        session: u64,
        tag: Cow<'a, str>,
        reply: Cow<'a, Reply>,
    },
    Presence {
        topic: Cow<'a, str>,
        joined: bool,
        session_id: Cow<'a, str>,
        user: Option<Cow<'a, str>>,
        info: Cow<'a, str>,
        sessions_of_user: u32,
    },
    Http {
        request: Arc<HttpRequest>,
    },
}

/// A plain HTTP request, whole.
#[derive(Debug)]
pub struct HttpRequest {
    pub method: Method,
    /// Path and query, as they came.
    pub target: Box<str>,
    /// The `Host` that was asked for; may be empty.
    pub authority: Box<str>,
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// What a plugin answers to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpAnswer {
    /// 200 to 599.
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// A message that lies where it was read, or a copy of its own.
#[derive(Clone, Debug)]
pub enum Content<'a> {
    Borrowed(MessageRef<'a>),
    Owned(Message),
}

/// What became of a subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubscriptionEvent {
    Subscribed,
    Recovered,
    Gap,
    Added,
    Removed,
}

/// What a hook answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    Done,
    Decision(Decision),
    Verdict(Verdict),
    Http(Box<HttpAnswer>),
}

/// What `authenticate` decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// With this HTTP status, whatever it is.
    Refuse(u16),
    Pass,
    Admit(Option<Arc<str>>),
}

/// What becomes of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Next,
    Replace(Message),
    Stop,
}

impl Call<'_> {
    pub fn hook(&self) -> Hook {
        match self {
            Self::Init => Hook::Init,
            Self::Authenticate { .. } => Hook::Authenticate,
            Self::Opened { .. } => Hook::Opened,
            Self::Closed { .. } => Hook::Closed,
            Self::Inbound { .. } => Hook::Inbound,
            Self::Publication { .. } => Hook::Publication,
            Self::Broadcast { .. } => Hook::Broadcast,
            Self::Outbound { .. } => Hook::Outbound,
            Self::Subscription { .. } => Hook::Subscription,
            Self::Timer { .. } => Hook::Timer,
            Self::Reply { .. } => Hook::Reply,
            Self::Presence { .. } => Hook::Presence,
            Self::Http { .. } => Hook::Http,
        }
    }

    /// The same call, on its own.
    pub fn into_owned(self) -> Call<'static> {
        fn own(text: Cow<'_, str>) -> Cow<'static, str> {
            Cow::Owned(text.into_owned())
        }
        match self {
            Self::Init => Call::Init,
            Self::Authenticate { session } => Call::Authenticate { session },
            Self::Opened { session } => Call::Opened { session },
            Self::Closed { session, code, reason, by } => Call::Closed { session, code, reason: own(reason), by },
            Self::Inbound { session, message } => Call::Inbound { session, message: message.into_owned() },
            Self::Publication { topic, message } => {
                Call::Publication { topic: own(topic), message: message.into_owned() }
            }
            Self::Broadcast { topic, message } => Call::Broadcast { topic: own(topic), message: message.into_owned() },
            Self::Outbound { session, publication, message } => {
                Call::Outbound { session, publication, message: message.into_owned() }
            }
            Self::Subscription { session, topic, event, position } => {
                Call::Subscription { session, topic: own(topic), event, position }
            }
            Self::Timer { session, name } => Call::Timer { session, name: own(name) },
            Self::Reply { session, tag, reply } => {
                Call::Reply { session, tag: own(tag), reply: Cow::Owned(reply.into_owned()) }
            }
            Self::Presence { topic, joined, session_id, user, info, sessions_of_user } => Call::Presence {
                topic: own(topic),
                joined,
                session_id: own(session_id),
                user: user.map(own),
                info: own(info),
                sessions_of_user,
            },
            Self::Http { request } => Call::Http { request },
        }
    }
}

impl Content<'_> {
    pub fn as_ref(&self) -> MessageRef<'_> {
        match self {
            Self::Borrowed(message) => *message,
            Self::Owned(message) => message.as_ref(),
        }
    }

    pub fn into_owned(self) -> Content<'static> {
        match self {
            Self::Borrowed(message) => Content::Owned(message.to_owned()),
            Self::Owned(message) => Content::Owned(message),
        }
    }

    /// For the guest's memory, without a copy in between.
    pub(super) fn lowered(&self) -> BorrowedMessage<'_> {
        self.as_ref().into()
    }
}

impl<'a> From<MessageRef<'a>> for BorrowedMessage<'a> {
    fn from(message: MessageRef<'a>) -> Self {
        match message {
            MessageRef::Text(text) => Self::Text(text),
            MessageRef::Binary(bytes) => Self::Binary(bytes),
        }
    }
}

impl<'a> From<MessageRef<'a>> for Content<'a> {
    fn from(message: MessageRef<'a>) -> Self {
        Self::Borrowed(message)
    }
}

impl<'a> From<&'a Message> for Content<'a> {
    fn from(message: &'a Message) -> Self {
        Self::Borrowed(message.as_ref())
    }
}

impl From<Message> for Content<'_> {
    fn from(message: Message) -> Self {
        Self::Owned(message)
    }
}
