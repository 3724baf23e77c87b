//! Plain HTTP requests on a route, which a plugin of the chain handles by `wasi:http/incoming-handler`.
//!
//! The request is read whole, the effects are applied when the handler has answered well, and only then does the client
//! hear its answer: what it is told has happened.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::{Body as _, Incoming};
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, Request, Response, StatusCode};

use super::{Http, Introduced, headers};
use crate::certificate::ClientCertificate;
use crate::plugin::{Effect, Effects, Event, Failure, Hook, HttpAnswer, HttpRequest, RouteChain};
use crate::reply::{Body, Refusal, internal, text, unavailable, unavailable_for};
use crate::state::{Handshake, SessionState};
use crate::tap::Note;
use crate::transport::websocket;

/// What the gateway tells the handler; a client's own headers of such names are taken out.
const OURS: &str = "tidegate-";
const USER: HeaderName = HeaderName::from_static("tidegate-user");
const ATTRIBUTES: HeaderName = HeaderName::from_static("tidegate-attributes");
const PARAMETERS: HeaderName = HeaderName::from_static("tidegate-parameters");
const PEER: HeaderName = HeaderName::from_static("tidegate-peer-address");

impl Http {
    /// Has the chain's handler answer.
    pub(super) async fn plain(
        &self,
        request: Request<Incoming>,
        peer: IpAddr,
        route: Arc<RouteChain>,
        parameters: Vec<(Box<str>, Box<str>)>,
    ) -> Result<Response<Body>, Refusal> {
        let Some(_guest) = self.drain.enter() else {
            return Err(unavailable("the gateway is shutting down"));
        };
        if let Some(pause) = route.chain.load().bars() {
            return Err(unavailable_for("a part of this route keeps failing", pause));
        }
        let _place =
            route.route.enter_request().ok_or_else(|| unavailable("the route has as many requests as it may"))?;
        let config = route.route.rules().http;
        let authority = authority(&request)?;
        let (mut parts, body) = request.into_parts();
        if !websocket::is_allowed(&parts.headers, &authority, route.route.rules().origins.as_deref()) {
            return Err(refusal(StatusCode::FORBIDDEN, "this origin may not ask here"));
        }
        // One chain for the whole request, however long its body takes.
        let chain = route.chain.load_full();
        let named: serde_json::Map<_, _> =
            parameters.iter().map(|(name, value)| (name.to_string(), (&**value).into())).collect();
        let mut event = Event::default();
        let mut admitted = None;
        let introduced = parts.extensions.get::<Introduced>();
        let decided = introduced.is_some() || chain.has(Hook::Authenticate);
        if config.authenticate && decided && !is_preflight(&parts) {
            let target = parts.uri.path_and_query().map_or("/", |target| target.as_str());
            let handshake = Handshake::new(target, peer, headers(&parts.headers), parameters)
                .with_certificate(parts.extensions.get::<ClientCertificate>().cloned());
            let (state, effects) = self.authenticate(&route, &chain, "http", handshake, introduced).await?;
            event.effects = effects;
            admitted = Some(state);
        }
        let response_headers = std::mem::take(&mut event.effects.response.headers);
        let now = self.applier.node.clock.unix();
        introduce(&mut parts.headers, admitted.as_deref(), &event.effects, &named, (peer, now))?;
        let body = read(body, config.body.0, config.body_timeout.0).await?;
        let head = parts.method == Method::HEAD;
        let request = HttpRequest {
            target: parts.uri.path_and_query().map_or("/", |target| target.as_str()).into(),
            method: parts.method,
            authority: authority.into(),
            headers: parts.headers,
            body,
        };
        let mut event = Some(Box::new(event));
        let session = admitted.map_or_else(|| self.applier.node.registry.new_id(), |state| state.id).number;
        let answer = match chain.http(&mut event, session, Arc::new(request)).await {
            Ok(Some(answer)) => answer,
            Ok(None) => return Err(internal()),
            Err(failure) => return Err(self.handler_failed(&route, &failure)),
        };
        let mut effects = event.map(|event| event.effects).ok_or_else(internal)?;
        let gone = route.route.rules().redis_gone;
        if let Err(why) = self.applier.apply(&mut effects, gone).await {
            self.applier.node.metrics.effects_refused.inc();
            if let Some(tap) = &self.applier.node.tap {
                tap.note(Note::Refused { why: why.to_string() });
            }
            tracing::warn!(route = &*route.route.name, %why, "an effect was refused: the event's later ones are not applied, and the client is told to try again");
            return Err(unavailable("not accepted now; try again later"));
        }
        Ok(respond(answer, head, response_headers))
    }

    fn handler_failed(&self, route: &RouteChain, failure: &Failure) -> Refusal {
        let name = &*route.route.name;
        self.applier.node.metrics.events_failed.with_label_values(&[name, "http"]).inc();
        if !failure.is_barred() {
            tracing::error!(route = name, why = %failure.why, plugin = &*failure.plugin, generation = failure.generation,
                hook = failure.hook.name(), "the request could not be handled: none of its effects is applied");
        }
        if failure.is_passing() { unavailable("not now; try again later") } else { internal() }
    }
}

/// The host that was asked. Two of them, or none in HTTP/1.1, would be two opinions on where the request belongs.
pub(super) fn authority<B>(request: &Request<B>) -> Result<String, Refusal> {
    if let Some(asked) = request.uri().authority().filter(|_| request.version() == hyper::Version::HTTP_2) {
        // HTTP/2 names it in the target; a Host beside it must be the same (RFC 9113 section 8.3.1).
        let same = |host: &HeaderValue| host.as_bytes().eq_ignore_ascii_case(asked.as_str().as_bytes());
        return match request.headers().get_all(header::HOST).iter().all(same) {
            true => Ok(asked.to_string()),
            false => Err(refusal(StatusCode::BAD_REQUEST, "Host must be the request's :authority")),
        };
    }
    let mut hosts = request.headers().get_all(header::HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(host), None) => host.to_str().map(str::to_owned).ok(),
        (None, _) if request.version() < hyper::Version::HTTP_11 => Some(String::new()),
        _ => None,
    }
    .ok_or_else(|| refusal(StatusCode::BAD_REQUEST, "one Host header is needed"))
}

/// A browser's question whether it may ask from another origin: it carries nothing that tells who asks.
fn is_preflight(parts: &Parts) -> bool {
    parts.method == Method::OPTIONS
        && parts.headers.contains_key(header::ORIGIN)
        && parts.headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
}

/// Tells the handler who asks, in headers that only the gateway can have written.
fn introduce(
    headers: &mut HeaderMap,
    admitted: Option<&SessionState>,
    effects: &Effects,
    parameters: &serde_json::Map<String, serde_json::Value>,
    (peer, now): (IpAddr, u64),
) -> Result<(), Refusal> {
    let forged: Vec<_> = headers.keys().filter(|name| name.as_str().starts_with(OURS)).cloned().collect();
    for name in forged {
        headers.remove(name);
    }
    let mut tell = |name, value: &str| match HeaderValue::from_bytes(value.as_bytes()) {
        Ok(value) => {
            headers.insert(name, value);
            Ok(())
        }
        // Whoever cannot be named must not pass for nobody.
        Err(_) => Err(refusal(StatusCode::FORBIDDEN, "a user of this name cannot ask by plain HTTP")),
    };
    tell(PEER, &peer.to_string())?;
    if !parameters.is_empty() {
        tell(PARAMETERS, &json(parameters))?;
    }
    let Some(state) = admitted else { return Ok(()) };
    let known = state.attributes.iter().map(|(name, value)| (name.to_string(), (&**value).into()));
    let mut attributes: serde_json::Map<_, _> = known.collect();
    let mut user = state.user.clone();
    for effect in &effects.list {
        match effect {
            Effect::SetUser(new) => user.clone_from(new),
            Effect::SetAttribute(name, Some(value)) => {
                attributes.insert(name.to_string(), (&**value).into());
            }
            Effect::SetAttribute(name, None) => drop(attributes.remove(&**name)),
            Effect::SetExpiry(Some(at)) if *at <= now => {
                return Err(refusal(StatusCode::UNAUTHORIZED, "what you came with has expired"));
            }
            _ => {}
        }
    }
    if let Some(user) = user {
        tell(USER, &user)?;
    }
    if !attributes.is_empty() {
        tell(ATTRIBUTES, &json(&attributes))?;
    }
    Ok(())
}

/// As a header may have it: JSON escapes all control characters but this.
fn json(map: &serde_json::Map<String, serde_json::Value>) -> String {
    serde_json::to_string(map).unwrap_or_default().replace('\x7f', "\\u007f")
}

/// The whole body: `limit` bytes at most, within this time.
pub(super) async fn read(body: Incoming, limit: usize, within: Duration) -> Result<Bytes, Refusal> {
    let too_large = || refusal(StatusCode::PAYLOAD_TOO_LARGE, &format!("a request may have {limit} bytes here"));
    if usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX) > limit {
        return Err(too_large());
    }
    match tokio::time::timeout(within, Limited::new(body, limit).collect()).await {
        Err(_) => Err(refusal(StatusCode::REQUEST_TIMEOUT, "the request did not arrive in time")),
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(_)) => Err(refusal(StatusCode::BAD_REQUEST, "the request broke off")),
    }
}

fn respond(answer: HttpAnswer, head: bool, more: Vec<(Box<str>, Box<str>)>) -> Response<Body> {
    let HttpAnswer { status, mut headers, body } = answer;
    if !head {
        // The server knows how long it is.
        headers.remove(header::CONTENT_LENGTH);
    }
    for (name, value) in more {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(&*name), HeaderValue::try_from(&*value)) {
            headers.append(name, value);
        }
    }
    let mut response = Response::new(text(body));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    *response.headers_mut() = headers;
    response
}

pub(super) fn refusal(status: StatusCode, why: &str) -> Refusal {
    Refusal { status, why: why.to_owned(), headers: Vec::new() }
}
