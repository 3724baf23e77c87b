//! What a topic has kept. Needs the grant `subscribe` for the topic.
//!
//! These wait for a store: a plugin that calls one of them runs on a stack of its own, a bit slower.

use crate::{Publication, Refusal, host};

/// Where a topic's history stands. Offsets of one epoch grow by one with each publication. A new epoch means that the
/// history was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Position {
    /// Which history.
    pub epoch: u64,
    /// Which place in it.
    pub offset: u64,
}

/// A piece of a history.
#[derive(Clone, Debug)]
pub struct Page {
    /// Oldest first.
    pub publications: Vec<Publication>,
    /// Where the topic stood at the moment of reading: the place to subscribe from
    /// ([`Subscribe::with_recovery`](crate::Subscribe::with_recovery)).
    pub position: Position,
    /// False: something between `since` and the first of these is lost.
    pub complete: bool,
}

/// The last publications of a topic, up to `limit`, at most 1,000.
///
/// # Errors
/// `Denied`, `Unsupported`: the topic keeps no history, `Unavailable`.
pub fn last(topic: &str, limit: u32) -> Result<Page, Refusal> {
    read(topic, None, limit)
}

/// The first publications of a topic after `since`, up to `limit`, at most 1,000.
///
/// # Errors
/// As of [`last`].
pub fn after(topic: &str, since: Position, limit: u32) -> Result<Page, Refusal> {
    read(topic, Some(since), limit)
}

fn read(topic: &str, since: Option<Position>, limit: u32) -> Result<Page, Refusal> {
    let page = host::history::read(topic, since, limit)?;
    Ok(Page {
        publications: page.publications.into_iter().map(Publication::new).collect(),
        position: page.position,
        complete: page.complete,
    })
}
