//! How a topic is followed through what Redis delivers: take in what arrives, read what is missing before anything later,
//! tell the subscribers what is lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::follow::{Follow, Step};
use super::topic::Topic;
use super::{Hub, PENDING};
use crate::broker::{BrokerError, KNOWN, Mark, RedisBroker, Stretch};
use crate::message::{Position, TopicName};
use crate::redis::{Fault, Intake};

/// How long a topic is followed without a subscriber: a page that is loaded anew finds all as it was.
const LINGER: Duration = Duration::from_secs(5);
/// Topics whose missing publications are read at the same time, after the link has come back.
const READERS: usize = 32;
/// Attempts to read what a topic has missed, while the link is there. Then it waits for the link's next beginning.
const ATTEMPTS: u32 = 5;

/// What the hub needs beside a topic's subscribers to follow it.
pub struct Followed {
    pub(super) channel: String,
    pub(super) state: Mutex<State>,
    /// Something has changed that somebody may wait for.
    changed: Notify,
}

pub(super) struct State {
    pub(super) follow: Follow,
    /// Subscribers, and those who are about to be.
    pub(super) interest: usize,
    pub(super) idle_since: Option<Instant>,
    /// When Redis was told last that the topic is known.
    renewed: Instant,
    /// What this node has published itself, and Redis has answered: who comes later must not get it.
    pub(super) published: Option<Mark>,
    reader: Reader,
    /// The topic is gone from the hub.
    over: bool,
}

/// Whether somebody reads what the topic has missed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reader {
    None,
    Reads { once_more: bool },
}

/// What arrives for the hub.
pub struct HubIntake(pub Arc<Hub>);

impl Intake for HubIntake {
    fn arrived(&self, channel: &str, payload: Vec<u8>) {
        let Some(broker) = self.0.remote() else { return };
        let Some(name) = broker.redis.keys.topic(channel) else { return };
        let topic = {
            let shard = self.0.shard(&name).lock();
            let Some((name, topic)) = shard.get_key_value(&*name) else { return };
            (name.clone(), topic.clone())
        };
        self.0.arrived(&topic.0, &topic.1, payload);
    }

    fn lost(&self, channels: &[String]) {
        for (_, topic) in self.0.followed(channels) {
            if let Some(followed) = &topic.followed {
                followed.state.lock().follow.lose();
                followed.changed.notify_waiters();
            }
        }
    }

    fn back(&self, channels: &[String]) {
        let topics = self.0.followed(channels);
        if !topics.is_empty() {
            tokio::spawn(self.0.clone().catch_up_all(topics));
        }
    }
}

impl Followed {
    pub fn new(channel: String) -> Self {
        let state = State {
            follow: Follow::default(),
            interest: 0,
            idle_since: Some(Instant::now()),
            renewed: Instant::now(),
            published: None,
            reader: Reader::None,
            over: false,
        };
        Self { channel, state: Mutex::new(state), changed: Notify::new() }
    }

    pub fn leave(&self) {
        let mut state = self.state.lock();
        state.interest = state.interest.saturating_sub(1);
        if state.interest == 0 {
            state.idle_since = Some(Instant::now());
        }
    }

    /// Waits until the state is as `is` wants it to be.
    pub(super) async fn wait<T>(
        &self,
        limit: Duration,
        mut is: impl FnMut(&mut State) -> Option<T>,
    ) -> Result<T, BrokerError> {
        let waiting = async {
            loop {
                let mut changed = std::pin::pin!(self.changed.notified());
                changed.as_mut().enable();
                if let Some(answer) = is(&mut self.state.lock()) {
                    return answer;
                }
                changed.await;
            }
        };
        tokio::time::timeout(limit, waiting).await.map_err(|_| BrokerError::Unanswered)
    }
}

impl Hub {
    fn arrived(self: &Arc<Self>, name: &TopicName, topic: &Arc<Topic>, payload: Vec<u8>) {
        let (Some(broker), Some(followed)) = (self.remote(), &topic.followed) else { return };
        let arrival = broker.open(name.clone(), payload);
        let crowded = topic.pending.lock().bytes() > 4 * PENDING;
        let mut state = followed.state.lock();
        let step = match arrival {
            Some(arrival) if !crowded => state.follow.arrived(arrival),
            // What cannot be read is missing, and so is what there is no room for; both show in what is read then.
            _ => state.follow.refuse(),
        };
        match step {
            Step::Deliver(publication) => self.deliver(topic, &[publication]),
            Step::Repeated => self.metrics.redis_repeated.inc(),
            Step::Waits => return,
            Step::Read => {
                // The link's beginning reads all topics, and a first subscriber its own.
                if state.follow.at().is_some() && state.reader == Reader::None {
                    drop(state);
                    tokio::spawn(self.clone().catch_up(name.clone(), topic.clone()));
                }
                return;
            }
        }
        drop(state);
        followed.changed.notify_waiters();
    }

    /// The topics of these channels, as far as they are followed.
    fn followed(&self, channels: &[String]) -> Vec<(TopicName, Arc<Topic>)> {
        let Some(broker) = self.remote() else { return Vec::new() };
        let of = |channel: &String| {
            let name = broker.redis.keys.topic(channel)?;
            self.shard(&name).lock().get_key_value(&*name).map(|(name, topic)| (name.clone(), topic.clone()))
        };
        channels.iter().filter_map(of).collect()
    }

    /// The link is there again: what every topic has missed meanwhile is read.
    async fn catch_up_all(self: Arc<Self>, topics: Vec<(TopicName, Arc<Topic>)>) {
        let next = AtomicUsize::new(0);
        let reader = || async {
            while let Some((name, topic)) = topics.get(next.fetch_add(1, Ordering::Relaxed)) {
                self.clone().catch_up(name.clone(), topic.clone()).await;
            }
        };
        let readers: Vec<_> = (0..READERS.min(topics.len())).map(|_| Box::pin(reader())).collect();
        for_all(readers).await;
    }

    /// Reads what a topic has missed, and delivers it before anything later. One task does so at a time; who comes while it
    /// does has it look once more.
    pub(super) async fn catch_up(self: Arc<Self>, name: TopicName, topic: Arc<Topic>) {
        let (Some(broker), Some(followed)) = (self.remote().cloned(), &topic.followed) else { return };
        {
            let mut state = followed.state.lock();
            if state.follow.is_live() || state.over {
                return;
            }
            if let Reader::Reads { once_more } = &mut state.reader {
                *once_more = true;
                return;
            }
            state.reader = Reader::Reads { once_more: false };
        }
        let mut failed = 0;
        loop {
            let read = self.read_missed(&broker, &name, &topic, followed).await;
            let mut state = followed.state.lock();
            if let Err(error) = read {
                failed += 1;
                state.follow.lose();
                if failed == ATTEMPTS {
                    tracing::error!(topic = %name, %error, "what the topic has missed cannot be read now: it is tried again");
                }
            }
            let once_more = state.reader == Reader::Reads { once_more: true };
            let gives_up = matches!(read, Err(BrokerError::Gone)) || failed >= ATTEMPTS;
            if state.follow.is_live() || state.over || (gives_up && !once_more) {
                state.reader = Reader::None;
                drop(state);
                followed.changed.notify_waiters();
                return;
            }
            state.reader = Reader::Reads { once_more: false };
        }
    }

    /// Reads one answer's worth of what a topic has missed.
    async fn read_missed(
        self: &Arc<Self>,
        broker: &RedisBroker,
        name: &TopicName,
        topic: &Arc<Topic>,
        followed: &Followed,
    ) -> Result<(), BrokerError> {
        // What is read before Redis has confirmed the subscription says nothing of what comes behind it.
        broker.redis.confirmed(&followed.channel).await.map_err(|fault| match fault {
            Fault::Gone => BrokerError::Gone,
            _ => BrokerError::Unanswered,
        })?;
        topic.room().await;
        let after = followed.state.lock().follow.begin_read();
        let stretch = broker.missed(name, after).await?;
        self.take_in(name, topic, followed, stretch).await;
        Ok(())
    }

    /// Delivers what was found, and tells of what was not.
    async fn take_in(self: &Arc<Self>, name: &TopicName, topic: &Arc<Topic>, followed: &Followed, stretch: Stretch) {
        let (found, new) = {
            let mut state = followed.state.lock();
            let new = state.follow.at().is_none();
            let found = state.follow.read(stretch);
            self.deliver(topic, &found.deliver);
            (found, new)
        };
        self.metrics.redis_filled.inc_by(found.filled);
        // Who has subscribed while there was no link may have missed something before the topic's place was known.
        if found.gap || (new && topic.subscribed() > 0) {
            // What came before the gap goes before the word of it.
            topic.idle().await;
            let mut state = followed.state.lock();
            let position = state.follow.at().map(|at| Position { epoch: at.epoch, offset: at.offset });
            let subscribers = topic.tell_gap(name, position);
            self.metrics.redis_gaps.inc();
            tracing::warn!(topic = %name, subscribers, "what was missed is not in the history: the subscribers are told");
            if found.gap {
                let found = state.follow.resume();
                self.deliver(topic, &found.deliver);
            }
        }
        followed.changed.notify_waiters();
    }

    /// Forgets topics that had no subscriber for a while, and renews those that are followed. Called now and then.
    pub(super) fn sweep_followed(self: &Arc<Self>) {
        let Some(broker) = self.remote() else { return };
        let mut renew = Vec::new();
        for shard in &self.shards {
            shard.lock().retain(|name, topic| {
                let Some(followed) = &topic.followed else { return true };
                let mut state = followed.state.lock();
                if state.interest == 0 && state.idle_since.is_some_and(|since| since.elapsed() >= LINGER) {
                    state.over = true;
                    broker.redis.unwant(&followed.channel);
                    self.metrics.topics.dec();
                    return false;
                }
                if state.follow.is_behind() && state.reader == Reader::None && state.follow.at().is_some() {
                    tokio::spawn(self.clone().catch_up(name.clone(), topic.clone()));
                }
                if state.renewed.elapsed() > KNOWN / 3 {
                    state.renewed = Instant::now();
                    renew.push(name.clone());
                }
                true
            });
        }
        if !renew.is_empty() {
            let broker = broker.clone();
            tokio::spawn(async move {
                if let Err(error) = broker.renew(&renew).await {
                    tracing::warn!(%error, topics = renew.len(), "topics could not be renewed; it is tried again");
                }
            });
        }
    }
}

impl State {
    /// Whether a subscriber can begin here: all that it must not get, or knows of, has been delivered.
    pub(super) fn reached(&self, since: Option<Position>) -> bool {
        let Some(at) = self.follow.at().filter(|_| self.follow.is_live()) else { return false };
        let published = self.published.is_none_or(|own| own.epoch != at.epoch || own.sequence <= at.sequence);
        published && since.is_none_or(|since| since.epoch != at.epoch || since.offset <= at.offset)
    }
}

impl Topic {
    /// Tells every subscriber that something was lost before what comes next. Says how many there are.
    fn tell_gap(&self, name: &TopicName, position: Option<Position>) -> usize {
        let subscribers = self.subscribers.lock();
        let mut told = 0;
        for subscriber in subscribers.range(0..subscribers.len()) {
            subscriber.outbox.tell_gap(name, position);
            told += 1;
        }
        told
    }
}

/// Polls all until all are done.
async fn for_all(mut all: Vec<std::pin::Pin<Box<impl Future<Output = ()>>>>) {
    std::future::poll_fn(|context| {
        all.retain_mut(|one| one.as_mut().poll(context).is_pending());
        if all.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
}
