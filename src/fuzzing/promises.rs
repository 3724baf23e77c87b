//! What must hold of an event after a call, however the call has ended.

use crate::config::PluginLimits;
use crate::message::TopicName;
use crate::plugin::inside::{Answer, Verdict};
use crate::plugin::{Effect, Event, Hook, Remote};

/// What an event holds, however its call has ended.
pub fn check(hook: Hook, event: &Event, limits: &PluginLimits) {
    let effects = &event.effects;
    let count = effects.list.len() + effects.if_refused.len();
    assert!(count <= limits.effects, "{count} effects in `{}`", hook.name());
    assert!(hook.may_act() || count == 0, "`{}` has asked for effects", hook.name());
    let instead = effects.if_refused.iter().map(|(message, _)| message.len());
    let bytes: usize = effects.list.iter().map(payload).chain(instead).sum();
    assert!(bytes <= limits.output.0, "{bytes} bytes of effects in `{}`", hook.name());
    assert!(event.publications.len() <= 10_001);
    let response = &effects.response;
    assert!(hook == Hook::Authenticate || (response.headers.is_empty() && response.body.is_none()));
    assert!(response.headers.len() <= 32 && response.body.as_ref().is_none_or(|(_, body)| body.len() <= 16 << 10));
    for (name, value) in &response.headers {
        assert!(!value.contains(['\r', '\n']) && !name.is_empty(), "{name:?}: {value:?}");
    }
    assert!(hook != Hook::Outbound || effects.if_refused.is_empty(), "`outbound` sends");
    for effect in &effects.list {
        let local = hook != Hook::Outbound || effect.is_local();
        assert!(local, "`outbound` reaches beyond its session: {effect:?}");
        check_effect(hook, effect);
    }
}

/// What a hook has answered.
pub fn check_answer(hook: Hook, answer: &Answer, limits: &PluginLimits) {
    let fits = match hook {
        Hook::Authenticate => matches!(answer, Answer::Decision(_)),
        Hook::Inbound | Hook::Batch | Hook::Publication | Hook::Broadcast | Hook::Outbound => {
            matches!(answer, Answer::Verdict(_))
        }
        _ => matches!(answer, Answer::Done),
    };
    assert!(fits, "`{}` answered {answer:?}", hook.name());
    if let Answer::Verdict(Verdict::Replace(message)) = answer {
        assert!(message.len() <= limits.memory.0);
    }
}

/// The bytes that an effect carries, as the quota counts them.
fn payload(effect: &Effect) -> usize {
    match effect {
        Effect::Send(message, _)
        | Effect::ToUser(_, Remote::Send(message))
        | Effect::ToSession(_, Remote::Send(message)) => message.len(),
        Effect::Publish(publish) => {
            let metadata: usize = publish.metadata.iter().map(|(name, value)| name.len() + value.len()).sum();
            publish.message.len() + metadata
        }
        Effect::Forward(forward) => {
            let headers: usize = forward.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
            forward.message.len() + headers
        }
        Effect::Subscribe(subscribe) => subscribe.presence.as_ref().map_or(0, |info| info.len()),
        Effect::SetAttribute(_, value) => value.as_ref().map_or(0, |value| value.len()),
        _ => 0,
    }
}

fn check_effect(hook: Hook, effect: &Effect) {
    let granted = |topic: &TopicName| assert!(topic.as_str().starts_with("room:"), "{topic:?} is not granted");
    match effect {
        Effect::SetUser(user) => assert!(user.as_ref().is_none_or(|user| (1..=255).contains(&user.len()))),
        Effect::SetAttribute(name, value) => {
            assert!((1..=64).contains(&name.len()) && value.as_ref().is_none_or(|value| value.len() <= 4096));
        }
        Effect::Subscribe(subscribe) => {
            granted(&subscribe.topic);
            assert!(!matches!(hook, Hook::Authenticate | Hook::Closed), "a subscription in `{}`", hook.name());
            assert!(subscribe.presence.as_ref().is_none_or(|info| info.len() <= 1024));
        }
        Effect::Unsubscribe(topic) => assert!(TopicName::is_valid(topic.as_str())),
        Effect::Close(close) => assert!(close.reason.len() <= 123),
        Effect::SetTimer { name, .. } => assert!(name.len() <= 64),
        Effect::Publish(publish) => {
            granted(&publish.topic);
            assert!(publish.exclude.len() <= 64 && publish.metadata.len() <= 16);
            assert!(payload(effect) - publish.message.len() <= 4096);
            assert!(publish.history.is_none_or(|(size, ttl)| size <= 10_000 && ttl <= 7 * 24 * 3600 * 1000));
            let key = |key: &Option<Box<str>>| key.as_ref().is_none_or(|key| (1..=64).contains(&key.len()));
            assert!(key(&publish.key) && key(&publish.idempotency_key));
        }
        Effect::Forward(forward) => {
            assert!(hook != Hook::Authenticate && matches!(&*forward.upstream, "shop"), "{forward:?}");
            assert!(forward.headers.len() <= 32 && payload(effect) - forward.message.len() <= 8 << 10);
            assert!(forward.reply_to.as_ref().is_none_or(|(_, tag)| tag.len() <= 255));
        }
        Effect::ToUser(user, remote) => {
            assert!((1..=255).contains(&user.len()));
            if let Remote::Subscribe(topic) = remote {
                granted(topic);
            }
        }
        Effect::ToSession(_, Remote::Subscribe(topic)) => granted(topic),
        _ => {}
    }
}
