//! What a plugin can call: one file for each interface, all of the same shape, on the state of one instance.

mod asked;
mod clock;
mod config;
mod handshake;
mod history;
pub mod http;
mod kv;
mod log;
mod metrics;
mod presence;
mod publication;
mod random;
mod session;
mod sessions;
mod topics;
mod upstream;
mod users;
mod wasi;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use wasmtime::component::{HasSelf, Linker, ResourceTable};
use wasmtime::{Error, Result};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};

use super::budget::Budget;
use super::direct::Parts;
use super::effects::{Effect, Forward, Publish, Remote, Subscribe};
use super::event::{Event, Hook};
use super::grants::Granted;
use super::memory::Memory;
use super::wit::tidegate::plugin as wit;
use super::wit::tidegate::plugin::types::{Message as WitMessage, Refusal};
use crate::config::{Config, Grants, PluginConfig, PluginLimits};
use crate::message::{Close, Message, Pattern, TopicName};
use crate::node::Node;
use crate::state::SessionState;
use crate::tap::Note;

/// Resources of an instance (streams, headers, requests): at a time, and from one call to the next.
const RESOURCES: usize = 512;
const RESOURCES_KEPT: usize = 128;

/// What all instances of a generation share.
pub struct Context {
    pub name: Arc<str>,
    pub generation: u64,
    pub limits: PluginLimits,
    pub granted: Granted,
    /// The plugin's own table of the configuration.
    pub config: serde_json::Value,
    /// Texts in it that recordings do not show.
    pub secrets: Vec<String>,
    /// The grants as they were written, for recordings.
    pub grants: Grants,
    pub node: Arc<Node>,
    /// When each missing grant was last told of.
    pub denials: Mutex<HashMap<&'static str, Instant>>,
    /// Its effects are thrown away, so nothing that it does may be seen by others.
    pub shadow: bool,
    /// How many more requests to other servers may be under way.
    pub http_requests: Arc<Semaphore>,
}

impl Context {
    pub fn new(name: &str, generation: u64, settings: &PluginConfig, node: Arc<Node>) -> Self {
        let http_requests = settings.limits.http_requests.min(Semaphore::MAX_PERMITS);
        Self {
            name: name.into(),
            generation,
            limits: settings.limits,
            granted: Granted::new(&settings.grants),
            config: Config::plugin_json(settings),
            secrets: settings.secrets.clone(),
            grants: settings.grants.clone(),
            node,
            denials: Mutex::default(),
            shadow: false,
            http_requests: Arc::new(Semaphore::new(http_requests)),
        }
    }

    /// What metrics call it: a shadow's calls are not the plugin's.
    pub fn label(&self) -> String {
        if self.shadow { format!("{}.shadow", self.name) } else { self.name.to_string() }
    }
}

/// The data of one instance's store.
pub struct State {
    pub context: Arc<Context>,
    /// The event of the call under way.
    pub event: Option<Box<Event>>,
    pub hook: Hook,
    pub budget: Budget,
    pub memory: Memory,
    /// Where the guest of a direct call has its memory.
    pub parts: Option<Parts>,
    /// The guest makes room or frees it for the gateway, and may not call it meanwhile (the canonical ABI's `may_leave`).
    pub alone: bool,
    /// Messages that were sent just now.
    arena: BytesMut,
    /// What this call has used up so far.
    used: Used,
    http: http::Http,
    wasi: WasiCtx,
    speaker: Arc<wasi::Speaker>,
    table: ResourceTable,
}

#[derive(Default)]
struct Used {
    host_calls: u32,
    effects: usize,
    bytes: usize,
    /// The effects before this place are of other plugins.
    first_effect: usize,
}

/// A quota that a call went over; becomes a trap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Quota {
    #[error("host calls (`host_calls`)")]
    HostCalls,
    #[error("effects (`effects`)")]
    Effects,
    #[error("bytes (`output`)")]
    Output,
    /// One that no configuration changes.
    #[error("{0}")]
    Fixed(&'static str),
}

impl Quota {
    /// The metric's label: the limit's name.
    pub fn label(self) -> &'static str {
        match self {
            Self::HostCalls => "host_calls",
            Self::Effects => "effects",
            Self::Output => "output",
            Self::Fixed(_) => "quota",
        }
    }
}

impl State {
    pub fn new(context: Arc<Context>) -> Self {
        let limits = context.limits;
        let speaker = Arc::default();
        let mut table = ResourceTable::new();
        table.set_max_capacity(RESOURCES);
        Self {
            event: None,
            hook: Hook::Init,
            budget: Budget::new(limits.cpu.0),
            memory: Memory::new(&limits),
            parts: None,
            alone: false,
            arena: BytesMut::new(),
            used: Used::default(),
            wasi: wasi::context(&context, &speaker),
            speaker,
            context,
            http: http::Http::default(),
            table,
        }
    }

    /// Gets ready for a call.
    pub fn begin(&mut self, hook: Hook, event: Option<Box<Event>>) {
        self.hook = hook;
        self.speaker.begin(hook, event.as_ref().and_then(|event| event.script.as_ref()));
        self.budget.begin();
        self.memory.refused = None;
        self.used = Used::default();
        self.http.begin();
        self.used.first_effect = event.as_ref().map_or(0, |event| event.effects.list.len());
        self.event = event;
    }

    /// Every host function begins here.
    fn enter(&mut self) -> Result<()> {
        self.used.host_calls += 1;
        if self.alone {
            return Err(mistake("it calls the gateway while it makes room or frees it".to_owned()));
        }
        if self.used.host_calls > self.context.limits.host_calls.max(1) {
            return Err(Error::new(Quota::HostCalls));
        }
        Ok(())
    }

    fn event(&mut self) -> Result<&mut Event> {
        let hook = self.hook;
        self.event.as_deref_mut().ok_or_else(|| mistake(format!("there is no event in `{}`", hook.name())))
    }

    /// The session that the handle stands for: only that of this event is good.
    fn session(&mut self, handle: u64) -> Result<&mut SessionState> {
        self.enter()?;
        let session = self.event.as_deref_mut().and_then(|event| event.session.as_deref_mut());
        session
            .filter(|session| session.id.number == handle)
            .ok_or_else(|| mistake(format!("{handle} is not the session of this call")))
    }

    /// Adds an effect and returns its place.
    fn act(&mut self, effect: Effect, bytes: usize) -> Result<u32> {
        if !self.hook.may_act() {
            return Err(mistake(format!("`{}` may not ask for effects", self.hook.name())));
        }
        if self.hook == Hook::Outbound && !effect.is_local() {
            return Err(mistake("`outbound` may change what is known of its session, and no more".to_owned()));
        }
        self.charge(1, bytes)?;
        let list = &mut self.event()?.effects.list;
        list.push(effect);
        Ok(list.len() as u32 - 1)
    }

    fn charge(&mut self, effects: usize, bytes: usize) -> Result<()> {
        self.used.effects += effects;
        self.used.bytes += bytes;
        if self.used.effects > self.context.limits.effects {
            return Err(Error::new(Quota::Effects));
        }
        if self.used.bytes > self.context.limits.output.0 {
            return Err(Error::new(Quota::Output));
        }
        Ok(())
    }

    /// An effect of this call, for its options.
    fn effect(&mut self, effect: u32) -> Result<&mut Effect> {
        self.enter()?;
        let first = self.used.first_effect;
        let place = effect as usize;
        let found = self.event()?.effects.list.get_mut(place).filter(|_| place >= first);
        found.ok_or_else(|| mistake(format!("{effect} is not an effect of this call")))
    }

    fn publish_effect(&mut self, effect: u32) -> Result<&mut Publish> {
        match self.effect(effect)? {
            Effect::Publish(publish) => Ok(publish),
            _ => Err(mistake(format!("effect {effect} is not a `publish`"))),
        }
    }

    fn forward_effect(&mut self, effect: u32) -> Result<&mut Forward> {
        match self.effect(effect)? {
            Effect::Forward(forward) => Ok(forward),
            _ => Err(mistake(format!("effect {effect} is not a `forward` or `request`"))),
        }
    }

    fn subscribe_effect(&mut self, effect: u32) -> Result<&mut Subscribe> {
        match self.effect(effect)? {
            Effect::Subscribe(subscribe) => Ok(subscribe),
            _ => Err(mistake(format!("effect {effect} is not a `subscribe`"))),
        }
    }

    /// Whether the plugin may use a topic; None: it may not, and that is on record.
    fn granted_topic(&mut self, patterns: GrantedTopics, topic: &str) -> Option<()> {
        let (granted, grant) = match patterns {
            GrantedTopics::Publish => (&self.context.granted.publish, "publish"),
            GrantedTopics::Subscribe => (&self.context.granted.subscribe, "subscribe"),
        };
        if granted.iter().any(|pattern: &Pattern| pattern.matches(topic)) {
            return Some(());
        }
        self.denied(grant, topic);
        None
    }

    fn granted_flag(&mut self, granted: bool, grant: &'static str, what: &str) -> Option<()> {
        if !granted {
            self.denied(grant, what);
        }
        granted.then_some(())
    }

    /// Names the missing grant in the log and counts it.
    fn denied(&self, grant: &'static str, what: &str) {
        let plugin = &*self.context.name;
        self.context.node.metrics.denied.with_label_values(&[plugin, grant]).inc();
        if let Some(tap) = &self.context.node.tap {
            tap.note(Note::Denied { plugin: plugin.to_owned(), grant, what: what.to_owned() });
        }
        // A line a second says it all.
        let now = Instant::now();
        let told = self.context.denials.lock().insert(grant, now);
        if told.is_some_and(|told| now - told < Duration::from_secs(1)) {
            self.context.denials.lock().extend(told.map(|told| (grant, told)));
            return;
        }
        tracing::warn!(
            plugin,
            grant,
            what,
            hook = self.hook.name(),
            "denied: no grant; allow it in [plugin.{plugin}.grants] if the plugin should"
        );
    }

    /// Whether the instance has kept so many resources that a new one is better.
    pub fn is_crowded(&mut self) -> bool {
        self.table.iter_mut().count() > RESOURCES_KEPT
    }

    /// Memory that the instance has now, in bytes.
    pub fn memory_bytes(&self) -> usize {
        self.memory.bytes()
    }
}

/// Which of a plugin's topic grants is meant.
#[derive(Clone, Copy)]
enum GrantedTopics {
    Publish,
    Subscribe,
}

/// A plugin's bug, which traps.
fn mistake(what: String) -> Error {
    Error::msg(what)
}

fn topic_name(topic: &str) -> Result<TopicName, Refusal> {
    TopicName::parse(topic).ok_or(Refusal::Invalid)
}

fn close_of(code: u16, reason: &str) -> Result<Close> {
    if !Close::may_send(code) {
        return Err(mistake(format!("{code} is not a close code that may be sent")));
    }
    Ok(Close::new(code, reason))
}

fn payload_len(message: &WitMessage) -> usize {
    match message {
        WitMessage::Text(text) => text.len(),
        WitMessage::Binary(bytes) => bytes.len(),
    }
}

impl From<WitMessage> for Message {
    fn from(message: WitMessage) -> Self {
        match message {
            WitMessage::Text(text) => Self::Text(text.into()),
            WitMessage::Binary(bytes) => Self::Binary(bytes.into()),
        }
    }
}

pub fn wit_message(message: &Message) -> WitMessage {
    match message {
        Message::Text(text) => WitMessage::Text(text.as_str().to_owned()),
        Message::Binary(bytes) => WitMessage::Binary(bytes.to_vec()),
    }
}

impl State {
    /// `users` and `sessions` share what they do; only whom they do it to differs.
    fn act_remotely(&mut self, whom: impl FnOnce(Remote) -> Effect, remote: Remote) -> Result<Result<u32, Refusal>> {
        let bytes = match &remote {
            Remote::Send(message) => message.len(),
            _ => 0,
        };
        if let Remote::Subscribe(topic) = &remote {
            let topic = topic.clone();
            if self.granted_topic(GrantedTopics::Subscribe, topic.as_str()).is_none() {
                return Ok(Err(Refusal::Denied));
            }
        }
        self.act(whom(remote), bytes).map(Ok)
    }
}

impl wit::types::Host for State {}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

/// What never waits: all that a plugin on the synchronous path may import.
pub fn link(linker: &mut Linker<State>) -> Result<()> {
    wit::types::add_to_linker::<_, HasSelf<_>>(linker, |state| state)?;
    wit::handshake::add_to_linker::<_, HasSelf<_>>(linker, |state| state)?;
    wit::session::add_to_linker::<_, HasSelf<_>>(linker, |state| state)?;
    wit::topics::add_to_linker::<_, HasSelf<_>>(linker, |state| state)?;
    wit::publication::add_to_linker::<_, HasSelf<_>>(linker, |state| state)?;
    wit::users::add_to_linker::<_, HasSelf<_>>(linker, |state| state)?;
    wit::sessions::add_to_linker::<_, HasSelf<_>>(linker, |state| state)?;
    wit::upstream::add_to_linker::<_, HasSelf<_>>(linker, |state| state)?;
    wit::log::add_to_linker::<_, HasSelf<_>>(linker, |state| state)?;
    wit::metrics::add_to_linker::<_, HasSelf<_>>(linker, |state| state)?;
    wit::config::add_to_linker::<_, HasSelf<_>>(linker, |state| state)?;
    wit::clock::add_to_linker::<_, HasSelf<_>>(linker, |state| state)?;
    wit::random::add_to_linker::<_, HasSelf<_>>(linker, |state| state)
}

/// What waits for a store, and WASI, whose clocks and streams may wait.
pub fn link_waiting(linker: &mut Linker<State>) -> Result<()> {
    wit::history::add_to_linker::<_, HasSelf<_>>(linker, |state| state)?;
    wit::presence::add_to_linker::<_, HasSelf<_>>(linker, |state| state)?;
    wit::kv::add_to_linker::<_, HasSelf<_>>(linker, |state| state)?;
    http::link(linker)?;
    wasmtime_wasi::p2::add_to_linker_async(linker)
}

/// Whether an import makes a plugin one that waits.
pub fn waits(import: &str) -> bool {
    let interface = import.split('@').next().unwrap_or(import);
    interface.starts_with("wasi:")
        || matches!(interface, "tidegate:plugin/history" | "tidegate:plugin/presence" | "tidegate:plugin/kv")
}
