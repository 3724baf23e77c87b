//! `topics`: publish.

use wasmtime::{Error, Result};

use super::wit::types::{Message, Refusal};
use super::{GrantedTopics, Quota, State, mistake, payload_len, topic_name, wit};
use crate::message::SessionId;
use crate::plugin::effects::{Effect, Publish};

/// Bytes of an idempotency key, and of a key.
const KEY: usize = 64;
/// What a plugin may ask to be kept of a topic, beyond what is configured: publications, and milliseconds.
const HISTORY: u32 = 10_000;
const HISTORY_TTL: u64 = 7 * 24 * 3600 * 1000;
/// Sessions that one publication is not delivered to.
const EXCLUDED: usize = 64;
/// Metadata of a publication: entries, and bytes in all.
const METADATA: usize = 16;
const METADATA_BYTES: usize = 4 << 10;

impl State {
    fn exclude(&mut self, effect: u32, id: SessionId) -> Result<()> {
        let excluded = &mut self.publish_effect(effect)?.exclude;
        if excluded.len() >= EXCLUDED {
            return Err(Error::new(Quota::Fixed("excluded sessions, 64")));
        }
        excluded.push(id);
        Ok(())
    }
}

impl wit::topics::Host for State {
    fn publish(&mut self, topic: String, message: Message) -> Result<Result<u32, Refusal>> {
        self.enter()?;
        let topic = match topic_name(&topic) {
            Ok(topic) => topic,
            Err(refusal) => return Ok(Err(refusal)),
        };
        if self.granted_topic(GrantedTopics::Publish, topic.as_str()).is_none() {
            return Ok(Err(Refusal::Denied));
        }
        let bytes = payload_len(&message);
        let publish = Publish {
            topic,
            message: message.into(),
            exclude: Vec::new(),
            history: None,
            idempotency_key: None,
            key: None,
            metadata: Vec::new(),
        };
        self.act(Effect::Publish(Box::new(publish)), bytes).map(Ok)
    }

    fn with_exclude(&mut self, effect: u32, session: u64) -> Result<()> {
        let id = self.session(session)?.id;
        self.exclude(effect, id)
    }

    fn with_exclude_id(&mut self, effect: u32, id: String) -> Result<()> {
        // An id that is none excludes nobody, as does that of a session that has left.
        match SessionId::parse(&id) {
            Some(id) => self.exclude(effect, id),
            None => self.publish_effect(effect).map(drop),
        }
    }

    fn with_history(&mut self, effect: u32, size: u32, ttl: u64) -> Result<()> {
        self.publish_effect(effect)?.history = Some((size.min(HISTORY), ttl.min(HISTORY_TTL)));
        Ok(())
    }

    fn with_idempotency_key(&mut self, effect: u32, key: String) -> Result<Result<(), Refusal>> {
        let publish = self.publish_effect(effect)?;
        Ok(checked_key(&key).map(|key| publish.idempotency_key = Some(key)))
    }

    fn with_key(&mut self, effect: u32, key: String) -> Result<Result<(), Refusal>> {
        let publish = self.publish_effect(effect)?;
        Ok(checked_key(&key).map(|key| publish.key = Some(key)))
    }

    fn with_metadata(&mut self, effect: u32, name: String, value: String) -> Result<Result<(), Refusal>> {
        self.charge(0, name.len() + value.len())?;
        let metadata = &mut self.publish_effect(effect)?.metadata;
        let bytes: usize = metadata.iter().map(|(name, value)| name.len() + value.len()).sum();
        if metadata.len() >= METADATA {
            return Ok(Err(Refusal::TooMany));
        }
        if bytes + name.len() + value.len() > METADATA_BYTES {
            return Ok(Err(Refusal::TooLarge));
        }
        if name.is_empty() {
            return Err(mistake("metadata without a name".to_owned()));
        }
        metadata.push((name.into(), value.into()));
        Ok(Ok(()))
    }
}

fn checked_key(key: &str) -> Result<Box<str>, Refusal> {
    match key.len() {
        0 => Err(Refusal::Invalid),
        1..=KEY => Ok(key.into()),
        _ => Err(Refusal::TooLarge),
    }
}
