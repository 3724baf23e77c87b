//! Reach every session of a user, anywhere in the cluster. Needs the grant `users`.
//!
//! All are effects. None is refused, and nothing happens, when the user is not there.

use crate::{Message, Refusal, host};

/// Effect: a message to every session of the user.
///
/// # Errors
/// `Invalid`, `Denied`, `TooLarge`.
pub fn send(user: &str, message: impl Into<Message>) -> Result<(), Refusal> {
    host::users::send(user, &message.into()).map(drop)
}

/// Effect: subscribe the sessions that are there now.
///
/// # Errors
/// `Invalid`, `Denied`.
pub fn subscribe(user: &str, topic: &str) -> Result<(), Refusal> {
    host::users::subscribe(user, topic).map(drop)
}

/// Effect: unsubscribe the sessions that are there now.
///
/// # Errors
/// `Invalid`, `Denied`.
pub fn unsubscribe(user: &str, topic: &str) -> Result<(), Refusal> {
    host::users::unsubscribe(user, topic).map(drop)
}

/// Effect: close all of the user's sessions. Code and reason as of [`Session::close`](crate::Session::close).
///
/// # Errors
/// `Invalid`, `Denied`.
pub fn disconnect(user: &str, code: u16, reason: &str) -> Result<(), Refusal> {
    host::users::disconnect(user, code, reason).map(drop)
}
