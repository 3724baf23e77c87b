//! The gateway that a test holds.

use std::cell::{OnceCell, RefCell};
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use serde_json::Value;

use super::call::{self, Kind};
use super::connect::Connect;
use super::effect::Publish;
use super::state::{Failure, Forwarded, Grants, Line, Published, Series, State, Topic};
use crate::{Context, Error, Exported, Message, Refusal, Result, host, presence::Member, upstream};

/// A gateway of one node and one plugin. Clones are the same gateway.
pub struct Gateway<P> {
    pub(super) state: Rc<RefCell<State>>,
    plugin: Rc<OnceCell<P>>,
}

impl<P> Clone for Gateway<P> {
    fn clone(&self) -> Self {
        Self { state: Rc::clone(&self.state), plugin: Rc::clone(&self.plugin) }
    }
}

impl<P> fmt::Debug for Gateway<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gateway").field("started", &self.plugin.get().is_some()).finish_non_exhaustive()
    }
}

impl<P: Exported> Default for Gateway<P> {
    fn default() -> Self {
        Self::new()
    }
}

/// Before it starts.
impl<P: Exported> Gateway<P> {
    /// A gateway that grants everything, with an empty configuration, where each topic keeps 100 publications and has
    /// presence, at Unix time 1,700,000,000,000 ms.
    pub fn new() -> Self {
        Self { state: Rc::new(RefCell::new(State::new())), plugin: Rc::new(OnceCell::new()) }
    }

    /// The plugin's table in the configuration.
    #[must_use]
    pub fn config(self, config: Value) -> Self {
        assert!(config.is_object(), "a plugin's configuration is a table, which is a JSON object: {config}");
        self.state.borrow_mut().config = config;
        self
    }

    /// What the plugin may do.
    #[must_use]
    pub fn grants(self, grants: Grants) -> Self {
        self.state.borrow_mut().grants = grants;
        self
    }

    /// What the topics of this pattern keep. The first pattern that fits decides.
    #[must_use]
    pub fn topic(self, pattern: &str, topic: Topic) -> Self {
        self.state.borrow_mut().rules.push((pattern.to_owned(), topic));
        self
    }

    /// There is an upstream of this name. What is handed to it is seen by [`forwarded`](Self::forwarded).
    #[must_use]
    pub fn upstream(self, name: &str) -> Self {
        self.state.borrow_mut().upstreams.insert(name.to_owned(), false);
        self
    }

    /// Set the clock: Unix time in milliseconds.
    #[must_use]
    pub fn at(self, now: u64) -> Self {
        let mut state = self.state.borrow_mut();
        (state.now, state.started) = (now, now);
        drop(state);
        self
    }

    /// Make the plugin, by its `init`. The first event does so too.
    ///
    /// # Errors
    /// What `init` answers: the real gateway would not use this generation.
    pub fn start(&self) -> Result {
        self.plugin().map(drop)
    }

    pub(super) fn plugin(&self) -> Result<&P> {
        if let Some(plugin) = self.plugin.get() {
            return Ok(plugin);
        }
        let (plugin, _) = call::run(&self.state, Kind::Init, None, None, |_, _| P::make());
        let plugin = plugin.inspect_err(|error| self.failed(Kind::Init, error)).context("init")?;
        Ok(self.plugin.get_or_init(|| plugin))
    }
}

/// Events.
impl<P: Exported> Gateway<P> {
    /// A client that is about to connect, on the route `test`.
    pub fn connect(&self) -> Connect<P> {
        Connect::new(self.clone())
    }

    /// Publish from outside, as another node or the operator would.
    ///
    /// # Errors
    /// The `publication` hook failed, or the broker is away.
    pub fn publish(&self, topic: &str, message: impl Into<Message>) -> Result<(), Refusal> {
        let publish = Publish { topic: topic.to_owned(), message: Some(message.into()), ..Publish::default() };
        let done = self.accept(publish);
        self.settle();
        done
    }

    /// Answer a request to an upstream, or fail it. What follows from it has happened when this returns. Nothing
    /// happens once the session is over.
    ///
    /// # Errors
    /// `reply` failed, or the request has its answer already: it was given, or its time ran out.
    ///
    /// # Panics
    /// It is no request, so nobody waits for an answer.
    #[track_caller]
    pub fn reply(&self, request: &Forwarded, reply: Result<upstream::Response, upstream::Failure>) -> Result {
        assert!(request.tag.is_some(), "this was forwarded, not requested: nobody waits for an answer: {request:?}");
        self.answer(request.number, reply)
    }

    /// Move the clock. Timers and requests to upstreams run out and sessions expire on the way, in the order of their
    /// times.
    pub fn advance(&self, time: Duration) {
        let until = self.state.borrow().now.saturating_add(host::millis(time));
        self.pass(until);
        self.state.borrow_mut().now = until;
    }

    /// Whether the broker is away: what is published, sent to users or to other sessions is refused when it is
    /// applied, and histories, presence and keys do not answer.
    pub fn broker_away(&self, away: bool) {
        self.state.borrow_mut().broker_away = away;
    }

    /// Whether an upstream is away, its queue full or its breaker open: what is handed to it is refused when it is
    /// applied.
    pub fn upstream_away(&self, name: &str, away: bool) {
        self.state.borrow_mut().upstreams.insert(name.to_owned(), away);
    }

    /// The topic's history is lost, as when a broker has died: a new epoch begins, and everyone who is subscribed has a
    /// gap.
    pub fn lose_history(&self, topic: &str) {
        self.lose(topic);
        self.settle();
    }

    /// Run code that is no hook and still reads the configuration, the clock or stores. It may not ask for effects.
    pub fn run<T>(&self, code: impl FnOnce() -> T) -> T {
        call::run(&self.state, Kind::Run, None, None, |_, _| code()).0
    }

    pub(super) fn failed(&self, kind: Kind, error: &Error) {
        self.state.borrow_mut().failed(kind.name(), error.message());
    }
}

/// What there is to see.
impl<P: Exported> Gateway<P> {
    /// Unix time in milliseconds.
    pub fn now(&self) -> u64 {
        self.state.borrow().now
    }

    /// What was published since this was last asked, in order.
    pub fn published(&self) -> Vec<Published> {
        std::mem::take(&mut self.state.borrow_mut().published)
    }

    /// What the topic's history holds, oldest first.
    pub fn history(&self, topic: &str) -> Vec<Message> {
        self.state.borrow_mut().kept(topic).into_iter().map(|kept| kept.message).collect()
    }

    /// Who is on the topic, in the order of coming.
    pub fn members(&self, topic: &str) -> Vec<Member> {
        self.state.borrow_mut().room(topic).members.clone()
    }

    /// The value of a key.
    pub fn key(&self, key: &str) -> Option<Vec<u8>> {
        self.state.borrow().keys.get(key).map(|(value, _)| value.clone())
    }

    /// What was handed to upstreams since this was last asked, in order.
    pub fn forwarded(&self) -> Vec<Forwarded> {
        std::mem::take(&mut self.state.borrow_mut().forwarded)
    }

    /// A counter of the plugin's own; 0 if it was never counted. The series as the plugin has written it, labels too.
    pub fn counter(&self, series: &str) -> u64 {
        match self.state.borrow().series.get(series) {
            Some(Series::Counter(count)) => *count,
            _ => 0,
        }
    }

    /// A gauge of the plugin's own, if it was set.
    pub fn gauge(&self, series: &str) -> Option<f64> {
        match self.state.borrow().series.get(series) {
            Some(Series::Gauge(value)) => Some(*value),
            _ => None,
        }
    }

    /// What the plugin has observed for a histogram of its own, in order.
    pub fn observations(&self, series: &str) -> Vec<f64> {
        match self.state.borrow().series.get(series) {
            Some(Series::Histogram(values)) => values.clone(),
            _ => Vec::new(),
        }
    }

    /// What was logged since this was last asked.
    pub fn logs(&self) -> Vec<Line> {
        std::mem::take(&mut self.state.borrow_mut().lines)
    }

    /// The events that have failed since this was last asked.
    pub fn failures(&self) -> Vec<Failure> {
        std::mem::take(&mut self.state.borrow_mut().failures)
    }
}
