//! A route's plugins in order, and how each kind of event goes through them.
//!
//! An event runs whole on one chain: what is swapped in meanwhile serves the next event. Every function leaves the event
//! in its place; after a failure its effects are for nobody.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;

use super::call::{Answer, Call, Content, Decision, HttpAnswer, HttpRequest, SubscriptionEvent, Verdict};
use super::event::{Event, Hook, Patience};
use super::failure::Failure;
use super::recording::{Recording, Tape};
use super::seat::{Seat, Seated};
use super::warm::Warm;
use crate::config::BatchConfig;
use crate::hub::{Audience, Shaped};
use crate::message::{Close, Closer, Message, MessageRef, Position, Publication};
use crate::presence::Change;
use crate::route::Route;
use crate::upstream::Reply;

/// The generations that serve a route now.
pub struct Chain {
    plugins: Box<[Seat]>,
    /// Which hooks any of them has, by bit.
    hooks: u16,
    /// Messages that were read together may go to the plugin in one call.
    batches: bool,
    /// The route's recording, while there is one.
    tape: Option<Arc<Tape>>,
}

/// A route with its chain, which is replaced while the route serves.
pub struct RouteChain {
    pub route: Arc<Route>,
    pub chain: ArcSwap<Chain>,
    pub recording: Recording,
}

/// What a chain decided on a handshake.
#[derive(Debug, PartialEq, Eq)]
pub enum Admission {
    Admit(Option<Arc<str>>),
    /// With this HTTP status.
    Refuse(u16),
}

/// Where an event of a session is on its way: the handle that plugins know the session by.
type Slot<'a> = &'a mut Option<Box<Event>>;

impl Chain {
    pub fn new(plugins: Vec<Seat>, tape: Option<Arc<Tape>>) -> Self {
        let hooks = Hook::ALL
            .into_iter()
            .filter(|hook| plugins.iter().any(|plugin| plugin.has(*hook)))
            .fold(0, |hooks, hook| hooks | 1 << hook as u16);
        let mut hear = plugins.iter().filter(|plugin| plugin.has(Hook::Inbound));
        let batches = tape.is_none() && matches!((hear.next(), hear.next()), (Some(only), None) if only.batches());
        Self { plugins: plugins.into(), hooks, batches, tape }
    }

    pub fn has(&self, hook: Hook) -> bool {
        self.hooks & (1 << hook as u16) != 0
    }

    /// Whether calls may wait for something; otherwise a call is over when it was polled once.
    pub fn waits(&self) -> bool {
        self.plugins.iter().any(|plugin| plugin.waits())
    }

    /// Whether messages of a session that were read together go by `batch_now`.
    pub fn batches(&self) -> bool {
        // A plugin may have become slow since, and be quick again later.
        self.batches && !self.waits()
    }

    /// How long it is no use to come, because a plugin's breaker is open.
    pub fn bars(&self) -> Option<Duration> {
        self.plugins.iter().filter_map(|seat| seat.breaker.bars()).max()
    }

    /// The plugins whose generation for this session has a hook, with their places.
    fn with(&self, hook: Hook, session: u64) -> impl DoubleEndedIterator<Item = (usize, Seated<'_>)> {
        let seated = self.plugins.iter().map(move |seat| seat.of(session)).enumerate();
        seated.filter(move |(_, plugin)| plugin.generation.has(hook))
    }

    async fn call(&self, plugin: Seated<'_>, place: usize, call: Call<'_>, event: Slot<'_>) -> Result<Answer, Failure> {
        if let Some(event) = event {
            event.place = place as u16;
        }
        match &self.tape {
            // Boxed, so that calls that are not recorded carry no room for it.
            Some(tape) if tape.takes(event) => Box::pin(tape.call(plugin, call, event)).await,
            _ => plugin.call(call, event).await,
        }
    }

    /// Asks who may come in. A chain in which nobody has the hook admits everyone; otherwise one must admit.
    pub async fn authenticate(&self, event: Slot<'_>) -> Result<Admission, Failure> {
        if !self.has(Hook::Authenticate) {
            return Ok(Admission::Admit(None));
        }
        let session = handle(event);
        for (place, plugin) in self.with(Hook::Authenticate, session) {
            match self.call(plugin, place, Call::Authenticate { session }, event).await? {
                Answer::Decision(Decision::Refuse(status @ 300..=599)) => return Ok(Admission::Refuse(status)),
                Answer::Decision(Decision::Refuse(_)) => return Ok(Admission::Refuse(403)),
                Answer::Decision(Decision::Admit(None)) => return Ok(Admission::Admit(None)),
                Answer::Decision(Decision::Admit(Some(user))) if (1..=crate::state::USER_MAX).contains(&user.len()) => {
                    return Ok(Admission::Admit(Some(user)));
                }
                Answer::Decision(Decision::Admit(Some(_))) => return Ok(Admission::Refuse(403)),
                _ => {}
            }
        }
        Ok(Admission::Refuse(401))
    }

    pub async fn opened(&self, event: Slot<'_>) -> Result<(), Failure> {
        let session = handle(event);
        for (place, plugin) in self.with(Hook::Opened, session) {
            self.call(plugin, place, Call::Opened { session }, event).await?;
        }
        Ok(())
    }

    pub async fn closed(&self, event: Slot<'_>, close: &Close, by: Closer) -> Result<(), Failure> {
        let session = handle(event);
        for (place, plugin) in self.with(Hook::Closed, session) {
            let closed = Call::Closed { session, code: close.code, reason: (&*close.reason).into(), by };
            self.call(plugin, place, closed, event).await?;
        }
        Ok(())
    }

    /// What has become of the message behind the last plugin.
    pub async fn inbound(&self, event: Slot<'_>, message: MessageRef<'_>) -> Result<Verdict, Failure> {
        let session = handle(event);
        let mut replaced: Option<Message> = None;
        for (place, plugin) in self.with(Hook::Inbound, session) {
            let message = replaced.as_ref().map_or(Content::Borrowed(message), Content::from);
            match self.call(plugin, place, Call::Inbound { session, message }, event).await? {
                Answer::Verdict(Verdict::Replace(message)) => {
                    replaced = Some(plugin.generation.replacement(Hook::Inbound, message)?);
                }
                Answer::Verdict(Verdict::Stop) => return Ok(Verdict::Stop),
                _ => {}
            }
        }
        Ok(replaced.map_or(Verdict::Next, Verdict::Replace))
    }

    /// The same for the usual case, without a future around it: one plugin has the hook, nothing waits, nobody records or
    /// compares. None: the event has to go the usual way, and nothing has happened. Half of what a small call costs is
    /// saved by it.
    pub fn inbound_now(
        &self,
        event: Slot<'_>,
        message: MessageRef<'_>,
        warm: &mut Warm,
    ) -> Option<Result<Verdict, Failure>> {
        if self.tape.is_some() {
            return None;
        }
        let session = handle(event);
        let mut with = self.with(Hook::Inbound, session);
        let (place, plugin) = match (with.next(), with.next()) {
            (None, _) => return Some(Ok(Verdict::Next)),
            (Some(only), None) => only,
            (Some(_), Some(_)) => return None,
        };
        event.as_mut()?.place = place as u16;
        let verdict = match plugin.inbound_now(session, message, event, warm)? {
            Ok(Verdict::Replace(message)) => {
                plugin.generation.replacement(Hook::Inbound, message).map(Verdict::Replace)
            }
            verdict => verdict,
        };
        Some(verdict)
    }

    /// The same for messages that were read together, where `batches` says so. None: nothing has happened. After a failure
    /// each of them may go the way of one.
    pub fn batch_now(
        &self,
        event: Slot<'_>,
        messages: &[MessageRef<'_>],
        warm: &mut Warm,
    ) -> Option<Result<Vec<Verdict>, Failure>> {
        let session = handle(event);
        let (place, plugin) = self.with(Hook::Batch, session).next()?;
        event.as_mut()?.place = place as u16;
        let checked = |verdict| match verdict {
            Verdict::Replace(message) => plugin.generation.replacement(Hook::Batch, message).map(Verdict::Replace),
            verdict => Ok(verdict),
        };
        let verdicts = plugin.batch_now(session, messages, event, warm)?;
        Some(verdicts.and_then(|verdicts| verdicts.into_iter().map(checked).collect()))
    }

    /// What is to be published in the end; None: nothing.
    pub async fn publication(
        &self,
        publication: Publication,
        patience: Patience,
    ) -> Result<Option<Publication>, Failure> {
        let mut publication = publication;
        for (place, plugin) in self.with(Hook::Publication, 0) {
            let shared = Arc::new(publication);
            let verdict = {
                let mut event = Some(event_of(&shared, patience));
                let topic = shared.topic.as_str().into();
                let publication = Call::Publication { topic, message: (&shared.message).into() };
                self.call(plugin, place, publication, &mut event).await?
            };
            publication = Arc::unwrap_or_clone(shared);
            match verdict {
                Answer::Verdict(Verdict::Replace(message)) => {
                    publication.message = plugin.generation.replacement(Hook::Publication, message)?;
                }
                Answer::Verdict(Verdict::Stop) => return Ok(None),
                _ => {}
            }
        }
        Ok(Some(publication))
    }

    /// What the route's subscribers get of a publication; None: nothing.
    pub async fn broadcast(
        &self,
        publication: &Arc<Publication>,
        patience: Patience,
    ) -> Result<Option<Message>, Failure> {
        let mut message = publication.message.clone();
        for (place, plugin) in self.with(Hook::Broadcast, 0) {
            let mut event = Some(event_of(publication, patience));
            let topic = publication.topic.as_str().into();
            let broadcast = Call::Broadcast { topic, message: (&message).into() };
            match self.call(plugin, place, broadcast, &mut event).await? {
                Answer::Verdict(Verdict::Replace(new)) => {
                    message = plugin.generation.replacement(Hook::Broadcast, new)?
                }
                Answer::Verdict(Verdict::Stop) => return Ok(None),
                _ => {}
            }
        }
        Ok(Some(message))
    }

    /// What a session's client gets of a message; None: nothing. Backwards, from the plugin before the place `before`.
    pub async fn outbound(
        &self,
        event: Slot<'_>,
        publication: Option<&Arc<Publication>>,
        message: Message,
        before: usize,
    ) -> Result<Option<Message>, Failure> {
        let session = handle(event);
        let mut message = message;
        let publication = match (publication, event.as_mut()) {
            (Some(publication), Some(event)) => {
                event.publications.push(publication.clone());
                Some(event.publications.len() as u64)
            }
            _ => None,
        };
        for (place, plugin) in self.with(Hook::Outbound, session).rev().filter(|(place, _)| *place < before) {
            let outbound = Call::Outbound { session, publication, message: (&message).into() };
            match self.call(plugin, place, outbound, event).await? {
                Answer::Verdict(Verdict::Replace(new)) => {
                    message = plugin.generation.replacement(Hook::Outbound, new)?
                }
                Answer::Verdict(Verdict::Stop) => return Ok(None),
                _ => {}
            }
        }
        Ok(Some(message))
    }

    pub async fn subscription(
        &self,
        event: Slot<'_>,
        topic: &str,
        what: SubscriptionEvent,
        position: Option<Position>,
    ) -> Result<(), Failure> {
        let session = handle(event);
        for (place, plugin) in self.with(Hook::Subscription, session) {
            let subscription = Call::Subscription { session, topic: topic.into(), event: what, position };
            self.call(plugin, place, subscription, event).await?;
        }
        Ok(())
    }

    /// Calls the plugin that set the timer; one that is gone, or has no such hook any more, is not missed.
    pub async fn timer(&self, event: Slot<'_>, plugin: &str, name: &str) -> Result<(), Failure> {
        let session = handle(event);
        for (place, plugin) in
            self.with(Hook::Timer, session).filter(|(_, known)| *known.generation.context.name == *plugin)
        {
            self.call(plugin, place, Call::Timer { session, name: name.into() }, event).await?;
        }
        Ok(())
    }

    /// Calls the plugin that made the request.
    pub async fn reply(&self, event: Slot<'_>, plugin: &str, tag: &str, reply: &Reply) -> Result<(), Failure> {
        let session = handle(event);
        for (place, plugin) in
            self.with(Hook::Reply, session).filter(|(_, known)| *known.generation.context.name == *plugin)
        {
            let reply = Call::Reply { session, tag: tag.into(), reply: std::borrow::Cow::Borrowed(reply) };
            self.call(plugin, place, reply, event).await?;
        }
        Ok(())
    }

    /// Has the first plugin that handles HTTP requests answer one. None: there is no such plugin. `session` is the number
    /// that a session of this request would have, and has had in `authenticate`.
    pub async fn http(
        &self,
        event: Slot<'_>,
        session: u64,
        request: Arc<HttpRequest>,
    ) -> Result<Option<HttpAnswer>, Failure> {
        let Some((place, plugin)) = self.with(Hook::Http, session).next() else { return Ok(None) };
        match self.call(plugin, place, Call::Http { request }, event).await? {
            Answer::Http(answer) => Ok(Some(*answer)),
            _ => Ok(None),
        }
    }

    pub async fn presence(&self, event: Slot<'_>, topic: &str, change: &Change) -> Result<(), Failure> {
        let id = change.member.session.to_string();
        for (place, plugin) in self.with(Hook::Presence, 0) {
            let presence = Call::Presence {
                topic: topic.into(),
                joined: change.joined,
                session_id: id.as_str().into(),
                user: change.member.user.as_deref().map(Into::into),
                info: (&*change.member.info).into(),
                sessions_of_user: change.sessions_of_user,
            };
            self.call(plugin, place, presence, event).await?;
        }
        Ok(())
    }
}

impl Audience for RouteChain {
    fn is_special(&self) -> bool {
        self.route.outbound || self.chain.load().has(Hook::Broadcast)
    }

    fn one_by_one(&self) -> bool {
        self.route.outbound
    }

    fn window(&self) -> Option<BatchConfig> {
        self.route.rules().batch
    }

    fn shape<'a>(&'a self, publication: &'a Arc<Publication>) -> Pin<Box<dyn Future<Output = Shaped> + Send + 'a>> {
        Box::pin(async move {
            match self.chain.load_full().broadcast(publication, Patience::Waits).await {
                Ok(Some(message)) => Shaped::Message(message),
                Ok(None) => Shaped::Nothing,
                Err(failure) => {
                    if !failure.is_barred() {
                        tracing::error!(route = &*self.route.name, topic = %publication.topic, why = %failure.why,
                            plugin = &*failure.plugin, generation = failure.generation,
                            "a publication could not be made ready for the route's sessions: they are closed");
                    }
                    Shaped::Lost
                }
            }
        })
    }
}

fn event_of(publication: &Arc<Publication>, patience: Patience) -> Box<Event> {
    Box::new(Event { publications: vec![publication.clone()], patience, ..Event::default() })
}

fn handle(event: &Option<Box<Event>>) -> u64 {
    event.as_ref().and_then(|event| event.session.as_ref()).map_or(0, |session| session.id.number)
}
