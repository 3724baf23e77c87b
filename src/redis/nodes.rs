//! Which nodes share this Redis, and what each says of itself. A node says it with each probe, and is forgotten when it has
//! said nothing for a while.

use redis::Value;
use serde::{Deserialize, Serialize};

use super::{Fault, Redis, Script};

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
    /// Unix time in milliseconds.
    pub started: u64,
    pub sessions: u64,
    pub topics: u64,
    pub subscriptions: u64,
    /// CPU seconds since it was started.
    pub cpu_seconds: u64,
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
    #[serde(flatten)]
    pub status: NodeStatus,
}

impl Redis {
    /// The nodes that have said something lately, this one among them, in the order of their names.
    pub async fn nodes(&self) -> Result<Vec<Node>, Fault> {
        let silence = self.silence().as_millis().to_string();
        let answer = self.invoke(&Script::new(NODES), &[&self.keys.nodes()], &[silence.as_bytes()]).await?;
        let Value::Array(nodes) = answer else { return Ok(Vec::new()) };
        let mut nodes: Vec<_> = nodes.into_iter().filter_map(|node| self.node_of(node)).collect();
        nodes.sort_by(|one, other| one.node.cmp(&other.node));
        Ok(nodes)
    }

    fn node_of(&self, value: Value) -> Option<Node> {
        let Value::Array(parts) = value else { return None };
        let [Value::BulkString(name), Value::Int(age), Value::BulkString(status)] = &parts[..] else { return None };
        let node = String::from_utf8(name.clone()).ok()?;
        let this = node == format!("{:016x}", self.node);
        Some(Node { node, this, age: (*age).try_into().unwrap_or(0), status: serde_json::from_slice(status).ok()? })
    }
}
