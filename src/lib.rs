//! Tidegate: a realtime gateway that is programmed in WebAssembly.
//!
//! This file puts the parts together: a `Config` becomes a `Gateway`, which runs until it is told to drain. What stands
//! above what is in ARCHITECTURE.md.

mod admin;
mod apply;
mod broker;
pub mod cli;
mod client;
pub mod config;
mod drain;
mod files;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
mod heartbeat;
mod http;
mod hub;
mod kv;
mod listener;
mod message;
mod metrics;
mod node;
mod outbox;
mod plugin;
mod presence;
mod rate;
mod recorder;
mod redis;
#[cfg(test)]
mod reference;
mod registry;
mod reload;
mod replay;
mod reply;
mod route;
mod scenario;
mod server;
mod session;
mod source;
mod state;
mod tap;
mod transport;
mod upstream;
mod watch;
mod wire;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;

use crate::admin::Admin;
use crate::apply::{Applier, NodeIntake};
use crate::broker::{Broker, MemoryBroker, RedisBroker};
use crate::client::Client;
use crate::config::Config;
use crate::drain::Drain;
use crate::http::Http;
use crate::hub::Hub;
use crate::kv::{Kv, MemoryKv, RedisKv};
use crate::listener::Listener;
use crate::message::{Close, Closer};
use crate::metrics::Metrics;
use crate::node::Node;
use crate::outbox::Request;
use crate::plugin::{Cache, Catalog, Loader, Prepared, Room};
use crate::redis::Redis;
use crate::reload::Reload;
use crate::route::TopicRules;
use crate::source::{Clock, Random};
use crate::tap::Tap;
use crate::watch::Watch;

pub use crate::drain::{Signals, signals};
pub use crate::plugin::Status;

/// How often what has outlived its time is forgotten.
const SWEEP: Duration = Duration::from_secs(10);
/// How often the drain looks for sessions whose handshake was under way when it began.
const LATECOMERS: Duration = Duration::from_millis(100);
/// How often the health of plugins is looked at.
const LOOK: Duration = Duration::from_millis(250);
/// Connections on the admin address.
const ADMIN_CONNECTIONS: usize = 64;

/// A gateway, ready to serve.
pub struct Gateway {
    handshake_timeout: Duration,
    drain_timeout: Duration,
    public: Listener,
    admin: Listener,
    reload: Arc<Reload>,
    drain: Drain,
}

/// Loads every plugin that the configuration names, and says what they are.
pub async fn load(config: Config) -> anyhow::Result<(Config, Vec<Status>)> {
    let (config, _, catalog, prepared) = prepare(config).await?;
    catalog.install(prepared);
    Ok((config, catalog.status()))
}

/// Measures what instances of a plugin's file cost, with the settings that it has in a configuration.
async fn instances(file: &std::path::Path, config: &Config, name: &str) -> anyhow::Result<plugin::Instances> {
    let bytes = std::fs::read(file).with_context(|| format!("{} cannot be read", file.display()))?;
    let settings = config.plugins.get(name).cloned().unwrap_or_default();
    let engine = plugin::engine(Room::of(config))?;
    let node = node(config, Clock::default(), Random::default(), None)?;
    plugin::instances(&engine, &bytes, &settings, node).await
}

/// Looks into a plugin's file.
pub async fn inspect(file: &std::path::Path) -> anyhow::Result<plugin::Report> {
    let cannot = || format!("{} cannot be served", file.display());
    let bytes = std::fs::read(file).with_context(|| format!("{} cannot be read", file.display()))?;
    let config = Config::default();
    let engine = plugin::engine(Room::of(&config))?;
    let node = node(&config, Clock::default(), Random::default(), None)?;
    plugin::inspect(&engine, &bytes, node).await.with_context(cannot)
}

/// The state of a node that stands alone, empty.
fn node(config: &Config, clock: Clock, random: Random, tap: Option<Arc<dyn Tap>>) -> anyhow::Result<Arc<Node>> {
    node_with(config, None, clock, random, tap, Clients::one())
}

/// Who takes a node's requests to other servers.
struct Clients {
    plugins: Client,
    upstreams: Client,
}

impl Clients {
    /// The same for both.
    fn one() -> Self {
        let client = Client::new(tokio::runtime::Handle::current());
        Self { plugins: client.clone(), upstreams: client }
    }
}

/// The node's state, empty. Other nodes share what is in Redis, if there is one; nothing is connected yet.
fn node_with(
    config: &Config,
    redis: Option<&config::RedisConfig>,
    clock: Clock,
    random: Random,
    tap: Option<Arc<dyn Tap>>,
    clients: Clients,
) -> anyhow::Result<Arc<Node>> {
    let metrics = Arc::new(Metrics::new());
    let id = random.number().context("no randomness for the node's id")?;
    let redis = redis.map(|redis| Redis::new(redis.clone(), id, metrics.clone(), random.clone())).transpose()?;
    let broker = match &redis {
        Some(redis) => Broker::Redis(Arc::new(RedisBroker::new(redis.clone(), random.clone()))),
        None => Broker::Memory(MemoryBroker::new(config.history_memory.0, clock.clone(), random.clone())),
    };
    Ok(Arc::new(Node {
        hub: Arc::new(Hub::new(broker, metrics.clone())),
        presence: presence::Presence::new(redis.as_ref().map(|redis| (redis, id))),
        kv: match &redis {
            Some(redis) => Kv::Redis(RedisKv::new(redis.clone())),
            None => Kv::Memory(MemoryKv::new(config.kv_memory.0, clock.clone())),
        },
        registry: registry::Registry::new(id, redis.clone()),
        redis,
        rules: TopicRules::new(&config.topics),
        upstreams: upstream::Upstreams::new(&config.upstreams, clients.upstreams, clock.clone(), metrics.clone()),
        client: clients.plugins,
        metrics,
        clock,
        random,
        tap,
    }))
}

/// A configuration with its node, and the plugins that it names.
type Assembled = (Config, Arc<Node>, Arc<Catalog>, Prepared);

async fn prepare(config: Config) -> anyhow::Result<Assembled> {
    let (clock, random) = (Clock::default(), Random::default());
    let node = node_with(&config, config.redis.as_ref(), clock, random, None, Clients::one())?;
    assemble(config, node).await
}

/// The plugins that the configuration names, loaded on the node.
async fn assemble(config: Config, node: Arc<Node>) -> anyhow::Result<Assembled> {
    let runtime = tokio::runtime::Handle::current();
    // Compiling takes a while, and may wait for a plugin's `init`.
    let load = move || {
        let room = Room::of(&config);
        let engine = plugin::engine(room)?;
        let cache = Cache::new(&config.cache_directory);
        let catalog =
            Catalog::new(Loader { engine, room, cache, node: node.clone(), runtime, leaving: Default::default() });
        let prepared = catalog.prepare(&config)?;
        Ok::<_, anyhow::Error>((config, node, Arc::new(catalog), prepared))
    };
    tokio::task::spawn_blocking(load).await.context("loading the plugins was broken off")?
}

impl Gateway {
    /// Loads the plugins and binds the addresses.
    pub async fn build(config: Config) -> anyhow::Result<Self> {
        let (config, node, catalog, prepared) = prepare(config).await?;
        let metrics = node.metrics.clone();
        let public = Listener::bind("public", config.listen, config.max_connections, metrics.clone())
            .with_context(|| in_use("listen", config.listen))?;
        let admin = Listener::bind("admin", config.admin, ADMIN_CONNECTIONS, metrics)
            .with_context(|| in_use("admin", config.admin))?;
        let applier = Applier::new(node);
        let drain = Drain::default();
        let http = Arc::new(Http::new(reload::site(&config, &prepared)?, applier.clone(), drain.clone()));
        applier.claim(reload::claims(&config, &prepared));
        catalog.install(prepared);
        catalog.begin_recordings();
        let (handshake_timeout, drain_timeout) = (config.handshake_timeout.0, config.drain_timeout.0);
        let reload = Arc::new(Reload::new(config, catalog, http, applier));
        Ok(Self { handshake_timeout, drain_timeout, public, admin, reload, drain })
    }

    /// Where clients connect.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.public.address()
    }

    /// Where the admin pages are.
    pub fn admin_address(&self) -> std::io::Result<SocketAddr> {
        self.admin.address()
    }

    /// Serves until it is told to stop, then drains. Being told a second time ends the drain at once.
    pub async fn run(self, signals: Signals) -> anyhow::Result<()> {
        let Self { handshake_timeout: timeout, drain_timeout, public, admin, reload, drain } = self;
        let Signals { mut stop, reload: mut asked } = signals;
        let watch = Watch::start(reload.clone())?;
        let waker = watch.waker();
        let asking = tokio::spawn(async move {
            while asked.recv().await.is_some() {
                waker.load_now();
            }
        });
        let node = reload.applier.node.clone();
        let status = node::says(node.clone(), drain.clone(), public.address().ok());
        let link = node
            .redis
            .as_ref()
            .map(|redis| redis.run(Arc::new(NodeIntake::new(reload.applier.clone())), status.clone()));
        let present = node.presence.run();
        let queue = link.is_some().then(|| tokio::spawn(node.hub.clone().keep_queue()));
        let pages = Arc::new(Admin {
            node: node.clone(),
            catalog: reload.catalog.clone(),
            config: reload.status.clone(),
            drain: drain.clone(),
            status,
        });
        // The admin pages stay until the process ends: `/ready` must be able to say that it drains.
        let admin = tokio::spawn(admin.serve(Drain::default(), move |stream, _, permit| {
            let pages = pages.clone();
            async move {
                let never = Drain::default();
                server::serve(stream, timeout, &never, |request| pages.clone().answer(request)).await;
                drop(permit);
            }
        }));
        let swept = node.clone();
        let sweeper = tokio::spawn(async move {
            let mut ticks = tokio::time::interval(SWEEP);
            loop {
                ticks.tick().await;
                swept.hub.sweep();
                swept.kv.sweep();
            }
        });
        let looked = reload.catalog.clone();
        let looking = tokio::spawn(async move {
            let mut ticks = tokio::time::interval(LOOK);
            loop {
                looked.look(ticks.tick().await.into_std());
            }
        });
        let (doors, http) = (drain.clone(), reload.http.clone());
        let public = tokio::spawn(public.serve(drain.clone(), move |stream, peer, permit| {
            let (http, drain) = (http.clone(), doors.clone());
            async move {
                // An upgraded connection outlives this task: its session holds the permit then.
                let permit = Arc::new(permit);
                let answer = |request| http.clone().answer(request, peer.ip(), permit.clone());
                server::serve(stream, timeout, &drain, answer).await;
            }
        }));
        stop.recv().await;
        let sessions = node.registry.len();
        tracing::info!(sessions, seconds = drain_timeout.as_secs_f64(), "draining: no new sessions");
        drain.begin();
        public.await.context("the listener has failed")?;
        let drained = tokio::select! {
            () = leave(&node, &drain, drain_timeout) => true,
            () = tokio::time::sleep(drain_timeout) => false,
            _ = stop.recv() => false,
        };
        match drained {
            true => tracing::info!("drained: every session has ended"),
            false => {
                tracing::warn!(sessions = drain.guests(), "not drained: the sessions that are left are broken off")
            }
        }
        if node.hub.queued() > 0 {
            tracing::error!(
                publications = node.hub.queued(),
                "these still wait for Redis, and are lost with this process"
            );
        }
        queue.inspect(tokio::task::JoinHandle::abort);
        node.presence.leave_cluster().await;
        drop(present);
        if let Some(redis) = &node.redis {
            redis.leave().await;
        }
        drop(link);
        sweeper.abort();
        admin.abort();
        asking.abort();
        looking.abort();
        reload.catalog.leave();
        let catalog = reload.catalog.clone();
        let end = move || {
            catalog.finish_recordings();
            // Its thread may be in the middle of a compilation.
            drop(watch);
        };
        tokio::task::spawn_blocking(end).await.context("the watcher has failed")
    }
}

/// Publications first, then goodbyes, spread over half of the time so that the clients do not all come back at once.
async fn leave(node: &Node, drain: &Drain, time: Duration) {
    node.hub.flushed().await;
    let close = Close::new(Close::RESTART, "the gateway is restarting: connect again");
    loop {
        let sessions = node.registry.all();
        let pause = (time / 2).checked_div(sessions.len() as u32).unwrap_or_default().min(Duration::from_millis(2));
        let mut next = tokio::time::Instant::now();
        for outbox in sessions {
            // A close is always taken.
            let _ = outbox.request(Request::Close(close.clone(), Closer::Gateway));
            next += pause;
            tokio::time::sleep_until(next).await;
        }
        // Whoever was at the door when it closed is a session only now, and is told then.
        if tokio::time::timeout(LATECOMERS, drain.empty()).await.is_ok() {
            break;
        }
    }
    node.hub.flushed().await;
}

fn in_use(what: &str, address: SocketAddr) -> String {
    format!("the address {address} (`{what}`) cannot be had: is another gateway running? Choose another with --{what}")
}
