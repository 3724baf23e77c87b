//! A route at run time: its limits, its topics' rules, and the handles of what is counted on it.

use std::sync::atomic::{AtomicUsize, Ordering};

use prometheus::{IntCounter, IntGauge};

use crate::broker::Retention;
use crate::config::{FailedEvent, Overflow, RefusedEffect, RouteConfig, TopicConfig};
use crate::heartbeat::Heartbeat;
use crate::message::Pattern;
use crate::metrics::Metrics;

/// What a session needs to know of its route.
pub struct Route {
    pub name: Box<str>,
    /// None: only the host that the client asked.
    pub origins: Option<Vec<String>>,
    /// Lower case.
    pub keep_headers: Vec<String>,
    pub subprotocols: Vec<String>,
    /// Whether plugins see each delivery.
    pub outbound: bool,
    /// What gets the messages that pass the chain.
    pub upstream: Option<Box<str>>,
    pub overflow: Overflow,
    pub refused_effect: RefusedEffect,
    pub failed_event: FailedEvent,
    pub heartbeat: Heartbeat,
    /// A client's message, in bytes.
    pub message_limit: usize,
    pub rate: Option<Rate>,
    /// What may wait for one client, in bytes.
    pub outbox_limit: usize,
    pub topics_limit: usize,
    sessions_limit: usize,
    sessions: AtomicUsize,
    pub counters: Counters,
}

/// Handles, so that nothing is looked up by label while messages flow.
pub struct Counters {
    pub received: IntCounter,
    pub received_bytes: IntCounter,
    pub sent: IntCounter,
    pub sessions: IntGauge,
}

/// A token bucket's shape: messages a second, and messages at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    pub per_second: u32,
    pub burst: u32,
}

impl Route {
    pub fn new(config: &RouteConfig, metrics: &Metrics) -> Self {
        let name = config.name.get_ref();
        let limits = &config.limits;
        Self {
            name: name.as_str().into(),
            origins: config.origins.clone(),
            keep_headers: config.keep_headers.iter().map(|header| header.to_ascii_lowercase()).collect(),
            subprotocols: config.subprotocols.clone(),
            outbound: config.outbound,
            upstream: config.upstream.as_ref().map(|name| name.get_ref().as_str().into()),
            overflow: config.slow_consumer,
            refused_effect: config.refused_effect,
            failed_event: config.failed_event,
            heartbeat: Heartbeat { interval: config.heartbeat.interval.0, timeout: config.heartbeat.timeout.0 },
            message_limit: limits.message.0,
            rate: limits.rate.map(|rate| Rate { per_second: rate, burst: limits.burst.unwrap_or(rate) }),
            outbox_limit: limits.outbox.0,
            topics_limit: limits.topics,
            sessions_limit: limits.sessions,
            sessions: AtomicUsize::new(0),
            counters: Counters {
                received: metrics.received.with_label_values(&[name]),
                received_bytes: metrics.received_bytes.with_label_values(&[name]),
                sent: metrics.sent.with_label_values(&[name]),
                sessions: metrics.sessions.with_label_values(&[name]),
            },
        }
    }

    /// Takes a place among the route's sessions; false where all are taken.
    pub fn enter(&self) -> bool {
        let entered = self.sessions.fetch_update(Ordering::AcqRel, Ordering::Acquire, |sessions| {
            (sessions < self.sessions_limit).then_some(sessions + 1)
        });
        if entered.is_ok() {
            self.counters.sessions.inc();
        }
        entered.is_ok()
    }

    /// Gives the place back.
    pub fn leave(&self) {
        self.sessions.fetch_sub(1, Ordering::AcqRel);
        self.counters.sessions.dec();
    }
}

/// What topics keep, by the first pattern that matches.
#[derive(Default)]
pub struct TopicRules(Vec<(Pattern, TopicRule)>);

/// What one topic keeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TopicRule {
    pub retention: Retention,
    pub presence: bool,
}

impl TopicRules {
    pub fn new(config: &[TopicConfig]) -> Self {
        let rule = |topic: &TopicConfig| {
            let retention = topic.history.map(|history| Retention { size: history.size, ttl: history.ttl.0 });
            let rule = TopicRule { retention: retention.unwrap_or_default(), presence: topic.presence };
            (Pattern::new(topic.pattern.get_ref()), rule)
        };
        Self(config.iter().map(rule).collect())
    }

    /// A topic that no pattern matches keeps nothing.
    pub fn of(&self, topic: &str) -> TopicRule {
        self.0.iter().find(|(pattern, _)| pattern.matches(topic)).map(|(_, rule)| *rule).unwrap_or_default()
    }
}
