//! Where Redis is: at one address, where the Sentinels say that the master is, or spread over the masters of a Cluster.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, bail};
use redis::aio::{AsyncPushSender, MultiplexedConnection};
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, ProtocolVersion, Value,
};

use super::slots::{Address, Topology, text_of};
use crate::config::{RedisConfig, without_password};

/// Requests that may wait to be written before callers wait.
const PIPELINE: usize = 1_024;

/// The addresses of the configuration.
pub struct Servers {
    /// Of the server, or of the Sentinels, in the order in which they are asked.
    infos: Vec<ConnectionInfo>,
    shown: Vec<String>,
    master: Option<String>,
    username: Option<String>,
    password: Option<String>,
    connect_timeout: Duration,
    timeout: Duration,
    /// The address that answered last.
    first: AtomicUsize,
    /// A server that was thought to stand alone is part of a Cluster.
    is_cluster: AtomicBool,
}

/// What stands behind the addresses.
pub enum Found {
    /// One server, or the master of those that Sentinels watch.
    One,
    Cluster(Topology),
}

impl Servers {
    pub fn new(config: &RedisConfig) -> anyhow::Result<Self> {
        let info = |url: &String| {
            // The library's own words may quote the address, password included.
            let info = url.as_str().into_connection_info().ok();
            info.with_context(|| format!("redis.url: {:?} is not an address", without_password(url)))
        };
        Ok(Self {
            infos: config.url.0.iter().map(info).collect::<Result<_, _>>()?,
            shown: config.url.0.iter().map(|url| without_password(url)).collect(),
            master: config.master.clone(),
            username: config.username.clone(),
            password: config.password.as_ref().map(|secret| secret.text().to_owned()),
            connect_timeout: config.connect_timeout.0,
            timeout: config.timeout.0,
            first: AtomicUsize::new(0),
            is_cluster: AtomicBool::new(false),
        })
    }

    /// Asks what stands behind the addresses: first those of a Cluster that are known already, then the configured ones.
    pub async fn discover(&self, known: &[Address]) -> anyhow::Result<Found> {
        if self.master.is_some() {
            return Ok(Found::One);
        }
        let known = known.iter().map(|address| (address.to_string(), self.at(address)));
        let configured = self.shown.iter().cloned().zip(self.infos.iter().cloned());
        let mut failed = Vec::new();
        for (shown, info) in known.chain(configured) {
            match self.ask(info).await {
                Ok(found) => return Ok(found),
                Err(error) => failed.push(format!("{shown}: {error}")),
            }
        }
        bail!("{}", failed.join("; "))
    }

    async fn ask(&self, info: ConnectionInfo) -> anyhow::Result<Found> {
        let asked = match info.addr() {
            ConnectionAddr::Tcp(host, _) | ConnectionAddr::TcpTls { host, .. } => host.clone(),
            _ => String::new(),
        };
        let mut connection = self.open(self.signed_in(info), self.settings()).await?;
        let info = connection.send_packed_command(redis::cmd("CLUSTER").arg("INFO")).await?;
        if let Value::ServerError(error) = &info {
            // A user who may not ask this is told by what it answers to the rest.
            return match error.code() {
                "NOPERM" => bail!("the user of Redis may not ask CLUSTER INFO: allow it"),
                _ => Ok(Found::One),
            };
        }
        let slots = connection.send_packed_command(redis::cmd("CLUSTER").arg("SLOTS")).await?;
        if let Value::ServerError(error) = slots {
            bail!("the server does not answer CLUSTER SLOTS: {error}");
        }
        let topology = Topology::read(&slots, &info, &asked).context("CLUSTER SLOTS cannot be read")?;
        if topology.ranges.is_empty() {
            bail!("this Cluster serves no slots yet: see `redis-cli --cluster check`");
        }
        self.is_cluster.store(false, Ordering::Relaxed);
        Ok(Found::Cluster(topology))
    }

    /// Whether a server that was thought to stand alone has said that it is part of a Cluster.
    pub fn is_cluster(&self) -> bool {
        self.is_cluster.load(Ordering::Relaxed)
    }

    /// Connects to this master of a Cluster, or without an address to whoever takes writes now. `pushed` is told what the
    /// server sends unasked, and of the connection's end.
    pub async fn connect(
        &self,
        to: Option<&Address>,
        pushed: impl AsyncPushSender,
    ) -> anyhow::Result<MultiplexedConnection> {
        let pushed: Arc<dyn AsyncPushSender> = Arc::new(pushed);
        if let Some(address) = to {
            let connected = self.connect_to(self.at(address), true, pushed).await;
            return connected.with_context(|| address.to_string());
        }
        let count = self.infos.len();
        let first = self.first.load(Ordering::Relaxed);
        let mut failed = Vec::new();
        for place in (0..count).map(|step| (first + step) % count) {
            match self.connect_by(place, pushed.clone()).await {
                Ok(connection) => {
                    self.first.store(place, Ordering::Relaxed);
                    return Ok(connection);
                }
                Err(error) => failed.push(format!("{}: {error}", self.shown[place])),
            }
        }
        bail!("{}", failed.join("; "))
    }

    async fn connect_by(
        &self,
        place: usize,
        pushed: Arc<dyn AsyncPushSender>,
    ) -> anyhow::Result<MultiplexedConnection> {
        let info = match &self.master {
            Some(master) => self.ask_sentinel(&self.infos[place], master).await?,
            None => self.infos[place].clone(),
        };
        self.connect_to(info, false, pushed).await
    }

    async fn connect_to(
        &self,
        info: ConnectionInfo,
        in_cluster: bool,
        pushed: Arc<dyn AsyncPushSender>,
    ) -> anyhow::Result<MultiplexedConnection> {
        let config = self.settings().set_pipeline_buffer_size(PIPELINE).set_push_sender(pushed);
        let mut connection = self.open(self.signed_in(info), config).await?;
        let role = connection.send_packed_command(&redis::cmd("ROLE")).await?;
        let cluster = connection.send_packed_command(redis::cmd("CLUSTER").arg("INFO")).await;
        match (cluster.is_ok_and(|answer| !matches!(answer, Value::ServerError(_))), in_cluster) {
            (true, false) if self.master.is_some() => {
                bail!("this server is part of a Redis Cluster: leave redis.master out")
            }
            (true, false) => {
                self.is_cluster.store(true, Ordering::Relaxed);
                bail!("this server is part of a Redis Cluster");
            }
            (false, true) => bail!("this server is no part of a Redis Cluster any more"),
            _ => {}
        }
        match role_of(&role).as_deref() {
            Some("master") => Ok(connection),
            Some("sentinel") => bail!("this is a Sentinel: name the master that it watches, redis.master"),
            Some(role) => bail!("this server is a {role} and takes no writes"),
            None => bail!("the server does not say what it is"),
        }
    }

    async fn open(&self, info: ConnectionInfo, config: AsyncConnectionConfig) -> anyhow::Result<MultiplexedConnection> {
        let redis = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3).set_skip_set_lib_name();
        let client = Client::open(info.set_redis_settings(redis))?;
        let connecting = client.get_multiplexed_async_connection_with_config(&config);
        Ok(tokio::time::timeout(self.connect_timeout, connecting).await.context("no greeting in time")??)
    }

    /// A server of the Cluster, reached as the first configured one is.
    fn at(&self, address: &Address) -> ConnectionInfo {
        let Address { host, port } = address.clone();
        moved(&self.infos[0], host, port)
    }

    /// Where the master is, by what this Sentinel knows.
    async fn ask_sentinel(&self, sentinel: &ConnectionInfo, master: &str) -> anyhow::Result<ConnectionInfo> {
        let redis =
            sentinel.redis_settings().clone().set_protocol(ProtocolVersion::RESP2).set_skip_set_lib_name().set_db(0);
        let client = Client::open(sentinel.clone().set_redis_settings(redis))?;
        let settings = self.settings();
        let asking = async {
            let mut connection = client.get_multiplexed_async_connection_with_config(&settings).await?;
            let ask = redis::cmd("SENTINEL").arg("get-master-addr-by-name").arg(master).to_owned();
            connection.send_packed_command(&ask).await
        };
        let answer = tokio::time::timeout(self.connect_timeout, asking).await.context("no answer in time")??;
        let Value::Array(parts) = answer else { bail!("this Sentinel knows no master with the name {master:?}") };
        let text = |part: Option<&Value>| part.and_then(text_of);
        let (Some(host), Some(port)) = (text(parts.first()), text(parts.get(1)).and_then(|port| port.parse().ok()))
        else {
            bail!("this Sentinel's answer is not an address");
        };
        let redis = redis::RedisConnectionInfo::default().set_db(sentinel.redis_settings().db());
        Ok(moved(&sentinel.clone().set_redis_settings(redis), host, port))
    }

    fn signed_in(&self, info: ConnectionInfo) -> ConnectionInfo {
        let mut redis = info.redis_settings().clone();
        if let (Some(username), None) = (&self.username, redis.username()) {
            redis = redis.set_username(username);
        }
        if let (Some(password), None) = (&self.password, redis.password()) {
            redis = redis.set_password(password);
        }
        info.set_redis_settings(redis)
    }

    fn settings(&self) -> AsyncConnectionConfig {
        AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.connect_timeout))
            .set_response_timeout(Some(self.timeout))
    }
}

fn role_of(answer: &Value) -> Option<String> {
    match answer {
        Value::Array(parts) => parts.first().and_then(text_of),
        _ => None,
    }
}

/// The same connection to another address.
fn moved(info: &ConnectionInfo, host: String, port: u16) -> ConnectionInfo {
    let address = match info.addr() {
        ConnectionAddr::TcpTls { insecure, tls_params, .. } => {
            ConnectionAddr::TcpTls { host, port, insecure: *insecure, tls_params: tls_params.clone() }
        }
        _ => ConnectionAddr::Tcp(host, port),
    };
    info.clone().set_addr(address)
}
