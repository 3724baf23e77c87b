//! Where connections go: an address out of a `ws://` URL.

use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::Duration;

use crate::LoadError;

/// Of several addresses of a name the first that takes a connection within this is used.
const PROBE: Duration = Duration::from_secs(2);

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub url: String,
    pub tls: bool,
    /// Name or address, without brackets.
    pub host: String,
    pub port: u16,
    /// As the Host header has it.
    pub authority: String,
    /// With the query.
    pub path: String,
}

impl Target {
    pub fn parse(url: &str) -> Result<Self, LoadError> {
        let bad = |reason: &str| LoadError::Url { url: url.to_owned(), reason: reason.to_owned() };
        let (scheme, rest) = url.split_once("://").ok_or_else(|| bad("it does not begin with ws:// or wss://"))?;
        let tls = match scheme.to_ascii_lowercase().as_str() {
            "ws" => false,
            "wss" => true,
            "http" | "https" => return Err(bad("WebSocket addresses begin with ws:// or wss://")),
            _ => return Err(bad("it does not begin with ws:// or wss://")),
        };
        if url.bytes().any(|byte| byte <= b' ' || byte == 0x7f) {
            return Err(bad("there is a space or a control character in it"));
        }
        if rest.contains('#') {
            return Err(bad("WebSocket addresses have no part after #"));
        }
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        if authority.contains('@') {
            return Err(bad("a name and password go into a header: Authorization: Basic …"));
        }
        let (host, port) = match authority.strip_prefix('[') {
            Some(rest) => {
                let (host, port) = rest.split_once(']').ok_or_else(|| bad("a bracket is not closed"))?;
                (host, port.strip_prefix(':'))
            }
            None => match authority.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (authority, None),
            },
        };
        if host.is_empty() {
            return Err(bad("it names no host"));
        }
        let port = match port {
            Some(port) => port.parse().map_err(|_| bad("the port is not a number up to 65,535"))?,
            None if tls => 443,
            None => 80,
        };
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        Ok(Self { url: url.to_owned(), tls, host: host.to_owned(), port, authority: authority.to_owned(), path })
    }

    /// All its addresses.
    pub fn addresses(&self) -> Result<Vec<SocketAddr>, LoadError> {
        let fail = |reason: String| LoadError::Resolve { host: self.host.clone(), reason };
        let found: Vec<_> =
            (self.host.as_str(), self.port).to_socket_addrs().map_err(|e| fail(e.to_string()))?.collect();
        if found.is_empty() { Err(fail("nobody knows any".to_owned())) } else { Ok(found) }
    }

    /// The one to connect to: `localhost` is two of them, of which a server often has only one.
    pub fn address(&self) -> Result<SocketAddr, LoadError> {
        let found = self.addresses()?;
        let answers = |address: &&SocketAddr| TcpStream::connect_timeout(address, PROBE).is_ok();
        let chosen = if found.len() > 1 { found.iter().find(answers) } else { None };
        Ok(*chosen.unwrap_or(&found[0]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_taken_apart() {
        let cases = [
            ("ws://127.0.0.1:8080/ws", false, "127.0.0.1", 8080, "/ws"),
            ("wss://example.org", true, "example.org", 443, "/"),
            ("ws://[::1]:9000/a?b=c", false, "::1", 9000, "/a?b=c"),
            ("WS://host?x", false, "host", 80, "/?x"),
        ];
        for (url, tls, host, port, path) in cases {
            let target = Target::parse(url).unwrap();
            assert_eq!((target.tls, &*target.host, target.port, &*target.path), (tls, host, port, path), "{url}");
        }
        assert_eq!(Target::parse("ws://[::1]:9000/").unwrap().authority, "[::1]:9000");
    }

    #[test]
    fn what_is_no_address_says_why() {
        for (url, why) in [
            ("127.0.0.1:8080", "ws://"),
            ("http://host/", "ws://"),
            ("ws:///path", "no host"),
            ("ws://host:99999/", "port"),
            ("ws://user:pw@host/", "header"),
            ("ws://[::1/", "bracket"),
            ("ws://host/#part", "#"),
            ("ws://host/a b", "space"),
        ] {
            let told = Target::parse(url).unwrap_err().to_string();
            assert!(told.contains(why) && told.contains(url), "{url}: {told}");
        }
    }
}
