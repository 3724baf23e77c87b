//! HTTP requests: match the route, ask `authenticate`, choose the transport, answer.

mod plain;
mod requests;

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use hyper::body::Incoming;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::upgrade::OnUpgrade;
use hyper::{Method, Request, Response, StatusCode, Version};
use hyper_util::rt::TokioIo;
use thin_vec::ThinVec;
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use crate::apply::Applier;
use crate::certificate::ClientCertificate;
use crate::drain::Drain;
use crate::files::Files;
use crate::listener::Permit;
use crate::plugin::{Admission, Chain, Effects, Event, Failure, Hook, RouteChain};
use crate::reply::{Body, Refusal, empty, internal, unavailable, unavailable_for};
use crate::server::Guarded;
use crate::session::{self, Begin, Carrier};
use crate::state::{Handshake, SessionState, decode_segment};
use crate::transport::websocket::{self, Asked};

/// What a user is told who has `limits.sessions_per_user`.
const USER_FULL: &str = "you have as many sessions here as you may";

type Tls = TlsStream<TcpStream>;

/// What is served where.
pub struct Site {
    router: matchit::Router<Arc<RouteChain>>,
    files: Files,
}

/// Answers the requests of clients.
pub struct Http {
    site: ArcSwap<Site>,
    applier: Arc<Applier>,
    drain: Drain,
}

impl From<websocket::Refused> for Refusal {
    fn from(refused: websocket::Refused) -> Self {
        let mut headers = Vec::new();
        if refused.status == StatusCode::UPGRADE_REQUIRED {
            headers.push((header::UPGRADE, HeaderValue::from_static("websocket")));
            headers.push((header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13")));
        }
        Self { status: refused.status, why: refused.why.to_owned(), headers }
    }
}

impl Site {
    /// `routes` with their patterns.
    pub fn new(routes: Vec<(String, Arc<RouteChain>)>, files: Files) -> anyhow::Result<Self> {
        let mut router = matchit::Router::new();
        for (pattern, route) in routes {
            router.insert(pattern, route)?;
        }
        Ok(Self { router, files })
    }
}

impl Http {
    pub fn new(site: Site, applier: Arc<Applier>, drain: Drain) -> Self {
        Self { site: ArcSwap::from_pointee(site), applier, drain }
    }

    /// New requests find this.
    pub fn install(&self, site: Site) {
        self.site.store(Arc::new(site));
    }

    /// Answers one request; an upgraded connection becomes a session of its own task, which keeps the permit.
    pub async fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
        peer: IpAddr,
        permit: Arc<Permit>,
    ) -> Result<Response<Body>, Infallible> {
        // Where such a body ends is what request smuggling is about, and what follows an upgrade that is refused may be meant
        // for what was not agreed on: neither is followed by a second request (`server::Guarded` does not look at one).
        let last = request.headers().contains_key(header::TRANSFER_ENCODING)
            || request.headers().contains_key(header::UPGRADE)
            || (request.method() == Method::CONNECT && request.version() < Version::HTTP_2);
        let site = self.site.load_full();
        let (route, response) = match site.router.at(request.uri().path()) {
            Ok(found) => {
                let route = found.value.clone();
                let parameters =
                    found.params.iter().map(|(name, value)| (name.into(), decode_segment(value))).collect();
                let name = route.route.name.clone();
                let has_http = route.chain.load().has(Hook::Http);
                let transports = route.route.rules().transports;
                // Boxed, as these futures are the larger ones and upgrades are many.
                let answered = match requests::purpose(&request, transports, has_http) {
                    Some(purpose) => {
                        Box::pin(self.by_requests(request, (peer, permit), route, parameters, purpose)).await
                    }
                    None if has_http && !websocket::is_asked(&request) => {
                        Box::pin(self.plain(request, peer, route, parameters)).await
                    }
                    None => self.upgrade(request, (peer, permit), route, parameters).await,
                };
                (name, answered)
            }
            Err(_) => ("-".into(), site.files.answer(request).await),
        };
        let mut response = response.unwrap_or_else(Refusal::answer);
        if last && response.status() != StatusCode::SWITCHING_PROTOCOLS {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        let status = response.status();
        self.applier.node.metrics.handshakes.with_label_values(&[&*route, status.as_str()]).inc();
        Ok(response)
    }

    async fn upgrade(
        self: &Arc<Self>,
        mut request: Request<Incoming>,
        (peer, permit): (IpAddr, Arc<Permit>),
        route: Arc<RouteChain>,
        parameters: Vec<(Box<str>, Box<str>)>,
    ) -> Result<Response<Body>, Refusal> {
        if !route.route.rules().transports.websocket {
            return Err(plain::refusal(StatusCode::NOT_ACCEPTABLE, "WebSockets are not spoken here"));
        }
        let checked = websocket::check(&request, route.route.rules().origins.as_deref());
        if let Err(refused) = checked.as_ref()
            && (refused.status != StatusCode::UPGRADE_REQUIRED || request.method() != Method::GET)
        {
            return Err((*refused).into());
        }
        let compression = match &route.route.rules().compression {
            Some(config) => websocket::negotiate(request.headers(), config).map_err(websocket::Refused::from)?,
            None => None,
        };
        let Some(guest) = self.drain.enter() else {
            return Err(unavailable("the gateway is shutting down"));
        };
        if let Some(pause) = route.chain.load().bars() {
            return Err(unavailable_for("a part of this route keeps failing", pause));
        }
        let place = Place::take(&route).ok_or_else(|| unavailable("the route has as many sessions as it may"))?;
        let upgrade = hyper::upgrade::on(&mut request);
        let target = request.uri().path_and_query().map_or("/", |target| target.as_str());
        let handshake = Handshake::new(target, peer, headers(request.headers()), parameters)
            .with_certificate(request.extensions_mut().remove::<ClientCertificate>());
        let chain = route.chain.load_full();
        let introduced = request.extensions_mut().remove::<Introduced>();
        let (state, mut effects) =
            self.authenticate(&route, &chain, "websocket", handshake, introduced.as_ref()).await?;
        let among = route.route.enter_user(state.user.as_ref());
        let among = among.map_err(|_| unavailable(USER_FULL))?;
        // Browsers do not tell a page why a handshake failed. A plain GET does: it is refused as the handshake would be,
        // or told that an upgrade is all that is missing.
        let key = checked?;
        let mut response = match key {
            Asked::Upgrade(key) => Response::builder()
                .status(StatusCode::SWITCHING_PROTOCOLS)
                .header(header::CONNECTION, "Upgrade")
                .header(header::UPGRADE, "websocket")
                .header(header::SEC_WEBSOCKET_ACCEPT, websocket::accept_key(&key)),
            // The stream itself is the connection (RFC 8441 section 5).
            Asked::Stream => Response::builder().status(StatusCode::OK),
        };
        if let Some(subprotocol) = &state.subprotocol {
            response = response.header(header::SEC_WEBSOCKET_PROTOCOL, &**subprotocol);
        }
        if let Some(agreed) = &compression {
            response = response.header(header::SEC_WEBSOCKET_EXTENSIONS, agreed.header());
        }
        for (name, value) in effects.response.headers.drain(..) {
            response = response.header(&*name, &*value);
        }
        let response = response.body(empty()).map_err(|_| internal())?;
        let applier = self.applier.clone();
        tokio::spawn(async move {
            match upgraded(upgrade).await {
                // A task of its own, and a small one: this one holds what is left of the HTTP connection.
                Some((carrier, read)) => {
                    place.keep();
                    let held = Box::new((permit, guest, among));
                    let begin = Begin { carrier, read, compression, state, effects, route, applier, held };
                    tokio::spawn(session::serve(begin));
                }
                None => tracing::debug!("the client has gone before its handshake was answered"),
            }
        });
        Ok(response)
    }

    /// Who comes in as what, or the answer that refuses.
    async fn authenticate(
        &self,
        route: &Arc<RouteChain>,
        chain: &Chain,
        transport: &'static str,
        handshake: Handshake,
        introduced: Option<&Introduced>,
    ) -> Result<(Box<SessionState>, Effects), Refusal> {
        let offered = handshake.subprotocols();
        let state = SessionState {
            id: self.applier.node.registry.new_id(),
            route: route.route.clone(),
            transport,
            user: None,
            subprotocol: None,
            attributes: ThinVec::new(),
            handshake,
            subscriptions: ThinVec::new(),
            timers: ThinVec::new(),
            expiry: None,
            counted: None,
        };
        let mut event = Some(Box::new(Event::of(Box::new(state))));
        let decided = match introduced {
            Some(Introduced { user, attributes }) => {
                if let Some(state) = event.as_mut().and_then(|event| event.session.as_mut()) {
                    state.attributes = attributes.iter().cloned().collect();
                }
                Ok(Admission::Admit(user.clone()))
            }
            None => chain.authenticate(&mut event).await,
        };
        let mut event = event.ok_or_else(internal)?;
        let mut effects = std::mem::take(&mut event.effects);
        match decided {
            Ok(Admission::Admit(user)) => {
                let mut state = event.session.take().ok_or_else(internal)?;
                state.user = user;
                let selected = effects.response.subprotocol.take();
                state.subprotocol = selected.or_else(|| {
                    let known = offered.iter().find(|name| route.route.rules().subprotocols.contains(name));
                    known.map(|name| name.as_str().into())
                });
                // Reads of `opened` must find the attributes and the expiry; the rest is applied when there is a session.
                Ok((state, effects))
            }
            Ok(Admission::Refuse(status)) => Err(refusal_of(status, &mut effects)),
            Err(failure) => Err(self.authenticate_failed(route, &failure)),
        }
    }

    fn authenticate_failed(&self, route: &RouteChain, failure: &Failure) -> Refusal {
        let name = &*route.route.name;
        self.applier.node.metrics.events_failed.with_label_values(&[name, "authenticate"]).inc();
        if !failure.is_barred() {
            tracing::error!(route = name, why = %failure.why, plugin = &*failure.plugin, generation = failure.generation,
                "authenticate failed: the client is refused");
        }
        unavailable("who you are cannot be checked now")
    }
}

/// Somebody before the chain has let the client in, and it is not asked again. Nothing that comes over the network
/// becomes this: it is for scenarios, whose clients need no plugin that checks who they are.
#[derive(Clone)]
pub struct Introduced {
    pub user: Option<Arc<str>>,
    pub attributes: Vec<(Box<str>, Box<str>)>,
}

/// A place among a route's sessions, given back unless a session keeps it.
struct Place(Option<Arc<RouteChain>>);

impl Place {
    fn take(route: &Arc<RouteChain>) -> Option<Self> {
        route.route.enter().then(|| Self(Some(route.clone())))
    }

    fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(route) = &self.0 {
            route.route.leave();
        }
    }
}

/// What is below the HTTP connection, and what was read from it already. A stream of HTTP/2 stays what it is.
async fn upgraded(upgrade: OnUpgrade) -> Option<(Carrier, Vec<u8>)> {
    let upgraded = match upgrade.await.ok()?.downcast::<TokioIo<Guarded<TcpStream>>>() {
        Ok(parts) => return Some((Carrier::Tcp(parts.io.into_inner().into_inner()), parts.read_buf.to_vec())),
        Err(upgraded) => upgraded,
    };
    Some(match upgraded.downcast::<TokioIo<Guarded<Tls>>>() {
        Ok(parts) => (Carrier::Stream(Box::new(parts.io.into_inner().into_inner())), parts.read_buf.to_vec()),
        Err(upgraded) => (Carrier::Stream(Box::new(TokioIo::new(upgraded))), Vec::new()),
    })
}

/// Values that are not text are given to plugins with replacement characters.
fn headers(headers: &HeaderMap) -> Vec<(Box<str>, Box<str>)> {
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into();
    headers.iter().map(|(name, value)| (name.as_str().into(), text(value))).collect()
}

fn refusal_of(status: u16, effects: &mut Effects) -> Refusal {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::FORBIDDEN);
    let mut headers: Vec<_> = effects
        .response
        .headers
        .drain(..)
        .filter_map(|(name, value)| Some((HeaderName::try_from(&*name).ok()?, HeaderValue::try_from(&*value).ok()?)))
        .collect();
    let why = match effects.response.body.take() {
        Some((content_type, body)) => {
            headers.extend(HeaderValue::try_from(&*content_type).map(|value| (header::CONTENT_TYPE, value)));
            String::from_utf8_lossy(&body).into_owned()
        }
        None => status.canonical_reason().unwrap_or("refused").to_owned(),
    };
    Refusal { status, why, headers }
}
