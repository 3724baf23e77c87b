//! A client's request, and the gateway's answer to it.

use std::collections::BTreeMap;
use std::fmt;

use super::call::{self, Asked, Kind};
use super::client::Client;
use super::effect::{Class, Effect};
use super::gateway::Gateway;
use super::state::Peer;
use crate::{CertificateFacts, Decision, Error, Exported, Hook, Result, Session};

/// The HTTP request of a session.
#[derive(Clone, Debug, Default)]
pub(super) struct Request {
    pub(super) route: String,
    pub(super) path: String,
    pub(super) params: Vec<(String, String)>,
    pub(super) query: Vec<(String, String)>,
    pub(super) headers: Vec<(String, String)>,
    pub(super) keep_headers: Vec<String>,
    pub(super) subprotocols: Vec<String>,
    pub(super) peer: String,
    pub(super) certificate: Option<Vec<u8>>,
    pub(super) certificate_facts: Option<CertificateFacts>,
}

/// A client that is about to connect.
#[must_use = "it connects by `open`, or knocks by `authenticate`"]
pub struct Connect<P> {
    gateway: Gateway<P>,
    request: Request,
    admitted: Option<Option<String>>,
}

impl<P: Exported> Connect<P> {
    pub(super) fn new(gateway: Gateway<P>) -> Self {
        let request = Request {
            route: "test".to_owned(),
            path: "/".to_owned(),
            peer: "127.0.0.1".to_owned(),
            ..Request::default()
        };
        Self { gateway, request, admitted: None }
    }

    /// An earlier plugin of the chain has admitted this user, so this one's `authenticate` is not asked.
    pub fn user(mut self, user: &str) -> Self {
        self.admitted = Some(Some(user.to_owned()));
        self
    }

    /// An earlier plugin of the chain has admitted the client as nobody in particular.
    pub fn anonymous(mut self) -> Self {
        self.admitted = Some(None);
        self
    }

    /// The route's name; `test` unless said.
    pub fn route(mut self, name: &str) -> Self {
        name.clone_into(&mut self.request.route);
        self
    }

    /// The request's path; `/` unless said.
    pub fn path(mut self, path: &str) -> Self {
        path.clone_into(&mut self.request.path);
        self
    }

    /// A parameter of the route's pattern.
    pub fn param(mut self, name: &str, value: &str) -> Self {
        self.request.params.push((name.to_owned(), value.to_owned()));
        self
    }

    /// A query parameter, not encoded.
    pub fn query(mut self, name: &str, value: &str) -> Self {
        self.request.query.push((name.to_owned(), value.to_owned()));
        self
    }

    /// A header.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.request.headers.push((name.to_ascii_lowercase(), value.to_owned()));
        self
    }

    /// A cookie.
    pub fn cookie(self, name: &str, value: &str) -> Self {
        self.header("cookie", &format!("{name}={value}"))
    }

    /// The route keeps this header, so that it can be read after `opened` too.
    pub fn keep_header(mut self, name: &str) -> Self {
        self.request.keep_headers.push(name.to_ascii_lowercase());
        self
    }

    /// A subprotocol that the client offers, after those before.
    pub fn subprotocol(mut self, name: &str) -> Self {
        self.request.subprotocols.push(name.to_owned());
        self
    }

    /// The client's address; `127.0.0.1` unless said.
    pub fn peer(mut self, address: &str) -> Self {
        address.clone_into(&mut self.request.peer);
        self
    }

    /// The client's certificate, DER.
    pub fn certificate(mut self, der: &[u8]) -> Self {
        self.request.certificate = Some(der.to_vec());
        self
    }

    /// What the client's certificate says. The gateway reads it from the certificate; here a test says both.
    pub fn certificate_facts(mut self, facts: CertificateFacts) -> Self {
        self.request.certificate_facts = Some(facts);
        self
    }

    /// Knock and see what `authenticate` answers. No session begins.
    ///
    /// # Panics
    /// `init` failed; [`Gateway::start`] returns its error.
    pub fn authenticate(self) -> Answer {
        let (id, answer, _) = self.knock();
        self.gateway.state.borrow_mut().peers.remove(&id);
        answer
    }

    /// Connect: `authenticate`, then `opened`.
    ///
    /// # Errors
    /// The client was refused, or `opened` failed.
    ///
    /// # Panics
    /// `init` failed; [`Gateway::start`] returns its error.
    pub fn open(self) -> Result<Client<P>> {
        let (id, answer, asked) = self.knock();
        if answer.status != 101 {
            self.gateway.state.borrow_mut().peers.remove(&id);
            return Err(Error::new(answer));
        }
        self.gateway.apply(Some(&id), asked);
        self.gateway.opened(&id)?;
        Ok(Client::new(self.gateway, id))
    }

    /// Insert a session that is being decided on, and decide.
    fn knock(&self) -> (String, Answer, Asked) {
        if let Err(error) = self.gateway.start() {
            panic!("{error:?}");
        }
        let id = {
            let mut state = self.gateway.state.borrow_mut();
            let id = format!("session-{}", state.next_handle());
            state.peers.insert(id.clone(), Peer { request: self.request.clone(), ..Peer::default() });
            id
        };
        let (decision, mut asked) = match (&self.admitted, P::HOOKS.contains(&Hook::Authenticate)) {
            (Some(user), _) => (Ok(Decision::Admit(user.clone())), Asked::default()),
            (None, false) => (Ok(Decision::admit_anonymous()), Asked::default()),
            (None, true) => call::run(&self.gateway.state, Kind::Authenticate, Some(&id), None, |session, _| {
                self.gateway.plugin().and_then(|plugin| plugin.authenticate(Session::new(session)))
            }),
        };
        let answer = self.answer(&id, decision, &asked);
        asked.effects.retain(|effect| effect.class() != Class::Response);
        (id, answer, asked)
    }

    fn answer(&self, id: &str, decision: Result<Decision>, asked: &Asked) -> Answer {
        let (status, user) = match &decision {
            Ok(Decision::Admit(Some(user))) if !(1..=255).contains(&user.len()) => (403, None),
            Ok(Decision::Admit(user)) => (101, user.clone()),
            Ok(Decision::Refuse(status @ 300..=599)) => (*status, None),
            Ok(Decision::Refuse(_)) => (403, None),
            Ok(Decision::Pass) => (401, None),
            Err(error) => {
                self.gateway.failed(Kind::Authenticate, error);
                (500, None)
            }
        };
        let mut answer = Answer {
            decision,
            status,
            user,
            headers: Vec::new(),
            body: None,
            subprotocol: None,
            attributes: BTreeMap::new(),
            expiry: None,
        };
        if answer.decision.is_ok() {
            asked.effects.iter().for_each(|effect| answer.take(effect));
        }
        if let Some(peer) = self.gateway.state.borrow_mut().peers.get_mut(id) {
            peer.user.clone_from(&answer.user);
            peer.subprotocol.clone_from(&answer.subprotocol);
            peer.attributes.clone_from(&answer.attributes);
            peer.expiry = answer.expiry;
        }
        answer
    }
}

/// What the gateway answers to a handshake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// What `authenticate` has returned.
    pub decision: Result<Decision>,
    /// The HTTP status: 101 lets the client in, 401 is a `pass` by all, 403 a decision that does not hold, 500 a
    /// failure.
    pub status: u16,
    /// Who the client is.
    pub user: Option<String>,
    /// The headers that were added, in order.
    pub headers: Vec<(String, String)>,
    /// The body of a refusal, with its content type.
    pub body: Option<(String, Vec<u8>)>,
    /// The subprotocol that was selected.
    pub subprotocol: Option<String>,
    /// The attributes that were set. None of a client that was refused.
    pub attributes: BTreeMap<String, String>,
    /// When the session will be closed: Unix time in milliseconds.
    pub expiry: Option<u64>,
}

impl Answer {
    fn take(&mut self, effect: &Effect) {
        let admitted = self.status == 101;
        match effect {
            Effect::AddHeader(name, value) => self.headers.push((name.clone(), value.clone())),
            Effect::SetBody(content_type, body) if !admitted => self.body = Some((content_type.clone(), body.clone())),
            Effect::SelectSubprotocol(name) if admitted => self.subprotocol = Some(name.clone()),
            Effect::SetExpiry(at) if admitted => self.expiry = *at,
            Effect::SetAttribute(name, Some(value)) if admitted => {
                self.attributes.insert(name.clone(), value.clone());
            }
            Effect::SetAttribute(name, None) if admitted => drop(self.attributes.remove(name)),
            _ => {}
        }
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the client was answered {}: {:?}", self.status, self.decision)
    }
}
