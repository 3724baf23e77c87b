//! The broker on Redis: several nodes, one history. Publications come back by way of subscriptions, in Redis' order.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use redis::Value;

use super::envelope::{self, Unreadable};
use super::{Arrival, BrokerError, IDEMPOTENCY_WINDOW, Mark, Page, Retention, Sent, Stretch};
use crate::message::{Position, Publication, TopicName};
use crate::redis::{Fault, Redis, Script};
use crate::source::Random;

/// How long a topic is known after its last publication, or since somebody has looked, at least. Nodes that follow it
/// renew that: an epoch that ends in silence would be a gap where nothing is missing.
pub const KNOWN: Duration = Duration::from_secs(3600);
/// Publications of one answer: Redis does nothing else while it reads them.
const CHUNK: usize = 128;
/// What one recovery may read, in bytes. Who has missed more must load its state anew.
const RECOVERY: usize = 16 << 20;

/// Publishes to Redis and reads from it.
pub struct RedisBroker {
    pub redis: Arc<Redis>,
    random: Random,
    publish: Script,
    read: Script,
    pending: AtomicUsize,
}

impl RedisBroker {
    pub fn new(redis: Arc<Redis>, random: Random) -> Self {
        let (publish, read) = (Script::new(include_str!("publish.lua")), Script::new(include_str!("read.lua")));
        Self { redis, random, publish, read, pending: AtomicUsize::new(0) }
    }

    /// Appends to the topic's history and publishes. An error that says so leaves open whether that has happened.
    pub async fn publish(
        &self,
        publication: &Publication,
        retention: Retention,
        idempotency_key: Option<&str>,
    ) -> Result<Sent, BrokerError> {
        let _place = self.enter()?;
        let channel = self.redis.keys.channel(publication.topic.as_str());
        let (state, history) = self.redis.keys.topic_state(&channel);
        let key = idempotency_key.map(|key| self.redis.keys.idempotency(&channel, key));
        let keys = [Some(state.as_str()), Some(history.as_str()), key.as_deref()];
        let keys: Vec<_> = keys.into_iter().flatten().collect();
        let body = envelope::body(publication);
        let texts = [
            self.epoch(),
            retention.size.to_string(),
            millis(retention.ttl),
            millis(retention.ttl.max(KNOWN)),
            channel,
            self.redis.publish_command().to_owned(),
        ];
        let mut arguments: Vec<_> = texts.iter().map(String::as_bytes).collect();
        let window = millis(IDEMPOTENCY_WINDOW);
        arguments.extend([&body[..], window.as_bytes()]);
        let timer = self.redis.metrics.redis_publish_seconds.start_timer();
        let answer = self.redis.invoke(&self.publish, &keys, &arguments).await.map_err(|fault| self.fault(fault));
        timer.observe_duration();
        match answer? {
            Value::Nil => Ok(Sent::Duplicate),
            Value::BulkString(head) => envelope::head(&head).map(Sent::Published).map_err(|_| BrokerError::Strange),
            _ => Err(BrokerError::Strange),
        }
    }

    /// The first `limit` publications after `since`, or the last `limit` of all.
    pub async fn history(&self, topic: &TopicName, since: Option<Position>, limit: usize) -> Result<Page, BrokerError> {
        let Some(since) = since else {
            let mut stretch = self.read(topic, None, limit.min(CHUNK * 8)).await?;
            stretch.arrivals.reverse();
            return Ok(stretch.page(true));
        };
        let mut whole = self.read(topic, Some((since.epoch, since.offset)), limit.min(CHUNK)).await?;
        let mark = whole.mark;
        let first = whole.arrivals.first().and_then(|first| first.publication.position);
        let reaches = first.map_or(since.offset == mark.offset, |first| first.offset == since.offset + 1);
        let complete = since.epoch == mark.epoch && since.offset <= mark.offset && reaches;
        let bytes_of =
            |stretch: &Stretch| stretch.arrivals.iter().map(|one| one.publication.message.len()).sum::<usize>();
        let mut bytes = bytes_of(&whole);
        let mut read = whole.arrivals.len();
        while complete && read == CHUNK && whole.arrivals.len() < limit {
            let last = whole.arrivals.last().and_then(|last| last.publication.position);
            let Some(last) = last.filter(|last| last.offset < mark.offset) else { break };
            let rest = limit - whole.arrivals.len();
            let more = self.read(topic, Some((last.epoch, last.offset)), rest.min(CHUNK)).await?;
            bytes += bytes_of(&more);
            let next = more.arrivals.first().and_then(|next| next.publication.position);
            if bytes > RECOVERY || next.is_none_or(|next| next.offset != last.offset + 1) {
                return Ok(Stretch { mark, arrivals: Vec::new(), there: None }.page(false));
            }
            read = more.arrivals.len();
            whole.arrivals.extend(more.arrivals);
        }
        Ok(whole.page(complete))
    }

    /// What a node that was at `after` has missed, and where the topic stands; at most one answer's worth.
    pub async fn missed(&self, topic: &TopicName, after: Option<Mark>) -> Result<Stretch, BrokerError> {
        match after {
            Some(after) => self.read(topic, Some((after.epoch, after.offset)), CHUNK).await,
            None => self.read(topic, None, 0).await,
        }
    }

    async fn read(&self, topic: &TopicName, since: Option<(u64, u64)>, count: usize) -> Result<Stretch, BrokerError> {
        let channel = self.redis.keys.channel(topic.as_str());
        let (state, history) = self.redis.keys.topic_state(&channel);
        let (epoch, offset) = since.map(|(epoch, offset)| (epoch.to_string(), offset.to_string())).unwrap_or_default();
        let texts = [self.epoch(), millis(KNOWN), epoch, offset, count.to_string()];
        let arguments: Vec<_> = texts.iter().map(String::as_bytes).collect();
        let answer = self.redis.invoke(&self.read, &[&state, &history], &arguments).await;
        let answer = answer.map_err(|fault| self.fault(fault))?;
        let Value::Array(parts) = answer else { return Err(BrokerError::Strange) };
        let Ok([epoch, sequence, offset, Value::Array(publications)]) = <[Value; 4]>::try_from(parts) else {
            return Err(BrokerError::Strange);
        };
        let (Some(epoch), Some(sequence), Some(offset)) = (number(&epoch), number(&sequence), number(&offset)) else {
            return Err(BrokerError::Strange);
        };
        let opened = publications.into_iter().filter_map(|one| match one {
            Value::BulkString(envelope) => self.open(topic.clone(), envelope),
            _ => None,
        });
        let mut arrivals: Vec<_> = opened.collect();
        let from = since.filter(|(since, _)| *since == epoch).map(|(_, offset)| offset);
        let there = match arrivals.first() {
            Some(first) if from == Some(first.mark.offset) => Some(arrivals.remove(0)),
            _ => None,
        };
        arrivals.truncate(count);
        Ok(Stretch { mark: Mark { epoch, sequence, offset }, arrivals, there })
    }

    /// Reads what a channel has carried.
    pub fn open(&self, topic: TopicName, envelope: Vec<u8>) -> Option<Arrival> {
        match envelope::open(topic.clone(), envelope) {
            Ok(arrival) => Some(arrival),
            Err(why) => {
                // One line, then the counter: it may be every publication.
                if self.redis.metrics.redis_unreadable.get() == 0 {
                    let what = match why {
                        Unreadable::Version => "update this gateway, or wait until all are updated",
                        Unreadable::Broken => "see that nothing else writes under the prefix of [redis]",
                    };
                    tracing::error!(%topic, %why, what, "a publication from Redis cannot be read");
                }
                self.redis.metrics.redis_unreadable.inc();
                None
            }
        }
    }

    /// Renews that these topics are known.
    pub async fn renew(&self, topics: &[TopicName]) -> Result<(), BrokerError> {
        for topic in topics {
            let (state, _) = self.redis.keys.topic_state(&self.redis.keys.channel(topic.as_str()));
            let renew = redis::cmd("PEXPIRE").arg(state).arg(millis(KNOWN)).arg("GT").to_owned();
            self.redis.query(&renew).await.map_err(|fault| self.fault(fault))?;
        }
        Ok(())
    }

    /// An idempotency key that was not used before.
    pub fn fresh_key(&self) -> Box<str> {
        let number = || self.random.number().unwrap_or_else(|_| crate::message::unix_now());
        format!("queued-{:016x}{:016x}", number(), number()).into()
    }

    fn enter(&self) -> Result<Place<'_>, BrokerError> {
        let place = Place(self);
        self.redis.metrics.redis_pending.inc();
        if self.pending.fetch_add(1, Ordering::AcqRel) >= self.redis.config.pending {
            return Err(BrokerError::Busy);
        }
        Ok(place)
    }

    /// 53 bits: JavaScript, in plugins and in browsers, rounds larger numbers, and a rounded epoch is another one.
    fn epoch(&self) -> String {
        self.random.number().map_or_else(|_| crate::message::unix_now(), |number| number >> 11).to_string()
    }

    fn fault(&self, fault: Fault) -> BrokerError {
        match fault {
            Fault::Gone => BrokerError::Gone,
            Fault::Timeout | Fault::Broken => BrokerError::Unanswered,
            Fault::Refused(why) => {
                tracing::error!(
                    why,
                    "Redis refuses a command: see its memory, its version (7.0 at least), its users' rights"
                );
                BrokerError::Refused
            }
        }
    }
}

/// A place among the publications on their way.
struct Place<'a>(&'a RedisBroker);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.pending.fetch_sub(1, Ordering::AcqRel);
        self.0.redis.metrics.redis_pending.dec();
    }
}

impl Stretch {
    fn page(self, complete: bool) -> Page {
        let position = Position { epoch: self.mark.epoch, offset: self.mark.offset };
        Page { publications: self.arrivals.into_iter().map(|one| one.publication).collect(), position, complete }
    }
}

fn millis(span: Duration) -> String {
    span.as_millis().max(1).to_string()
}

fn number(value: &Value) -> Option<u64> {
    match value {
        Value::BulkString(bytes) => std::str::from_utf8(bytes).ok()?.parse().ok(),
        _ => None,
    }
}
