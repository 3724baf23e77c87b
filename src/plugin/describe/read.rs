//! The way back: calls and publications from their descriptions, so that what was recorded can be done again.

use std::borrow::Cow;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use hyper::header::{HeaderName, HeaderValue};
use hyper::{HeaderMap, Method};
use serde_json::Value;

use crate::message::{Closer, Message, Position, Publication, TopicName};
use crate::plugin::call::{Call, Content, HttpRequest, SubscriptionEvent};
use crate::plugin::event::Hook;
use crate::upstream::{Reply, ReplyFailure};

/// A part of a description; the error names what is wrong with it.
#[derive(Clone, Copy)]
struct Part<'a>(&'a Value);

type Read<T> = Result<T, String>;

impl<'a> Part<'a> {
    fn get(self, key: &str) -> Option<Self> {
        self.0.get(key).filter(|value| !value.is_null()).map(Part)
    }

    fn text(self, key: &str) -> Read<&'a str> {
        self.0.get(key).and_then(Value::as_str).ok_or_else(|| format!("`{key}` is no text"))
    }

    fn number<T: TryFrom<u64>>(self, key: &str) -> Read<T> {
        let number = self.0.get(key).and_then(Value::as_u64).and_then(|number| T::try_from(number).ok());
        number.ok_or_else(|| format!("`{key}` is no number that fits"))
    }

    fn owned(self, key: &str) -> Read<Cow<'static, str>> {
        self.text(key).map(|text| Cow::Owned(text.to_owned()))
    }

    fn message(self, key: &str) -> Read<Message> {
        self.0.get(key).and_then(read_message).ok_or_else(|| format!("`{key}` is no message"))
    }

    fn content(self) -> Read<Content<'static>> {
        self.message("message").map(Content::Owned)
    }

    fn position(self, key: &str) -> Read<Option<Position>> {
        let Some(part) = self.get(key) else { return Ok(None) };
        read_position(part.0).map(Some).ok_or_else(|| format!("`{key}` is no position"))
    }
}

/// Text as it is, binary from `{"base64": …}`. None: it is neither.
pub fn read_message(value: &Value) -> Option<Message> {
    match value {
        Value::String(text) => Some(Message::Text(text.as_str().into())),
        value => Some(Message::Binary(STANDARD.decode(value.get("base64")?.as_str()?).ok()?.into())),
    }
}

/// A publication, as `describe::publication` has it.
pub fn read_publication(value: &Value) -> Read<Publication> {
    let part = Part(value);
    let topic = part.text("topic")?;
    let metadata = part.get("metadata").and_then(|metadata| metadata.0.as_object());
    let pair = |(name, value): (&String, &Value)| Some((name.as_str().into(), value.as_str()?.into()));
    Ok(Publication {
        topic: TopicName::parse(topic).ok_or_else(|| format!("{topic:?} is no topic's name"))?,
        message: part.message("message")?,
        position: part.position("position")?,
        time: part.number("time")?,
        key: part.get("key").and_then(|key| key.0.as_str()).map(Into::into),
        metadata: metadata.into_iter().flatten().filter_map(pair).collect(),
        exclude: Vec::new(),
    })
}

/// A call of a hook, as `describe::call` has it. Publications it finds at the beginning of the event's list.
pub fn read_call(hook: Hook, given: &Value, session: u64) -> Read<Call<'static>> {
    let part = Part(given);
    Ok(match hook {
        Hook::Init => Call::Init,
        Hook::Authenticate => Call::Authenticate { session },
        Hook::Opened => Call::Opened { session },
        Hook::Closed => Call::Closed {
            session,
            code: part.number("code")?,
            reason: part.owned("reason")?,
            by: closer(part.text("by")?)?,
        },
        Hook::Inbound => Call::Inbound { session, message: part.content()? },
        Hook::Batch => return Err("messages are recorded one by one".to_owned()),
        Hook::Publication => Call::Publication { topic: part.owned("topic")?, message: part.content()? },
        Hook::Broadcast => Call::Broadcast { topic: part.owned("topic")?, message: part.content()? },
        Hook::Outbound => {
            let publication = part.get("publication").and_then(|there| there.0.as_bool()).unwrap_or(false);
            Call::Outbound { session, publication: publication.then_some(1), message: part.content()? }
        }
        Hook::Subscription => Call::Subscription {
            session,
            topic: part.owned("topic")?,
            event: subscription(part.text("event")?)?,
            position: part.position("position")?,
        },
        Hook::Timer => Call::Timer { session, name: part.owned("name")? },
        Hook::Reply => Call::Reply {
            session,
            tag: part.owned("tag")?,
            reply: Cow::Owned(reply(part.get("reply").ok_or("there is no `reply`")?)?),
        },
        Hook::Presence => Call::Presence {
            topic: part.owned("topic")?,
            joined: match part.text("event")? {
                "joined" => true,
                "left" => false,
                other => return Err(format!("{other:?} is no event of `presence`")),
            },
            session_id: part.owned("session-id")?,
            user: part.get("user").and_then(|user| user.0.as_str()).map(|user| Cow::Owned(user.to_owned())),
            info: part.owned("info")?,
            sessions_of_user: part.number("sessions-of-user")?,
        },
        Hook::Http => Call::Http { request: Arc::new(request(part)?) },
    })
}

fn request(part: Part<'_>) -> Read<HttpRequest> {
    let method = part.text("method")?;
    let body = part.message("body")?;
    Ok(HttpRequest {
        method: Method::try_from(method).map_err(|_| format!("{method:?} is no method"))?,
        target: part.text("target")?.into(),
        authority: part.text("authority")?.into(),
        headers: read_headers(part.get("headers").map(|headers| headers.0))?,
        body: body.payload().clone(),
    })
}

/// Headers from pairs; there may be none.
pub fn read_headers(pairs: Option<&Value>) -> Read<HeaderMap> {
    let mut map = HeaderMap::new();
    for pair in pairs.and_then(Value::as_array).into_iter().flatten() {
        let text = |at: usize| pair.get(at).and_then(Value::as_str).unwrap_or_default();
        let name = HeaderName::try_from(text(0)).map_err(|_| format!("{:?} is no header", text(0)))?;
        let value = HeaderValue::from_bytes(text(1).as_bytes());
        map.try_append(name, value.map_err(|_| format!("the header {} has no value that fits", text(0)))?)
            .map_err(|_| "too many headers".to_owned())?;
    }
    Ok(map)
}

fn reply(part: Part<'_>) -> Read<Reply> {
    if let Some(failure) = part.get("failure") {
        return Ok(Err(match failure.0.as_str() {
            Some("unavailable") => ReplyFailure::Unavailable,
            Some("timeout") => ReplyFailure::Timeout,
            Some("too-large") => ReplyFailure::TooLarge,
            Some("broken") => ReplyFailure::Broken,
            _ => return Err("`failure` is none of those that there are".to_owned()),
        }));
    }
    Ok(Ok((part.number("status")?, part.message("body")?)))
}

fn closer(by: &str) -> Read<Closer> {
    Ok(match by {
        "client" => Closer::Client,
        "plugin" => Closer::Plugin,
        "gateway" => Closer::Gateway,
        "network" => Closer::Network,
        other => return Err(format!("{other:?} ends no session")),
    })
}

fn subscription(event: &str) -> Read<SubscriptionEvent> {
    Ok(match event {
        "subscribed" => SubscriptionEvent::Subscribed,
        "recovered" => SubscriptionEvent::Recovered,
        "gap" => SubscriptionEvent::Gap,
        "added" => SubscriptionEvent::Added,
        "removed" => SubscriptionEvent::Removed,
        other => return Err(format!("{other:?} is no event of a subscription")),
    })
}

pub fn read_position(value: &Value) -> Option<Position> {
    let part = Part(value);
    Some(Position { epoch: part.number("epoch").ok()?, offset: part.number("offset").ok()? })
}

/// The bytes of a message, whichever kind it is.
pub fn read_bytes(value: &Value) -> Option<Bytes> {
    read_message(value).map(|message| message.payload().clone())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::plugin::describe;

    #[test]
    fn what_was_described_is_read_again() {
        let text = || Content::Owned(Message::Text("hi".into()));
        let position = Some(Position { epoch: u64::MAX, offset: 3 });
        let mut headers = HeaderMap::new();
        headers.append("x-a", HeaderValue::from_static("1"));
        headers.append("x-a", HeaderValue::from_static("2"));
        let request = HttpRequest {
            method: Method::PUT,
            target: "/a?b".into(),
            authority: "host:1".into(),
            headers,
            body: Bytes::from_static(b"\xff"),
        };
        let calls = [
            Call::Init,
            Call::Authenticate { session: 7 },
            Call::Opened { session: 7 },
            Call::Closed { session: 7, code: 1006, reason: "".into(), by: Closer::Network },
            Call::Inbound { session: 7, message: text() },
            Call::Inbound { session: 7, message: Content::Owned(Message::Binary(Bytes::from_static(b"\x00"))) },
            Call::Publication { topic: "a".into(), message: text() },
            Call::Broadcast { topic: "a".into(), message: text() },
            Call::Outbound { session: 7, publication: Some(1), message: text() },
            Call::Outbound { session: 7, publication: None, message: text() },
            Call::Subscription { session: 7, topic: "a".into(), event: SubscriptionEvent::Gap, position },
            Call::Timer { session: 7, name: "t".into() },
            Call::Reply { session: 7, tag: "t".into(), reply: Cow::Owned(Ok((200, Message::Text("x".into())))) },
            Call::Reply { session: 7, tag: "t".into(), reply: Cow::Owned(Err(ReplyFailure::TooLarge)) },
            Call::Presence {
                topic: "a".into(),
                joined: false,
                session_id: "1".into(),
                user: None,
                info: "".into(),
                sessions_of_user: 0,
            },
            Call::Http { request: Arc::new(request) },
        ];
        for call in calls {
            let described = describe::call(&call);
            let again = read_call(call.hook(), &described, 7).unwrap();
            assert_eq!(format!("{again:?}"), format!("{call:?}"));
        }
        let publication = Publication {
            topic: TopicName::parse("a").unwrap(),
            message: Message::Text("x".into()),
            position,
            time: 5,
            key: Some("k".into()),
            metadata: vec![("m".into(), "1".into())],
            exclude: Vec::new(),
        };
        let again = read_publication(&describe::publication(&publication)).unwrap();
        assert_eq!(format!("{again:?}"), format!("{publication:?}"));
    }

    #[test]
    fn what_is_no_description_is_said_to_be_none() {
        for hook in Hook::ALL.into_iter().filter(|hook| !matches!(hook, Hook::Init | Hook::Authenticate | Hook::Opened))
        {
            for given in [json!({}), json!(null), json!([1]), json!({ "message": 1, "code": -1, "topic": {} })] {
                assert!(read_call(hook, &given, 1).is_err(), "{hook:?} {given}");
            }
        }
        assert!(read_message(&json!({ "base64": "%" })).is_none());
    }
}
