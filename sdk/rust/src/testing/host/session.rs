//! Of `session`: what it is, and effects on it.

use super::check;
use crate::host::data::Keep;
use crate::testing::call;
use crate::testing::effect::{Effect, Subscribe};
use crate::testing::state::fits;
use crate::{Message, Refusal, history::Position};

/// Of all attributes of a session together.
const ATTRIBUTES: usize = 16 * 1024;

pub(crate) fn id(session: u64) -> String {
    call::with(|call| call.session_id(session))
}

pub(crate) fn user(session: u64) -> Option<String> {
    call::with(|call| {
        let stored = call.peer(session, |peer| peer.user.clone());
        let asked = call.latest().find_map(|effect| match effect {
            Effect::SetUser(user) => Some(user.clone()),
            _ => None,
        });
        asked.unwrap_or(stored)
    })
}

pub(crate) fn route(session: u64) -> String {
    call::with(|call| call.peer(session, |peer| peer.request.route.clone()))
}

pub(crate) fn transport(session: u64) -> String {
    call::with(|call| call.peer(session, |_| "websocket".to_owned()))
}

pub(crate) fn subprotocol(session: u64) -> Option<String> {
    call::with(|call| {
        let stored = call.peer(session, |peer| peer.subprotocol.clone());
        let asked = call.latest().find_map(|effect| match effect {
            Effect::SelectSubprotocol(name) => Some(name.clone()),
            _ => None,
        });
        asked.or(stored)
    })
}

pub(crate) fn attribute(session: u64, name: &str) -> Option<String> {
    call::with(|call| {
        let stored = call.peer(session, |peer| peer.attributes.get(name).cloned());
        let asked = call.latest().find_map(|effect| match effect {
            Effect::SetAttribute(other, value) if other == name => Some(value.clone()),
            _ => None,
        });
        asked.unwrap_or(stored)
    })
}

pub(crate) fn is_subscribed(session: u64, topic: &str) -> bool {
    topics(session).iter().any(|other| other == topic)
}

pub(crate) fn topics(session: u64) -> Vec<String> {
    call::with(|call| {
        let mut topics = call.peer(session, |peer| peer.subscriptions.clone());
        for effect in call.effects() {
            match effect {
                Effect::Subscribe(subscribe) => drop(topics.insert(subscribe.topic.clone())),
                Effect::Unsubscribe(topic) => drop(topics.remove(topic)),
                _ => {}
            }
        }
        topics.into_iter().collect()
    })
}

pub(crate) fn send(session: u64, message: &Message) -> u32 {
    call::with(|call| {
        call.session_id(session);
        call.push(Effect::Send(message.clone()))
    })
}

pub(crate) fn send_if_refused(session: u64, message: &Message) {
    call::with(|call| {
        call.session_id(session);
        call.if_refused(message.clone());
    });
}

pub(crate) fn set_user(session: u64, user: Option<&str>) -> Result<(), Refusal> {
    user.map_or(Ok(()), check::id)?;
    push(session, Effect::SetUser(user.map(str::to_owned)));
    Ok(())
}

pub(crate) fn set_attribute(session: u64, name: &str, value: Option<&str>) -> Result<(), Refusal> {
    check::name(name)?;
    if let Some(value) = value {
        let (names, bytes) = call::with(|call| {
            let mut all = call.peer(session, |peer| peer.attributes.clone());
            for effect in call.effects() {
                match effect {
                    Effect::SetAttribute(name, Some(value)) => drop(all.insert(name.clone(), value.clone())),
                    Effect::SetAttribute(name, None) => drop(all.remove(name)),
                    _ => {}
                }
            }
            all.insert(name.to_owned(), value.to_owned());
            (all.len(), all.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>())
        });
        if names > 64 {
            return Err(Refusal::TooMany);
        }
        if value.len() > 4096 || bytes > ATTRIBUTES {
            return Err(Refusal::TooLarge);
        }
    }
    push(session, Effect::SetAttribute(name.to_owned(), value.map(str::to_owned)));
    Ok(())
}

pub(crate) fn set_expiry(session: u64, at: Option<u64>) {
    push(session, Effect::SetExpiry(at));
}

pub(crate) fn subscribe(session: u64, topic: &str) -> Result<u32, Refusal> {
    check::topic(topic)?;
    call::with(|call| {
        call.session_id(session);
        check::granted(call.state().grants.subscribe.iter().any(|pattern| fits(pattern, topic)))?;
        let subscribe = Subscribe { topic: topic.to_owned(), presence: None, recovery: None };
        Ok(call.push(Effect::Subscribe(subscribe)))
    })
}

pub(crate) fn with_presence(effect: u32, info: &str) -> Result<(), Refusal> {
    let topic = call::with(|call| subscribe_of(call, effect).topic.clone());
    if info.len() > 1024 {
        return Err(Refusal::TooLarge);
    }
    call::with(|call| {
        if !call.state().rule(&topic).presence {
            return Err(Refusal::Unsupported);
        }
        subscribe_of(call, effect).presence = Some(info.to_owned());
        Ok(())
    })
}

pub(crate) fn with_recovery(effect: u32, since: Position) {
    call::with(|call| subscribe_of(call, effect).recovery = Some(since));
}

pub(crate) fn unsubscribe(session: u64, topic: &str) {
    push(session, Effect::Unsubscribe(topic.to_owned()));
}

pub(crate) fn close(session: u64, code: u16, reason: &str) {
    check::close_code(code);
    let end = (0..=reason.len().min(123)).rev().find(|at| reason.is_char_boundary(*at)).unwrap_or(0);
    push(session, Effect::Close(code, reason[..end].to_owned()));
}

pub(crate) fn set_timer(session: u64, name: &str, after: u64) -> Result<(), Refusal> {
    check::name(name)?;
    let timers = call::with(|call| {
        let mut all = call.peer(session, |peer| peer.timers.keys().cloned().collect::<std::collections::BTreeSet<_>>());
        for effect in call.effects() {
            match effect {
                Effect::SetTimer(name, _) => drop(all.insert(name.clone())),
                Effect::CancelTimer(name) => drop(all.remove(name)),
                _ => {}
            }
        }
        all.insert(name.to_owned());
        all.len()
    });
    if timers > 16 {
        return Err(Refusal::TooMany);
    }
    push(session, Effect::SetTimer(name.to_owned(), after));
    Ok(())
}

pub(crate) fn cancel_timer(session: u64, name: &str) {
    push(session, Effect::CancelTimer(name.to_owned()));
}

pub(crate) fn limit_sessions(session: u64, sessions: u32, keep: Keep) -> Result<(), Refusal> {
    if user(session).is_none() || !(1..=100).contains(&sessions) {
        return Err(Refusal::Invalid);
    }
    push(session, Effect::LimitSessions(sessions, matches!(keep, Keep::Newest)));
    Ok(())
}

fn push(session: u64, effect: Effect) {
    call::with(|call| {
        call.session_id(session);
        call.push(effect);
    });
}

fn subscribe_of(call: &mut call::Call, effect: u32) -> &mut Subscribe {
    match call.effect(effect) {
        Effect::Subscribe(subscribe) => subscribe,
        other => panic!("trap: this option belongs to a subscribe, not to {other:?}"),
    }
}
