//! All that the test gateway knows: sessions, topics, keys, time.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use serde_json::Value;

use super::connect::Request;
use crate::{Close, Message, history::Position, log::Level, presence, presence::Member, subscription};

/// What a topic keeps, as its `[[topic]]` table says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topic {
    /// How many publications its history keeps. 0: it has no history.
    pub history: u32,
    /// How long they are kept. None: until there are too many.
    pub ttl: Option<Duration>,
    /// Whether it has presence.
    pub presence: bool,
}

impl Default for Topic {
    /// A hundred publications, and presence.
    fn default() -> Self {
        Self { history: 100, ttl: None, presence: true }
    }
}

/// What the plugin may do, as its `grants` table says. `*` in a pattern is any run of characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grants {
    /// Patterns of the topics that it may publish to.
    pub publish: Vec<String>,
    /// Patterns of the topics that it may subscribe to and read.
    pub subscribe: Vec<String>,
    /// Whether it may reach users.
    pub users: bool,
    /// Whether it may reach other sessions.
    pub sessions: bool,
    /// Prefixes of the keys that it may use.
    pub kv: Vec<String>,
    /// The request headers that it sees, in any case; `cookie` for cookies.
    pub headers: Vec<String>,
    /// The upstreams that it may use.
    pub upstreams: Vec<String>,
}

impl Grants {
    /// Everything: what a test gateway grants unless told otherwise.
    pub fn all() -> Self {
        let all = || vec!["*".to_owned()];
        Self {
            publish: all(),
            subscribe: all(),
            users: true,
            sessions: true,
            kv: vec![String::new()],
            headers: all(),
            upstreams: all(),
        }
    }

    /// Nothing: what the real gateway grants unless told otherwise.
    pub fn none() -> Self {
        Self {
            publish: Vec::new(),
            subscribe: Vec::new(),
            users: false,
            sessions: false,
            kv: Vec::new(),
            headers: Vec::new(),
            upstreams: Vec::new(),
        }
    }
}

/// A log line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// How much it matters.
    pub level: Level,
    /// The text.
    pub message: String,
    /// The fields beside it.
    pub fields: Vec<(String, String)>,
}

/// An event that has failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The method that was called: `inbound`, `opened` ….
    pub hook: &'static str,
    /// The error's sentence.
    pub message: String,
}

/// A publication that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// Where.
    pub topic: String,
    /// What.
    pub message: Message,
    /// Whether the topic's history has it.
    pub kept: bool,
}

/// A message that was handed to an upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forwarded {
    /// The upstream.
    pub upstream: String,
    /// The id of the session that it was made for.
    pub session: String,
    /// Of a request: [`Gateway::reply`](super::Gateway::reply) answers it. None: nobody waits for an answer.
    pub tag: Option<String>,
    /// What it carries.
    pub message: Message,
    /// The headers that go with it, in order.
    pub headers: Vec<(String, String)>,
    /// How long an answer is waited for, where the plugin has said so.
    pub timeout: Option<Duration>,
    pub(super) number: u64,
}

/// A request to an upstream that has no answer yet.
pub(super) struct Waiting {
    pub(super) session: String,
    pub(super) tag: String,
    pub(super) until: Option<u64>,
}

/// A series of the plugin's own metrics.
#[derive(Debug)]
pub(super) enum Series {
    Counter(u64),
    Gauge(f64),
    Histogram(Vec<f64>),
}

/// A publication on its way to a session.
#[derive(Clone, Debug)]
pub(super) struct Delivery {
    pub(super) kept: Kept,
    /// Past the `broadcast` hook. What a history holds is not.
    pub(super) framed: bool,
}

/// A session.
#[derive(Default)]
pub(super) struct Peer {
    pub(super) request: Request,
    /// `opened` is over: of the headers only the kept ones can be read.
    pub(super) settled: bool,
    pub(super) user: Option<String>,
    pub(super) subprotocol: Option<String>,
    pub(super) attributes: BTreeMap<String, String>,
    pub(super) expiry: Option<u64>,
    /// The user's sessions are limited, and it was the one with this number to say so.
    pub(super) counted: Option<usize>,
    pub(super) timers: BTreeMap<String, u64>,
    pub(super) subscriptions: BTreeSet<String>,
    pub(super) outbox: Vec<Message>,
    pub(super) closed: Option<Close>,
    /// For the `subscription` hook, once the event is over.
    pub(super) changes: VecDeque<subscription::Change>,
    /// Topics whose deliveries wait for that.
    pub(super) holding: BTreeSet<String>,
    pub(super) held: VecDeque<Delivery>,
}

/// A publication in a history.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    pub(super) topic: String,
    pub(super) message: Message,
    pub(super) position: Option<Position>,
    pub(super) time: u64,
    pub(super) expires: Option<u64>,
    pub(super) key: Option<String>,
    pub(super) metadata: Vec<(String, String)>,
    /// The sessions that it is not for.
    pub(super) exclude: Vec<String>,
}

/// A topic in use.
#[derive(Default)]
pub(super) struct Room {
    /// How often the history was lost.
    pub(super) losses: u64,
    pub(super) offset: u64,
    pub(super) kept: VecDeque<Kept>,
    pub(super) members: Vec<Member>,
}

/// What follows from effects, as an event of its own.
pub(super) enum Next {
    Presence(presence::Change),
    End { session: String, close: Close },
}

pub(super) struct State {
    pub(super) config: Value,
    pub(super) grants: Grants,
    pub(super) rules: Vec<(String, Topic)>,
    pub(super) started: u64,
    pub(super) now: u64,
    pub(super) broker_away: bool,
    pub(super) peers: BTreeMap<String, Peer>,
    pub(super) rooms: BTreeMap<String, Room>,
    pub(super) keys: BTreeMap<String, (Vec<u8>, Option<u64>)>,
    pub(super) idempotency: BTreeMap<(String, String), u64>,
    pub(super) next: VecDeque<Next>,
    pub(super) lines: Vec<Line>,
    pub(super) failures: Vec<Failure>,
    pub(super) published: Vec<Published>,
    /// The upstreams that there are, and whether each is away.
    pub(super) upstreams: BTreeMap<String, bool>,
    pub(super) forwarded: Vec<Forwarded>,
    pub(super) waiting: BTreeMap<u64, Waiting>,
    pub(super) series: BTreeMap<String, Series>,
    /// Events in the middle of being applied, one in the other.
    pub(super) depth: u32,
    handles: u64,
    random: u64,
}

impl State {
    pub(super) fn new() -> Self {
        let now = 1_700_000_000_000;
        Self {
            config: Value::Object(serde_json::Map::new()),
            grants: Grants::all(),
            rules: Vec::new(),
            started: now,
            now,
            broker_away: false,
            peers: BTreeMap::new(),
            rooms: BTreeMap::new(),
            keys: BTreeMap::new(),
            idempotency: BTreeMap::new(),
            next: VecDeque::new(),
            lines: Vec::new(),
            failures: Vec::new(),
            published: Vec::new(),
            upstreams: BTreeMap::new(),
            forwarded: Vec::new(),
            waiting: BTreeMap::new(),
            series: BTreeMap::new(),
            depth: 0,
            handles: 0,
            random: 0,
        }
    }

    /// A number that no handle had before.
    pub(super) fn next_handle(&mut self) -> u64 {
        self.handles += 1;
        self.handles
    }

    /// The same numbers in every run (SplitMix64).
    pub(super) fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// What a topic keeps: its first rule that fits.
    pub(super) fn rule(&self, topic: &str) -> Topic {
        let rule = self.rules.iter().find(|(pattern, _)| fits(pattern, topic));
        rule.map_or_else(Topic::default, |(_, rule)| rule.clone())
    }

    pub(super) fn room(&mut self, topic: &str) -> &mut Room {
        self.rooms.entry(topic.to_owned()).or_default()
    }

    /// What the topic's history holds now.
    pub(super) fn kept(&mut self, topic: &str) -> Vec<Kept> {
        let now = self.now;
        let room = self.room(topic);
        room.kept.retain(|kept| kept.expires.is_none_or(|at| at > now));
        room.kept.iter().cloned().collect()
    }

    /// Where the topic's history stands, if it keeps one.
    pub(super) fn position(&mut self, topic: &str) -> Option<Position> {
        let keeps = self.rule(topic).history > 0;
        let room = self.room(topic);
        (keeps || room.offset > 0).then(|| room.position())
    }

    /// What the topic's history holds after a position, and whether nothing between is lost.
    pub(super) fn after(&mut self, topic: &str, since: Position) -> (Vec<Kept>, bool) {
        let mut kept = self.kept(topic);
        let now = self.room(topic).position();
        let first = kept.first().and_then(|kept| kept.position).map_or(now.offset + 1, |position| position.offset);
        let complete = since.epoch == now.epoch && since.offset <= now.offset && since.offset + 1 >= first;
        kept.retain(|kept| kept.position.is_some_and(|p| p.epoch != since.epoch || p.offset > since.offset));
        (kept, complete)
    }

    pub(super) fn failed(&mut self, hook: &'static str, message: &str) {
        self.failures.push(Failure { hook, message: message.to_owned() });
    }
}

impl Room {
    pub(super) fn position(&self) -> Position {
        Position { epoch: self.losses + 1, offset: self.offset }
    }
}

/// Whether a pattern fits, `*` being any run of characters.
pub(super) fn fits(pattern: &str, name: &str) -> bool {
    let Some((before, after)) = pattern.split_once('*') else {
        return pattern == name;
    };
    let Some(rest) = name.strip_prefix(before) else {
        return false;
    };
    (0..=rest.len()).any(|at| rest.is_char_boundary(at) && fits(after, &rest[at..]))
}

#[cfg(test)]
mod tests {
    use super::fits;

    #[test]
    fn patterns() {
        assert!(fits("*", ""));
        assert!(fits("room:*", "room:blue"));
        assert!(fits("a*c", "abc"));
        assert!(!fits("room:*", "user:blue"));
        assert!(!fits("a*c", "abcd"));
        assert!(!fits("room", "room:blue"));
    }
}
