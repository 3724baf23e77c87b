//! Calls, answers and effects as JSON: what scenarios expect, what recordings keep, and what two builds are compared by.
//!
//! An effect is an object. Its first word is the function of the interface that asked for it, with the effect's object
//! (a topic, a name, a message); the options follow under their own names, and those that were not asked for are absent.
//! A message is a string if it is text and `{"base64": …}` if it is binary.

mod read;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::HeaderMap;
use hyper::header::HeaderValue;
use serde_json::{Map, Value, json};

use super::call::{Answer, Call, Decision, SubscriptionEvent, Verdict};
use super::effects::{Effect, Effects, Forward, Keep, Publish, Remote, Subscribe};
use crate::message::{Close, Closer, MessageRef, Position, Publication};
use crate::upstream::{Reply, ReplyFailure};
pub use read::{read_bytes, read_call, read_headers, read_position, read_publication};

pub fn message(message: MessageRef<'_>) -> Value {
    match message {
        MessageRef::Text(text) => text.into(),
        MessageRef::Binary(bytes) => json!({ "base64": STANDARD.encode(bytes) }),
    }
}

/// What a hook was called with; without the handles, which mean nothing elsewhere.
pub fn call(call: &Call<'_>) -> Value {
    match call {
        Call::Init | Call::Authenticate { .. } | Call::Opened { .. } => json!({}),
        Call::Closed { code, reason, by, .. } => json!({ "code": code, "reason": reason, "by": closer(*by) }),
        Call::Inbound { message: content, .. } => json!({ "message": message(content.as_ref()) }),
        Call::Publication { topic, message: content } | Call::Broadcast { topic, message: content } => {
            json!({ "topic": topic, "message": message(content.as_ref()) })
        }
        Call::Outbound { message: content, publication, .. } => {
            json!({ "message": message(content.as_ref()), "publication": publication.is_some() })
        }
        Call::Subscription { topic, event, position: at, .. } => {
            json!({ "topic": topic, "event": subscription(*event), "position": at.map(position) })
        }
        Call::Timer { name, .. } => json!({ "name": name }),
        Call::Reply { tag, reply: answer, .. } => json!({ "tag": tag, "reply": reply(answer) }),
        Call::Presence { topic, joined, session_id, user, info, sessions_of_user } => json!({
            "topic": topic,
            "event": if *joined { "joined" } else { "left" },
            "session-id": session_id,
            "user": user,
            "info": info,
            "sessions-of-user": sessions_of_user,
        }),
        Call::Http { request } => json!({
            "method": request.method.as_str(),
            "target": &*request.target,
            "authority": &*request.authority,
            "headers": headers(&request.headers),
            "body": message(text_or_binary(&request.body)),
        }),
    }
}

/// What a hook answered.
pub fn answer(answer: &Answer) -> Value {
    match answer {
        Answer::Done => "done".into(),
        Answer::Decision(Decision::Refuse(status)) => json!({ "refuse": status }),
        Answer::Decision(Decision::Pass) => "pass".into(),
        Answer::Decision(Decision::Admit(user)) => json!({ "admit": user.as_deref() }),
        Answer::Verdict(Verdict::Next) => "next".into(),
        Answer::Verdict(Verdict::Replace(new)) => json!({ "replace": message(new.as_ref()) }),
        Answer::Verdict(Verdict::Stop) => "stop".into(),
        Answer::Http(answer) => json!({
            "status": answer.status,
            "headers": headers(&answer.headers),
            "body": message(text_or_binary(&answer.body)),
        }),
    }
}

/// Headers as pairs, since a name may come more than once and their order may matter.
pub fn headers(headers: &HeaderMap) -> Value {
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    headers.iter().map(|(name, value)| json!([name.as_str(), text(value)])).collect()
}

/// A publication that a hook is called for or has read.
pub fn publication(publication: &Publication) -> Value {
    let Publication { topic, message: content, position: at, time, key, metadata, exclude: _ } = publication;
    let mut all = Map::new();
    all.insert("topic".into(), topic.as_str().into());
    all.insert("message".into(), message(content.as_ref()));
    put(&mut all, "position", at.map(position));
    all.insert("time".into(), (*time).into());
    put(&mut all, "key", key.as_deref());
    if !metadata.is_empty() {
        let pairs: Map<_, _> = metadata.iter().map(|(name, value)| (name.to_string(), (**value).into())).collect();
        all.insert("metadata".into(), pairs.into());
    }
    all.into()
}

/// All that a call or an event has asked for, in the order in which it is applied: what concerns the response of
/// `authenticate` first, what is sent if something is refused last.
pub fn effects(effects: &Effects) -> Vec<Value> {
    let Effects { list, if_refused, response } = effects;
    let mut all = Vec::with_capacity(list.len() + if_refused.len());
    all.extend(response.subprotocol.as_ref().map(|name| json!({ "select-subprotocol": name })));
    all.extend(response.headers.iter().map(|(name, value)| json!({ "add-header": name, "value": value })));
    all.extend(response.body.as_ref().map(
        |(content_type, body)| json!({ "set-body": message(text_or_binary(body)), "content-type": content_type }),
    ));
    all.extend(list.iter().map(effect));
    all.extend(if_refused.iter().map(|(text, _)| json!({ "send-if-refused": message(text.as_ref()) })));
    all
}

/// As text where it is text.
pub fn text_or_binary(body: &[u8]) -> MessageRef<'_> {
    std::str::from_utf8(body).map_or(MessageRef::Binary(body), MessageRef::Text)
}

/// One effect.
pub fn effect(effect: &Effect) -> Value {
    match effect {
        Effect::Send(content, _) => json!({ "send": message(content.as_ref()) }),
        Effect::SetUser(user) => json!({ "set-user": user.as_deref() }),
        Effect::SetAttribute(name, value) => json!({ "set-attribute": name, "value": value }),
        Effect::SetExpiry(at) => json!({ "set-expiry": at }),
        Effect::Subscribe(wanted) => subscribe(wanted),
        Effect::Unsubscribe(topic) => json!({ "unsubscribe": topic.as_str() }),
        Effect::Close(why) => close("close", why),
        Effect::SetTimer { plugin: _, name, after } => json!({ "set-timer": name, "after": after }),
        Effect::CancelTimer { plugin: _, name } => json!({ "cancel-timer": name }),
        Effect::LimitSessions(sessions, keep) => json!({ "limit-sessions": sessions, "keep": keep_name(*keep) }),
        Effect::Publish(wanted) => publish(wanted),
        Effect::Forward(wanted) => forward(wanted),
        Effect::ToUser(user, what) => remote("user", user, what),
        Effect::ToSession(session, what) => remote("session", &session.to_string(), what),
    }
}

fn keep_name(keep: Keep) -> &'static str {
    match keep {
        Keep::Newest => "newest",
        Keep::Oldest => "oldest",
    }
}

fn subscribe(Subscribe { topic, presence, since }: &Subscribe) -> Value {
    let mut all = Map::new();
    all.insert("subscribe".into(), topic.as_str().into());
    put(&mut all, "presence", presence.as_deref());
    put(&mut all, "since", since.map(position));
    all.into()
}

fn publish(publish: &Publish) -> Value {
    let Publish { topic, message: content, exclude, history, idempotency_key, key, metadata } = publish;
    let mut all = Map::new();
    all.insert("publish".into(), topic.as_str().into());
    all.insert("message".into(), message(content.as_ref()));
    if !exclude.is_empty() {
        let ids: Vec<_> = exclude.iter().map(ToString::to_string).collect();
        all.insert("exclude".into(), ids.into());
    }
    put(&mut all, "history", history.map(|(size, ttl)| json!({ "size": size, "ttl": ttl })));
    put(&mut all, "idempotency-key", idempotency_key.as_deref());
    put(&mut all, "key", key.as_deref());
    if !metadata.is_empty() {
        let pairs: Map<_, _> = metadata.iter().map(|(name, value)| (name.to_string(), (**value).into())).collect();
        all.insert("metadata".into(), pairs.into());
    }
    all.into()
}

fn forward(Forward { upstream, message: content, reply_to, headers, timeout }: &Forward) -> Value {
    let mut all = Map::new();
    let verb = if reply_to.is_some() { "request" } else { "forward" };
    all.insert(verb.into(), (**upstream).into());
    put(&mut all, "tag", reply_to.as_ref().map(|(_, tag)| &**tag));
    all.insert("message".into(), message(content.as_ref()));
    if !headers.is_empty() {
        let pairs: Map<_, _> = headers.iter().map(|(name, value)| (name.to_string(), (**value).into())).collect();
        all.insert("headers".into(), pairs.into());
    }
    put(&mut all, "timeout", *timeout);
    all.into()
}

/// `users` and `sessions`: `whom` is "user" or "session".
fn remote(whom: &str, id: &str, remote: &Remote) -> Value {
    let mut all = Map::new();
    let to = |verb: &str| format!("{verb}-{whom}");
    match remote {
        Remote::Send(content) => {
            all.insert(to("send-to"), id.into());
            all.insert("message".into(), message(content.as_ref()));
        }
        Remote::Subscribe(topic) => {
            all.insert(to("subscribe"), id.into());
            all.insert("topic".into(), topic.as_str().into());
        }
        Remote::Unsubscribe(topic) => {
            all.insert(to("unsubscribe"), id.into());
            all.insert("topic".into(), topic.as_str().into());
        }
        Remote::Close(Close { code, reason }) => {
            all.insert(to("disconnect"), id.into());
            all.insert("code".into(), (*code).into());
            all.insert("reason".into(), (**reason).into());
        }
    }
    all.into()
}

fn close(name: &str, Close { code, reason }: &Close) -> Value {
    json!({ name: code, "reason": reason })
}

fn put(all: &mut Map<String, Value>, name: &str, value: Option<impl Into<Value>>) {
    if let Some(value) = value {
        all.insert(name.into(), value.into());
    }
}

pub fn position(position: Position) -> Value {
    json!({ "epoch": position.epoch, "offset": position.offset })
}

/// An upstream's answer.
pub fn reply(reply: &Reply) -> Value {
    match reply {
        Ok((status, body)) => json!({ "status": status, "body": message(body.as_ref()) }),
        Err(failure) => json!({
            "failure": match failure {
                ReplyFailure::Unavailable => "unavailable",
                ReplyFailure::Timeout => "timeout",
                ReplyFailure::TooLarge => "too-large",
                ReplyFailure::Broken => "broken",
            }
        }),
    }
}

pub fn closer(by: Closer) -> &'static str {
    match by {
        Closer::Client => "client",
        Closer::Plugin => "plugin",
        Closer::Gateway => "gateway",
        Closer::Network => "network",
    }
}

fn subscription(event: SubscriptionEvent) -> &'static str {
    match event {
        SubscriptionEvent::Subscribed => "subscribed",
        SubscriptionEvent::Recovered => "recovered",
        SubscriptionEvent::Gap => "gap",
        SubscriptionEvent::Added => "added",
        SubscriptionEvent::Removed => "removed",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{Message, SessionId, TopicName};
    use crate::plugin::effects::Response;

    fn topic(name: &str) -> TopicName {
        TopicName::parse(name).unwrap()
    }

    #[test]
    fn every_effect_has_its_own_words() {
        let session = SessionId { node: 1, number: 2 };
        let plain = Publish {
            topic: topic("room"),
            message: Message::Text("hi".into()),
            exclude: Vec::new(),
            history: None,
            idempotency_key: None,
            key: None,
            metadata: Vec::new(),
        };
        let rich = Publish {
            topic: topic("room"),
            message: Message::Binary(vec![0, 255].into()),
            exclude: vec![session],
            history: Some((0, 1000)),
            idempotency_key: Some("once".into()),
            key: Some("k".into()),
            metadata: vec![("trace".into(), "7".into())],
        };
        let list = vec![
            Effect::Send(Message::Text("hi".into()), 0),
            Effect::SetUser(Some("ann".into())),
            Effect::SetUser(None),
            Effect::SetAttribute("role".into(), Some("host".into())),
            Effect::SetAttribute("role".into(), None),
            Effect::SetExpiry(Some(5)),
            Effect::Subscribe(Subscribe { topic: topic("room"), presence: None, since: None }),
            Effect::Subscribe(Subscribe {
                topic: topic("room"),
                presence: Some("".into()),
                since: Some(Position { epoch: 1, offset: 2 }),
            }),
            Effect::Unsubscribe(topic("room")),
            Effect::Close(Close::new(1000, "bye")),
            Effect::SetTimer { plugin: "p".into(), name: "tick".into(), after: 5 },
            Effect::CancelTimer { plugin: "p".into(), name: "tick".into() },
            Effect::LimitSessions(1, Keep::Newest),
            Effect::LimitSessions(100, Keep::Oldest),
            Effect::Publish(Box::new(plain)),
            Effect::Publish(Box::new(rich)),
            Effect::Forward(Box::new(Forward::plain("orders".into(), Message::Text("hi".into())))),
            Effect::Forward(Box::new(Forward {
                reply_to: Some(("p".into(), "t".into())),
                headers: vec![("x-a".into(), "1".into())],
                timeout: Some(5),
                ..Forward::plain("orders".into(), Message::Text("hi".into()))
            })),
            Effect::ToUser("ann".into(), Remote::Send(Message::Text("hi".into()))),
            Effect::ToUser("ann".into(), Remote::Subscribe(topic("room"))),
            Effect::ToSession(session, Remote::Unsubscribe(topic("room"))),
            Effect::ToSession(session, Remote::Close(Close::new(4000, "out"))),
        ];
        let response = Response {
            subprotocol: Some("v1".into()),
            headers: vec![("x-a".into(), "1".into())],
            body: Some(("text/plain".into(), b"no".to_vec())),
        };
        let if_refused = vec![(Message::Text("sorry".into()), 0)];
        let id = "0000000000000001-0000000000000002";
        let expected = json!([
            { "select-subprotocol": "v1" },
            { "add-header": "x-a", "value": "1" },
            { "set-body": "no", "content-type": "text/plain" },
            { "send": "hi" },
            { "set-user": "ann" },
            { "set-user": null },
            { "set-attribute": "role", "value": "host" },
            { "set-attribute": "role", "value": null },
            { "set-expiry": 5 },
            { "subscribe": "room" },
            { "subscribe": "room", "presence": "", "since": { "epoch": 1, "offset": 2 } },
            { "unsubscribe": "room" },
            { "close": 1000, "reason": "bye" },
            { "set-timer": "tick", "after": 5 },
            { "cancel-timer": "tick" },
            { "limit-sessions": 1, "keep": "newest" },
            { "limit-sessions": 100, "keep": "oldest" },
            { "publish": "room", "message": "hi" },
            {
                "publish": "room",
                "message": { "base64": "AP8=" },
                "exclude": [id],
                "history": { "size": 0, "ttl": 1000 },
                "idempotency-key": "once",
                "key": "k",
                "metadata": { "trace": "7" },
            },
            { "forward": "orders", "message": "hi" },
            { "request": "orders", "tag": "t", "message": "hi", "headers": { "x-a": "1" }, "timeout": 5 },
            { "send-to-user": "ann", "message": "hi" },
            { "subscribe-user": "ann", "topic": "room" },
            { "unsubscribe-session": id, "topic": "room" },
            { "disconnect-session": id, "code": 4000, "reason": "out" },
            { "send-if-refused": "sorry" },
        ]);
        assert_eq!(Value::from(effects(&Effects { list, if_refused, response })), expected);
    }

    #[test]
    fn answers_and_calls_say_what_matters() {
        assert_eq!(answer(&Answer::Decision(Decision::Admit(None))), json!({ "admit": null }));
        assert_eq!(answer(&Answer::Verdict(Verdict::Replace(Message::Text("x".into())))), json!({ "replace": "x" }));
        let closed = Call::Closed { session: 7, code: 1006, reason: "".into(), by: Closer::Network };
        assert_eq!(call(&closed), json!({ "code": 1006, "reason": "", "by": "network" }));
        assert_eq!(reply(&Err(ReplyFailure::TooLarge)), json!({ "failure": "too-large" }));
    }
}
