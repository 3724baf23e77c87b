//! `tidegate upgrade`: has a running gateway replaced by the program that lies in its place now.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;

use super::ConfigArgs;
use crate::config::Secret;

/// Beyond the gateway's own `upgrade_timeout`.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Args)]
pub struct Upgrade {
    #[command(flatten)]
    config: ConfigArgs,
    /// The gateway's admin address, instead of the configuration's `admin`
    #[arg(long, value_name = "ADDRESS")]
    admin: Option<SocketAddr>,
}

impl Upgrade {
    pub fn run(self) -> anyhow::Result<()> {
        let config = self.config.load()?;
        let admin = reachable(self.admin.unwrap_or(config.admin));
        let token = config.admin_token.as_ref().map(Secret::text);
        let (status, body) = post(admin, "/upgrade", token, config.upgrade_timeout.0 + PATIENCE)
            .with_context(|| format!("no answer from a gateway's admin address {admin}: say which one with --admin"))?;
        if status != 200 {
            bail!("{admin}: not upgraded: {}", body.trim());
        }
        let process = serde_json::from_str::<serde_json::Value>(&body).unwrap_or_default();
        say!("upgraded: process {} serves, and the one before lets its clients go", process["process"]);
        Ok(())
    }
}

/// An address that stands for all of this machine's is asked on loopback.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    address
}

/// Status and body of the answer.
fn post(address: SocketAddr, path: &str, token: Option<&str>, patience: Duration) -> anyhow::Result<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(patience))?;
    let shown = token.map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
    let head =
        format!("POST {path} HTTP/1.1\r\nHost: {address}\r\n{shown}Content-Length: 0\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("what answers there speaks no HTTP")?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    Ok((status.context("what answers there speaks no HTTP")?, body.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_for_all_is_asked_on_loopback() {
        for (given, asked) in [("0.0.0.0:8081", "127.0.0.1:8081"), ("[::]:1", "[::1]:1"), ("10.0.0.1:2", "10.0.0.1:2")]
        {
            assert_eq!(reachable(given.parse().unwrap()), asked.parse().unwrap());
        }
    }
}
