//! Of `handshake`: the request, and the answer to it.

use super::check;
use crate::host::data::Certificate;
use crate::testing::call;
use crate::testing::connect::Request;
use crate::testing::effect::Effect;
use crate::testing::state::{Peer, fits};
use crate::{CertificateFacts, Refusal};

pub(crate) fn method(session: u64) -> String {
    read(session, |_| "GET".to_owned())
}

pub(crate) fn path(session: u64) -> String {
    read(session, |request| request.path.clone())
}

pub(crate) fn parameter(session: u64, name: &str) -> Option<String> {
    read(session, |request| first(&request.params, name))
}

pub(crate) fn query(session: u64, name: &str) -> Option<String> {
    read(session, |request| first(&request.query, name))
}

pub(crate) fn raw_query(session: u64) -> String {
    let pair = |(name, value): &(String, String)| format!("{}={}", encoded(name), encoded(value));
    read(session, |request| request.query.iter().map(pair).collect::<Vec<_>>().join("&"))
}

pub(crate) fn header(session: u64, name: &str) -> Option<String> {
    let values: Vec<String> = headers(session)
        .into_iter()
        .filter(|(other, _)| other.eq_ignore_ascii_case(name))
        .map(|(_, value)| value)
        .collect();
    (!values.is_empty()).then(|| values.join(if name.eq_ignore_ascii_case("cookie") { "; " } else { ", " }))
}

pub(crate) fn headers(session: u64) -> Vec<(String, String)> {
    call::with(|call| {
        let mut headers = call.peer(session, readable_headers);
        let granted = &call.state().grants.headers;
        headers.retain(|(name, _)| granted.iter().any(|pattern| fits(&pattern.to_ascii_lowercase(), name)));
        headers
    })
}

pub(crate) fn cookie(session: u64, name: &str) -> Option<String> {
    let cookies = header(session, "cookie")?;
    let mut pairs = cookies.split(';').filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(other, _)| *other == name).map(|(_, value)| value.to_owned())
}

pub(crate) fn peer_address(session: u64) -> String {
    read(session, |request| request.peer.clone())
}

pub(crate) fn client_certificate(session: u64) -> Option<Vec<u8>> {
    read(session, |request| request.certificate.clone())
}

pub(crate) fn certificate_facts(session: u64) -> Option<Certificate> {
    let facts = read(session, |request| request.certificate_facts.clone())?;
    let CertificateFacts { subject, dns_names, uris, emails, addresses, spiffe_id, not_after } = facts;
    Some(Certificate { subject, dns_names, uris, emails, addresses, spiffe_id, not_after })
}

pub(crate) fn subprotocols(session: u64) -> Vec<String> {
    read(session, |request| request.subprotocols.clone())
}

pub(crate) fn select_subprotocol(session: u64, name: &str) -> Result<(), Refusal> {
    if !subprotocols(session).iter().any(|offered| offered == name) {
        return Err(Refusal::Invalid);
    }
    push(session, Effect::SelectSubprotocol(name.to_owned()));
    Ok(())
}

pub(crate) fn add_header(session: u64, name: &str, value: &str) -> Result<(), Refusal> {
    check::header(name, value)?;
    push(session, Effect::AddHeader(name.to_owned(), value.to_owned()));
    Ok(())
}

pub(crate) fn set_body(session: u64, content_type: &str, body: &[u8]) {
    assert!(body.len() <= 16 * 1024, "trap: the body of a refusal is over 16 KiB");
    push(session, Effect::SetBody(content_type.to_owned(), body.to_vec()));
}

fn read<T>(session: u64, read: impl FnOnce(&Request) -> T) -> T {
    call::with(|call| call.peer(session, |peer| read(&peer.request)))
}

fn readable_headers(peer: &Peer) -> Vec<(String, String)> {
    let request = &peer.request;
    let readable = |name: &String| !peer.settled || request.keep_headers.contains(name);
    request.headers.iter().filter(|(name, _)| readable(name)).cloned().collect()
}

fn first(pairs: &[(String, String)], name: &str) -> Option<String> {
    pairs.iter().find(|(other, _)| other == name).map(|(_, value)| value.clone())
}

fn encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

fn push(session: u64, effect: Effect) {
    call::with(|call| {
        call.session_id(session);
        call.push(effect);
    });
}
