//! `session`: who the client is, and what happens to it.

use std::sync::Arc;

use serde_json::json;
use wasmtime::Result;

use super::wit::session::Keep as WitKeep;
use super::wit::types::{Message, Position as WitPosition, Refusal};
use super::{GrantedTopics, State, close_of, mistake, payload_len, topic_name, wit};
use crate::message::{MessageRef, Position, TopicName};
use crate::plugin::effects::{Effect, Keep, Subscribe};
use crate::plugin::event::Hook;
use crate::state::{ATTRIBUTE_BYTES, ATTRIBUTE_NAME, ATTRIBUTE_VALUE, ATTRIBUTES, TIMERS, USER_MAX};

/// Bytes of what a session tells of itself in presence.
const PRESENCE_INFO: usize = 1 << 10;
/// Where small messages lie until they are written.
const ARENA: usize = 4 << 10;
/// Bytes of a timer's name.
const TIMER_NAME: usize = 64;
/// To how many a user's sessions can be limited.
const USER_SESSIONS: u32 = 100;

impl wit::session::Host for State {
    fn id(&mut self, session: u64) -> Result<String> {
        Ok(self.session(session)?.id.to_string())
    }

    fn user(&mut self, session: u64) -> Result<Option<String>> {
        self.session(session)?;
        if let Some(user) = self.event()?.effects.user() {
            return Ok(user.as_deref().map(str::to_owned));
        }
        let user = self.session(session)?.user.as_deref().map(str::to_owned);
        Ok(self.given(user))
    }

    fn route(&mut self, session: u64) -> Result<String> {
        Ok(self.session(session)?.route.name.to_string())
    }

    fn transport(&mut self, session: u64) -> Result<String> {
        Ok(self.session(session)?.transport.to_owned())
    }

    fn subprotocol(&mut self, session: u64) -> Result<Option<String>> {
        Ok(self.session(session)?.subprotocol.as_deref().map(str::to_owned))
    }

    fn attribute(&mut self, session: u64, name: String) -> Result<Option<String>> {
        self.session(session)?;
        if let Some(value) = self.event()?.effects.attribute(&name) {
            return Ok(value.map(str::to_owned));
        }
        let value = self.session(session)?.attribute(&name).map(str::to_owned);
        Ok(self.given(value))
    }

    fn is_subscribed(&mut self, session: u64, topic: String) -> Result<bool> {
        Ok(self.topics_now(session)?.iter().any(|known| known.as_str() == topic))
    }

    fn topics(&mut self, session: u64) -> Result<Vec<String>> {
        Ok(self.topics_now(session)?.iter().map(|topic| topic.as_str().to_owned()).collect())
    }

    fn send(&mut self, session: u64, message: Message) -> Result<u32> {
        self.session(session)?;
        let bytes = payload_len(&message);
        let place = self.event()?.place;
        self.act(Effect::Send(message.into(), place), bytes)
    }

    fn send_if_refused(&mut self, session: u64, message: Message) -> Result<()> {
        self.session(session)?;
        if !self.hook.may_act() || self.hook == Hook::Outbound {
            return Err(mistake(format!("`{}` may not send", self.hook.name())));
        }
        self.charge(1, payload_len(&message))?;
        let event = self.event()?;
        event.effects.if_refused.push((message.into(), event.place));
        Ok(())
    }

    fn set_user(&mut self, session: u64, user: Option<String>) -> Result<Result<(), Refusal>> {
        self.session(session)?;
        if user.as_ref().is_some_and(|user| !(1..=USER_MAX).contains(&user.len())) {
            return Ok(Err(Refusal::Invalid));
        }
        self.act(Effect::SetUser(user.map(Arc::from)), 0)?;
        Ok(Ok(()))
    }

    fn set_attribute(&mut self, session: u64, name: String, value: Option<String>) -> Result<Result<(), Refusal>> {
        self.session(session)?;
        if name.is_empty() {
            return Ok(Err(Refusal::Invalid));
        }
        let length = value.as_ref().map_or(0, String::len);
        if name.len() > ATTRIBUTE_NAME || length > ATTRIBUTE_VALUE {
            return Ok(Err(Refusal::TooLarge));
        }
        if value.is_some() {
            let (count, bytes) = self.attributes_without(session, &name)?;
            if count >= ATTRIBUTES {
                return Ok(Err(Refusal::TooMany));
            }
            if bytes + name.len() + length > ATTRIBUTE_BYTES {
                return Ok(Err(Refusal::TooLarge));
            }
        }
        self.act(Effect::SetAttribute(name.into(), value.map(Into::into)), length)?;
        Ok(Ok(()))
    }

    fn set_expiry(&mut self, session: u64, at: Option<u64>) -> Result<()> {
        self.session(session)?;
        self.act(Effect::SetExpiry(at), 0).map(drop)
    }

    fn subscribe(&mut self, session: u64, topic: String) -> Result<Result<u32, Refusal>> {
        self.session(session)?;
        if matches!(self.hook, Hook::Authenticate | Hook::Closed) {
            return Err(mistake(format!("`{}` cannot subscribe: the session is not open", self.hook.name())));
        }
        let topic = match topic_name(&topic) {
            Ok(topic) => topic,
            Err(refusal) => return Ok(Err(refusal)),
        };
        if self.granted_topic(GrantedTopics::Subscribe, topic.as_str()).is_none() {
            return Ok(Err(Refusal::Denied));
        }
        let limit = self.session(session)?.route.rules().topics_limit;
        let topics = self.topics_now(session)?;
        if topics.len() >= limit && !topics.contains(&topic) {
            return Ok(Err(Refusal::TooMany));
        }
        self.act(Effect::Subscribe(Subscribe { topic, presence: None, since: None }), 0).map(Ok)
    }

    fn with_presence(&mut self, effect: u32, info: String) -> Result<Result<(), Refusal>> {
        if info.len() > PRESENCE_INFO {
            return Ok(Err(Refusal::TooLarge));
        }
        let topic = self.subscribe_effect(effect)?.topic.clone();
        let with = || json!({ "topic": topic.as_str() });
        match self.asked("topic.presence", with, None, |node| Ok(node.rules.of(topic.as_str()).presence)) {
            Ok(true) => {}
            Ok(false) => return Ok(Err(Refusal::Unsupported)),
            Err(refusal) => return Ok(Err(refusal)),
        }
        self.charge(0, info.len())?;
        self.subscribe_effect(effect)?.presence = Some(info.into());
        Ok(Ok(()))
    }

    fn with_recovery(&mut self, effect: u32, since: WitPosition) -> Result<()> {
        self.subscribe_effect(effect)?.since = Some(Position { epoch: since.epoch, offset: since.offset });
        Ok(())
    }

    fn unsubscribe(&mut self, session: u64, topic: String) -> Result<()> {
        self.session(session)?;
        if let Ok(topic) = topic_name(&topic) {
            self.act(Effect::Unsubscribe(topic), 0)?;
        }
        Ok(())
    }

    fn close(&mut self, session: u64, code: u16, reason: String) -> Result<()> {
        self.session(session)?;
        let close = close_of(code, &reason)?;
        self.act(Effect::Close(close), 0).map(drop)
    }

    fn set_timer(&mut self, session: u64, name: String, after: u64) -> Result<Result<(), Refusal>> {
        self.session(session)?;
        if name.len() > TIMER_NAME {
            return Ok(Err(Refusal::TooLarge));
        }
        let plugin = self.context.name.clone();
        let state = self.session(session)?;
        let known = state.timers.iter().any(|timer| timer.plugin == plugin && *timer.name == *name);
        let running = state.timers.len();
        let asked =
            self.event()?.effects.list.iter().filter(|effect| matches!(effect, Effect::SetTimer { .. })).count();
        if !known && running + asked >= TIMERS {
            return Ok(Err(Refusal::TooMany));
        }
        self.act(Effect::SetTimer { plugin, name: name.into(), after }, 0)?;
        Ok(Ok(()))
    }

    fn cancel_timer(&mut self, session: u64, name: String) -> Result<()> {
        self.session(session)?;
        let plugin = self.context.name.clone();
        self.act(Effect::CancelTimer { plugin, name: name.into() }, 0).map(drop)
    }

    fn limit_sessions(&mut self, session: u64, sessions: u32, keep: WitKeep) -> Result<Result<(), Refusal>> {
        let known = self.session(session)?.user.is_some();
        if matches!(self.hook, Hook::Authenticate | Hook::Closed) {
            return Err(mistake(format!("`{}` cannot limit sessions: the session is not open", self.hook.name())));
        }
        let user = self.event()?.effects.user().map_or(known, Option::is_some);
        if !user || !(1..=USER_SESSIONS).contains(&sessions) {
            return Ok(Err(Refusal::Invalid));
        }
        let keep = match keep {
            WitKeep::Newest => Keep::Newest,
            WitKeep::Oldest => Keep::Oldest,
        };
        self.act(Effect::LimitSessions(sessions, keep), 0)?;
        Ok(Ok(()))
    }
}

impl State {
    /// `send` of a message that still lies in the guest's memory.
    pub fn send_message(&mut self, session: u64, message: MessageRef<'_>) -> Result<u32> {
        self.session(session)?;
        let place = self.event()?.place;
        let bytes = message.len();
        // A large one shall not make the arena large.
        let message = if bytes <= ARENA / 4 {
            self.arena.reserve(if self.arena.capacity() < bytes { ARENA } else { 0 });
            message.to_owned_in(&mut self.arena)
        } else {
            message.to_owned()
        };
        self.act(Effect::Send(message, place), bytes)
    }

    /// The session's topics, with what this event has asked for so far.
    fn topics_now(&mut self, session: u64) -> Result<Vec<TopicName>> {
        let subscriptions = &self.session(session)?.subscriptions;
        let mut topics: Vec<_> = subscriptions.iter().map(|one| one.subscription.topic.clone()).collect();
        for effect in &self.event()?.effects.list {
            match effect {
                Effect::Subscribe(subscribe) if !topics.contains(&subscribe.topic) => {
                    topics.push(subscribe.topic.clone())
                }
                Effect::Unsubscribe(gone) => topics.retain(|topic| topic != gone),
                _ => {}
            }
        }
        Ok(topics)
    }

    /// How many attributes there will be beside `name`, and how many bytes they take.
    fn attributes_without(&mut self, session: u64, name: &str) -> Result<(usize, usize)> {
        let (mut count, mut bytes) = (0, 0);
        let mut add = |known: &str, value: &str| {
            if known != name {
                count += 1;
                bytes += known.len() + value.len();
            }
        };
        for (known, value) in &self.session(session)?.attributes {
            add(known, value);
        }
        for effect in &self.event()?.effects.list {
            if let Effect::SetAttribute(known, Some(value)) = effect {
                add(known, value);
            }
        }
        Ok((count, bytes))
    }
}
