//! `presence`: who is on a topic.

use serde_json::json;

use super::wit::presence::{Counts, Member};
use super::wit::types::Refusal;
use super::{GrantedTopics, State, topic_name, wit};
use crate::node::Node;

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

impl wit::presence::Host for State {
    async fn count(&mut self, topic: String) -> wasmtime::Result<Result<Counts, Refusal>> {
        Ok(self.presence_of(&topic)?.and_then(|()| {
            self.asked(
                "presence.count",
                || json!({ "topic": topic }),
                None,
                |node| {
                    kept(node, &topic)?;
                    let counts = node.presence.counts(&topic);
                    Ok(Counts { sessions: counts.sessions, users: counts.users })
                },
            )
        }))
    }

    async fn members(&mut self, topic: String, limit: u32) -> wasmtime::Result<Result<Vec<Member>, Refusal>> {
        Ok(self.presence_of(&topic)?.and_then(|()| {
            self.asked(
                "presence.members",
                || json!({ "topic": topic, "limit": limit }),
                None,
                |node| {
                    kept(node, &topic)?;
                    let members = node.presence.members(&topic, limit.min(MEMBERS) as usize);
                    let member = |member: crate::presence::Member| Member {
                        session_id: member.session.to_string(),
                        user: member.user.as_deref().map(str::to_owned),
                        info: member.info.to_string(),
                    };
                    Ok(members.into_iter().map(member).collect::<Vec<_>>())
                },
            )
        }))
    }

    async fn has_user(&mut self, topic: String, user: String) -> wasmtime::Result<Result<bool, Refusal>> {
        Ok(self.presence_of(&topic)?.and_then(|()| {
            self.asked(
                "presence.has-user",
                || json!({ "topic": topic, "user": user }),
                None,
                |node| {
                    kept(node, &topic)?;
                    Ok(node.presence.has_user(&topic, &user))
                },
            )
        }))
    }
}
