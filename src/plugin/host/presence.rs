//! `presence`: who is on a topic.

use wasmtime::Result;

use super::wit::presence::{Counts, Member};
use super::wit::types::Refusal;
use super::{GrantedTopics, State, topic_name, wit};

/// Members of one answer.
const MEMBERS: u32 = 1_000;

impl State {
    fn presence_of(&mut self, topic: &str) -> Result<Result<(), Refusal>> {
        self.enter()?;
        if let Err(refusal) = topic_name(topic) {
            return Ok(Err(refusal));
        }
        if self.granted_topic(GrantedTopics::Subscribe, topic).is_none() {
            return Ok(Err(Refusal::Denied));
        }
        if !self.context.node.rules.of(topic).presence {
            return Ok(Err(Refusal::Unsupported));
        }
        Ok(Ok(()))
    }
}

impl wit::presence::Host for State {
    async fn count(&mut self, topic: String) -> Result<Result<Counts, Refusal>> {
        Ok(self.presence_of(&topic)?.map(|()| {
            let counts = self.context.node.presence.counts(&topic);
            Counts { sessions: counts.sessions, users: counts.users }
        }))
    }

    async fn members(&mut self, topic: String, limit: u32) -> Result<Result<Vec<Member>, Refusal>> {
        Ok(self.presence_of(&topic)?.map(|()| {
            let members = self.context.node.presence.members(&topic, limit.min(MEMBERS) as usize);
            let member = |member: crate::presence::Member| Member {
                session_id: member.session.to_string(),
                user: member.user.as_deref().map(str::to_owned),
                info: member.info.to_string(),
            };
            members.into_iter().map(member).collect()
        }))
    }

    async fn has_user(&mut self, topic: String, user: String) -> Result<Result<bool, Refusal>> {
        Ok(self.presence_of(&topic)?.map(|()| self.context.node.presence.has_user(&topic, &user)))
    }
}
