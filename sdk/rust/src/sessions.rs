//! Reach one session anywhere in the cluster, by its id. Needs the grant `sessions`.
//!
//! All are effects. None is refused, and nothing happens, when the session is not there.

use crate::{Message, Refusal, host};

/// Effect: a message to the session.
///
/// # Errors
/// `Invalid`, `Denied`, `TooLarge`.
pub fn send(id: &str, message: impl Into<Message>) -> Result<(), Refusal> {
    host::sessions::send(id, &message.into()).map(drop)
}

/// Effect: subscribe the session to a topic.
///
/// # Errors
/// `Invalid`, `Denied`.
pub fn subscribe(id: &str, topic: &str) -> Result<(), Refusal> {
    host::sessions::subscribe(id, topic).map(drop)
}

/// Effect: unsubscribe the session from a topic.
///
/// # Errors
/// `Invalid`, `Denied`.
pub fn unsubscribe(id: &str, topic: &str) -> Result<(), Refusal> {
    host::sessions::unsubscribe(id, topic).map(drop)
}

/// Effect: close the session. Code and reason as of [`Session::close`](crate::Session::close).
///
/// # Errors
/// `Invalid`, `Denied`.
pub fn disconnect(id: &str, code: u16, reason: &str) -> Result<(), Refusal> {
    host::sessions::disconnect(id, code, reason).map(drop)
}
