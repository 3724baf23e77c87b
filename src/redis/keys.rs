//! What keys and channels are called. All of a topic stand in one hash slot of a Cluster.

use std::borrow::Cow;

/// The names under one prefix.
pub struct Keys {
    prefix: String,
    /// What the channel of a topic begins with.
    channel: String,
}

impl Keys {
    pub fn new(prefix: &str) -> Self {
        Self { prefix: prefix.to_owned(), channel: format!("{prefix}:{{") }
    }

    /// The channel that carries a topic's publications.
    pub fn channel(&self, topic: &str) -> String {
        format!("{}{}}}", self.channel, escaped(topic))
    }

    /// The topic that a channel is of; None for other channels.
    pub fn topic<'a>(&self, channel: &'a str) -> Option<Cow<'a, str>> {
        channel.strip_prefix(&self.channel)?.strip_suffix('}').map(unescaped)
    }

    /// Where a topic stands, and its history.
    pub fn topic_state(&self, channel: &str) -> (String, String) {
        (format!("{channel}:m"), format!("{channel}:h"))
    }

    /// Whether an idempotency key was used on a topic.
    pub fn idempotency(&self, channel: &str, key: &str) -> String {
        format!("{channel}:i:{key}")
    }

    /// A value of the key-value store.
    pub fn value(&self, key: &str) -> String {
        format!("{}:kv:{key}", self.prefix)
    }

    /// Whether it is the channel of a topic.
    pub fn is_topic(&self, channel: &str) -> bool {
        channel.starts_with(&self.channel)
    }

    /// What is meant for all sessions of a user.
    pub fn user_channel(&self, user: &str) -> String {
        format!("{}:user:{{{}}}", self.prefix, escaped(user))
    }

    /// The user that a channel is of; None for other channels.
    pub fn user<'a>(&self, channel: &'a str) -> Option<Cow<'a, str>> {
        let name = channel.strip_prefix(&self.prefix)?.strip_prefix(":user:{")?.strip_suffix('}')?;
        Some(unescaped(name))
    }

    /// What is meant for one node.
    pub fn node_channel(&self, node: u64) -> String {
        format!("{}:node:{{{node:016x}}}", self.prefix)
    }

    /// Who is on a topic: the six keys of the scripts in src/presence/redis, the last two of them a node's own.
    pub fn presence(&self, topic: &str, node: &str) -> [String; 6] {
        let channel = self.channel(topic);
        ["p", "p:users", "p:changes", "p:teller", "p:grave:", "p:"]
            .map(|name| format!("{channel}:{name}{}", if name.ends_with(':') { node } else { "" }))
    }

    /// The topics where an incarnation of a node may have members.
    pub fn present(&self, node: &str, incarnation: u64) -> String {
        format!("{}:present:{node}:{incarnation}", self.prefix)
    }

    /// Who buries an incarnation of a node.
    pub fn burial(&self, node: &str, incarnation: u64) -> String {
        format!("{}:burial:{node}:{incarnation}", self.prefix)
    }

    /// When the nodes have said last that they live.
    pub fn leases(&self) -> String {
        format!("{}:leases", self.prefix)
    }

    /// What carries a node's probe through the server that owns its slot, as a channel and as a key. Numbers are tried until
    /// the slot is one of that server's.
    pub fn probe(&self, node: u64, number: u32) -> String {
        format!("{}:probe:{{{node:016x}-{number}}}", self.prefix)
    }

    pub fn is_probe(&self, channel: &str) -> bool {
        channel.strip_prefix(&self.prefix).is_some_and(|rest| rest.starts_with(":probe:"))
    }

    /// The key that the nodes share.
    pub fn seal(&self) -> String {
        format!("{}:seal", self.prefix)
    }

    /// The nodes, and what they say of themselves.
    pub fn nodes(&self) -> String {
        format!("{}:nodes", self.prefix)
    }
}

/// Braces in a topic's name would choose another hash slot, or one for each key.
fn escaped(topic: &str) -> Cow<'_, str> {
    if !topic.contains(['{', '}', '%']) {
        return topic.into();
    }
    topic.replace('%', "%25").replace('{', "%7B").replace('}', "%7D").into()
}

fn unescaped(name: &str) -> Cow<'_, str> {
    if !name.contains('%') {
        return name.into();
    }
    name.replace("%7D", "}").replace("%7B", "{").replace("%25", "%").into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redis::slots::slot_of;

    #[test]
    fn all_of_a_topic_stands_in_one_slot_whatever_its_name() {
        let keys = Keys::new("tidegate");
        for topic in ["chat", "a{b}c", "}x", "{}", "{", "}", "%7B", "a:m", "100%25", "\u{2603} {x}"] {
            let channel = keys.channel(topic);
            let (meta, history) = keys.topic_state(&channel);
            let slot = slot_of(channel.as_bytes());
            assert!(channel.starts_with("tidegate:{") && !channel.contains("{}"), "{channel} has no hash tag");
            for key in [&meta, &history, &keys.idempotency(&channel, "}{k")] {
                assert_eq!(slot_of(key.as_bytes()), slot, "{key}");
            }
            assert_eq!(keys.topic(&channel).as_deref(), Some(topic));
        }
        assert_ne!(keys.channel("%7B"), keys.channel("{"));
        let user = keys.user_channel("a{b}:%7B");
        assert_eq!(keys.user(&user).as_deref(), Some("a{b}:%7B"));
        let probe = keys.probe(7, 12);
        for other in [&user, &keys.node_channel(7), &probe] {
            assert!(keys.topic(other).is_none() && !keys.is_topic(other), "{other}");
            assert_eq!(keys.is_probe(other), *other == probe);
        }
        assert_eq!(keys.user(&keys.channel("x")), None);
    }
}
