//! Effects are applied: in order, until one is refused.

use super::call::Asked;
use super::effect::{Effect, Forward, Publish, Subscribe, What, Whom};
use super::gateway::Gateway;
use super::state::{Delivery, Forwarded, Kept, Next, Peer, State, Waiting};
use crate::presence::{Change, Event, Member};
use crate::subscription;
use crate::{Close, Closer, Exported, Message, Refusal};

/// How long a key of `idempotency_key` is remembered.
const IDEMPOTENCY_MS: u64 = 5 * 60 * 1000;

impl<P: Exported> Gateway<P> {
    /// Apply the effects of an event. When one is refused the later ones are not, and the client hears what
    /// `send_if_refused` said, or is closed with 1013.
    pub(super) fn apply(&self, session: Option<&str>, asked: Asked) {
        let applying = self.applying();
        let refused = asked.effects.into_iter().find_map(|effect| self.apply_one(session, effect).err());
        let mut state = self.state.borrow_mut();
        if let (Some(refusal), Some(session)) = (refused, session) {
            if asked.if_refused.is_empty() {
                let close = Close { code: 1013, reason: refusal.to_string(), by: Closer::Gateway };
                state.next.push_back(Next::End { session: session.to_owned(), close });
            }
            asked.if_refused.into_iter().for_each(|message| state.send(session, message));
        }
        drop(state);
        self.applied(applying);
    }

    fn apply_one(&self, session: Option<&str>, effect: Effect) -> Result<(), Refusal> {
        match effect {
            Effect::Publish(publish) => return self.accept(publish),
            Effect::Reach(whom, what) => return self.reach(&whom, &what),
            _ => {}
        }
        let mut state = self.state.borrow_mut();
        let now = state.now;
        let Some(session) = session else { return Ok(()) };
        match effect {
            Effect::Send(message) => state.send(session, message),
            Effect::Subscribe(subscribe) => state.subscribe(session, subscribe),
            Effect::Forward(forward) => return state.forward(session, forward),
            Effect::Unsubscribe(topic) => state.unsubscribe(session, &topic),
            Effect::LimitSessions(sessions, newest) => state.limit(session, sessions as usize, newest),
            Effect::Close(code, reason) => {
                let close = Close { code, reason, by: Closer::Plugin };
                state.next.push_back(Next::End { session: session.to_owned(), close });
            }
            effect => {
                let Some(peer) = state.peers.get_mut(session) else {
                    return Ok(());
                };
                match effect {
                    Effect::SetUser(user) => {
                        peer.counted = peer.counted.filter(|_| peer.user == user);
                        peer.user = user;
                    }
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
    pub(super) fn accept(&self, publish: Publish) -> Result<(), Refusal> {
        let Publish { topic, message, exclude, history, idempotency_key, key, metadata } = publish;
        let Some(message) = message else { return Ok(()) };
        let now = self.now();
        let mut kept = Kept { topic, message, position: None, time: now, expires: None, key, metadata, exclude };
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
        drop(state);
        self.carry(kept, history);
        Ok(())
    }

    /// What is asked for other sessions.
    fn reach(&self, whom: &Whom, what: &What) -> Result<(), Refusal> {
        let mut state = self.state.borrow_mut();
        if state.broker_away {
            return Err(Refusal::Unavailable);
        }
        for session in state.reached(whom) {
            match what {
                What::Send(message) => {
                    drop(state);
                    self.deliver(&session, None, message.clone());
                    state = self.state.borrow_mut();
                }
                What::Subscribe(topic) => state.subscribe_from_elsewhere(&session, topic),
                What::Unsubscribe(topic) => state.unsubscribe_from_elsewhere(&session, topic),
                What::Disconnect(code, reason) => {
                    let close = Close { code: *code, reason: reason.clone(), by: Closer::Plugin };
                    state.next.push_back(Next::End { session, close });
                }
            }
        }
        Ok(())
    }
}

impl State {
    /// A message into a session's outbox.
    pub(super) fn send(&mut self, session: &str, message: Message) {
        if let Some(peer) = self.peers.get_mut(session).filter(|peer| peer.closed.is_none()) {
            peer.outbox.push(message);
        }
    }

    /// The event's own subscription: the `subscription` hook hears of it, and deliveries wait until it has.
    fn subscribe(&mut self, session: &str, subscribe: Subscribe) {
        let Subscribe { topic, presence, recovery } = subscribe;
        let (missed, complete) = match recovery {
            Some(since) => self.after(&topic, since),
            None => (Vec::new(), true),
        };
        let position = self.position(&topic);
        let Some(peer) = self.peers.get_mut(session).filter(|peer| peer.closed.is_none()) else {
            return;
        };
        let fresh = peer.subscriptions.insert(topic.clone());
        let user = peer.user.clone();
        if fresh || recovery.is_some() {
            peer.holding.insert(topic.clone());
        }
        let event = match (recovery, complete) {
            (None, _) => subscription::Event::Subscribed,
            (Some(_), true) => subscription::Event::Recovered,
            (Some(_), false) => subscription::Event::Gap,
        };
        if complete {
            let missed = missed.into_iter().filter(|kept| kept.exclude.iter().all(|id| id != session));
            peer.held.extend(missed.map(|kept| Delivery { kept, framed: false }));
        }
        peer.changes.push_back(subscription::Change { topic: topic.clone(), event, position });
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

    fn subscribe_from_elsewhere(&mut self, session: &str, topic: &str) {
        let position = self.position(topic);
        if let Some(peer) = self.peers.get_mut(session).filter(|peer| peer.closed.is_none())
            && peer.subscriptions.insert(topic.to_owned())
        {
            peer.holding.insert(topic.to_owned());
            let event = subscription::Event::Added;
            peer.changes.push_back(subscription::Change { topic: topic.to_owned(), event, position });
        }
    }

    fn unsubscribe_from_elsewhere(&mut self, session: &str, topic: &str) {
        let position = self.position(topic);
        if let Some(peer) = self.peers.get_mut(session).filter(|peer| peer.subscriptions.contains(topic)) {
            let event = subscription::Event::Removed;
            peer.changes.push_back(subscription::Change { topic: topic.to_owned(), event, position });
            self.unsubscribe(session, topic);
        }
    }

    pub(super) fn unsubscribe(&mut self, session: &str, topic: &str) {
        if let Some(peer) = self.peers.get_mut(session) {
            peer.subscriptions.remove(topic);
            peer.held.retain(|delivery| delivery.kept.topic != topic);
        }
        let room = self.room(topic);
        if let Some(at) = room.members.iter().position(|member| member.session_id == session) {
            let member = room.members.remove(at);
            self.change(topic, Event::Left, member);
        }
    }

    /// Count the session among its user's, and end those that are too many.
    fn limit(&mut self, session: &str, sessions: usize, newest: bool) {
        let number = 1 + self.peers.values().filter_map(|peer| peer.counted).max().unwrap_or(0);
        let Some(peer) = self.peers.get_mut(session) else { return };
        peer.counted.get_or_insert(number);
        let user = peer.user.clone();
        let of_user = |(id, peer): (&String, &Peer)| {
            let counts = peer.closed.is_none() && peer.user == user;
            peer.counted.filter(|_| counts).map(|number| (number, id.clone()))
        };
        let mut all: Vec<_> = self.peers.iter().filter_map(of_user).collect();
        all.sort();
        let (victims, code) = match newest {
            true => (&all[..all.len().saturating_sub(sessions)], 4002),
            false => (&all[sessions.min(all.len())..], 4003),
        };
        for (_, victim) in victims {
            let close = Close { code, reason: "the user's sessions are limited".to_owned(), by: Closer::Gateway };
            self.next.push_back(Next::End { session: victim.clone(), close });
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

    /// The open sessions of whom it is asked for.
    fn reached(&self, whom: &Whom) -> Vec<String> {
        let open = self.peers.iter().filter(|(id, peer)| {
            peer.closed.is_none()
                && match whom {
                    Whom::User(user) => peer.user.as_deref() == Some(user),
                    Whom::Session(session) => *id == session,
                }
        });
        open.map(|(id, _)| id.clone()).collect()
    }

    /// A message to an upstream, or no more than a refusal.
    fn forward(&mut self, session: &str, forward: Forward) -> Result<(), Refusal> {
        let Forward { upstream, tag, message, headers, timeout } = forward;
        if self.upstreams.get(&upstream).copied().unwrap_or(true) {
            return Err(Refusal::Unavailable);
        }
        let number = self.next_handle();
        if let Some(tag) = &tag {
            let until = timeout.map(|after| self.now.saturating_add(after));
            self.waiting.insert(number, Waiting { session: session.to_owned(), tag: tag.clone(), until });
        }
        let (session, timeout) = (session.to_owned(), timeout.map(std::time::Duration::from_millis));
        self.forwarded.push(Forwarded { upstream, session, tag, message, headers, timeout, number });
        Ok(())
    }
}
