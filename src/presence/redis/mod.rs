//! Presence that nodes share. Each node keeps its own members, and sees to it that Redis has them too: a machine for each
//! topic (`own.rs`) says what to do, one task at a time does it. Questions are answered by Redis.

mod lease;
mod own;
mod scripts;

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use self::own::{Own, Step};
use self::scripts::{Changed, Incarnation, Scripts, Told, change_of};
use super::{Change, Changes, Counts, From, Member, Watchers, watcher};
use crate::message::{SessionId, TopicName};
use crate::redis::{Fault, Redis};

const SHARDS: usize = 64;
/// Topics that Redis is told of at the same time.
const WORKERS: usize = 64;
/// The pause before what has failed is tried again, with the link there.
const PAUSE: Duration = Duration::from_millis(200);

pub struct RedisPresence {
    redis: Arc<Redis>,
    node: String,
    watchers: Watchers,
    scripts: Scripts,
    shards: Box<[Mutex<HashMap<TopicName, Entry>>]>,
    hasher: RandomState,
    /// Counts up when the node was taken for dead.
    incarnation: AtomicU64,
    /// For batches and tokens: none is given twice.
    numbers: AtomicU64,
    workers: Semaphore,
    telling: AtomicUsize,
    /// The lease is to be renewed now.
    hurry: Notify,
    /// Topics that must be looked at then: their server was gone, or is another one.
    returned: Mutex<HashSet<TopicName>>,
}

/// A topic with members on this node.
#[derive(Default)]
struct Entry {
    own: Own,
    /// Somebody does what the steps say.
    busy: bool,
    /// So many tell its changes: more than one for a moment only.
    telling: usize,
    /// It was not to be done at the last attempt.
    stuck: bool,
    changed: Arc<Notify>,
}

/// The task that keeps the node's lease, which ends with this value.
pub struct Running(#[expect(dead_code, reason = "held for its end")] JoinSet<()>);

impl RedisPresence {
    pub fn new(redis: Arc<Redis>, node: u64, watchers: Watchers) -> Arc<Self> {
        Arc::new(Self {
            redis,
            node: format!("{node:016x}"),
            watchers,
            scripts: Scripts::default(),
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
            incarnation: AtomicU64::new(1),
            numbers: AtomicU64::new(1),
            workers: Semaphore::new(WORKERS),
            telling: AtomicUsize::new(0),
            hurry: Notify::new(),
            returned: Mutex::default(),
        })
    }

    pub fn run(self: &Arc<Self>) -> Running {
        let mut tasks = JoinSet::new();
        tasks.spawn(self.clone().keep_lease());
        Running(tasks)
    }

    fn shard(&self, topic: &str) -> &Mutex<HashMap<TopicName, Entry>> {
        &self.shards[self.hasher.hash_one(topic) as usize % SHARDS]
    }

    pub fn join(self: &Arc<Self>, topic: &TopicName, member: Member) {
        self.say(topic, |own| {
            own.join(member);
            true
        });
    }

    pub fn leave(self: &Arc<Self>, topic: &TopicName, session: SessionId) {
        self.say(topic, |own| own.leave(session));
    }

    /// Has something said of a topic; whoever does what follows is woken if there is something.
    fn say(self: &Arc<Self>, topic: &TopicName, say: impl FnOnce(&mut Own) -> bool) {
        let mut shard = self.shard(topic.as_str()).lock();
        let entry = shard.entry(topic.clone()).or_default();
        let behind = entry.own.behind();
        let work = say(&mut entry.own);
        self.redis.metrics.presence_behind.add(entry.own.behind() as i64 - behind as i64);
        if !work {
            if entry.own.is_spent() && !entry.busy && entry.telling == 0 {
                shard.remove(topic);
            }
        } else if !std::mem::replace(&mut entry.busy, true) {
            tokio::spawn(self.clone().work(topic.clone()));
        }
    }

    /// Does what a topic's machine says, until it rests.
    async fn work(self: Arc<Self>, topic: TopicName) {
        loop {
            let done = {
                // Never closed.
                let _turn = self.workers.acquire().await;
                let Some(step) = self.step(&topic) else { return };
                self.act(&topic, step).await
            };
            let stuck = done.is_err();
            if let Some(entry) = self.shard(topic.as_str()).lock().get_mut(&topic) {
                entry.stuck = stuck;
                entry.changed.notify_waiters();
            }
            match done {
                Ok(()) => {}
                Err(Fault::Gone | Fault::Broken) => {
                    self.redis.connected(&self.redis.keys.channel(topic.as_str())).await;
                    sleep(PAUSE / 10).await;
                }
                Err(Fault::Timeout) => sleep(PAUSE).await,
                Err(Fault::Refused(why)) => {
                    tracing::error!(%topic, why, "Redis refuses what is told of presence: tried again");
                    sleep(PAUSE * 5).await;
                }
            }
        }
    }

    /// None: nothing is left to do, and the caller's work is over.
    fn step(&self, topic: &TopicName) -> Option<Step> {
        let mut shard = self.shard(topic.as_str()).lock();
        let entry = shard.get_mut(topic)?;
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        match entry.own.step(self.incarnation.load(Ordering::Acquire), number) {
            Step::Rest => {}
            // Whoever buries this node must find the topic while changes are told here.
            Step::Forget { .. } if entry.telling > 0 => {}
            step => return Some(step),
        }
        entry.busy = false;
        if entry.own.is_spent() && entry.telling == 0 {
            entry.changed.notify_waiters();
            shard.remove(topic);
        }
        None
    }

    async fn act(self: &Arc<Self>, topic: &TopicName, step: Step) -> Result<(), Fault> {
        let who = self.who();
        match step {
            Step::List => {
                let list = self.redis.keys.present(&who.node, who.number);
                self.redis.query(redis::cmd("SADD").arg(list).arg(topic.as_str())).await?;
                self.with(topic, |own| own.listed(who.number));
            }
            Step::Look => match self.scripts.look(&self.redis, topic, &who).await? {
                Some(look) => self.with(topic, |own| own.looked(look)),
                None => return self.over(&who).await,
            },
            Step::Send(batch) => {
                let watcher = watcher(&self.watchers);
                let watched = watcher.as_ref().is_some_and(|watcher| watcher.watches(topic));
                let token = self.token();
                let told = Told { watched, token: &token };
                let done = self.scripts.change(&self.redis, topic, &who, told, &batch).await?;
                match done.what {
                    Changed::Sent(sent) => self.with(topic, |own| own.sent(batch.mark, sent)),
                    Changed::Over => return self.over(&who).await,
                }
                self.told(topic, token, done.tells, done.dropped);
            }
            Step::Forget { listed, mark } => {
                if let Some(mark) = mark {
                    self.scripts.forget(&self.redis, topic, &who.node, mark).await?;
                }
                let list = self.redis.keys.present(&who.node, listed);
                self.redis.query(redis::cmd("SREM").arg(list).arg(topic.as_str())).await?;
                self.with(topic, Own::forgotten);
            }
            Step::Rest => {}
        }
        Ok(())
    }

    /// This incarnation was taken for dead: as the next one all is said again.
    async fn over(&self, who: &Incarnation) -> Result<(), Fault> {
        self.hurry.notify_one();
        let next = || (self.incarnation.load(Ordering::Acquire) != who.number).then_some(());
        while next().is_none() {
            sleep(PAUSE / 10).await;
            if !self.redis.reaches(&self.redis.keys.leases()) {
                return Err(Fault::Gone);
            }
        }
        Ok(())
    }

    fn with(&self, topic: &TopicName, tell: impl FnOnce(&mut Own)) {
        if let Some(entry) = self.shard(topic.as_str()).lock().get_mut(topic) {
            let behind = entry.own.behind();
            tell(&mut entry.own);
            self.redis.metrics.presence_behind.add(entry.own.behind() as i64 - behind as i64);
        }
    }

    fn who(&self) -> Incarnation {
        Incarnation { node: self.node.clone(), number: self.incarnation.load(Ordering::Acquire) }
    }

    fn token(&self) -> String {
        format!("{}:{}", self.node, self.numbers.fetch_add(1, Ordering::Relaxed))
    }

    /// A script has said what is to be told, and by whom.
    fn told(self: &Arc<Self>, topic: &TopicName, token: String, tells: bool, dropped: u64) {
        let Some(watcher) = watcher(&self.watchers) else { return };
        if dropped > 0 {
            watcher.dropped(topic, dropped);
        }
        if tells {
            self.telling.fetch_add(1, Ordering::AcqRel);
            self.shard(topic.as_str()).lock().entry(topic.clone()).or_default().telling += 1;
            let teller = Teller { presence: self.clone(), topic: topic.clone(), token, told: Vec::new() };
            watcher.tell(Changes { topic: topic.clone(), from: From::Redis(Box::new(teller)) });
        }
    }

    /// Redis may have changed: these topics are looked at again, some at a time.
    fn verify(self: &Arc<Self>, topics: impl IntoIterator<Item = TopicName>) {
        for topic in topics {
            self.say(&topic, |own| {
                own.verify();
                true
            });
        }
    }

    /// The list of this node's topics, which those who would bury it need, is gone. In a Cluster it may be lost alone.
    fn list_again(self: &Arc<Self>) {
        for shard in &self.shards {
            let topics: Vec<_> = shard.lock().keys().cloned().collect();
            for topic in topics {
                self.say(&topic, |own| {
                    own.unlist();
                    true
                });
            }
        }
    }

    /// The same for every topic.
    fn verify_all(self: &Arc<Self>) {
        for shard in &self.shards {
            let topics: Vec<_> = shard.lock().keys().cloned().collect();
            self.verify(topics);
        }
    }

    pub fn back(&self, channels: &[String]) {
        let own = |channel: &String| {
            let topic = self.redis.keys.topic(channel)?;
            self.shard(&topic).lock().get_key_value(&*topic).map(|(topic, _)| topic.clone())
        };
        // Nobody subscribes to the topics of users.
        let of_users = self.shards.iter().flat_map(|shard| {
            let shard = shard.lock();
            shard.keys().filter(|topic| !topic.is_public()).cloned().collect::<Vec<_>>()
        });
        let returned: Vec<_> = channels.iter().filter_map(own).chain(of_users).collect();
        self.returned.lock().extend(returned);
        self.hurry.notify_one();
    }

    pub async fn settled(&self, topic: &TopicName) {
        let settled = async {
            let mut ticket = None;
            loop {
                let changed = {
                    let shard = self.shard(topic.as_str()).lock();
                    let Some(entry) = shard.get(topic) else { return };
                    let ticket = *ticket.get_or_insert(entry.own.ticket());
                    if entry.own.acknowledged() >= ticket || entry.stuck {
                        return;
                    }
                    entry.changed.clone().notified_owned()
                };
                // Made under the lock, so that no word after it is missed.
                changed.await;
            }
        };
        if self.redis.reaches(&self.redis.keys.channel(topic.as_str())) {
            let _ = timeout(self.redis.config.timeout.0 * 2, settled).await;
        }
    }

    pub fn info(&self, topic: &TopicName, session: SessionId) -> Option<Arc<str>> {
        self.shard(topic.as_str()).lock().get(topic)?.own.info(session)
    }

    pub async fn counts(&self, topic: &str) -> Result<Counts, Fault> {
        self.scripts.counts(&self.redis, topic).await
    }

    pub async fn members(&self, topic: &str, limit: usize) -> Result<Vec<Member>, Fault> {
        self.scripts.members(&self.redis, topic, limit).await
    }

    pub async fn has_user(&self, topic: &str, user: &str) -> Result<bool, Fault> {
        self.scripts.has_user(&self.redis, topic, user).await
    }

    pub fn is_telling(&self) -> bool {
        self.telling.load(Ordering::Acquire) > 0
    }
}

/// Tells a topic's changes, as the only one.
pub struct Teller {
    presence: Arc<RedisPresence>,
    topic: TopicName,
    token: String,
    /// The change that is told now.
    told: Vec<u8>,
}

impl Teller {
    /// As `Changes::next`. While Redis is gone the change waits, and is told by whoever is there first.
    pub async fn next(&mut self) -> Option<Change> {
        loop {
            let Self { presence, topic, token, told } = self;
            match presence.scripts.next(&presence.redis, topic, token, told).await {
                Ok(Some(next)) => {
                    let change = change_of(&next);
                    self.told = next;
                    match change {
                        Some(change) => return Some(change),
                        None => self.presence.redis.metrics.redis_unreadable.inc(),
                    }
                }
                Ok(None) => return None,
                Err(Fault::Gone | Fault::Broken) => {
                    presence.redis.connected(&presence.redis.keys.channel(topic.as_str())).await;
                    sleep(PAUSE / 10).await;
                }
                Err(Fault::Timeout) => sleep(PAUSE).await,
                Err(Fault::Refused(why)) => {
                    tracing::error!(%topic, why, "Redis refuses to say who came and left: tried again");
                    sleep(PAUSE * 5).await;
                }
            }
        }
    }
}

impl Drop for Teller {
    fn drop(&mut self) {
        self.presence.telling.fetch_sub(1, Ordering::AcqRel);
        let presence = self.presence.clone();
        if let Some(entry) = presence.shard(self.topic.as_str()).lock().get_mut(&self.topic) {
            entry.telling = entry.telling.saturating_sub(1);
        }
        // The topic may be forgotten now.
        presence.say(&self.topic, |_| true);
    }
}
