//! Effects are applied: in order, until one is refused.

use std::collections::BTreeSet;

use super::call::Asked;
use super::effect::{Effect, Publish, Subscribe, What, Whom};
use super::gateway::Gateway;
use super::state::{Kept, Next, Published, State};
use crate::presence::{Change, Event, Member};
use crate::{Close, Closer, Exported, Message, Refusal, history::Position};

/// How long a key of `idempotency_key` is remembered.
const IDEMPOTENCY_MS: u64 = 5 * 60 * 1000;

/// Deliveries of the subscriptions that this event has made: they come after what it sends.
#[derive(Default)]
pub(super) struct Held {
    session: String,
    topics: BTreeSet<String>,
    messages: Vec<Message>,
}

impl<P: Exported> Gateway<P> {
    /// Apply the effects of an event. When one is refused the later ones are not, and the client hears what
    /// `send_if_refused` said, or is closed with 1013.
    pub(super) fn apply(&self, session: Option<&str>, asked: Asked) {
        let mut held = Held { session: session.unwrap_or_default().to_owned(), ..Held::default() };
        let refused = asked.effects.into_iter().find_map(|effect| self.apply_one(session, effect, &mut held).err());
        let mut state = self.state.borrow_mut();
        if let (Some(refusal), Some(session)) = (refused, session) {
            if asked.if_refused.is_empty() {
                let close = Close { code: 1013, reason: refusal.to_string(), by: Closer::Gateway };
                state.next.push_back(Next::End { session: session.to_owned(), close });
            }
            asked.if_refused.into_iter().for_each(|message| state.deliver(session, message));
        }
        held.messages.into_iter().for_each(|message| state.deliver(&held.session, message));
    }

    fn apply_one(&self, session: Option<&str>, effect: Effect, held: &mut Held) -> Result<(), Refusal> {
        match effect {
            Effect::Publish(publish) => return self.accept(publish, Some(held)),
            Effect::Reach(whom, what) => return self.state.borrow_mut().reach(&whom, &what),
            _ => {}
        }
        let mut state = self.state.borrow_mut();
        let now = state.now;
        let Some(session) = session else { return Ok(()) };
        match effect {
            Effect::Send(message) => state.deliver(session, message),
            Effect::Subscribe(subscribe) => state.subscribe(session, subscribe, Some(held)),
            Effect::Unsubscribe(topic) => state.unsubscribe(session, &topic),
            Effect::Close(code, reason) => {
                let close = Close { code, reason, by: Closer::Plugin };
                state.next.push_back(Next::End { session: session.to_owned(), close });
            }
            effect => {
                let Some(peer) = state.peers.get_mut(session) else {
                    return Ok(());
                };
                match effect {
                    Effect::SetUser(user) => peer.user = user,
                    Effect::SetAttribute(name, Some(value)) => drop(peer.attributes.insert(name, value)),
                    Effect::SetAttribute(name, None) => drop(peer.attributes.remove(&name)),
                    Effect::SetExpiry(at) => peer.expiry = at,
                    Effect::SetTimer(name, after) => drop(peer.timers.insert(name, now.saturating_add(after))),
                    Effect::CancelTimer(name) => drop(peer.timers.remove(&name)),
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// Take a publication: past the `publication` hook, once for each idempotency key, into the history, to the
    /// subscribers.
    pub(super) fn accept(&self, publish: Publish, held: Option<&mut Held>) -> Result<(), Refusal> {
        let Publish { topic, message, exclude, history, idempotency_key, key, metadata } = publish;
        let Some(message) = message else { return Ok(()) };
        let now = self.now();
        let mut kept = Kept { topic, message, position: None, time: now, expires: None, key, metadata };
        match self.examine(kept.clone()) {
            Ok(Some(message)) => kept.message = message,
            Ok(None) => return Ok(()),
            Err(_) => return Err(Refusal::Denied),
        }
        let mut state = self.state.borrow_mut();
        if state.broker_away {
            return Err(Refusal::Unavailable);
        }
        state.idempotency.retain(|_, until| *until > now);
        if let Some(key) = idempotency_key
            && state.idempotency.insert((kept.topic.clone(), key), now + IDEMPOTENCY_MS).is_some()
        {
            return Ok(());
        }
        state.carry(kept, &exclude, history, held);
        Ok(())
    }
}

impl State {
    /// A message into a session's outbox.
    fn deliver(&mut self, session: &str, message: Message) {
        if let Some(peer) = self.peers.get_mut(session).filter(|peer| peer.closed.is_none()) {
            peer.outbox.push(message);
        }
    }

    /// A publication into the history and to the subscribers.
    fn carry(&mut self, mut kept: Kept, exclude: &[String], history: Option<(u32, u64)>, held: Option<&mut Held>) {
        let rule = self.rule(&kept.topic);
        let (size, ttl) = match history {
            Some((size, ttl)) => (size, Some(ttl)),
            None => (rule.history, rule.ttl.map(crate::host::millis)),
        };
        if size > 0 {
            let expires = ttl.map(|ttl| self.now.saturating_add(ttl));
            let room = self.room(&kept.topic);
            room.offset += 1;
            kept.position = Some(Position { epoch: 1, offset: room.offset });
            kept.expires = expires;
            room.kept.push_back(kept.clone());
            while room.kept.len() > size as usize {
                room.kept.pop_front();
            }
        }
        let subscribers: Vec<String> = self
            .peers
            .iter()
            .filter(|(id, peer)| peer.subscriptions.contains(&kept.topic) && !exclude.contains(id))
            .map(|(id, _)| id.clone())
            .collect();
        let mut held = held.filter(|held| held.topics.contains(&kept.topic));
        for session in subscribers {
            match &mut held {
                Some(held) if held.session == session => held.messages.push(kept.message.clone()),
                _ => self.deliver(&session, kept.message.clone()),
            }
        }
        self.published.push(Published { topic: kept.topic, message: kept.message, kept: size > 0 });
    }

    pub(super) fn subscribe(&mut self, session: &str, subscribe: Subscribe, held: Option<&mut Held>) {
        let Subscribe { topic, presence, recovery } = subscribe;
        let Some(peer) = self.peers.get_mut(session).filter(|peer| peer.closed.is_none()) else {
            return;
        };
        let fresh = peer.subscriptions.insert(topic.clone());
        let user = peer.user.clone();
        if let Some(held) = held {
            if fresh {
                held.topics.insert(topic.clone());
            }
            if let Some(since) = recovery {
                let missed = self
                    .kept(&topic)
                    .into_iter()
                    .filter(|kept| kept.position.is_some_and(|p| p.epoch != since.epoch || p.offset > since.offset));
                held.messages.extend(missed.map(|kept| kept.message));
            }
        }
        let Some(info) = presence else { return };
        let room = self.room(&topic);
        if let Some(member) = room.members.iter_mut().find(|member| member.session_id == session) {
            member.info = info;
            return;
        }
        let member = Member { session_id: session.to_owned(), user, info };
        room.members.push(member.clone());
        self.change(&topic, Event::Joined, member);
    }

    pub(super) fn unsubscribe(&mut self, session: &str, topic: &str) {
        if let Some(peer) = self.peers.get_mut(session) {
            peer.subscriptions.remove(topic);
        }
        let room = self.room(topic);
        if let Some(at) = room.members.iter().position(|member| member.session_id == session) {
            let member = room.members.remove(at);
            self.change(topic, Event::Left, member);
        }
    }

    /// Tell the `presence` hook of a change that was made.
    fn change(&mut self, topic: &str, event: Event, member: Member) {
        let sessions_of_user = match &member.user {
            Some(_) => self.room(topic).members.iter().filter(|other| other.user == member.user).count() as u32,
            None => u32::from(event == Event::Joined),
        };
        let Member { session_id, user, info } = member;
        let change = Change { topic: topic.to_owned(), event, session_id, user, info, sessions_of_user };
        self.next.push_back(Next::Presence(change));
    }

    /// What is asked for other sessions.
    fn reach(&mut self, whom: &Whom, what: &What) -> Result<(), Refusal> {
        if self.broker_away {
            return Err(Refusal::Unavailable);
        }
        let open = self.peers.iter().filter(|(id, peer)| {
            peer.closed.is_none()
                && match whom {
                    Whom::User(user) => peer.user.as_deref() == Some(user),
                    Whom::Session(session) => *id == session,
                }
        });
        let sessions: Vec<String> = open.map(|(id, _)| id.clone()).collect();
        for session in sessions {
            match what {
                What::Send(message) => self.deliver(&session, message.clone()),
                What::Subscribe(topic) => {
                    let subscribe = Subscribe { topic: topic.clone(), presence: None, recovery: None };
                    self.subscribe(&session, subscribe, None);
                }
                What::Unsubscribe(topic) => self.unsubscribe(&session, topic),
                What::Disconnect(code, reason) => {
                    let close = Close { code: *code, reason: reason.clone(), by: Closer::Plugin };
                    self.next.push_back(Next::End { session, close });
                }
            }
        }
        Ok(())
    }
}
