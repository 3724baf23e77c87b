//! What carries publications between nodes and keeps their history.
//!
//! The contract, for every implementation:
//!
//! - To append to a topic's history and to hand the publication on are one step: nobody sees one without the other.
//! - Offsets of an epoch grow by one with each publication; an epoch that is new means that history was lost.
//! - A publication under an idempotency key that was used on the topic within the window counts as done.
//! - A broker calls nobody. One that lives in this process hands an accepted publication back to the caller (the hub,
//!   under its topic's lock, so that deliveries keep the order of offsets).

mod memory;

use std::sync::Arc;
use std::time::Duration;

pub use memory::MemoryBroker;

use crate::message::{Position, Publication};

/// How long an idempotency key is remembered.
pub const IDEMPOTENCY_WINDOW: Duration = Duration::from_secs(300);

/// What a topic keeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    /// Publications, at most; 0 keeps none.
    pub size: u32,
    /// Since the topic's last publication.
    pub ttl: Duration,
}

/// A broker's no.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BrokerError {
    #[error("the broker holds as much history as it may (`history_memory`)")]
    Full,
}

/// What became of an accepted publication.
#[derive(Clone, Debug)]
pub enum Accepted {
    /// It has its position now; the caller delivers it on this node.
    Deliver(Arc<Publication>),
    /// Its idempotency key was used before: nothing is delivered.
    Duplicate,
}

/// A stretch of a topic's history.
#[derive(Clone, Debug)]
pub struct Page {
    /// Oldest first.
    pub publications: Vec<Arc<Publication>>,
    /// Where the topic stood at the moment of reading.
    pub position: Position,
    /// False: something between what was asked for and the first of these is lost.
    pub complete: bool,
}
