//! What a call has asked for and was not yet done.

use crate::{Message, history::Position};

#[derive(Debug)]
pub(super) enum Effect {
    Send(Message),
    SetUser(Option<String>),
    SetAttribute(String, Option<String>),
    SetExpiry(Option<u64>),
    Subscribe(Subscribe),
    Unsubscribe(String),
    Close(u16, String),
    SetTimer(String, u64),
    CancelTimer(String),
    /// So many, and whether the newest stay.
    LimitSessions(u32, bool),
    Publish(Publish),
    /// To every session of a user, or to one session.
    Reach(Whom, What),
    Forward(Forward),
    SelectSubprotocol(String),
    AddHeader(String, String),
    SetBody(String, Vec<u8>),
}

#[derive(Debug)]
pub(super) struct Subscribe {
    pub(super) topic: String,
    pub(super) presence: Option<String>,
    pub(super) recovery: Option<Position>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Publish {
    pub(super) topic: String,
    pub(super) message: Option<Message>,
    pub(super) exclude: Vec<String>,
    pub(super) history: Option<(u32, u64)>,
    pub(super) idempotency_key: Option<String>,
    pub(super) key: Option<String>,
    pub(super) metadata: Vec<(String, String)>,
}

/// For an upstream.
#[derive(Debug)]
pub(super) struct Forward {
    pub(super) upstream: String,
    /// Of a request.
    pub(super) tag: Option<String>,
    pub(super) message: Message,
    pub(super) headers: Vec<(String, String)>,
    pub(super) timeout: Option<u64>,
}

#[derive(Debug)]
pub(super) enum Whom {
    User(String),
    Session(String),
}

#[derive(Debug)]
pub(super) enum What {
    Send(Message),
    Subscribe(String),
    Unsubscribe(String),
    Disconnect(u16, String),
}

/// Where an effect may be asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    /// Of the answer to a handshake.
    Response,
    /// To the session's client.
    Send,
    /// What else needs a session.
    Session,
    /// What needs a session that is open.
    Subscribe,
    /// Publishes, users and other sessions.
    Beyond,
    /// Upstreams, for a session.
    Upstream,
}

impl Effect {
    pub(super) fn class(&self) -> Class {
        match self {
            Self::SelectSubprotocol(_) | Self::AddHeader(..) | Self::SetBody(..) => Class::Response,
            Self::Send(_) => Class::Send,
            Self::Subscribe(_) => Class::Subscribe,
            Self::Publish(_) | Self::Reach(..) => Class::Beyond,
            Self::Forward(_) => Class::Upstream,
            _ => Class::Session,
        }
    }
}
