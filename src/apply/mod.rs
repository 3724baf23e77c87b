//! Applies the effects that reach beyond one session: publications, users, other sessions, presence.

mod across;
mod asks;

use std::sync::{Arc, Weak};

use arc_swap::ArcSwap;
use bytes::Bytes;

pub use self::across::NodeIntake;
pub use self::asks::Unasked;

use crate::broker::Retention;
use crate::config::RedisGone;
use crate::hub::{PublishError, Published};
use crate::message::{Closer, Message, Pattern, Publication, TopicName};
use crate::node::Node;
use crate::outbox::{Outbox, Request};
use crate::plugin::{Effect, Effects, Event, Failure, Forward, Hook, Patience, Publish, Remote, RouteChain};
use crate::presence::{Changes, Watcher};
use crate::upstream::{Job, Reply, UpstreamError};
use crate::wire;

/// An effect that was refused as it was applied.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    #[error("publishing on {0} was refused: {1}")]
    Publish(TopicName, PublishError),
    #[error("publishing on {0} was refused: {1}")]
    Hook(TopicName, Failure),
    #[error("subscribing to {0} was refused: {1}")]
    Subscribe(TopicName, crate::broker::BrokerError),
    #[error("other nodes cannot be told: {0}")]
    Across(crate::redis::Fault),
    #[error("the session has more requests waiting than it may")]
    Busy,
    #[error("the upstream {0} does not take the message: {1}")]
    Upstream(Box<str>, UpstreamError),
    #[error("the session waits for more answers of upstreams than it may")]
    Replies,
}

/// Acts on the node for all routes.
pub struct Applier {
    pub node: Arc<Node>,
    claims: ArcSwap<Vec<Claim>>,
    asks: asks::Asks,
}

/// The topics that a route answers for.
pub struct Claim {
    pub topics: Vec<Pattern>,
    pub route: Arc<RouteChain>,
}

impl Applier {
    /// Nothing is claimed yet. Joins and leaves are told to its hooks from now on.
    pub fn new(node: Arc<Node>) -> Arc<Self> {
        let applier = Arc::new(Self { node, claims: ArcSwap::default(), asks: asks::Asks::default() });
        let watcher: Weak<dyn Watcher> = Arc::<Self>::downgrade(&applier);
        applier.node.presence.watch(watcher);
        applier
    }

    /// `claims` in the order of the configuration: the first that claims a topic answers for it.
    pub fn claim(&self, claims: Vec<Claim>) {
        self.claims.store(Arc::new(claims.into_iter().filter(|claim| !claim.topics.is_empty()).collect()));
    }

    fn claimed_by(&self, topic: &TopicName) -> Option<Arc<RouteChain>> {
        let claims = self.claims.load();
        let claim = claims.iter().find(|claim| claim.topics.iter().any(|pattern| pattern.matches(topic.as_str())));
        claim.map(|claim| claim.route.clone())
    }

    /// Whether publishing may have to wait: for Redis, or for a publication hook.
    pub fn waits(&self) -> bool {
        self.node.hub.waits()
            || self.claims.load().iter().any(|claim| {
                let chain = claim.route.chain.load();
                chain.waits() && chain.has(Hook::Publication)
            })
    }

    /// Publishes, by way of the publication hooks of the route that claims the topic. `gone` is for what Redis does not take.
    pub async fn publish(&self, publish: Publish, patience: Patience, gone: RedisGone) -> Result<Published, Refused> {
        let Publish { topic, message, exclude, history, idempotency_key, key, metadata } = publish;
        let mut publication =
            Publication { topic, message, position: None, time: self.node.clock.unix(), key, metadata, exclude };
        let chain = self.claimed_by(&publication.topic).map(|route| route.chain.load_full());
        if let Some(chain) = chain.filter(|chain| chain.has(Hook::Publication)) {
            let topic = publication.topic.clone();
            let passed = match patience {
                // A publication hook that waits was swapped in since the caller looked: the thread waits, this once.
                Patience::None if chain.waits() => tokio::task::block_in_place(|| {
                    let publication = chain.publication(publication, Patience::Waits);
                    tokio::runtime::Handle::current().block_on(publication)
                }),
                _ => chain.publication(publication, patience).await,
            };
            match passed {
                Ok(Some(passed)) => publication = passed,
                // Dropped by a plugin: that is no refusal.
                Ok(None) => return Ok(Published::Done),
                Err(failure) => {
                    self.node.metrics.publications_refused.inc();
                    return Err(Refused::Hook(topic, failure));
                }
            }
        }
        let retention = match history {
            Some((size, ttl)) => Retention { size, ttl: std::time::Duration::from_millis(ttl) },
            None => self.node.rules.of(publication.topic.as_str()).retention,
        };
        let topic = publication.topic.clone();
        let published = self.node.hub.publish_anywhere(publication, retention, idempotency_key.as_deref(), gone);
        published.await.map_err(|error| {
            self.node.metrics.publications_refused.inc();
            Refused::Publish(topic, error)
        })
    }

    /// Hands a message to an upstream, whose answer becomes an event of the session.
    pub fn forward(&self, outbox: &Arc<Outbox>, forward: Forward) -> Result<(), Refused> {
        let Forward { upstream, message, reply_to, headers, timeout } = forward;
        let awaited = reply_to.is_some();
        if awaited {
            outbox.await_reply().map_err(|_| Refused::Replies)?;
        }
        let answer = reply_to.map(|(plugin, tag)| {
            // A session that is over is not kept by those who owe it an answer.
            let outbox = Arc::downgrade(outbox);
            let answer = move |reply| {
                if let Some(outbox) = outbox.upgrade() {
                    // It has its place.
                    let _ = outbox.request(Request::Reply(plugin, tag, reply));
                }
            };
            Box::new(answer) as Box<dyn FnOnce(Reply) + Send>
        });
        let timeout = timeout.map(std::time::Duration::from_millis);
        let sent = self.node.upstreams.send(&upstream, Job { session: outbox.id, message, headers, timeout, answer });
        sent.map_err(|error| {
            if awaited {
                outbox.expect_no_reply();
            }
            Refused::Upstream(upstream, error)
        })
    }

    /// The effects of an event that belongs to no session.
    pub async fn apply(&self, effects: &mut Effects, gone: RedisGone) -> Result<(), Refused> {
        for effect in effects.list.drain(..) {
            match effect {
                Effect::Publish(publish) => {
                    if let Published::Congested(topic) = self.publish(*publish, Patience::Waits, gone).await? {
                        topic.room().await;
                    }
                }
                Effect::ToUser(user, remote) => self.to_user(&user, &remote, gone).await?,
                Effect::ToSession(session, remote) => self.to_session(session, &remote, gone).await?,
                // The others need a session, and their host functions have trapped.
                _ => {}
            }
        }
        Ok(())
    }

    /// Takes a topic's joins and leaves through the presence hooks, in order, until none is left.
    async fn tell_presence(self: Arc<Self>, mut changes: Changes) {
        let topic = changes.topic.clone();
        while let Some(change) = changes.next().await {
            let Some(route) = self.claimed_by(&topic) else { continue };
            let chain = route.chain.load_full();
            let mut event = Some(Box::<Event>::default());
            let called = chain.presence(&mut event, topic.as_str(), &change).await;
            let result = match (called, &mut event) {
                (Ok(()), Some(event)) => {
                    let gone = route.route.rules().redis_gone;
                    self.apply(&mut event.effects, gone).await.map_err(|error| error.to_string())
                }
                (Err(failure), _) => Err(failure.to_string()),
                (Ok(()), None) => Ok(()),
            };
            if let Err(why) = result {
                self.node.metrics.events_failed.with_label_values(&[&route.route.name, "presence"]).inc();
                tracing::error!(route = &*route.route.name, %topic, why, "a presence event failed");
            }
        }
    }
}

impl Watcher for Applier {
    fn watches(&self, topic: &TopicName) -> bool {
        topic.is_public() && self.claimed_by(topic).is_some_and(|route| route.chain.load().has(Hook::Presence))
    }

    fn tell(self: Arc<Self>, changes: Changes) {
        drop(tokio::spawn(self.tell_presence(changes)));
    }

    fn dropped(&self, topic: &TopicName, count: u64) {
        self.node.metrics.presence_dropped.inc_by(count);
        tracing::warn!(%topic, count, "joins or leaves are not told to presence hooks: too many wait");
    }
}

/// A message's frame, encoded once for all the sessions that it goes to.
fn framed(remote: &Remote) -> Option<Bytes> {
    let Remote::Send(message) = remote else { return None };
    Some(framed_message(message))
}

fn framed_message(message: &Message) -> Bytes {
    let mut frame = Vec::new();
    wire::message(&mut frame, message.as_ref());
    frame.into()
}

fn act_on(outbox: &Arc<Outbox>, remote: &Remote, frame: Option<&Bytes>) -> Result<(), Refused> {
    let request = match remote {
        Remote::Send(message) if outbox.by_hand() => {
            outbox.offer(None, message.clone());
            return Ok(());
        }
        Remote::Send(_) => {
            if let Some(frame) = frame {
                outbox.deliver(frame, 1);
            }
            return Ok(());
        }
        Remote::Subscribe(topic) => Request::Subscribe(topic.clone()),
        Remote::Unsubscribe(topic) => Request::Unsubscribe(topic.clone()),
        Remote::Close(close) => Request::Close(close.clone(), Closer::Plugin),
    };
    outbox.request(request).map_err(|_| Refused::Busy)
}
