//! From an accepted connection to requests: who has connected, TLS, which HTTP is spoken, whose request it is.

use std::convert::Infallible;
use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use hyper::body::Incoming;
use hyper::header::{self, HeaderValue};
use hyper::{Request, Response, Version};
use rustix::net::sockopt::set_tcp_user_timeout;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::config::{Config, Http2Config, Http2Mode};
use crate::drain::Drain;
use crate::listener::Permit;
use crate::metrics::Metrics;
use crate::permits::{Permits, Refused};
use crate::proxy::Proxies;
use crate::reply::{Body, unavailable_for};
use crate::server::{self, Bounds, Shared};
use crate::tls::{Ready, Tls};

/// How long somebody who is refused may take to ask.
const REFUSED_TIMEOUT: Duration = Duration::from_secs(2);
/// How an HTTP/2 connection begins (RFC 9113 section 3.4). No request of HTTP/1.1 begins like that.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// How long to wait for more of what may become a preface.
const TRICKLE: Duration = Duration::from_millis(20);

/// What stands between the network and the routes. All of it can be replaced while the gateway serves, but whether there is
/// TLS at all.
pub struct Edge {
    tls: Option<Tls>,
    /// Who may connect, and how often.
    pub permits: Arc<Permits>,
    rules: ArcSwap<Rules>,
    timeout: Duration,
    metrics: Arc<Metrics>,
}

struct Rules {
    proxies: Proxies,
    http2: Http2Config,
}

/// What is spoken on a listener.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Door {
    Plain,
    Tls,
}

/// An accepted connection.
pub struct Arrived {
    pub stream: TcpStream,
    pub peer: IpAddr,
    pub door: Door,
    pub permit: Arc<Permit>,
}

impl Rules {
    fn new(config: &Config) -> Self {
        Self { proxies: Proxies::new(&config.proxy), http2: config.http2.clone() }
    }
}

impl Edge {
    pub fn new(config: &Config, metrics: Arc<Metrics>) -> anyhow::Result<Self> {
        let tls = Ready::new(config, None)?.map(|ready| Tls::new(ready, metrics.clone()));
        let rules = ArcSwap::from_pointee(Rules::new(config));
        let permits = Permits::new(config.connections.clone(), metrics.clone());
        Ok(Self { tls, permits, rules, timeout: config.handshake_timeout.0, metrics })
    }

    pub fn has_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// Everything about a new configuration that can fail.
    pub fn prepare(&self, config: &Config) -> anyhow::Result<Option<Ready>> {
        Ready::new(config, self.tls.as_ref().map(Tls::ready).as_deref())
    }

    /// New connections find this.
    pub fn install(&self, config: &Config, ready: Option<Ready>) {
        self.rules.store(Arc::new(Rules::new(config)));
        self.permits.replace(config.connections.clone());
        if let (Some(tls), Some(ready)) = (&self.tls, ready) {
            tls.install(ready);
        }
    }

    /// Serves a connection to its end. `answer` is given requests with the address of whose they are.
    pub async fn serve<A, F>(&self, arrived: Arrived, drain: &Drain, answer: A)
    where
        A: Fn(Request<Incoming>, IpAddr, Arc<Permit>) -> F + Send + Sync + 'static,
        F: Future<Output = Result<Response<Body>, Infallible>> + Send + 'static,
    {
        let Arrived { mut stream, peer, door, permit } = arrived;
        let rules = self.rules.load_full();
        let config = self.permits.config();
        // Otherwise the kernel goes on for a quarter of an hour before it gives up a client that has vanished.
        let unacknowledged = u32::try_from(config.unacknowledged_timeout.0.as_millis()).unwrap_or(u32::MAX);
        let _ = set_tcp_user_timeout(&stream, unacknowledged);
        let connected = match rules.proxies.connected(&mut stream, peer, self.timeout).await {
            Ok(connected) => connected,
            Err(why) => {
                tracing::debug!(%peer, why, "a connection is closed: the PROXY protocol is spoken here");
                self.metrics.proxy_refused.with_label_values(&[why]).inc();
                return;
            }
        };
        // Where somebody trusted says in each request whose it is, its connection is nobody's.
        let is_known = !rules.proxies.names_clients(connected);
        let mut bounds = Bounds::new(self.timeout, &config);
        let refused = match is_known.then(|| self.permits.admit(connected)) {
            None => None,
            Some(Ok(counted)) => {
                permit.count(counted);
                None
            }
            Some(Err(refused)) => {
                // An answer costs a place among the connections, so only some are told.
                let Some(telling) = self.permits.tell() else { return };
                bounds.timeout = bounds.timeout.min(REFUSED_TIMEOUT);
                Some((refused, Arc::new(telling)))
            }
        };
        let first_byte = if refused.is_some() { REFUSED_TIMEOUT } else { config.first_byte_timeout.0 };
        if !self.has_begun(&stream, first_byte, drain).await {
            return;
        }
        let accepted = match (door, &self.tls) {
            (Door::Tls, Some(tls)) => match tls.accept(stream).await {
                Some(accepted) => Ok(accepted),
                None => return,
            },
            _ => Err(stream),
        };
        let certificate = accepted.as_ref().ok().and_then(|accepted| accepted.certificate.clone());
        let (held, whose, permits) = (permit.clone(), rules.clone(), self.permits.clone());
        let answer = move |mut request: Request<Incoming>| {
            if let Some(certificate) = &certificate {
                request.extensions_mut().insert(certificate.clone());
            }
            let client = whose.proxies.client(connected, request.headers());
            let admitted = match &refused {
                Some((refused, _)) => Err(*refused),
                None if is_known => Ok(held.clone()),
                None => permits.admit(client).map(|counted| Permit::behind(&held, counted)),
            };
            let is_http1 = request.version() < Version::HTTP_2;
            let answered = admitted.map(|permit| answer(request, client, permit));
            async move {
                match answered {
                    Ok(answered) => answered.await,
                    Err(refused) => Ok(refusal(refused, is_known && is_http1)),
                }
            }
        };
        let count = |refused: server::Refused| {
            self.metrics.connections_refused.with_label_values(&[refused.label()]).inc();
        };
        match accepted {
            Ok(accepted) if accepted.http2 => {
                self.http2(accepted.stream, (&rules.http2, bounds), &permit, drain, answer).await;
            }
            Ok(accepted) => server::serve(accepted.stream, bounds, drain, answer, count).await,
            Err(stream) => {
                if rules.http2.mode == Http2Mode::ClearText && begins_http2(&stream, self.timeout).await {
                    self.http2(stream, (&rules.http2, bounds), &permit, drain, answer).await;
                } else {
                    server::serve(stream, bounds, drain, answer, count).await;
                }
            }
        }
    }

    /// Waits for the client's first byte. False: it has not come in time, or not before the doors are closed.
    async fn has_begun(&self, stream: &TcpStream, within: Duration, drain: &Drain) -> bool {
        let mut byte = [0];
        let begun = tokio::select! {
            first = timeout(within, stream.peek(&mut byte)) => matches!(first, Ok(Ok(1))),
            () = drain.begun() => return false,
        };
        if !begun {
            self.metrics.connections_refused.with_label_values(&["first-byte"]).inc();
        }
        begun
    }

    async fn http2<S, A, F>(
        &self,
        stream: S,
        (config, bounds): (&Http2Config, Bounds),
        permit: &Arc<Permit>,
        drain: &Drain,
        answer: A,
    ) where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
        A: Fn(Request<Incoming>) -> F + Send + Sync + 'static,
        F: Future<Output = Result<Response<Body>, Infallible>> + Send + 'static,
    {
        self.metrics.http2_connections.inc();
        // Every request and every session holds the permit.
        let alone = Arc::strong_count(permit);
        let is_idle = || Arc::strong_count(permit) <= alone;
        let shared = Shared { config, bounds, is_idle: &is_idle };
        server::serve_http2(stream, shared, drain, answer).await;
        self.metrics.http2_connections.dec();
    }
}

/// Come again later.
fn refusal(refused: Refused, closes: bool) -> Response<Body> {
    let mut response = unavailable_for(refused.why, refused.retry).answer();
    if closes {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// Whether the client speaks HTTP/2 from its first byte. Who says nothing at all is left to the timeout of HTTP/1.1.
async fn begins_http2(stream: &TcpStream, timeout: Duration) -> bool {
    let looking = async {
        let mut begin = [0; PREFACE.len()];
        loop {
            match stream.peek(&mut begin).await {
                Ok(there @ 1..) if there == begin.len() => return begin == PREFACE,
                Ok(there @ 1..) if PREFACE.starts_with(&begin[..there]) => tokio::time::sleep(TRICKLE).await,
                _ => return false,
            }
        }
    };
    tokio::time::timeout(timeout, looking).await.unwrap_or(false)
}
