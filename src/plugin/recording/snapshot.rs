//! A session as a plugin saw it, with what earlier plugins of the chain had asked for, and the way back.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::time::Instant;

use crate::certificate::ClientCertificate;
use crate::hub::Subscription;
use crate::message::{SessionId, TopicName};
use crate::plugin::effects::Effect;
use crate::plugin::event::Event;
use crate::plugin::grants::Granted;
use crate::route::Route;
use crate::state::{Handshake, SessionState, Subscribed, Timer};

/// What can be read of a session.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Snapshot {
    pub id: String,
    pub route: String,
    pub transport: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subprotocol: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub topics: Vec<String>,
    /// How many it may have.
    pub topics_limit: usize,
    /// Of all plugins: they have a limit together.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub timers: Vec<(String, String)>,
    pub handshake: Request,
}

/// The request that it comes from.
#[derive(Debug, Serialize, Deserialize)]
pub struct Request {
    pub target: String,
    pub peer: std::net::IpAddr,
    /// Those that the plugin may read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<(String, String)>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub parameters: BTreeMap<String, String>,
    /// The client's certificate: DER in base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<String>,
}

/// Offered subprotocols are read without a grant.
const SUBPROTOCOLS: &str = "sec-websocket-protocol";

impl Snapshot {
    /// None: the event belongs to no session.
    pub fn of(event: &Event, granted: &Granted) -> Option<Self> {
        let state = event.session.as_deref()?;
        let mut user = state.user.as_deref().map(str::to_owned);
        let pairs = |pairs: &[(Box<str>, Box<str>)]| {
            pairs.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect::<BTreeMap<_, _>>()
        };
        let mut attributes = pairs(&state.attributes);
        let mut topics: Vec<_> =
            state.subscriptions.iter().map(|one| one.subscription.topic.as_str().to_owned()).collect();
        let mut timers: Vec<_> =
            state.timers.iter().map(|timer| (timer.plugin.to_string(), timer.name.to_string())).collect();
        for effect in &event.effects.list {
            match effect {
                Effect::SetUser(new) => user = new.as_deref().map(str::to_owned),
                Effect::SetAttribute(name, Some(value)) => {
                    attributes.insert(name.to_string(), value.to_string());
                }
                Effect::SetAttribute(name, None) => drop(attributes.remove(&**name)),
                Effect::Subscribe(wanted) if !topics.iter().any(|topic| topic == wanted.topic.as_str()) => {
                    topics.push(wanted.topic.as_str().to_owned());
                }
                Effect::Unsubscribe(gone) => topics.retain(|topic| topic != gone.as_str()),
                Effect::SetTimer { plugin, name, .. } => timers.push((plugin.to_string(), name.to_string())),
                _ => {}
            }
        }
        let headers = state.handshake.headers().iter();
        let seen = headers.filter(|(name, _)| granted.header(name) || **name == *SUBPROTOCOLS);
        Some(Self {
            id: state.id.to_string(),
            route: state.route.name.to_string(),
            transport: state.transport.to_owned(),
            user,
            subprotocol: state.subprotocol.as_deref().map(str::to_owned),
            attributes,
            topics,
            topics_limit: state.route.rules().topics_limit,
            timers,
            handshake: Request {
                target: state.handshake.target().to_owned(),
                peer: state.handshake.peer,
                headers: seen.map(|(name, value)| (name.to_string(), value.to_string())).collect(),
                parameters: pairs(state.handshake.parameters()),
                certificate: state.handshake.certificate.as_ref().map(|certificate| STANDARD.encode(&certificate.0)),
            },
        })
    }

    pub fn read(value: &Value) -> Result<Self, String> {
        Self::deserialize(value).map_err(|error| format!("`session`: {error}"))
    }

    /// The session again. The error names what is wrong with it.
    pub fn state(self, route: Arc<Route>) -> Result<SessionState, String> {
        let Self { id, user, subprotocol, attributes, topics, timers, handshake, .. } = self;
        let topic = |name: String| {
            let topic = TopicName::parse(&name).ok_or_else(|| format!("{name:?} is no topic's name"))?;
            Ok::<_, String>(Subscribed { subscription: Subscription::of(topic), present: false })
        };
        let timer =
            |(plugin, name): (String, String)| Timer { plugin: plugin.into(), name: name.into(), at: Instant::now() };
        let transport = ["websocket", "http", "sse", "long-poll"].into_iter().find(|known| *known == self.transport);
        let Request { target, peer, headers, parameters, certificate } = handshake;
        let boxed = |(name, value): (String, String)| (name.into(), value.into());
        let parameters = parameters.into_iter().map(boxed).collect();
        let certificate = certificate.map(|text| STANDARD.decode(text).map(|der| ClientCertificate(der.into())));
        let certificate = certificate.transpose().map_err(|_| "the certificate is no base64".to_owned())?;
        Ok(SessionState {
            id: SessionId::parse(&id).ok_or_else(|| format!("{id:?} is no session's id"))?,
            route,
            transport: transport.ok_or_else(|| format!("{:?} is no transport", self.transport))?,
            user: user.map(Arc::from),
            subprotocol: subprotocol.map(Into::into),
            attributes: attributes.into_iter().map(boxed).collect(),
            handshake: Handshake::new(&target, peer, headers.into_iter().map(boxed).collect(), parameters)
                .with_certificate(certificate),
            subscriptions: topics.into_iter().map(topic).collect::<Result<_, _>>()?,
            timers: timers.into_iter().map(timer).collect(),
            expiry: None,
            counted: None,
        })
    }
}
