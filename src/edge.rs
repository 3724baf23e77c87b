//! From an accepted connection to requests: who has connected, TLS, which HTTP is spoken, whose request it is.

use std::convert::Infallible;
use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use hyper::body::Incoming;
use hyper::{Request, Response};
use tokio::net::TcpStream;

use crate::config::{Config, Http2Config, Http2Mode};
use crate::drain::Drain;
use crate::listener::Permit;
use crate::metrics::Metrics;
use crate::proxy::Proxies;
use crate::reply::Body;
use crate::server::{self, Shared};
use crate::tls::{Ready, Tls};

/// How an HTTP/2 connection begins (RFC 9113 section 3.4). No request of HTTP/1.1 begins like that.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// How long to wait for more of what may become a preface.
const TRICKLE: Duration = Duration::from_millis(20);

/// What stands between the network and the routes. All of it can be replaced while the gateway serves, but whether there is
/// TLS at all.
pub struct Edge {
    tls: Option<Tls>,
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
        Ok(Self { tls, rules, timeout: config.handshake_timeout.0, metrics })
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
        let Arrived { mut stream, peer, door, permit } = arrived;
        let rules = self.rules.load_full();
        let connected = match rules.proxies.connected(&mut stream, peer, self.timeout).await {
            Ok(connected) => connected,
            Err(why) => {
                tracing::debug!(%peer, why, "a connection is closed: the PROXY protocol is spoken here");
                self.metrics.proxy_refused.with_label_values(&[why]).inc();
                return;
            }
        };
        let accepted = match (door, &self.tls) {
            (Door::Tls, Some(tls)) => match tls.accept(stream).await {
                Some(accepted) => Ok(accepted),
                None => return,
            },
            _ => Err(stream),
        };
        let certificate = accepted.as_ref().ok().and_then(|accepted| accepted.certificate.clone());
        let (held, whose) = (permit.clone(), rules.clone());
        let answer = move |mut request: Request<Incoming>| {
            if let Some(certificate) = &certificate {
                request.extensions_mut().insert(certificate.clone());
            }
            let client = whose.proxies.client(connected, request.headers());
            answer(request, client, held.clone())
        };
        match accepted {
            Ok(accepted) if accepted.http2 => {
                self.http2(accepted.stream, &rules.http2, &permit, drain, answer).await;
            }
            Ok(accepted) => server::serve(accepted.stream, self.timeout, drain, answer).await,
            Err(stream) => {
                if rules.http2.mode == Http2Mode::ClearText && begins_http2(&stream, self.timeout).await {
                    self.http2(stream, &rules.http2, &permit, drain, answer).await;
                } else {
                    server::serve(stream, self.timeout, drain, answer).await;
                }
            }
        }
    }

    async fn http2<S, A, F>(&self, stream: S, config: &Http2Config, permit: &Arc<Permit>, drain: &Drain, answer: A)
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
        A: Fn(Request<Incoming>) -> F + Send + Sync + 'static,
        F: Future<Output = Result<Response<Body>, Infallible>> + Send + 'static,
    {
        self.metrics.http2_connections.inc();
        // Every request and every session holds the permit.
        let alone = Arc::strong_count(permit);
        let is_idle = || Arc::strong_count(permit) <= alone;
        let shared = Shared { config, timeout: self.timeout, is_idle: &is_idle };
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
