//! `handshake`: the HTTP request that a session comes from, and its response.

use wasmtime::{Error, Result};

use super::wit::types::Refusal;
use super::{Quota, State, mistake, wit};
use crate::certificate::Facts;
use crate::plugin::event::Hook;

/// Bytes of a refusal's body.
const BODY: usize = 16 << 10;
/// Headers that one handshake may add, and bytes of each.
const HEADERS: usize = 32;
const HEADER_BYTES: usize = 8 << 10;

impl State {
    /// Effects on the response are for `authenticate` alone.
    fn response(&mut self, session: u64) -> Result<&mut crate::plugin::effects::Response> {
        self.session(session)?;
        if self.hook != Hook::Authenticate {
            return Err(mistake(format!("`{}` has no response to change", self.hook.name())));
        }
        Ok(&mut self.event()?.effects.response)
    }
}

impl State {
    /// A header without a grant is not there; that it was asked for is on record.
    fn sees_header(&mut self, name: &str) -> bool {
        let granted = self.context.granted.header(name);
        self.granted_flag(granted, "headers", name).is_some()
    }
}

impl wit::handshake::Host for State {
    fn method(&mut self, session: u64) -> Result<String> {
        // A WebSocket handshake over HTTP/1.1 is always a GET (RFC 6455 section 4.1).
        self.session(session).map(|_| "GET".to_owned())
    }

    fn path(&mut self, session: u64) -> Result<String> {
        let path = self.session(session)?.handshake.path().to_owned();
        Ok(self.given(path))
    }

    fn parameter(&mut self, session: u64, name: String) -> Result<Option<String>> {
        let value = self.session(session)?.handshake.parameter(&name).map(str::to_owned);
        Ok(self.given(value))
    }

    fn query(&mut self, session: u64, name: String) -> Result<Option<String>> {
        let value = self.session(session)?.handshake.query(&name);
        Ok(self.given(value))
    }

    fn raw_query(&mut self, session: u64) -> Result<String> {
        let query = self.session(session)?.handshake.raw_query().to_owned();
        Ok(self.given(query))
    }

    fn header(&mut self, session: u64, name: String) -> Result<Option<String>> {
        self.session(session)?;
        if !self.sees_header(&name) {
            return Ok(None);
        }
        let value = self.session(session)?.handshake.header(&name);
        Ok(self.given(value))
    }

    fn headers(&mut self, session: u64) -> Result<Vec<(String, String)>> {
        let context = self.context.clone();
        let headers = self.session(session)?.handshake.headers().iter();
        let seen = headers.filter(|(name, _)| context.granted.header(name));
        let seen: Vec<_> = seen.map(|(name, value)| (name.to_string(), value.to_string())).collect();
        Ok(self.given(seen))
    }

    fn cookie(&mut self, session: u64, name: String) -> Result<Option<String>> {
        self.session(session)?;
        if !self.sees_header("cookie") {
            return Ok(None);
        }
        let value = self.session(session)?.handshake.cookie(&name);
        Ok(self.given(value))
    }

    fn peer_address(&mut self, session: u64) -> Result<String> {
        Ok(self.session(session)?.handshake.peer.to_string())
    }

    fn client_certificate(&mut self, session: u64) -> Result<Option<Vec<u8>>> {
        let certificate = self.session(session)?.handshake.certificate.as_ref();
        Ok(certificate.map(|certificate| certificate.0.to_vec()))
    }

    fn certificate_facts(&mut self, session: u64) -> Result<Option<wit::handshake::Certificate>> {
        let certificate = self.session(session)?.handshake.certificate.as_ref();
        let Some(facts) = certificate.and_then(|certificate| Facts::of(&certificate.0)) else { return Ok(None) };
        Ok(Some(wit::handshake::Certificate {
            subject: self.given(facts.subject),
            dns_names: self.given(facts.dns),
            uris: self.given(facts.uris),
            emails: self.given(facts.emails),
            addresses: facts.addresses.iter().map(ToString::to_string).collect(),
            spiffe_id: facts.spiffe,
            not_after: facts.not_after.try_into().unwrap_or(0),
        }))
    }

    fn subprotocols(&mut self, session: u64) -> Result<Vec<String>> {
        let offered = self.session(session)?.handshake.subprotocols();
        Ok(self.given(offered))
    }

    fn select_subprotocol(&mut self, session: u64, name: String) -> Result<Result<(), Refusal>> {
        let offered = self.session(session)?.handshake.subprotocols();
        let response = self.response(session)?;
        if !offered.contains(&name) {
            return Ok(Err(Refusal::Invalid));
        }
        response.subprotocol = Some(name.into());
        Ok(Ok(()))
    }

    fn add_header(&mut self, session: u64, name: String, value: String) -> Result<Result<(), Refusal>> {
        let response = self.response(session)?;
        if name.len() + value.len() > HEADER_BYTES {
            return Ok(Err(Refusal::TooLarge));
        }
        if response.headers.len() >= HEADERS {
            return Ok(Err(Refusal::TooMany));
        }
        let well_formed =
            hyper::header::HeaderName::try_from(&name).is_ok() && hyper::header::HeaderValue::try_from(&value).is_ok();
        if !well_formed || is_reserved(&name) {
            return Ok(Err(Refusal::Invalid));
        }
        response.headers.push((name.into(), value.into()));
        Ok(Ok(()))
    }

    fn set_body(&mut self, session: u64, content_type: String, body: Vec<u8>) -> Result<()> {
        let response = self.response(session)?;
        if body.len() > BODY {
            return Err(Error::new(Quota::Fixed("bytes of a refusal's body, 16384")));
        }
        if hyper::header::HeaderValue::try_from(&content_type).is_err() {
            return Err(mistake(format!("{content_type:?} is not a content type")));
        }
        response.body = Some((content_type.into(), body));
        Ok(())
    }
}

/// Headers that frame the response: two answers to one of them would be two responses.
fn is_reserved(name: &str) -> bool {
    const RESERVED: [&str; 6] =
        ["connection", "upgrade", "content-length", "transfer-encoding", "content-type", "trailer"];
    let name = name.to_ascii_lowercase();
    RESERVED.contains(&&*name) || name.starts_with("sec-websocket-")
}
