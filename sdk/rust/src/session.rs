//! The session that a hook is called for.

use std::marker::PhantomData;
use std::time::Duration;

use serde::Serialize;

use crate::{Message, Refusal, Result, history::Position, host};

/// Which of a user's sessions stay where there are too many.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Keep {
    /// Who comes last takes the place of who came first.
    Newest,
    /// Who comes when there are enough is closed.
    Oldest,
}

/// The session that a hook is called for.
///
/// It is good for the call that received it and no longer; using it later is a mistake that traps. Reads see what this
/// event has asked for so far, by earlier plugins of the chain too. Whatever is marked *effect* happens when the whole
/// chain has answered well, in the order of the calls, and not at all when it fails.
///
/// Another session is reached by its id ([`sessions`](crate::sessions)) or by its user ([`users`](crate::users)). What
/// the client's request said is here too: [`param`](Self::param), [`query`](Self::query), [`header`](Self::header) ….
#[derive(Clone, Copy, Debug)]
pub struct Session {
    pub(crate) handle: u64,
    // Neither Send nor Sync, so that a static cannot keep it beyond its call.
    call: PhantomData<*const ()>,
}

impl Session {
    pub(crate) fn new(handle: u64) -> Self {
        Self { handle, call: PhantomData }
    }

    /// Names the session cluster-wide: 1 to 64 bytes of letters, digits, `-` and `_`. Not a secret, not an authority.
    pub fn id(self) -> String {
        host::session::id(self.handle)
    }

    /// Who the client is, as an `authenticate` hook has said.
    pub fn user(self) -> Option<String> {
        host::session::user(self.handle)
    }

    /// The route's name.
    pub fn route(self) -> String {
        host::session::route(self.handle)
    }

    /// `websocket`, `sse`, `long-poll`; more may come.
    pub fn transport(self) -> String {
        host::session::transport(self.handle)
    }

    /// The subprotocol that was selected.
    pub fn subprotocol(self) -> Option<String> {
        host::session::subprotocol(self.handle)
    }

    /// Attributes are shared by the plugins of the chain and live as long as the session.
    pub fn attribute(self, name: &str) -> Option<String> {
        host::session::attribute(self.handle, name)
    }

    /// Whether the session is subscribed to the topic.
    pub fn is_subscribed(self, topic: &str) -> bool {
        host::session::is_subscribed(self.handle, topic)
    }

    /// The topics that the session is subscribed to.
    pub fn topics(self) -> Vec<String> {
        host::session::topics(self.handle)
    }

    /// Effect: a message to this client, through its outbox.
    pub fn send(self, message: impl Into<Message>) {
        host::session::send(self.handle, &message.into());
    }

    /// Effect: a text message to this client that holds `value` as JSON.
    ///
    /// # Errors
    /// As of [`Message::from_json`].
    pub fn send_json<T: Serialize + ?Sized>(self, value: &T) -> Result {
        self.send(Message::from_json(value)?);
        Ok(())
    }

    /// A message that is sent instead of the rest when an effect of this event is refused as it is applied (the broker
    /// is away, say), and forgotten otherwise. Several are sent in order. Without one the route's policy applies:
    /// close with 1013, unless configured otherwise.
    pub fn send_if_refused(self, message: impl Into<Message>) {
        host::session::send_if_refused(self.handle, &message.into());
    }

    /// Effect: who the client is, for protocols that sign in after the handshake. None signs out.
    ///
    /// # Errors
    /// `Invalid`: not 1 to 255 bytes.
    pub fn set_user(self, user: Option<&str>) -> Result<(), Refusal> {
        host::session::set_user(self.handle, user)
    }

    /// Effect: names up to 64 bytes, values up to 4 KiB, 16 KiB and 64 names in a session.
    ///
    /// # Errors
    /// `Invalid`, `TooLarge` or `TooMany`, over these bounds.
    pub fn set_attribute(self, name: &str, value: &str) -> Result<(), Refusal> {
        host::session::set_attribute(self.handle, name, Some(value))
    }

    /// Effect: forget an attribute.
    pub fn remove_attribute(self, name: &str) {
        // A name that the gateway refuses names no attribute, so there is nothing to remove.
        let _ = host::session::set_attribute(self.handle, name, None);
    }

    /// Effect: close with 3000 (unauthorized) at this Unix time in milliseconds, unless moved before. None: never.
    pub fn set_expiry(self, at: Option<u64>) {
        host::session::set_expiry(self.handle, at);
    }

    /// Effect: subscribe to a topic. Nothing that is published once it is applied is missed, and its first delivery
    /// comes after whatever this event sends. A topic that is subscribed already stays so, with the new options.
    ///
    /// # Errors
    /// `Invalid`, `Denied`, `TooMany`.
    pub fn subscribe(self, topic: &str) -> Result<Subscribe, Refusal> {
        host::session::subscribe(self.handle, topic).map(|effect| Subscribe { effect })
    }

    /// Effect. Nothing happens to a topic that is not subscribed.
    pub fn unsubscribe(self, topic: &str) {
        host::session::unsubscribe(self.handle, topic);
    }

    /// Effect: flush the outbox, then close. Codes 1000, 1001, 1003, 1007 to 1009, 1011 to 1014 and 3000 to 4999; any
    /// other traps. The reason is cut after 123 bytes.
    pub fn close(self, code: u16, reason: &str) {
        host::session::close(self.handle, code, reason);
    }

    /// Effect: call this plugin's `timer` once, after this time, in whole milliseconds. Names are the plugin's own, up
    /// to 64 bytes; setting one again moves it. 16 timers in a session.
    ///
    /// # Errors
    /// `Invalid` or `TooMany`, over these bounds.
    pub fn set_timer(self, name: &str, after: Duration) -> Result<(), Refusal> {
        host::session::set_timer(self.handle, name, host::millis(after))
    }

    /// Effect. Nothing happens to a timer that is not set.
    pub fn cancel_timer(self, name: &str) {
        host::session::cancel_timer(self.handle, name);
    }

    /// Effect: of the sessions of this user that have asked for it, on all nodes, so many stay, 1 to 100. The others are
    /// closed: with 4002 where a newer one takes their place, with 4003 where they came too late. For `opened`, or behind
    /// [`Session::set_user`].
    ///
    /// # Errors
    /// `Invalid`, over these bounds and without a user.
    pub fn limit_sessions(self, sessions: u32, keep: Keep) -> Result<(), Refusal> {
        let keep = match keep {
            Keep::Newest => host::data::Keep::Newest,
            Keep::Oldest => host::data::Keep::Oldest,
        };
        host::session::limit_sessions(self.handle, sessions, keep)
    }
}

/// A subscription that this event has asked for; its options are added here.
#[derive(Debug)]
pub struct Subscribe {
    effect: u32,
}

impl Subscribe {
    /// Be seen in the topic's presence, with this information, up to 1 KiB.
    ///
    /// # Errors
    /// `TooLarge`, or `Unsupported`: the topic has no presence. The subscription itself stands.
    pub fn with_presence(self, info: &str) -> Result<Self, Refusal> {
        host::session::with_presence(self.effect, info)?;
        Ok(self)
    }

    /// First deliver what the topic's history holds after `since`, then go on without a gap. Where the history does
    /// not reach back that far, [`Plugin::subscription`](crate::Plugin::subscription) is told of the gap; without that
    /// hook the session is closed with 4001.
    pub fn with_recovery(self, since: Position) -> Self {
        host::session::with_recovery(self.effect, since);
        self
    }
}
