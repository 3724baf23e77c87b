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
    topic: String,
    client: Client,
    words: Words,
}

/// What somebody has said, and what became of it.
struct Words {
    name: String,
    said: u64,
    acknowledged: Vec<u64>,
    refused: Vec<u64>,
}

impl Speaker {
    /// On a route of a node.
    pub(crate) async fn on(gateway: &Gateway, route: &str, name: &str, topic: &str) -> Self {
        let client = connect(gateway, route).await;
        let words = Words { name: name.to_owned(), said: 0, acknowledged: Vec::new(), refused: Vec::new() };
        Self { topic: topic.to_owned(), client, words }
    }

    /// Whether the next one was acknowledged.
    pub(crate) async fn say(&mut self) -> bool {
        self.words.said += 1;
        let words = &mut self.words;
        let text = format!("{}-{}", words.name, words.said);
        let answer = self.client.ask(&format!("say {} {text}", self.topic)).await;
        let done = answer == format!("ok {text}");
        assert!(done || answer == format!("no {text}"), "{text} was answered by {answer}");
        if done { &mut words.acknowledged } else { &mut words.refused }.push(words.said);
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
        self.words.acknowledged.len()
    }

    pub(crate) fn refused(&self) -> usize {
        self.words.refused.len()
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
    topic: String,
    client: Client,
    epoch: u64,
    log: Log,
}

/// All that a subscriber was told.
struct Log {
    name: String,
    /// Where it began.
    begin: u64,
    heard: Vec<Heard>,
}

impl Listener {
    pub(crate) async fn on(gateway: &Gateway, name: &str, topic: &str) -> Self {
        let mut client = connect(gateway, "refuse").await;
        let told = client.ask(&format!("join {topic}")).await;
        let (epoch, begin) = position(&told, "subscribed", topic).unwrap_or_else(|| panic!("{told}"));
        let log = Log { name: name.to_owned(), begin, heard: Vec::new() };
        Self { topic: topic.to_owned(), client, epoch, log }
    }

    /// Takes the next thing that it is told.
    async fn hear(&mut self) {
        let text = self.client.text().await;
        if let Some((epoch, offset)) = position(&text, "gap", &self.topic) {
            self.epoch = epoch;
            self.log.heard.push(Heard::Gap { offset });
            return;
        }
        let rest =
            text.strip_prefix(&format!("{} ", self.topic)).unwrap_or_else(|| panic!("{} hears {text}", self.log.name));
        let (offset, text) = rest.split_once(' ').unwrap();
        self.log.heard.push(Heard::Message { offset: offset.parse().unwrap(), text: text.to_owned() });
    }

    /// Whether something was said here already.
    fn has(&self, text: &str) -> bool {
        let is = |heard: &Heard| matches!(heard, Heard::Message { text: heard, .. } if heard == text);
        // It was said at the end.
        self.log.heard.iter().rev().take(10_000).any(is)
    }

    /// Listens until the last message of each speaker has come.
    pub(crate) async fn until_last_of(&mut self, speakers: &[Speaker]) {
        for speaker in speakers {
            let last = format!("{}-{}", speaker.words.name, speaker.words.said);
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
        let at = match self.log.heard.last() {
            Some(Heard::Message { offset, .. } | Heard::Gap { offset }) => *offset,
            None => self.log.begin,
        };
        let told = client.ask(&format!("join {} {} {at}", self.topic, self.epoch)).await;
        if let Some((epoch, offset)) = position(&told, "gap", &self.topic) {
            self.epoch = epoch;
            self.log.heard.push(Heard::Gap { offset });
        } else if position(&told, "recovered", &self.topic).is_none() {
            assert!(told.starts_with("no join "), "{told}");
            return false;
        }
        std::mem::replace(&mut self.client, client).close().await;
        true
    }

    pub(crate) fn gaps(&self) -> usize {
        self.log.heard.iter().filter(|heard| matches!(heard, Heard::Gap { .. })).count()
    }

    pub(crate) fn messages(&self) -> usize {
        self.log.heard.len() - self.gaps()
    }

    /// Fails unless every message of the speakers is accounted for here.
    pub(crate) fn check(&self, speakers: &[Speaker]) {
        self.log.check_order();
        for speaker in speakers {
            self.log.check_words(&speaker.words);
        }
    }
}

impl Log {
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

    fn check_words(&self, words: &Words) {
        let prefix = format!("{}-", words.name);
        let acknowledged: HashSet<_> = words.acknowledged.iter().collect();
        let mut places = HashMap::new();
        for (place, heard) in self.heard.iter().enumerate() {
            let Heard::Message { text, .. } = heard else { continue };
            let Some(number) = text.strip_prefix(&prefix).map(|number| number.parse::<u64>().unwrap()) else {
                continue;
            };
            assert!(number <= words.said, "{} hears {text}, which nobody has said", self.name);
            // A refused one may have been done, at some time.
            if acknowledged.contains(&number) {
                places.insert(number, place);
            }
        }
        let mut before: Option<usize> = None;
        let mut missing = Vec::new();
        for number in &words.acknowledged {
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

/// A check that never fails would make every test that uses it one that cannot.
mod tests {
    use super::*;

    /// `3` is message 3, offset by offset, `!3` a gap up to offset 3, `@5:3` message 3 at offset 5.
    fn log(heard: &str) -> Log {
        let mut next = 1;
        let mut all = Vec::new();
        for word in heard.split(' ') {
            if let Some(offset) = word.strip_prefix('!') {
                next = offset.parse::<u64>().unwrap() + 1;
                all.push(Heard::Gap { offset: next - 1 });
                continue;
            }
            let (offset, number) = match word.strip_prefix('@').and_then(|word| word.split_once(':')) {
                Some((offset, number)) => (offset.parse().unwrap(), number),
                None => (next, word),
            };
            next = offset + 1;
            all.push(Heard::Message { offset, text: format!("ann-{number}") });
        }
        Log { name: "bob".to_owned(), begin: 0, heard: all }
    }

    fn is_accounted_for(acknowledged: &[u64], refused: &[u64], heard: &str) -> bool {
        let said = acknowledged.iter().chain(refused).copied().max().unwrap();
        let words =
            Words { name: "ann".to_owned(), said, acknowledged: acknowledged.to_vec(), refused: refused.to_vec() };
        let log = log(heard);
        std::panic::catch_unwind(|| {
            log.check_order();
            log.check_words(&words);
        })
        .is_ok()
    }

    #[test]
    fn what_is_missing_repeated_or_out_of_order_is_found() {
        assert!(is_accounted_for(&[1, 2, 3], &[], "1 2 3"));
        assert!(!is_accounted_for(&[1, 2, 3], &[], "1 3"), "an acknowledged one is missing");
        assert!(!is_accounted_for(&[1, 2, 3], &[], "1 2"), "the last is missing");
        assert!(is_accounted_for(&[1, 2, 3], &[], "1 !2 3"), "a gap stands for it");
        assert!(!is_accounted_for(&[1, 2, 3], &[], "!0 1 3"), "a gap elsewhere does not");
        assert!(!is_accounted_for(&[1, 2], &[], "1 2 2"), "twice");
        assert!(!is_accounted_for(&[1, 2, 3], &[], "2 1 3"), "out of order");
        assert!(!is_accounted_for(&[1, 3], &[2], "1 @3:3"), "an offset is left out");
        assert!(is_accounted_for(&[1, 3], &[2], "1 3 2"), "a refused one may come late");
        assert!(!is_accounted_for(&[1, 3], &[2], "1 2 2 3"), "and once");
        assert!(!is_accounted_for(&[1], &[], "1 7"), "nobody has said so");
    }
}
