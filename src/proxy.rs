//! Where a client comes from, by what trusted proxies say: the PROXY protocol for a connection, a header for a request.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use hyper::header::{self, HeaderMap, HeaderName};
use ppp::{v1, v2};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use crate::config::{ForwardedHeader, ProxyConfig};

/// Bytes of a header of version 1 (section 2.1), at most.
const V1: usize = 107;
/// Bytes of a header of version 2 with what it has appended, at most.
const V2: usize = 2 << 10;
/// Bytes of the shortest header of each version, and of version 2's fixed part.
const SHORTEST: usize = 15;
const V2_FIXED: usize = 16;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Who is believed.
#[derive(Default)]
pub struct Proxies(ProxyConfig);

impl Proxies {
    pub fn new(config: &ProxyConfig) -> Self {
        Self(config.clone())
    }

    pub fn is_trusted(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.trusted.iter().any(|network| network.0.contains(&address))
    }

    /// Whether requests of this connection may say whose they are.
    pub fn names_clients(&self, connected: IpAddr) -> bool {
        self.0.header != ForwardedHeader::Off && self.is_trusted(connected)
    }

    /// Who has connected: whom the PROXY protocol's header names, where it is spoken, or who is at the other end. The error
    /// is the metric's label.
    pub async fn connected(
        &self,
        stream: &mut TcpStream,
        peer: IpAddr,
        timeout: Duration,
    ) -> Result<IpAddr, &'static str> {
        let peer = peer.to_canonical();
        if !self.0.protocol {
            return Ok(peer);
        }
        if !self.is_trusted(peer) {
            return Err("untrusted");
        }
        match tokio::time::timeout(timeout, read(stream)).await {
            Err(_) => Err("timeout"),
            Ok(Err(error)) if error.kind() == io::ErrorKind::InvalidData => Err("malformed"),
            Ok(Err(_)) => Err("closed"),
            Ok(Ok(named)) => Ok(named.map_or(peer, |named| named.to_canonical())),
        }
    }

    /// Whose request this is: the address that rules and limits are about, and that plugins see. `connected` is who has
    /// connected. Every step to the left is believed only because whoever says so is trusted.
    pub fn client(&self, connected: IpAddr, headers: &HeaderMap) -> IpAddr {
        let mut client = connected.to_canonical();
        let (name, of): (_, fn(&str) -> Option<IpAddr>) = match self.0.header {
            ForwardedHeader::Off => return client,
            ForwardedHeader::XForwardedFor => (FORWARDED_FOR, address),
            ForwardedHeader::Forwarded => (header::FORWARDED, forwarded_for),
        };
        for value in headers.get_all(name).iter().rev() {
            for element in value.as_bytes().rsplit(|byte| *byte == b',') {
                if !self.is_trusted(client) {
                    return client;
                }
                match std::str::from_utf8(element).ok().and_then(of) {
                    Some(address) => client = address.to_canonical(),
                    // Whoever stands left of what cannot be read is nobody that can be believed.
                    None => return client,
                }
            }
        }
        client
    }
}

/// `192.0.2.7`, `192.0.2.7:4711`, `2001:db8::7`, `[2001:db8::7]`, `[2001:db8::7]:4711`.
fn address(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let inner = text.strip_prefix('[').and_then(|rest| rest.split_once(']'));
    match inner {
        Some((address, rest)) => {
            let port = rest.strip_prefix(':').map_or(rest.is_empty(), |port| port.parse::<u16>().is_ok());
            address.parse::<std::net::Ipv6Addr>().ok().filter(|_| port).map(IpAddr::from)
        }
        None => text.parse().ok().or_else(|| text.parse::<std::net::SocketAddrV4>().ok().map(|at| (*at.ip()).into())),
    }
}

/// The `for` of one element: `for=192.0.2.7;proto=https`, `For="[2001:db8::7]:4711"` (RFC 7239 section 4).
fn forwarded_for(element: &str) -> Option<IpAddr> {
    let mut pairs = element.split(';').filter_map(|pair| pair.split_once('='));
    let (_, value) = pairs.find(|(name, _)| name.trim().eq_ignore_ascii_case("for"))?;
    let value = value.trim();
    address(value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value))
}

/// Reads the header and not a byte more. None: it names nobody, as a balancer's own health checks do.
async fn read(stream: &mut TcpStream) -> io::Result<Option<IpAddr>> {
    let malformed = || io::Error::from(io::ErrorKind::InvalidData);
    let mut header = vec![0; SHORTEST];
    stream.read_exact(&mut header).await?;
    if header.starts_with(v2::PROTOCOL_PREFIX) {
        header.resize(V2_FIXED, 0);
        stream.read_exact(&mut header[SHORTEST..]).await?;
        let rest = usize::from(u16::from_be_bytes([header[14], header[15]]));
        if V2_FIXED + rest > V2 {
            return Err(malformed());
        }
        header.resize(V2_FIXED + rest, 0);
        stream.read_exact(&mut header[V2_FIXED..]).await?;
        return parse_v2(&header).ok_or_else(malformed);
    }
    if !header.starts_with(b"PROXY ") {
        return Err(malformed());
    }
    while !header.ends_with(b"\r\n") {
        // No more than up to the line's end: what follows is TLS or HTTP.
        let mut room = [0; V1];
        let room = &mut room[..V1.saturating_sub(header.len())];
        if room.is_empty() {
            return Err(malformed());
        }
        let there = stream.peek(room).await?;
        if there == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let line = room[..there].iter().position(|byte| *byte == b'\n').map_or(there, |at| at + 1);
        stream.read_exact(&mut room[..line]).await?;
        header.extend_from_slice(&room[..line]);
        if header.contains(&b'\n') && !header.ends_with(b"\r\n") {
            return Err(malformed());
        }
    }
    parse_v1(&header).ok_or_else(malformed)
}

fn parse_v1(header: &[u8]) -> Option<Option<IpAddr>> {
    Some(match v1::Header::try_from(header).ok()?.addresses {
        v1::Addresses::Unknown => None,
        v1::Addresses::Tcp4(of) => Some(of.source_address.into()),
        v1::Addresses::Tcp6(of) => Some(of.source_address.into()),
    })
}

fn parse_v2(header: &[u8]) -> Option<Option<IpAddr>> {
    let header = v2::Header::try_from(header).ok()?;
    Some(match (header.command, header.addresses) {
        (v2::Command::Local, _) | (_, v2::Addresses::Unspecified | v2::Addresses::Unix(_)) => None,
        (_, v2::Addresses::IPv4(of)) => Some(of.source_address.into()),
        (_, v2::Addresses::IPv6(of)) => Some(of.source_address.into()),
    })
}

#[cfg(test)]
mod tests {
    use ipnet::IpNet;

    use super::*;
    use crate::config::Network;

    fn proxies(header: ForwardedHeader) -> Proxies {
        let trusted = ["10.0.0.0/8", "fd00::/8"];
        let trusted = trusted.map(|network| Network(network.parse::<IpNet>().unwrap())).to_vec();
        Proxies(ProxyConfig { trusted, protocol: false, header })
    }

    fn client(header: ForwardedHeader, connected: &str, values: &[&str]) -> String {
        let mut headers = HeaderMap::new();
        let name = if header == ForwardedHeader::Forwarded { header::FORWARDED } else { FORWARDED_FOR };
        for value in values {
            headers.append(&name, value.parse().unwrap());
        }
        proxies(header).client(connected.parse().unwrap(), &headers).to_string()
    }

    #[test]
    fn the_header_is_read_from_the_right_as_far_as_it_is_trusted() {
        let of = |connected, values: &[&str]| client(ForwardedHeader::XForwardedFor, connected, values);
        assert_eq!(of("192.0.2.1", &["192.0.2.9"]), "192.0.2.1", "who is not trusted says nothing");
        assert_eq!(of("10.0.0.1", &[]), "10.0.0.1");
        assert_eq!(of("10.0.0.1", &["192.0.2.9"]), "192.0.2.9");
        assert_eq!(of("::ffff:10.0.0.1", &["192.0.2.9"]), "192.0.2.9");
        assert_eq!(of("10.0.0.1", &["1.1.1.1, 192.0.2.9, 10.0.0.2"]), "192.0.2.9", "what is left of it is a claim");
        assert_eq!(of("10.0.0.1", &["1.1.1.1", "192.0.2.9", "10.0.0.2"]), "192.0.2.9");
        assert_eq!(of("10.0.0.1", &["10.0.0.3, 10.0.0.2"]), "10.0.0.3", "all are trusted: the farthest");
        assert_eq!(of("10.0.0.1", &["192.0.2.9, rubbish, 10.0.0.2"]), "10.0.0.2");
        assert_eq!(of("10.0.0.1", &["unknown"]), "10.0.0.1");
        assert_eq!(of("10.0.0.1", &["192.0.2.9:4711"]), "192.0.2.9");
        assert_eq!(of("fd00::1", &["[2001:db8::9]:4711"]), "2001:db8::9");
        assert_eq!(of("fd00::1", &["2001:db8::9"]), "2001:db8::9");
        assert_eq!(of("fd00::1", &["[2001:db8::9]x"]), "fd00::1");
        assert_eq!(client(ForwardedHeader::Off, "10.0.0.1", &["192.0.2.9"]), "10.0.0.1");
    }

    #[test]
    fn forwarded_says_the_same_in_other_words() {
        let of = |values: &[&str]| client(ForwardedHeader::Forwarded, "10.0.0.1", values);
        assert_eq!(of(&["for=1.1.1.1, For=192.0.2.9;proto=https;by=10.0.0.1"]), "192.0.2.9");
        assert_eq!(of(&["for=\"[2001:db8::9]:4711\""]), "2001:db8::9");
        assert_eq!(of(&["for=192.0.2.9, proto=https"]), "10.0.0.1", "an element without an address");
        assert_eq!(of(&["for=_hidden"]), "10.0.0.1");
    }

    #[test]
    fn headers_of_the_protocol_name_the_client_or_nobody() {
        let v1 = |text: &str| parse_v1(text.as_bytes());
        let of = |text: &str| Some(Some(text.parse().unwrap()));
        assert_eq!(v1("PROXY TCP4 192.0.2.9 10.0.0.1 4711 443\r\n"), of("192.0.2.9"));
        assert_eq!(v1("PROXY TCP6 2001:db8::9 fd00::1 4711 443\r\n"), of("2001:db8::9"));
        assert_eq!(v1("PROXY UNKNOWN\r\n"), Some(None));
        assert_eq!(v1("PROXY TCP4 192.0.2.999 10.0.0.1 4711 443\r\n"), None);
        assert_eq!(v1("PROXY TCP4 192.0.2.9 10.0.0.1 4711\r\n"), None);
        let v2 = |command: u8, family: u8, rest: &[u8]| {
            let mut header = v2::PROTOCOL_PREFIX.to_vec();
            header.extend([0x20 | command, family]);
            header.extend((rest.len() as u16).to_be_bytes());
            header.extend(rest);
            header
        };
        let four = [192, 0, 2, 9, 10, 0, 0, 1, 0x12, 0x67, 1, 0xbb];
        assert_eq!(parse_v2(&v2(1, 0x11, &four)), of("192.0.2.9"));
        assert_eq!(parse_v2(&v2(0, 0x11, &four)), Some(None), "LOCAL: the balancer itself");
        assert_eq!(parse_v2(&v2(1, 0, &[])), Some(None));
        assert_eq!(parse_v2(&v2(1, 0x11, &four[..8])), None);
        let whole = v2(1, 0x11, &four);
        // Whatever is changed or cut off, there is an answer.
        for at in 0..whole.len() {
            let _ = parse_v2(&whole[..at]);
            for value in 0..=255 {
                let mut changed = whole.clone();
                changed[at] = value;
                let _ = parse_v2(&changed);
            }
        }
    }
}
