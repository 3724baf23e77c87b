//! What all sessions of this node share, and what it tells of itself.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rustix::time::{ClockId, clock_gettime};
use tokio::time::Instant;

use crate::client::Client;
use crate::drain::Drain;
use crate::hub::Hub;
use crate::kv::Kv;
use crate::metrics::Metrics;
use crate::presence::Presence;
use crate::redis::{NodeStatus, Redis};
use crate::registry::Registry;
use crate::route::TopicRules;
use crate::source::{Clock, Random};
use crate::tap::Tap;
use crate::upstream::Upstreams;

/// The node's state: topics, presence, values, sessions.
pub struct Node {
    pub hub: Arc<Hub>,
    pub presence: Presence,
    pub kv: Kv,
    pub registry: Registry,
    /// What other nodes share with this one.
    pub redis: Option<Arc<Redis>>,
    pub rules: TopicRules,
    pub upstreams: Upstreams,
    /// Requests of plugins to other servers.
    pub client: Client,
    pub metrics: Arc<Metrics>,
    pub clock: Clock,
    pub random: Random,
    /// Who is told of all that plugins do; nobody while the gateway serves.
    pub tap: Option<Arc<dyn Tap>>,
}

/// What other nodes and operators are told of this one, as it is when it is asked.
pub fn says(node: Arc<Node>, drain: Drain, listen: Option<SocketAddr>) -> Arc<dyn Fn() -> NodeStatus + Send + Sync> {
    let started = node.clock.unix();
    // An address that stands for all of a machine's is none that leads here.
    let one = listen.filter(|listen| !listen.ip().is_unspecified()).map(|listen| listen.to_string());
    let advertised = node.redis.as_ref().and_then(|redis| redis.config.advertise.clone());
    let address = advertised.or(one);
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64);
    let load = Load::default();
    Arc::new(move || {
        let used = cpu_time();
        NodeStatus {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            listen: listen.map(|listen| listen.to_string()).unwrap_or_default(),
            address: address.clone(),
            draining: drain.is_leaving(),
            started,
            sessions: node.registry.len() as u64,
            topics: node.metrics.topics.get().max(0) as u64,
            subscriptions: node.metrics.subscriptions.get().max(0) as u64,
            cpu_seconds: used.as_secs(),
            cpu_percent: load.percent(Instant::now(), used),
            cores,
        }
    })
}

/// The CPU time of all threads since the start.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.max(0) as u64, time.tv_nsec.clamp(0, 999_999_999) as u32)
}

/// CPU time over time, in percent of one core.
#[derive(Default)]
struct Load(Mutex<Option<Looked>>);

#[derive(Clone, Copy)]
struct Looked {
    at: Instant,
    used: Duration,
    percent: u64,
}

impl Load {
    /// Shorter than this, the time of a single turn would look like load.
    const AT_LEAST: Duration = Duration::from_secs(1);

    /// Since it was asked last, or what it said then if that is not long ago.
    fn percent(&self, now: Instant, used: Duration) -> u64 {
        let mut before = self.0.lock();
        let Some(last) = *before else {
            *before = Some(Looked { at: now, used, percent: 0 });
            return 0;
        };
        let passed = now.saturating_duration_since(last.at);
        if passed < Self::AT_LEAST {
            return last.percent;
        }
        let percent = 100.0 * used.saturating_sub(last.used).as_secs_f64() / passed.as_secs_f64();
        let looked = Looked { at: now, used, percent: percent.round() as u64 };
        *before = Some(looked);
        looked.percent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn load_is_that_of_the_time_since_the_last_look() {
        let (load, start) = (Load::default(), Instant::now());
        let at = |seconds: f64, used: f64| {
            load.percent(start + Duration::from_secs_f64(seconds), Duration::from_secs_f64(used))
        };
        assert_eq!(at(0.0, 5.0), 0, "nothing is known yet");
        assert_eq!(at(0.5, 5.4), 0, "nor of half a second");
        assert_eq!(at(2.0, 6.0), 50);
        assert_eq!(at(2.1, 6.1), 50, "still");
        assert_eq!(at(4.0, 9.0), 150, "two threads");
        assert_eq!(at(5.0, 9.0), 0);
    }
}
