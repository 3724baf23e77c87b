//! `cargo xtask cluster`: a Redis, three nodes with the chat example and a balancer in front, until ctrl-c; or for as long as it
//! takes to see that a client survives the end of its node.

mod balancer;
mod check;
pub(crate) mod client;
pub(crate) mod part;
mod watch;

use std::{
    fs,
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use rustix::process::Signal;
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    flag,
};

pub(crate) use self::balancer::Balancer;

use self::part::Part;
use crate::{
    apt, demo,
    gateway::{free, is_ready},
    plugins, process, workspace,
};

pub(crate) struct Options {
    /// Where the balancer listens.
    pub(crate) listen: SocketAddr,
    /// A Redis that runs already.
    pub(crate) redis: Option<String>,
    pub(crate) balancer: Balancer,
    /// Check that it works, and end.
    pub(crate) once: bool,
    /// Build nothing.
    pub(crate) built: bool,
    pub(crate) release: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            listen: demo::Options::default().listen,
            redis: None,
            balancer: Balancer::Haproxy,
            once: false,
            built: false,
            release: false,
        }
    }
}

const NODES: usize = 3;
const POLL: Duration = Duration::from_millis(50);
/// A node compiles the plugins when it is started for the first time.
const READY_WITHIN: Duration = Duration::from_secs(120);
/// The gateway's `drain.timeout`, and some more.
const DRAIN_WITHIN: Duration = Duration::from_secs(15);
/// How long a node that was killed stays away.
const AWAY: Duration = Duration::from_secs(5);

/// Everything that was started. What is left of it ends with this value.
struct Cluster {
    /// Nodes first, then the balancer that their clients come by, then what they say goodbye to.
    nodes: Vec<Node>,
    balancer: Option<Part>,
    redis: Option<Redis>,
    listen: SocketAddr,
    binary: PathBuf,
    folder: PathBuf,
    url: String,
    /// The last signal that came for us, 0 for none.
    signal: Arc<AtomicUsize>,
}

/// A Redis of our own.
struct Redis {
    program: PathBuf,
    address: SocketAddr,
    part: Option<Part>,
    /// When it is started again.
    again: Option<Instant>,
}

struct Node {
    number: usize,
    listen: SocketAddr,
    admin: SocketAddr,
    part: Option<Part>,
    /// When it is started again.
    again: Option<Instant>,
}

pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let listen = demo::free(options.listen, "cluster --listen")?;
    let redis = match options.redis {
        Some(_) => None,
        None => Some(apt::REDIS.ensure().context("nodes share a Redis: name one with --redis URL, or get one")?),
    };
    let balancer = match options.balancer.ensure() {
        Ok(program) => program,
        Err(error) if options.once => return Err(error.context("--balancer none leaves it out")),
        Err(error) => {
            eprintln!("\nTHERE IS NO LOAD BALANCER: {error:#}.\nGoing on without: clients go to node 1 directly.\n");
            None
        }
    };
    let binary = build(options)?;
    let step = |number: usize| if options.built { format!("{}/2", number - 2) } else { format!("{number}/4") };
    println!("{}  Starting Redis …", step(3));
    let mut folder = workspace::root().join("target/cluster");
    if options.once {
        // Several may check at a time.
        folder.push(format!("check-{}", std::process::id()));
    }
    fs::create_dir_all(&folder).with_context(|| format!("{} cannot be made", folder.display()))?;
    let mut cluster = Cluster::new(listen, binary, folder.clone())?;
    match (&options.redis, redis) {
        (Some(url), _) => cluster.url.clone_from(url),
        (None, Some(program)) => cluster.start_redis(&program)?,
        (None, None) => {}
    }
    println!("{}  Starting three nodes{} …", step(4), if balancer.is_some() { " and the balancer" } else { "" });
    let started = cluster.start(options.balancer, balancer.as_deref());
    let done = match started {
        Ok(true) if options.once => check::run(&mut cluster).map(|()| ExitCode::SUCCESS),
        Ok(true) => cluster.print_links(options).and_then(|()| cluster.watch()),
        Ok(false) => Ok(ExitCode::FAILURE),
        Err(error) => Err(error),
    };
    cluster.end();
    match done {
        Ok(code) => {
            if options.once {
                let _ = fs::remove_dir_all(&folder);
            }
            Ok(code)
        }
        Err(error) => bail!("{error:#}\nLogs: {}", folder.display()),
    }
}

fn build(options: &Options) -> Result<PathBuf> {
    if options.built {
        let profile = if options.release { "release" } else { "debug" };
        let binary = workspace::target().join(profile).join("tidegate");
        if !binary.is_file() {
            bail!("{} is missing: leave --built out to build it", binary.display());
        }
        return Ok(binary);
    }
    println!("1/4  Building the gateway (the first time this takes some minutes) …");
    let binary = demo::build_gateway(options.release)?;
    println!("2/4  Building the plugins …");
    plugins::build(&["chat".to_owned(), "jwt-auth".to_owned()])?;
    Ok(binary)
}

impl Cluster {
    fn new(listen: SocketAddr, binary: PathBuf, folder: PathBuf) -> Result<Self> {
        let signal = Arc::new(AtomicUsize::new(0));
        for number in [SIGINT, SIGTERM, SIGHUP] {
            flag::register_usize(number, Arc::clone(&signal), usize::try_from(number)?)
                .context("signals cannot be watched")?;
        }
        let node = |number| Ok(Node { number, listen: free()?, admin: free()?, part: None, again: None });
        let nodes = (1..=NODES).map(node).collect::<Result<_>>()?;
        // Logs of an earlier run would be taken for words of this one.
        for entry in fs::read_dir(&folder)?.flatten().filter(|entry| entry.path().extension() == Some("log".as_ref())) {
            fs::remove_file(entry.path())?;
        }
        Ok(Self { nodes, balancer: None, redis: None, listen, binary, folder, url: String::new(), signal })
    }

    fn take_signal(&self) -> bool {
        self.signal.swap(0, Ordering::SeqCst) != 0
    }

    fn start_redis(&mut self, program: &Path) -> Result<()> {
        let address = free()?;
        let mut redis = Redis { program: program.to_owned(), address, part: None, again: None };
        let id = redis.start(&self.folder)?;
        self.url = format!("redis://{address}");
        println!("       Redis    {address}  (process {id})");
        self.redis = Some(redis);
        Ok(())
    }

    /// False: we were told to end before all of it was there.
    fn start(&mut self, kind: Balancer, program: Option<&Path>) -> Result<bool> {
        // The first one alone, for it compiles the plugins; the others find them in its cache.
        for number in 0..NODES {
            self.start_node(number)?;
            if number == 0 && !self.wait_until_ready()? {
                return Ok(false);
            }
        }
        if !self.wait_until_ready()? {
            return Ok(false);
        }
        let Some(program) = program else {
            self.listen = self.nodes[0].listen;
            return Ok(true);
        };
        let config = kind.configure(&self.folder, self.listen, &self.nodes)?;
        let mut balancer = Part::start(kind.name(), &mut kind.command(program, &config), &self.folder)?;
        let started = Instant::now();
        while client::get(self.listen, "/").is_none_or(|(status, _)| status != 200) {
            balancer.must_run()?;
            if started.elapsed() > Duration::from_secs(20) {
                bail!("the page does not come by way of {}; it says:\n{}", kind.name(), balancer.tail());
            }
            if self.take_signal() {
                return Ok(false);
            }
            thread::sleep(POLL);
        }
        println!("       {:<8} {}  (process {})", kind.name(), self.listen, balancer.id());
        self.balancer = Some(balancer);
        Ok(true)
    }

    fn start_node(&mut self, index: usize) -> Result<()> {
        let node = &mut self.nodes[index];
        let name = format!("node-{}", node.number);
        let mut command = Command::new(&self.binary);
        command.current_dir(workspace::root()).args(["run", "--config", demo::CONFIG, "--redis", &self.url]);
        command.args(["--listen", &node.listen.to_string(), "--admin", &node.admin.to_string()]);
        command.args(["--advertise", &format!("ws://{}", node.listen)]);
        node.part = Some(Part::start(&name, &mut command, &self.folder)?);
        node.again = None;
        Ok(())
    }

    fn wait_until_ready(&mut self) -> Result<bool> {
        let started = Instant::now();
        for node in &mut self.nodes {
            let Some(part) = &mut node.part else { continue };
            while !is_ready(node.admin) {
                part.must_run()?;
                if started.elapsed() > READY_WITHIN {
                    let why = client::get(node.admin, "/ready").map_or_else(|| "no answer".to_owned(), |(_, why)| why);
                    bail!("node {} is not ready ({}); it says:\n{}", node.number, why.trim(), part.tail());
                }
                if self.signal.swap(0, Ordering::SeqCst) != 0 {
                    return Ok(false);
                }
                thread::sleep(POLL);
            }
            if !part.told {
                part.told = true;
                println!("       node {}   {}  (process {})", node.number, node.listen, part.id());
            }
        }
        Ok(true)
    }

    /// Who has this may come in as that user.
    fn token(&self, user: &str) -> Result<String> {
        let mut command = Command::new(&self.binary);
        command.current_dir(workspace::root()).args([
            "token",
            "--config",
            demo::CONFIG,
            "--user",
            user,
            "--ttl",
            "12h",
        ]);
        process::answer(&mut command).with_context(|| format!("no token for {user} could be made"))
    }

    /// Nodes drain while their clients can still hear it and Redis still takes what they say.
    fn end(&mut self) {
        println!("\nEnding: the nodes say goodbye …");
        for part in self.nodes.iter().filter_map(|node| node.part.as_ref()) {
            part.signal(Signal::TERM);
        }
        let begun = Instant::now();
        while self.nodes.iter_mut().any(Node::runs) && begun.elapsed() < DRAIN_WITHIN && !self.take_signal() {
            thread::sleep(POLL);
        }
        // Killed, if they have not gone by now.
        self.nodes.clear();
        self.balancer = None;
        self.redis = None;
    }
}

impl Redis {
    fn start(&mut self, folder: &Path) -> Result<u32> {
        let mut command = Command::new(&self.program);
        command.args(["--port", &self.address.port().to_string(), "--bind", "127.0.0.1"]);
        // Nothing of it is to outlive the example.
        command.args(["--save", "", "--appendonly", "no", "--dir"]).arg(folder);
        let mut part = Part::start("redis", &mut command, folder)?;
        let started = Instant::now();
        while TcpStream::connect(self.address).is_err() {
            part.must_run()?;
            if started.elapsed() > Duration::from_secs(10) {
                bail!("Redis does not listen on {}; it says:\n{}", self.address, part.tail());
            }
            thread::sleep(POLL);
        }
        self.again = None;
        Ok(self.part.insert(part).id())
    }
}

impl Node {
    fn runs(&mut self) -> bool {
        self.part.as_mut().is_some_and(|part| part.ended().is_ok_and(|status| status.is_none()))
    }

    /// How many it has; None while it does not answer.
    fn sessions(&self) -> Option<u64> {
        let (_, text) = client::get(self.admin, "/metrics")?;
        let series = text.lines().filter(|line| line.starts_with("tidegate_sessions{"));
        Some(series.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum())
    }
}
