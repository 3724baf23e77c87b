//! Of `topics`: publishes and their options.

use super::check;
use crate::testing::call::{self, Call};
use crate::testing::effect::{Effect, Publish};
use crate::testing::state::fits;
use crate::{Message, Refusal};

pub(crate) fn publish(topic: &str, message: &Message) -> Result<u32, Refusal> {
    check::topic(topic)?;
    call::with(|call| {
        check::granted(call.state().grants.publish.iter().any(|pattern| fits(pattern, topic)))?;
        let publish = Publish { topic: topic.to_owned(), message: Some(message.clone()), ..Publish::default() };
        Ok(call.push(Effect::Publish(publish)))
    })
}

pub(crate) fn with_exclude(effect: u32, session: u64) {
    call::with(|call| {
        let id = call.session_id(session);
        publish_of(call, effect).exclude.push(id);
    });
}

pub(crate) fn with_exclude_id(effect: u32, id: &str) {
    call::with(|call| publish_of(call, effect).exclude.push(id.to_owned()));
}

pub(crate) fn with_history(effect: u32, size: u32, ttl: u64) {
    call::with(|call| publish_of(call, effect).history = Some((size, ttl)));
}

pub(crate) fn with_idempotency_key(effect: u32, key: &str) -> Result<(), Refusal> {
    check::name(key)?;
    call::with(|call| publish_of(call, effect).idempotency_key = Some(key.to_owned()));
    Ok(())
}

pub(crate) fn with_key(effect: u32, key: &str) -> Result<(), Refusal> {
    check::name(key)?;
    call::with(|call| publish_of(call, effect).key = Some(key.to_owned()));
    Ok(())
}

pub(crate) fn with_metadata(effect: u32, name: &str, value: &str) -> Result<(), Refusal> {
    check::name(name)?;
    call::with(|call| {
        let metadata = &mut publish_of(call, effect).metadata;
        if metadata.len() >= 16 {
            return Err(Refusal::TooMany);
        }
        let bytes: usize = metadata.iter().map(|(name, value)| name.len() + value.len()).sum();
        if bytes + name.len() + value.len() > 4096 {
            return Err(Refusal::TooLarge);
        }
        metadata.push((name.to_owned(), value.to_owned()));
        Ok(())
    })
}

fn publish_of(call: &mut Call, effect: u32) -> &mut Publish {
    match call.effect(effect) {
        Effect::Publish(publish) => publish,
        other => panic!("trap: this option belongs to a publish, not to {other:?}"),
    }
}
