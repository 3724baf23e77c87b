//! The connection for commands to one server: made anew when it breaks, and nothing waits for it longer than it may.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use redis::aio::MultiplexedConnection;
use redis::{Cmd, ErrorKind, PushInfo, PushKind, RedisError, ServerErrorKind, Value};
use sha1::{Digest, Sha1};
use tokio::sync::watch;

use super::backoff::Backoff;
use super::link::Link;
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

    pub(super) fn command(&self, whole: bool, keys: &[&str], arguments: &[&[u8]]) -> Cmd {
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

/// Why a command has no answer, for whoever may try again.
#[derive(Debug)]
pub(super) struct Failed {
    pub fault: Fault,
    pub why: Why,
}

/// What the server has said, as far as it matters where a command goes next. Nothing was done by any of these.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// The script is not known there.
    NoScript,
    /// The slot is that server's, `HOST:PORT`.
    Moved(String),
    /// The slot is about to be that server's, and the key is there already.
    Ask(String),
    /// The slot is on its way, and some of the keys are.
    TryAgain,
    /// The Cluster serves nothing, or not this slot.
    Down,
    Other,
}

pub(super) struct Commands {
    current: ArcSwapOption<Current>,
    metrics: Arc<Metrics>,
    /// The number of the connection that must be given up.
    given_up: watch::Sender<u64>,
    next: AtomicU64,
}

struct Current {
    connection: MultiplexedConnection,
    number: u64,
}

impl Commands {
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self { current: ArcSwapOption::empty(), metrics, given_up: watch::Sender::new(0), next: AtomicU64::new(1) }
    }

    pub fn is_connected(&self) -> bool {
        self.current.load().is_some()
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

    /// Sends a command, and waits for its answer no longer than this. `asking` takes it to a server that does not own the
    /// slot yet.
    pub async fn send(&self, command: &Cmd, asking: bool, timeout: Duration) -> Result<Value, Failed> {
        let failed = |fault| Failed { fault, why: Why::Other };
        let Some(current) = self.current.load_full() else { return Err(failed(Fault::Gone)) };
        let mut connection = current.connection.clone();
        let answer = match asking {
            false => tokio::time::timeout(timeout, connection.send_packed_command(command)).await,
            true => {
                let mut both = redis::pipe();
                both.cmd("ASKING").add_command(command.clone());
                let sent = Box::pin(connection.send_packed_commands(&both, 1, 1));
                let answer = tokio::time::timeout(timeout, sent).await;
                answer.map(|answer| answer.map(|mut answers| answers.pop().unwrap_or(Value::Nil)))
            }
        };
        let error = match answer {
            Ok(Ok(Value::ServerError(error))) => RedisError::from(error),
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(error)) => error,
            Err(_) => {
                self.metrics.redis_timeouts.inc();
                return Err(failed(Fault::Timeout));
            }
        };
        if let Some(why) = redirection(&error) {
            return Err(Failed { fault: Fault::Gone, why });
        }
        Err(match error.kind() {
            // Nothing was done, and another server must be found.
            ErrorKind::Server(
                ServerErrorKind::ReadOnly | ServerErrorKind::BusyLoading | ServerErrorKind::MasterDown,
            ) => {
                self.give_up_number(current.number);
                failed(Fault::Gone)
            }
            ErrorKind::Server(ServerErrorKind::NoScript) => {
                Failed { fault: Fault::Refused(error.to_string()), why: Why::NoScript }
            }
            ErrorKind::Server(_) | ErrorKind::Extension => failed(Fault::Refused(error.to_string())),
            _ if error.is_timeout() => {
                self.metrics.redis_timeouts.inc();
                failed(Fault::Timeout)
            }
            _ => {
                self.give_up_number(current.number);
                failed(Fault::Broken)
            }
        })
    }
}

fn redirection(error: &RedisError) -> Option<Why> {
    let to = || error.redirect_node().map(|(to, _)| to.to_owned());
    match error.kind() {
        ErrorKind::Server(ServerErrorKind::Moved) => to().map(Why::Moved),
        ErrorKind::Server(ServerErrorKind::Ask) => to().map(Why::Ask),
        ErrorKind::Server(ServerErrorKind::TryAgain) => Some(Why::TryAgain),
        ErrorKind::Server(ServerErrorKind::ClusterDown) => Some(Why::Down),
        _ => None,
    }
}

impl Redis {
    /// Connects whenever there is no connection, for as long as the server is one of ours.
    pub(super) async fn keep_commands(self: Arc<Self>, link: Arc<Link>, intake: Arc<dyn Intake>) {
        let commands = &link.commands;
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
            match self.servers.connect(link.address.as_ref(), pushed).await {
                Ok(connection) => {
                    self.health.commands(&link, true, backoff.failed());
                    backoff.reset();
                    commands.current.store(Some(Arc::new(Current { connection, number })));
                    self.changed();
                    intake.back(&link.subscriptions.wanted());
                    // The sender lives as long as this task.
                    let _ = given_up.wait_for(|given_up| *given_up >= number).await;
                    commands.current.store(None);
                    self.metrics.redis_reconnects.with_label_values(&["commands"]).inc();
                    self.health.lost(&link, "commands", None);
                }
                Err(error) => self.health.lost(&link, "commands", Some((&error, backoff.failed()))),
            }
            self.health.commands(&link, false, 0);
            self.look_again();
            tokio::time::sleep(self.pause(&mut backoff)).await;
        }
    }
}
