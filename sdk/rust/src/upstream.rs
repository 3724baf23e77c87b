//! The gateway's backends, by their configured names. Needs the grant `upstreams`.
//!
//! These are effects of the hooks that have a session, but for `authenticate` and `outbound`. What an upstream answers to a [`request`] comes to
//! [`Plugin::reply`](crate::Plugin::reply), as an event of its own.

use std::fmt;
use std::time::Duration;

use crate::{Message, Refusal, Session, host};

/// Effect: hand the message over, in the order of the session; nobody waits for an answer. It is refused when it is
/// applied if the upstream's queue is full or its breaker is open.
///
/// # Errors
/// `Denied`, or `Unsupported`: there is no such upstream.
pub fn forward(session: Session, upstream: &str, message: impl Into<Message>) -> Result<Forward, Refusal> {
    host::upstream::forward(session.handle, upstream, &message.into()).map(|effect| Forward { effect })
}

/// Effect: as [`forward`], and the answer comes to this plugin's `reply` with the same tag, up to 255 bytes.
///
/// ```no_run
/// # use std::time::Duration;
/// # use tidegate_sdk::{Result, Session, upstream};
/// # fn hook(session: Session) -> Result {
/// upstream::request(session, "orders", "order-7", r#"{"item":"tea"}"#)?
///     .header("content-type", "application/json")?
///     .timeout(Duration::from_secs(2));
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// As of [`forward`].
pub fn request(session: Session, upstream: &str, tag: &str, message: impl Into<Message>) -> Result<Request, Refusal> {
    host::upstream::request(session.handle, upstream, tag, &message.into()).map(|effect| Request { effect })
}

/// A message for an upstream that this event has asked for; its options are added here.
#[derive(Debug)]
pub struct Forward {
    effect: u32,
}

impl Forward {
    /// A header that goes with it. Up to 32, and 8 KiB in all.
    ///
    /// # Errors
    /// `Invalid`, `TooLarge` or `TooMany`. The message itself goes.
    pub fn header(self, name: &str, value: &str) -> Result<Self, Refusal> {
        host::upstream::with_header(self.effect, name, value)?;
        Ok(self)
    }
}

/// A request to an upstream that this event has asked for; its options are added here.
#[derive(Debug)]
pub struct Request {
    effect: u32,
}

impl Request {
    /// A header that goes with it. Up to 32, and 8 KiB in all.
    ///
    /// # Errors
    /// `Invalid`, `TooLarge` or `TooMany`. The request itself goes.
    pub fn header(self, name: &str, value: &str) -> Result<Self, Refusal> {
        host::upstream::with_header(self.effect, name, value)?;
        Ok(self)
    }

    /// Wait so long for the answer, in whole milliseconds, up to the upstream's own limit.
    pub fn timeout(self, after: Duration) -> Self {
        host::upstream::with_timeout(self.effect, host::millis(after));
        self
    }
}

/// An upstream's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// The HTTP status.
    pub status: u16,
    /// Text where the upstream says that it is (its content type is text or JSON) and it is UTF-8.
    pub body: Message,
}

impl Response {
    /// An answer, for tests.
    pub fn new(status: u16, body: impl Into<Message>) -> Self {
        Self { status, body: body.into() }
    }

    /// Whether the status is 200 to 299.
    pub fn is_success(&self) -> bool {
        (200..=299).contains(&self.status)
    }
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Failure {
    /// No connection, or the breaker is open: the upstream has not seen the request.
    Unavailable,
    /// No answer in time: the upstream may have seen the request.
    Timeout,
    /// The answer was over the upstream's size limit.
    TooLarge,
    /// The upstream broke off or did not speak its protocol.
    Broken,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unavailable => "unavailable: the upstream has not seen the request",
            Self::Timeout => "timeout: the upstream did not answer in time and may have seen the request",
            Self::TooLarge => "too large: the answer is over the upstream's size limit",
            Self::Broken => "broken: the upstream broke off or did not speak its protocol",
        })
    }
}

impl std::error::Error for Failure {}
