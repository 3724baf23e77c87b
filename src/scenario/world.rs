//! The gateway that a scenario happens in: its own parts on loopback, with a clock that is moved by hand.
//!
//! Nothing here imitates the gateway. Its listener is asked for a connection, its doors for a session; the scenario adds
//! who its clients claim to be, and listens at the tap.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use http_body_util::Full;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::AbortHandle;

use super::backends::{Asked, Backends};
use super::client::{Client, Handshake};
use super::file::Scenario;
use super::pattern::Names;
use super::request::{self, Response};
use super::servers::Servers;
use super::step::{Caller, Connect, Event, Request, Step};
use crate::apply::Applier;
use crate::config::ConnectionsConfig;
use crate::drain::Drain;
use crate::http::{Http, Introduced};
use crate::listener::Listener;
use crate::message::{SessionId, TopicName};
use crate::node::Node;
use crate::plugin::{Patience, Publish};
use crate::source::{Clock, Random};
use crate::tap::{Note, Tap};
use crate::{Clients, client, reload, server};

/// Of the machine's time: for what takes no time at all.
const PATIENCE: Duration = Duration::from_secs(30);
/// Rounds in which everything must have come to rest. A plugin that answers each of its own publications never does.
const ROUNDS: usize = 1_000;
/// Connections at a time.
const CLIENTS: usize = 10_000;

/// A running gateway and its clients.
pub struct World {
    node: Arc<Node>,
    applier: Arc<Applier>,
    address: SocketAddr,
    /// Who comes from which port.
    guests: Arc<Mutex<HashMap<u16, Guest>>>,
    notes: Arc<Notes>,
    backends: Arc<Backends>,
    servers: Arc<Servers>,
    asked: Asked,
    clients: BTreeMap<String, Client>,
    listener: AbortHandle,
}

struct Guest {
    peer: IpAddr,
    introduced: Option<Introduced>,
}

#[derive(Default)]
struct Notes(Mutex<Vec<Note>>);

impl Tap for Notes {
    fn note(&self, note: Note) {
        self.0.lock().push(note);
    }
}

/// All that happened in a step.
#[derive(Default)]
pub struct Happened {
    pub notes: Vec<Note>,
    pub received: BTreeMap<String, Vec<Value>>,
    pub handshake: Option<Handshake>,
    pub response: Option<Response>,
    /// What other servers were asked.
    pub asked: Vec<Value>,
    /// What was asked of those that there are not.
    pub unanswered: Vec<String>,
}

impl World {
    /// Loads the plugin and opens the doors.
    pub async fn new(scenario: Scenario) -> anyhow::Result<Self> {
        let notes = Arc::new(Notes::default());
        let clock = Clock::by_hand(scenario.start);
        let asked = Asked::default();
        let backends = Arc::new(Backends::new(scenario.replies, clock.clone(), asked.clone()));
        let servers = Arc::new(Servers::new(scenario.servers, asked.clone()));
        let runtime = tokio::runtime::Handle::current();
        let clients = Clients {
            plugins: client::Client::invented(servers.clone(), runtime.clone()),
            upstreams: client::Client::invented(backends.clone(), runtime),
        };
        let random = Random::seeded(scenario.seed);
        let node = crate::node_with(&scenario.config, None, clock, random, Some(notes.clone()), clients)?;
        let assembled = crate::assemble(scenario.config, node).await;
        if let Some(what) = servers.unanswered().first() {
            bail!("`init` has asked what the scenario does not answer: {what}");
        }
        let (config, node, catalog, prepared) = assembled?;
        let applier = Applier::new(node.clone());
        let http = Arc::new(Http::new(reload::site(&config, &prepared)?, applier.clone(), Drain::default()));
        applier.claim(reload::claims(&config, &prepared));
        catalog.install(prepared);
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let listener =
            Listener::bind("public", any, CLIENTS, node.metrics.clone()).context("no address on loopback")?;
        let address = listener.address()?;
        let guests = Arc::new(Mutex::new(HashMap::<u16, Guest>::new()));
        let known = guests.clone();
        let serving = tokio::spawn(listener.serve(Drain::default(), move |stream, from, permit| {
            let (guest, http) = (known.lock().remove(&from.port()), http.clone());
            async move {
                // Nobody else has business here.
                let Some(guest) = guest else { return };
                let (permit, drain) = (Arc::new(permit), Drain::default());
                let answer = |mut request: hyper::Request<hyper::body::Incoming>| {
                    request.extensions_mut().extend(extensions(&guest));
                    http.clone().answer(request, guest.peer, permit.clone())
                };
                let bounds = server::Bounds::new(PATIENCE, &ConnectionsConfig::default());
                server::serve(stream, bounds, &drain, answer, |_| {}).await;
            }
        }));
        let listener = serving.abort_handle();
        // What `init` did belongs to no step.
        notes.0.lock().clear();
        asked.lock().clear();
        Ok(Self { node, applier, address, guests, notes, backends, servers, asked, clients: BTreeMap::new(), listener })
    }

    /// Lets one thing happen, and waits until all that follows from it has happened as well.
    pub async fn happen(&mut self, step: &Step, names: &mut Names) -> anyhow::Result<Happened> {
        let mut happened = Happened::default();
        self.servers.begin(&step.servers, names);
        match &step.event {
            Event::Connect(connect) => happened.handshake = Some(self.connect(connect, names, &mut happened).await?),
            Event::Request(request) => happened.response = Some(self.request(request, names).await?),
            Event::Send { client, messages } => {
                for message in messages {
                    let message = names.message(message)?;
                    self.client(client)?.send(message.as_ref()).await.context("the gateway takes no message")?;
                }
            }
            Event::Close { client, code, reason } => {
                let reason = names.text(reason)?;
                self.client(client)?.close(*code, &reason).await.context("the gateway takes no goodbye")?;
            }
            Event::Break { client } => self.client(client)?.cut(),
            Event::Advance(by) => self.advance(*by, &mut happened).await?,
            Event::Reply { upstream, to, reply } => {
                let session = to.as_ref().map(|client| names.text(&format!("${{{client}}}"))).transpose()?;
                self.backends.reply(upstream, session.as_deref(), reply.filled(names)?)?;
            }
            Event::Publish { topic, message, key, metadata } => {
                let topic = names.text(topic)?;
                let publish = Publish {
                    topic: TopicName::parse(&topic).with_context(|| format!("{topic:?} is no topic's name"))?,
                    message: names.message(message)?,
                    exclude: Vec::new(),
                    history: None,
                    idempotency_key: None,
                    key: key.as_deref().map(Into::into),
                    metadata: metadata.iter().map(|(name, value)| ((&**name).into(), (&**value).into())).collect(),
                };
                if let Err(why) = self.applier.publish(publish, Patience::Waits, Default::default()).await {
                    self.notes.note(Note::Refused { why: why.to_string() });
                }
            }
        }
        self.settle(&mut happened).await?;
        happened.notes = std::mem::take(&mut self.notes.0.lock());
        happened.asked = std::mem::take(&mut self.asked.lock());
        happened.unanswered = self.servers.unanswered();
        Ok(happened)
    }

    /// All clients go, and what they leave behind stays.
    pub async fn leave(&mut self) -> anyhow::Result<()> {
        self.clients.values_mut().for_each(Client::cut);
        self.settle(&mut Happened::default()).await?;
        while self.backends.open() > 0 {
            self.backends.settle_all();
            self.settle(&mut Happened::default()).await?;
        }
        self.clients.clear();
        self.notes.0.lock().clear();
        self.asked.lock().clear();
        Ok(())
    }

    async fn connect(
        &mut self,
        connect: &Connect,
        names: &mut Names,
        happened: &mut Happened,
    ) -> anyhow::Result<Handshake> {
        let name = &connect.client;
        if self.clients.get(name).is_some_and(|client| !client.over) {
            bail!("{name} is connected already: let her close first, or choose another name");
        }
        let known: HashSet<SessionId> = self.node.registry.all().iter().map(|outbox| outbox.id).collect();
        let path = names.text(&connect.caller.path)?;
        let headers = headers(&connect.caller, names)?;
        let stream = self.arrive(&connect.caller).await?;
        let (handshake, mut client) = Client::connect(stream, &path, &headers).await?;
        if handshake.status != 101 {
            return Ok(handshake);
        }
        let mut received = client.settle().await?;
        let new = self.node.registry.all().into_iter().map(|outbox| outbox.id).find(|id| !known.contains(id));
        client.session = new;
        if let Some(id) = new {
            names.client(name, &id.to_string());
        }
        happened.received.entry(name.clone()).or_default().append(&mut received);
        self.clients.insert(name.clone(), client);
        Ok(handshake)
    }

    async fn request(&mut self, request: &Request, names: &Names) -> anyhow::Result<Response> {
        let Request { method, caller, body } = request;
        let mut asked = hyper::Request::builder().method(method.clone()).uri(names.text(&caller.path)?);
        let headers = headers(caller, names)?;
        if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
            asked = asked.header("host", "tidegate.test");
        }
        for (name, value) in headers {
            asked = asked.header(name, value);
        }
        let asked = asked.body(Full::new(names.message(body)?.payload().clone())).context("this is no request")?;
        request::ask(self.arrive(caller).await?, asked).await
    }

    /// A connection, of which the gateway knows whom the scenario says it to be from.
    async fn arrive(&self, caller: &Caller) -> anyhow::Result<TcpStream> {
        let introduced = caller.introduced.as_ref().map(|(user, attributes)| Introduced {
            user: user.as_deref().map(Arc::from),
            attributes: attributes.iter().map(|(name, value)| ((&**name).into(), (&**value).into())).collect(),
        });
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
        self.guests.lock().insert(socket.local_addr()?.port(), Guest { peer: caller.peer, introduced });
        Ok(socket.connect(self.address).await?)
    }

    fn client(&mut self, name: &str) -> anyhow::Result<&mut Client> {
        match self.clients.get_mut(name) {
            Some(client) if !client.over => Ok(client),
            Some(_) => bail!("{name} is not connected any more"),
            None => bail!("{name} is not connected: a step before this one must say `connect = \"{name}\"`"),
        }
    }

    /// From one thing that falls due to the next, so that each finds the time that it was meant for.
    async fn advance(&mut self, by: Duration, happened: &mut Happened) -> anyhow::Result<()> {
        let mut left = by;
        while !left.is_zero() {
            let next = self.node.clock.next_alarm().unwrap_or(left).max(Duration::from_millis(1)).min(left);
            self.node.clock.advance(next);
            left -= next;
            self.settle(happened).await?;
        }
        Ok(())
    }

    /// Waits until nothing is under way: every session has answered for what came before, all publications are
    /// delivered, all comings and goings told, and nothing more has come of it.
    async fn settle(&mut self, happened: &mut Happened) -> anyhow::Result<()> {
        let begun = std::time::Instant::now();
        let mut quiet = 0;
        for _ in 0..ROUNDS {
            let notes = self.notes.0.lock().len();
            let mut received = 0;
            for (name, client) in &mut self.clients {
                let mut messages = client.settle().await.with_context(|| format!("{name}'s session"))?;
                received += messages.len();
                happened.received.entry(name.clone()).or_default().append(&mut messages);
            }
            while self.is_busy() {
                if begun.elapsed() > PATIENCE {
                    bail!("a session does not end: is a call of `closed` or `presence` still waiting for something?");
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            self.node.hub.flushed().await;
            let is_quiet = received == 0 && self.notes.0.lock().len() == notes && !self.is_busy();
            quiet = if is_quiet { quiet + 1 } else { 0 };
            // What the first of two has still delivered is read in the second.
            if quiet == 2 {
                happened.received.retain(|_, messages| !messages.is_empty());
                return Ok(());
            }
        }
        bail!("it does not come to rest: does the plugin answer its own messages?")
    }

    fn is_busy(&self) -> bool {
        // Whatever is on its way to an upstream, or back from it, is there soon.
        if self.node.upstreams.running() != self.backends.open() {
            return true;
        }
        let ending = self.clients.values().filter(|client| client.over).filter_map(|client| client.session);
        self.node.presence.is_telling() || ending.into_iter().any(|id| self.node.registry.session(id).is_some())
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

fn headers(caller: &Caller, names: &Names) -> anyhow::Result<Vec<(String, String)>> {
    caller.headers.iter().map(|(name, value)| Ok((name.clone(), names.text(value)?))).collect()
}

fn extensions(guest: &Guest) -> hyper::http::Extensions {
    let mut extensions = hyper::http::Extensions::new();
    if let Some(introduced) = &guest.introduced {
        extensions.insert(introduced.clone());
    }
    extensions
}
