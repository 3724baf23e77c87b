//! Who is on a topic. Needs the grant `subscribe` for the topic.
//!
//! The functions wait for a store: a plugin that calls one of them runs on a stack of its own, a bit slower. An accepted
//! subscription shows at the latest when the next event of its session begins.

use crate::{Refusal, host};

/// Somebody on a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// The session's id.
    pub session_id: String,
    /// Its user.
    pub user: Option<String>,
    /// As given to [`Subscribe::with_presence`](crate::Subscribe::with_presence).
    pub info: String,
}

/// How many are on a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    /// Sessions.
    pub sessions: u32,
    /// Different users.
    pub users: u32,
}

/// A join or a leave, as [`Plugin::presence`](crate::Plugin::presence) is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The topic.
    pub topic: String,
    /// What happened.
    pub event: Event,
    /// The session's id.
    pub session_id: String,
    /// Its user.
    pub user: Option<String>,
    /// As given to [`Subscribe::with_presence`](crate::Subscribe::with_presence).
    pub info: String,
    /// How many of the user's sessions are on the topic now. Sessions without a user are counted one by one.
    pub sessions_of_user: u32,
}

impl Change {
    /// Whether the user was not on the topic before.
    pub fn is_first_of_user(&self) -> bool {
        self.event == Event::Joined && self.sessions_of_user == 1
    }

    /// Whether the user is not on the topic any more.
    pub fn is_last_of_user(&self) -> bool {
        self.event == Event::Left && self.sessions_of_user == 0
    }
}

/// What happened on a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// The session is on the topic now.
    Joined,
    /// The session is no longer on the topic.
    Left,
}

/// How many are on the topic.
///
/// # Errors
/// `Denied`, `Unsupported`: the topic has no presence, `Unavailable`.
pub fn count(topic: &str) -> Result<Counts, Refusal> {
    host::presence::count(topic).map(|counts| Counts { sessions: counts.sessions, users: counts.users })
}

/// Who is on the topic, up to `limit`, at most 1,000, in no order.
///
/// # Errors
/// As of [`count`].
pub fn members(topic: &str, limit: u32) -> Result<Vec<Member>, Refusal> {
    let members = host::presence::members(topic, limit)?;
    Ok(members.into_iter().map(|m| Member { session_id: m.session_id, user: m.user, info: m.info }).collect())
}

/// Whether the user is on the topic, with any session.
///
/// # Errors
/// As of [`count`].
pub fn has_user(topic: &str, user: &str) -> Result<bool, Refusal> {
    host::presence::has_user(topic, user)
}
