//! Accounts for every message of a topic: delivered once to all, refused to its sender, or announced as a gap.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::task::JoinHandle;

use super::Gateway;
use super::client::Client;
use super::nodes::{come, connect};

/// Between two messages of a speaker, so that one that is refused at once does not do so thousands of times a second.
const PAUSE: Duration = Duration::from_millis(10);

/// Tells speakers and listeners that it is enough.
#[derive(Clone, Default)]
pub(crate) struct Stop(Arc<AtomicBool>);

impl Stop {
    pub(crate) fn now(&self) {
        self.0.store(true, Ordering::Release);
    }

    pub(crate) fn is_now(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// Says `NAME-1`, `NAME-2` and so on.
pub(crate) struct Speaker {
    name: String,
    topic: String,
    client: Client,
    said: u64,
    acknowledged: Vec<u64>,
    refused: Vec<u64>,
}

impl Speaker {
    /// On a route of a node.
    pub(crate) async fn on(gateway: &Gateway, route: &str, name: &str, topic: &str) -> Self {
        let client = connect(gateway, route).await;
        let (name, topic) = (name.to_owned(), topic.to_owned());
        Self { name, topic, client, said: 0, acknowledged: Vec::new(), refused: Vec::new() }
    }

    /// Whether the next one was acknowledged.
    pub(crate) async fn say(&mut self) -> bool {
        self.said += 1;
        let text = format!("{}-{}", self.name, self.said);
        let answer = self.client.ask(&format!("say {} {text}", self.topic)).await;
        let done = answer == format!("ok {text}");
        assert!(done || answer == format!("no {text}"), "{text} was answered by {answer}");
        if done { &mut self.acknowledged } else { &mut self.refused }.push(self.said);
        done
    }

    /// Speaks until it is told to stop, and then until it was acknowledged once more.
    pub(crate) fn speaks(mut self, stop: &Stop) -> JoinHandle<Self> {
        let stop = stop.clone();
        tokio::spawn(async move {
            loop {
                let last = stop.is_now();
                if self.say().await && last {
                    return self;
                }
                tokio::time::sleep(PAUSE).await;
            }
        })
    }

    pub(crate) fn acknowledged(&self) -> usize {
        self.acknowledged.len()
    }

    pub(crate) fn refused(&self) -> usize {
        self.refused.len()
    }
}

/// What a subscriber was told.
#[derive(Clone, Debug, PartialEq)]
enum Heard {
    Message {
        offset: u64,
        text: String,
    },
    /// All up to this offset is to be loaded anew.
    Gap {
        offset: u64,
    },
}

/// A subscriber that keeps what it was told.
pub(crate) struct Listener {
    name: String,
    topic: String,
    client: Client,
    epoch: u64,
    /// Where it began.
    begin: u64,
    heard: Vec<Heard>,
}

impl Listener {
    pub(crate) async fn on(gateway: &Gateway, name: &str, topic: &str) -> Self {
        let mut client = connect(gateway, "refuse").await;
        let told = client.ask(&format!("join {topic}")).await;
        let (epoch, begin) = position(&told, "subscribed", topic).unwrap_or_else(|| panic!("{told}"));
        let (name, topic) = (name.to_owned(), topic.to_owned());
        Self { name, topic, client, epoch, begin, heard: Vec::new() }
    }

    /// Takes the next thing that it is told.
    async fn hear(&mut self) {
        let text = self.client.text().await;
        if let Some((epoch, offset)) = position(&text, "gap", &self.topic) {
            self.epoch = epoch;
            self.heard.push(Heard::Gap { offset });
            return;
        }
        let rest =
            text.strip_prefix(&format!("{} ", self.topic)).unwrap_or_else(|| panic!("{} hears {text}", self.name));
        let (offset, text) = rest.split_once(' ').unwrap();
        self.heard.push(Heard::Message { offset: offset.parse().unwrap(), text: text.to_owned() });
    }

    /// Whether something was said here already.
    fn has(&self, text: &str) -> bool {
        let is = |heard: &Heard| matches!(heard, Heard::Message { text: heard, .. } if heard == text);
        // It was said at the end.
        self.heard.iter().rev().take(10_000).any(is)
    }

    /// Listens until the last message of each speaker has come.
    pub(crate) async fn until_last_of(&mut self, speakers: &[Speaker]) {
        for speaker in speakers {
            let last = format!("{}-{}", speaker.name, speaker.said);
            while !self.has(&last) {
                self.hear().await;
            }
        }
    }

    /// Listens in the background. What it has comes back with it.
    pub(crate) fn listens(mut self, stop: &Stop) -> JoinHandle<Self> {
        let stop = stop.clone();
        tokio::spawn(async move {
            while !stop.is_now() {
                // Nothing of a frame is lost when it is given up: the client keeps what it has read.
                let _ = tokio::time::timeout(Duration::from_millis(50), self.hear()).await;
            }
            self
        })
    }

    /// Leaves, and comes back to a node from where it was. False: the node did not take it in, and it is to try again.
    pub(crate) async fn move_to(&mut self, gateway: &Gateway) -> bool {
        let (mut client, _) = come(gateway, "refuse").await;
        let at = match self.heard.last() {
            Some(Heard::Message { offset, .. } | Heard::Gap { offset }) => *offset,
            None => self.begin,
        };
        let told = client.ask(&format!("join {} {} {at}", self.topic, self.epoch)).await;
        if let Some((epoch, offset)) = position(&told, "gap", &self.topic) {
            self.epoch = epoch;
            self.heard.push(Heard::Gap { offset });
        } else if position(&told, "recovered", &self.topic).is_none() {
            assert!(told.starts_with("no join "), "{told}");
            return false;
        }
        std::mem::replace(&mut self.client, client).close().await;
        true
    }

    pub(crate) fn gaps(&self) -> usize {
        self.heard.iter().filter(|heard| matches!(heard, Heard::Gap { .. })).count()
    }

    pub(crate) fn messages(&self) -> usize {
        self.heard.len() - self.gaps()
    }

    /// Fails unless every message of the speakers is accounted for here.
    pub(crate) fn check(&self, speakers: &[Speaker]) {
        self.check_order();
        for speaker in speakers {
            self.check_speaker(speaker);
        }
    }

    /// One after the other, except where a gap was told.
    fn check_order(&self) {
        let mut last = self.begin;
        let mut seen = HashSet::new();
        for heard in &self.heard {
            match heard {
                Heard::Gap { offset } => last = *offset,
                Heard::Message { offset, text } => {
                    assert_eq!(*offset, last + 1, "{} misses something before {text}, and was not told", self.name);
                    assert!(seen.insert(text), "{} has heard {text} twice", self.name);
                    last = *offset;
                }
            }
        }
    }

    fn check_speaker(&self, speaker: &Speaker) {
        let prefix = format!("{}-", speaker.name);
        let acknowledged: HashSet<_> = speaker.acknowledged.iter().collect();
        let mut places = HashMap::new();
        for (place, heard) in self.heard.iter().enumerate() {
            let Heard::Message { text, .. } = heard else { continue };
            let Some(number) = text.strip_prefix(&prefix).map(|number| number.parse::<u64>().unwrap()) else {
                continue;
            };
            assert!(number <= speaker.said, "{} hears {text}, which nobody has said", self.name);
            // A refused one may have been done, at some time.
            if acknowledged.contains(&number) {
                places.insert(number, place);
            }
        }
        let mut before: Option<usize> = None;
        let mut missing = Vec::new();
        for number in &speaker.acknowledged {
            let Some(&place) = places.get(number) else {
                missing.push(number);
                continue;
            };
            assert!(before.is_none_or(|before| before < place), "{} hears {prefix}{number} out of order", self.name);
            let between = &self.heard[before.map_or(0, |before| before + 1)..place];
            let told = between.iter().any(|heard| matches!(heard, Heard::Gap { .. }));
            assert!(missing.is_empty() || told, "{} misses {prefix}{missing:?} and was not told", self.name);
            missing.clear();
            before = Some(place);
        }
        assert!(missing.is_empty(), "{} misses {prefix}{missing:?} at the end", self.name);
    }
}

/// `WHAT TOPIC EPOCH OFFSET`
fn position(told: &str, what: &str, topic: &str) -> Option<(u64, u64)> {
    let (epoch, offset) = told.strip_prefix(&format!("{what} {topic} "))?.split_once(' ')?;
    Some((epoch.parse().ok()?, offset.parse().ok()?))
}
