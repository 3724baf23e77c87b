//! One server that takes writes: the one that there is, or a master of a Cluster. It has a connection for commands, one for
//! subscriptions, and a probe through both.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::commands::Commands;
use super::probe::Probes;
use super::slots::Address;
use super::subscriptions::Subscriptions;
use crate::metrics::Metrics;

pub(super) struct Link {
    /// No other link has it, nor had.
    pub number: u64,
    /// Of a master of a Cluster. None: where the configuration leads.
    pub address: Option<Address>,
    pub commands: Commands,
    pub subscriptions: Subscriptions,
    pub probes: Probes,
    /// What carries the probe: a channel in one of its slots, and a key of the same name. None: it has no slots.
    pub probe: Mutex<Option<Arc<str>>>,
    /// Both connections are there anew.
    pub connected: Notify,
}

impl Link {
    pub fn new(number: u64, address: Option<Address>, metrics: Arc<Metrics>) -> Self {
        Self {
            number,
            address,
            commands: Commands::new(metrics),
            subscriptions: Subscriptions::default(),
            probes: Probes::default(),
            probe: Mutex::default(),
            connected: Notify::new(),
        }
    }

    /// The address for the log, where there is more than one.
    pub fn shard(&self) -> Option<String> {
        self.address.as_ref().map(Address::to_string)
    }
}
