//! Keeps the picture of who the servers are: asks, makes links to those that are new, and hands over the channels of slots that
//! have another owner.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use redis::Value;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::backoff::Backoff;
use super::link::Link;
use super::links::Links;
use super::servers::Found;
use super::slots::{Address, Topology};
use super::{Intake, Redis};

/// Between two looks, at least.
const SPACING: Duration = Duration::from_millis(50);
/// Between two looks at a Cluster that is well.
const REST: Duration = Duration::from_secs(10);
/// The same while one of its servers does not deliver: somebody may take its place at any moment.
const TROUBLED: Duration = Duration::from_millis(300);
/// Servers that are asked at the same time.
const ASKED: usize = 5;
/// How long the others may take when one has answered. The frozen one of them never does.
const GRACE: Duration = Duration::from_millis(100);
/// How long a link is kept to a server that owns nothing, after a redirection to it.
const STRANGER: Duration = Duration::from_secs(60);
/// Such servers, at most.
const STRANGERS: usize = 64;
/// Names that are tried for a probe. One slot of all is found in a sixteenth of them.
const NAMES: u32 = 1 << 18;

/// The links and their tasks.
struct Keeper {
    redis: Arc<Redis>,
    intake: Arc<dyn Intake>,
    tasks: HashMap<u64, JoinSet<()>>,
    /// The number of the last link that was made.
    next: u64,
}

impl Redis {
    /// Looks who the servers are, for ever.
    pub(super) async fn keep_links(self: Arc<Self>, intake: Arc<dyn Intake>) {
        let mut keeper = Keeper { redis: self.clone(), intake, tasks: HashMap::new(), next: 0 };
        let mut backoff = Backoff::default();
        loop {
            match self.look().await {
                Ok(found) => {
                    backoff.reset();
                    let rest = matches!(found, Found::Cluster(_));
                    keeper.take(found);
                    tokio::time::sleep(SPACING).await;
                    tokio::select! {
                        () = self.look.notified() => {}
                        () = tokio::time::sleep(if self.health.is_well() { REST } else { TROUBLED }), if rest => {}
                    }
                }
                Err(error) => {
                    self.health.unknown(&error, backoff.failed());
                    let mut changes = self.changes.subscribe();
                    tokio::select! {
                        () = tokio::time::sleep(self.pause(&mut backoff)) => {}
                        // One that can be asked is back.
                        _ = changes.changed() => {}
                    }
                }
            }
        }
    }

    /// The picture of the servers may be wrong.
    pub(super) fn look_again(&self) {
        if self.links.read().is_cluster() || self.servers.is_cluster() {
            self.look.notify_one();
        }
    }

    async fn look(&self) -> anyhow::Result<Found> {
        let known = {
            let topology = self.topology.lock();
            let masters = topology.masters().into_iter().cloned();
            masters.chain(topology.replicas.iter().cloned()).collect::<Vec<_>>()
        };
        match self.ask_links().await {
            Some(topology) => Ok(Found::Cluster(topology)),
            None => self.servers.discover(&known).await,
        }
    }

    /// Asks servers of the Cluster that this node is connected to anyway. The one that knows of the latest change is right.
    async fn ask_links(&self) -> Option<Topology> {
        let mut links: Vec<_> = {
            let links = self.links.read();
            links.all.iter().filter(|link| link.address.is_some() && link.commands.is_connected()).cloned().collect()
        };
        if links.is_empty() {
            return None;
        }
        let first = self.random.number().unwrap_or_default() as usize % links.len();
        links.rotate_left(first);
        let timeout = self.config.timeout.0;
        let mut asked = JoinSet::new();
        for link in links.into_iter().take(ASKED) {
            asked.spawn(async move { ask(&link, timeout).await });
        }
        let mut best: Option<Topology> = None;
        let mut until = Instant::now() + timeout;
        while let Ok(Some(answer)) = tokio::time::timeout_at(until, asked.join_next()).await {
            let Ok(Some(found)) = answer else { continue };
            until = until.min(Instant::now() + GRACE);
            let is_news = |best: &Topology| found.epoch == best.epoch && *best == *self.topology.lock();
            if best.as_ref().is_none_or(|best| found.epoch > best.epoch || is_news(best)) {
                best = Some(found);
            }
        }
        best
    }

    /// Of whom there must be links, in order.
    fn addresses(&self, found: &Found) -> Vec<Option<Address>> {
        let Found::Cluster(topology) = found else { return vec![None] };
        let mut strangers = self.strangers.lock();
        strangers.retain(|_, asked| asked.elapsed() < STRANGER);
        let mut all: Vec<_> = topology.masters().into_iter().chain(strangers.keys()).cloned().collect();
        all.sort();
        all.dedup();
        all.into_iter().map(Some).collect()
    }

    /// The link to this server once it is connected; one is made where there is none.
    pub(super) async fn reach(&self, address: &Address, deadline: Instant) -> Option<Arc<Link>> {
        let mut changes = self.changes.subscribe();
        loop {
            {
                let links = self.links.read();
                let link = links.at(address);
                if link.is_none_or(|link| !links.has_slots(link)) {
                    let mut strangers = self.strangers.lock();
                    if strangers.len() < STRANGERS || strangers.contains_key(address) {
                        strangers.insert(address.clone(), Instant::now());
                    }
                }
                if let Some(link) = link.filter(|link| link.commands.is_connected()) {
                    return Some(link.clone());
                }
            }
            self.look_again();
            tokio::time::timeout_at(deadline, changes.changed()).await.ok()?.ok()?;
        }
    }
}

async fn ask(link: &Link, timeout: Duration) -> Option<Topology> {
    let slots = redis::cmd("CLUSTER").arg("SLOTS").to_owned();
    let info = redis::cmd("CLUSTER").arg("INFO").to_owned();
    let both = tokio::join!(link.commands.send(&slots, false, timeout), link.commands.send(&info, false, timeout));
    let (Ok(slots @ Value::Array(_)), Ok(info)) = both else { return None };
    let asked = link.address.as_ref().map_or("", |address| &address.host);
    Topology::read(&slots, &info, asked).filter(|topology| !topology.ranges.is_empty())
}

impl Keeper {
    /// Puts in place what was found.
    fn take(&mut self, found: Found) {
        let redis = self.redis.clone();
        let addresses = redis.addresses(&found);
        let (old, nobody, is_known) = {
            let links = redis.links.read();
            let is_known = match &found {
                Found::One => !links.is_cluster(),
                Found::Cluster(topology) => links.is_cluster() && *topology == *redis.topology.lock(),
            };
            let same = links.all.iter().map(|link| &link.address).eq(&addresses);
            (links.all.clone(), links.nobody.clone(), is_known && same)
        };
        let all: Vec<_> = addresses
            .into_iter()
            .map(|address| match old.iter().find(|link| link.address == address) {
                Some(link) => link.clone(),
                None => {
                    self.next += 1;
                    Arc::new(Link::new(self.next, address, redis.metrics.clone()))
                }
            })
            .collect();
        let links = match &found {
            Found::One => Links::one(all.clone(), nobody),
            Found::Cluster(topology) => Links::cluster(all.clone(), &topology.ranges, nobody),
        };
        let owners: Vec<_> = all.iter().filter(|link| links.has_slots(link)).map(|link| &**link).collect();
        redis.health.known(&owners);
        if is_known {
            return;
        }
        self.tell_masters(&found);
        *redis.topology.lock() = match found {
            Found::One => Topology::default(),
            Found::Cluster(topology) => topology,
        };
        self.hand_over(&old, links);
        redis.choose_probes(&old);
        self.tasks.retain(|number, _| all.iter().any(|link| link.number == *number));
        for link in &all {
            self.tasks.entry(link.number).or_insert_with(|| {
                let mut tasks = JoinSet::new();
                tasks.spawn(redis.clone().keep_commands(link.clone(), self.intake.clone()));
                tasks.spawn(redis.clone().keep_subscriptions(link.clone(), self.intake.clone()));
                tasks.spawn(redis.clone().keep_probing(link.clone()));
                tasks
            });
        }
        redis.changed();
    }

    fn tell_masters(&self, found: &Found) {
        let Found::Cluster(topology) = found else { return };
        let known = self.redis.topology.lock();
        if known.masters() != topology.masters() {
            let masters: Vec<_> = topology.masters().iter().map(|master| master.to_string()).collect();
            tracing::info!(masters = masters.join(" "), epoch = topology.epoch, "Redis is a Cluster of these masters");
        }
    }

    /// Channels go to those who own their slots now. Whoever follows them is told that they are lost before anybody can say
    /// that they are back.
    fn hand_over(&self, old: &[Arc<Link>], new: Links) {
        let mut moved: HashMap<u64, (Arc<Link>, Vec<String>)> = HashMap::new();
        {
            // Nobody wants or leaves a channel meanwhile.
            let mut links = self.redis.links.write();
            *links = new;
            for link in old.iter().chain([&links.nobody]) {
                let is_other = |name: &str| links.owner(name.as_bytes()).number != link.number;
                for (name, channel) in link.subscriptions.take(is_other) {
                    let owner = links.owner(name.as_bytes());
                    owner.subscriptions.adopt(name.clone(), channel);
                    moved.entry(owner.number).or_insert_with(|| (owner.clone(), Vec::new())).1.push(name);
                }
            }
        }
        for (owner, names) in moved.into_values() {
            self.intake.lost(&names);
            owner.subscriptions.again(&names);
            // Its connection may be so new that it has subscribed to them by itself.
            let confirmed: Vec<_> = names.into_iter().filter(|name| owner.subscriptions.is_confirmed(name)).collect();
            if !confirmed.is_empty() {
                self.intake.back(&confirmed);
            }
        }
    }
}

impl Redis {
    /// Gives each server a probe in one of its slots.
    fn choose_probes(&self, old: &[Arc<Link>]) {
        let mut chosen = Vec::new();
        {
            let links = self.links.read();
            let gone = old.iter().filter(|link| links.all.iter().all(|one| one.number != link.number));
            chosen.extend(gone.filter_map(|link| Some((link.probe.lock().take()?, None))));
            for link in &links.all {
                let mut probe = link.probe.lock();
                let owns = |name: &str| links.has_slots(link) && links.owner(name.as_bytes()).number == link.number;
                if probe.as_deref().is_some_and(owns) || (probe.is_none() && !links.has_slots(link)) {
                    continue;
                }
                let name = (0..NAMES).map(|number| self.keys.probe(self.node, number)).find(|name| owns(name));
                let new = name.map(Arc::<str>::from);
                chosen.push((std::mem::replace(&mut *probe, new.clone()).unwrap_or_default(), new));
                link.probes.forget();
            }
        }
        for (old, new) in chosen {
            self.unwant(&old);
            if let Some(new) = new {
                self.want(&new);
            }
        }
    }
}
