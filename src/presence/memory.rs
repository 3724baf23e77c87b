//! Presence of a node that stands alone. Changes that somebody watches are queued for each topic, in their order, and
//! taken by one teller at a time.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use parking_lot::Mutex;

use super::{CHANGES, Change, Counts, Member};
use crate::message::{SessionId, TopicName};

const SHARDS: usize = 64;

/// What `join` and `leave` ask of their caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Watch {
    /// Nothing.
    Quiet,
    /// Changes wait and nobody drains them: call `next_change` until it says None.
    Drain,
    /// The change was not queued: too many wait.
    Dropped,
}

/// Presence of all topics on this node.
pub struct MemoryPresence {
    shards: Box<[Mutex<HashMap<TopicName, Members>>]>,
    hasher: RandomState,
}

#[derive(Default)]
struct Members {
    sessions: HashMap<SessionId, Member>,
    users: HashMap<Arc<str>, u32>,
    changes: VecDeque<Change>,
    draining: bool,
}

impl Default for MemoryPresence {
    fn default() -> Self {
        Self { shards: (0..SHARDS).map(|_| Mutex::default()).collect(), hasher: RandomState::new() }
    }
}

impl MemoryPresence {
    fn shard(&self, topic: &str) -> &Mutex<HashMap<TopicName, Members>> {
        &self.shards[self.hasher.hash_one(topic) as usize % SHARDS]
    }

    /// A session comes to a topic, or renews its info there. `watched`: somebody wants to know of changes.
    pub fn join(&self, topic: &TopicName, member: Member, watched: bool) -> Watch {
        let mut shard = self.shard(topic.as_str()).lock();
        let members = shard.entry(topic.clone()).or_default();
        if let Some(known) = members.sessions.get_mut(&member.session) {
            if known.user == member.user {
                known.info = member.info;
                return Watch::Quiet;
            }
            // Somebody else sits there now: the former user has left.
            let left = members.remove(member.session, watched);
            let joined = members.insert(member, watched);
            return if left == Watch::Quiet { joined } else { left };
        }
        members.insert(member, watched)
    }

    /// A session leaves a topic; nothing happens where it was not there.
    pub fn leave(&self, topic: &TopicName, session: SessionId, watched: bool) -> Watch {
        let mut shard = self.shard(topic.as_str()).lock();
        let Some(members) = shard.get_mut(topic) else {
            return Watch::Quiet;
        };
        let watch = members.remove(session, watched);
        if members.is_spent() {
            shard.remove(topic);
        }
        watch
    }

    /// The next change of a topic; None ends the drainer's work.
    pub fn next_change(&self, topic: &TopicName) -> Option<Change> {
        let mut shard = self.shard(topic.as_str()).lock();
        let members = shard.get_mut(topic)?;
        let change = members.changes.pop_front();
        if change.is_none() {
            members.draining = false;
            if members.is_spent() {
                shard.remove(topic);
            }
        }
        change
    }

    /// Whether changes of any topic are still to be told.
    pub fn is_telling(&self) -> bool {
        self.shards.iter().any(|shard| shard.lock().values().any(|members| members.draining))
    }

    /// What a session tells of itself on a topic.
    pub fn info(&self, topic: &TopicName, session: SessionId) -> Option<Arc<str>> {
        let shard = self.shard(topic.as_str()).lock();
        Some(shard.get(topic)?.sessions.get(&session)?.info.clone())
    }

    pub fn counts(&self, topic: &str) -> Counts {
        let shard = self.shard(topic).lock();
        shard.get(topic).map(Members::counts).unwrap_or_default()
    }

    /// Up to `limit` members, in no order.
    pub fn members(&self, topic: &str, limit: usize) -> Vec<Member> {
        let shard = self.shard(topic).lock();
        shard.get(topic).map(|members| members.sessions.values().take(limit).cloned().collect()).unwrap_or_default()
    }

    pub fn has_user(&self, topic: &str, user: &str) -> bool {
        let shard = self.shard(topic).lock();
        shard.get(topic).is_some_and(|members| members.users.contains_key(user))
    }
}

impl Members {
    fn insert(&mut self, member: Member, watched: bool) -> Watch {
        let sessions_of_user = match &member.user {
            Some(user) => {
                let count = self.users.entry(user.clone()).or_insert(0);
                *count += 1;
                *count
            }
            None => 1,
        };
        self.sessions.insert(member.session, member.clone());
        self.tell(Change { joined: true, member, sessions_of_user }, watched)
    }

    fn remove(&mut self, session: SessionId, watched: bool) -> Watch {
        let Some(member) = self.sessions.remove(&session) else {
            return Watch::Quiet;
        };
        let mut sessions_of_user = 0;
        if let Some(user) = &member.user
            && let Some(count) = self.users.get_mut(user)
        {
            *count -= 1;
            sessions_of_user = *count;
            if *count == 0 {
                self.users.remove(user);
            }
        }
        self.tell(Change { joined: false, member, sessions_of_user }, watched)
    }

    fn tell(&mut self, change: Change, watched: bool) -> Watch {
        if !watched {
            return Watch::Quiet;
        }
        if self.changes.len() >= CHANGES {
            return Watch::Dropped;
        }
        self.changes.push_back(change);
        if std::mem::replace(&mut self.draining, true) { Watch::Quiet } else { Watch::Drain }
    }

    fn counts(&self) -> Counts {
        let anonymous = self.sessions.len() as u32 - self.users.values().sum::<u32>();
        Counts { sessions: self.sessions.len() as u32, users: self.users.len() as u32 + anonymous }
    }

    fn is_spent(&self) -> bool {
        self.sessions.is_empty() && self.changes.is_empty() && !self.draining
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(number: u64, user: Option<&str>) -> Member {
        Member { session: SessionId { node: 1, number }, user: user.map(Into::into), info: "".into() }
    }

    #[test]
    fn tabs_of_one_user_are_one_user_and_changes_keep_their_order() {
        let presence = MemoryPresence::default();
        let topic = TopicName::parse("room").unwrap();
        assert_eq!(presence.join(&topic, member(1, Some("ann")), true), Watch::Drain);
        assert_eq!(presence.join(&topic, member(2, Some("ann")), true), Watch::Quiet);
        assert_eq!(presence.join(&topic, member(3, None), true), Watch::Quiet);
        assert_eq!(presence.counts("room"), Counts { sessions: 3, users: 2 });
        assert!(presence.has_user("room", "ann") && !presence.has_user("room", "bob"));
        let session = |number| SessionId { node: 1, number };
        assert_eq!(presence.leave(&topic, session(1), true), Watch::Quiet);
        assert_eq!(presence.leave(&topic, session(2), true), Watch::Quiet);
        assert_eq!(presence.leave(&topic, session(2), true), Watch::Quiet);
        assert!(!presence.has_user("room", "ann"));
        let told: Vec<_> = std::iter::from_fn(|| presence.next_change(&topic))
            .map(|change| (change.joined, change.member.session.number, change.sessions_of_user))
            .collect();
        assert_eq!(told, [(true, 1, 1), (true, 2, 2), (true, 3, 1), (false, 1, 1), (false, 2, 0)]);
        assert_eq!(presence.leave(&topic, session(3), true), Watch::Drain);
        assert!(presence.next_change(&topic).is_some() && presence.next_change(&topic).is_none());
        assert!(presence.shards.iter().all(|shard| shard.lock().is_empty()), "an empty topic leaves no trace");
    }

    #[test]
    fn a_session_that_signs_in_as_somebody_else_leaves_as_who_it_was() {
        let presence = MemoryPresence::default();
        let topic = TopicName::parse("room").unwrap();
        let _ = presence.join(&topic, member(1, Some("ann")), true);
        let _ = presence.join(&topic, member(1, Some("bob")), true);
        assert!(presence.has_user("room", "bob") && !presence.has_user("room", "ann"));
        assert_eq!(std::iter::from_fn(|| presence.next_change(&topic)).count(), 3);
    }

    #[test]
    fn changes_that_nobody_drains_are_bounded() {
        let presence = MemoryPresence::default();
        let topic = TopicName::parse("room").unwrap();
        let dropped = (0..CHANGES as u64 + 10)
            .filter(|number| presence.join(&topic, member(*number, None), true) == Watch::Dropped)
            .count();
        assert_eq!(dropped, 10);
    }
}
