//! `topics`: publish.

use wasmtime::Result;

use super::wit::types::{Message, Refusal};
use super::{GrantedTopics, State, mistake, payload_len, topic_name, wit};
use crate::message::SessionId;
use crate::plugin::effects::{Effect, Publish};

/// Bytes of an idempotency key, and of a key.
const KEY: usize = 64;
/// Metadata of a publication: entries, and bytes in all.
const METADATA: usize = 16;
const METADATA_BYTES: usize = 4 << 10;

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
        self.charge(0, size_of::<SessionId>())?;
        self.publish_effect(effect)?.exclude.push(id);
        Ok(())
    }

    fn with_exclude_id(&mut self, effect: u32, id: String) -> Result<()> {
        self.charge(0, size_of::<SessionId>())?;
        // An id that is none excludes nobody, as does that of a session that has left.
        self.publish_effect(effect)?.exclude.extend(SessionId::parse(&id));
        Ok(())
    }

    fn with_history(&mut self, effect: u32, size: u32, ttl: u64) -> Result<()> {
        self.publish_effect(effect)?.history = Some((size, ttl));
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
