//! Applies the effects of a session's event, in order, until one is refused.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use super::{Session, Work};
use crate::apply::Refused;
use crate::config::RefusedEffect;
use crate::hub::{Audience, From, Published};
use crate::message::{Close, Closer, Message, Publication, TopicName};
use crate::plugin::{Effect, Effects, Event, Hook, Patience, Subscribe, SubscriptionEvent};
use crate::presence::Member;
use crate::state::{SessionState, Subscribed, Timer};
use crate::tap::Note;

/// A timer that sets itself again and again must not keep a thread busy.
const TIMER_MIN: Duration = Duration::from_millis(10);
/// A timer that is set further ahead than this fires then.
const TIMER_MAX: Duration = Duration::from_secs(366 * 24 * 3600);

/// Rounds of subscription events that one event may cause: their hooks may subscribe in their turn.
const ROUNDS: usize = 8;

impl Session {
    /// What the client is to hear goes to `work.out`, which the caller writes before it calls `Outbox::release`.
    pub(super) async fn apply(&mut self, event: &mut Option<Box<Event>>, effects: &mut Effects, work: &mut Work<'_>) {
        let mut list = std::mem::take(&mut effects.list);
        let mut refused = None;
        for effect in list.drain(..) {
            if let Err(why) = self.apply_one(event, effect, work).await {
                refused = Some(why);
                break;
            }
        }
        effects.list = list;
        if let Some(why) = refused {
            self.refuse(event, &why, effects, work).await;
        }
    }

    /// Applies what the calls of this event have asked for.
    pub(super) async fn apply_asked(&mut self, event: &mut Option<Box<Event>>, work: &mut Work<'_>) {
        let mut effects = event.as_mut().map(|event| std::mem::take(&mut event.effects)).unwrap_or_default();
        if !effects.is_empty() {
            self.apply(event, &mut effects, work).await;
        }
        effects.clear();
        if let Some(event) = event {
            event.effects = effects;
        }
    }

    /// Applies what was asked for if it is nothing but messages for the client itself and what is known of the session,
    /// which nobody can refuse. False: something else was asked for, and nothing is applied.
    pub(super) fn apply_small(&mut self, event: &mut Option<Box<Event>>, work: &mut Work<'_>) -> bool {
        let Some(effects) = event.as_mut().map(|event| &mut event.effects) else { return true };
        // A user is heard of on other nodes from then on, which is awaited.
        let is_small = |effect: &Effect| effect.is_local() && !matches!(effect, Effect::SetUser(_));
        if !effects.list.iter().all(|effect| matches!(effect, Effect::Send(..)) || is_small(effect)) {
            return false;
        }
        let mut list = std::mem::take(&mut effects.list);
        for effect in list.drain(..) {
            match effect {
                Effect::Send(message, _) => {
                    work.sent += 1;
                    self.encode(work.out, None, message.as_ref());
                }
                local => self.apply_local(event, local),
            }
        }
        if let Some(event) = event {
            event.effects.list = list;
        }
        true
    }

    /// Tells the chain what became of subscriptions; then delivers what was missed, before anything live.
    pub(super) async fn follow_up(&mut self, event: &mut Option<Box<Event>>, work: &mut Work<'_>) {
        for _ in 0..ROUNDS {
            let told = std::mem::take(&mut work.after.told);
            if told.is_empty() || !work.chain.has(Hook::Subscription) {
                break;
            }
            for (topic, what, position) in told {
                match work.chain.subscription(event, topic.as_str(), what, position).await {
                    Ok(()) => self.apply_asked(event, work).await,
                    Err(failure) => {
                        self.failed("subscription", &failure);
                        if what == SubscriptionEvent::Gap {
                            // The client has not been told by the chain, so it is told by the end of its session.
                            self.history_lost();
                        }
                    }
                }
            }
        }
        let patience = event.as_ref().map_or(Patience::Waits, |event| event.patience);
        for publication in std::mem::take(&mut work.after.recovered) {
            match work.chain.broadcast(&publication, patience).await {
                Ok(Some(message)) => {
                    self.send_by_hand(event, work, Some(&publication), message, usize::MAX).await;
                }
                Ok(None) => {}
                Err(failure) => {
                    self.failed("broadcast", &failure);
                    self.lost();
                    return;
                }
            }
        }
    }

    /// A message that could not be delivered is never lost in silence.
    fn lost(&mut self) {
        let close = Close::new(Close::INTERNAL, "a message could not be delivered");
        self.ends(close, Closer::Gateway);
    }

    /// A message for the client, by way of the `outbound` hooks of plugins before this place of the chain.
    pub(super) async fn send_by_hand(
        &mut self,
        event: &mut Option<Box<Event>>,
        work: &mut Work<'_>,
        publication: Option<&Arc<Publication>>,
        message: Message,
        before: usize,
    ) {
        if !self.outbox.by_hand() || !work.chain.has(Hook::Outbound) {
            self.encode(work.out, publication, message.as_ref());
            return;
        }
        match work.chain.outbound(event, publication, message, before).await {
            Ok(passed) => {
                let asked = event.as_mut().map(|event| std::mem::take(&mut event.effects.list)).unwrap_or_default();
                asked.into_iter().for_each(|effect| self.apply_local(event, effect));
                if let Some(message) = passed {
                    self.encode(work.out, publication, message.as_ref());
                }
            }
            Err(failure) => {
                if let Some(event) = event {
                    event.effects.clear();
                }
                self.failed("outbound", &failure);
                self.lost();
            }
        }
    }

    async fn refuse(
        &mut self,
        event: &mut Option<Box<Event>>,
        why: &Refused,
        effects: &mut Effects,
        work: &mut Work<'_>,
    ) {
        let route = self.route.clone();
        self.applier.node.metrics.effects_refused.inc();
        if let Some(tap) = &self.applier.node.tap {
            tap.note(Note::Refused { why: why.to_string() });
        }
        tracing::warn!(route = &*route.route.name, session = %self.outbox.id, %why, "an effect was refused: the event's later ones are not applied");
        if !effects.if_refused.is_empty() {
            for (message, place) in std::mem::take(&mut effects.if_refused) {
                self.send_by_hand(event, work, None, message, place as usize).await;
            }
        } else if route.route.rules().refused_effect == RefusedEffect::Close {
            self.ends(Close::new(Close::TRY_LATER, "not accepted now; try again later"), Closer::Gateway);
        }
    }

    async fn apply_one(
        &mut self,
        event: &mut Option<Box<Event>>,
        effect: Effect,
        work: &mut Work<'_>,
    ) -> Result<(), Refused> {
        match effect {
            Effect::Send(message, place) => {
                self.route.route.counters.sent.inc();
                self.send_by_hand(event, work, None, message, place as usize).await;
            }
            Effect::Publish(publish) => {
                if state(event).is_some_and(|state| state.is_subscribed(&publish.topic)) {
                    self.write_before(work);
                }
                let patience = event.as_ref().map_or(Patience::Waits, |event| event.patience);
                let gone = self.route.route.rules().redis_gone;
                if let Published::Congested(topic) = self.applier.publish(*publish, patience, gone).await? {
                    self.congested = Some(topic);
                }
            }
            Effect::Subscribe(subscribe) => self.subscribe(event, subscribe, work).await?,
            Effect::ToUser(user, remote) => {
                self.write_before(work);
                let gone = self.route.route.rules().redis_gone;
                self.applier.to_user(&user, &remote, gone).await?;
            }
            Effect::ToSession(session, remote) => {
                self.write_before(work);
                let gone = self.route.route.rules().redis_gone;
                self.applier.to_session(session, &remote, gone).await?;
            }
            Effect::Forward(forward) => self.applier.forward(&self.outbox, *forward)?,
            Effect::LimitSessions(sessions, keep) => self.limit_sessions(event, sessions as usize, keep).await?,
            Effect::SetUser(user) => {
                self.set_user(event, user.clone());
                if let Some(user) = user {
                    self.applier.hears(&user).await;
                }
            }
            local => self.apply_local(event, local),
        }
        Ok(())
    }

    /// Effects on nothing but what is known of the session.
    fn apply_local(&mut self, event: &mut Option<Box<Event>>, effect: Effect) {
        match effect {
            Effect::Unsubscribe(topic) => drop(self.unsubscribe(event, &topic)),
            Effect::Close(close) => self.ends(close, Closer::Plugin),
            Effect::SetUser(user) => self.set_user(event, user),
            Effect::SetAttribute(name, value) => {
                if let Some(state) = state(event) {
                    state.set_attribute(&name, value);
                }
            }
            Effect::SetExpiry(expiry) => {
                if let Some(state) = state(event) {
                    state.expiry = expiry.map(|at| NonZeroU64::new(at).unwrap_or(NonZeroU64::MIN));
                }
                self.alarm.set(self.clock().now());
            }
            Effect::SetTimer { plugin, name, after } => {
                let at = self.clock().now() + Duration::from_millis(after).clamp(TIMER_MIN, TIMER_MAX);
                if let Some(state) = state(event) {
                    state.timers.retain(|timer| timer.plugin != plugin || timer.name != name);
                    state.timers.push(Timer { plugin, name, at });
                }
                self.alarm.no_later(at);
            }
            Effect::CancelTimer { plugin, name } => {
                if let Some(state) = state(event) {
                    state.timers.retain(|timer| timer.plugin != plugin || timer.name != name);
                }
            }
            Effect::Send(..)
            | Effect::Publish(_)
            | Effect::Subscribe(_)
            | Effect::Forward(_)
            | Effect::LimitSessions(..)
            | Effect::ToUser(..)
            | Effect::ToSession(..) => {}
        }
    }

    /// What was sent so far goes out before something that may reach this client by another way.
    fn write_before(&mut self, work: &mut Work<'_>) {
        self.write(work.out);
        work.out.clear();
    }

    async fn subscribe(
        &mut self,
        event: &mut Option<Box<Event>>,
        subscribe: Subscribe,
        work: &mut Work<'_>,
    ) -> Result<(), Refused> {
        let Subscribe { topic, presence, since } = subscribe;
        let Some(state) = state(event) else { return Ok(()) };
        let since = since.or_else(|| self.format.resumes(&topic));
        if !std::mem::replace(&mut self.holds, true) {
            self.outbox.hold();
        }
        let tells = work.chain.has(Hook::Subscription);
        let node = &self.applier.node;
        let from = match since {
            Some(since) => From::Since(since),
            None if (tells || self.format.counts()) && node.rules.of(topic.as_str()).retention.size > 0 => {
                From::Position
            }
            None => From::Now,
        };
        let page = match state.subscriptions.iter().position(|one| one.subscription.topic == topic) {
            Some(known) => {
                let page = match since {
                    Some(since) => Some(node.hub.recover(&topic, since).await),
                    None => None,
                };
                let page = page.transpose().map_err(|error| Refused::Subscribe(topic.clone(), error))?;
                state.subscriptions[known].present |= presence.is_some();
                page
            }
            None => {
                let audience: Arc<dyn Audience> = self.route.clone();
                let gone = self.route.route.rules().redis_gone;
                let subscribed = node.hub.subscribe_anywhere(&topic, &self.outbox, &audience, from, gone).await;
                let (subscription, page) = subscribed.map_err(|error| Refused::Subscribe(topic.clone(), error))?;
                state.subscriptions.push(Subscribed { subscription, present: presence.is_some() });
                page
            }
        };
        if let Some(info) = presence {
            let member = Member { session: state.id, user: state.user.clone(), info };
            node.presence.join(&topic, member);
            node.presence.settled(&topic).await;
        }
        let position = page.as_ref().map(|page| page.position);
        if let Some(page) = &page {
            // Until what was missed is delivered the client stands where it stood.
            let stands = since.filter(|_| page.complete).unwrap_or(page.position);
            self.format.stands(&topic, Some(stands));
        }
        let what = match page.filter(|_| since.is_some()) {
            None => SubscriptionEvent::Subscribed,
            Some(page) if page.complete => {
                let missed = page.publications.into_iter().filter(|one| !one.exclude.contains(&self.outbox.id));
                work.after.recovered.extend(missed);
                SubscriptionEvent::Recovered
            }
            Some(_) => {
                self.gap(work);
                SubscriptionEvent::Gap
            }
        };
        if tells {
            work.after.told.push((topic, what, position));
        }
        Ok(())
    }

    /// A gap is never silent: where the history does not reach back, the client is told to load its state anew, by the
    /// chain or by the end of its session.
    pub(super) fn gap(&mut self, work: &Work<'_>) {
        if !work.chain.has(Hook::Subscription) {
            self.history_lost();
        }
    }

    fn history_lost(&mut self) {
        let close = Close::new(Close::HISTORY_LOST, "what was missed is no longer kept: load the state anew");
        self.ends(close, Closer::Gateway);
    }

    /// Whether it was subscribed.
    pub(super) fn unsubscribe(&mut self, event: &mut Option<Box<Event>>, topic: &TopicName) -> bool {
        let Some(state) = state(event) else { return false };
        let Some(place) = state.subscriptions.iter().position(|one| one.subscription.topic == *topic) else {
            return false;
        };
        let gone = state.subscriptions.swap_remove(place);
        self.format.stands(topic, None);
        self.applier.node.hub.unsubscribe(&gone.subscription);
        self.outbox.recovered(topic, None);
        if gone.present {
            self.applier.node.presence.leave(topic, state.id);
        }
        true
    }

    /// Another session's plugin, or an operator, has asked for it; nobody waits for an answer.
    pub(super) async fn subscribe_from_elsewhere(
        &mut self,
        event: &mut Option<Box<Event>>,
        topic: TopicName,
        work: &mut Work<'_>,
    ) {
        let full = state(event).is_none_or(|state| state.subscriptions.len() >= state.route.rules().topics_limit);
        if full {
            tracing::warn!(session = %self.outbox.id, %topic, "not subscribed: the session has as many topics as it may");
            return;
        }
        let subscribe = Subscribe { topic, presence: None, since: None };
        match self.subscribe(event, subscribe, work).await {
            Ok(()) => {
                if let Some((_, what, _)) = work.after.told.last_mut() {
                    *what = SubscriptionEvent::Added;
                }
            }
            Err(why) => tracing::warn!(session = %self.outbox.id, %why, "not subscribed"),
        }
    }

    fn set_user(&mut self, event: &mut Option<Box<Event>>, user: Option<Arc<str>>) {
        let Some(state) = state(event) else { return };
        if state.user == user {
            return;
        }
        self.applier.node.registry.change_user(&self.outbox, state.user.as_ref(), user.as_ref());
        state.user = user;
        if let Some(topic) = state.counted.take() {
            self.applier.node.presence.leave(&topic, state.id);
        }
        let topic = |one: &Subscribed| one.present.then(|| one.subscription.topic.clone());
        for topic in state.subscriptions.iter().filter_map(topic).collect::<Vec<_>>() {
            let info = self.applier.node.presence.info(&topic, state.id).unwrap_or_default();
            let member = Member { session: state.id, user: state.user.clone(), info };
            self.applier.node.presence.join(&topic, member);
        }
    }
}

pub(super) fn state(event: &mut Option<Box<Event>>) -> Option<&mut SessionState> {
    event.as_mut().and_then(|event| event.session.as_deref_mut())
}
