//! What operators ask: is it alive, is it ready, what does it count, which plugins serve. On an address of its own.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::header::{self, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use tokio::sync::{mpsc, oneshot};

use crate::config::{ConfigStatus, Secret};
use crate::drain::Drain;
use crate::handover::Ask;
use crate::node::Node;
use crate::plugin::{CanaryAsk, CanaryRefused, Catalog, RecordAsk, RecordRefused};
use crate::redis::{self, NodeStatus};
use crate::reply::{Body, text};

/// Answers on the admin address.
pub struct Admin {
    pub node: Arc<Node>,
    pub catalog: Arc<Catalog>,
    pub config: Arc<Mutex<ConfigStatus>>,
    pub drain: Drain,
    /// Who makes upgrades.
    pub upgrade: mpsc::Sender<Ask>,
    /// What other nodes are told of this one.
    pub status: Arc<dyn Fn() -> NodeStatus + Send + Sync>,
    pub lock: Arc<Lock>,
}

/// Bytes of a request's body, at most. No page reads any.
const BODY: usize = 64 << 10;

/// Who may ask: whoever has the token. Without one, everybody.
pub struct Lock(ArcSwapOption<[u8; 32]>);

impl Lock {
    pub fn new(token: Option<&Secret>) -> Self {
        Self(ArcSwapOption::new(token.map(hash)))
    }

    /// The next request needs this.
    pub fn change(&self, token: Option<&Secret>) {
        self.0.store(token.map(hash));
    }

    /// Takes the same time whatever is wrong with what was shown: hashes are compared, and to their end.
    fn opens(&self, request: &Request<Incoming>) -> bool {
        let Some(expected) = self.0.load_full() else { return true };
        let mut shown = request.headers().get_all(header::AUTHORIZATION).iter();
        let (Some(value), None) = (shown.next(), shown.next()) else { return false };
        let (scheme, token) = value.as_bytes().split_at_checked(7).unwrap_or_default();
        let token = Sha256::digest(token);
        let differ = token.iter().zip(expected.iter()).fold(0, |differ, (one, other)| differ | (one ^ other));
        std::hint::black_box(differ) == 0 && scheme.eq_ignore_ascii_case(b"bearer ")
    }
}

fn hash(token: &Secret) -> Arc<[u8; 32]> {
    Arc::new(Sha256::digest(token.text()).into())
}

const JSON: &str = "application/json";
const PLAIN: &str = "text/plain; charset=utf-8";

impl Admin {
    pub async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
        // Whoever keeps the process alive need not know a secret.
        if !matches!(request.uri().path(), "/live" | "/ready") && !self.lock.opens(&request) {
            let why = "a token is needed here: Authorization: Bearer TOKEN\n".to_owned();
            let mut refused = answer(StatusCode::UNAUTHORIZED, PLAIN, why);
            refused.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            return Ok(refused);
        }
        let (parts, body) = request.into_parts();
        if Limited::new(body, BODY).collect().await.is_err() {
            let why = format!("a request may have {BODY} bytes here\n");
            return Ok(answer(StatusCode::PAYLOAD_TOO_LARGE, PLAIN, why));
        }
        self.page(&Request::from_parts(parts, ())).await
    }

    async fn page(&self, request: &Request<()>) -> Result<Response<Body>, Infallible> {
        let path = request.uri().path();
        let of_plugin = path.strip_prefix("/plugins/").and_then(|rest| rest.split_once('/'));
        if request.method() == Method::POST
            && let Some((name, what)) = of_plugin
        {
            return Ok(self.post(request, name, what));
        }
        if request.method() == Method::POST && path == "/upgrade" {
            return Ok(self.upgrade(request).await);
        }
        let of_route = path.strip_prefix("/routes/").and_then(|rest| rest.split_once('/'));
        if request.method() == Method::POST
            && let Some((name, what)) = of_route
        {
            return Ok(self.record(request, name, what));
        }
        if request.method() != Method::GET && request.method() != Method::HEAD {
            return Ok(answer(StatusCode::METHOD_NOT_ALLOWED, PLAIN, "only GET is served here\n".to_owned()));
        }
        if let Some((name, "shadow")) = of_plugin {
            let none = || answer(StatusCode::NOT_FOUND, PLAIN, format!("there is no plugin {name} with a shadow\n"));
            return Ok(self.catalog.shadow(name).map_or_else(none, |page| json(&page)));
        }
        if path == "/nodes" {
            return Ok(self.nodes(request.uri().query().unwrap_or_default()).await);
        }
        Ok(match path {
            "/" => answer(
                StatusCode::OK,
                PLAIN,
                "/live\n/ready\n/metrics\n/plugins\n/config\n/topics\n/nodes\n/recordings\n".to_owned(),
            ),
            "/live" => answer(StatusCode::OK, PLAIN, "alive\n".to_owned()),
            "/ready" if self.drain.is_leaving() => {
                answer(StatusCode::SERVICE_UNAVAILABLE, PLAIN, "draining\n".to_owned())
            }
            "/ready" => match self.node.redis.as_ref().and_then(|redis| redis.trouble()) {
                None => answer(StatusCode::OK, PLAIN, "ready\n".to_owned()),
                Some(why) => answer(StatusCode::SERVICE_UNAVAILABLE, PLAIN, format!("degraded: Redis: {why}\n")),
            },
            "/metrics" => answer(StatusCode::OK, "text/plain; version=0.0.4", self.node.metrics.text()),
            "/plugins" => json(&self.catalog.status()),
            "/recordings" => json(&self.catalog.recordings()),
            "/config" => json(&*self.config.lock()),
            "/topics" => {
                let topics: Vec<_> = self
                    .node
                    .hub
                    .largest(100)
                    .into_iter()
                    .map(|(topic, subscribers)| serde_json::json!({ "topic": topic.as_str(), "subscribers": subscribers }))
                    .collect();
                json(&topics)
            }
            _ => answer(StatusCode::NOT_FOUND, PLAIN, "nothing is here; see /\n".to_owned()),
        })
    }
}

impl Admin {
    /// Answers when another process serves, or does not.
    async fn upgrade(&self, request: &Request<()>) -> Response<Body> {
        if let Some(refused) = from_a_page(request) {
            return refused;
        }
        let (ask, answered) = oneshot::channel();
        // Who is on its way out hears nothing, and its end of the channel is gone.
        drop(self.upgrade.send(ask).await);
        match answered.await {
            Ok(Ok(process)) => json(&serde_json::json!({ "process": process })),
            Ok(Err(why)) => answer(StatusCode::CONFLICT, PLAIN, format!("{why}\n")),
            _ => answer(StatusCode::CONFLICT, PLAIN, "this process is on its way out already\n".to_owned()),
        }
    }

    /// The nodes that share a Redis, or this one alone. `for=USER` puts first the node that this user's sessions had best be on.
    async fn nodes(&self, query: &str) -> Response<Body> {
        let mut user = None;
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            match &*name {
                "for" => user = Some(value),
                other => {
                    let what = format!("there is no {other:?} to be said: ?for=USER\n");
                    return answer(StatusCode::BAD_REQUEST, PLAIN, what);
                }
            }
        }
        let nodes = match &self.node.redis {
            Some(redis) => redis.nodes().await,
            None => Ok(vec![redis::Node::this(self.node.registry.node(), Duration::ZERO, (self.status)())]),
        };
        match nodes {
            Ok(mut nodes) => {
                if let Some(user) = user {
                    redis::prefer(&mut nodes, &user);
                }
                json(&nodes)
            }
            Err(fault) => answer(StatusCode::SERVICE_UNAVAILABLE, PLAIN, format!("not known now: {fault}\n")),
        }
    }

    /// `record?for=10m&bytes=32MiB` and `record/stop` of a route.
    fn record(&self, request: &Request<()>, name: &str, what: &str) -> Response<Body> {
        if let Some(refused) = from_a_page(request) {
            return refused;
        }
        let ask = match what {
            "record" => match bounds(request.uri().query().unwrap_or_default()) {
                Ok((time, bytes)) => RecordAsk::Start { time, bytes },
                Err(why) => return answer(StatusCode::BAD_REQUEST, PLAIN, why + "\n"),
            },
            "record/stop" => RecordAsk::Stop,
            _ => return answer(StatusCode::NOT_FOUND, PLAIN, "nothing is here; see /\n".to_owned()),
        };
        match self.catalog.record(name, ask) {
            Ok(page) => json(&page),
            Err(refused) => {
                let status = match refused {
                    RecordRefused::NoRoute => StatusCode::NOT_FOUND,
                    RecordRefused::On | RecordRefused::Off => StatusCode::CONFLICT,
                    RecordRefused::Cannot(_) => StatusCode::INTERNAL_SERVER_ERROR,
                };
                answer(status, PLAIN, format!("{refused}\n"))
            }
        }
    }

    /// `canary?share=20`, `canary/promote` and `canary/abort` of a plugin.
    fn post(&self, request: &Request<()>, name: &str, what: &str) -> Response<Body> {
        if let Some(refused) = from_a_page(request) {
            return refused;
        }
        let query = request.uri().query().unwrap_or_default();
        let ask = match what {
            "canary" => match query.strip_prefix("share=").and_then(|share| share.parse().ok()) {
                Some(share @ 0..=100) => CanaryAsk::Share(share),
                _ => {
                    return answer(
                        StatusCode::BAD_REQUEST,
                        PLAIN,
                        "say which share: ?share=20, 100 at most\n".to_owned(),
                    );
                }
            },
            "canary/promote" => CanaryAsk::Promote,
            "canary/abort" => CanaryAsk::Abort,
            _ => return answer(StatusCode::NOT_FOUND, PLAIN, "nothing is here; see /\n".to_owned()),
        };
        match self.catalog.canary(name, ask) {
            Ok(status) => json(&status),
            Err(refused) => {
                let status = match refused {
                    CanaryRefused::NoPlugin => StatusCode::NOT_FOUND,
                    CanaryRefused::NoCanary | CanaryRefused::Serves => StatusCode::CONFLICT,
                };
                answer(status, PLAIN, format!("{refused}\n"))
            }
        }
    }
}

/// A page that an operator has open somewhere must not be able to change anything: browsers name it in this header.
fn from_a_page(request: &Request<()>) -> Option<Response<Body>> {
    let named = request.headers().contains_key(header::ORIGIN);
    named.then(|| answer(StatusCode::FORBIDDEN, PLAIN, "not from a web page\n".to_owned()))
}

/// Time and bytes of a recording, as the query has them.
fn bounds(query: &str) -> Result<(Option<Duration>, Option<usize>), String> {
    let (mut time, mut bytes) = (None, None);
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        match &*name {
            "for" => match humantime::parse_duration(&value) {
                Ok(duration) => time = Some(duration),
                Err(_) => return Err(format!("{value:?} is no duration: write ?for=10m")),
            },
            "bytes" => match value.parse::<bytesize::ByteSize>().ok().and_then(|size| size.as_u64().try_into().ok()) {
                Some(size) => bytes = Some(size),
                None => return Err(format!("{value:?} is no size: write ?bytes=32MiB")),
            },
            other => return Err(format!("there is no {other:?} to be said: ?for=10m&bytes=32MiB")),
        }
    }
    Ok((time, bytes))
}

fn json(value: &impl serde::Serialize) -> Response<Body> {
    match serde_json::to_string_pretty(value) {
        Ok(text) => answer(StatusCode::OK, JSON, text + "\n"),
        Err(error) => answer(StatusCode::INTERNAL_SERVER_ERROR, PLAIN, format!("{error}\n")),
    }
}

fn answer(status: StatusCode, content_type: &'static str, body: String) -> Response<Body> {
    let mut response = Response::new(text(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
