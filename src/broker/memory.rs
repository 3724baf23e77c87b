//! The embedded broker: history in this process, for one node alone.

use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::time::Instant;

use super::{Accepted, BrokerError, IDEMPOTENCY_WINDOW, Page, Retention};
use crate::message::{Position, Publication, TopicName};
use crate::source::{Clock, Random};

const SHARDS: usize = 64;
/// Topics with history or idempotency keys that a shard holds: a million in all.
const TOPICS: usize = 1_000_000 / SHARDS;
/// Idempotency keys that a topic remembers; the oldest is forgotten for a new one.
const KEYS: usize = 10_000;

/// History of topics, sharded by name.
pub struct MemoryBroker {
    shards: Box<[Mutex<HashMap<TopicName, Log>>]>,
    hasher: RandomState,
    topics_per_shard: usize,
    /// What all histories take together, and may take.
    bytes: AtomicUsize,
    limit: usize,
    clock: Clock,
    random: Random,
}

struct Log {
    position: Position,
    entries: VecDeque<Arc<Publication>>,
    /// When the entries have outlived their time.
    expires: Instant,
    /// Until then the position is kept for those who have read it.
    known_until: Instant,
    /// Idempotency keys in the order of their use, and the same to look in.
    keys: VecDeque<(Arc<str>, Instant)>,
    known: HashSet<Arc<str>>,
}

impl MemoryBroker {
    /// A broker that holds about `limit` bytes of history.
    pub fn new(limit: usize, clock: Clock, random: Random) -> Self {
        Self { clock, random, ..Self::with_capacity(TOPICS * SHARDS, limit) }
    }

    fn with_capacity(topics: usize, limit: usize) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
            topics_per_shard: (topics / SHARDS).max(1),
            bytes: AtomicUsize::new(0),
            limit,
            clock: Clock::default(),
            random: Random::default(),
        }
    }

    fn shard(&self, topic: &str) -> &Mutex<HashMap<TopicName, Log>> {
        &self.shards[self.hasher.hash_one(topic) as usize % SHARDS]
    }

    fn forget_spent(&self, shard: &mut HashMap<TopicName, Log>, now: Instant) {
        shard.retain(|_, log| {
            self.bytes.fetch_sub(log.expire(now), Ordering::Relaxed);
            !log.is_spent(now)
        });
    }

    /// What all histories take now, in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Appends to the topic's history and gives the publication its position.
    pub fn publish(
        &self,
        mut publication: Publication,
        retention: Retention,
        idempotency_key: Option<&str>,
    ) -> Result<Accepted, BrokerError> {
        // What leaves no trace needs no lock.
        if retention.size == 0 && idempotency_key.is_none() {
            return Ok(Accepted::Deliver(Arc::new(publication)));
        }
        let now = self.clock.now();
        let mut shard = self.shard(publication.topic.as_str()).lock();
        if shard.len() >= self.topics_per_shard && !shard.contains_key(&publication.topic) {
            self.forget_spent(&mut shard, now);
            if shard.len() >= self.topics_per_shard {
                return Err(BrokerError::Full);
            }
        }
        let log = shard.entry(publication.topic.clone()).or_insert_with(|| Log::new(now, &self.random));
        self.bytes.fetch_sub(log.expire(now), Ordering::Relaxed);
        // What a topic drops makes room for what it takes; without that a full broker would be full for ever.
        let surplus = (log.entries.len() + 1).saturating_sub(retention.size as usize).min(log.entries.len());
        let (mut freed, mut taken) = (0, 0);
        if retention.size > 0 {
            freed = log.entries.iter().take(surplus).map(|oldest| cost(oldest)).sum();
            taken = cost(&publication);
            // Before anything is changed: what is refused may come again, under the same key.
            if self.bytes.load(Ordering::Relaxed) - freed + taken > self.limit {
                return Err(BrokerError::Full);
            }
        }
        if let Some(key) = idempotency_key
            && !log.admit(key, now)
        {
            return Ok(Accepted::Duplicate);
        }
        if retention.size == 0 {
            return Ok(Accepted::Deliver(Arc::new(publication)));
        }
        log.entries.drain(..surplus);
        self.bytes.fetch_sub(freed, Ordering::Relaxed);
        self.bytes.fetch_add(taken, Ordering::Relaxed);
        log.position.offset += 1;
        publication.position = Some(log.position);
        let publication = Arc::new(publication);
        log.entries.push_back(publication.clone());
        log.expires = now + retention.ttl;
        Ok(Accepted::Deliver(publication))
    }

    /// The first `limit` publications after `since`, or the last `limit` of all.
    pub fn history(&self, topic: &TopicName, since: Option<Position>, limit: usize) -> Result<Page, BrokerError> {
        let now = self.clock.now();
        let mut shard = self.shard(topic.as_str()).lock();
        // To look at a topic gives it an epoch, so that what is published next can be recovered from here.
        if shard.len() >= self.topics_per_shard && !shard.contains_key(topic) {
            self.forget_spent(&mut shard, now);
            if shard.len() >= self.topics_per_shard {
                return Err(BrokerError::Full);
            }
        }
        let log = shard.entry(topic.clone()).or_insert_with(|| Log::new(now, &self.random));
        self.bytes.fetch_sub(log.expire(now), Ordering::Relaxed);
        // The position is what the topic is known by: whoever has just read it must find it again.
        log.known_until = now + IDEMPOTENCY_WINDOW;
        let first = log.position.offset + 1 - log.entries.len() as u64;
        let (complete, skip) = match since {
            None => (true, log.entries.len().saturating_sub(limit)),
            Some(since) if since.epoch != log.position.epoch || since.offset > log.position.offset => (false, 0),
            Some(since) if since.offset + 1 < first => (false, 0),
            Some(since) => (true, (since.offset + 1 - first) as usize),
        };
        let publications = log.entries.iter().skip(skip).take(limit).cloned().collect();
        Ok(Page { publications, position: log.position, complete })
    }

    /// Forgets what has outlived its time. Called now and then.
    pub fn sweep(&self) {
        let now = self.clock.now();
        for shard in &self.shards {
            let mut shard = shard.lock();
            self.forget_spent(&mut shard, now);
            if shard.capacity() > 4 * shard.len() + 64 {
                shard.shrink_to_fit();
            }
        }
    }
}

impl Log {
    fn new(now: Instant, random: &Random) -> Self {
        // 53 bits: JavaScript, in plugins and in browsers, rounds larger numbers, and a rounded epoch is another one.
        let epoch = random.number().map_or_else(|_| crate::message::unix_now(), |number| number >> 11);
        Self {
            position: Position { epoch, offset: 0 },
            entries: VecDeque::new(),
            expires: now,
            known_until: now,
            keys: VecDeque::new(),
            known: HashSet::new(),
        }
    }

    /// False: the key was used within the window.
    fn admit(&mut self, key: &str, now: Instant) -> bool {
        while self.keys.front().is_some_and(|(_, until)| *until <= now) || self.keys.len() >= KEYS {
            if let Some((oldest, _)) = self.keys.pop_front() {
                self.known.remove(&oldest);
            }
        }
        let key: Arc<str> = key.into();
        if !self.known.insert(key.clone()) {
            return false;
        }
        self.keys.push_back((key, now + IDEMPOTENCY_WINDOW));
        true
    }

    /// Says how many bytes it has freed.
    fn expire(&mut self, now: Instant) -> usize {
        if self.expires > now {
            return 0;
        }
        std::mem::take(&mut self.entries).iter().map(|entry| cost(entry)).sum()
    }

    fn is_spent(&self, now: Instant) -> bool {
        self.expires.max(self.known_until) <= now && self.keys.back().is_none_or(|(_, until)| *until <= now)
    }
}

/// What an entry of a history takes, in bytes, roughly.
fn cost(publication: &Publication) -> usize {
    let metadata: usize = publication.metadata.iter().map(|(name, value)| name.len() + value.len() + 32).sum();
    publication.message.len() + metadata + 192
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::message::{Message, MessageRef};

    const KEEP: Retention = Retention { size: 3, ttl: Duration::from_secs(60) };

    fn broker(limit: usize) -> MemoryBroker {
        MemoryBroker::new(limit, Clock::default(), Random::default())
    }

    fn publication(topic: &str, text: &str) -> Publication {
        Publication {
            topic: TopicName::parse(topic).unwrap(),
            message: MessageRef::Text(text).to_owned(),
            position: None,
            time: 0,
            key: None,
            metadata: Vec::new(),
            exclude: Vec::new(),
        }
    }

    fn offset(accepted: Accepted) -> u64 {
        let Accepted::Deliver(publication) = accepted else { panic!("a duplicate") };
        publication.position.map_or(0, |position| position.offset)
    }

    fn texts(page: &Page) -> Vec<String> {
        let text = |publication: &Arc<Publication>| match &publication.message {
            Message::Text(text) => text.as_str().to_owned(),
            Message::Binary(_) => panic!("text went in"),
        };
        page.publications.iter().map(text).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn history_keeps_its_size_and_its_time() {
        let broker = broker(1 << 20);
        let topic = TopicName::parse("t").unwrap();
        for (n, text) in (1..).zip(["a", "b", "c", "d"]) {
            assert_eq!(offset(broker.publish(publication("t", text), KEEP, None).unwrap()), n);
        }
        let page = broker.history(&topic, None, 10).unwrap();
        assert_eq!(texts(&page), ["b", "c", "d"]);
        assert_eq!((page.position.offset, page.complete), (4, true));
        assert_eq!(texts(&broker.history(&topic, None, 1).unwrap()), ["d"]);

        tokio::time::advance(Duration::from_secs(600)).await;
        let page = broker.history(&topic, None, 10).unwrap();
        assert!(page.publications.is_empty());
        assert_eq!(page.position.offset, 4, "the epoch goes on while somebody looks");
        tokio::time::advance(Duration::from_secs(3600)).await;
        broker.sweep();
        assert!(broker.shards.iter().all(|shard| shard.lock().is_empty()));
    }

    #[tokio::test(start_paused = true)]
    async fn recovery_knows_what_it_has_lost() {
        let broker = broker(1 << 20);
        let topic = TopicName::parse("t").unwrap();
        for text in ["a", "b", "c", "d", "e"] {
            broker.publish(publication("t", text), KEEP, None).unwrap();
        }
        let epoch = broker.history(&topic, None, 0).unwrap().position.epoch;
        let since = |epoch, offset| broker.history(&topic, Some(Position { epoch, offset }), 10).unwrap();
        assert_eq!((texts(&since(epoch, 3)), since(epoch, 3).complete), (vec!["d".into(), "e".into()], true));
        assert_eq!((texts(&since(epoch, 2)).len(), since(epoch, 2).complete), (3, true));
        assert_eq!((texts(&since(epoch, 5)).len(), since(epoch, 5).complete), (0, true));
        assert!(!since(epoch, 1).complete, "b is gone");
        assert!(!since(epoch + 1, 4).complete, "another epoch");
        assert!(epoch <= 1 << 53, "a number of JavaScript's");
        assert!(!since(epoch, 9).complete, "from the future");
    }

    #[tokio::test(start_paused = true)]
    async fn an_idempotency_key_counts_once_within_its_window() {
        let broker = broker(1 << 20);
        let publish = |key| broker.publish(publication("t", "x"), KEEP, Some(key)).unwrap();
        assert_eq!(offset(publish("k")), 1);
        assert!(matches!(publish("k"), Accepted::Duplicate));
        assert_eq!(offset(publish("other")), 2);
        tokio::time::advance(IDEMPOTENCY_WINDOW).await;
        broker.sweep();
        assert!(offset(publish("k")) > 0);
    }

    #[tokio::test(start_paused = true)]
    async fn to_read_a_history_does_not_prolong_it() {
        let broker = broker(1 << 20);
        let topic = TopicName::parse("t").unwrap();
        broker.publish(publication("t", "a"), KEEP, None).unwrap();
        tokio::time::advance(KEEP.ttl - Duration::from_secs(1)).await;
        assert_eq!(broker.history(&topic, None, 10).unwrap().publications.len(), 1);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(broker.history(&topic, None, 10).unwrap().publications.len(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_refused_changes_nothing_and_may_come_again() {
        let broker = broker(1_000);
        let topic = TopicName::parse("t").unwrap();
        let long = "x".repeat(600);
        broker.publish(publication("t", "a"), KEEP, None).unwrap();
        let once = Retention { size: 1, ttl: KEEP.ttl };
        let huge = "x".repeat(2_000);
        assert!(broker.publish(publication("t", &huge), once, Some("huge")).is_err());
        assert_eq!(texts(&broker.history(&topic, None, 10).unwrap()), ["a"], "nothing was dropped for it");
        broker.publish(publication("full", &long), KEEP, None).unwrap();
        assert!(broker.publish(publication("other", &long), KEEP, Some("k")).is_err());
        tokio::time::advance(KEEP.ttl).await;
        broker.sweep();
        assert_eq!(offset(broker.publish(publication("other", &long), KEEP, Some("k")).unwrap()), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn history_is_bounded_in_bytes_and_frees_what_it_forgets() {
        let broker = broker(10_000);
        let long = "x".repeat(1_000);
        let taken =
            (0..20).filter(|n| broker.publish(publication(&format!("t{n}"), &long), KEEP, None).is_ok()).count();
        assert!((5..10).contains(&taken), "{taken}");
        tokio::time::advance(KEEP.ttl).await;
        broker.sweep();
        assert_eq!(broker.bytes(), 0);
        for _ in 0..100 {
            broker.publish(publication("t", &long), KEEP, None).unwrap();
        }
        assert!(broker.bytes() < 4_000, "three are kept");
    }

    #[test]
    fn a_full_broker_refuses_new_topics_and_keeps_the_old() {
        let broker = MemoryBroker::with_capacity(SHARDS, 1 << 20);
        let accepted = (0..1000)
            .filter(|n| broker.publish(publication(&format!("t{n}"), "x"), KEEP, None).is_ok())
            .collect::<Vec<_>>();
        assert!(accepted.len() <= SHARDS && !accepted.is_empty());
        assert!(broker.publish(publication(&format!("t{}", accepted[0]), "y"), KEEP, None).is_ok());
    }
}
