//! The connection for commands: made anew when it breaks, and nothing waits for it longer than is configured.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use redis::aio::MultiplexedConnection;
use redis::{Cmd, ErrorKind, PushInfo, PushKind, RedisError, ServerErrorKind, Value};
use sha1::{Digest, Sha1};
use tokio::sync::watch;

use super::backoff::Backoff;
use super::{Intake, Redis};
use crate::metrics::Metrics;

/// Why a command has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error("Redis cannot be reached")]
    Gone,
    /// It may have been done.
    #[error("Redis has not answered in time")]
    Timeout,
    /// It may have been done.
    #[error("the connection to Redis broke")]
    Broken,
    #[error("Redis refuses: {0}")]
    Refused(String),
}

/// A script, with the hash that the server knows it by.
pub struct Script {
    text: &'static str,
    hash: String,
}

impl Script {
    pub fn new(text: &'static str) -> Self {
        let hash = Sha1::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
        Self { text, hash }
    }

    fn command(&self, whole: bool, keys: &[&str], arguments: &[&[u8]]) -> Cmd {
        let mut command = match whole {
            true => redis::cmd("EVAL").arg(self.text).to_owned(),
            false => redis::cmd("EVALSHA").arg(&self.hash).to_owned(),
        };
        command.arg(keys.len());
        for key in keys {
            command.arg(*key);
        }
        for argument in arguments {
            command.arg(*argument);
        }
        command
    }
}

pub(super) struct Commands {
    current: ArcSwapOption<Current>,
    timeout: Duration,
    metrics: Arc<Metrics>,
    /// The number of the connection that must be given up.
    given_up: watch::Sender<u64>,
    connected: watch::Sender<bool>,
    next: AtomicU64,
}

struct Current {
    connection: MultiplexedConnection,
    number: u64,
}

impl Commands {
    pub fn new(timeout: Duration, metrics: Arc<Metrics>) -> Self {
        Self {
            current: ArcSwapOption::empty(),
            timeout,
            metrics,
            given_up: watch::Sender::new(0),
            connected: watch::Sender::new(false),
            next: AtomicU64::new(1),
        }
    }

    pub fn is_connected(&self) -> bool {
        self.current.load().is_some()
    }

    pub async fn connected(&self) {
        // The sender lives as long as this value.
        let _ = self.connected.subscribe().wait_for(|connected| *connected).await;
    }

    /// Gives up the connection that serves now.
    pub fn give_up(&self) {
        if let Some(current) = &*self.current.load() {
            self.give_up_number(current.number);
        }
    }

    fn give_up_number(&self, number: u64) {
        self.given_up.send_modify(|given_up| *given_up = number.max(*given_up));
    }

    pub async fn query(&self, command: &Cmd) -> Result<Value, Fault> {
        self.send(command).await.map_err(|(fault, _)| fault)
    }

    pub async fn invoke(&self, script: &Script, keys: &[&str], arguments: &[&[u8]]) -> Result<Value, Fault> {
        match self.send(&script.command(false, keys, arguments)).await {
            // Nothing was done. The server is new, or was told to forget its scripts.
            Err((_, Some(ServerErrorKind::NoScript))) => {
                self.send(&script.command(true, keys, arguments)).await.map_err(|(fault, _)| fault)
            }
            other => other.map_err(|(fault, _)| fault),
        }
    }

    async fn send(&self, command: &Cmd) -> Result<Value, (Fault, Option<ServerErrorKind>)> {
        let Some(current) = self.current.load_full() else { return Err((Fault::Gone, None)) };
        let mut connection = current.connection.clone();
        let answer = tokio::time::timeout(self.timeout, connection.send_packed_command(command)).await;
        let error = match answer {
            Ok(Ok(Value::ServerError(error))) => RedisError::from(error),
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(error)) => error,
            Err(_) => {
                self.metrics.redis_timeouts.inc();
                return Err((Fault::Timeout, None));
            }
        };
        Err(match error.kind() {
            // Nothing was done, and another server must be found.
            ErrorKind::Server(
                kind @ (ServerErrorKind::ReadOnly | ServerErrorKind::BusyLoading | ServerErrorKind::MasterDown),
            ) => {
                self.give_up_number(current.number);
                (Fault::Gone, Some(kind))
            }
            ErrorKind::Server(kind) => (Fault::Refused(error.to_string()), Some(kind)),
            _ if error.is_timeout() => {
                self.metrics.redis_timeouts.inc();
                (Fault::Timeout, None)
            }
            ErrorKind::Extension => (Fault::Refused(error.to_string()), None),
            _ => {
                self.give_up_number(current.number);
                (Fault::Broken, None)
            }
        })
    }
}

impl Redis {
    /// Connects whenever there is no connection, for ever.
    pub(super) async fn keep_commands(self: Arc<Self>, intake: Arc<dyn Intake>) {
        let commands = &self.commands;
        let mut given_up = commands.given_up.subscribe();
        let mut backoff = Backoff::default();
        loop {
            let number = commands.next.fetch_add(1, Ordering::Relaxed);
            let ended = commands.given_up.clone();
            let pushed = move |info: PushInfo| {
                if info.kind == PushKind::Disconnection {
                    ended.send_modify(|given_up| *given_up = number.max(*given_up));
                }
                Ok::<_, ()>(())
            };
            match self.servers.connect(pushed).await {
                Ok(connection) => {
                    self.health.commands(true, backoff.failed());
                    backoff.reset();
                    commands.current.store(Some(Arc::new(Current { connection, number })));
                    commands.connected.send_replace(true);
                    intake.back();
                    // The sender lives as long as this task.
                    let _ = given_up.wait_for(|given_up| *given_up >= number).await;
                    commands.connected.send_replace(false);
                    commands.current.store(None);
                    self.metrics.redis_reconnects.with_label_values(&["commands"]).inc();
                    self.health.lost("commands", None);
                }
                Err(error) => self.health.lost("commands", Some((&error, backoff.failed()))),
            }
            self.health.commands(false, 0);
            let random = self.random.number().unwrap_or_default();
            tokio::time::sleep(backoff.next(self.config.backoff.0, random)).await;
        }
    }
}
