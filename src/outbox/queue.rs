//! What waits for a client that does not keep up.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use crate::message::TopicName;

/// Dead entries that are never worth a walk through the queue.
const DEAD: usize = 32;

#[derive(Default)]
pub(super) struct Queue {
    pub waiting: VecDeque<Waiting>,
    /// What all of it takes, held deliveries included.
    pub bytes: usize,
    /// Deliveries wait here until the event that subscribed has written its own messages.
    pub held: Option<Vec<Waiting>>,
    /// How many want that.
    pub holds: u32,
    /// Where the latest of each key waits, where only that is kept.
    latest: Option<Box<Latest>>,
    /// The number of the first that waits: those behind it have the next ones.
    first: u64,
}

#[derive(Default)]
struct Latest {
    numbers: HashMap<Arc<Key>, u64>,
    /// Entries that were replaced by later ones: they have no bytes.
    dead: usize,
}

/// What is replaced by what comes later: a topic, or what a plugin has named on it.
#[derive(PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub topic: TopicName,
    pub key: Option<Box<str>>,
}

pub(super) struct Waiting {
    pub frames: Bytes,
    pub messages: u32,
    /// The first of these frames is partly written already: dropping it would break the stream.
    pub begun: bool,
    /// The session's own event wrote it, not somebody else's publication.
    pub own: bool,
    /// What replaces it.
    pub key: Option<Arc<Key>>,
}

/// What frames take while they wait.
pub(super) fn cost(frames: &[u8]) -> usize {
    frames.len() + size_of::<Waiting>()
}

impl Waiting {
    pub fn delivery(frames: Bytes, messages: u32) -> Self {
        Self { frames, messages, begun: false, own: false, key: None }
    }
}

impl Queue {
    pub fn push(&mut self, waiting: Waiting) {
        self.bytes += cost(&waiting.frames);
        self.waiting.push_back(waiting);
    }

    /// Waits until `release`.
    pub fn hold_back(&mut self, waiting: Waiting) {
        self.bytes += cost(&waiting.frames);
        self.held.get_or_insert_default().push(waiting);
    }

    /// What was held waits like the rest.
    pub fn release(&mut self) {
        self.waiting.extend(self.held.take().into_iter().flatten());
    }

    /// Waits in the place of what waits under the same key. Says how many messages that were.
    pub fn push_latest(&mut self, key: Key, frames: Bytes) -> u32 {
        let (key, latest) = (Arc::new(key), self.latest.get_or_insert_default());
        let known = latest.numbers.insert(key.clone(), self.first + self.waiting.len() as u64);
        let known = known.and_then(|number| self.waiting.get_mut(number.checked_sub(self.first)? as usize));
        let mut replaced = 0;
        // What was begun has to be finished, and has its place no more by number.
        if let Some(known) = known.filter(|known| !known.begun && known.key.as_ref() == Some(&key)) {
            self.bytes -= cost(&known.frames);
            replaced = std::mem::take(&mut known.messages);
            (known.frames, known.key) = (Bytes::new(), None);
            latest.dead += 1;
        }
        self.bytes += cost(&frames);
        self.waiting.push_back(Waiting { key: Some(key), ..Waiting::delivery(frames, 1) });
        if latest.dead > DEAD && latest.dead * 2 > self.waiting.len() {
            self.bury();
        }
        replaced
    }

    /// Removes the dead, and counts anew.
    fn bury(&mut self) {
        self.waiting.retain(|waiting| !waiting.frames.is_empty());
        let Some(latest) = &mut self.latest else { return };
        latest.dead = 0;
        latest.numbers.clear();
        let numbers = (self.first..).zip(&self.waiting);
        latest.numbers.extend(numbers.filter_map(|(number, waiting)| Some((waiting.key.clone()?, number))));
    }

    /// Takes the first.
    pub fn pop(&mut self) -> Option<Waiting> {
        self.remove(0)
    }

    /// Takes the oldest that may be dropped.
    pub fn drop_oldest(&mut self) -> Option<Waiting> {
        loop {
            let oldest = usize::from(self.waiting.front().is_some_and(|waiting| waiting.begun));
            let oldest = self.remove(oldest)?;
            if !oldest.frames.is_empty() {
                return Some(oldest);
            }
        }
    }

    /// Of the first two: those behind keep their numbers.
    fn remove(&mut self, place: usize) -> Option<Waiting> {
        let gone = self.waiting.remove(place)?;
        let number = self.first + place as u64;
        self.first += 1;
        if let Some(latest) = &mut self.latest {
            match &gone.key {
                Some(key) if latest.numbers.get(key) == Some(&number) => {
                    latest.numbers.remove(key);
                }
                None if gone.frames.is_empty() => latest.dead -= 1,
                _ => {}
            }
        }
        if !gone.frames.is_empty() {
            self.bytes -= cost(&gone.frames);
        }
        Some(gone)
    }

    /// The first that waits has something to write.
    pub fn trim(&mut self) {
        while self.waiting.front().is_some_and(|front| front.frames.is_empty()) {
            self.pop();
        }
    }

    /// So many bytes have been written.
    pub fn advance(&mut self, mut sent: usize) {
        while let Some(front) = self.waiting.front_mut() {
            if sent < front.frames.len() {
                if sent > 0 {
                    let _ = front.frames.split_to(sent);
                    front.begun = true;
                    self.bytes -= sent;
                }
                return;
            }
            sent -= front.frames.len();
            self.pop();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u32) -> Key {
        Key { topic: TopicName::parse("t").unwrap(), key: Some(number.to_string().into()) }
    }

    fn frames(queue: &Queue) -> Vec<u8> {
        queue.waiting.iter().flat_map(|waiting| waiting.frames.to_vec()).collect()
    }

    fn is_consistent(queue: &Queue) {
        let alive = queue.waiting.iter().filter(|waiting| !waiting.frames.is_empty());
        assert_eq!(queue.bytes, alive.clone().map(|waiting| cost(&waiting.frames)).sum::<usize>());
        let latest = queue.latest.as_ref().unwrap();
        assert_eq!(latest.dead, queue.waiting.len() - alive.clone().count());
        assert_eq!(latest.numbers.len(), alive.filter(|waiting| waiting.key.is_some()).count());
    }

    #[test]
    fn only_the_latest_of_each_key_waits_in_the_order_of_what_is_left() {
        let mut queue = Queue::default();
        queue.push(Waiting::delivery(Bytes::from_static(b"x"), 1));
        assert_eq!(queue.push_latest(key(1), Bytes::from_static(b"a")), 0);
        assert_eq!(queue.push_latest(key(2), Bytes::from_static(b"b")), 0);
        assert_eq!(queue.push_latest(key(1), Bytes::from_static(b"c")), 1);
        assert_eq!(frames(&queue), b"xbc");
        is_consistent(&queue);
        queue.advance(2);
        queue.trim();
        assert_eq!(queue.push_latest(key(2), Bytes::from_static(b"d")), 0, "its former one is with the client");
        assert_eq!(frames(&queue), b"cd");
        is_consistent(&queue);
    }

    #[test]
    fn a_key_that_changes_for_ever_takes_no_room() {
        let mut queue = Queue::default();
        for _ in 0..10_000 {
            for number in 0..4 {
                queue.push_latest(key(number), Bytes::from_static(b"0123"));
            }
            assert!(queue.waiting.len() <= 2 * DEAD + 8, "{} wait", queue.waiting.len());
        }
        assert_eq!(queue.bytes, 4 * cost(b"0123"));
        is_consistent(&queue);
    }

    #[test]
    fn what_is_begun_is_finished_and_the_oldest_behind_it_goes_first() {
        let mut queue = Queue::default();
        queue.push_latest(key(1), Bytes::from_static(b"one"));
        queue.advance(1);
        assert_eq!(queue.push_latest(key(1), Bytes::from_static(b"ONE")), 0);
        queue.push_latest(key(2), Bytes::from_static(b"two"));
        assert_eq!(queue.push_latest(key(1), Bytes::from_static(b"One")), 1);
        assert_eq!(frames(&queue), b"netwoOne");
        assert_eq!(&queue.drop_oldest().unwrap().frames[..], b"two");
        assert_eq!(frames(&queue), b"neOne");
        assert_eq!(queue.push_latest(key(1), Bytes::from_static(b"1")), 1);
        assert_eq!(queue.push_latest(key(2), Bytes::from_static(b"2")), 0);
        assert_eq!(frames(&queue), b"ne12");
        queue.advance(4);
        assert_eq!((queue.waiting.len(), queue.bytes), (0, 0));
        is_consistent(&queue);
    }
}
