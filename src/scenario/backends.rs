//! The upstreams of a scenario: what they are asked is kept open until a step answers it, or its time is over.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::bail;
use bytes::Bytes;
use hyper::{Request, Response, Uri};
use parking_lot::Mutex;
use serde_json::{Map, Value, json};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::pattern::Names;
use super::reply::{Given, Reply};
use crate::client::{Answering, Bounds, ClientError, Servers};
use crate::message::MessageRef;
use crate::plugin::describe;
use crate::source::Clock;

/// Where an upstream seems to be: nothing is ever connected to it.
const ZONE: &str = ".upstream.test";
/// Which session a message is of.
const SESSION: &str = "tidegate-session";

/// What the plugins have asked other servers in a step, in the words of a scenario file.
pub type Asked = Arc<Mutex<Vec<Value>>>;

pub struct Backends {
    /// What upstreams answer by themselves.
    replies: BTreeMap<String, Reply>,
    open: Mutex<Vec<Open>>,
    clock: Clock,
    asked: Asked,
}

struct Open {
    upstream: String,
    session: String,
    /// When whoever has asked gives up.
    until: Instant,
    answer: oneshot::Sender<Given>,
}

/// The place of an upstream, by its name.
pub fn url(name: &str) -> String {
    format!("http://{name}{ZONE}/")
}

fn name(uri: &Uri) -> String {
    let host = uri.host().unwrap_or_default();
    host.strip_suffix(ZONE).unwrap_or(host).to_owned()
}

impl Backends {
    pub fn new(replies: BTreeMap<String, Reply>, clock: Clock, asked: Asked) -> Self {
        Self { replies, open: Mutex::default(), clock, asked }
    }

    /// Requests that wait for an answer, and will until something happens.
    pub fn open(&self) -> usize {
        let now = self.clock.now();
        let mut open = self.open.lock();
        open.retain(|one| !one.answer.is_closed());
        open.iter().filter(|one| one.until > now).count()
    }

    /// Answers the oldest request to an upstream, or the oldest of a session.
    pub fn reply(&self, upstream: &str, session: Option<&str>, given: Given) -> anyhow::Result<()> {
        self.open();
        let mut open = self.open.lock();
        let place = open.iter().position(|one| one.upstream == upstream && session.is_none_or(|id| one.session == id));
        let Some(place) = place else {
            bail!(
                "nothing that {upstream} was asked is open: a plugin must ask in a step before, and neither an answer nor \
                 a time-out may have come between"
            );
        };
        // Whoever has asked may be gone by now.
        let _ = open.remove(place).answer.send(given);
        Ok(())
    }

    /// Answers whatever is open, so that nothing is left of a story that is over.
    pub fn settle_all(&self) {
        for one in self.open.lock().drain(..) {
            let _ = one.answer.send(Given::Answer(Response::default()));
        }
    }

    async fn asked(&self, request: Request<Bytes>, bounds: Bounds) -> Result<Response<Bytes>, ClientError> {
        let upstream = name(request.uri());
        let session = request.headers().get(SESSION).and_then(|id| id.to_str().ok()).unwrap_or_default().to_owned();
        self.asked.lock().push(told(&upstream, &session, &request));
        if let Some(reply) = self.replies.get(&upstream) {
            let given = reply.filled(&Names::default()).map_err(|error| ClientError::Broken(format!("{error:#}")))?;
            return given.result(bounds);
        }
        let (answer, answered) = oneshot::channel();
        let until = self.clock.now() + bounds.first_byte;
        self.open.lock().push(Open { upstream, session, until, answer });
        match answered.await {
            Ok(given) => given.result(bounds),
            Err(_) => Err(ClientError::Broken("the scenario is over".to_owned())),
        }
    }
}

impl Servers for Backends {
    fn answer(&self, request: Request<Bytes>, bounds: Bounds) -> Answering<'_> {
        Box::pin(self.asked(request, bounds))
    }
}

fn told(upstream: &str, session: &str, request: &Request<Bytes>) -> Value {
    let mut told = json!({ "upstream": upstream, "message": content(request.body()), "session": session });
    let headers = headers(request, &[SESSION, "content-type"]);
    if !headers.is_empty() {
        told["headers"] = headers.into();
    }
    told
}

/// As text where it is text.
pub fn content(bytes: &[u8]) -> Value {
    describe::message(std::str::from_utf8(bytes).map_or(MessageRef::Binary(bytes), MessageRef::Text))
}

/// Those that say something, values of one name joined.
pub fn headers(request: &Request<Bytes>, but: &[&str]) -> Map<String, Value> {
    let mut all = Map::new();
    for (name, value) in request.headers().iter().filter(|(name, _)| !but.contains(&name.as_str())) {
        let value = String::from_utf8_lossy(value.as_bytes());
        match all.get_mut(name.as_str()) {
            Some(Value::String(known)) => *known = format!("{known}, {value}"),
            _ => drop(all.insert(name.to_string(), value.into())),
        }
    }
    all
}
