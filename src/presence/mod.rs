//! Who is on a topic, on this node or on all that share a Redis.
//!
//! Members are sessions; users are counted, so that many tabs of one user are one. The contract, for both
//! implementations: each join and each leave is a change, changes of a topic have one order, and each is told by one teller
//! at a time, on one node. What a node says is seen by everybody's next question once `settled` has returned.

#[cfg(test)]
mod contract;
mod memory;
mod redis;

use std::sync::{Arc, OnceLock, Weak};

use self::memory::{MemoryPresence, Watch};
pub use self::redis::Running;
use self::redis::{RedisPresence, Teller};
use crate::message::{SessionId, TopicName};
use crate::redis::{Fault, Redis};

/// Changes of one topic that may wait to be told; what comes then is not told, and counted as dropped.
const CHANGES: usize = 16_384;

/// A session on a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    pub session: SessionId,
    pub user: Option<Arc<str>>,
    /// What the plugin that subscribed it had to say.
    pub info: Arc<str>,
}

/// How many are on a topic. A session without a user counts as a user of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub sessions: u32,
    pub users: u32,
}

/// A join or a leave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub joined: bool,
    pub member: Member,
    /// The user's sessions on the topic after the change.
    pub sessions_of_user: u32,
}

/// Who wants to know of changes.
pub trait Watcher: Send + Sync + 'static {
    /// Whether changes of the topic are told to anybody.
    fn watches(&self, topic: &TopicName) -> bool;

    /// Changes wait: take one after the other, until none is left. Must not wait itself.
    fn tell(self: Arc<Self>, changes: Changes);

    /// So many changes are not told, since too many wait.
    fn dropped(&self, topic: &TopicName, count: u64);
}

/// The one who is told, once there is one.
type Watchers = Arc<OnceLock<Weak<dyn Watcher>>>;

/// The changes of a topic, for who tells them.
pub struct Changes {
    pub topic: TopicName,
    from: From,
}

enum From {
    Memory(Arc<MemoryPresence>),
    Redis(Box<Teller>),
}

impl Changes {
    /// The next change, when the one before it is told; None ends the work.
    pub async fn next(&mut self) -> Option<Change> {
        match &mut self.from {
            From::Memory(presence) => presence.next_change(&self.topic),
            From::Redis(teller) => Box::pin(teller.next()).await,
        }
    }
}

/// Presence of all topics.
pub struct Presence {
    store: Store,
    watchers: Watchers,
}

enum Store {
    Memory(Arc<MemoryPresence>),
    Redis(Arc<RedisPresence>),
}

impl Presence {
    /// That of a node which stands alone, or of all nodes that share a Redis.
    pub fn new(redis: Option<(&Arc<Redis>, u64)>) -> Self {
        let watchers = Watchers::default();
        let store = match redis {
            None => Store::Memory(Arc::default()),
            Some((redis, node)) => Store::Redis(RedisPresence::new(redis.clone(), node, watchers.clone())),
        };
        Self { store, watchers }
    }

    /// Names the one who is told of changes. The first word counts.
    pub fn watch(&self, watcher: Weak<dyn Watcher>) {
        let _ = self.watchers.set(watcher);
    }

    /// Keeps this node's members known to the others, as long as the value lives.
    pub fn run(&self) -> Option<Running> {
        match &self.store {
            Store::Memory(_) => None,
            Store::Redis(presence) => Some(presence.run()),
        }
    }

    /// The link for these channels is back: what Redis knows of their topics may be another than before.
    pub fn back(&self, channels: &[String]) {
        if let Store::Redis(presence) = &self.store {
            presence.back(channels);
        }
    }

    /// The node leaves: waits until Redis and those who are told know all that there is to know.
    pub async fn leave_cluster(&self) {
        if let Store::Redis(presence) = &self.store {
            presence.leave_cluster().await;
        }
    }

    /// A session comes to a topic, or renews its user or info there.
    pub fn join(&self, topic: &TopicName, member: Member) {
        match &self.store {
            Store::Memory(presence) => {
                let watch = presence.join(topic, member, self.watches(topic));
                self.told(presence, topic, watch);
            }
            Store::Redis(presence) => presence.join(topic, member),
        }
    }

    /// A session leaves a topic; nothing happens where it was not there.
    pub fn leave(&self, topic: &TopicName, session: SessionId) {
        match &self.store {
            Store::Memory(presence) => {
                let watch = presence.leave(topic, session, self.watches(topic));
                self.told(presence, topic, watch);
            }
            Store::Redis(presence) => presence.leave(topic, session),
        }
    }

    /// Waits until what this node has said of the topic is known to all, or Redis does not take it now. Then it is told later.
    pub async fn settled(&self, topic: &TopicName) {
        if let Store::Redis(presence) = &self.store {
            Box::pin(presence.settled(topic)).await;
        }
    }

    /// What a session of this node tells of itself on a topic.
    pub fn info(&self, topic: &TopicName, session: SessionId) -> Option<Arc<str>> {
        match &self.store {
            Store::Memory(presence) => presence.info(topic, session),
            Store::Redis(presence) => presence.info(topic, session),
        }
    }

    pub async fn counts(&self, topic: &str) -> Result<Counts, Fault> {
        match &self.store {
            Store::Memory(presence) => Ok(presence.counts(topic)),
            Store::Redis(presence) => presence.counts(topic).await,
        }
    }

    /// Up to `limit` members, in no order.
    pub async fn members(&self, topic: &str, limit: usize) -> Result<Vec<Member>, Fault> {
        match &self.store {
            Store::Memory(presence) => Ok(presence.members(topic, limit)),
            Store::Redis(presence) => presence.members(topic, limit).await,
        }
    }

    pub async fn has_user(&self, topic: &str, user: &str) -> Result<bool, Fault> {
        match &self.store {
            Store::Memory(presence) => Ok(presence.has_user(topic, user)),
            Store::Redis(presence) => presence.has_user(topic, user).await,
        }
    }

    /// Whether this node is telling changes of any topic.
    pub fn is_telling(&self) -> bool {
        match &self.store {
            Store::Memory(presence) => presence.is_telling(),
            Store::Redis(presence) => presence.is_telling(),
        }
    }

    fn watches(&self, topic: &TopicName) -> bool {
        watcher(&self.watchers).is_some_and(|watcher| watcher.watches(topic))
    }

    fn told(&self, presence: &Arc<MemoryPresence>, topic: &TopicName, watch: Watch) {
        let Some(watcher) = watcher(&self.watchers) else { return };
        match watch {
            Watch::Quiet => {}
            Watch::Drain => watcher.tell(Changes { topic: topic.clone(), from: From::Memory(presence.clone()) }),
            Watch::Dropped => watcher.dropped(topic, 1),
        }
    }
}

fn watcher(watchers: &Watchers) -> Option<Arc<dyn Watcher>> {
    watchers.get().and_then(Weak::upgrade)
}
