//! Host calls with any pointers, lengths and values, from a real instance: a call ends with an answer, an error, a trap
//! or a quota, and what it asked for stays within the plugin's limits.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use bytes::Bytes;
use thin_vec::{ThinVec, thin_vec};
use tokio::runtime::Runtime;

use super::input::Input;
use super::promises;
use super::script::Author;
use crate::apply::Applier;
use crate::config::Config;
use crate::message::{Closer, Message, MessageRef, Position, Publication, SessionId, TopicName};
use crate::plugin::inside::SubscriptionEvent;
use crate::plugin::inside::{Answer, Call, Code, Content, Context, Instance, Template, Verdict, Why, encoded};
use crate::plugin::{Effect, Event, Hook, Patience, Publish};
use crate::route::{Route, Rules};
use crate::source::{Clock, Random};
use crate::state::{Handshake, SessionState};
use crate::upstream::{Reply, ReplyFailure};

/// Small limits, so that they are reached.
const CONFIG: &str = r#"
history_memory = "1MiB"
kv_memory = "1MiB"

[[route]]
name = "fuzzed"
path = "/room/{room}"
plugins = ["guest"]
keep_headers = ["x-tenant"]
limits = { topics = 8 }

[[topic]]
pattern = "room:*"
history = { size = 5, ttl = "1h" }
presence = true

[[upstream]]
name = "shop"
url = "http://127.0.0.1:1/"

[plugin.guest.limits]
memory = "1 MiB"
cpu = "10ms"
effects = 12
output = "4 KiB"
host_calls = 40

[plugin.guest.grants]
publish = ["room:*"]
subscribe = ["room:*"]
users = true
sessions = true
kv = ["k:"]
upstreams = ["shop", "other"]
headers = ["x-tenant", "cookie"]

[plugin.guest.config]
token = "abc"
nested = { key = [1, 2, 3] }
"#;

/// How a plugin is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path {
    /// A core module with nothing around it.
    Direct,
    /// The same module by way of a component.
    Component,
    /// A component that imports what may wait.
    Waits,
}

/// A plugin that does what an input says.
pub struct Boundary {
    runtime: Runtime,
    template: Template,
    context: Arc<Context>,
    route: Arc<Route>,
    applier: Arc<Applier>,
    author: Author,
    instance: Option<Instance>,
    /// How calls have ended.
    seen: BTreeMap<&'static str, u64>,
    effects: u64,
}

impl Boundary {
    /// Of the module that `guest` describes: `Path::Waits` is for the one that imports what may wait.
    pub fn new(module: &[u8], path: Path) -> Self {
        let config: Config = toml::from_str(CONFIG).unwrap();
        let plugin = &config.plugins["guest"];
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let node = {
            let _entered = runtime.enter();
            // What a call hears is the same on every path.
            crate::node(&config, Clock::by_hand(1_700_000_000_000), Random::seeded(1), None).unwrap()
        };
        let metrics = node.metrics.clone();
        let engine = crate::plugin::engine(crate::plugin::Room::of(&Default::default())).unwrap();
        let mut encoded = encoded(module).unwrap();
        assert_eq!(encoded.is_direct, path != Path::Waits);
        encoded.is_direct = path == Path::Direct;
        let (template, _) = Template::new(&engine, &Code::new(&engine, module, &encoded).unwrap()).unwrap();
        let http_requests = Arc::new(tokio::sync::Semaphore::new(1));
        let context = Arc::new(Context { http_requests, ..Context::new("guest", 1, plugin, node.clone()) });
        let author = Author::new(template.waits);
        Self {
            runtime,
            template,
            context,
            route: Arc::new(Route::new("fuzzed", Rules::new(&config.routes[0]), &metrics)),
            applier: Applier::new(node),
            author,
            instance: None,
            seen: BTreeMap::new(),
            effects: 0,
        }
    }

    /// How calls have ended so far.
    pub fn seen(&self) -> &BTreeMap<&'static str, u64> {
        &self.seen
    }

    /// How many effects were asked for by calls that have answered well.
    pub fn effects(&self) -> u64 {
        self.effects
    }

    /// One call of a hook, whose script the input decides. Returns what has come of it, and why nothing has.
    pub fn run(&mut self, input: &[u8]) -> (String, String) {
        let mut input = Input::new(input);
        // A bare module has no hook of WASI's, and this one no `init`.
        let hooks: Vec<_> = Hook::ALL.into_iter().filter(|hook| !matches!(hook, Hook::Init | Hook::Http)).collect();
        let hook = input.pick(&hooks);
        let session = SessionId { node: 7, number: input.pick(&[1, u64::MAX]) };
        let script = self.author.script(&mut input, hook, session.number);
        let mut instance = self.loaded(&script);
        let call = call_of(hook, session.number, &mut input);
        let mut event = Some(Box::new(self.event(hook, session)));
        let answer = if hook == Hook::Batch {
            let messages = [MessageRef::Text("\u{2603}"), MessageRef::Binary(b""), MessageRef::Text("a")];
            let messages = &messages[..input.pick(&[1, 2, 3])];
            let verdicts = instance.batch_now(session.number, messages, &mut event);
            verdicts.map(|verdicts| {
                assert_eq!(verdicts.len(), messages.len());
                Answer::Verdict(verdicts.into_iter().next_back().unwrap_or(Verdict::Next))
            })
        } else {
            self.runtime.block_on(instance.call(&call, &mut event))
        };

        let event = event.expect("the event is back in its place");
        assert_eq!(event.session.as_ref().map(|state| state.id), of_session(hook).then_some(session));
        promises::check(hook, &event, &self.context.limits);
        let how = match &answer {
            Ok(answer) => {
                promises::check_answer(hook, answer, &self.context.limits);
                self.effects += event.effects.list.len() as u64;
                self.apply(&event);
                "ok"
            }
            Err(
                why @ (Why::Error(_)
                | Why::Trap(_)
                | Why::Cpu(_)
                | Why::Memory(_)
                | Why::Tables(_)
                | Why::Stack(_)
                | Why::Quota(_)),
            ) => why.label(),
            Err(why) => panic!("`{}` ended with {why:?}", hook.name()),
        };
        assert!(
            answer.is_ok() || !matches!(&answer, Err(why) if why.to_string().is_empty()),
            "a failure without words"
        );
        *self.seen.entry(how).or_default() += 1;
        let outcome = match &answer {
            Ok(answer) => format!("{}: {answer:?}, {:?}", hook.name(), event.effects),
            Err(why) => format!("{}: {}", hook.name(), why.label()),
        };
        if instance.is_good() {
            assert!(matches!(how, "ok" | "error"), "an instance is used after `{how}`");
            self.instance = Some(instance);
        }
        (outcome, answer.err().map(|why| why.to_string()).unwrap_or_default())
    }

    /// An instance that has the script: the last one, or a new one where that has become one that takes none.
    fn loaded(&mut self, script: &[u8]) -> Instance {
        let message = [&[255], script].concat();
        loop {
            let (mut instance, fresh) = match self.instance.take() {
                Some(instance) => (instance, false),
                None => (self.runtime.block_on(Instance::new(&self.template, &self.context)).unwrap(), true),
            };
            let session = SessionId { node: 7, number: 1 };
            let mut event = Some(Box::new(self.event(Hook::Inbound, session)));
            let call = Call::Inbound { session: 1, message: Content::Borrowed(MessageRef::Binary(&message)) };
            match self.runtime.block_on(instance.call(&call, &mut event)) {
                Ok(_) if instance.is_good() => return instance,
                Ok(_) => {}
                Err(why) => assert!(!fresh, "a new instance did not take its script: {why}"),
            }
        }
    }

    fn event(&self, hook: Hook, session: SessionId) -> Event {
        let mut event = Event::default();
        if of_session(hook) {
            event.session = Some(Box::new(self.state(session)));
        }
        if matches!(hook, Hook::Publication | Hook::Broadcast | Hook::Outbound) {
            event.publications.push(Arc::new(Publication {
                topic: TopicName::parse("room:blue").unwrap(),
                message: Message::Text("hello".into()),
                position: Some(Position { epoch: 3, offset: 9 }),
                time: 1_700_000_000_000,
                key: Some("k".into()),
                metadata: vec![("a".into(), "b".into())],
                exclude: Vec::new(),
            }));
        }
        event.patience = Patience::Waits;
        event
    }

    fn state(&self, id: SessionId) -> SessionState {
        let pair = |name: &str, value: &str| (Box::from(name), Box::from(value));
        let headers = vec![
            pair("x-tenant", "blue"),
            pair("cookie", "token=abc; a=b"),
            pair("sec-websocket-protocol", "chat, bearer"),
        ];
        let peer = IpAddr::V4(Ipv4Addr::LOCALHOST);
        SessionState {
            id,
            route: self.route.clone(),
            transport: "websocket",
            user: Some("ada".into()),
            subprotocol: None,
            attributes: thin_vec![pair("a", "1"), pair("role", "guest")],
            handshake: Handshake::new("/room/blue?token=%C3%A4%20b&a", peer, headers, vec![pair("a", "blue")]),
            subscriptions: ThinVec::new(),
            timers: ThinVec::new(),
            expiry: None,
            counted: None,
        }
    }

    /// What reaches beyond the session is done, so that the next calls find it.
    fn apply(&self, event: &Event) {
        let node = &self.applier.node;
        for effect in &event.effects.list {
            match effect {
                Effect::Publish(publish) => {
                    let publish = Publish {
                        topic: publish.topic.clone(),
                        message: publish.message.clone(),
                        exclude: publish.exclude.clone(),
                        history: publish.history,
                        idempotency_key: publish.idempotency_key.clone(),
                        key: publish.key.clone(),
                        metadata: publish.metadata.clone(),
                    };
                    // Refused where there is no room: an answer as well.
                    let _ = self.runtime.block_on(self.applier.publish(publish, Patience::Waits, Default::default()));
                }
                Effect::ToUser(user, remote) => {
                    let _ = self.runtime.block_on(self.applier.to_user(user, remote, Default::default()));
                }
                Effect::ToSession(session, remote) => {
                    let _ = self.runtime.block_on(self.applier.to_session(*session, remote, Default::default()));
                }
                Effect::Subscribe(subscribe) => {
                    let _ = node.hub.history_here(&subscribe.topic, subscribe.since, usize::MAX);
                }
                _ => {}
            }
        }
    }
}

/// Whether a hook is called for a session.
pub fn of_session(hook: Hook) -> bool {
    !matches!(hook, Hook::Init | Hook::Publication | Hook::Broadcast | Hook::Presence | Hook::Http)
}

fn call_of(hook: Hook, session: u64, input: &mut Input<'_>) -> Call<'static> {
    let text = input.pick(&["", "a", "room:blue", "\u{2603}"]);
    let message = || Content::Owned(Message::Text(text.into()));
    match hook {
        // A bare module exports no hook of WASI's.
        // `batch` is called in another way.
        Hook::Init | Hook::Http | Hook::Batch => Call::Init,
        Hook::Authenticate => Call::Authenticate { session },
        Hook::Opened => Call::Opened { session },
        Hook::Closed => Call::Closed { session, code: input.u16(), reason: text.into(), by: Closer::Network },
        Hook::Inbound => Call::Inbound { session, message: message() },
        Hook::Publication => Call::Publication { topic: text.into(), message: message() },
        Hook::Broadcast => Call::Broadcast { topic: text.into(), message: message() },
        Hook::Outbound => {
            let publication = input.often(128).then_some(1);
            Call::Outbound { session, publication, message: Content::Owned(Message::Binary(Bytes::from_static(b"x"))) }
        }
        Hook::Subscription => Call::Subscription {
            session,
            topic: text.into(),
            event: input.pick(&[
                SubscriptionEvent::Subscribed,
                SubscriptionEvent::Recovered,
                SubscriptionEvent::Gap,
                SubscriptionEvent::Added,
                SubscriptionEvent::Removed,
            ]),
            position: input.often(128).then_some(Position { epoch: u64::MAX, offset: 0 }),
        },
        Hook::Timer => Call::Timer { session, name: text.into() },
        Hook::Reply => {
            let reply: Reply = match input.often(128) {
                true => Ok((input.u16(), Message::Text(text.into()))),
                false => Err(input.pick(&[
                    ReplyFailure::Unavailable,
                    ReplyFailure::Timeout,
                    ReplyFailure::TooLarge,
                    ReplyFailure::Broken,
                ])),
            };
            Call::Reply { session, tag: text.into(), reply: std::borrow::Cow::Owned(reply) }
        }
        Hook::Presence => Call::Presence {
            topic: text.into(),
            joined: input.often(128),
            session_id: text.into(),
            user: input.often(128).then(|| text.into()),
            info: text.into(),
            sessions_of_user: input.u32(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::super::guest::{PAIRS, STRINGS, Special, guest};
    use super::*;
    use crate::plugin::inside::Answer;

    /// A list whose elements all are the same large text: the host copies no more than the plugin may have.
    #[test]
    fn what_is_shown_many_times_is_not_copied_as_often() {
        let mut boundary = Boundary::new(&wat::parse_str(guest(false)).unwrap(), Path::Direct);
        let write = boundary.author.functions.iter().position(|function| function.name == "write-fields").unwrap();
        let poke = boundary.author.functions.len() + 1;
        assert_eq!(Special::ALL[1], Special::Poke);
        let mut wrote = |pairs: u32| {
            let mut script = Vec::new();
            for text in 0..2 * pairs {
                script.extend((poke as u16).to_le_bytes());
                // 40,000 zeros, wherever they are looked for.
                [PAIRS + 8 * text, 24_576, 40_000].iter().for_each(|number| script.extend(number.to_le_bytes()));
            }
            script.extend((write as u16).to_le_bytes());
            // Of level `error`: an empty message, and the list.
            [4, STRINGS, 0, PAIRS, pairs].iter().for_each(|number| script.extend(number.to_le_bytes()));
            let mut instance = boundary.loaded(&script);
            let mut event = Some(Box::new(boundary.event(Hook::Opened, SessionId { node: 7, number: 1 })));
            boundary.runtime.block_on(instance.call(&Call::Opened { session: 1 }, &mut event))
        };
        assert_eq!(wrote(10).unwrap(), Answer::Done);
        let why = wrote(20).unwrap_err();
        assert!(matches!(&why, Why::Trap(text) if text.contains("(`memory`)")), "{why}");
    }
}
