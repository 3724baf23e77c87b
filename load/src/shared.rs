//! What the threads of a run share: the plan made ready, the phase, and a few counts.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::thread::Thread;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;

use crate::LoadError;
use crate::board::Board;
use crate::plan::{Kind, Load};
use crate::socket::{Origin, Socket, begin};
use crate::target::Target;
use crate::{Stage, tls};

/// Connections that come from one loopback address: well below what the kernel has ports for.
const PER_ADDRESS: usize = 12_000;

pub struct Shared<'a> {
    pub load: &'a Load,
    pub ways: Vec<Way>,
    pub publish: Option<Way>,
    tls: Option<Arc<ClientConfig>>,
    /// For each way one after the other.
    origins: Vec<Origin>,
    stage: AtomicU8,
    pub threads: usize,
    /// Of the connections, and of the publishers.
    pub ready: AtomicUsize,
    pub failed: AtomicUsize,
    pub lost: AtomicUsize,
    pub publishers: AtomicUsize,
    /// Threads that have opened all, and threads that are done.
    pub opened: AtomicUsize,
    pub ended: AtomicUsize,
    /// When the last connection was ready.
    pub last_ready: AtomicU64,
    pub shares: Vec<Share>,
    pub board: Board,
    director: Thread,
}

/// What a thread tells of itself, on cache lines of its own.
#[derive(Default)]
#[repr(align(128))]
pub struct Share {
    pub messages: AtomicU64,
    /// Messages and publications under way.
    pub outstanding: AtomicU64,
}

/// A server, and how to get there.
pub struct Way {
    pub target: Target,
    pub address: SocketAddr,
    name: Option<ServerName<'static>>,
}

impl Way {
    fn to(url: &str) -> Result<Self, LoadError> {
        let target = Target::parse(url)?;
        let address = target.address()?;
        let name = if target.tls {
            let name = ServerName::try_from(target.host.clone());
            Some(name.map_err(|error| LoadError::Url { url: url.to_owned(), reason: error.to_string() })?)
        } else {
            None
        };
        Ok(Self { target, address, name })
    }
}

impl<'a> Shared<'a> {
    pub fn new(load: &'a Load) -> Result<Self, LoadError> {
        let ways = load.urls.iter().map(|url| Way::to(url)).collect::<Result<Vec<_>, _>>()?;
        let publish = match &load.kind {
            Kind::Fanout(fanout) if fanout.publishers > 0 => {
                Some(Way::to(fanout.publish_url.as_ref().unwrap_or(&load.urls[0]))?)
            }
            _ => None,
        };
        let is_secure = ways.iter().chain(&publish).any(|way| way.target.tls);
        let tls = if is_secure { Some(tls::config(load.insecure)?) } else { None };
        let threads = load.threads.min(load.connections);
        let sources = sources(load, &ways);
        let origins = sources.iter().flat_map(|source| ways.iter().map(|_| Origin::new(*source))).collect();
        Ok(Self {
            load,
            ways,
            publish,
            tls,
            origins,
            stage: AtomicU8::new(Stage::Opening as u8),
            threads,
            ready: AtomicUsize::new(0),
            failed: AtomicUsize::new(0),
            lost: AtomicUsize::new(0),
            publishers: AtomicUsize::new(0),
            opened: AtomicUsize::new(0),
            ended: AtomicUsize::new(0),
            last_ready: AtomicU64::new(0),
            shares: (0..threads).map(|_| Share::default()).collect(),
            board: Board::new(),
            director: std::thread::current(),
        })
    }

    /// How many connections a thread has: those whose number is its own when it is divided by the threads.
    pub fn own(&self, thread: usize) -> usize {
        (self.load.connections + self.threads - 1 - thread) / self.threads
    }

    #[inline]
    pub fn stage(&self) -> Stage {
        const STAGES: [Stage; 6] =
            [Stage::Opening, Stage::Settling, Stage::WarmUp, Stage::Measuring, Stage::Answers, Stage::Ending];
        STAGES[usize::from(self.stage.load(Ordering::Acquire)).min(STAGES.len() - 1)]
    }

    pub fn set_stage(&self, stage: Stage) {
        self.stage.store(stage as u8, Ordering::Release);
    }

    /// The director looks at the counts again.
    pub fn tell(&self) {
        self.director.unpark();
    }

    /// Begins the connection with this number.
    pub fn connect(&self, number: usize, way: &Way, place: usize) -> Result<Socket, ConnectError> {
        let origin = match self.origins.len() / self.ways.len() {
            0 => None,
            _ if self.load.sources.is_empty() => self.origins.get(number / PER_ADDRESS * self.ways.len() + place),
            sources => self.origins.get(number % sources * self.ways.len() + place),
        };
        let stream = begin(way.address, origin).map_err(ConnectError::System)?;
        match (&self.tls, &way.name) {
            (Some(config), Some(name)) => Socket::secure(stream, config, name).map_err(ConnectError::Tls),
            _ => Ok(Socket::Plain(stream)),
        }
    }
}

pub enum ConnectError {
    System(std::io::Error),
    Tls(String),
}

/// Where connections come from; nothing where the kernel chooses.
fn sources(load: &Load, ways: &[Way]) -> Vec<IpAddr> {
    let is_loopback = ways.iter().all(|way| way.address.is_ipv4() && way.address.ip().is_loopback());
    if !load.sources.is_empty() || !is_loopback || load.connections <= PER_ADDRESS {
        return load.sources.clone();
    }
    // All of 127.0.0.0/8 is this machine. Publishers are further numbers.
    let needed = (load.connections + 10_000) / PER_ADDRESS + 1;
    (0..needed).map(|nth| Ipv4Addr::new(127, 0, (nth >> 8) as u8 + 1, nth as u8).into()).collect()
}
