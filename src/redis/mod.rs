//! The link to Redis: one connection for commands, one for subscriptions, each made anew when it breaks, and a probe
//! through both that proves that what is published is heard.
//!
//! What arrives is handed to the `Intake` on the spot, in Redis' order. It never waits, so there is no queue here whose
//! bound would have to be told about.

mod backoff;
mod commands;
mod health;
mod keys;
mod nodes;
mod probe;
mod servers;
mod subscriptions;

/// Real servers for tests.
#[cfg(test)]
#[path = "../../tests/it/support/redis.rs"]
#[allow(dead_code, reason = "other tests use the rest")]
pub mod server;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use tokio::task::JoinSet;

pub use self::commands::{Fault, Script};
pub use self::keys::Keys;
pub use self::nodes::{Node, NodeStatus, prefer};

use self::commands::Commands;
use self::health::Health;
use self::probe::Probes;
use self::servers::Servers;
use self::subscriptions::Subscriptions;
use crate::config::RedisConfig;
use crate::metrics::Metrics;
use crate::source::Random;

/// Takes what the subscribed channels carry. Called from the connection's own task: it must not wait.
pub trait Intake: Send + Sync + 'static {
    fn arrived(&self, channel: &str, payload: Vec<u8>);

    /// From now on nothing arrives.
    fn lost(&self);

    /// Every channel is subscribed to again, or commands are answered again. What was published meanwhile did not arrive.
    fn back(&self);
}

/// A Redis that other nodes use too.
pub struct Redis {
    pub keys: Keys,
    pub config: RedisConfig,
    pub metrics: Arc<Metrics>,
    node: u64,
    commands: Commands,
    subscriptions: Subscriptions,
    health: Health,
    probes: Probes,
    servers: Servers,
    leaving: AtomicBool,
    random: Random,
}

/// The tasks that keep the link, which end with this value.
pub struct Running(#[expect(dead_code, reason = "held for its end")] JoinSet<()>);

impl Redis {
    /// Nothing is connected before `run`. `node` tells this node from the others.
    pub fn new(config: RedisConfig, node: u64, metrics: Arc<Metrics>, random: Random) -> anyhow::Result<Arc<Self>> {
        Ok(Arc::new(Self {
            keys: Keys::new(&config.prefix),
            servers: Servers::new(&config)?,
            leaving: AtomicBool::new(false),
            commands: Commands::new(config.timeout.0, metrics.clone()),
            subscriptions: Subscriptions::default(),
            health: Health::new(metrics.redis_up.clone()),
            probes: Probes::default(),
            config,
            metrics,
            node,
            random,
        }))
    }

    /// Connects, and stays connected as long as the value lives.
    /// `status` says what other nodes are to know of this one.
    pub fn run(
        self: &Arc<Self>,
        intake: Arc<dyn Intake>,
        status: Arc<dyn Fn() -> NodeStatus + Send + Sync>,
    ) -> Running {
        let mut tasks = JoinSet::new();
        tasks.spawn(self.clone().keep_commands(intake.clone()));
        tasks.spawn(self.clone().keep_subscriptions(intake));
        tasks.spawn(self.clone().keep_probing(status));
        Running(tasks)
    }

    /// Whether commands can be sent now.
    pub fn is_connected(&self) -> bool {
        self.commands.is_connected()
    }

    /// Waits until commands can be sent.
    pub async fn connected(&self) {
        self.commands.connected().await;
    }

    /// What keeps this node from hearing and being heard; None while all is well.
    pub fn trouble(&self) -> Option<String> {
        self.health.trouble()
    }

    /// Sends one command, and waits for its answer no longer than is configured.
    pub async fn query(&self, command: &::redis::Cmd) -> Result<::redis::Value, Fault> {
        self.commands.query(command).await
    }

    /// Runs a script, which the server has unless it is new.
    pub async fn invoke(&self, script: &Script, keys: &[&str], arguments: &[&[u8]]) -> Result<::redis::Value, Fault> {
        self.commands.invoke(script, keys, arguments).await
    }

    /// From now on the channel is wanted: `confirmed` tells when Redis has confirmed it.
    pub fn want(&self, channel: &str) {
        self.subscriptions.want(channel);
    }

    /// The channel is wanted no more.
    pub fn unwant(&self, channel: &str) {
        self.subscriptions.unwant(channel);
    }

    /// Waits until a wanted channel is subscribed to. An error: the link is gone, or was lost meanwhile.
    pub async fn confirmed(&self, channel: &str) -> Result<(), Fault> {
        let confirmed = tokio::time::timeout(self.config.timeout.0, self.subscriptions.confirmed(channel));
        confirmed.await.unwrap_or(Err(Fault::Timeout))
    }
}
