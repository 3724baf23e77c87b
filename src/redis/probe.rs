//! The probe: the node publishes to itself. It comes back only if commands are taken, writes are allowed, and
//! subscriptions are heard; a green answer to PING says none of that.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, MissedTickBehavior};

use super::{Fault, NodeStatus, Redis, Script};

/// Tells of the node too, so that a server that takes no writes is found out.
/// ARGV: 1 the probe, 2 the node's name, 3 what it says of itself, 4 its channel.
const PROBE: &str = "
local time = redis.call('TIME')
local now = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))
redis.call('HSET', KEYS[1], ARGV[2], now .. ' ' .. ARGV[3])
return redis.call('PUBLISH', ARGV[4], ARGV[1])";

/// Probes that a node may miss before it counts as gone.
const SILENCE: u32 = 10;

/// The probe that is under way.
#[derive(Default)]
pub(super) struct Probes(Mutex<Option<Probe>>);

#[derive(Clone, Copy)]
struct Probe {
    number: u64,
    sent: Instant,
    /// Redis has said that it was published.
    taken: bool,
}

impl Redis {
    /// Probes for ever, and gives up connections that do not carry.
    pub(super) async fn keep_probing(self: Arc<Self>, status: Arc<dyn Fn() -> NodeStatus + Send + Sync>) {
        let script = Script::new(PROBE);
        let (key, channel) = (self.keys.nodes(), self.keys.node_channel(self.node));
        let name = format!("{:016x}", self.node);
        let mut ticks = tokio::time::interval(self.config.probe.0);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for number in 1_u64.. {
            tokio::select! {
                _ = ticks.tick() => {}
                () = self.health.connected() => {}
            }
            if self.leaving.load(Ordering::Acquire) {
                return;
            }
            if !self.health.is_connected() {
                *self.probes.0.lock() = None;
                continue;
            }
            let under_way = *self.probes.0.lock();
            match under_way {
                Some(probe) if probe.sent.elapsed() > self.config.probe_timeout.0 => {
                    self.health.unheard(probe.sent.elapsed().as_secs_f64());
                    *self.probes.0.lock() = None;
                    self.subscriptions.give_up();
                    if !probe.taken {
                        self.commands.give_up();
                    }
                    continue;
                }
                Some(_) => continue,
                None => *self.probes.0.lock() = Some(Probe { number, sent: Instant::now(), taken: false }),
            }
            let text = number.to_string();
            let status = serde_json::to_vec(&status()).unwrap_or_default();
            let arguments = [text.as_bytes(), name.as_bytes(), &status, channel.as_bytes()];
            match self.invoke(&script, &[&key], &arguments).await {
                Ok(_) => {
                    if let Some(probe) = &mut *self.probes.0.lock() {
                        probe.taken = true;
                    }
                }
                Err(Fault::Refused(why)) => {
                    *self.probes.0.lock() = None;
                    self.health.refused(why);
                }
                // Its time runs.
                Err(Fault::Timeout) => {}
                Err(Fault::Gone | Fault::Broken) => *self.probes.0.lock() = None,
            }
        }
    }

    /// How long a node may say nothing before it counts as gone.
    pub(super) fn silence(&self) -> Duration {
        (self.config.probe.0 * SILENCE).max(self.config.probe_timeout.0 * 2)
    }

    /// The node leaves, and is not to be listed any more.
    pub async fn leave(&self) {
        self.leaving.store(true, Ordering::Release);
        let name = format!("{:016x}", self.node);
        // Otherwise it is forgotten a little later.
        let _ = self.query(redis::cmd("HDEL").arg(self.keys.nodes()).arg(name)).await;
    }

    /// A probe has come back.
    pub(super) fn probed(&self, payload: &[u8]) {
        let number = std::str::from_utf8(payload).ok().and_then(|text| text.parse().ok());
        let mut under_way = self.probes.0.lock();
        // One of a former life of the connection says nothing of this one.
        if let Some(probe) = under_way.filter(|probe| Some(probe.number) == number) {
            *under_way = None;
            self.metrics.redis_lag.observe(probe.sent.elapsed().as_secs_f64());
            self.health.heard();
        }
    }
}
