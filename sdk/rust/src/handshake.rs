//! The HTTP request that a session comes from, and the answer to it.
//!
//! All of it can be read in `authenticate` and in `opened`; afterwards the headers only that the route's
//! `keep_headers` names. Headers, cookies among them, are seen by plugins that have a grant for them (`headers`); to
//! others they are not there. The setters are for `authenticate` only, and trap elsewhere.

use crate::host::{data, handshake};
use crate::{Refusal, Session};

/// What a client certificate says of its subject.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CertificateFacts {
    /// As RFC 4514 writes it, the last part first: `CN=ann,O=Example`. Commas and the like within values are escaped.
    pub subject: String,
    /// DNS names in lower case.
    pub dns_names: Vec<String>,
    /// URIs among the alternative names.
    pub uris: Vec<String>,
    /// Email addresses among them.
    pub emails: Vec<String>,
    /// IP addresses among them.
    pub addresses: Vec<String>,
    /// `spiffe://DOMAIN/PATH`, if it is the certificate's only URI and well formed.
    pub spiffe_id: Option<String>,
    /// Until when it is valid: Unix time in seconds.
    pub not_after: u64,
}

impl From<data::Certificate> for CertificateFacts {
    fn from(read: data::Certificate) -> Self {
        let data::Certificate { subject, dns_names, uris, emails, addresses, spiffe_id, not_after } = read;
        Self { subject, dns_names, uris, emails, addresses, spiffe_id, not_after }
    }
}

impl Session {
    /// The request's method.
    pub fn method(self) -> String {
        handshake::method(self.handle)
    }

    /// The request's path, percent-encoded, as it came, without the query.
    pub fn path(self) -> String {
        handshake::path(self.handle)
    }

    /// A parameter of the route's pattern, percent-decoded: `room` of `/chat/{room}`.
    pub fn param(self, name: &str) -> Option<String> {
        handshake::parameter(self.handle, name)
    }

    /// The first value of a query parameter, decoded.
    pub fn query(self, name: &str) -> Option<String> {
        handshake::query(self.handle, name)
    }

    /// The query as it came, without the question mark; empty if there is none.
    pub fn raw_query(self) -> String {
        handshake::raw_query(self.handle)
    }

    /// A header's values, joined as RFC 9110 section 5.3 says. Any case finds it. Bytes outside UTF-8 become U+FFFD.
    /// None without the grant `headers` for it.
    pub fn header(self, name: &str) -> Option<String> {
        handshake::header(self.handle, name)
    }

    /// All headers that the plugin has a grant for, names in lower case, in order.
    pub fn headers(self) -> Vec<(String, String)> {
        handshake::headers(self.handle)
    }

    /// A cookie's value, as it came. None without the grant `headers` for `cookie`.
    pub fn cookie(self, name: &str) -> Option<String> {
        handshake::cookie(self.handle, name)
    }

    /// The client's IP address, after the gateway's rules for trusted proxies.
    pub fn peer_address(self) -> String {
        handshake::peer_address(self.handle)
    }

    /// The verified client certificate, DER.
    pub fn client_certificate(self) -> Option<Vec<u8>> {
        handshake::client_certificate(self.handle)
    }

    /// What the verified client certificate says of its subject.
    pub fn certificate_facts(self) -> Option<CertificateFacts> {
        handshake::certificate_facts(self.handle).map(CertificateFacts::from)
    }

    /// The subprotocols that the client offers, by its preference.
    pub fn subprotocols(self) -> Vec<String> {
        handshake::subprotocols(self.handle)
    }

    /// Effect, in `authenticate` only: speak this one of the offered subprotocols.
    ///
    /// # Errors
    /// `Invalid`: it was not offered.
    pub fn select_subprotocol(self, name: &str) -> Result<(), Refusal> {
        handshake::select_subprotocol(self.handle, name)
    }

    /// Effect, in `authenticate` only: add a header to the response, whether it admits or refuses.
    ///
    /// # Errors
    /// `Invalid`: not a header's name or value, or one that is the gateway's to set.
    pub fn add_header(self, name: &str, value: &str) -> Result<(), Refusal> {
        handshake::add_header(self.handle, name, value)
    }

    /// Effect, in `authenticate` only: the body of a refusal, up to 16 KiB.
    pub fn set_body(self, content_type: &str, body: impl AsRef<[u8]>) {
        handshake::set_body(self.handle, content_type, body.as_ref());
    }
}
