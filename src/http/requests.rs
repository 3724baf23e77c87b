//! Clients that come by requests: an event stream (SSE) or one poll after the other, and their own messages by POST.
//!
//! A request that begins a session goes the way of a handshake; every other names its session by a token that only its
//! client was told, and finds it on whichever node it lives.

use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body as _, Frame, Incoming};
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};

use super::plain::{self, refusal};
use super::{Http, Introduced, Place, headers};
use crate::apply::Unasked;
use crate::certificate::ClientCertificate;
use crate::listener::Permit;
use crate::message::{Close, Closer, Message};
use crate::outbox::{Answer, Ask, Mailbox, Outbox, Request as Asked, secret};
use crate::plugin::RouteChain;
use crate::reply::{Body, Refusal, empty, internal, text, unavailable, unavailable_for};
use crate::route::Transports;
use crate::session::{self, Begin, Carrier, Kind};
use crate::state::Handshake;
use crate::transport::websocket;
use crate::wire::{Positions, polls};

/// Names the session of a request; also a query parameter, for clients that cannot set headers.
const SESSION: HeaderName = HeaderName::from_static("tidegate-session");
/// Asks for a transport that the request does not show by itself; also a query parameter.
const TRANSPORT: HeaderName = HeaderName::from_static("tidegate-transport");
/// Where the client stood when its session before ended; also a query parameter.
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
const LONG_POLL: &str = "long-poll";
const EVENT_STREAM: &str = "text/event-stream";
/// Bytes of one piece of an event stream, unless one event alone is longer.
const PIECE: usize = 16 << 10;
/// Messages in one request.
const MESSAGES: usize = 64;
/// When the client of an event stream should come back, in milliseconds: spread, so that not all come at once.
const RETRY: std::ops::Range<u32> = 1_000..3_000;

/// What a request is for.
pub(super) enum Purpose {
    Begin(Kind),
    /// Something for the session of this token.
    Visit(String),
    /// A browser asks whether a page from elsewhere may.
    Preflight,
}

/// None: it is for something else.
pub(super) fn purpose<B>(request: &Request<B>, transports: Transports, chain_has_http: bool) -> Option<Purpose> {
    if !(transports.sse || transports.long_poll) || websocket::is_asked(request) {
        return None;
    }
    if let Some(token) = told(request, &SESSION) {
        return Some(Purpose::Visit(token));
    }
    let accepts = request.headers().get_all(header::ACCEPT).iter().filter_map(|accept| accept.to_str().ok());
    let mut accepts = accepts.flat_map(|accept| accept.split(',')).map(|one| one.split(';').next().unwrap_or_default());
    match *request.method() {
        Method::GET if transports.sse && accepts.any(|one| one.trim() == EVENT_STREAM) => {
            Some(Purpose::Begin(Kind::Events))
        }
        Method::POST if transports.long_poll && told(request, &TRANSPORT).as_deref() == Some(LONG_POLL) => {
            Some(Purpose::Begin(Kind::Polls))
        }
        Method::OPTIONS if !chain_has_http && request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD) => {
            Some(Purpose::Preflight)
        }
        _ => None,
    }
}

/// A header, or the query parameter of the same name.
fn told<B>(request: &Request<B>, name: &HeaderName) -> Option<String> {
    if let Some(value) = request.headers().get(name) {
        return value.to_str().ok().map(str::to_owned);
    }
    query(request, name.as_str())
}

fn query<B>(request: &Request<B>, name: &str) -> Option<String> {
    let query = request.uri().query()?;
    form_urlencoded::parse(query.as_bytes()).find(|(known, _)| known == name).map(|(_, value)| value.into_owned())
}

impl Http {
    pub(super) async fn by_requests(
        self: &Arc<Self>,
        request: Request<Incoming>,
        (peer, permit): (IpAddr, Arc<Permit>),
        route: Arc<RouteChain>,
        parameters: Vec<(Box<str>, Box<str>)>,
        purpose: Purpose,
    ) -> Result<Response<Body>, Refusal> {
        let (host, origins) = (plain::authority(&request)?, route.route.rules().origins.clone());
        if !websocket::is_allowed(request.headers(), &host, origins.as_deref()) {
            return Err(refusal(StatusCode::FORBIDDEN, "this origin may not ask here"));
        }
        let origin = request.headers().get(header::ORIGIN).cloned();
        let answered = match purpose {
            Purpose::Begin(kind) => self.begin(request, (peer, permit), route, parameters, kind).await,
            Purpose::Visit(token) => self.visit(request, &route, &token).await,
            Purpose::Preflight => Ok(preflight(request.headers())),
        };
        let mut answered = answered.unwrap_or_else(Refusal::answer);
        if let Some(origin) = origin {
            // It is one that may: the page from there may read what it is answered.
            let headers = answered.headers_mut();
            // Not with a user's cookies where anybody may ask: any page could then read what is theirs.
            if !origins.is_some_and(|origins| origins.iter().any(|allowed| allowed == "*")) {
                headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
            }
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
            headers.insert(
                header::ACCESS_CONTROL_EXPOSE_HEADERS,
                HeaderValue::from_static("tidegate-session, retry-after"),
            );
            headers.append(header::VARY, HeaderValue::from_static("origin"));
        }
        Ok(answered)
    }

    /// A session of its own, as after a WebSocket's handshake.
    async fn begin(
        self: &Arc<Self>,
        mut request: Request<Incoming>,
        (peer, permit): (IpAddr, Arc<Permit>),
        route: Arc<RouteChain>,
        parameters: Vec<(Box<str>, Box<str>)>,
        kind: Kind,
    ) -> Result<Response<Body>, Refusal> {
        if !request.body().is_end_stream() {
            return Err(refusal(StatusCode::BAD_REQUEST, "a request that begins a session has no body"));
        }
        let resume = match told(&request, &LAST_EVENT_ID) {
            Some(id) => Positions::parse(&id).ok_or_else(|| {
                let why = "Last-Event-ID is none that this gateway has given: come without it, and load the state anew";
                refusal(StatusCode::BAD_REQUEST, why)
            })?,
            None => Positions::default(),
        };
        let Some(guest) = self.drain.enter() else {
            return Err(unavailable("the gateway is shutting down"));
        };
        if let Some(pause) = route.chain.load().bars() {
            return Err(unavailable_for("a part of this route keeps failing", pause));
        }
        let place = Place::take(&route).ok_or_else(|| unavailable("the route has as many sessions as it may"))?;
        let target = request.uri().path_and_query().map_or("/", |target| target.as_str());
        let handshake = Handshake::new(target, peer, headers(request.headers()), parameters)
            .with_certificate(request.extensions_mut().remove::<ClientCertificate>());
        let chain = route.chain.load_full();
        let introduced = request.extensions_mut().remove::<Introduced>();
        let transport = match kind {
            Kind::Events => "sse",
            Kind::Polls => LONG_POLL,
        };
        let (state, mut effects) = self.authenticate(&route, &chain, transport, handshake, introduced.as_ref()).await?;
        let among = route.route.enter_user(state.user.as_ref());
        let among = among.map_err(|_| unavailable(super::USER_FULL))?;
        let node = &self.applier.node;
        let seal = node.redis.as_ref().map(|redis| &redis.seal);
        let secret = secret::draw(state.id, &node.random, seal).map_err(|_| internal())?;
        let mut spread = [0; 4];
        node.random.fill(&mut spread).map_err(|_| internal())?;
        let retry = RETRY.start + u32::from_le_bytes(spread) % (RETRY.end - RETRY.start);
        let mailbox = Box::new(Mailbox::new(state.id, secret, node.clock.now()));
        let token = mailbox.token().to_owned();
        let mut response = Response::builder()
            .header(header::CACHE_CONTROL, "no-store")
            .header(SESSION, &token)
            // What stands in between must not gather it (nginx).
            .header("x-accel-buffering", "no");
        for (name, value) in effects.response.headers.drain(..) {
            response = response.header(&*name, &*value);
        }
        // A session that is polled has no connection of its own.
        let held: Box<dyn Send> = match kind {
            Kind::Events => Box::new((permit, guest, among)),
            Kind::Polls => Box::new((guest, among)),
        };
        place.keep();
        let carrier = Carrier::Requests(kind, mailbox, resume);
        let (read, compression, applier) = (Vec::new(), None, self.applier.clone());
        let begin = Begin { carrier, read, compression, state, effects, route, applier, held };
        let (outbox, life) = session::serve_requests(begin, retry);
        let (content_type, body) = match kind {
            Kind::Events => (EVENT_STREAM, Stream(outbox).boxed_unsync()),
            Kind::Polls => ("application/json", text(polls::answer(&token, 0, b"", None))),
        };
        // If there is no answer, the stream is dropped with it, and ends the session.
        tokio::spawn(life);
        response.header(header::CONTENT_TYPE, content_type).body(body).map_err(|_| internal())
    }

    /// Something of a session's client.
    async fn visit(
        &self,
        request: Request<Incoming>,
        route: &RouteChain,
        token: &str,
    ) -> Result<Response<Body>, Refusal> {
        let gone = || refusal(StatusCode::NOT_FOUND, "there is no such session any more: begin another");
        let (session, secret) = Mailbox::parse(token).ok_or_else(gone)?;
        let rules = route.route.rules();
        let (limit, within) = (rules.message_limit, rules.http.body_timeout.0);
        let ask = match *request.method() {
            Method::POST => {
                let kind = content_type(request.headers());
                let body = request.into_body();
                drop(rules);
                Ask::Post(messages(&kind, plain::read(body, limit, within).await?)?)
            }
            Method::GET => {
                let after = match query(&request, "after") {
                    Some(after) => Some(after.parse().map_err(|_| {
                        refusal(
                            StatusCode::BAD_REQUEST,
                            "`after` is the number that the last poll was answered as `next`",
                        )
                    })?),
                    None => None,
                };
                Ask::Poll { after, wait: rules.heartbeat.interval }
            }
            Method::DELETE => Ask::Leave,
            _ => {
                let why = "a session is asked by GET (poll), POST (send) and DELETE (leave)";
                let headers = vec![(header::ALLOW, HeaderValue::from_static("GET, POST, DELETE"))];
                return Err(Refusal { status: StatusCode::METHOD_NOT_ALLOWED, why: why.to_owned(), headers });
            }
        };
        let answer = self.applier.visit(session, secret, ask).await;
        let unasked = |why| match why {
            Unasked::Fault(fault) => {
                tracing::debug!(%fault, %session, "another node was asked about a session, and has not answered");
                unavailable("the session's node does not answer now; try again")
            }
            Unasked::Unproven => {
                unavailable("nodes are asked about too many tokens that none of them has made; try again")
            }
        };
        match answer.map_err(unasked)? {
            Answer::Done => {
                let mut response = Response::new(empty());
                *response.status_mut() = StatusCode::NO_CONTENT;
                Ok(response)
            }
            Answer::Batch(batch) => Response::builder()
                .header(header::CONTENT_TYPE, "application/json")
                .header(header::CACHE_CONTROL, "no-store")
                .body(text(batch))
                .map_err(|_| internal()),
            Answer::Gone => Err(gone()),
            Answer::Busy => {
                let headers = vec![(header::RETRY_AFTER, HeaderValue::from_static("1"))];
                let why = "the session has as much to do as it may: wait for its answers".to_owned();
                Err(Refusal { status: StatusCode::TOO_MANY_REQUESTS, why, headers })
            }
            Answer::Overtaken => {
                Err(refusal(StatusCode::CONFLICT, "another poll of this session has come after this one"))
            }
        }
    }
}

fn content_type(headers: &HeaderMap) -> String {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// The messages of a request: one of bytes, one text for each line, or one text.
fn messages(content_type: &str, body: Bytes) -> Result<Vec<Message>, Refusal> {
    let not_text = |_| refusal(StatusCode::BAD_REQUEST, "not UTF-8: send bytes as application/octet-stream");
    match content_type {
        "application/octet-stream" => Ok(vec![Message::Binary(body)]),
        "application/x-ndjson" => {
            let lines = body.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
            let lines: Vec<_> = lines.filter(|line| !line.is_empty()).collect();
            if lines.len() > MESSAGES {
                let why = format!("a request may have {MESSAGES} messages");
                return Err(refusal(StatusCode::PAYLOAD_TOO_LARGE, &why));
            }
            let text = |line: &[u8]| body.slice_ref(line).try_into().map(Message::Text).map_err(not_text);
            lines.into_iter().map(text).collect()
        }
        _ => Ok(vec![Message::Text(body.try_into().map_err(not_text)?)]),
    }
}

fn preflight(asked: &HeaderMap) -> Response<Body> {
    let mut response = Response::new(empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST, DELETE"));
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
    if let Some(names) = asked.get(header::ACCESS_CONTROL_REQUEST_HEADERS) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, names.clone());
    }
    response
}

/// The body of an event stream. When nobody wants it any more, the session ends.
struct Stream(Arc<Outbox>);

impl hyper::body::Body for Stream {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let Some(mut pieces) = ready!(self.0.poll_fetch(context, PIECE)) else { return Poll::Ready(None) };
        let piece = if pieces.len() == 1 { pieces.remove(0) } else { pieces.concat().into() };
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let close = Close::new(Close::BROKEN, "the connection broke");
        // A close is always taken; after the last event it changes nothing.
        let _ = self.0.request(Asked::Close(close, Closer::Network));
    }
}
