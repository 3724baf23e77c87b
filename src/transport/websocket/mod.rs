//! WebSocket (RFC 6455): the opening handshake's checks, and frames on their way in.

mod decoder;
mod upgrade;

#[cfg(any(test, feature = "fuzzing"))]
pub use decoder::Violation;
pub use decoder::{Decoder, Flow, Frame};
pub use upgrade::{Refused, accept_key, check, is_allowed, is_asked};
