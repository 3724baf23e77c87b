//! A message on a topic.

use std::marker::PhantomData;

use crate::{Message, history::Position, host};

/// A publication that a hook was called for or that was read from a history. Good for the call that received it.
#[derive(Clone, Copy, Debug)]
pub struct Publication {
    handle: u64,
    // Neither Send nor Sync, so that a static cannot keep it beyond its call.
    call: PhantomData<*const ()>,
}

impl Publication {
    pub(crate) fn new(handle: u64) -> Self {
        Self { handle, call: PhantomData }
    }

    /// The topic that it is on.
    pub fn topic(self) -> String {
        host::publication::topic(self.handle)
    }

    /// What it carries.
    pub fn message(self) -> Message {
        host::publication::content(self.handle)
    }

    /// Its place in the history. None where the topic keeps none, and before the broker has accepted it.
    pub fn position(self) -> Option<Position> {
        host::publication::history_position(self.handle)
    }

    /// When it was made: Unix time in milliseconds.
    pub fn time(self) -> u64 {
        host::publication::time(self.handle)
    }

    /// The key of [`Publish::key`](crate::topics::Publish::key).
    pub fn key(self) -> Option<String> {
        host::publication::key(self.handle)
    }

    /// An entry of [`Publish::metadata`](crate::topics::Publish::metadata).
    pub fn metadata(self, name: &str) -> Option<String> {
        host::publication::metadata(self.handle, name)
    }
}
