//! A route at run time: its rules, its topics' rules, and the handles of what is counted on it.
//!
//! A route is its name. What the configuration says about it can be replaced while sessions are on it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use arc_swap::{ArcSwap, Guard};
use parking_lot::Mutex;
use prometheus::{Histogram, IntCounter, IntGauge};

use crate::broker::Retention;
use crate::config::{
    BatchConfig, CompressionConfig, FailedEvent, HttpConfig, Overflow, RateExceeded, RedisGone, RefusedEffect,
    RouteConfig, TopicConfig, Transport,
};
use crate::heartbeat::Heartbeat;
use crate::message::Pattern;
use crate::metrics::Metrics;

/// Control frames at once, in seconds of their rate.
const CONTROL_SECONDS: u32 = 10;

/// A route, as long as there are sessions on it.
pub struct Route {
    pub name: Box<str>,
    /// Whether plugins see each delivery. What is on its way to a session cannot change its way, so it stays.
    pub outbound: bool,
    rules: ArcSwap<Rules>,
    sessions: AtomicUsize,
    requests: AtomicUsize,
    /// Sessions of each user, where their number is limited.
    users: Mutex<HashMap<Arc<str>, u32>>,
    gone: AtomicBool,
    pub counters: Counters,
}

/// What the configuration says about a route. A session looks at each rule when it needs it, so new rules are for
/// the next event.
#[derive(Clone)]
pub struct Rules {
    /// None: only the host that the client asked.
    pub origins: Option<Vec<String>>,
    pub transports: Transports,
    /// Lower case.
    pub keep_headers: Vec<String>,
    pub subprotocols: Vec<String>,
    /// Whether plugins see each delivery.
    pub outbound: bool,
    /// What gets the messages that pass the chain.
    pub upstream: Option<Box<str>>,
    /// Whether the client gets them back.
    pub echo: bool,
    /// None: messages go as they are.
    pub compression: Option<CompressionConfig>,
    pub overflow: Overflow,
    /// How long deliveries may be gathered. None: they are not.
    pub batch: Option<BatchConfig>,
    pub refused_effect: RefusedEffect,
    pub failed_event: FailedEvent,
    pub redis_gone: RedisGone,
    pub heartbeat: Heartbeat,
    /// What a client sends to see whether it is heard, and what it gets back.
    pub heartbeat_text: Option<(Box<str>, Box<str>)>,
    /// A client's message, in bytes.
    pub message_limit: usize,
    pub rate: Option<Rate>,
    pub rate_exceeded: RateExceeded,
    /// For control frames.
    pub control_rate: Rate,
    /// What may wait for one client, in bytes.
    pub outbox_limit: usize,
    pub topics_limit: usize,
    pub http: HttpConfig,
    sessions_limit: usize,
    user_limit: Option<u32>,
}

/// Handles, so that nothing is looked up by label while messages flow.
pub struct Counters {
    pub received: IntCounter,
    pub received_bytes: IntCounter,
    pub sent: IntCounter,
    pub sessions: IntGauge,
    pub compressed_sessions: IntGauge,
    pub round_trips: Histogram,
}

/// How clients may connect.
#[derive(Clone, Copy, Debug)]
pub struct Transports {
    pub websocket: bool,
    pub sse: bool,
    pub long_poll: bool,
}

/// A token bucket's shape: messages a second, and messages at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    pub per_second: u32,
    pub burst: u32,
}

impl Rules {
    pub fn new(config: &RouteConfig) -> Self {
        let limits = &config.limits;
        Self {
            origins: config.origins.clone(),
            transports: Transports {
                websocket: config.transports.contains(&Transport::Websocket),
                sse: config.transports.contains(&Transport::Sse),
                long_poll: config.transports.contains(&Transport::LongPoll),
            },
            keep_headers: config.keep_headers.iter().map(|header| header.to_ascii_lowercase()).collect(),
            subprotocols: config.subprotocols.clone(),
            outbound: config.outbound,
            upstream: config.upstream.as_ref().map(|name| name.get_ref().as_str().into()),
            echo: config.echo,
            compression: config.compression,
            overflow: config.slow_consumer,
            batch: config.batch,
            refused_effect: config.refused_effect,
            failed_event: config.failed_event,
            redis_gone: config.redis_gone,
            heartbeat: Heartbeat {
                interval: config.heartbeat.interval.0,
                timeout: config.heartbeat.timeout.0,
                timeout_min: config.heartbeat.timeout_min.map(|min| min.0),
            },
            heartbeat_text: config.heartbeat.text.clone().map(|text| (text.ping, text.pong)),
            message_limit: limits.message.0,
            rate: limits.rate.map(|rate| Rate { per_second: rate, burst: limits.burst.unwrap_or(rate) }),
            rate_exceeded: limits.rate_exceeded,
            control_rate: Rate {
                per_second: limits.control_rate,
                burst: limits.control_rate.saturating_mul(CONTROL_SECONDS),
            },
            outbox_limit: limits.outbox.0,
            topics_limit: limits.topics,
            http: config.http,
            sessions_limit: limits.sessions,
            user_limit: limits.sessions_per_user,
        }
    }
}

impl Route {
    pub fn new(name: &str, rules: Rules, metrics: &Metrics) -> Self {
        Self {
            name: name.into(),
            outbound: rules.outbound,
            rules: ArcSwap::from_pointee(rules),
            sessions: AtomicUsize::new(0),
            requests: AtomicUsize::new(0),
            users: Mutex::default(),
            gone: AtomicBool::new(false),
            counters: Counters {
                received: metrics.received.with_label_values(&[name]),
                received_bytes: metrics.received_bytes.with_label_values(&[name]),
                sent: metrics.sent.with_label_values(&[name]),
                sessions: metrics.sessions.with_label_values(&[name]),
                compressed_sessions: metrics.compressed_sessions.with_label_values(&[name]),
                round_trips: metrics.round_trips.with_label_values(&[name]),
            },
        }
    }

    /// The rules of this moment; for a look, not to be kept.
    pub fn rules(&self) -> Guard<Arc<Rules>> {
        self.rules.load()
    }

    pub fn set_rules(&self, rules: Rules) {
        self.rules.store(Arc::new(rules));
    }

    /// The configuration names the route no more: its sessions end.
    pub fn retire(&self) {
        self.gone.store(true, Ordering::SeqCst);
    }

    pub fn is_gone(&self) -> bool {
        self.gone.load(Ordering::SeqCst)
    }

    /// Takes a place among the route's sessions; false where all are taken.
    pub fn enter(&self) -> bool {
        let limit = self.rules().sessions_limit;
        let entered = self
            .sessions
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |sessions| (sessions < limit).then_some(sessions + 1));
        if entered.is_ok() {
            self.counters.sessions.inc();
        }
        entered.is_ok()
    }

    /// Takes a place among a user's sessions; an error where the user has as many as they may. Whoever becomes another user
    /// later counts as who they were.
    pub fn enter_user(self: &Arc<Self>, user: Option<&Arc<str>>) -> Result<Option<UserPlace>, TooMany> {
        let (Some(limit), Some(user)) = (self.rules().user_limit, user) else { return Ok(None) };
        let mut users = self.users.lock();
        let sessions = users.entry(user.clone()).or_default();
        if *sessions >= limit {
            return Err(TooMany);
        }
        *sessions += 1;
        Ok(Some(UserPlace { route: self.clone(), user: user.clone() }))
    }

    /// Takes a place among the plain HTTP requests under way; none where all are taken.
    pub fn enter_request(&self) -> Option<RequestPlace<'_>> {
        let limit = self.rules().http.requests;
        let entered = self
            .requests
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |requests| (requests < limit).then_some(requests + 1));
        entered.is_ok().then_some(RequestPlace(self))
    }

    /// Gives the place back.
    pub fn leave(&self) {
        self.sessions.fetch_sub(1, Ordering::AcqRel);
        self.counters.sessions.dec();
    }
}

/// The user has as many sessions as they may.
#[derive(Debug, PartialEq, Eq)]
pub struct TooMany;

/// A place among a user's sessions, given back with the value.
pub struct UserPlace {
    route: Arc<Route>,
    user: Arc<str>,
}

impl Drop for UserPlace {
    fn drop(&mut self) {
        let mut users = self.route.users.lock();
        if let Some(sessions) = users.get_mut(&self.user) {
            *sessions = sessions.saturating_sub(1);
            if *sessions == 0 {
                users.remove(&self.user);
            }
        }
    }
}

/// A place among a route's requests, given back with the value.
pub struct RequestPlace<'a>(&'a Route);

impl Drop for RequestPlace<'_> {
    fn drop(&mut self) {
        self.0.requests.fetch_sub(1, Ordering::AcqRel);
    }
}

/// What topics keep, by the first pattern that matches.
#[derive(Default)]
pub struct TopicRules(ArcSwap<Vec<(Pattern, TopicRule)>>);

/// What one topic keeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TopicRule {
    pub retention: Retention,
    pub presence: bool,
}

impl TopicRules {
    pub fn new(config: &[TopicConfig]) -> Self {
        let rules = Self::default();
        rules.replace(config);
        rules
    }

    /// What is kept already stays as long as it was kept for.
    pub fn replace(&self, config: &[TopicConfig]) {
        let rule = |topic: &TopicConfig| {
            let retention = topic.history.map(|history| Retention { size: history.size, ttl: history.ttl.0 });
            let rule = TopicRule { retention: retention.unwrap_or_default(), presence: topic.presence };
            (Pattern::new(topic.pattern.get_ref()), rule)
        };
        self.0.store(Arc::new(config.iter().map(rule).collect()));
    }

    /// A topic that no pattern matches keeps nothing.
    pub fn of(&self, topic: &str) -> TopicRule {
        let rules = self.0.load();
        rules.iter().find(|(pattern, _)| pattern.matches(topic)).map(|(_, rule)| *rule).unwrap_or_default()
    }
}
