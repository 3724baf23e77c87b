//! `presence`: who is on a topic.

use serde_json::json;

use super::wit::presence::{Counts, Member};
use super::wit::types::Refusal;
use super::{GrantedTopics, State, topic_name, wit};
use crate::node::Node;
use crate::redis::Fault;

/// Members of one answer.
const MEMBERS: u32 = 1_000;

impl State {
    fn presence_of(&mut self, topic: &str) -> wasmtime::Result<Result<(), Refusal>> {
        self.enter()?;
        if let Err(refusal) = topic_name(topic) {
            return Ok(Err(refusal));
        }
        if self.granted_topic(GrantedTopics::Subscribe, topic).is_none() {
            return Ok(Err(Refusal::Denied));
        }
        Ok(Ok(()))
    }
}

/// Whether the topic has presence at all.
fn kept(node: &Node, topic: &str) -> Result<(), Refusal> {
    if node.rules.of(topic).presence { Ok(()) } else { Err(Refusal::Unsupported) }
}

fn refusal(_: Fault) -> Refusal {
    Refusal::Unavailable
}

impl wit::presence::Host for State {
    async fn count(&mut self, topic: String) -> wasmtime::Result<Result<Counts, Refusal>> {
        let (script, node) = (self.script().cloned(), self.context.node.clone());
        let live = async {
            kept(&node, &topic)?;
            let counts = node.presence.counts(&topic).await.map_err(refusal)?;
            Ok(Counts { sessions: counts.sessions, users: counts.users })
        };
        Ok(match self.presence_of(&topic)? {
            Ok(()) => Self::awaited(script, "presence.count", || json!({ "topic": topic }), None, live).await,
            Err(refusal) => Err(refusal),
        })
    }

    async fn members(&mut self, topic: String, limit: u32) -> wasmtime::Result<Result<Vec<Member>, Refusal>> {
        let (script, node) = (self.script().cloned(), self.context.node.clone());
        let live = async {
            kept(&node, &topic)?;
            let members = node.presence.members(&topic, limit.min(MEMBERS) as usize).await.map_err(refusal)?;
            let member = |member: crate::presence::Member| Member {
                session_id: member.session.to_string(),
                user: member.user.as_deref().map(str::to_owned),
                info: member.info.to_string(),
            };
            Ok(members.into_iter().map(member).collect::<Vec<_>>())
        };
        let with = || json!({ "topic": topic, "limit": limit });
        Ok(match self.presence_of(&topic)? {
            Ok(()) => Self::awaited(script, "presence.members", with, None, live).await,
            Err(refusal) => Err(refusal),
        })
    }

    async fn has_user(&mut self, topic: String, user: String) -> wasmtime::Result<Result<bool, Refusal>> {
        let (script, node) = (self.script().cloned(), self.context.node.clone());
        let live = async {
            kept(&node, &topic)?;
            node.presence.has_user(&topic, &user).await.map_err(refusal)
        };
        let with = || json!({ "topic": topic, "user": user });
        Ok(match self.presence_of(&topic)? {
            Ok(()) => Self::awaited(script, "presence.has-user", with, None, live).await,
            Err(refusal) => Err(refusal),
        })
    }
}
