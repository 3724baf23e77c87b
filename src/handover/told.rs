//! Serves until somebody says that it is enough, or another process has taken over.

use std::pin::pin;
use std::time::Duration;

use tokio::sync::mpsc::Receiver;
use tokio::sync::oneshot;

use super::{Program, Sockets, hand_over};
use crate::metrics::Metrics;

/// Somebody wants an upgrade, and waits to hear what came of it: the new process, or why there is none.
pub type Ask = oneshot::Sender<Result<u32, String>>;

/// What an upgrade is made of.
pub struct Upgrade<'a> {
    pub program: &'a Program,
    pub sockets: Sockets,
    pub timeout: Duration,
    pub metrics: &'a Metrics,
}

/// Waits until this process is to leave. Says which one has taken over, if one has. An upgrade that fails is logged and
/// forgotten.
pub async fn until_told(
    upgrade: Upgrade<'_>,
    stop: &mut Receiver<()>,
    signals: &mut Receiver<()>,
    asks: &mut Receiver<Ask>,
) -> Option<u32> {
    loop {
        let ask = tokio::select! {
            _ = stop.recv() => return None,
            Some(()) = signals.recv() => None,
            Some(ask) = asks.recv() => Some(ask),
        };
        let mut attempt = pin!(hand_over(upgrade.program, &upgrade.sockets, upgrade.timeout));
        let outcome = loop {
            tokio::select! {
                // With the attempt, what it has started is gone.
                _ = stop.recv() => return None,
                Some(()) = signals.recv() => tracing::warn!("an upgrade is under way already"),
                Some(other) = asks.recv() => drop(other.send(Err("an upgrade is under way already".to_owned()))),
                outcome = &mut attempt => break outcome,
            }
        };
        let outcome = outcome.map_err(|error| format!("{error:#}"));
        if let Err(why) = &outcome {
            upgrade.metrics.upgrades_failed.inc();
            tracing::error!(why, "the upgrade has failed: this process goes on as before");
        }
        let replaced = outcome.as_ref().ok().copied();
        if let Some(ask) = ask {
            let _ = ask.send(outcome);
        }
        if replaced.is_some() {
            return replaced;
        }
    }
}
