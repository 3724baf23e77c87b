//! What becomes of a session's subscriptions, as [`Plugin::subscription`](crate::Plugin::subscription) is told.

use crate::history::Position;

/// What became of a subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The topic.
    pub topic: String,
    /// What happened.
    pub event: Event,
    /// Where the topic's history stands, if it keeps one: what a client may come back with, for
    /// [`Subscribe::with_recovery`](crate::Subscribe::with_recovery).
    pub position: Option<Position>,
}

/// What happened to a subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// Subscribed; nothing was to be recovered.
    Subscribed,
    /// Subscribed; all that was missed is being delivered.
    Recovered,
    /// Subscribed, or still is, but something was missed: tell the client to load its state anew.
    Gap,
    /// Subscribed from elsewhere ([`users`](crate::users), [`sessions`](crate::sessions), the admin API).
    Added,
    /// Unsubscribed from elsewhere.
    Removed,
}

impl Event {
    /// Whether the session is on the topic now.
    pub fn is_subscribed(self) -> bool {
        self != Self::Removed
    }
}
