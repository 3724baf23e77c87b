//! A client that is connected, or was.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;
use serde_json::Value;

use super::gateway::Gateway;
use super::state::Peer;
use crate::{Close, Closer, Exported, Message, Result, Verdict};

/// A client that is connected, or was.
pub struct Client<P> {
    gateway: Gateway<P>,
    id: String,
}

/// What it does.
impl<P: Exported> Client<P> {
    pub(super) fn new(gateway: Gateway<P>, id: String) -> Self {
        Self { gateway, id }
    }

    /// Send a message. What follows from it has happened when this returns.
    ///
    /// # Errors
    /// `inbound` failed, or the session is closed.
    pub fn says(&self, message: impl Into<Message>) -> Result<Verdict> {
        self.gateway.inbound(&self.id, message.into())
    }

    /// Send a text message that holds `value` as JSON.
    ///
    /// # Errors
    /// As of [`says`](Self::says), and of [`Message::from_json`].
    pub fn says_json<T: Serialize + ?Sized>(&self, value: &T) -> Result<Verdict> {
        self.says(Message::from_json(value)?)
    }

    /// Send messages that the gateway reads together. A plugin with the hook `batch` gets 16 of them in one call, and what
    /// that call asks for is done as that of one event.
    pub fn says_together<M: Into<Message>>(&self, messages: impl IntoIterator<Item = M>) -> Vec<Result<Verdict>> {
        let messages: Vec<Message> = messages.into_iter().map(Into::into).collect();
        messages.chunks(16).flat_map(|batch| self.gateway.together(&self.id, batch.to_vec())).collect()
    }

    /// Say goodbye, with 1000.
    pub fn leaves(&self) {
        self.ends(1000, "", Closer::Client);
    }

    /// Be gone without a word, as after a broken connection.
    pub fn vanishes(&self) {
        self.ends(1006, "", Closer::Network);
    }

    /// End for this reason.
    pub fn ends(&self, code: u16, reason: &str, by: Closer) {
        self.gateway.ends(&self.id, Close { code, reason: reason.to_owned(), by });
    }
}

/// What there is to see.
impl<P: Exported> Client<P> {
    /// What it was sent since this was last asked, in order.
    pub fn received(&self) -> Vec<Message> {
        self.peer(|peer| std::mem::take(&mut peer.outbox))
    }

    /// What it was sent since this was last asked, as JSON.
    ///
    /// # Panics
    /// A message is not JSON.
    #[track_caller]
    pub fn received_json(&self) -> Vec<Value> {
        let json = |message: &Message| match message.json() {
            Ok(value) => value,
            Err(error) => panic!("the client received what is not JSON ({error}): {message:?}"),
        };
        self.received().iter().map(json).collect()
    }

    /// The session's id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Who it is.
    pub fn user(&self) -> Option<String> {
        self.peer(|peer| peer.user.clone())
    }

    /// How the session ended, if it has.
    pub fn closed(&self) -> Option<Close> {
        self.peer(|peer| peer.closed.clone())
    }

    /// An attribute of the session.
    pub fn attribute(&self, name: &str) -> Option<String> {
        self.peer(|peer| peer.attributes.get(name).cloned())
    }

    /// The topics that the session is subscribed to, sorted.
    pub fn topics(&self) -> Vec<String> {
        self.peer(|peer| peer.subscriptions.iter().cloned().collect())
    }

    /// The timers that are set, and when they run out: Unix time in milliseconds.
    pub fn timers(&self) -> BTreeMap<String, u64> {
        self.peer(|peer| peer.timers.clone())
    }

    /// When the session will be closed: Unix time in milliseconds.
    pub fn expiry(&self) -> Option<u64> {
        self.peer(|peer| peer.expiry)
    }

    fn peer<T>(&self, look: impl FnOnce(&mut Peer) -> T) -> T {
        look(self.gateway.state.borrow_mut().peers.entry(self.id.clone()).or_default())
    }
}

impl<P> fmt::Debug for Client<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("id", &self.id).finish_non_exhaustive()
    }
}
