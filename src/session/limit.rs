//! How many sessions a user may have, on all nodes.

use super::Session;
use super::effects::state;
use crate::apply::Refused;
use crate::config::RedisGone;
use crate::message::{Close, Closer, TopicName};
use crate::plugin::{Event, Keep, Remote};
use crate::presence::Member;

/// Sessions that are looked at.
const MEMBERS: usize = 1_000;

impl Session {
    /// Counts this session among its user's, and closes those that are too many. Each session that comes sees all that came
    /// before it, and all judge by the same order, so two that come at once agree on who stays.
    pub(super) async fn limit_sessions(
        &mut self,
        event: &mut Option<Box<Event>>,
        sessions: usize,
        keep: Keep,
    ) -> Result<(), Refused> {
        let Some(state) = state(event) else { return Ok(()) };
        let Some(user) = state.user.clone() else { return Ok(()) };
        let (node, gone) = (self.applier.node.clone(), self.route.route.rules().redis_gone);
        let topic = TopicName::of_user(&user);
        if state.counted.is_none() {
            // Their order: when they came, by clocks that agree well enough.
            let info = format!("{:020}", node.clock.unix()).into();
            node.presence.join(&topic, Member { session: state.id, user: Some(user), info });
            state.counted = Some(topic.clone());
        }
        node.presence.settled(&topic).await;
        let mut members = match node.presence.members(topic.as_str(), MEMBERS).await {
            Ok(members) => members,
            Err(fault) if gone == RedisGone::Refuse => return Err(Refused::Across(fault)),
            // A route that goes on without Redis goes on without this.
            Err(_) => return Ok(()),
        };
        members.sort_by(|one, other| (&one.info, one.session).cmp(&(&other.info, other.session)));
        let (victims, close) = match keep {
            Keep::Newest => {
                let close = Close::new(Close::REPLACED, "the user has signed in elsewhere");
                (&members[..members.len().saturating_sub(sessions)], close)
            }
            Keep::Oldest => {
                let close = Close::new(Close::TOO_MANY_SESSIONS, "the user has as many sessions as they may");
                (&members[sessions.min(members.len())..], close)
            }
        };
        for victim in victims {
            if victim.session == self.outbox.id {
                self.ends(close.clone(), Closer::Gateway);
            } else {
                self.applier.to_session(victim.session, &Remote::Close(close.clone()), gone).await?;
            }
        }
        Ok(())
    }
}
