//! WebSocket (RFC 6455): the opening handshake's checks, what it agrees on, and frames on their way in.

mod decoder;
mod negotiate;
mod upgrade;

#[cfg(any(test, feature = "fuzzing"))]
pub use decoder::Violation;
pub use decoder::{Decoder, Flow, Frame, Inflation};
pub use negotiate::{Agreed, negotiate};
pub use upgrade::{Asked, Refused, accept_key, check, is_allowed, is_asked};
