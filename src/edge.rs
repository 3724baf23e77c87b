//! From an accepted connection to requests: who has connected and whether they may, TLS, which HTTP is spoken, whose request
//! it is.

use std::convert::Infallible;
use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use hyper::body::Incoming;
use hyper::header::{self, HeaderValue};
use hyper::{Request, Response};
use rustix::net::sockopt::set_tcp_user_timeout;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use crate::config::{Config, ConnectionsConfig, Http2Config, Http2Mode};
use crate::drain::Drain;
use crate::listener::Permit;
use crate::metrics::Metrics;
use crate::permits::{Connected, Permits, Refused};
use crate::proxy::Proxies;
use crate::reply::{Body, unavailable_for};
use crate::server::{self, Bounds, Shared};
use crate::tls::{Ready, Tls};

/// How an HTTP/2 connection begins (RFC 9113 section 3.4). No request of HTTP/1.1 begins like that.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// How long to wait for more of what may become a preface.
const TRICKLE: Duration = Duration::from_millis(20);

/// How long somebody who is refused may take to ask.
const REFUSED_TIMEOUT: Duration = Duration::from_secs(2);

/// What stands between the network and the routes. All of it can be replaced while the gateway serves, but whether there is
/// TLS at all.
pub struct Edge {
    tls: Option<Tls>,
    rules: ArcSwap<Rules>,
    permits: Arc<Permits>,
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
    pub permit: Permit,
}

/// A request's own place among those of its client's address, where somebody in front has named it; a session keeps it.
pub type Counted = Arc<Connected>;

impl Rules {
    fn new(config: &Config) -> Self {
        Self { proxies: Proxies::new(&config.proxy), http2: config.http2.clone() }
    }
}

impl Edge {
    pub fn new(config: &Config, permits: Arc<Permits>, metrics: Arc<Metrics>) -> anyhow::Result<Self> {
        let tls = Ready::new(config, None)?.map(|ready| Tls::new(ready, metrics.clone()));
        let rules = ArcSwap::from_pointee(Rules::new(config));
        Ok(Self { tls, rules, permits, timeout: config.handshake_timeout.0, metrics })
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
        let Arrived { mut stream, peer, door, mut permit } = arrived;
        let (rules, config) = (self.rules.load_full(), self.permits.config());
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
        let bounds = Bounds::new(self.timeout, &config);
        // Where somebody in front names clients in each request, they are counted there.
        let names_others = rules.proxies.names_clients(connected);
        match self.admit(connected, names_others) {
            Ok(connected) => permit.connected = connected,
            Err(refused) => return self.tell(stream, door, refused, bounds, drain).await,
        }
        if !self.has_begun(&stream, &config, drain).await {
            return;
        }
        let accepted = match (door, &self.tls) {
            (Door::Tls, Some(tls)) => match tls.accept(stream).await {
                Some(accepted) => Ok(accepted),
                None => return,
            },
            _ => Err(stream),
        };
        let permit = Arc::new(permit);
        let certificate = accepted.as_ref().ok().and_then(|accepted| accepted.certificate.clone());
        let (held, whose, permits) = (permit.clone(), rules.clone(), self.permits.clone());
        let answer = Arc::new(answer);
        let answer = move |mut request: Request<Incoming>| {
            if let Some(certificate) = &certificate {
                request.extensions_mut().insert(certificate.clone());
            }
            let client = whose.proxies.client(connected, request.headers());
            let counted = if names_others { permits.count(client, Instant::now()) } else { Ok(None) };
            let (answer, held) = (answer.clone(), held.clone());
            async move {
                match counted {
                    Ok(counted) => {
                        if let Some(counted) = counted {
                            request.extensions_mut().insert(Counted::from(counted));
                        }
                        answer(request, client, held).await
                    }
                    Err(refused) => Ok(unavailable_for(refused.why, refused.retry).answer()),
                }
            }
        };
        let count = |refused: server::Refused| {
            self.metrics.connections_refused.with_label_values(&[refused.label()]).inc();
        };
        match accepted {
            Ok(accepted) if accepted.http2 => {
                self.http2(accepted.stream, bounds, &rules.http2, &permit, drain, answer).await;
            }
            Ok(accepted) => server::serve(accepted.stream, bounds, drain, answer, count).await,
            Err(stream) => {
                if rules.http2.mode == Http2Mode::ClearText && begins_http2(&stream, self.timeout).await {
                    self.http2(stream, bounds, &rules.http2, &permit, drain, answer).await;
                } else {
                    server::serve(stream, bounds, drain, answer, count).await;
                }
            }
        }
    }

    /// Whether a client of this address may connect now.
    fn admit(&self, address: IpAddr, names_others: bool) -> Result<Option<Box<Connected>>, Refused> {
        let now = Instant::now();
        let connected = if names_others { None } else { self.permits.count(address, now)? };
        self.permits.pace(now)?;
        Ok(connected)
    }

    /// Waits for the first byte. False: it does not come in time, or not before the doors are closed.
    async fn has_begun(&self, stream: &TcpStream, config: &ConnectionsConfig, drain: &Drain) -> bool {
        let mut byte = [0];
        let first = timeout(config.first_byte_timeout.0, stream.peek(&mut byte));
        let in_time = tokio::select! {
            first = first => matches!(first, Ok(Ok(1))),
            () = drain.begun() => return false,
        };
        if !in_time {
            self.metrics.connections_refused.with_label_values(&["first-byte"]).inc();
        }
        in_time
    }

    /// Answers the one request of somebody who may not come now. Where many are being told already, and where an answer
    /// would cost a TLS handshake, the connection is only closed.
    async fn tell(&self, stream: TcpStream, door: Door, refused: Refused, bounds: Bounds, drain: &Drain) {
        let (Door::Plain, Some(_telling)) = (door, self.permits.tell()) else { return };
        let bounds = Bounds { timeout: REFUSED_TIMEOUT.min(bounds.timeout), ..bounds };
        let answer = |_| async move {
            let mut response = unavailable_for(refused.why, refused.retry).answer();
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            Ok::<_, Infallible>(response)
        };
        server::serve(stream, bounds, drain, answer, |_| {}).await;
    }

    async fn http2<S, A, F>(
        &self,
        stream: S,
        bounds: Bounds,
        config: &Http2Config,
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
