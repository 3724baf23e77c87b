//! `[proxy]`: who may say where a client comes from, and how.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::Deserialize;
use serde::de::{self, Deserializer};

use super::Config;
use super::load::{ConfigError, Source};

/// Proxies and load balancers in front of the gateway. Nobody is believed who does not connect from `trusted`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct ProxyConfig {
    /// Their addresses: `"10.0.0.0/8"`, `"192.0.2.7"`, `"fd00::/8"`.
    #[cfg_attr(test, schemars(with = "Vec<String>"))]
    pub trusted: Vec<Network>,
    /// Each connection begins with the PROXY protocol's header, version 1 or 2. One that comes from elsewhere, or begins
    /// otherwise, is closed.
    pub protocol: bool,
    /// The header that names a request's client: `"x-forwarded-for"`, `"forwarded"` (RFC 7239), `"off"`. It is read from the
    /// right, up to the first address that is not trusted.
    pub header: ForwardedHeader,
}

/// The header that names a request's client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum ForwardedHeader {
    #[default]
    XForwardedFor,
    Forwarded,
    Off,
}

/// Addresses, or one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network(pub IpNet);

impl<'de> Deserialize<'de> for Network {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let one = text.parse::<IpAddr>().map(IpNet::from);
        one.or_else(|_| text.parse())
            .map(Self)
            .map_err(|_| de::Error::custom(format!("{text:?} is no network: write \"10.0.0.0/8\", or an IP address")))
    }
}

impl Config {
    pub(super) fn check_proxy(&self, source: &Source<'_>) -> Result<(), ConfigError> {
        if self.proxy.protocol && self.proxy.trusted.is_empty() {
            let at = source.text.find("[proxy]").map(|at| at..at + 1);
            let what = "proxy.protocol: nobody could connect; name the balancers: trusted = [\"10.0.0.0/8\"]";
            return Err(source.error(at, what));
        }
        Ok(())
    }
}
