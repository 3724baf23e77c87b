//! What all sessions of this node share.

use std::sync::Arc;

use crate::client::Client;
use crate::hub::Hub;
use crate::kv::Kv;
use crate::metrics::Metrics;
use crate::presence::Presence;
use crate::redis::Redis;
use crate::registry::Registry;
use crate::route::TopicRules;
use crate::source::{Clock, Random};
use crate::tap::Tap;
use crate::upstream::Upstreams;

/// The node's state: topics, presence, values, sessions.
pub struct Node {
    pub hub: Arc<Hub>,
    pub presence: Presence,
    pub kv: Kv,
    pub registry: Registry,
    /// What other nodes share with this one.
    pub redis: Option<Arc<Redis>>,
    pub rules: TopicRules,
    pub upstreams: Upstreams,
    /// Requests of plugins to other servers.
    pub client: Client,
    pub metrics: Arc<Metrics>,
    pub clock: Clock,
    pub random: Random,
    /// Who is told of all that plugins do; nobody while the gateway serves.
    pub tap: Option<Arc<dyn Tap>>,
}
