//! Publications and messages on their way to sessions, past the hooks `broadcast`, `outbound` and `subscription`.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use super::call::{self, Kind};
use super::events::ENDLESS;
use super::gateway::Gateway;
use super::state::{Delivery, Kept, Next, Peer, Published, State};
use crate::{Close, Closer, Exported, Hook, Message, Publication, Result, Session, Verdict, history::Position};
use crate::{Error, subscription};

/// An event whose effects are being applied.
pub(super) struct Applying(Rc<RefCell<State>>);

impl Drop for Applying {
    fn drop(&mut self) {
        self.0.borrow_mut().depth -= 1;
    }
}

impl<P: Exported> Gateway<P> {
    /// Effects are going to be applied.
    pub(super) fn applying(&self) -> Applying {
        self.state.borrow_mut().depth += 1;
        Applying(Rc::clone(&self.state))
    }

    /// Effects were applied. After the outermost of such events the `subscription` hooks are called, and then come the
    /// deliveries that have waited for them.
    pub(super) fn applied(&self, applying: Applying) {
        if self.state.borrow().depth == 1 {
            self.release();
        }
        drop(applying);
    }

    fn release(&self) {
        for _ in 0..ENDLESS {
            let mut state = self.state.borrow_mut();
            let waits = |peer: &Peer| !peer.changes.is_empty() || !peer.held.is_empty();
            let Some((session, peer)) = state.peers.iter_mut().find(|(_, peer)| waits(peer)) else {
                state.peers.values_mut().for_each(|peer| peer.holding.clear());
                return;
            };
            let session = session.clone();
            if peer.closed.is_some() {
                peer.changes.clear();
                peer.held.clear();
            } else if let Some(change) = peer.changes.pop_front() {
                drop(state);
                self.changed(&session, change);
            } else if let Some(Delivery { kept, framed }) = peer.held.pop_front() {
                drop(state);
                let message = match framed {
                    true => Ok(Some(kept.message.clone())),
                    false => self.frame(kept.clone()),
                };
                self.hand(&session, &kept, message);
            }
        }
        panic!("one event has caused more than {ENDLESS} deliveries; does `subscription` subscribe anew each time?");
    }

    fn changed(&self, session: &str, change: subscription::Change) {
        let gap = change.event == subscription::Event::Gap;
        if P::HOOKS.contains(&Hook::Subscription) {
            // The failure is kept for `Gateway::failures`.
            let _ = self.event(Kind::Subscription, session, |plugin, session| plugin.subscription(session, change));
        } else if gap {
            self.close(session, 4001, "what was missed is no longer kept: load the state anew");
        }
    }

    /// A publication into the history and to the subscribers.
    pub(super) fn carry(&self, mut kept: Kept, history: Option<(u32, u64)>) {
        let mut state = self.state.borrow_mut();
        let rule = state.rule(&kept.topic);
        let (size, ttl) = match history {
            Some((size, ttl)) => (size, Some(ttl)),
            None => (rule.history, rule.ttl.map(crate::host::millis)),
        };
        if size > 0 {
            let expires = ttl.map(|ttl| state.now.saturating_add(ttl));
            let room = state.room(&kept.topic);
            room.offset += 1;
            kept.position = Some(room.position());
            kept.expires = expires;
            room.kept.push_back(kept.clone());
            while room.kept.len() > size as usize {
                room.kept.pop_front();
            }
        }
        let (topic, message) = (kept.topic.clone(), kept.message.clone());
        state.published.push(Published { topic, message, kept: size > 0 });
        let mut routes = BTreeMap::<String, Vec<String>>::new();
        for (id, peer) in &state.peers {
            if peer.closed.is_none() && peer.subscriptions.contains(&kept.topic) {
                routes.entry(peer.request.route.clone()).or_default().push(id.clone());
            }
        }
        drop(state);
        let applying = self.applying();
        for mut sessions in routes.into_values() {
            let message = self.frame(kept.clone());
            // A loss is that of all subscribers, the excluded ones are only not delivered to.
            if message.is_ok() {
                sessions.retain(|session| !kept.exclude.contains(session));
            }
            for session in sessions {
                let mut state = self.state.borrow_mut();
                match (&message, state.peers.get_mut(&session)) {
                    (Ok(Some(message)), Some(peer)) if peer.holding.contains(&kept.topic) => {
                        let kept = Kept { message: message.clone(), ..kept.clone() };
                        peer.held.push_back(Delivery { kept, framed: true });
                    }
                    _ => {
                        drop(state);
                        self.hand(&session, &kept, message.clone());
                    }
                }
            }
        }
        self.applied(applying);
    }

    /// The `broadcast` hook of a publication: what its subscribers get, none if they do not.
    fn frame(&self, kept: Kept) -> Result<Option<Message>> {
        if !P::HOOKS.contains(&Hook::Broadcast) {
            return Ok(Some(kept.message));
        }
        let (topic, message) = (kept.topic.clone(), kept.message.clone());
        let (verdict, _) = call::run(&self.state, Kind::Broadcast, None, Some(kept), |_, publication| {
            let plugin = self.plugin()?;
            plugin.broadcast(Publication::new(publication), &topic, message.clone())
        });
        verdict.map(|verdict| after(verdict, message)).inspect_err(|error| self.failed(Kind::Broadcast, error))
    }

    fn hand(&self, session: &str, kept: &Kept, message: Result<Option<Message>>) {
        match message {
            Ok(Some(message)) => self.deliver(session, Some(kept.clone()), message),
            Ok(None) => {}
            Err(_) => self.close(session, 1011, "a publication could not be delivered"),
        }
    }

    /// A message past the `outbound` hook into a session's outbox. What the session's own plugin sends does not come
    /// this way: the chain has no plugin before it.
    pub(super) fn deliver(&self, session: &str, publication: Option<Kept>, message: Message) {
        if self.is_closed(session) {
            return;
        }
        let message = match P::HOOKS.contains(&Hook::Outbound) {
            true => self.out(session, publication, message),
            false => Ok(Some(message)),
        };
        match message {
            Ok(Some(message)) => self.state.borrow_mut().send(session, message),
            Ok(None) => {}
            Err(_) => self.close(session, 1011, "a message could not be delivered"),
        }
    }

    fn out(&self, session: &str, publication: Option<Kept>, message: Message) -> Result<Option<Message>, Error> {
        let plugin = self.plugin()?;
        let there = publication.is_some();
        let copy = message.clone();
        let (verdict, asked) =
            call::run(&self.state, Kind::Outbound, Some(session), publication, |handle, publication| {
                plugin.outbound(Session::new(handle), there.then(|| Publication::new(publication)), copy)
            });
        let verdict = verdict.inspect_err(|error| self.failed(Kind::Outbound, error))?;
        self.apply(Some(session), asked);
        Ok(after(verdict, message))
    }

    /// Lose a topic's history: a new epoch, and a gap for everyone who is subscribed.
    pub(super) fn lose(&self, topic: &str) {
        let applying = self.applying();
        let mut state = self.state.borrow_mut();
        let room = state.room(topic);
        room.losses += 1;
        room.offset = 0;
        room.kept.clear();
        let position: Option<Position> = state.position(topic);
        let subscribed = |peer: &&mut Peer| peer.closed.is_none() && peer.subscriptions.contains(topic);
        for peer in state.peers.values_mut().filter(subscribed) {
            let event = subscription::Event::Gap;
            peer.changes.push_back(subscription::Change { topic: topic.to_owned(), event, position });
        }
        drop(state);
        self.applied(applying);
    }

    /// The gateway closes a session, after what is going on.
    fn close(&self, session: &str, code: u16, reason: &str) {
        let close = Close { code, reason: reason.to_owned(), by: Closer::Gateway };
        self.state.borrow_mut().next.push_back(Next::End { session: session.to_owned(), close });
    }
}

fn after(verdict: Verdict, message: Message) -> Option<Message> {
    match verdict {
        Verdict::Next => Some(message),
        Verdict::Replace(other) => Some(other),
        Verdict::Stop => None,
    }
}
