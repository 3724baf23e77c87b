//! Follows a topic through what Redis delivers: what is next, what was there already, what is missing. Nothing here waits
//! or asks; who follows a topic does what the answers say.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use crate::broker::{Arrival, Mark, Stretch};
use crate::message::Publication;

/// What may wait, in bytes, while a hole is filled. What comes then is read from the history in its turn.
const WAITING: usize = 1 << 20;
/// What a publication that waits costs beside its message.
const OVERHEAD: usize = 256;

/// Where a node is in a topic.
#[derive(Debug, Default)]
pub struct Follow {
    /// The last publication that was delivered here, or was there before. None: not known yet.
    at: Option<Mark>,
    /// The last of those that a history keeps, where it was delivered here.
    kept: Option<Kept>,
    phase: Phase,
    waiting: VecDeque<Arrival>,
    bytes: usize,
    /// Something did not fit among those that wait.
    overrun: bool,
}

/// What tells a publication from another one that has its place in a history that went on without it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Kept {
    offset: u64,
    sequence: u64,
    time: u64,
}

impl Kept {
    fn of(arrival: &Arrival) -> Self {
        let Mark { offset, sequence, .. } = arrival.mark;
        Self { offset, sequence, time: arrival.publication.time }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// What is missing must be read, and nobody does.
    #[default]
    Behind,
    /// The same, and somebody does. So many of those that wait had arrived before.
    Reading(usize),
    /// The next one is delivered when it arrives.
    Live,
}

/// What to do with an arrival.
#[derive(Debug)]
pub enum Step {
    Deliver(Arc<Publication>),
    /// It was there already.
    Repeated,
    /// It waits; somebody reads what comes before it.
    Waits,
    /// It waits, and what comes before it must be read.
    Read,
}

/// What came out of reading what was missing.
#[derive(Debug, Default)]
pub struct Found {
    pub deliver: Vec<Arc<Publication>>,
    /// Of those how many were read, and did not arrive.
    pub filled: u64,
    /// After these something is lost. Call `resume` when the subscribers know.
    pub gap: bool,
    /// There is more to read.
    pub again: bool,
}

impl Follow {
    pub fn at(&self) -> Option<Mark> {
        self.at
    }

    pub fn is_live(&self) -> bool {
        self.phase == Phase::Live
    }

    pub fn is_behind(&self) -> bool {
        self.phase == Phase::Behind
    }

    pub fn arrived(&mut self, arrival: Arrival) -> Step {
        if let (Phase::Live, Some(at)) = (self.phase, self.at) {
            match place(at, arrival.mark) {
                Place::Next => return Step::Deliver(self.take(arrival)),
                Place::Past => return Step::Repeated,
                Place::Beyond => {
                    self.phase = Phase::Behind;
                    self.keep(arrival);
                    return Step::Read;
                }
            }
        }
        self.keep(arrival);
        if self.phase == Phase::Behind { Step::Read } else { Step::Waits }
    }

    /// An arrival that there is no room for: it is read when there is.
    pub fn refuse(&mut self) -> Step {
        self.overrun = true;
        match self.phase {
            Phase::Reading(_) => Step::Waits,
            Phase::Behind => Step::Read,
            Phase::Live => {
                self.phase = Phase::Behind;
                Step::Read
            }
        }
    }

    /// From now on nothing arrives, or something has got lost: what is missing must be read once it does.
    pub fn lose(&mut self) {
        self.phase = Phase::Behind;
    }

    /// Somebody reads what comes after the mark, from now on.
    pub fn begin_read(&mut self) -> Option<Mark> {
        self.phase = Phase::Reading(self.waiting.len());
        self.overrun = false;
        self.at
    }

    /// Takes in what was read. Without effect where the reader was overtaken by `lose`.
    pub fn read(&mut self, stretch: Stretch) -> Found {
        let Phase::Reading(arrived_before) = self.phase else { return Found { again: true, ..Found::default() } };
        let mut found = Found::default();
        let Stretch { mark, arrivals, there } = stretch;
        let Some(at) = self.at else {
            self.at = Some(mark);
            self.finish(arrived_before, &mut found);
            return found;
        };
        // A replica that has become the master may lack the end of what was delivered here, and may have gone on from there.
        let kept = self.kept.filter(|kept| kept.offset == at.offset);
        let is_other = kept.zip(there).is_some_and(|(kept, there)| kept != Kept::of(&there));
        if mark.epoch != at.epoch || mark.sequence < at.sequence || mark.offset < at.offset || is_other {
            self.at = Some(mark);
            found.gap = true;
            return found;
        }
        // A full answer ends before the mark.
        let last = arrivals.last().map(|last| last.mark).filter(|last| last.offset < mark.offset);
        let end = last.map_or(mark.sequence, |last| last.sequence);
        let read = arrivals.into_iter().map(|one| (one, true));
        let waiting = self.waiting.iter().filter(|one| one.mark.epoch == at.epoch).map(|one| (one.clone(), false));
        let mut missing = BTreeMap::new();
        for (arrival, was_read) in read.chain(waiting) {
            if (at.sequence + 1..=end).contains(&arrival.mark.sequence) {
                // What has arrived too goes before: it counts as not missed.
                missing.insert(arrival.mark.sequence, (arrival, was_read));
            }
        }
        for (sequence, (arrival, was_read)) in missing {
            if self.at.is_none_or(|at| at.sequence + 1 != sequence) {
                break;
            }
            found.filled += u64::from(was_read);
            let publication = self.take(arrival);
            found.deliver.push(publication);
        }
        if self.at.is_some_and(|at| at.sequence < end) {
            self.at = Some(mark);
            found.gap = true;
            return found;
        }
        if last.is_some() {
            found.again = true;
            return found;
        }
        // Its offset may have grown by one that somebody has sent without history since.
        self.at = Some(mark);
        self.finish(arrived_before, &mut found);
        found
    }

    /// The subscribers know of the gap: what has arrived since follows.
    pub fn resume(&mut self) -> Found {
        let mut found = Found::default();
        if let Phase::Reading(arrived_before) = self.phase {
            self.finish(arrived_before, &mut found);
        } else {
            found.again = true;
        }
        found
    }

    /// Goes on with those that wait.
    fn finish(&mut self, arrived_before: usize, found: &mut Found) {
        let mut number = 0;
        while let Some(at) = self.at
            && let Some(first) = self.waiting.front()
        {
            number += 1;
            let beyond = match place(at, first.mark) {
                Place::Past => false,
                Place::Next => {
                    if let Some(next) = self.pop() {
                        let next = self.take(next);
                        found.deliver.push(next);
                    }
                    continue;
                }
                Place::Beyond => number > arrived_before,
            };
            if beyond {
                found.again = true;
                break;
            }
            // Past, or of an epoch that was over when the topic was read.
            self.pop();
        }
        found.again |= self.overrun;
        self.phase = if found.again { Phase::Reading(0) } else { Phase::Live };
    }

    fn take(&mut self, arrival: Arrival) -> Arc<Publication> {
        let Mark { epoch, sequence, offset } = arrival.mark;
        let before = self.at.map_or(0, |at| at.offset);
        let is_kept = arrival.publication.position.is_some();
        if is_kept {
            self.kept = Some(Kept::of(&arrival));
        }
        let offset = if is_kept { offset } else { before };
        self.at = Some(Mark { epoch, sequence, offset });
        arrival.publication
    }

    fn keep(&mut self, arrival: Arrival) {
        let bytes = arrival.publication.message.len() + OVERHEAD;
        if self.overrun || self.bytes + bytes > WAITING {
            self.overrun = true;
            return;
        }
        self.bytes += bytes;
        self.waiting.push_back(arrival);
    }

    fn pop(&mut self) -> Option<Arrival> {
        let first = self.waiting.pop_front()?;
        self.bytes -= first.publication.message.len() + OVERHEAD;
        Some(first)
    }
}

enum Place {
    Past,
    Next,
    Beyond,
}

fn place(at: Mark, mark: Mark) -> Place {
    if mark.epoch != at.epoch || mark.sequence > at.sequence + 1 {
        Place::Beyond
    } else if mark.sequence == at.sequence + 1 {
        Place::Next
    } else {
        Place::Past
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{MessageRef, Position, TopicName};

    /// A topic as Redis has it.
    #[derive(Clone)]
    struct Topic {
        mark: Mark,
        time: u64,
        kept: VecDeque<Arrival>,
        size: usize,
    }

    impl Topic {
        fn new(epoch: u64, size: usize) -> Self {
            Self { mark: Mark { epoch, sequence: 0, offset: 0 }, time: 0, kept: VecDeque::new(), size }
        }

        fn publish(&mut self, keep: bool) -> Arrival {
            self.mark.sequence += 1;
            self.mark.offset += u64::from(keep);
            let position = keep.then_some(Position { epoch: self.mark.epoch, offset: self.mark.offset });
            let publication = Publication {
                topic: TopicName::parse("t").unwrap(),
                message: MessageRef::Text(&format!("{}:{}", self.mark.epoch, self.mark.sequence)).to_owned(),
                position,
                time: self.time,
                key: None,
                metadata: Vec::new(),
                exclude: Vec::new(),
            };
            let mark = Mark { offset: position.map_or(0, |position| position.offset), ..self.mark };
            let arrival = Arrival { mark, publication: Arc::new(publication) };
            if keep {
                self.kept.push_back(arrival.clone());
                while self.kept.len() > self.size {
                    self.kept.pop_front();
                }
            }
            arrival
        }

        fn missed(&self, after: Option<Mark>, limit: usize) -> Stretch {
            let after = after.map_or(u64::MAX, |after| if after.epoch == self.mark.epoch { after.offset } else { 0 });
            let arrivals = self.kept.iter().filter(|one| one.mark.offset > after).take(limit).cloned().collect();
            let there = self.kept.iter().find(|one| one.mark.offset == after).cloned();
            Stretch { mark: self.mark, arrivals, there }
        }
    }

    /// Reads until the topic is live, and says what was delivered, with `-` for a gap.
    fn catch_up(follow: &mut Follow, topic: &Topic, limit: usize, delivered: &mut Vec<String>) {
        for _ in 0..100 {
            let after = follow.begin_read();
            let mut found = follow.read(topic.missed(after, limit));
            delivered.extend(found.deliver.iter().map(text));
            if found.gap {
                delivered.push("-".to_owned());
                found = follow.resume();
                delivered.extend(found.deliver.iter().map(text));
            }
            if !found.again {
                assert!(follow.is_live());
                return;
            }
        }
        panic!("it never ends");
    }

    fn text(publication: &Arc<Publication>) -> String {
        match &publication.message {
            crate::message::Message::Text(text) => text.as_str().to_owned(),
            crate::message::Message::Binary(_) => panic!("text went in"),
        }
    }

    fn take(follow: &mut Follow, arrival: Arrival, delivered: &mut Vec<String>) -> bool {
        match follow.arrived(arrival) {
            Step::Deliver(publication) => delivered.push(text(&publication)),
            Step::Read => return true,
            Step::Repeated | Step::Waits => {}
        }
        false
    }

    #[test]
    fn what_comes_in_order_is_delivered_and_what_comes_twice_is_not() {
        let (mut topic, mut follow, mut delivered) = (Topic::new(1, 10), Follow::default(), Vec::new());
        topic.publish(true);
        catch_up(&mut follow, &topic, 10, &mut delivered);
        let (a, b) = (topic.publish(true), topic.publish(false));
        for arrival in [&a, &a, &b, &a, &b] {
            assert!(!take(&mut follow, arrival.clone(), &mut delivered));
        }
        assert_eq!(delivered, ["1:2", "1:3"]);
        assert_eq!(follow.at(), Some(Mark { epoch: 1, sequence: 3, offset: 2 }));
    }

    #[test]
    fn a_hole_is_filled_before_anything_later() {
        let (mut topic, mut follow, mut delivered) = (Topic::new(1, 10), Follow::default(), Vec::new());
        catch_up(&mut follow, &topic, 10, &mut delivered);
        topic.publish(true);
        topic.publish(true);
        let third = topic.publish(false);
        assert!(take(&mut follow, third, &mut delivered), "it waits, and the two before it are read");
        let fourth = topic.publish(true);
        follow.begin_read();
        assert!(!take(&mut follow, fourth, &mut delivered));
        catch_up(&mut follow, &topic, 1, &mut delivered);
        assert_eq!(delivered, ["1:1", "1:2", "1:3", "1:4"], "the third was kept nowhere, but it had arrived");
    }

    #[test]
    fn what_no_history_keeps_is_a_gap() {
        let (mut topic, mut follow, mut delivered) = (Topic::new(1, 2), Follow::default(), Vec::new());
        catch_up(&mut follow, &topic, 10, &mut delivered);
        topic.publish(false);
        follow.lose();
        catch_up(&mut follow, &topic, 10, &mut delivered);
        assert_eq!(delivered, ["-"]);
        (0..3).for_each(|_| drop(topic.publish(true)));
        follow.lose();
        catch_up(&mut follow, &topic, 10, &mut delivered);
        assert_eq!(delivered, ["-", "-"], "the history keeps two");
        follow.lose();
        catch_up(&mut follow, &topic, 10, &mut delivered);
        assert_eq!(delivered, ["-", "-"], "nothing was missed");
    }

    #[test]
    fn a_new_epoch_is_a_gap_and_the_old_one_is_over() {
        let (mut old, mut follow, mut delivered) = (Topic::new(1, 10), Follow::default(), Vec::new());
        catch_up(&mut follow, &old, 10, &mut delivered);
        old.publish(true);
        let stale = old.publish(true);
        let mut new = Topic::new(2, 10);
        let (first, second) = (new.publish(true), new.publish(true));
        assert!(take(&mut follow, stale, &mut delivered));
        take(&mut follow, first, &mut delivered);
        let after = follow.begin_read();
        let stretch = new.missed(after, 10);
        let third = new.publish(true);
        take(&mut follow, second, &mut delivered);
        take(&mut follow, third, &mut delivered);
        let found = follow.read(stretch);
        assert!(found.gap && found.deliver.is_empty());
        let found = follow.resume();
        assert_eq!(found.deliver.iter().map(text).collect::<Vec<_>>(), ["2:3"]);
        assert!(!found.again && follow.is_live());
    }

    /// A replica that has become the master, and lacks the end of what its master had delivered.
    #[test]
    fn a_history_that_went_on_without_what_was_delivered_is_a_gap() {
        for (lost, new) in [(1, 0), (1, 1), (1, 2), (2, 2), (2, 5), (3, 3)] {
            let (mut master, mut follow, mut delivered) = (Topic::new(1, 10), Follow::default(), Vec::new());
            catch_up(&mut follow, &master, 10, &mut delivered);
            take(&mut follow, master.publish(true), &mut delivered);
            let mut replica = Topic { time: 1, ..master.clone() };
            for _ in 0..lost {
                take(&mut follow, master.publish(true), &mut delivered);
            }
            (0..new).for_each(|_| drop(replica.publish(true)));
            follow.lose();
            catch_up(&mut follow, &replica, 10, &mut delivered);
            assert_eq!(delivered.last().map(String::as_str), Some("-"), "{lost} lost, {new} new: {delivered:?}");
            take(&mut follow, replica.publish(true), &mut delivered);
            assert_eq!(delivered.last(), Some(&format!("1:{}", new + 2)));
            follow.lose();
            catch_up(&mut follow, &replica, 10, &mut delivered);
            assert_eq!(delivered.iter().filter(|one| *one == "-").count(), 1, "it is told once");
        }
    }

    #[test]
    fn what_waits_is_bounded_and_nothing_is_lost_by_it() {
        let (mut topic, mut follow, mut delivered) = (Topic::new(1, 100_000), Follow::default(), Vec::new());
        catch_up(&mut follow, &topic, 10, &mut delivered);
        drop(topic.publish(true));
        for _ in 0..10_000 {
            take(&mut follow, topic.publish(true), &mut delivered);
        }
        assert!(follow.bytes <= WAITING && follow.waiting.len() < 5_000);
        catch_up(&mut follow, &topic, 1_000, &mut delivered);
        assert_eq!(delivered.len(), 10_001);
        assert!((1..).zip(&delivered).all(|(n, text)| *text == format!("1:{n}")));
        assert_eq!(follow.bytes, 0);
    }

    /// Links that lose, repeat and break; histories that are too short; a Redis that forgets. What is delivered between
    /// two gaps has no hole, nothing comes twice, and the end is always reached.
    #[test]
    fn whatever_happens_nothing_is_missing_in_silence() {
        let mut random = 88_172_645_463_325_252_u64;
        let mut next = move |below: u64| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random % below
        };
        for round in 0..400 {
            let mut epoch = 1;
            let mut topic = Topic::new(epoch, 1 + next(12) as usize);
            let (mut follow, mut delivered) = (Follow::default(), Vec::new());
            catch_up(&mut follow, &topic, 4, &mut delivered);
            let mut link: VecDeque<Arrival> = VecDeque::new();
            for _ in 0..200 {
                match next(20) {
                    0..=8 => {
                        let keep = next(8) > 0;
                        let arrival = topic.publish(keep);
                        link.push_back(arrival);
                    }
                    9..=15 => {
                        if let Some(arrival) = link.pop_front() {
                            if next(10) == 0 {
                                link.push_front(arrival.clone());
                            }
                            take(&mut follow, arrival, &mut delivered);
                        }
                    }
                    16 => {
                        // The link breaks: what was on it is gone.
                        link.clear();
                        follow.lose();
                    }
                    17 => {
                        epoch += 1;
                        topic = Topic::new(epoch, 1 + next(12) as usize);
                    }
                    _ if follow.is_behind() => {
                        let after = follow.begin_read();
                        let stretch = topic.missed(after, 4);
                        // Meanwhile.
                        link.push_back(topic.publish(true));
                        if let Some(arrival) = link.pop_front() {
                            take(&mut follow, arrival, &mut delivered);
                        }
                        let mut found = follow.read(stretch);
                        delivered.extend(found.deliver.iter().map(text));
                        if found.gap {
                            delivered.push("-".to_owned());
                            found = follow.resume();
                            delivered.extend(found.deliver.iter().map(text));
                        }
                        if found.again {
                            follow.lose();
                        }
                    }
                    _ => {}
                }
            }
            link.clear();
            follow.lose();
            catch_up(&mut follow, &topic, 4, &mut delivered);
            assert_eq!(follow.at(), Some(topic.mark), "round {round}");
            let mut before: Option<(u64, u64)> = None;
            let mut seen = std::collections::HashSet::new();
            for one in &delivered {
                let Some((epoch, sequence)) = one.split_once(':') else {
                    before = None;
                    continue;
                };
                let one: (u64, u64) = (epoch.parse().unwrap(), sequence.parse().unwrap());
                assert!(seen.insert(one), "round {round}: {one:?} twice in {delivered:?}");
                if let Some(before) = before {
                    assert_eq!(one, (before.0, before.1 + 1), "round {round}: {delivered:?}");
                }
                before = Some(one);
            }
        }
    }
}
