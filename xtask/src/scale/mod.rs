//! `cargo xtask scale`: many sessions on a cluster of gateways on this one machine, publications that reach all of them, and what both
//! take. Everything that was started ends with it: at its end, on failure, on ctrl-c, and when its time is over.

mod census;
mod frame;
mod holder;
mod holders;
mod need;
mod nodes;
mod report;
mod times;

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use rustix::{
    process::{Resource, Rlimit, getrlimit, setrlimit},
    time::{ClockId, clock_gettime},
};
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    flag,
};

pub(crate) use holder::{Options as HolderOptions, run as hold};

use self::{
    census::{Machine, Use},
    holders::Holder,
    need::Need,
    nodes::Servers,
    report::{Publication, Report},
    times::Times,
};
use crate::{apt, cluster::client::Client, demo, plugins, process::spell};

#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) sessions: u64,
    pub(crate) nodes: Option<u64>,
    /// Publications before sessions come and go, and again after.
    pub(crate) publications: u32,
    /// Sessions that leave and come back, in percent.
    pub(crate) churn: u64,
    /// Bytes of a publication.
    pub(crate) size: usize,
    /// All of it ends by then.
    pub(crate) limit: Duration,
    /// Also where it takes most of the machine.
    pub(crate) yes: bool,
    /// Take this one, and the plugins as they are.
    pub(crate) gateway: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            sessions: 20_000,
            nodes: None,
            publications: 5,
            churn: 5,
            size: 128,
            limit: Duration::from_secs(900),
            yes: false,
            gateway: None,
        }
    }
}

/// From here on somebody must have said yes.
const MANY: u64 = 200_000;
/// Holders that open sessions at a time: more would only wait for each other.
const AT_ONCE: usize = 4;
/// How long a publication may take to reach everybody.
const REACH_WITHIN: Duration = Duration::from_secs(120);
/// Between the last session and what is measured: allocators and the kernel have come to rest.
const SETTLE: Duration = Duration::from_secs(2);

/// Nanoseconds of a clock that all processes of the machine share.
fn clock() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    u64::try_from(now.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0)
}

/// Why it should end before it is through.
struct Stop {
    /// The last signal that came for us, 0 for none.
    signal: Arc<AtomicUsize>,
    begun: Instant,
    limit: Duration,
}

impl Stop {
    fn new(limit: Duration) -> Result<Self> {
        let signal = Arc::new(AtomicUsize::new(0));
        for number in [SIGINT, SIGTERM, SIGHUP] {
            flag::register_usize(number, Arc::clone(&signal), usize::try_from(number)?)
                .context("signals cannot be watched")?;
        }
        Ok(Self { signal, begun: Instant::now(), limit })
    }

    fn look(&self) -> Result<()> {
        ensure!(self.signal.load(Ordering::SeqCst) == 0, "told to end; everything that was started has ended");
        ensure!(
            self.begun.elapsed() < self.limit,
            "not through after {}; --limit gives it more time",
            spell(self.limit)
        );
        Ok(())
    }

    fn sleep(&self, time: Duration) -> Result<()> {
        let begun = Instant::now();
        while begun.elapsed() < time {
            self.look()?;
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}

pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let need = Need::of(options.sessions, options.nodes, raise_files()?)?;
    need.fits(u64::try_from(Machine::now()?.available)?)?;
    println!("{} sessions in {} gateways: {need}", need.sessions, need.nodes);
    if need.sessions > MANY && !options.yes {
        println!(
            "That takes most of a machine for some minutes, and nothing was started yet. To do it: the same with --yes"
        );
        return Ok(ExitCode::FAILURE);
    }
    let redis = apt::REDIS.ensure().context("nodes share a Redis")?;
    let gateway = match &options.gateway {
        Some(path) => fs::canonicalize(path).with_context(|| format!("--gateway {}", path.display()))?,
        None => {
            println!("building the gateway, optimised, and the plugin …");
            let binary = demo::build_gateway(true)?;
            plugins::build(&["fanout".to_owned()])?;
            binary
        }
    };
    let folder = nodes::folder()?;
    let stop = Stop::new(options.limit)?;
    let mut report = Report { options: told(options), nodes: need.nodes, size: options.size, ..Report::default() };
    if let Err(error) = test(options, &need, (&gateway, &redis), &folder, &stop, &mut report) {
        return Err(error.context(format!("logs: {}", folder.display())));
    }
    let text = report.markdown();
    print!("\n{text}");
    fs::write(folder.join("report.md"), &text)?;
    fs::write(folder.join("report.json"), format!("{:#}\n", report.json()))?;
    println!("\nThis report: {}, and report.json beside it", folder.join("report.md").display());
    Ok(if report.complete() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn told(options: &Options) -> String {
    let nodes = options.nodes.map_or_else(String::new, |nodes| format!(" --nodes {nodes}"));
    format!("cargo xtask scale --sessions {}{nodes}", options.sessions)
}

/// As many open files as this user may have, for us and for all that we start.
fn raise_files() -> Result<u64> {
    let limit = getrlimit(Resource::Nofile);
    let most = limit.maximum.unwrap_or(1 << 20);
    setrlimit(Resource::Nofile, Rlimit { current: Some(most), maximum: limit.maximum })
        .context("the limit of open files cannot be raised")?;
    Ok(most)
}

fn test(
    options: &Options,
    need: &Need,
    (gateway, redis): (&Path, &Path),
    folder: &Path,
    stop: &Stop,
    report: &mut Report,
) -> Result<()> {
    let begun = Instant::now();
    let mut servers = Servers::start(need, gateway, redis, folder, stop)?;
    println!("{:>8}  a Redis and {} gateways are ready", spell(begun.elapsed()), need.nodes);
    let mut holders = Vec::new();
    for (number, node) in servers.nodes.iter().enumerate() {
        holders.push(Holder::start(number as u64, node.listen, nodes::SUBSCRIBE)?);
    }
    let mut publisher = publisher(&servers)?;
    stop.sleep(SETTLE)?;
    let empty = Snapshot::take(&servers, &holders)?;
    report.base = empty.nodes;

    let opening = Instant::now();
    open(&mut holders, need, stop, true)?;
    report.opening = opening.elapsed();
    stop.sleep(SETTLE)?;
    let full = Snapshot::take(&servers, &holders)?;
    report.sessions = servers.count("tidegate_sessions{route=\"sub\"}")?;
    report.grown(&full.since(&empty));
    ensure!(
        report.sessions == need.sessions,
        "the gateways count {} sessions, and the clients {}",
        report.sessions,
        need.sessions
    );
    println!("{:>8}  all {} sessions are open, by the gateways' count too", spell(begun.elapsed()), report.sessions);

    let mut number = 0;
    publish(&mut publisher, &mut holders, &mut servers, need, (&mut number, options), stop, report)?;
    if options.churn > 0 {
        let leavers = |node| need.share(node) * options.churn.min(100) / 100;
        let churning = Instant::now();
        for (node, holder) in holders.iter_mut().enumerate() {
            holder.tell(&format!("leave {}", leavers(node as u64)))?;
        }
        for (node, holder) in holders.iter_mut().enumerate() {
            let left: u64 = holder.hear("left", Instant::now() + REACH_WITHIN, stop)?.parse()?;
            ensure!(left == leavers(node as u64), "{left} have left node {}, not {}", node + 1, leavers(node as u64));
        }
        let left = churning.elapsed();
        open(&mut holders, need, stop, false)?;
        let count = (0..need.nodes).map(leavers).sum::<u64>();
        report.churn = Some((count, left, churning.elapsed() - left));
        println!("{:>8}  {count} sessions have left and come back", spell(begun.elapsed()));
        stop.sleep(SETTLE)?;
        let churned = Snapshot::take(&servers, &holders)?;
        report.after_churn = churned.nodes - empty.nodes;
        let once = Options { publications: options.publications.min(2), gateway: None, ..*options };
        publish(&mut publisher, &mut holders, &mut servers, need, (&mut number, &once), stop, report)?;
    }
    for holder in &mut holders {
        let state = holder.state(stop)?;
        report.lost += state.lost;
        report.wrong += state.wrong;
    }
    report.redis = Use::of(&[servers.redis.id()])?;
    // Clients first: nobody is left then who could complain about the gateways' end.
    holders.clear();
    servers.kill();
    report.took = begun.elapsed();
    println!("{:>8}  everything that was started has ended", spell(report.took));
    Ok(())
}

/// A client on the first node.
fn publisher(servers: &Servers) -> Result<Client> {
    let client = Client::connect(servers.nodes[0].listen, nodes::PUBLISH)?;
    client.map_err(|why| anyhow::anyhow!("node 1 does not take who publishes: {why}"))
}

/// Opens what is missing of each node's sessions, a few nodes at a time.
fn open(holders: &mut [Holder], need: &Need, stop: &Stop, aloud: bool) -> Result<()> {
    let until = Instant::now() + stop.limit;
    let mut number = 0;
    for wave in holders.chunks_mut(AT_ONCE) {
        let begun = Instant::now();
        for (at, holder) in wave.iter_mut().enumerate() {
            holder.tell(&format!("open {}", need.share(number + at as u64)))?;
        }
        for holder in wave {
            holder.opened(need.share(number), until, stop)?;
            number += 1;
        }
        if aloud {
            let sofar: u64 = (0..number).map(|node| need.share(node)).sum();
            println!("{:>8}  {sofar} sessions on {number} nodes (these took {})", "", spell(begun.elapsed()));
        }
    }
    Ok(())
}

/// One publication after the other, each when everybody has had the one before.
fn publish(
    publisher: &mut Client,
    holders: &mut [Holder],
    servers: &mut Servers,
    need: &Need,
    (number, options): (&mut u32, &Options),
    stop: &Stop,
    report: &mut Report,
) -> Result<()> {
    for _ in 0..options.publications {
        *number += 1;
        let before = Snapshot::take(servers, holders)?;
        let delivered = servers.count("tidegate_deliveries_total")?;
        publisher.send(&frame::published(*number, clock(), options.size))?;
        let until = Instant::now() + REACH_WITHIN;
        let mut times = Times::default();
        let mut incomplete = Vec::new();
        for (node, holder) in holders.iter_mut().enumerate() {
            match holder.has(*number, need.share(node as u64), until, stop)? {
                Some(these) => times.add(&these),
                None => incomplete.push(node + 1),
            }
        }
        servers.must_run()?;
        let used = Snapshot::take(servers, holders)?.since(&before);
        let counted = servers.count("tidegate_deliveries_total")? - delivered;
        let publication = Publication { number: *number, times, incomplete, counted, used };
        println!("{:>8}  {}", "", publication.line());
        report.publications.push(publication);
    }
    Ok(())
}

/// What everybody uses at a moment.
#[derive(Clone, Copy, Default)]
struct Snapshot {
    nodes: Use,
    redis: Use,
    clients: Use,
    /// The kernel's own objects, sockets among them, in bytes.
    slab: i64,
}

impl Snapshot {
    fn take(servers: &Servers, holders: &[Holder]) -> Result<Self> {
        let (nodes, redis) = servers.usage()?;
        let ids: Vec<_> = holders.iter().map(Holder::id).collect();
        Ok(Self { nodes, redis, clients: Use::of(&ids)?, slab: Machine::now()?.slab })
    }

    fn since(&self, before: &Self) -> Self {
        Self {
            nodes: self.nodes - before.nodes,
            redis: self.redis - before.redis,
            clients: self.clients - before.clients,
            slab: self.slab - before.slab,
        }
    }
}
