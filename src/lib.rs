//! Tidegate: a realtime gateway that is programmed in WebAssembly.
//!
//! This file puts the parts together: a `Config` becomes a `Gateway`, which runs until it is told to drain. What stands
//! above what is in ARCHITECTURE.md.

mod admin;
mod apply;
mod broker;
mod certificate;
pub mod cli;
mod client;
pub mod config;
mod drain;
mod edge;
mod files;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
mod handover;
mod heartbeat;
mod http;
mod hub;
mod kv;
mod leave;
mod listener;
mod message;
mod metrics;
mod node;
mod outbox;
mod permits;
#[cfg(any(test, feature = "pieces"))]
#[doc(hidden)]
pub mod pieces;
mod plugin;
mod presence;
mod proxy;
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
mod ticks;
mod tls;
mod transport;
mod upstream;
mod watch;
mod wheel;
mod wire;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use parking_lot::Mutex;
use tokio::sync::mpsc;

use crate::admin::{Admin, Lock};
use crate::apply::{Applier, NodeIntake};
use crate::broker::{Broker, MemoryBroker, RedisBroker};
use crate::client::Client;
use crate::config::{Config, ConnectionsConfig, DrainConfig};
use crate::drain::Drain;
use crate::edge::{Arrived, Door, Edge};
use crate::handover::{Sockets, Upgrade, systemd};
use crate::http::Http;
use crate::hub::Hub;
use crate::kv::{Kv, MemoryKv, RedisKv};
use crate::listener::Listener;
use crate::metrics::Metrics;
use crate::node::Node;
use crate::plugin::{Cache, Catalog, Loader, Prepared, Room};
use crate::redis::Redis;
use crate::reload::Reload;
use crate::route::TopicRules;
use crate::server::Bounds;
use crate::source::{Clock, Random};
use crate::tap::Tap;
use crate::watch::Watch;

pub use crate::drain::{Signals, signals};
pub use crate::handover::{Inherited, Program};
pub use crate::plugin::Status;

/// How often what has outlived its time is forgotten.
const SWEEP: Duration = Duration::from_secs(10);
/// How often the health of plugins is looked at.
const LOOK: Duration = Duration::from_millis(250);
/// Descriptors that clients' connections leave free.
const DESCRIPTORS: usize = 128;
/// Connections on the admin address.
const ADMIN_CONNECTIONS: usize = 64;

/// A gateway, ready to serve.
pub struct Gateway {
    handshake_timeout: Duration,
    upgrade_timeout: Duration,
    leaving: DrainConfig,
    public: Listener,
    /// Beside the plain one, where TLS has an address of its own.
    tls: Option<Listener>,
    admin: Listener,
    predecessor: Option<Arc<handover::Predecessor>>,
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
    /// Loads the plugins and binds the addresses, unless there are sockets already.
    pub async fn build(config: Config, inherited: Inherited) -> anyhow::Result<Self> {
        let (config, node, catalog, prepared) = prepare(config).await?;
        let metrics = node.metrics.clone();
        let Inherited { public, tls, admin, predecessor } = inherited;
        let connections = within_descriptors(config.max_connections);
        let public = listener("public", "listen", public, config.listen, connections, &metrics)?;
        let beside = |address| public.beside("tls", tls, address).with_context(|| in_use("tls.listen", address));
        let tls = config.tls.as_ref().and_then(|tls| tls.listen).map(beside).transpose()?;
        let admin = listener("admin", "admin", admin, config.admin, ADMIN_CONNECTIONS, &metrics)?;
        let edge = Arc::new(Edge::new(&config, metrics)?);
        let lock = Arc::new(Lock::new(config.admin_token.as_ref()));
        let applier = Applier::new(node);
        let drain = Drain::default();
        let http = Arc::new(Http::new(reload::site(&config, &prepared)?, applier.clone(), drain.clone()));
        applier.claim(reload::claims(&config, &prepared));
        catalog.install(prepared);
        catalog.begin_recordings();
        let (handshake_timeout, upgrade_timeout) = (config.handshake_timeout.0, config.upgrade_timeout.0);
        let leaving = config.drain;
        let reload = Arc::new(Reload::new(config, catalog, http, applier, edge, lock));
        Ok(Self { handshake_timeout, upgrade_timeout, leaving, public, tls, admin, predecessor, reload, drain })
    }

    /// Where clients connect.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.public.address()
    }

    /// Where TLS is spoken, if that is another address.
    pub fn tls_address(&self) -> std::io::Result<Option<SocketAddr>> {
        self.tls.as_ref().map(Listener::address).transpose()
    }

    /// Where the admin pages are.
    pub fn admin_address(&self) -> std::io::Result<SocketAddr> {
        self.admin.address()
    }

    /// Serves until it is told to stop or `program`, started anew, has taken over; then drains. Being told a second time
    /// ends the drain at once.
    pub async fn run(self, signals: Signals, program: &Program) -> anyhow::Result<()> {
        let Self { handshake_timeout: timeout, upgrade_timeout, leaving, .. } = self;
        let Self { public, tls, admin, predecessor, reload, drain, .. } = self;
        let Signals { mut stop, reload: mut asked, upgrade: mut upgrades } = signals;
        let shared_tls = tls.as_ref().map(Listener::share).transpose()?;
        let sockets = Sockets { public: public.share()?, tls: shared_tls, admin: admin.share()? };
        let (upgrade, mut upgrades_asked) = mpsc::channel(4);
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
            upgrade,
            status,
            lock: reload.lock.clone(),
        });
        // The admin pages stay until the process ends, or another answers there: `/ready` must be able to say that it
        // drains.
        let replaced = Drain::default();
        let pages_drain = replaced.clone();
        let admin = tokio::spawn(admin.serve(replaced.clone(), move |stream, _, permit| {
            let (pages, drain) = (pages.clone(), pages_drain.clone());
            async move {
                let bounds = Bounds::new(timeout, &ConnectionsConfig::default());
                server::serve(stream, bounds, &drain, |request| pages.clone().answer(request), |_| {}).await;
                drop(permit);
            }
        }));
        let (swept, seldom) = (node.clone(), reload.edge.clone());
        let sweeper = tokio::spawn(async move {
            let mut ticks = tokio::time::interval(SWEEP);
            loop {
                ticks.tick().await;
                swept.hub.sweep();
                swept.kv.sweep();
                seldom.permits.sweep(tokio::time::Instant::now());
            }
        });
        let looked = reload.catalog.clone();
        let looking = tokio::spawn(async move {
            let mut ticks = tokio::time::interval(LOOK);
            loop {
                looked.look(ticks.tick().await.into_std());
            }
        });
        // `listen` speaks TLS unless that has an address of its own.
        let first = if reload.edge.has_tls() && tls.is_none() { Door::Tls } else { Door::Plain };
        let doors = [Some((public, first)), tls.map(|listener| (listener, Door::Tls))];
        let doors: Vec<_> = doors.into_iter().flatten().map(|door| tokio::spawn(open(door, &reload, &drain))).collect();
        match predecessor {
            // It tells the service manager as well.
            Some(predecessor) => predecessor.ready(),
            None => systemd::ready(),
        }
        let upgrade = Upgrade { program, sockets, timeout: upgrade_timeout, metrics: &node.metrics };
        let successor = handover::until_told(upgrade, &mut stop, &mut upgrades, &mut upgrades_asked).await;
        drop(upgrades_asked);
        drain.announce();
        let sessions = node.registry.len();
        match successor {
            Some(process) => {
                systemd::replaced_by(process);
                replaced.stop_accepting();
                replaced.begin();
                tracing::info!(process, sessions, "handed over: draining, and another process serves");
            }
            None => {
                systemd::stopping();
                tracing::info!(sessions, seconds = leaving.timeout.0.as_secs_f64(), "draining");
            }
        }
        let goodbye = async {
            if successor.is_none() {
                tokio::time::sleep(leaving.pause.0).await;
            }
            let accepted = async {
                for door in doors {
                    if door.await.is_err() {
                        tracing::error!("a listener has failed: please report this");
                    }
                }
            };
            leave::leave(&node, &drain, &leaving, accepted).await;
        };
        let told_again = async {
            if successor.is_some() {
                // The first that this process hears itself.
                stop.recv().await;
            }
            stop.recv().await
        };
        let drained = tokio::select! {
            () = goodbye => true,
            () = tokio::time::sleep(leaving.timeout.0) => false,
            _ = told_again => false,
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

/// As many connections as leave descriptors for the rest: the admin pages, files, Redis, upstreams. Who waits for a place is
/// better off than who has taken the last descriptor.
fn within_descriptors(connections: usize) -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let limit = limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX);
    connections.min(limit.saturating_sub(DESCRIPTORS.min(limit / 2))).max(1)
}

/// Listens on an inherited socket if there is one, else on the address that the configuration has under `key`.
fn listener(
    name: &str,
    key: &str,
    inherited: Option<std::net::TcpListener>,
    address: SocketAddr,
    connections: usize,
    metrics: &Arc<Metrics>,
) -> anyhow::Result<Listener> {
    match inherited {
        Some(socket) => Listener::inherit(name, socket, connections, metrics.clone())
            .with_context(|| format!("the inherited socket `{name}` cannot be listened to")),
        None => Listener::bind(name, address, connections, metrics.clone()).with_context(|| in_use(key, address)),
    }
}

/// Serves what arrives at a door until the drain begins.
fn open((listener, door): (Listener, Door), reload: &Reload, drain: &Drain) -> impl Future<Output = ()> + Send + use<> {
    let (edge, http, doors) = (reload.edge.clone(), reload.http.clone(), drain.clone());
    listener.serve(drain.clone(), move |stream, peer, permit| {
        let (edge, http, drain) = (edge.clone(), http.clone(), doors.clone());
        let arrival = Mutex::new(Some(drain.arrive()));
        // An upgraded connection outlives this task: its session holds the permit then.
        let arrived = Arrived { stream, peer: peer.ip(), door, permit: Arc::new(permit) };
        async move {
            let answer = move |request, peer, permit| {
                let (arrival, answered) = (arrival.lock().take(), http.clone().answer(request, peer, permit));
                async move {
                    let answered = answered.await;
                    drop(arrival);
                    answered
                }
            };
            edge.serve(arrived, &drain, answer).await;
        }
    })
}

fn in_use(what: &str, address: SocketAddr) -> String {
    format!("the address {address} (`{what}`) cannot be had: is another gateway running? Choose another with --{what}")
}
