//! Topics that other nodes share by way of Redis: publish there, follow what comes back, read what is missing.
//!
//! A topic is followed from its first subscriber on this node until a while after its last. Everything that is delivered,
//! also what this node has published itself, comes by way of the subscription, so all nodes deliver in Redis' order.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::followed::{Followed, State};
use super::topic::{Subscriber, Topic};
use super::{Audience, From, Hub, PENDING, PublishError, Published, Subscription};
use crate::broker::{Broker, BrokerError, Page, RedisBroker, Retention, Sent};
use crate::config::RedisGone;
use crate::message::{Position, Publication, TopicName};
use crate::outbox::Outbox;
/// An interest in a topic, given back where it does not become a subscription.
struct Interest<'a>(&'a Followed);

impl Drop for Interest<'_> {
    fn drop(&mut self) {
        self.0.leave();
    }
}

impl Hub {
    pub(super) fn remote(&self) -> Option<&Arc<RedisBroker>> {
        match &self.broker {
            Broker::Redis(broker) => Some(broker),
            Broker::Memory(_) => None,
        }
    }

    /// Whether publishing and subscribing wait for something.
    pub fn waits(&self) -> bool {
        self.remote().is_some()
    }

    /// As `publish`; by way of Redis where there is one.
    pub async fn publish_anywhere(
        self: &Arc<Self>,
        publication: Publication,
        retention: Retention,
        idempotency_key: Option<&str>,
        gone: RedisGone,
    ) -> Result<Published, PublishError> {
        match &self.broker {
            Broker::Memory(_) => self.publish(publication, retention, idempotency_key),
            Broker::Redis(broker) => {
                Box::pin(self.publish_to(broker, publication, retention, idempotency_key, gone)).await
            }
        }
    }

    async fn publish_to(
        self: &Arc<Self>,
        broker: &RedisBroker,
        publication: Publication,
        retention: Retention,
        idempotency_key: Option<&str>,
        gone: RedisGone,
    ) -> Result<Published, PublishError> {
        self.metrics.publications.inc();
        let topic = self.shard(publication.topic.as_str()).lock().get(&publication.topic).cloned();
        let behind = topic.as_ref().map_or(0, |topic| topic.pending.lock().bytes());
        if behind > 4 * PENDING {
            return Err(PublishError::Behind);
        }
        if gone == RedisGone::Queue && self.queue.is_in_use() {
            return self.queue_up(broker, publication, retention, idempotency_key);
        }
        match broker.publish(&publication, retention, idempotency_key).await {
            Ok(Sent::Duplicate) => return Ok(Published::Duplicate),
            Ok(Sent::Published(mark)) => {
                // Somebody may have begun to follow it meanwhile.
                let topic = self.shard(publication.topic.as_str()).lock().get(&publication.topic).cloned();
                if let Some(followed) = topic.as_ref().and_then(|topic| topic.followed.as_ref()) {
                    let published = &mut followed.state.lock().published;
                    if published.is_none_or(|known| known.epoch != mark.epoch || known.sequence < mark.sequence) {
                        *published = Some(mark);
                    }
                }
            }
            Err(BrokerError::Gone) if gone == RedisGone::Local => {
                if let Some(topic) = &topic {
                    self.deliver(topic, &[Arc::new(publication)]);
                }
            }
            Err(BrokerError::Gone) if gone == RedisGone::Queue => {
                return self.queue_up(broker, publication, retention, idempotency_key);
            }
            Err(error) => return Err(error.into()),
        }
        match topic {
            Some(topic) if behind > PENDING => Ok(Published::Congested(topic)),
            _ => Ok(Published::Done),
        }
    }

    /// Hands publications to the topic's flusher.
    pub(super) fn deliver(self: &Arc<Self>, topic: &Arc<Topic>, publications: &[Arc<Publication>]) {
        if publications.is_empty() {
            return;
        }
        let special = topic.audiences.lock().has_special();
        let mut pending = topic.pending.lock();
        publications.iter().for_each(|publication| pending.push(publication, special));
        if !std::mem::replace(&mut pending.flushing, true) {
            self.flushing.fetch_add(1, Ordering::Relaxed);
            tokio::spawn(self.clone().flush(topic.clone()));
        }
        if pending.is_wanted() {
            topic.more.notify_waiters();
        }
    }

    /// As `subscribe`; by way of Redis where there is one.
    pub async fn subscribe_anywhere(
        self: &Arc<Self>,
        name: &TopicName,
        outbox: &Arc<Outbox>,
        audience: &Arc<dyn Audience>,
        from: From,
        gone: RedisGone,
    ) -> Result<(Subscription, Option<Page>), BrokerError> {
        match &self.broker {
            Broker::Memory(_) => self.subscribe(name, outbox, audience, from),
            Broker::Redis(broker) => Box::pin(self.subscribe_to(broker, name, outbox, audience, from, gone)).await,
        }
    }

    async fn subscribe_to(
        self: &Arc<Self>,
        broker: &RedisBroker,
        name: &TopicName,
        outbox: &Arc<Outbox>,
        audience: &Arc<dyn Audience>,
        from: From,
        gone: RedisGone,
    ) -> Result<(Subscription, Option<Page>), BrokerError> {
        let topic = self.topic(broker, name);
        let Some(followed) = &topic.followed else { return Err(BrokerError::Gone) };
        let interest = Interest(followed);
        if followed.state.lock().follow.is_behind() {
            if broker.redis.reaches(&followed.channel) {
                // Does nothing where somebody reads already.
                tokio::spawn(self.clone().catch_up(name.clone(), topic.clone()));
            } else if gone == RedisGone::Refuse {
                return Err(BrokerError::Gone);
            }
        }
        let enter = |state: &State| {
            let from = topic.pending.lock().next();
            let audience = topic.audiences.lock().enter(audience, outbox);
            let slot = topic.subscribers.lock().insert(Subscriber { outbox: outbox.clone(), from, audience });
            self.metrics.subscriptions.inc();
            (Subscription { topic: name.clone(), slot }, state.follow.at())
        };
        let since = match from {
            From::Since(since) => Some(since),
            From::Now | From::Position => None,
        };
        let limit = broker.redis.config.timeout.0;
        let mut entered = followed.wait(limit, |state| state.reached(since).then(|| enter(state))).await;
        if entered.is_err() && since.is_some() {
            // From a future that does not come: the history says so.
            entered = followed.wait(limit, |state| state.reached(None).then(|| enter(state))).await;
        }
        let (subscription, at) = match entered {
            Ok((subscription, Some(at))) => (subscription, at),
            // Without a link, and told of a gap when it is there.
            _ if gone != RedisGone::Refuse && !broker.redis.reaches(&followed.channel) => {
                let (subscription, at) = enter(&followed.state.lock());
                std::mem::forget(interest);
                let position = at.map(|at| Position { epoch: at.epoch, offset: at.offset });
                let lost =
                    |since| Page { publications: Vec::new(), position: position.unwrap_or(since), complete: false };
                return Ok((subscription, since.map(lost)));
            }
            Ok((subscription, None)) => {
                std::mem::forget(interest);
                self.unsubscribe(&subscription);
                return Err(BrokerError::Gone);
            }
            Err(error) => return Err(error),
        };
        std::mem::forget(interest);
        let position = Position { epoch: at.epoch, offset: at.offset };
        let page = match from {
            From::Now => None,
            From::Position => Some(Page { publications: Vec::new(), position, complete: true }),
            From::Since(since) => match self.page(broker, name, since, position).await {
                Ok(page) => Some(page),
                Err(error) => {
                    self.unsubscribe(&subscription);
                    return Err(error);
                }
            },
        };
        Ok((subscription, page))
    }

    /// The topic, which is followed from now on; with an interest that is the caller's to give back.
    fn topic(self: &Arc<Self>, broker: &RedisBroker, name: &TopicName) -> Arc<Topic> {
        let mut shard = self.shard(name.as_str()).lock();
        let topic = shard.entry(name.clone()).or_insert_with(|| {
            self.metrics.topics.inc();
            let channel = broker.redis.keys.channel(name.as_str());
            // Under the shard's lock, so that nobody's end of following comes in between.
            broker.redis.want(&channel);
            Arc::new(Topic { followed: Some(Followed::new(channel)), ..Topic::default() })
        });
        if let Some(followed) = &topic.followed {
            let mut state = followed.state.lock();
            state.interest += 1;
            state.idle_since = None;
        }
        topic.clone()
    }

    /// What was missed since a position, up to the place from which a subscriber gets what is live.
    async fn page(
        &self,
        broker: &RedisBroker,
        name: &TopicName,
        since: Position,
        live: Position,
    ) -> Result<Page, BrokerError> {
        if since == live {
            return Ok(Page { publications: Vec::new(), position: live, complete: true });
        }
        let mut page = broker.history(name, Some(since), usize::MAX).await?;
        page.complete &= page.position.epoch == live.epoch;
        page.publications.retain(|one| one.position.is_some_and(|one| one.offset <= live.offset));
        if page.publications.last().and_then(|last| last.position) != Some(live) {
            page.complete = false;
        }
        page.position = live;
        Ok(page)
    }

    /// What a subscriber of the topic asks to have once more; its deliveries wait meanwhile.
    pub async fn recover(&self, name: &TopicName, since: Position) -> Result<Page, BrokerError> {
        match &self.broker {
            Broker::Memory(_) => self.history_here(name, Some(since), usize::MAX),
            Broker::Redis(broker) => Box::pin(self.recover_from(broker, name, since)).await,
        }
    }

    async fn recover_from(&self, broker: &RedisBroker, name: &TopicName, since: Position) -> Result<Page, BrokerError> {
        let topic = self.shard(name.as_str()).lock().get(name).cloned();
        let Some(followed) = topic.as_ref().and_then(|topic| topic.followed.as_ref()) else {
            return Err(BrokerError::Gone);
        };
        let live = followed
            .wait(broker.redis.config.timeout.0, |state| state.reached(None).then(|| state.follow.at()).flatten());
        let live = live.await?;
        self.page(broker, name, since, Position { epoch: live.epoch, offset: live.offset }).await
    }

    /// What a topic has kept.
    pub async fn history(&self, name: &TopicName, since: Option<Position>, limit: usize) -> Result<Page, BrokerError> {
        match &self.broker {
            Broker::Memory(_) => self.history_here(name, since, limit),
            Broker::Redis(broker) => Box::pin(broker.history(name, since, limit)).await,
        }
    }
}
