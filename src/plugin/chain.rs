//! A route's plugins in order, and how each kind of event goes through them.
//!
//! An event runs whole on one chain: what is swapped in meanwhile serves the next event. Every function leaves the event
//! in its place; after a failure its effects are for nobody.

use std::sync::Arc;

use arc_swap::ArcSwap;

use super::event::{Event, Hook};
use super::failure::Failure;
use super::generation::Generation;
use super::instance::signature;
use super::wit::BorrowedMessage;
use super::wit::exports::tidegate::plugin::on_authenticate::Decision as WitDecision;
use super::wit::exports::tidegate::plugin::on_presence::Event as WitPresenceEvent;
use super::wit::exports::tidegate::plugin::on_session::Closer as WitCloser;
use super::wit::tidegate::plugin::types::Verdict;
use crate::message::{Close, Closer, Message, MessageRef, Pattern, Publication};
use crate::presence::Change;
use crate::route::Route;

/// The generations that serve a route now.
pub struct Chain {
    plugins: Box<[Arc<Generation>]>,
    /// Which hooks any of them has, by bit.
    hooks: u16,
    waits: bool,
}

/// A route with its chain, which is replaced while the route serves.
pub struct RouteChain {
    pub route: Arc<Route>,
    /// Topics that the route answers for.
    pub topics: Vec<Pattern>,
    pub chain: ArcSwap<Chain>,
}

/// What `authenticate` decided.
#[derive(Debug, PartialEq, Eq)]
pub enum Decision {
    Admit(Option<Arc<str>>),
    /// With this HTTP status.
    Refuse(u16),
}

/// Where an event of a session is on its way: the handle that plugins know the session by.
type Slot<'a> = &'a mut Option<Box<Event>>;

impl Chain {
    pub fn new(plugins: Vec<Arc<Generation>>) -> Self {
        let hooks = Hook::ALL
            .into_iter()
            .filter(|hook| plugins.iter().any(|plugin| plugin.has(*hook)))
            .fold(0, |hooks, hook| hooks | 1 << hook as u16);
        let waits = plugins.iter().any(|plugin| plugin.waits());
        Self { plugins: plugins.into(), hooks, waits }
    }

    pub fn has(&self, hook: Hook) -> bool {
        self.hooks & (1 << hook as u16) != 0
    }

    /// Whether calls may wait for something; otherwise a call is over when it was polled once.
    pub fn waits(&self) -> bool {
        self.waits
    }

    fn with(&self, hook: Hook) -> impl Iterator<Item = &Arc<Generation>> {
        self.plugins.iter().filter(move |plugin| plugin.has(hook))
    }

    /// Asks who may come in. A chain in which nobody has the hook admits everyone; otherwise one must admit.
    pub async fn authenticate(&self, event: Slot<'_>) -> Result<Decision, Failure> {
        if !self.has(Hook::Authenticate) {
            return Ok(Decision::Admit(None));
        }
        let session = handle(event);
        for plugin in self.with(Hook::Authenticate) {
            match plugin.call::<signature::Authenticate, _, _>(Hook::Authenticate, event, (session,)).await? {
                WitDecision::Pass => {}
                WitDecision::Refuse(status @ 300..=599) => return Ok(Decision::Refuse(status)),
                WitDecision::Refuse(_) => return Ok(Decision::Refuse(403)),
                WitDecision::Admit(None) => return Ok(Decision::Admit(None)),
                WitDecision::Admit(Some(user)) if (1..=crate::state::USER_MAX).contains(&user.len()) => {
                    return Ok(Decision::Admit(Some(user.into())));
                }
                WitDecision::Admit(Some(_)) => return Ok(Decision::Refuse(403)),
            }
        }
        Ok(Decision::Refuse(401))
    }

    pub async fn opened(&self, event: Slot<'_>) -> Result<(), Failure> {
        let session = handle(event);
        for plugin in self.with(Hook::Opened) {
            plugin.call::<signature::Opened, _, _>(Hook::Opened, event, (session,)).await?;
        }
        Ok(())
    }

    pub async fn closed(&self, event: Slot<'_>, close: &Close, by: Closer) -> Result<(), Failure> {
        let session = handle(event);
        let by = match by {
            Closer::Client => WitCloser::Client,
            Closer::Plugin => WitCloser::Plugin,
            Closer::Gateway => WitCloser::Gateway,
            Closer::Network => WitCloser::Network,
        };
        for plugin in self.with(Hook::Closed) {
            let params = (session, close.code, &*close.reason, by);
            plugin.call::<signature::Closed<'_>, _, _>(Hook::Closed, event, params).await?;
        }
        Ok(())
    }

    pub async fn inbound(&self, event: Slot<'_>, message: MessageRef<'_>) -> Result<(), Failure> {
        let session = handle(event);
        let mut replaced: Option<Message> = None;
        for plugin in self.with(Hook::Inbound) {
            let message = lowered(replaced.as_ref().map_or(message, Message::as_ref));
            match plugin.call::<signature::Inbound<'_>, _, _>(Hook::Inbound, event, (session, message)).await? {
                Verdict::Next => {}
                Verdict::Replace(message) => replaced = Some(plugin.replacement(Hook::Inbound, message.into())?),
                Verdict::Stop => break,
            }
        }
        Ok(())
    }

    /// What is to be published in the end; None: nothing.
    pub async fn publication(&self, mut publication: Publication) -> Result<Option<Publication>, Failure> {
        for plugin in self.with(Hook::Publication) {
            let shared = Arc::new(publication);
            let mut event = Some(Box::new(Event { publications: vec![shared.clone()], ..Event::default() }));
            let verdict = {
                let params = (1, shared.topic.as_str(), lowered(shared.message.as_ref()));
                plugin.call::<signature::Publication<'_>, _, _>(Hook::Publication, &mut event, params).await?
            };
            drop(event);
            publication = Arc::unwrap_or_clone(shared);
            match verdict {
                Verdict::Next => {}
                Verdict::Replace(message) => {
                    publication.message = plugin.replacement(Hook::Publication, message.into())?;
                }
                Verdict::Stop => return Ok(None),
            }
        }
        Ok(Some(publication))
    }

    /// Calls the plugin that set the timer; one that is gone, or has no such hook any more, is not missed.
    pub async fn timer(&self, event: Slot<'_>, plugin: &str, name: &str) -> Result<(), Failure> {
        let session = handle(event);
        for plugin in self.with(Hook::Timer).filter(|known| *known.context.name == *plugin) {
            plugin.call::<signature::Timer<'_>, _, _>(Hook::Timer, event, (session, name)).await?;
        }
        Ok(())
    }

    pub async fn presence(&self, event: Slot<'_>, topic: &str, change: &Change) -> Result<(), Failure> {
        let id = change.member.session.to_string();
        let what = if change.joined { WitPresenceEvent::Joined } else { WitPresenceEvent::Left };
        for plugin in self.with(Hook::Presence) {
            let user = change.member.user.as_deref();
            let params = (topic, what, id.as_str(), user, &*change.member.info, change.sessions_of_user);
            plugin.call::<signature::Presence<'_>, _, _>(Hook::Presence, event, params).await?;
        }
        Ok(())
    }
}

fn handle(event: &Option<Box<Event>>) -> u64 {
    event.as_ref().and_then(|event| event.session.as_ref()).map_or(0, |session| session.id.number)
}

fn lowered(message: MessageRef<'_>) -> BorrowedMessage<'_> {
    match message {
        MessageRef::Text(text) => BorrowedMessage::Text(text),
        MessageRef::Binary(bytes) => BorrowedMessage::Binary(bytes),
    }
}
