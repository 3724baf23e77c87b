//! Who may connect, how often, and what a request may look like before anything is known of it.

use std::net::IpAddr;

use serde::Deserialize;

use super::{Config, ConfigError, Network, Size, Span, load::Source, seconds};

/// Connections of clients, before anything is known of who they are. docs/guides/hostile-clients.md says what to set.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct ConnectionsConfig {
    /// Connections of one address at a time; an IPv6 address counts by its first 64 bits. More are answered 503. Absent:
    /// any number.
    pub per_address: Option<u32>,
    /// New connections a second of one address, after the burst. More are answered 503. Absent: any number.
    pub rate: Option<u32>,
    /// New connections of one address at once before its rate counts. Absent: as many as the rate.
    pub burst: Option<u32>,
    /// New connections a second of all addresses together, after the burst. More are answered 503 with a Retry-After that
    /// spreads them. Absent: any number.
    pub total_rate: Option<u32>,
    /// New connections of all addresses at once before their rate counts. Absent: as many as the rate.
    pub total_burst: Option<u32>,
    /// Networks whose addresses are not counted one by one, `["127.0.0.0/8"]`: whoever is trusted, and what stands in front.
    #[cfg_attr(test, schemars(with = "Vec<String>"))]
    pub exempt: Vec<Network>,
    /// Addresses that are remembered at a time. Those that come beyond are not counted one by one.
    pub addresses: usize,
    /// How long a client may take until the first byte arrives. Its request as a whole has `handshake_timeout`.
    pub first_byte_timeout: Span,
    /// A request's target, in bytes. A longer one is answered 414.
    pub uri: Size,
    /// Header lines of a request. More are answered 431.
    pub headers: usize,
    /// Header lines of a request together, in bytes. More are answered 431.
    pub header_size: Size,
    /// How long what was sent to a client may stay without acknowledgement before the connection counts as dead: one that
    /// is only written to is found out by this.
    pub unacknowledged_timeout: Span,
}

impl Default for ConnectionsConfig {
    fn default() -> Self {
        Self {
            per_address: None,
            rate: None,
            burst: None,
            total_rate: None,
            total_burst: None,
            exempt: Vec::new(),
            addresses: 65_536,
            first_byte_timeout: seconds(5),
            uri: Size(8 << 10),
            headers: 100,
            header_size: Size(32 << 10),
            unacknowledged_timeout: seconds(120),
        }
    }
}

impl ConnectionsConfig {
    pub fn is_exempt(&self, address: IpAddr) -> bool {
        self.exempt.iter().any(|network| network.0.contains(&address))
    }

    fn wrong(&self) -> Option<&'static str> {
        let zero = [self.per_address, self.rate, self.burst, self.total_rate, self.total_burst].contains(&Some(0));
        let alone =
            (self.burst.is_some() && self.rate.is_none()) || (self.total_burst.is_some() && self.total_rate.is_none());
        Some(match self {
            _ if zero => "a limit of 0 would let nobody in: leave it out where there is to be none",
            _ if alone => "a burst needs its rate: `burst` needs `rate`, `total_burst` needs `total_rate`",
            _ if self.addresses == 0 => "`addresses` must be above 0",
            _ if self.first_byte_timeout.0.is_zero() || self.unacknowledged_timeout.0.is_zero() => {
                "a timeout must be above 0"
            }
            // The HTTP library's own limits.
            _ if !(256..=64 << 10).contains(&self.uri.0) => "`uri` is from 256 bytes to 64KiB",
            _ if !(8..=10_000).contains(&self.headers) => "`headers` is from 8 to 10000",
            _ if !(1 << 10..=1 << 20).contains(&self.header_size.0) => "`header_size` is from 1KiB to 1MiB",
            _ => return None,
        })
    }
}

impl Config {
    pub(super) fn check_connections(&self, source: &Source<'_>) -> Result<(), ConfigError> {
        let Some(wrong) = self.connections.wrong() else { return Ok(()) };
        let at = source.text.find("[connections]").map(|at| at..at + 1);
        Err(source.error(at, format!("[connections]: {wrong}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_makes_no_sense_is_told() {
        let parse = |text: &str| toml::from_str::<ConnectionsConfig>(text).unwrap();
        assert_eq!(parse("").wrong(), None);
        assert_eq!(parse("per_address = 20\nrate = 5\nburst = 10\nexempt = [\"10.0.0.0/8\"]").wrong(), None);
        for bad in ["per_address = 0", "burst = 3", "total_burst = 3", "headers = 1", "uri = 10", "addresses = 0"] {
            assert!(parse(bad).wrong().is_some(), "{bad}");
        }
        let exempt = parse("exempt = [\"10.0.0.0/8\", \"::1\"]");
        assert!(exempt.is_exempt("10.1.2.3".parse().unwrap()) && exempt.is_exempt("::1".parse().unwrap()));
        assert!(!exempt.is_exempt("11.1.2.3".parse().unwrap()));
    }
}
