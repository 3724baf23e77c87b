//! How what a session says looks to its client, and what a transport without frames must remember for it.

use std::sync::Arc;

use tokio::time::Instant;

use super::Session;
use crate::heartbeat::Heartbeat;
use crate::message::{Close, MessageRef, Position, Publication, TopicName};
use crate::outbox::Outbox;
use crate::wire::{self, Positions, events, opcode, polls};

/// A transport's words.
pub(super) enum Format {
    WebSocket,
    Requests(Box<Requests>),
}

/// A client that comes by requests. It may come back with where it stood.
pub(super) struct Requests {
    pub kind: Kind,
    /// What it said where it stands, until the topic is subscribed to.
    pub resume: Positions,
    stands: Positions,
    /// It has not been told since this changed.
    untold: bool,
}

/// How it fetches what there is for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// As the body of one response.
    Events,
    /// By one request after the other.
    Polls,
}

impl Format {
    pub fn requests(kind: Kind, resume: Positions) -> Self {
        Self::Requests(Box::new(Requests { kind, resume, stands: Positions::default(), untold: false }))
    }

    pub fn message(&mut self, out: &mut Vec<u8>, publication: Option<&Arc<Publication>>, message: MessageRef<'_>) {
        let Self::Requests(requests) = self else { return wire::message(out, message) };
        let position = publication.and_then(|publication| Some((&publication.topic, publication.position?)));
        if let Some((topic, position)) = position {
            requests.stands.set(topic, position);
            requests.untold = false;
        }
        let id = position.map(|_| &requests.stands);
        match requests.kind {
            Kind::Events => events::message(out, id, message),
            Kind::Polls => polls::message(out, id, message),
        }
    }

    /// What asks the client for a sign of life, if its transport has such a thing.
    pub fn ping(&self, out: &mut Vec<u8>, payload: &[u8]) {
        match self {
            Self::WebSocket => wire::frame(out, opcode::PING, payload),
            Self::Requests(requests) if requests.kind == Kind::Events => events::comment(out),
            Self::Requests(_) => {}
        }
    }

    pub fn close(&self, out: &mut Vec<u8>, close: &Close) {
        match self {
            Self::WebSocket => wire::close(out, close),
            Self::Requests(requests) if requests.kind == Kind::Events => events::close(out, close),
            // A poll's answer has a place for it.
            Self::Requests(_) => {}
        }
    }

    /// Where the client said that it stands on a topic, once.
    pub fn resumes(&mut self, topic: &TopicName) -> Option<Position> {
        let Self::Requests(requests) = self else { return None };
        let position = requests.resume.get(topic);
        requests.resume.remove(topic);
        position
    }

    /// Whether it is worth knowing where a topic stands.
    pub fn counts(&self) -> bool {
        matches!(self, Self::Requests(_))
    }

    /// The client stands here from now on, or nowhere on this topic.
    pub fn stands(&mut self, topic: &TopicName, position: Option<Position>) {
        if let Self::Requests(requests) = self {
            requests.untold |= match position {
                Some(position) => requests.stands.set(topic, position),
                None => requests.stands.remove(topic),
            };
        }
    }

    /// Tells the client where it stands, if it does not know.
    pub fn tell(&mut self, out: &mut Vec<u8>) {
        let Self::Requests(requests) = self else { return };
        if std::mem::take(&mut requests.untold) {
            match requests.kind {
                Kind::Events => events::stand(out, &requests.stands),
                Kind::Polls => polls::stand(out, &requests.stands),
            }
        }
    }

    /// Whether a client that cannot answer a ping shows in another way that it is there.
    pub fn shows_life(&self, outbox: &Outbox, heartbeat: &Heartbeat, now: Instant) -> bool {
        match (self, outbox.mailbox()) {
            // It takes what it is sent, the pings too.
            (Self::Requests(requests), _) if requests.kind == Kind::Events => !outbox.is_waiting(),
            (Self::Requests(_), Some(mailbox)) => {
                let since = now.checked_sub(heartbeat.interval + heartbeat.timeout);
                since.is_none_or(|since| mailbox.polled_since(since))
            }
            _ => false,
        }
    }
}

impl Session {
    /// A message for the client, in the words of its transport.
    pub(super) fn encode(
        &mut self,
        out: &mut Vec<u8>,
        publication: Option<&Arc<Publication>>,
        message: MessageRef<'_>,
    ) {
        self.format.message(out, publication, message);
    }
}
