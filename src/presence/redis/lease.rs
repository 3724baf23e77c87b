//! A node's lease: it says again and again that it lives, and the members of one that says nothing any more leave.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use redis::Value;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use super::RedisPresence;
use super::scripts::{Incarnation, Told};
use crate::message::TopicName;
use crate::presence::watcher;
use crate::redis::Fault;

/// Topics of a dead node that are fetched in one step.
const TOPICS: usize = 64;

impl RedisPresence {
    /// Keeps the lease for ever.
    pub(super) async fn keep_lease(self: Arc<Self>) {
        let lease = self.redis.config.lease.0;
        let mut ticks = interval(lease / 4);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut first = true;
        loop {
            let back = tokio::select! {
                _ = ticks.tick() => false,
                () = self.hurry.notified() => true,
            };
            match self.renew(lease, first).await {
                Ok((true, dead)) => {
                    if back && !first {
                        let returned = std::mem::take(&mut *self.returned.lock());
                        self.verify(returned);
                    }
                    first = false;
                    if !self.is_listed().await {
                        self.list_again();
                    }
                    for who in dead {
                        // Not here: it may take longer than this node's own lease. One at a time does it for each.
                        let this = self.clone();
                        tokio::spawn(async move { this.bury(&who, lease).await });
                    }
                }
                Ok((false, _)) => {
                    let number = self.incarnation.fetch_add(1, Ordering::AcqRel) + 1;
                    tracing::warn!(
                        incarnation = number,
                        "this node was silent for longer than redis.lease, or Redis has forgotten it: \
                        it says again who is on its topics"
                    );
                    first = true;
                    self.verify_all();
                    self.hurry.notify_one();
                }
                // What Redis refuses is said by the probe, which asks for more.
                Err(_) => self.redis.connected(&self.redis.keys.leases()).await,
            }
        }
    }

    /// Whether those who would bury this node would find its topics. True also where nobody knows.
    async fn is_listed(&self) -> bool {
        let who = self.who();
        let topics = || self.shards.iter().any(|shard| shard.lock().values().any(|entry| entry.own.is_listed()));
        if !topics() {
            return true;
        }
        let list = self.redis.keys.present(&who.node, who.number);
        // One that was emptied since is asked about again, and is empty then.
        !matches!(self.redis.query(redis::cmd("EXISTS").arg(list)).await, Ok(Value::Int(0))) || !topics()
    }

    /// Whether the node is still what it was, and who is silent for too long.
    async fn renew(&self, lease: Duration, first: bool) -> Result<(bool, Vec<Incarnation>), Fault> {
        let who = self.who();
        let (name, lease) = (format!("{} {}", who.node, who.number), lease.as_millis().to_string());
        let first = if first { "1" } else { "0" };
        let arguments = [name.as_bytes(), lease.as_bytes(), first.as_bytes()];
        let answer = self.redis.invoke(&self.scripts.lease, &[&self.redis.keys.leases()], &arguments).await?;
        let unknown = || Fault::Refused("a lease is answered by something unknown".to_owned());
        let Value::Array(parts) = answer else { return Err(unknown()) };
        let [Value::BulkString(word), Value::Array(dead)] = &parts[..] else { return Err(unknown()) };
        let incarnation = |name: &Value| {
            let Value::BulkString(name) = name else { return None };
            let (node, number) = std::str::from_utf8(name).ok()?.split_once(' ')?;
            Some(Incarnation { node: node.to_owned(), number: number.parse().ok()? })
        };
        Ok((word == b"ok", dead.iter().filter_map(incarnation).collect()))
    }

    /// Takes the members of a dead node from its topics, unless somebody else does.
    async fn bury(self: &Arc<Self>, who: &Incarnation, lease: Duration) {
        match self.burial(who, lease).await {
            Ok(Some(topics)) => {
                tracing::warn!(
                    node = who.node,
                    topics,
                    "a node has said nothing for redis.lease: its members have left"
                );
            }
            Ok(None) => {}
            Err(why) => tracing::warn!(node = who.node, %why, "the members of a node that has gone are still there"),
        }
    }

    /// How many topics it had; None: it is somebody else's work.
    async fn burial(self: &Arc<Self>, who: &Incarnation, lease: Duration) -> Result<Option<usize>, Fault> {
        let redis = &self.redis;
        let claim = redis.keys.burial(&who.node, who.number);
        let millis = (lease.as_millis() as u64).max(1);
        let claimed = redis::cmd("SET").arg(&claim).arg(&self.node).arg("NX").arg("PX").arg(millis).to_owned();
        if redis.query(&claimed).await? == Value::Nil {
            return Ok(None);
        }
        let list = redis.keys.present(&who.node, who.number);
        let mut buried = 0;
        loop {
            let Value::Array(topics) = redis.query(redis::cmd("SRANDMEMBER").arg(&list).arg(TOPICS)).await? else {
                break;
            };
            if topics.is_empty() {
                break;
            }
            for topic in topics {
                let Value::BulkString(name) = topic else { continue };
                if let Some(topic) = std::str::from_utf8(&name).ok().and_then(TopicName::restore) {
                    self.bury_on(&topic, who).await?;
                    buried += 1;
                }
                redis.query(redis::cmd("SREM").arg(&list).arg(name)).await?;
            }
            redis.query(redis::cmd("PEXPIRE").arg(&claim).arg(millis)).await?;
        }
        redis.query(redis::cmd("ZREM").arg(redis.keys.leases()).arg(format!("{} {}", who.node, who.number))).await?;
        redis.query(redis::cmd("DEL").arg(&claim)).await?;
        Ok(Some(buried))
    }

    async fn bury_on(self: &Arc<Self>, topic: &TopicName, who: &Incarnation) -> Result<(), Fault> {
        loop {
            let watched = watcher(&self.watchers).is_some_and(|watcher| watcher.watches(topic));
            let token = self.token();
            let told = Told { watched, token: &token };
            let done = self.scripts.bury(&self.redis, topic, who, told).await?;
            self.told(topic, token, done.tells, done.dropped);
            if done.what == 0 {
                return Ok(());
            }
        }
    }

    pub async fn leave_cluster(self: &Arc<Self>) {
        let spent = async {
            while self.shards.iter().any(|shard| !shard.lock().is_empty()) {
                sleep(Duration::from_millis(5)).await;
            }
            let who = self.who();
            let name = format!("{} {}", who.node, who.number);
            let _ = self.redis.query(redis::cmd("ZREM").arg(self.redis.keys.leases()).arg(name)).await;
        };
        // Otherwise the others bury it a little later.
        if self.redis.reaches(&self.redis.keys.leases()) && timeout(self.redis.config.timeout.0, spent).await.is_err() {
            tracing::warn!("some members of topics are still there for other nodes, until redis.lease is over");
        }
    }
}
