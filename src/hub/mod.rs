//! Fan-out on this node: topic → outboxes. The only caller of the broker.
//!
//! A publication is encoded once into its topic's pending buffer, where what is published meanwhile joins it. One flusher
//! for each busy topic hands the buffer to all subscribers, a chunk of them at a time, so that other work of the same
//! thread is never far behind. Routes that shape what their sessions get have frames of their own, made once for all of
//! the route's subscribers; so have subscribers with compression, once for all who have agreed on the same.

mod audience;
mod batch;
mod flusher;
mod follow;
mod followed;
mod queue;
mod shared;
mod topic;

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

pub use self::audience::{Audience, Shaped};
pub use self::followed::HubIntake;
use self::queue::Queue;
use self::topic::Subscriber;
pub use self::topic::Topic;

use crate::broker::{Accepted, Broker, BrokerError, Page, Retention};
use crate::message::{Position, Publication, TopicName};
use crate::metrics::Metrics;
use crate::outbox::Outbox;

const SHARDS: usize = 64;
/// Subscribers that are delivered to before others have a turn: some 0.2 ms of writes.
const CHUNK: usize = 16;
/// Bytes that are compressed for single subscribers before others have a turn: some 2 ms.
const COMPRESSED: usize = 64 << 10;
/// Encoded bytes that may wait for a topic's flusher. A publisher that goes past this reads nothing more until they are
/// out; past four times as much publications are refused.
const PENDING: usize = 1 << 20;

type Shard = Mutex<HashMap<TopicName, Arc<Topic>>>;

pub struct Hub {
    shards: Box<[Shard]>,
    hasher: RandomState,
    broker: Broker,
    queue: Queue,
    metrics: Arc<Metrics>,
    flushing: AtomicUsize,
    flushed: Notify,
    /// The gateway leaves: nothing is gathered any more.
    hurries: watch::Sender<bool>,
}

/// A session's place among a topic's subscribers.
#[derive(Debug)]
pub struct Subscription {
    pub topic: TopicName,
    slot: u32,
}

impl Subscription {
    /// For whoever looks only at the topic: it ends no subscription.
    pub fn picture(&self) -> Self {
        Self::of(self.topic.clone())
    }

    /// The picture of one that was somewhere else.
    pub fn of(topic: TopicName) -> Self {
        Self { topic, slot: u32::MAX }
    }
}

/// What a subscriber wants to know or have of what came before.
#[derive(Clone, Copy, Debug)]
pub enum From {
    Now,
    /// Where the topic's history stands.
    Position,
    /// What was published after this.
    Since(Position),
}

/// What became of a publication.
pub enum Published {
    Done,
    /// Accepted, but the topic's flusher is behind: wait for `Topic::room` before the next.
    Congested(Arc<Topic>),
    /// Its idempotency key was used before.
    Duplicate,
}

/// A publication was not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    #[error(transparent)]
    Broker(#[from] BrokerError),
    #[error("the topic's subscribers are too far behind")]
    Behind,
}

impl Hub {
    pub fn new(broker: Broker, metrics: Arc<Metrics>) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
            broker,
            queue: Queue::default(),
            metrics,
            flushing: AtomicUsize::new(0),
            flushed: Notify::new(),
            hurries: watch::Sender::new(false),
        }
    }

    fn shard(&self, topic: &str) -> &Shard {
        &self.shards[self.hasher.hash_one(topic) as usize % SHARDS]
    }

    /// Publishes to everybody who is subscribed. The shard's lock spans the broker's acceptance and the place in the
    /// pending buffer: deliveries have the order of offsets.
    pub fn publish(
        self: &Arc<Self>,
        publication: Publication,
        retention: Retention,
        idempotency_key: Option<&str>,
    ) -> Result<Published, PublishError> {
        let Broker::Memory(broker) = &self.broker else { return Err(BrokerError::Gone.into()) };
        self.metrics.publications.inc();
        let shard = self.shard(publication.topic.as_str()).lock();
        let topic = shard.get(&publication.topic);
        if topic.is_some_and(|topic| topic.pending.lock().bytes() > 4 * PENDING) {
            return Err(PublishError::Behind);
        }
        let publication = match broker.publish(publication, retention, idempotency_key)? {
            Accepted::Deliver(publication) => publication,
            Accepted::Duplicate => return Ok(Published::Duplicate),
        };
        let Some(topic) = topic else { return Ok(Published::Done) };
        let special = topic.audiences.lock().has_special();
        let mut pending = topic.pending.lock();
        pending.push(&publication, special);
        if !std::mem::replace(&mut pending.flushing, true) {
            self.flushing.fetch_add(1, Ordering::Relaxed);
            tokio::spawn(self.clone().flush(topic.clone()));
        }
        if pending.is_wanted() {
            topic.more.notify_waiters();
        }
        if pending.bytes() > PENDING {
            return Ok(Published::Congested(topic.clone()));
        }
        Ok(Published::Done)
    }

    /// Subscribes an outbox. What `from` asks for is part of the answer, and the live deliveries go on exactly behind it.
    pub fn subscribe(
        &self,
        topic: &TopicName,
        outbox: &Arc<Outbox>,
        audience: &Arc<dyn Audience>,
        from: From,
    ) -> Result<(Subscription, Option<Page>), BrokerError> {
        let mut shard = self.shard(topic.as_str()).lock();
        let page = match from {
            From::Now => None,
            From::Position => Some(self.history_here(topic, None, 0)?),
            From::Since(since) => Some(self.history_here(topic, Some(since), usize::MAX)?),
        };
        let entry = shard.entry(topic.clone()).or_insert_with(|| {
            self.metrics.topics.inc();
            Arc::default()
        });
        let from = entry.pending.lock().next();
        let audience = entry.audiences.lock().enter(audience, outbox);
        let slot = entry.subscribers.lock().insert(Subscriber { outbox: outbox.clone(), from, audience });
        self.metrics.subscriptions.inc();
        Ok((Subscription { topic: topic.clone(), slot }, page))
    }

    /// Ends a subscription. The last one takes the topic along.
    pub fn unsubscribe(&self, subscription: &Subscription) {
        let mut shard = self.shard(subscription.topic.as_str()).lock();
        let Some(topic) = shard.get(&subscription.topic) else {
            return;
        };
        let mut subscribers = topic.subscribers.lock();
        let audience = subscribers.remove(subscription.slot);
        let empty = subscribers.is_empty();
        drop(subscribers);
        if let Some(audience) = audience {
            topic.audiences.lock().leave(audience);
        }
        if let Some(followed) = &topic.followed {
            followed.leave();
        } else if empty {
            shard.remove(&subscription.topic);
            self.metrics.topics.dec();
        }
        self.metrics.subscriptions.dec();
    }

    /// What a topic has kept in this process; see `MemoryBroker::history`.
    pub fn history_here(&self, topic: &TopicName, since: Option<Position>, limit: usize) -> Result<Page, BrokerError> {
        match &self.broker {
            Broker::Memory(broker) => broker.history(topic, since, limit),
            Broker::Redis(_) => Err(BrokerError::Gone),
        }
    }

    /// Topics with subscribers on this node and how many they are, the largest first.
    pub fn largest(&self, limit: usize) -> Vec<(TopicName, usize)> {
        let mut all: Vec<_> = self
            .shards
            .iter()
            .flat_map(|shard| {
                shard.lock().iter().map(|(name, topic)| (name.clone(), topic.subscribed())).collect::<Vec<_>>()
            })
            .collect();
        all.retain(|(_, subscribers)| *subscribers > 0);
        all.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        all.truncate(limit);
        all
    }

    /// Waits until everything that was published here has been handed to the outboxes.
    pub async fn flushed(&self) {
        loop {
            let flushed = self.flushed.notified();
            if self.flushing.load(Ordering::Acquire) == 0 {
                return;
            }
            flushed.await;
        }
    }

    /// Forgets history that has outlived its time. Called now and then.
    pub fn sweep(self: &Arc<Self>) {
        match &self.broker {
            Broker::Memory(broker) => {
                broker.sweep();
                self.metrics.history_bytes.set(broker.bytes() as i64);
            }
            Broker::Redis(_) => self.sweep_followed(),
        }
    }
}
