//! `cargo xtask demo`: builds everything, runs the chat example and prints the links that open it.

use std::{
    io::ErrorKind,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context, Result, bail};

use crate::{
    gateway::{self, Gateway, Start},
    plugins, process, workspace,
};

pub(crate) struct Options {
    pub(crate) listen: SocketAddr,
    pub(crate) admin: SocketAddr,
    pub(crate) release: bool,
}

impl Default for Options {
    fn default() -> Self {
        let local = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        Self { listen: local(8080), admin: local(8081), release: false }
    }
}

pub(crate) const CONFIG: &str = "examples/chat/tidegate.toml";

pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    // Before the build, because that takes minutes the first time.
    let listen = free(options.listen, "demo --listen")?;
    let admin = free(options.admin, "demo --admin")?;

    println!("1/3  Building the gateway (the first time this takes some minutes) …");
    let binary = build_gateway(options.release)?;
    println!("2/3  Building the plugins …");
    plugins::build(&[])?;
    println!("3/3  Starting the chat example …");
    let mut command = tidegate(&binary, "run");
    command.args(["--listen", &listen.to_string(), "--admin", &admin.to_string()]);
    let mut gateway = Gateway::start(&mut command, admin)?;
    match gateway.wait_until_ready()? {
        Start::Ready => {}
        Start::Ended(status) => {
            eprintln!("\nThe gateway ended before it was ready ({status}); what it said is above.");
            return Ok(ExitCode::from(gateway::exit_code(status)));
        }
        Start::Late => {
            gateway.kill()?;
            bail!("the gateway does not answer http://{admin}/ready; what it said is above");
        }
    }
    if let Err(error) = print_links(&binary, reachable(listen), reachable(admin)) {
        gateway.kill()?;
        return Err(error);
    }
    Ok(ExitCode::from(gateway::exit_code(gateway.wait()?)))
}

pub(crate) fn build_gateway(release: bool) -> Result<PathBuf> {
    let mut build = workspace::cargo(&["build", "--package", "tidegate", "--bin", "tidegate"]);
    if release {
        build.arg("--release");
    }
    process::run(&mut build)?;
    Ok(workspace::target().join(if release { "release" } else { "debug" }).join("tidegate"))
}

fn tidegate(binary: &Path, command: &str) -> Command {
    let mut gateway = Command::new(binary);
    gateway.current_dir(workspace::root()).args([command, "--config", CONFIG]);
    gateway
}

fn print_links(binary: &Path, listen: SocketAddr, admin: SocketAddr) -> Result<()> {
    let link = |user: &str| -> Result<String> {
        let token = process::answer(tidegate(binary, "token").args(["--user", user, "--ttl", "12h"]))
            .with_context(|| format!("no token for {user} could be made"))?;
        Ok(format!("http://{listen}/#token={token}&room=lobby"))
    };
    let (alice, bob) = (link("alice")?, link("bob")?);
    println!(
        "
Tidegate runs the chat. Open these in two browser tabs:

  alice   {alice}

  bob     {bob}

To look inside:

  http://{admin}/ready     whether it takes clients
  http://{admin}/plugins   which plugins run, and their generations
  http://{admin}/metrics   numbers for Prometheus

To change what a message means while both stay connected: edit plugins/chat/src, then in another terminal

  cargo xtask plugins chat

Ctrl-c ends it.
"
    );
    Ok(())
}

/// The address, once it is known that nobody listens there. Port 0 becomes a free one.
pub(crate) fn free(address: SocketAddr, command: &str) -> Result<SocketAddr> {
    match TcpListener::bind(address) {
        Ok(listener) => Ok(listener.local_addr()?),
        Err(error) if error.kind() == ErrorKind::AddrInUse => {
            bail!(
                "{address} is in use by another program (perhaps another of these). Stop that, or choose another address: \
                 `cargo xtask {command} {}:0` takes any free port",
                host(address.ip())
            )
        }
        Err(error) => Err(error).with_context(|| format!("{command} {address}: this address cannot be listened on")),
    }
}

fn host(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("[{address}]"),
    }
}

/// Where a browser on this machine finds it: `0.0.0.0` is no address to connect to.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_told_with_a_way_out() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap().local_addr();
        let listener = TcpListener::bind(taken.unwrap()).unwrap();
        let error = free(listener.local_addr().unwrap(), "demo --listen").unwrap_err().to_string();
        assert!(error.contains("in use") && error.contains("cargo xtask demo --listen 127.0.0.1:0"), "{error}");
    }

    #[test]
    fn any_port_becomes_one_that_is_free() {
        let address = free("127.0.0.1:0".parse().unwrap(), "demo --admin").unwrap();
        assert_ne!(address.port(), 0);
    }

    #[test]
    fn links_lead_to_this_machine() {
        assert_eq!(reachable("0.0.0.0:8080".parse().unwrap()), "127.0.0.1:8080".parse().unwrap());
        assert_eq!(reachable("[::]:8080".parse().unwrap()), "[::1]:8080".parse().unwrap());
        assert_eq!(reachable("10.0.0.1:80".parse().unwrap()), "10.0.0.1:80".parse().unwrap());
    }
}
