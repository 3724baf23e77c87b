//! Which nodes share this Redis, what each says of itself, and which of them a user's sessions had best be on. A node says it
//! as often as it probes, and is forgotten when it has said nothing for a while.

use std::cmp::Reverse;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use redis::Value;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::time::MissedTickBehavior;

use super::{Fault, Redis, Script};

/// ARGV: 1 the node's name, 2 what it says of itself.
const SAY: &str = "
local time = redis.call('TIME')
local now = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))
return redis.call('HSET', KEYS[1], ARGV[1], now .. ' ' .. ARGV[2])";

/// ARGV: how long a node may be silent, in milliseconds. By the clock of Redis, so that those of nodes may differ.
const NODES: &str = "
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local nodes = {}
local all = redis.call('HGETALL', KEYS[1])
for place = 1, #all, 2 do
  local said, status = string.match(all[place + 1], '^(%d+) (.*)$')
  if said and now - said <= tonumber(ARGV[1]) then
    nodes[#nodes + 1] = { all[place], now - said, status }
  else
    redis.call('HDEL', KEYS[1], all[place])
  end
end
return nodes";

/// What a node says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NodeStatus {
    pub version: String,
    /// Where clients connect.
    pub listen: String,
    /// Where clients reach this node and no other; None: nobody has said so.
    pub address: Option<String>,
    /// It leaves, and takes no clients.
    pub draining: bool,
    /// Unix time in milliseconds.
    pub started: u64,
    pub sessions: u64,
    pub topics: u64,
    pub subscriptions: u64,
    /// CPU seconds since it was started.
    pub cpu_seconds: u64,
    /// What it uses now, in percent of one core.
    pub cpu_percent: u64,
    /// What it could use.
    pub cores: u64,
}

/// A node of the cluster.
#[derive(Clone, Debug, Serialize)]
pub struct Node {
    /// As in the ids of its sessions.
    pub node: String,
    /// Whether it is the one that answers.
    pub this: bool,
    /// Since it has said so, in milliseconds.
    pub age: u64,
    /// How much longer it may be silent before it counts as gone, in milliseconds.
    pub lease: u64,
    #[serde(flatten)]
    pub status: NodeStatus,
}

impl Node {
    /// What the node says of itself when it is the one that is asked.
    pub fn this(node: u64, silence: Duration, status: NodeStatus) -> Self {
        Self { node: name_of(node), this: true, age: 0, lease: silence.as_millis() as u64, status }
    }

    /// How much a user belongs to the node. The address stays when the node is started again, its name does not.
    fn weight(&self, user: &str) -> u64 {
        let name = self.status.address.as_ref().unwrap_or(&self.node);
        let hash = Sha256::new().chain_update(name).chain_update([0]).chain_update(user).finalize();
        hash.first_chunk().map_or(0, |first| u64::from_be_bytes(*first))
    }
}

/// As in the ids of a node's sessions.
fn name_of(node: u64) -> String {
    format!("{node:016x}")
}

/// Puts first the node that a user's sessions had best be on, then the one for when that is gone, and so on. Each user has an
/// order of their own, which does not change when other nodes come or go: only users of a node that leaves go elsewhere, and
/// one that comes takes its share of users from each of the others.
pub fn prefer(nodes: &mut [Node], user: &str) {
    nodes.sort_by_cached_key(|node| (node.status.draining, Reverse(node.weight(user)), node.node.clone()));
}

impl Redis {
    /// Tells of this node for as long as it stays.
    pub(super) async fn keep_saying(self: Arc<Self>, status: Arc<dyn Fn() -> NodeStatus + Send + Sync>) {
        let (script, key, name) = (Script::new(SAY), self.keys.nodes(), name_of(self.node));
        let mut ticks = tokio::time::interval(self.config.probe.0);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            self.connected(&key).await;
            if self.leaving.load(Ordering::Acquire) {
                return;
            }
            let status = serde_json::to_vec(&status()).unwrap_or_default();
            // Otherwise it is said a little later; whoever cannot say it does not hear its probe either.
            let _ = self.invoke(&script, &[&key], &[name.as_bytes(), &status]).await;
            ticks.tick().await;
        }
    }

    /// The node leaves, and is not to be listed any more.
    pub async fn leave(&self) {
        self.leaving.store(true, Ordering::Release);
        // Otherwise it is forgotten a little later.
        let _ = self.query(redis::cmd("HDEL").arg(self.keys.nodes()).arg(name_of(self.node))).await;
    }

    /// How long a node may say nothing before it counts as gone.
    pub fn silence(&self) -> Duration {
        self.config.lease.0
    }

    /// The nodes that have said something lately, this one among them, in the order of their names.
    pub async fn nodes(&self) -> Result<Vec<Node>, Fault> {
        let silence = self.silence().as_millis().to_string();
        let answer = self.invoke(&Script::new(NODES), &[&self.keys.nodes()], &[silence.as_bytes()]).await?;
        let Value::Array(nodes) = answer else { return Ok(Vec::new()) };
        let mut nodes: Vec<_> = nodes.into_iter().filter_map(|node| self.node_in(node)).collect();
        nodes.sort_by(|one, other| one.node.cmp(&other.node));
        Ok(nodes)
    }

    fn node_in(&self, value: Value) -> Option<Node> {
        let Value::Array(parts) = value else { return None };
        let [Value::BulkString(name), Value::Int(age), Value::BulkString(status)] = &parts[..] else { return None };
        let node = String::from_utf8(name.clone()).ok()?;
        let this = node == name_of(self.node);
        let age = (*age).try_into().unwrap_or(0);
        let lease = (self.silence().as_millis() as u64).saturating_sub(age);
        Some(Node { node, this, age, lease, status: serde_json::from_slice(status).ok()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const USERS: usize = 10_000;

    fn node(number: usize) -> Node {
        let address = Some(format!("wss://node-{number}.example.com"));
        Node::this(number as u64, Duration::ZERO, NodeStatus { address, ..NodeStatus::default() })
    }

    /// Whose node is which, when there are these.
    fn owners(numbers: &[usize]) -> Vec<String> {
        let mut nodes: Vec<_> = numbers.iter().map(|number| node(*number)).collect();
        let first = |user| {
            prefer(&mut nodes, &format!("user-{user}"));
            nodes[0].node.clone()
        };
        (0..USERS).map(first).collect()
    }

    #[test]
    fn a_node_that_comes_or_goes_moves_only_its_own_share() {
        let (four, five) = (owners(&[1, 2, 3, 4]), owners(&[4, 2, 5, 1, 3]));
        let moved: Vec<_> = four.iter().zip(&five).filter(|(one, other)| one != other).collect();
        assert!(moved.iter().all(|(_, now)| **now == name_of(5)), "nobody moves between nodes that stay");
        let fifth = USERS / 5;
        assert!((fifth * 9 / 10..fifth * 11 / 10).contains(&moved.len()), "{} of {USERS} moved", moved.len());
        for number in 1..=5 {
            let share = five.iter().filter(|owner| **owner == name_of(number)).count();
            assert!((fifth * 9 / 10..fifth * 11 / 10).contains(&share), "node {number} has {share} of {USERS}");
        }
    }

    #[test]
    fn a_node_that_is_started_again_has_its_users_back_and_one_that_leaves_is_last() {
        let mut again = node(2);
        again.node = name_of(77);
        let mut nodes = vec![node(1), again, node(3)];
        let before = owners(&[1, 2, 3]);
        for (user, before) in before.iter().enumerate().take(100) {
            prefer(&mut nodes, &format!("user-{user}"));
            assert_eq!(nodes[0].node == name_of(77), *before == name_of(2));
        }
        nodes[0].status.draining = true;
        let leaving = nodes[0].node.clone();
        for user in 0..100 {
            prefer(&mut nodes, &format!("user-{user}"));
            assert_eq!(nodes[2].node, leaving);
        }
    }

    #[test]
    fn other_programs_come_to_the_same_order() {
        // printf 'wss://node-1.example.com\0alice' | sha256sum | cut -c 1-16
        assert_eq!(node(1).weight("alice"), 0x975c_8063_0b56_3fe9);
    }
}
