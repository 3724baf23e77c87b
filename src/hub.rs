//! Fan-out on this node: topic → outboxes. The only caller of the broker.
//!
//! A publication is encoded once into its topic's pending buffer, where what is published meanwhile joins it. One flusher
//! for each busy topic hands the buffer to all subscribers, a chunk of them at a time, so that other work of the same
//! thread is never far behind.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::broker::{Accepted, BrokerError, MemoryBroker, Page, Retention};
use crate::message::{Position, Publication, SessionId, TopicName};
use crate::metrics::Metrics;
use crate::outbox::{Outbox, Written};
use crate::wire;

const SHARDS: usize = 64;
/// Subscribers that are delivered to before others have a turn: some 0.2 ms of writes.
const CHUNK: usize = 32;
/// Encoded bytes that may wait for a topic's flusher. A publisher that goes past this reads nothing more until they are
/// out; past four times as much publications are refused.
const PENDING: usize = 1 << 20;

type Shard = Mutex<HashMap<TopicName, Arc<Topic>>>;

pub struct Hub {
    shards: Box<[Shard]>,
    hasher: RandomState,
    broker: MemoryBroker,
    metrics: Arc<Metrics>,
    flushing: AtomicUsize,
    flushed: Notify,
}

/// A topic with subscribers on this node.
#[derive(Default)]
pub struct Topic {
    /// What fan-out walks. Empty slots are reused, so that a subscription's slot stays its own.
    subscribers: Mutex<Subscribers>,
    pending: Mutex<Pending>,
    room: Notify,
}

#[derive(Default)]
struct Subscribers {
    slots: Vec<Option<Subscriber>>,
    free: Vec<u32>,
}

struct Subscriber {
    outbox: Arc<Outbox>,
    /// The first frame (counted from the topic's beginning) that is for this subscriber.
    from: u64,
}

#[derive(Default)]
struct Pending {
    frames: Vec<u8>,
    /// Where each frame ends.
    ends: Vec<u32>,
    /// Which frames are not for which session.
    excluded: Vec<(usize, SessionId)>,
    /// The number of the first of these frames.
    first: u64,
    flushing: bool,
}

/// A session's place among a topic's subscribers.
#[derive(Debug)]
pub struct Subscription {
    pub topic: TopicName,
    slot: u32,
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
    pub fn new(broker: MemoryBroker, metrics: Arc<Metrics>) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
            broker,
            metrics,
            flushing: AtomicUsize::new(0),
            flushed: Notify::new(),
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
        self.metrics.publications.inc();
        let shard = self.shard(publication.topic.as_str()).lock();
        let topic = shard.get(&publication.topic);
        if topic.is_some_and(|topic| topic.pending.lock().frames.len() > 4 * PENDING) {
            return Err(PublishError::Behind);
        }
        let publication = match self.broker.publish(publication, retention, idempotency_key)? {
            Accepted::Deliver(publication) => publication,
            Accepted::Duplicate => return Ok(Published::Duplicate),
        };
        let Some(topic) = topic else { return Ok(Published::Done) };
        let mut pending = topic.pending.lock();
        wire::message(&mut pending.frames, publication.message.as_ref());
        let (end, index) = (pending.frames.len() as u32, pending.ends.len());
        pending.ends.push(end);
        pending.excluded.extend(publication.exclude.iter().map(|session| (index, *session)));
        if !std::mem::replace(&mut pending.flushing, true) {
            self.flushing.fetch_add(1, Ordering::Relaxed);
            tokio::spawn(self.clone().flush(topic.clone()));
        }
        if pending.frames.len() > PENDING {
            return Ok(Published::Congested(topic.clone()));
        }
        Ok(Published::Done)
    }

    /// Delivers what is pending on a topic until nothing is.
    async fn flush(self: Arc<Self>, topic: Arc<Topic>) {
        loop {
            let Some(batch) = topic.pending.lock().take() else {
                break;
            };
            topic.room.notify_waiters();
            let mut at = 0;
            loop {
                let mut tally = Tally::default();
                let more = {
                    let subscribers = topic.subscribers.lock();
                    let end = (at + CHUNK).min(subscribers.slots.len());
                    subscribers.slots[at..end].iter().flatten().for_each(|one| batch.deliver(one, &mut tally));
                    at = end;
                    at < subscribers.slots.len()
                };
                self.metrics.deliveries.inc_by(tally.delivered);
                self.metrics.dropped.inc_by(tally.dropped);
                if !more {
                    break;
                }
                tokio::task::yield_now().await;
            }
        }
        if self.flushing.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.flushed.notify_waiters();
        }
    }

    /// Subscribes an outbox. With `since`, what the history holds after that position is part of the answer, and the
    /// live deliveries go on exactly behind it.
    pub fn subscribe(
        &self,
        topic: &TopicName,
        outbox: &Arc<Outbox>,
        since: Option<Position>,
    ) -> Result<(Subscription, Option<Page>), BrokerError> {
        let mut shard = self.shard(topic.as_str()).lock();
        let page = since.map(|since| self.broker.history(topic, Some(since), usize::MAX)).transpose()?;
        let entry = shard.entry(topic.clone()).or_insert_with(|| {
            self.metrics.topics.inc();
            Arc::default()
        });
        let from = {
            let pending = entry.pending.lock();
            pending.first + pending.ends.len() as u64
        };
        let slot = entry.subscribers.lock().insert(Subscriber { outbox: outbox.clone(), from });
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
        let empty = subscribers.remove(subscription.slot);
        drop(subscribers);
        if empty {
            shard.remove(&subscription.topic);
            self.metrics.topics.dec();
        }
        self.metrics.subscriptions.dec();
    }

    /// What a topic has kept; see `MemoryBroker::history`.
    pub fn history(&self, topic: &TopicName, since: Option<Position>, limit: usize) -> Result<Page, BrokerError> {
        self.broker.history(topic, since, limit)
    }

    /// Topics with subscribers on this node and how many they are, the largest first.
    pub fn largest(&self, limit: usize) -> Vec<(TopicName, usize)> {
        let mut all: Vec<_> = self
            .shards
            .iter()
            .flat_map(|shard| shard.lock().iter().map(|(name, topic)| (name.clone(), topic.len())).collect::<Vec<_>>())
            .collect();
        all.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        all.truncate(limit);
        all
    }

    /// Waits until everything that was published has been handed to the outboxes.
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
    pub fn sweep(&self) {
        self.broker.sweep();
        self.metrics.history_bytes.set(self.broker.bytes() as i64);
    }
}

impl Topic {
    /// Waits until the flusher has taken what was pending.
    pub async fn room(&self) {
        let room = self.room.notified();
        if self.pending.lock().frames.len() > PENDING {
            room.await;
        }
    }

    fn len(&self) -> usize {
        let subscribers = self.subscribers.lock();
        subscribers.slots.len() - subscribers.free.len()
    }
}

impl Subscribers {
    fn insert(&mut self, subscriber: Subscriber) -> u32 {
        if let Some(slot) = self.free.pop() {
            self.slots[slot as usize] = Some(subscriber);
            return slot;
        }
        self.slots.push(Some(subscriber));
        (self.slots.len() - 1) as u32
    }

    /// Whether nobody is left.
    fn remove(&mut self, slot: u32) -> bool {
        if self.slots.get_mut(slot as usize).and_then(Option::take).is_some() {
            self.free.push(slot);
        }
        self.free.len() == self.slots.len()
    }
}

impl Pending {
    /// The frames to flush now; None ends the flusher.
    fn take(&mut self) -> Option<Batch> {
        if self.ends.is_empty() {
            self.flushing = false;
            self.frames = Vec::new();
            return None;
        }
        let first = self.first;
        self.first += self.ends.len() as u64;
        // The next round is likely to be like this one.
        let capacity = self.frames.len().min(PENDING);
        Some(Batch {
            frames: Bytes::from(std::mem::replace(&mut self.frames, Vec::with_capacity(capacity))),
            ends: std::mem::take(&mut self.ends),
            excluded: std::mem::take(&mut self.excluded),
            first,
        })
    }
}

/// The frames of one round, shared by all subscribers.
struct Batch {
    frames: Bytes,
    ends: Vec<u32>,
    excluded: Vec<(usize, SessionId)>,
    first: u64,
}

#[derive(Default)]
struct Tally {
    delivered: u64,
    dropped: u64,
}

impl Batch {
    fn deliver(&self, subscriber: &Subscriber, tally: &mut Tally) {
        let skip = subscriber.from.saturating_sub(self.first) as usize;
        if skip >= self.ends.len() {
            return;
        }
        let session = subscriber.outbox.id;
        let mut begin = skip;
        for &(index, excluded) in &self.excluded {
            if excluded == session && index >= begin {
                self.run(begin, index, subscriber, tally);
                begin = index + 1;
            }
        }
        self.run(begin, self.ends.len(), subscriber, tally);
    }

    /// Frames `begin..end`, which lie side by side, in pieces that an outbox has room for: a full one drops by its policy,
    /// and not a whole round at once.
    fn run(&self, mut begin: usize, end: usize, subscriber: &Subscriber, tally: &mut Tally) {
        let room = subscriber.outbox.limit() / 2;
        while begin < end {
            let from = if begin == 0 { 0 } else { self.ends[begin - 1] as usize };
            let fits = self.ends[begin..end].partition_point(|frame_end| *frame_end as usize - from <= room);
            let piece_end = begin + fits.max(1);
            let count = (piece_end - begin) as u32;
            let written = if begin == 0 && piece_end == self.ends.len() {
                subscriber.outbox.deliver(&self.frames, count)
            } else {
                subscriber.outbox.deliver(&self.frames.slice(from..self.ends[piece_end - 1] as usize), count)
            };
            match written {
                Written::Sent | Written::Queued => tally.delivered += u64::from(count),
                Written::Dropped(dropped) => {
                    tally.delivered += u64::from(count);
                    tally.dropped += u64::from(dropped);
                }
                Written::Over => return,
            }
            begin = piece_end;
        }
    }
}
