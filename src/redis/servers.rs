//! Where Redis is: at one address, or where the Sentinels say that the master is.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, bail};
use redis::aio::{AsyncPushSender, MultiplexedConnection};
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, ProtocolVersion, Value,
};

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
        })
    }

    /// Connects to whoever takes writes now. `pushed` is told what the server sends unasked, and of the connection's end.
    pub async fn connect(&self, pushed: impl AsyncPushSender) -> anyhow::Result<MultiplexedConnection> {
        let pushed: std::sync::Arc<dyn AsyncPushSender> = std::sync::Arc::new(pushed);
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
        pushed: std::sync::Arc<dyn AsyncPushSender>,
    ) -> anyhow::Result<MultiplexedConnection> {
        let info = match &self.master {
            Some(master) => self.ask_sentinel(&self.infos[place], master).await?,
            None => self.signed_in(self.infos[place].clone()),
        };
        let redis = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3).set_skip_set_lib_name();
        let client = Client::open(info.set_redis_settings(redis))?;
        let config = self.settings().set_pipeline_buffer_size(PIPELINE).set_push_sender(pushed);
        let connecting = client.get_multiplexed_async_connection_with_config(&config);
        let mut connection =
            tokio::time::timeout(self.connect_timeout, connecting).await.context("no greeting in time")??;
        let role = connection.send_packed_command(&redis::cmd("ROLE")).await?;
        let cluster = connection.send_packed_command(redis::cmd("CLUSTER").arg("INFO")).await;
        if cluster.is_ok_and(|answer| !matches!(answer, Value::ServerError(_))) {
            bail!(
                "this server is part of a Redis Cluster, which this version cannot use: give a server that stands alone"
            );
        }
        match role_of(&role).as_deref() {
            Some("master") => Ok(connection),
            Some("sentinel") => bail!("this is a Sentinel: name the master that it watches, redis.master"),
            Some(role) => bail!("this server is a {role} and takes no writes"),
            None => bail!("the server does not say what it is"),
        }
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
        let address = match sentinel.addr() {
            ConnectionAddr::TcpTls { insecure, tls_params, .. } => {
                ConnectionAddr::TcpTls { host, port, insecure: *insecure, tls_params: tls_params.clone() }
            }
            _ => ConnectionAddr::Tcp(host, port),
        };
        let redis = redis::RedisConnectionInfo::default().set_db(sentinel.redis_settings().db());
        Ok(self.signed_in(sentinel.clone().set_addr(address).set_redis_settings(redis)))
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

fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::BulkString(bytes) => String::from_utf8(bytes.clone()).ok(),
        Value::SimpleString(text) => Some(text.clone()),
        _ => None,
    }
}
