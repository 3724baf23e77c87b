//! Where a command goes: to the server that owns the slot of its first key, and on to where that one sends it.

use std::time::Duration;

use redis::{Cmd, Value};
use tokio::time::Instant;

use super::commands::{Failed, Why};
use super::link::Link;
use super::slots::Address;
use super::{Fault, Redis, Script};

/// Between two attempts, while a slot is on its way or servers disagree about it.
const PAUSE: Duration = Duration::from_millis(10);

impl Redis {
    /// Sends one command, whose first argument is its key, and waits for its answer no longer than is configured.
    pub async fn query(&self, command: &Cmd) -> Result<Value, Fault> {
        let key = command.args_iter().nth(1);
        let key = match &key {
            Some(redis::Arg::Simple(key)) => key,
            _ => &b""[..],
        };
        self.send(key, command).await.map_err(|failed| failed.fault)
    }

    /// Runs a script, which the server has unless it is new. All keys are in the slot of the first.
    pub async fn invoke(&self, script: &Script, keys: &[&str], arguments: &[&[u8]]) -> Result<Value, Fault> {
        let first = keys.first().map_or(&b""[..], |key| key.as_bytes());
        match self.send(first, &script.command(false, keys, arguments)).await {
            // Nothing was done. The server is new, or was told to forget its scripts.
            Err(Failed { why: Why::NoScript, .. }) => {
                self.send(first, &script.command(true, keys, arguments)).await.map_err(|failed| failed.fault)
            }
            other => other.map_err(|failed| failed.fault),
        }
    }

    /// The same on this server alone, wherever the keys are.
    pub(super) async fn invoke_on(
        &self,
        link: &Link,
        script: &Script,
        key: &str,
        arguments: &[&[u8]],
    ) -> Result<Value, Failed> {
        let timeout = self.config.timeout.0;
        match link.commands.send(&script.command(false, &[key], arguments), false, timeout).await {
            Err(Failed { why: Why::NoScript, .. }) => {
                link.commands.send(&script.command(true, &[key], arguments), false, timeout).await
            }
            other => other,
        }
    }

    /// Publishes to the subscribers of a channel, on all nodes.
    pub async fn publish(&self, channel: &str, payload: &[u8]) -> Result<Value, Fault> {
        self.query(redis::cmd(self.publish_command()).arg(channel).arg(payload)).await
    }

    /// What scripts publish with: in a Cluster a channel belongs to the server of its slot.
    pub fn publish_command(&self) -> &'static str {
        if self.links.read().is_cluster() { "SPUBLISH" } else { "PUBLISH" }
    }

    /// Follows redirections, and waits while a slot is on its way, within the time of one command.
    async fn send(&self, key: &[u8], command: &Cmd) -> Result<Value, Failed> {
        let (mut link, is_cluster) = {
            let links = self.links.read();
            (links.owner(key).clone(), links.is_cluster())
        };
        if !is_cluster {
            return link.commands.send(command, false, self.config.timeout.0).await;
        }
        let deadline = Instant::now() + self.config.timeout.0;
        let mut asking = false;
        let mut sent_on = false;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let failed = match link.commands.send(command, asking, left).await {
                Ok(answer) => return Ok(answer),
                Err(failed) => failed,
            };
            let to = match &failed.why {
                Why::Moved(to) | Why::Ask(to) => Some(to),
                Why::TryAgain => None,
                Why::Down => {
                    self.look_again();
                    return Err(failed);
                }
                Why::NoScript => return Err(failed),
                Why::Other => {
                    if !matches!(failed.fault, Fault::Refused(_)) {
                        self.look_again();
                    }
                    return Err(failed);
                }
            };
            // Servers that send it to and fro are given time to agree.
            if std::mem::replace(&mut sent_on, true) || to.is_none() {
                tokio::time::sleep(PAUSE).await;
            }
            if Instant::now() >= deadline {
                return Err(failed);
            }
            self.metrics.redis_redirections.inc();
            asking = matches!(failed.why, Why::Ask(_));
            let next = to.and_then(|to| Address::parse(to, link.address.as_ref().map_or("", |at| &at.host)));
            link = match next {
                Some(next) => self.reach(&next, deadline).await.ok_or(failed)?,
                None => self.links.read().owner(key).clone(),
            };
        }
    }
}
