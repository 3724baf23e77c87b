//! The interface's shared types, as the generated bindings name them.
#![allow(missing_docs, reason = "aliases of the bindings")]

pub use crate::error::Refusal;
pub use crate::history::Position;
pub use crate::message::{Message, Verdict};

pub type Session = u64;
pub type Publication = u64;
pub type Effect = u32;
