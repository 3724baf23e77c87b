//! Patterns of the servers that a plugin may ask.

use std::fmt;

use serde::Deserialize;
use serde::de::{self, Deserializer};

/// `host[:port]`: `"api.example.org"`, `"*.example.org:8443"`, `"[::1]:*"`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(with = "String"))]
pub struct HostPattern {
    host: Host,
    port: Port,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Host {
    Any,
    /// What comes behind the star, with its dot. Lower case.
    Below(Box<str>),
    /// Lower case.
    Exactly(Box<str>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Port {
    Usual,
    Any,
    Exactly(u16),
}

impl HostPattern {
    /// None: the text is no such pattern.
    pub fn parse(text: &str) -> Option<Self> {
        // The colons of an IPv6 address stand in brackets.
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
            _ => (text, None),
        };
        let port = match port {
            None => Port::Usual,
            Some("*") => Port::Any,
            Some(port) => Port::Exactly(port.parse().ok().filter(|port| *port != 0)?),
        };
        let is_name = |name: &str| {
            !name.is_empty()
                && name.split('.').all(|label| !label.is_empty())
                && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'))
        };
        let host = host.to_ascii_lowercase();
        let host = match host.strip_prefix("*.") {
            _ if host == "*" => Host::Any,
            Some(name) if is_name(name) => Host::Below(format!(".{name}").into()),
            None if is_name(&host) => Host::Exactly(host.into()),
            None => {
                let address = host.strip_prefix('[')?.strip_suffix(']')?;
                address.parse::<std::net::Ipv6Addr>().ok()?;
                Host::Exactly(host.into())
            }
            Some(_) => return None,
        };
        Some(Self { host, port })
    }

    /// `default`: the port that the scheme implies.
    pub fn matches(&self, host: &str, port: u16, default: u16) -> bool {
        let host = host.to_ascii_lowercase();
        let is_host = match &self.host {
            Host::Any => true,
            Host::Below(end) => host.len() > end.len() && host.ends_with(&**end) && !host.starts_with('.'),
            Host::Exactly(known) => host == **known,
        };
        is_host
            && match self.port {
                Port::Usual => port == default,
                Port::Any => true,
                Port::Exactly(known) => port == known,
            }
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Any => f.write_str("*")?,
            Host::Below(end) => write!(f, "*{end}")?,
            Host::Exactly(host) => f.write_str(host)?,
        }
        match self.port {
            Port::Usual => Ok(()),
            Port::Any => f.write_str(":*"),
            Port::Exactly(port) => write!(f, ":{port}"),
        }
    }
}

impl serde::Serialize for HostPattern {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for HostPattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| {
            let why =
                "is not a host: write \"api.example.org\", \"*.example.org\" or \"127.0.0.1:9000\", without http://";
            de::Error::custom(format!("{text:?} {why}"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allows(pattern: &str, host: &str, port: u16) -> bool {
        HostPattern::parse(pattern).unwrap().matches(host, port, 443)
    }

    #[test]
    fn a_pattern_allows_what_it_says_and_nothing_else() {
        assert!(allows("api.example.org", "API.example.org", 443));
        assert!(!allows("api.example.org", "api.example.org", 8443));
        assert!(!allows("api.example.org", "api.example.org.evil.example", 443));
        assert!(!allows("api.example.org", "xapi.example.org", 443));
        assert!(allows("api.example.org:8443", "api.example.org", 8443));
        assert!(!allows("api.example.org:8443", "api.example.org", 443));
        assert!(allows("api.example.org:*", "api.example.org", 9));
        assert!(allows("*.example.org", "a.b.example.org", 443));
        assert!(!allows("*.example.org", "example.org", 443));
        assert!(!allows("*.example.org", ".example.org", 443));
        assert!(!allows("*.example.org", "evilexample.org", 443));
        assert!(allows("*", "anything", 443) && !allows("*", "anything", 80));
        assert!(allows("[::1]:9000", "[::1]", 9000));
    }

    #[test]
    fn what_is_no_host_is_refused() {
        for text in
            ["", "http://a", "a/b", "a:0", "a:65536", "a:", "*.", "a.*", "*a", "::1", "[x]", "a..b", "a b", "u@a"]
        {
            assert!(HostPattern::parse(text).is_none(), "{text:?}");
        }
        for text in ["*", "*:*", "a", "*.a:1", "[::1]", "[::1]:*"] {
            assert_eq!(HostPattern::parse(text).unwrap().to_string(), text);
        }
    }
}
