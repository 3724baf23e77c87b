//! Users and sessions on other nodes: what is to be done to them goes over a channel of the user or of the node.

use std::sync::Arc;

use bytes::Bytes;
use redis::Value;

use super::{Applier, Refused, act_on, asks, framed};
use crate::config::RedisGone;
use crate::hub::HubIntake;
use crate::message::{Close, Message, SessionId, TopicName};
use crate::plugin::Remote;
use crate::redis::{Fault, Intake};

/// The first byte of what nodes tell each other.
pub(super) const VERSION: u8 = 1;
const TEXT: u8 = 0;
const BINARY: u8 = 1;
const SUBSCRIBE: u8 = 2;
const UNSUBSCRIBE: u8 = 3;
const CLOSE: u8 = 4;
/// Version, kind, the node that tells, the session that it is for.
const HEAD: usize = 18;

/// Takes what arrives for all parts of the node.
pub struct NodeIntake {
    hub: HubIntake,
    applier: Arc<Applier>,
}

impl NodeIntake {
    pub fn new(applier: Arc<Applier>) -> Self {
        Self { hub: HubIntake(applier.node.hub.clone()), applier }
    }
}

impl Intake for NodeIntake {
    fn arrived(&self, channel: &str, payload: Vec<u8>) {
        match self.applier.node.redis.as_ref().map(|redis| redis.keys.is_topic(channel)) {
            Some(false) => self.applier.asked(channel, payload),
            _ => self.hub.arrived(channel, payload),
        }
    }

    fn lost(&self, channels: &[String]) {
        self.hub.lost(channels);
    }

    fn back(&self, channels: &[String]) {
        self.applier.node.presence.back(channels);
        self.hub.back(channels);
    }
}

impl Applier {
    /// Acts on all sessions of a user, wherever they are.
    pub async fn to_user(&self, user: &str, remote: &Remote, gone: RedisGone) -> Result<(), Refused> {
        if let Some(redis) = &self.node.redis {
            let channel = redis.keys.user_channel(user);
            self.tell(&channel, &written(self.node.registry.node(), 0, remote), gone).await?;
        }
        self.to_user_here(user, remote)
    }

    /// Acts on one session, wherever it is.
    pub async fn to_session(&self, session: SessionId, remote: &Remote, gone: RedisGone) -> Result<(), Refused> {
        match &self.node.redis {
            Some(redis) if session.node != self.node.registry.node() => {
                let channel = redis.keys.node_channel(session.node);
                self.tell(&channel, &written(self.node.registry.node(), session.number, remote), gone).await
            }
            _ => self.to_session_here(session, remote),
        }
    }

    /// What is told to nobody is done: who is not there is not missed.
    async fn tell(&self, channel: &str, what: &[u8], gone: RedisGone) -> Result<(), Refused> {
        let Some(redis) = &self.node.redis else { return Ok(()) };
        // Boxed, so that events of a node that stands alone do not carry its room.
        match Box::pin(redis.publish(channel, what)).await {
            Ok(Value::Int(_)) => Ok(()),
            Ok(_) => Err(Refused::Across(Fault::Refused("it does not publish".to_owned()))),
            // There is no queue for these: who is on this node gets it, and what is late helps nobody.
            Err(Fault::Gone) if gone != RedisGone::Refuse => Ok(()),
            Err(fault) => Err(Refused::Across(fault)),
        }
    }

    fn to_user_here(&self, user: &str, remote: &Remote) -> Result<(), Refused> {
        let frame = framed(remote);
        let mut result = Ok(());
        for outbox in self.node.registry.sessions_of(user) {
            result = result.and(act_on(&outbox, remote, frame.as_ref()));
        }
        result
    }

    fn to_session_here(&self, session: SessionId, remote: &Remote) -> Result<(), Refused> {
        match self.node.registry.session(session) {
            Some(outbox) => act_on(&outbox, remote, framed(remote).as_ref()),
            None => Ok(()),
        }
    }

    /// Another node asks for something; or this one, which has done it already.
    fn asked(self: &Arc<Self>, channel: &str, payload: Vec<u8>) {
        let Some(redis) = &self.node.redis else { return };
        let remote = match payload.first_chunk::<2>() {
            Some(&[VERSION, kind @ (asks::ASK | asks::ANSWER)]) => {
                if self.hear(kind, Bytes::from(payload).slice(2..)) {
                    return;
                }
                None
            }
            _ => read(payload),
        };
        let Some((from, number, remote)) = remote else {
            if redis.metrics.redis_unreadable.get() == 0 {
                tracing::error!(channel, "what another node says cannot be read: are all of one version?");
            }
            redis.metrics.redis_unreadable.inc();
            return;
        };
        let own = self.node.registry.node();
        if from == own {
            return;
        }
        let done = match redis.keys.user(channel) {
            Some(user) => self.to_user_here(&user, &remote),
            None => self.to_session_here(SessionId { node: own, number }, &remote),
        };
        if let Err(why) = done {
            self.node.metrics.effects_refused.inc();
            tracing::warn!(channel, %why, "what another node asked for was refused");
        }
    }

    /// Waits until this node hears what is sent to a user, as far as Redis is there.
    pub async fn hears(&self, user: &str) {
        if let Some(redis) = &self.node.redis {
            // Without a link nobody can send either; it is subscribed to when it is back.
            let _ = Box::pin(redis.confirmed(&redis.keys.user_channel(user))).await;
        }
    }
}

fn written(from: u64, number: u64, remote: &Remote) -> Vec<u8> {
    let (kind, code, content) = match remote {
        Remote::Send(message @ Message::Text(_)) => (TEXT, None, &message.payload()[..]),
        Remote::Send(message @ Message::Binary(_)) => (BINARY, None, &message.payload()[..]),
        Remote::Subscribe(topic) => (SUBSCRIBE, None, topic.as_str().as_bytes()),
        Remote::Unsubscribe(topic) => (UNSUBSCRIBE, None, topic.as_str().as_bytes()),
        Remote::Close(close) => (CLOSE, Some(close.code), close.reason.as_bytes()),
    };
    let mut written = Vec::with_capacity(HEAD + 2 + content.len());
    written.extend([VERSION, kind]);
    written.extend(from.to_le_bytes());
    written.extend(number.to_le_bytes());
    written.extend(code.into_iter().flat_map(u16::to_le_bytes));
    written.extend_from_slice(content);
    written
}

/// The node that asks, the session's number, and what is to be done.
fn read(payload: Vec<u8>) -> Option<(u64, u64, Remote)> {
    let (head, _) = payload.split_first_chunk::<HEAD>()?;
    let (kind, from, number) = (head[1], &head[2..10], &head[10..18]);
    if head[0] != VERSION {
        return None;
    }
    let (from, number) = (u64::from_le_bytes(from.try_into().ok()?), u64::from_le_bytes(number.try_into().ok()?));
    let content = Bytes::from(payload).slice(HEAD..);
    let topic = |content: &[u8]| std::str::from_utf8(content).ok().and_then(TopicName::parse);
    let remote = match kind {
        TEXT => Remote::Send(Message::Text(content.try_into().ok()?)),
        BINARY => Remote::Send(Message::Binary(content)),
        SUBSCRIBE => Remote::Subscribe(topic(&content)?),
        UNSUBSCRIBE => Remote::Unsubscribe(topic(&content)?),
        CLOSE => {
            let (code, reason) = content.split_first_chunk::<2>()?;
            let code = u16::from_le_bytes(*code);
            if !Close::may_send(code) {
                return None;
            }
            Remote::Close(Close::new(code, std::str::from_utf8(reason).ok()?))
        }
        _ => return None,
    };
    Some((from, number, remote))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::MessageRef;

    #[test]
    fn what_was_written_is_read_and_nothing_else() {
        let topic = TopicName::parse("room:\u{2603}").unwrap();
        let all = [
            Remote::Send(MessageRef::Text("caf\u{e9}").to_owned()),
            Remote::Send(MessageRef::Text("").to_owned()),
            Remote::Send(MessageRef::Binary(&[0, 255]).to_owned()),
            Remote::Subscribe(topic.clone()),
            Remote::Unsubscribe(topic),
            Remote::Close(Close::new(4321, "enough")),
        ];
        for remote in all {
            let payload = written(u64::MAX, 7, &remote);
            assert_eq!(read(payload.clone()), Some((u64::MAX, 7, remote)));
            assert_eq!(read(payload[..HEAD - 1].to_vec()), None);
            assert_eq!(read([&[2], &payload[1..]].concat()), None, "another version");
        }
        let forbidden = written(1, 1, &Remote::Close(Close { code: 1005, reason: "".into() }));
        assert_eq!(read(forbidden), None);
        assert_eq!(read([&[VERSION, TEXT][..], &[0; 16], &[0xff]].concat()), None);
        assert_eq!(read([&[VERSION, SUBSCRIBE][..], &[0; 16]].concat()), None, "no topic");
    }
}
