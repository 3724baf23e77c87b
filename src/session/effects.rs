//! Applies the effects of a session's event, in order, until one is refused.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::Session;
use crate::apply::Refused;
use crate::broker::Page;
use crate::config::RefusedEffect;
use crate::hub::Published;
use crate::message::{Close, Closer, TopicName};
use crate::plugin::{Effect, Effects, Event, Patience, Subscribe};
use crate::presence::Member;
use crate::state::{SessionState, Subscribed, Timer};
use crate::wire;

/// A timer that sets itself again and again must not keep a thread busy.
const TIMER_MIN: Duration = Duration::from_millis(10);
/// A timer that is set further ahead than this fires then.
const TIMER_MAX: Duration = Duration::from_secs(366 * 24 * 3600);

impl Session {
    /// What the client is to hear goes to `out`, which the caller writes before it calls `Outbox::release`.
    pub(super) async fn apply(
        &mut self,
        event: &mut Option<Box<Event>>,
        effects: &mut Effects,
        patience: Patience,
        out: &mut Vec<u8>,
    ) {
        let mut recovered = Vec::new();
        let mut list = std::mem::take(&mut effects.list);
        let mut refused = None;
        for effect in list.drain(..) {
            if let Err(why) = self.apply_one(event, effect, patience, out, &mut recovered).await {
                refused = Some(why);
                break;
            }
        }
        effects.list = list;
        if let Some(why) = refused {
            self.refuse(&why, effects, out);
        }
        // What was missed comes behind what the event had to say, and before anything live.
        out.append(&mut recovered);
    }

    fn refuse(&mut self, why: &Refused, effects: &mut Effects, out: &mut Vec<u8>) {
        let route = &self.route.route;
        self.applier.node.metrics.effects_refused.inc();
        tracing::warn!(route = &*route.name, session = %self.outbox.id, %why, "an effect was refused: the event's later ones are not applied");
        if !effects.if_refused.is_empty() {
            for message in &effects.if_refused {
                wire::message(out, message.as_ref());
            }
        } else if route.rules().refused_effect == RefusedEffect::Close && self.ending.is_none() {
            self.ending = Some((Close::new(Close::TRY_LATER, "not accepted now; try again later"), Closer::Gateway));
        }
    }

    async fn apply_one(
        &mut self,
        event: &mut Option<Box<Event>>,
        effect: Effect,
        patience: Patience,
        out: &mut Vec<u8>,
        recovered: &mut Vec<u8>,
    ) -> Result<(), Refused> {
        match effect {
            Effect::Send(message) => {
                wire::message(out, message.as_ref());
                self.route.route.counters.sent.inc();
            }
            Effect::Publish(publish) => {
                if state(event).is_some_and(|state| state.is_subscribed(&publish.topic)) {
                    self.write_before(out);
                }
                if let Published::Congested(topic) = self.applier.publish(*publish, patience).await? {
                    self.congested = Some(topic);
                }
            }
            Effect::Subscribe(subscribe) => self.subscribe(event, subscribe, recovered)?,
            Effect::Unsubscribe(topic) => self.unsubscribe(event, &topic),
            Effect::Close(close) => {
                if self.ending.is_none() {
                    self.ending = Some((close, Closer::Plugin));
                }
            }
            Effect::ToUser(user, remote) => {
                self.write_before(out);
                self.applier.to_user(&user, &remote)?;
            }
            Effect::ToSession(session, remote) => {
                self.write_before(out);
                self.applier.to_session(session, &remote)?;
            }
            Effect::SetUser(user) => self.set_user(event, user),
            Effect::SetAttribute(name, value) => {
                if let Some(state) = state(event) {
                    state.set_attribute(&name, value);
                }
            }
            Effect::SetExpiry(expiry) => {
                if let Some(state) = state(event) {
                    state.expiry = expiry;
                }
                self.alarm.as_mut().reset(Instant::now());
            }
            Effect::SetTimer { plugin, name, after } => {
                let at = Instant::now() + Duration::from_millis(after).clamp(TIMER_MIN, TIMER_MAX);
                if let Some(state) = state(event) {
                    state.timers.retain(|timer| timer.plugin != plugin || timer.name != name);
                    state.timers.push(Timer { plugin, name, at });
                }
                if at < self.alarm.deadline() {
                    self.alarm.as_mut().reset(at);
                }
            }
            Effect::CancelTimer { plugin, name } => {
                if let Some(state) = state(event) {
                    state.timers.retain(|timer| timer.plugin != plugin || timer.name != name);
                }
            }
        }
        Ok(())
    }

    /// What was sent so far goes out before something that may reach this client by another way.
    fn write_before(&mut self, out: &mut Vec<u8>) {
        self.write(out);
        out.clear();
    }

    fn subscribe(
        &mut self,
        event: &mut Option<Box<Event>>,
        subscribe: Subscribe,
        recovered: &mut Vec<u8>,
    ) -> Result<(), Refused> {
        let Subscribe { topic, presence, since } = subscribe;
        let Some(state) = state(event) else { return Ok(()) };
        self.outbox.hold();
        self.holds = true;
        let page = match state.subscriptions.iter().position(|one| one.subscription.topic == topic) {
            Some(known) => {
                let page = since.map(|since| self.applier.node.hub.history(&topic, Some(since), usize::MAX));
                let page = page.transpose().map_err(|error| Refused::Subscribe(topic.clone(), error))?;
                state.subscriptions[known].present |= presence.is_some();
                page
            }
            None => {
                let subscribed = self.applier.node.hub.subscribe(&topic, &self.outbox, since);
                let (subscription, page) = subscribed.map_err(|error| Refused::Subscribe(topic.clone(), error))?;
                state.subscriptions.push(Subscribed { subscription, present: presence.is_some() });
                page
            }
        };
        if let Some(info) = presence {
            self.applier.join(&topic, Member { session: state.id, user: state.user.clone(), info });
        }
        if let Some(page) = page {
            self.recover(&page, recovered);
        }
        Ok(())
    }

    /// A gap is never silent: where the history does not reach back, the client is told to load its state anew.
    fn recover(&mut self, page: &Page, recovered: &mut Vec<u8>) {
        if !page.complete {
            let close = Close::new(Close::HISTORY_LOST, "what was missed is no longer kept: load the state anew");
            self.ending.get_or_insert((close, Closer::Gateway));
            return;
        }
        for publication in &page.publications {
            if !publication.exclude.contains(&self.outbox.id) {
                wire::message(recovered, publication.message.as_ref());
            }
        }
    }

    pub(super) fn unsubscribe(&mut self, event: &mut Option<Box<Event>>, topic: &TopicName) {
        let Some(state) = state(event) else { return };
        let Some(place) = state.subscriptions.iter().position(|one| one.subscription.topic == *topic) else {
            return;
        };
        let gone = state.subscriptions.swap_remove(place);
        self.applier.node.hub.unsubscribe(&gone.subscription);
        if gone.present {
            self.applier.leave(topic, state.id);
        }
    }

    /// Another session's plugin, or an operator, has asked for it; nobody waits for an answer.
    pub(super) fn subscribe_from_elsewhere(&mut self, event: &mut Option<Box<Event>>, topic: TopicName) {
        let full = state(event).is_none_or(|state| state.subscriptions.len() >= state.route.rules().topics_limit);
        if full {
            tracing::warn!(session = %self.outbox.id, %topic, "not subscribed: the session has as many topics as it may");
            return;
        }
        let subscribe = Subscribe { topic, presence: None, since: None };
        if let Err(why) = self.subscribe(event, subscribe, &mut Vec::new()) {
            tracing::warn!(session = %self.outbox.id, %why, "not subscribed");
        }
    }

    fn set_user(&mut self, event: &mut Option<Box<Event>>, user: Option<Arc<str>>) {
        let Some(state) = state(event) else { return };
        if state.user == user {
            return;
        }
        self.applier.node.registry.change_user(&self.outbox, state.user.as_ref(), user.as_ref());
        state.user = user;
        let topic = |one: &Subscribed| one.present.then(|| one.subscription.topic.clone());
        for topic in state.subscriptions.iter().filter_map(topic).collect::<Vec<_>>() {
            let info = self.applier.node.presence.info(&topic, state.id).unwrap_or_default();
            let member = Member { session: state.id, user: state.user.clone(), info };
            self.applier.join(&topic, member);
        }
    }
}

fn state(event: &mut Option<Box<Event>>) -> Option<&mut SessionState> {
    event.as_mut().and_then(|event| event.session.as_deref_mut())
}
