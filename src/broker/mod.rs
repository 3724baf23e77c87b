//! What carries publications between nodes and keeps their history.
//!
//! The contract, for every implementation:
//!
//! - To append to a topic's history and to hand the publication on are one step: nobody sees one without the other.
//! - Offsets of an epoch grow by one with each publication; an epoch that is new means that history was lost.
//! - A publication under an idempotency key that was used on the topic within the window counts as done.
//! - A broker calls nobody. One that lives in this process hands an accepted publication back to the caller (the hub,
//!   under its topic's lock, so that deliveries keep the order of offsets). One on Redis answers when it is published,
//!   and what it delivers comes by way of subscriptions, on the publishing node too.

#[cfg(test)]
mod contract;
mod envelope;
mod memory;
mod redis;

use std::sync::Arc;
use std::time::Duration;

pub use self::memory::MemoryBroker;
pub use self::redis::{KNOWN, RedisBroker};

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
    #[error("Redis cannot be reached")]
    Gone,
    #[error("Redis has not answered in time: it may have been done nevertheless")]
    Unanswered,
    #[error("Redis refuses it; the log says why")]
    Refused,
    #[error("too many publications are on their way to Redis (`redis.pending`)")]
    Busy,
    #[error("too many publications wait for Redis (`redis.queue`)")]
    QueueFull,
    #[error("Redis answers what no gateway has written: see that nothing else uses the prefix of [redis]")]
    Strange,
}

/// One of the two.
pub enum Broker {
    Memory(MemoryBroker),
    Redis(Arc<RedisBroker>),
}

/// Where a topic stands for those who follow it. Every publication has a sequence number, also one that no history
/// keeps: that is how a hole is seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    pub epoch: u64,
    pub sequence: u64,
    /// Of the last publication in the history.
    pub offset: u64,
}

/// A publication that has come from other nodes, or back from them.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// Its offset is 0 where no history keeps it.
    pub mark: Mark,
    pub publication: Arc<Publication>,
}

/// What a follower has missed.
#[derive(Clone, Debug)]
pub struct Stretch {
    /// Where the topic stood at the moment of reading.
    pub mark: Mark,
    /// In order; those that a history keeps.
    pub arrivals: Vec<Arrival>,
    /// What stands where the follower is, if the history still has it.
    pub there: Option<Arrival>,
}

/// What became of a publication that goes by way of Redis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    Published(Mark),
    /// Its idempotency key was used before: nothing is delivered.
    Duplicate,
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
