//! One event on its way through a chain: what plugins may read, and what they have asked for so far.

use std::sync::Arc;

use crate::message::Publication;
use crate::plugin::effects::Effects;
use crate::plugin::script::Script;
use crate::state::SessionState;

/// What a plugin is called for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Hook {
    Init,
    Authenticate,
    Opened,
    Closed,
    Inbound,
    Batch,
    Publication,
    Broadcast,
    Outbound,
    Subscription,
    Timer,
    Reply,
    Presence,
    Http,
}

/// Messages that one call of `batch` gets at the most.
pub const BATCH_MAX: usize = 16;

impl Hook {
    pub const ALL: [Self; 14] = [
        Self::Init,
        Self::Authenticate,
        Self::Opened,
        Self::Closed,
        Self::Inbound,
        Self::Batch,
        Self::Publication,
        Self::Broadcast,
        Self::Outbound,
        Self::Subscription,
        Self::Timer,
        Self::Reply,
        Self::Presence,
        Self::Http,
    ];

    /// The interface and the function. Any compatible version of the interface is found.
    pub fn export(self) -> (&'static str, &'static str) {
        match self {
            Self::Init => ("tidegate:plugin/on-init@0.1.0", "handle"),
            Self::Authenticate => ("tidegate:plugin/on-authenticate@0.1.0", "handle"),
            Self::Opened => ("tidegate:plugin/on-session@0.1.0", "opened"),
            Self::Closed => ("tidegate:plugin/on-session@0.1.0", "closed"),
            Self::Inbound => ("tidegate:plugin/on-inbound@0.1.0", "handle"),
            Self::Batch => ("tidegate:plugin/on-batch@0.1.0", "handle"),
            Self::Publication => ("tidegate:plugin/on-publication@0.1.0", "handle"),
            Self::Broadcast => ("tidegate:plugin/on-broadcast@0.1.0", "handle"),
            Self::Outbound => ("tidegate:plugin/on-outbound@0.1.0", "handle"),
            Self::Subscription => ("tidegate:plugin/on-subscription@0.1.0", "handle"),
            Self::Timer => ("tidegate:plugin/on-timer@0.1.0", "handle"),
            Self::Reply => ("tidegate:plugin/on-reply@0.1.0", "handle"),
            Self::Presence => ("tidegate:plugin/on-presence@0.1.0", "handle"),
            Self::Http => ("wasi:http/incoming-handler@0.2.12", "handle"),
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
            Self::Batch => "batch",
            Self::Publication => "publication",
            Self::Broadcast => "broadcast",
            Self::Outbound => "outbound",
            Self::Subscription => "subscription",
            Self::Timer => "timer",
            Self::Reply => "reply",
            Self::Presence => "presence",
            Self::Http => "http",
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
    /// Where what the call asks is kept or answered from; none unless it is recorded or replayed.
    pub script: Option<Arc<Script>>,
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
