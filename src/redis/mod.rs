//! The link to Redis: to one server, or to each master of a Cluster, a connection for commands and one for subscriptions, each
//! made anew when it breaks, and a probe through both that proves that what is published is heard.
//!
//! What arrives is handed to the `Intake` on the spot, in Redis' order. It never waits, so there is no queue here whose
//! bound would have to be told about.

mod backoff;
mod cluster;
mod commands;
mod health;
mod keys;
mod link;
mod links;
mod listening;
mod nodes;
mod probe;
mod routing;
mod seal;
mod servers;
mod slots;
mod subscriptions;

/// Real servers for tests.
#[cfg(test)]
#[path = "../../tests/it/support/redis.rs"]
#[allow(dead_code, reason = "other tests use the rest")]
pub mod server;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

pub use self::commands::{Fault, Script};
pub use self::keys::Keys;
pub use self::nodes::{Node, NodeStatus, prefer};
pub use self::seal::{Mark, Seal};

use self::backoff::Backoff;
use self::health::Health;
use self::link::Link;
use self::links::Links;
use self::servers::Servers;
use self::slots::{Address, Topology};
use crate::config::RedisConfig;
use crate::metrics::Metrics;
use crate::source::Random;

/// Takes what the subscribed channels carry. Called from the connections' own tasks: it must not wait.
pub trait Intake: Send + Sync + 'static {
    fn arrived(&self, channel: &str, payload: Vec<u8>);

    /// From now on nothing arrives on these channels.
    fn lost(&self, channels: &[String]);

    /// These channels are subscribed to again, or commands for what belongs to them are answered again. What was published
    /// meanwhile did not arrive.
    fn back(&self, channels: &[String]);
}

/// A Redis that other nodes use too.
pub struct Redis {
    pub keys: Keys,
    pub config: RedisConfig,
    pub metrics: Arc<Metrics>,
    node: u64,
    /// Written by the keeper of links alone. Whoever wants or leaves a channel holds it, so that none is lost on a move.
    links: RwLock<Links>,
    /// What the links were made of.
    topology: Mutex<Topology>,
    /// Servers without slots that commands were sent on to, and when.
    strangers: Mutex<HashMap<Address, Instant>>,
    /// The links may not be right any more.
    look: Notify,
    /// A connection for commands has come, or the links have changed.
    changes: watch::Sender<()>,
    health: Health,
    servers: Servers,
    leaving: AtomicBool,
    /// By what nodes know each other's tokens.
    pub seal: Seal,
    random: Random,
}

/// The tasks that keep the link, which end with this value.
pub struct Running(#[expect(dead_code, reason = "held for its end")] JoinSet<()>);

impl Redis {
    /// Nothing is connected before `run`. `node` tells this node from the others.
    pub fn new(config: RedisConfig, node: u64, metrics: Arc<Metrics>, random: Random) -> anyhow::Result<Arc<Self>> {
        let nobody = Arc::new(Link::new(0, None, metrics.clone()));
        Ok(Arc::new(Self {
            keys: Keys::new(&config.prefix),
            servers: Servers::new(&config)?,
            leaving: AtomicBool::new(false),
            seal: Seal::new(&random)?,
            links: RwLock::new(Links::none(nobody)),
            topology: Mutex::default(),
            strangers: Mutex::default(),
            look: Notify::new(),
            changes: watch::Sender::new(()),
            health: Health::new(&metrics),
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
        self.want(&self.keys.node_channel(self.node));
        let mut tasks = JoinSet::new();
        tasks.spawn(self.clone().keep_links(intake));
        tasks.spawn(self.clone().keep_saying(status));
        tasks.spawn(self.clone().keep_key());
        Running(tasks)
    }

    /// Whether commands can be sent now for what stands under this key, or belongs to this channel.
    pub fn reaches(&self, key: &str) -> bool {
        self.links.read().owner(key.as_bytes()).commands.is_connected()
    }

    /// Waits until they can.
    pub async fn connected(&self, key: &str) {
        let mut changes = self.changes.subscribe();
        while !self.reaches(key) {
            // The sender lives as long as this value.
            let _ = changes.changed().await;
        }
    }

    fn changed(&self) {
        self.changes.send_replace(());
    }

    /// Before the next attempt to connect.
    fn pause(&self, backoff: &mut Backoff) -> Duration {
        backoff.next(self.config.backoff.0, self.random.number().unwrap_or_default())
    }

    /// What keeps this node from hearing and being heard; None while all is well.
    pub fn trouble(&self) -> Option<String> {
        self.health.trouble()
    }

    /// From now on the channel is wanted: `confirmed` tells when Redis has confirmed it.
    pub fn want(&self, channel: &str) {
        self.links.read().owner(channel.as_bytes()).subscriptions.want(channel);
    }

    /// The channel is wanted no more.
    pub fn unwant(&self, channel: &str) {
        self.links.read().owner(channel.as_bytes()).subscriptions.unwant(channel);
    }

    /// Waits until a wanted channel is subscribed to. An error: its server is gone, or was lost meanwhile.
    pub async fn confirmed(&self, channel: &str) -> Result<(), Fault> {
        let confirmation = self.links.read().owner(channel.as_bytes()).subscriptions.confirmation(channel)?;
        let Some(confirmation) = confirmation else { return Ok(()) };
        match tokio::time::timeout(self.config.timeout.0, confirmation).await {
            Ok(confirmed) => confirmed.map_err(|_| Fault::Gone),
            Err(_) => Err(Fault::Timeout),
        }
    }
}
