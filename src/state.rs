//! What is known of a session: the part of it that plugins read and effects change.

use std::net::IpAddr;
use std::num::NonZeroU64;
use std::sync::Arc;

use percent_encoding::percent_decode_str;
use thin_vec::ThinVec;
use tokio::time::Instant;

use crate::certificate::ClientCertificate;
use crate::hub::Subscription;
use crate::message::{SessionId, TopicName};
use crate::route::Route;

/// Attributes of a session, at most.
pub const ATTRIBUTES: usize = 64;
/// Bytes of an attribute's name, of its value, and of all together.
pub const ATTRIBUTE_NAME: usize = 64;
pub const ATTRIBUTE_VALUE: usize = 4 << 10;
pub const ATTRIBUTE_BYTES: usize = 16 << 10;
/// Timers of a session, at most.
pub const TIMERS: usize = 16;
/// Bytes of a user's id.
pub const USER_MAX: usize = 255;

/// A session's state. It moves into the event that is being handled, and back. Most lists are empty in most sessions.
pub struct SessionState {
    pub id: SessionId,
    pub route: Arc<Route>,
    pub transport: &'static str,
    pub user: Option<Arc<str>>,
    pub subprotocol: Option<Box<str>>,
    pub attributes: ThinVec<(Box<str>, Box<str>)>,
    pub handshake: Handshake,
    pub subscriptions: ThinVec<Subscribed>,
    pub timers: ThinVec<Timer>,
    /// Unix time in milliseconds.
    pub expiry: Option<NonZeroU64>,
    /// Where it counts among the user's sessions, if their number is limited.
    pub counted: Option<TopicName>,
}

/// A topic that the session is subscribed to.
pub struct Subscribed {
    pub subscription: Subscription,
    pub present: bool,
}

/// A timer that runs.
#[derive(Clone)]
pub struct Timer {
    pub plugin: Arc<str>,
    pub name: Box<str>,
    pub at: Instant,
}

impl SessionState {
    /// What plugins may read of it, for a call whose effects nobody applies.
    pub fn picture(&self) -> Self {
        let topic = |one: &Subscribed| Subscribed { subscription: one.subscription.picture(), present: one.present };
        Self {
            id: self.id,
            route: self.route.clone(),
            transport: self.transport,
            user: self.user.clone(),
            subprotocol: self.subprotocol.clone(),
            attributes: self.attributes.clone(),
            handshake: self.handshake.clone(),
            subscriptions: self.subscriptions.iter().map(topic).collect(),
            timers: self.timers.clone(),
            expiry: self.expiry,
            counted: self.counted.clone(),
        }
    }

    pub fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find(|(known, _)| **known == *name).map(|(_, value)| &**value)
    }

    pub fn is_subscribed(&self, topic: &TopicName) -> bool {
        self.subscriptions.iter().any(|subscribed| subscribed.subscription.topic == *topic)
    }

    /// None removes the attribute.
    pub fn set_attribute(&mut self, name: &str, value: Option<Box<str>>) {
        self.attributes.retain(|(known, _)| **known != *name);
        if let Some(value) = value {
            self.attributes.push((name.into(), value));
        } else {
            self.attributes.shrink_to_fit();
        }
    }
}

/// The HTTP request that a session comes from.
#[derive(Clone)]
pub struct Handshake {
    /// Path and query as they came.
    target: Box<str>,
    path_len: u32,
    pub peer: IpAddr,
    pub certificate: Option<ClientCertificate>,
    /// Names in lower case.
    headers: ThinVec<(Box<str>, Box<str>)>,
    /// The route's parameters, percent-decoded.
    parameters: ThinVec<(Box<str>, Box<str>)>,
}

impl Handshake {
    pub fn new(
        target: &str,
        peer: IpAddr,
        headers: Vec<(Box<str>, Box<str>)>,
        parameters: Vec<(Box<str>, Box<str>)>,
    ) -> Self {
        let path_len = target.find('?').unwrap_or(target.len()) as u32;
        let (headers, parameters) = (headers.into(), parameters.into());
        Self { target: target.into(), path_len, peer, certificate: None, headers, parameters }
    }

    pub fn with_certificate(self, certificate: Option<ClientCertificate>) -> Self {
        Self { certificate, ..self }
    }

    pub fn path(&self) -> &str {
        &self.target[..self.path_len as usize]
    }

    /// Without the question mark; empty if there is none.
    pub fn raw_query(&self) -> &str {
        self.target[self.path_len as usize..].trim_start_matches('?')
    }

    /// The first value of a query parameter, decoded.
    pub fn query(&self, name: &str) -> Option<String> {
        let mut pairs = form_urlencoded::parse(self.raw_query().as_bytes());
        pairs.find(|(known, _)| known == name).map(|(_, value)| value.into_owned())
    }

    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(known, _)| **known == *name).map(|(_, value)| &**value)
    }

    /// Path and query as they came.
    pub fn target(&self) -> &str {
        &self.target
    }

    pub fn parameters(&self) -> &[(Box<str>, Box<str>)] {
        &self.parameters
    }

    pub fn headers(&self) -> &[(Box<str>, Box<str>)] {
        &self.headers
    }

    /// A header's values, joined with commas (RFC 9110 section 5.3), cookies with semicolons (RFC 6265 section 5.4).
    pub fn header(&self, name: &str) -> Option<String> {
        let separator = if name.eq_ignore_ascii_case("cookie") { "; " } else { ", " };
        let values: Vec<&str> = self
            .headers
            .iter()
            .filter(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| &**value)
            .collect();
        (!values.is_empty()).then(|| values.join(separator))
    }

    pub fn cookie(&self, name: &str) -> Option<String> {
        let cookies = self.header("cookie")?;
        let mut pairs = cookies.split(';').filter_map(|pair| pair.trim().split_once('='));
        pairs.find(|(known, _)| *known == name).map(|(_, value)| value.to_owned())
    }

    /// The subprotocols that the client offers, by its preference.
    pub fn subprotocols(&self) -> Vec<String> {
        let offered = self.header("sec-websocket-protocol").unwrap_or_default();
        offered.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect()
    }

    /// Forgets what need not be kept while the session lives.
    pub fn forget(&mut self, keep: &[String]) {
        let headers = std::mem::take(&mut self.headers);
        self.headers = headers.into_iter().filter(|(name, _)| keep.iter().any(|kept| **kept == **name)).collect();
    }
}

/// Decodes a path segment; bytes outside UTF-8 become U+FFFD.
pub fn decode_segment(segment: &str) -> Box<str> {
    percent_decode_str(segment).decode_utf8_lossy().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn handshake(target: &str, headers: &[(&str, &str)]) -> Handshake {
        let headers = headers.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        Handshake::new(target, IpAddr::from([127, 0, 0, 1]), headers, vec![("room".into(), decode_segment("a%20b"))])
    }

    #[test]
    fn the_query_is_decoded_and_the_path_is_not() {
        let request = handshake("/chat/a%20b?token=x%2By&token=z&empty", &[]);
        assert_eq!(request.path(), "/chat/a%20b");
        assert_eq!(request.query("token").as_deref(), Some("x+y"));
        assert_eq!(request.query("empty").as_deref(), Some(""));
        assert_eq!(request.query("none"), None);
        assert_eq!(request.parameter("room"), Some("a b"));
        assert_eq!(handshake("/", &[]).raw_query(), "");
    }

    #[test]
    fn headers_are_found_in_any_case_and_joined() {
        let mut request = handshake(
            "/",
            &[
                ("cookie", "a=1; b=2"),
                ("cookie", "c=3=4"),
                ("x", "1"),
                ("x", "2"),
                ("sec-websocket-protocol", "v1, v2"),
            ],
        );
        assert_eq!(request.header("X").as_deref(), Some("1, 2"));
        assert_eq!(request.cookie("c").as_deref(), Some("3=4"));
        assert_eq!(request.cookie("d"), None);
        assert_eq!(request.subprotocols(), ["v1", "v2"]);
        request.forget(&["x".to_owned()]);
        assert_eq!((request.headers().len(), request.header("cookie")), (2, None));
    }
}
