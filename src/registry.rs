//! Which sessions this node holds, by their number and by their user.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::message::SessionId;
use crate::outbox::Outbox;
use crate::redis::Redis;

const SHARDS: usize = 32;

type SessionShard = Mutex<HashMap<u64, Arc<Outbox>>>;
type UserShard = Mutex<HashMap<Arc<str>, Vec<Arc<Outbox>>>>;

/// All sessions of this node.
pub struct Registry {
    node: u64,
    next: AtomicU64,
    sessions: Box<[SessionShard]>,
    users: Box<[UserShard]>,
    hasher: RandomState,
    /// Where what is sent to a user on other nodes comes from.
    redis: Option<Arc<Redis>>,
}

impl Registry {
    /// `node` tells this node's sessions from those of others.
    pub fn new(node: u64, redis: Option<Arc<Redis>>) -> Self {
        Self {
            node,
            next: AtomicU64::new(1),
            sessions: (0..SHARDS).map(|_| Mutex::default()).collect(),
            users: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
            redis,
        }
    }

    /// What tells this node from the others.
    pub fn node(&self) -> u64 {
        self.node
    }

    /// An id that no session had before. Numbers are never 0.
    pub fn new_id(&self) -> SessionId {
        SessionId { node: self.node, number: self.next.fetch_add(1, Ordering::Relaxed) }
    }

    pub fn add(&self, outbox: &Arc<Outbox>, user: Option<&Arc<str>>) {
        self.sessions[outbox.id.number as usize % SHARDS].lock().insert(outbox.id.number, outbox.clone());
        if let Some(user) = user {
            self.remember_user(outbox, user);
        }
    }

    pub fn remove(&self, session: SessionId, user: Option<&Arc<str>>) {
        self.sessions[session.number as usize % SHARDS].lock().remove(&session.number);
        if let Some(user) = user {
            self.forget_user(session, user);
        }
    }

    /// The session is its user's no more, and can be found by its number alone.
    pub fn forget(&self, session: SessionId, user: Option<&Arc<str>>) {
        if let Some(user) = user {
            self.forget_user(session, user);
        }
    }

    /// The session has another user now.
    pub fn change_user(&self, outbox: &Arc<Outbox>, from: Option<&Arc<str>>, to: Option<&Arc<str>>) {
        if let Some(user) = from {
            self.forget_user(outbox.id, user);
        }
        if let Some(user) = to {
            self.remember_user(outbox, user);
        }
    }

    pub fn session(&self, id: SessionId) -> Option<Arc<Outbox>> {
        if id.node != self.node {
            return None;
        }
        self.sessions[id.number as usize % SHARDS].lock().get(&id.number).cloned()
    }

    /// The user's sessions, in the order in which they came.
    pub fn sessions_of(&self, user: &str) -> Vec<Arc<Outbox>> {
        self.users(user).lock().get(user).cloned().unwrap_or_default()
    }

    /// Every session, in no order.
    pub fn all(&self) -> Vec<Arc<Outbox>> {
        self.sessions.iter().flat_map(|shard| shard.lock().values().cloned().collect::<Vec<_>>()).collect()
    }

    pub fn len(&self) -> usize {
        self.sessions.iter().map(|shard| shard.lock().len()).sum()
    }

    fn users(&self, user: &str) -> &UserShard {
        &self.users[self.hasher.hash_one(user) as usize % SHARDS]
    }

    fn remember_user(&self, outbox: &Arc<Outbox>, user: &Arc<str>) {
        let mut users = self.users(user).lock();
        let sessions = users.entry(user.clone()).or_default();
        // Under the lock, so that the last one's end does not come in between.
        if let (true, Some(redis)) = (sessions.is_empty(), &self.redis) {
            redis.want(&redis.keys.user_channel(user));
        }
        sessions.push(outbox.clone());
    }

    fn forget_user(&self, session: SessionId, user: &Arc<str>) {
        let mut users = self.users(user).lock();
        if let Some(sessions) = users.get_mut(user) {
            sessions.retain(|outbox| outbox.id != session);
            if sessions.is_empty() {
                if let Some(redis) = &self.redis {
                    redis.unwant(&redis.keys.user_channel(user));
                }
                users.remove(user);
            }
        }
    }
}
