//! One event on its way through a chain: what plugins may read, and what they have asked for so far.

use std::sync::Arc;

use crate::message::Publication;
use crate::plugin::effects::Effects;
use crate::state::SessionState;

/// What a plugin is called for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Hook {
    Init,
    Authenticate,
    Opened,
    Closed,
    Inbound,
    Publication,
    Broadcast,
    Outbound,
    Subscription,
    Timer,
    Reply,
    Presence,
}

impl Hook {
    pub const ALL: [Self; 12] = [
        Self::Init,
        Self::Authenticate,
        Self::Opened,
        Self::Closed,
        Self::Inbound,
        Self::Publication,
        Self::Broadcast,
        Self::Outbound,
        Self::Subscription,
        Self::Timer,
        Self::Reply,
        Self::Presence,
    ];

    /// The interface and the function of the WIT package.
    pub fn export(self) -> (&'static str, &'static str) {
        match self {
            Self::Init => ("on-init", "handle"),
            Self::Authenticate => ("on-authenticate", "handle"),
            Self::Opened => ("on-session", "opened"),
            Self::Closed => ("on-session", "closed"),
            Self::Inbound => ("on-inbound", "handle"),
            Self::Publication => ("on-publication", "handle"),
            Self::Broadcast => ("on-broadcast", "handle"),
            Self::Outbound => ("on-outbound", "handle"),
            Self::Subscription => ("on-subscription", "handle"),
            Self::Timer => ("on-timer", "handle"),
            Self::Reply => ("on-reply", "handle"),
            Self::Presence => ("on-presence", "handle"),
        }
    }

    /// What logs and metrics call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Init => "init",
            Self::Authenticate => "authenticate",
            Self::Opened => "opened",
            Self::Closed => "closed",
            Self::Inbound => "inbound",
            Self::Publication => "publication",
            Self::Broadcast => "broadcast",
            Self::Outbound => "outbound",
            Self::Subscription => "subscription",
            Self::Timer => "timer",
            Self::Reply => "reply",
            Self::Presence => "presence",
        }
    }

    /// Whether a call of this hook may ask for effects at all.
    pub fn may_act(self) -> bool {
        !matches!(self, Self::Init | Self::Publication | Self::Broadcast)
    }
}

/// An event. It moves from plugin to plugin along the chain.
#[derive(Default)]
pub struct Event {
    /// The session that it belongs to, if any.
    pub session: Option<Box<SessionState>>,
    /// What the call was made for or has read; a handle is a place in this list, counted from 1.
    pub publications: Vec<Arc<Publication>>,
    pub effects: Effects,
    /// The place in the chain of the plugin that is called.
    pub place: u16,
    pub patience: Patience,
}

/// Whether an event's calls, and the application of its effects, can be waited for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Patience {
    #[default]
    Waits,
    /// The caller has seen that nothing in its way waits, and polls once.
    None,
}

impl Event {
    /// For a session's event; the state comes back by `session.take()`.
    pub fn of(session: Box<SessionState>) -> Self {
        Self { session: Some(session), ..Self::default() }
    }
}
