//! The servers of a scale test: a Redis and the gateways on it, with a configuration as lean as many on one machine want it.

use std::{
    fs,
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};

use super::{Stop, census::Use, need::Need};
use crate::{
    cluster::{client, part::Part},
    gateway::is_ready,
    workspace,
};

const POLL: Duration = Duration::from_millis(20);
/// The first node compiles the plugin, beside others that start.
const READY_WITHIN: Duration = Duration::from_secs(120);
/// Nodes that start at a time.
const AT_ONCE: usize = 4;
/// Where subscribers go, and where publications come from: routes of the plugin `fanout`.
pub(super) const SUBSCRIBE: &str = "/sub";
pub(super) const PUBLISH: &str = "/pub";

pub(super) struct Servers {
    /// Ended in this order: gateways, then what they need.
    pub(super) nodes: Vec<Node>,
    pub(super) redis: Part,
}

pub(super) struct Node {
    pub(super) listen: SocketAddr,
    pub(super) part: Part,
    admin: SocketAddr,
}

/// What all gateways of the test share. Where it differs from the defaults, the reason stands beside it.
fn configuration(plugins: &Path, cache: &Path, redis: SocketAddr, sessions: u64) -> String {
    format!(
        r#"# Written by `cargo xtask scale`, for all of its nodes.
plugin_directory = "{plugins}"
cache_directory = "{cache}"
max_connections = {connections}

# All processes share a few processors and all clients come at once: what is a failure elsewhere is only slow here.
[redis]
url = "redis://{redis}"
timeout = "30s"
probe_timeout = "60s"
lease = "60s"

[[route]]
name = "sub"
path = "{SUBSCRIBE}"
plugins = ["fanout"]
limits = {{ sessions = {sessions} }}
# So that no ping falls into the measured time: clients answer them, and a million pings are a load of their own.
heartbeat = {{ interval = "1h" }}

[[route]]
name = "pub"
path = "{PUBLISH}"
plugins = ["fanout"]
heartbeat = {{ interval = "1h" }}

[plugin.fanout.limits]
instances = 4
memory = "4MiB"

[plugin.fanout.grants]
publish = ["fanout"]
subscribe = ["fanout"]
"#,
        plugins = plugins.display(),
        cache = cache.display(),
        connections = sessions + 200,
    )
}

/// An address on which nobody listens.
fn free() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

impl Servers {
    pub(super) fn start(need: &Need, gateway: &Path, redis: &Path, folder: &Path, stop: &Stop) -> Result<Self> {
        let address = free()?;
        let mut servers = Self { nodes: Vec::new(), redis: start_redis(redis, address, folder, stop)? };
        let config = folder.join("tidegate.toml");
        let text = configuration(&workspace::plugin_directory(), &folder.join("cache"), address, need.share(0) + 50);
        fs::write(&config, text).with_context(|| format!("{} cannot be written", config.display()))?;
        let nodes = usize::try_from(need.nodes)?;
        // The first one alone, for it compiles the plugin; the others find it in the cache.
        let mut waves = vec![1];
        waves.extend((1..nodes).step_by(AT_ONCE).map(|begun| AT_ONCE.min(nodes - begun)));
        for wave in waves {
            let begun = Instant::now();
            let first = servers.nodes.len();
            for _ in 0..wave {
                let node = Node::start(servers.nodes.len() + 1, gateway, &config, folder)?;
                servers.nodes.push(node);
            }
            for (index, node) in servers.nodes.iter_mut().enumerate().skip(first) {
                node.wait_until_ready(index + 1, begun, stop)?;
            }
        }
        Ok(servers)
    }

    pub(super) fn ids(&self) -> Vec<u32> {
        self.nodes.iter().map(|node| node.part.id()).collect()
    }

    pub(super) fn usage(&self) -> Result<(Use, Use)> {
        Ok((Use::of(&self.ids())?, Use::of(&[self.redis.id()])?))
    }

    /// The sum of a metric over all nodes.
    pub(super) fn count(&self, series: &str) -> Result<u64> {
        let mut sum = 0;
        for node in &self.nodes {
            let (_, text) = client::get(node.admin, "/metrics").context("a node does not tell its metrics")?;
            let lines = text.lines().filter_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
            sum += lines.filter_map(|number| number.parse::<u64>().ok()).sum::<u64>();
        }
        Ok(sum)
    }

    /// An error when one of them has ended.
    pub(super) fn must_run(&mut self) -> Result<()> {
        self.redis.must_run()?;
        self.nodes.iter_mut().try_for_each(|node| node.part.must_run())
    }

    /// Without goodbyes: a drain of each would take its time, and nobody is left to hear it.
    pub(super) fn kill(&mut self) {
        for node in &self.nodes {
            node.part.signal(rustix::process::Signal::KILL);
        }
        self.nodes.clear();
        let _ = self.redis.kill();
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Node {
    fn start(number: usize, gateway: &Path, config: &Path, folder: &Path) -> Result<Self> {
        let (listen, admin) = (free()?, free()?);
        let mut command = mortal(gateway);
        // One thread each: there are more processes than processors.
        command.env("TOKIO_WORKER_THREADS", "1").env("RUST_LOG", "warn");
        command.arg("run").arg("--config").arg(config);
        command.args(["--listen", &listen.to_string(), "--admin", &admin.to_string()]);
        command.args(["--advertise", &format!("ws://{listen}")]);
        Ok(Self { listen, part: Part::start(&format!("node-{number}"), &mut command, folder)?, admin })
    }

    fn wait_until_ready(&mut self, number: usize, begun: Instant, stop: &Stop) -> Result<()> {
        while !is_ready(self.admin) {
            self.part.must_run()?;
            stop.look()?;
            if begun.elapsed() > READY_WITHIN {
                bail!("node {number} is not ready after {READY_WITHIN:?}; it says:\n{}", self.part.tail());
            }
            thread::sleep(POLL);
        }
        Ok(())
    }
}

/// A program that ends with us even if we are killed, where util-linux has the means.
fn mortal(program: &Path) -> Command {
    match workspace::which("setpriv") {
        Some(setpriv) => {
            let mut command = Command::new(setpriv);
            command.args(["--pdeathsig", "KILL"]).arg(program);
            command
        }
        None => Command::new(program),
    }
}

fn start_redis(program: &Path, address: SocketAddr, folder: &Path, stop: &Stop) -> Result<Part> {
    let mut command = mortal(program);
    command.args(["--port", &address.port().to_string(), "--bind", "127.0.0.1"]);
    // Nothing of it is to outlive the test.
    command.args(["--save", "", "--appendonly", "no", "--dir"]).arg(folder);
    let mut part = Part::start("redis", &mut command, folder)?;
    let begun = Instant::now();
    while TcpStream::connect(address).is_err() {
        part.must_run()?;
        stop.look()?;
        ensure!(
            begun.elapsed() < Duration::from_secs(10),
            "Redis does not listen on {address}; it says:\n{}",
            part.tail()
        );
        thread::sleep(POLL);
    }
    Ok(part)
}

/// A folder of its own, without what an earlier test has left.
pub(super) fn folder() -> Result<PathBuf> {
    let folder = workspace::target().join("scale");
    fs::create_dir_all(&folder).with_context(|| format!("{} cannot be made", folder.display()))?;
    for entry in fs::read_dir(&folder)?.flatten().filter(|entry| entry.path().extension() == Some("log".as_ref())) {
        fs::remove_file(entry.path())?;
    }
    Ok(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_has_room_for_the_sessions() {
        let redis = "127.0.0.1:7000".parse().unwrap();
        let text = configuration(Path::new("/plugins"), Path::new("/cache"), redis, 19_000);
        for line in ["max_connections = 19200", "limits = { sessions = 19000 }", "url = \"redis://127.0.0.1:7000\""] {
            assert!(text.contains(line), "{line} is not in {text}");
        }
    }
}
