//! What a node has to say of one topic's members, and what Redis knows of it. Nothing here waits or asks; who keeps a topic
//! does what the steps say, and says what came of it.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use crate::message::SessionId;
use crate::presence::Member;

/// Changes of one batch.
const BATCH: usize = 256;
/// Changes that wait in their order. What comes beyond, while Redis is gone, is found by looking at what it knows.
const PENDING: usize = 4_096;

/// A node's own members of a topic.
#[derive(Debug, Default)]
pub struct Own {
    seats: HashMap<SessionId, Seat>,
    /// Members that Redis knew, who left while it could not be told.
    left: HashMap<SessionId, Member>,
    /// Whose user or info may be another one than Redis knows.
    touched: HashSet<SessionId>,
    pending: VecDeque<Op>,
    /// Sent, and not answered yet: repeated until it is.
    under_way: Option<Batch>,
    known: Known,
    /// Ask Redis whether it still knows, though nothing has changed.
    verify: bool,
    /// The incarnation under which this topic is listed among the node's.
    listed: Option<u64>,
    incarnation: u64,
    /// Changes so far, and how many of them Redis has.
    queued: u64,
    acknowledged: u64,
}

#[derive(Debug)]
struct Seat {
    member: Member,
    /// Redis has had it.
    announced: bool,
}

/// The last batch that was done for the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    pub incarnation: u64,
    pub number: u64,
}

/// What Redis knows of this node's members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    /// All, with this batch as the last; or nothing, since there never was one.
    Upto(Option<Mark>),
    /// Nobody knows.
    Unsure,
}

impl Default for Known {
    fn default() -> Self {
        Self::Upto(None)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Op {
    pub session: SessionId,
    pub what: What,
    ticket: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// It is there. Told unless it was told before.
    Joined { member: Member, tell: bool },
    /// It has gone; None: Redis knows who that was.
    Left(Option<Member>),
    /// It had gone before Redis forgot it: told although nobody knows of it any more.
    Lost(Member),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    pub before: Option<Mark>,
    pub mark: Mark,
    pub ops: Vec<Op>,
    ticket: u64,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// List the topic among those of the node's incarnation; then say `listed`.
    List,
    /// Ask what Redis knows of this node; then say `looked`.
    Look,
    /// Send it; then say `sent`, or nothing, and it is sent again.
    Send(Batch),
    /// Take the topic from the list, and the node's mark from the topic; then say `forgotten`.
    Forget {
        listed: u64,
        mark: Option<Mark>,
    },
    Rest,
}

/// What Redis knows of this node on a topic.
#[derive(Debug, Default)]
pub struct Look {
    pub mark: Option<Mark>,
    /// The node was taken for dead: its members have been told to leave.
    pub buried: bool,
    pub sessions: Vec<SessionId>,
}

/// What came of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    Done,
    /// Redis knows something else than was thought.
    Lost,
}

impl Own {
    pub fn join(&mut self, member: Member) {
        let session = member.session;
        let what = What::Joined { member: member.clone(), tell: true };
        match self.seats.get_mut(&session) {
            Some(seat) => {
                seat.announced &= seat.member.user == member.user;
                seat.member = member;
            }
            None => {
                self.seats.insert(session, Seat { member, announced: false });
            }
        }
        self.left.remove(&session);
        self.push(session, what);
    }

    /// Whether it was there.
    pub fn leave(&mut self, session: SessionId) -> bool {
        let Some(seat) = self.seats.remove(&session) else { return false };
        self.touched.remove(&session);
        if seat.announced && self.known == Known::Unsure {
            self.left.insert(session, seat.member);
            self.queued += 1;
        } else {
            // Without a word in between Redis may have it or not; it knows.
            let member = seat.announced.then_some(seat.member);
            self.push(session, What::Left(member));
        }
        true
    }

    pub fn info(&self, session: SessionId) -> Option<Arc<str>> {
        Some(self.seats.get(&session)?.member.info.clone())
    }

    /// What must be acknowledged for all that was said so far to be known.
    pub fn ticket(&self) -> u64 {
        self.queued
    }

    pub fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    /// Changes that Redis does not have yet.
    pub fn behind(&self) -> usize {
        self.pending.len() + self.left.len() + self.under_way.as_ref().map_or(0, |batch| batch.ops.len())
    }

    /// Redis may have changed: see that it still knows.
    pub fn verify(&mut self) {
        self.verify = true;
    }

    pub fn is_listed(&self) -> bool {
        self.listed.is_some()
    }

    /// The list of the node's topics is gone: this one must be listed again.
    pub fn unlist(&mut self) {
        self.listed = None;
        self.verify = true;
    }

    /// Nothing is left of the topic on this node.
    pub fn is_spent(&self) -> bool {
        self.seats.is_empty() && self.behind() == 0 && self.listed.is_none()
    }

    fn push(&mut self, session: SessionId, what: What) {
        self.queued += 1;
        self.pending.push_back(Op { session, what, ticket: self.queued });
        if self.known == Known::Unsure || self.pending.len() > PENDING {
            self.doubt();
        }
    }

    /// From here on it must be looked at what Redis knows. What was to be said follows from that.
    pub fn doubt(&mut self) {
        self.known = Known::Unsure;
        let under_way = self.under_way.take().map(|batch| batch.ops).unwrap_or_default();
        for op in under_way.into_iter().chain(std::mem::take(&mut self.pending)) {
            match op.what {
                What::Joined { .. } if self.seats.contains_key(&op.session) => {
                    self.touched.insert(op.session);
                }
                What::Left(Some(member)) | What::Lost(member) if !self.seats.contains_key(&op.session) => {
                    self.left.insert(op.session, member);
                }
                What::Joined { .. } | What::Left(_) | What::Lost(_) => {}
            }
        }
    }

    /// The next step, as this incarnation of the node. `number` is for a new batch: no other has ever had it, since one that
    /// was given up may still be on its way.
    pub fn step(&mut self, incarnation: u64, number: u64) -> Step {
        if self.incarnation != incarnation {
            let first = std::mem::replace(&mut self.incarnation, incarnation) == 0;
            if !first {
                self.doubt();
            }
        }
        let idle = self.seats.is_empty() && self.behind() == 0 && self.known != Known::Unsure && !self.verify;
        if idle {
            return match (self.listed, self.known) {
                (None, _) => Step::Rest,
                (Some(listed), Known::Upto(mark)) => Step::Forget { listed, mark },
                (Some(_), Known::Unsure) => Step::Look,
            };
        }
        if self.listed != Some(incarnation) {
            return Step::List;
        }
        let Known::Upto(before) = self.known else { return Step::Look };
        if self.under_way.is_none() && (self.verify || !self.pending.is_empty()) {
            let ops: Vec<_> = self.pending.drain(..self.pending.len().min(BATCH)).collect();
            let ticket = if self.pending.is_empty() { self.queued } else { ops.last().map_or(0, |op| op.ticket) };
            self.verify = false;
            self.under_way = Some(Batch { before, mark: Mark { incarnation, number }, ops, ticket });
        }
        match &self.under_way {
            Some(batch) => Step::Send(batch.clone()),
            None => Step::Rest,
        }
    }

    pub fn listed(&mut self, incarnation: u64) {
        self.listed = Some(incarnation);
    }

    /// Works out what Redis must be told.
    pub fn looked(&mut self, look: Look) {
        // What came while it was asked is in the seats already.
        self.doubt();
        let known: HashSet<_> = look.sessions.into_iter().collect();
        let mut ops = Vec::new();
        for session in &known {
            if !self.seats.contains_key(session) {
                ops.push((*session, What::Left(self.left.remove(session))));
            }
        }
        for (session, seat) in &self.seats {
            if !known.contains(session) || self.touched.contains(session) {
                let tell = look.buried || !seat.announced;
                ops.push((*session, What::Joined { member: seat.member.clone(), tell }));
            }
        }
        // Last, so that the user's other sessions count.
        let forgotten = look.mark.is_none() && !look.buried;
        for (session, member) in self.left.drain() {
            // Of those whom it does not know their leave was told, unless it has forgotten all.
            if forgotten {
                ops.push((session, What::Lost(member)));
            }
        }
        self.touched.clear();
        let ticket = self.queued;
        self.pending = ops.into_iter().map(|(session, what)| Op { session, what, ticket }).collect();
        self.known = Known::Upto(look.mark);
        // The mark of this incarnation, although nothing may have changed.
        self.verify = true;
    }

    pub fn sent(&mut self, mark: Mark, sent: Sent) {
        let Some(batch) = self.under_way.take_if(|batch| batch.mark == mark) else { return };
        if sent == Sent::Lost {
            self.under_way = Some(batch);
            self.doubt();
            return;
        }
        self.known = Known::Upto(Some(mark));
        self.acknowledged = self.acknowledged.max(batch.ticket);
        for op in batch.ops {
            if let What::Joined { member, .. } = op.what
                && let Some(seat) = self.seats.get_mut(&op.session)
                && seat.member.user == member.user
            {
                seat.announced = true;
            }
        }
    }

    pub fn forgotten(&mut self) {
        self.listed = None;
        if self.seats.is_empty() && self.behind() == 0 {
            self.known = Known::Upto(None);
        } else {
            // Somebody came meanwhile, and the mark may be gone or not.
            self.doubt();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(number: u64, user: &str) -> Member {
        Member { session: SessionId { node: 1, number }, user: Some(user.into()), info: "".into() }
    }

    /// A Redis that does what the scripts do, for one node and without counting.
    #[derive(Default)]
    struct Store {
        mark: Option<Mark>,
        there: HashMap<SessionId, String>,
        buried: bool,
        told: Vec<String>,
    }

    impl Store {
        fn change(&mut self, batch: &Batch) -> Sent {
            if self.mark == Some(batch.mark) {
                return Sent::Done;
            }
            if self.mark != batch.before {
                return Sent::Lost;
            }
            self.mark = Some(batch.mark);
            self.buried = false;
            for op in &batch.ops {
                let number = op.session.number;
                match &op.what {
                    What::Joined { member, tell } => {
                        let user = member.user.as_deref().unwrap().to_owned();
                        if self.there.insert(op.session, user).is_none() && *tell {
                            self.told.push(format!("+{number}"));
                        }
                    }
                    What::Left(_) if self.there.remove(&op.session).is_some() => self.told.push(format!("-{number}")),
                    What::Left(_) => {}
                    What::Lost(_) => self.told.push(format!("-{number}")),
                }
            }
            Sent::Done
        }

        fn look(&self) -> Look {
            Look { mark: self.mark, buried: self.buried, sessions: self.there.keys().copied().collect() }
        }

        fn bury(&mut self) {
            let gone = self.there.drain().map(|(session, _)| format!("-{}", session.number));
            self.told.extend(gone);
            (self.mark, self.buried) = (None, true);
        }
    }

    /// Steps until nothing is left to do; `number` goes on.
    fn settle(own: &mut Own, store: &mut Store, incarnation: u64, number: &mut u64) {
        for _ in 0..100 {
            *number += 1;
            match own.step(incarnation, *number) {
                Step::Rest => return,
                Step::List => own.listed(incarnation),
                Step::Look => own.looked(store.look()),
                Step::Send(batch) => {
                    let sent = store.change(&batch);
                    own.sent(batch.mark, sent);
                }
                Step::Forget { .. } => {
                    store.mark = None;
                    own.forgotten();
                }
            }
        }
        panic!("it never rests: {own:?}");
    }

    #[test]
    fn who_comes_and_goes_is_told_once_and_nothing_is_left() {
        let (mut own, mut store, mut number) = (Own::default(), Store::default(), 0);
        own.join(member(1, "ann"));
        let ticket = own.ticket();
        assert!(own.acknowledged() < ticket);
        settle(&mut own, &mut store, 1, &mut number);
        assert!(own.acknowledged() >= ticket && own.behind() == 0);
        own.join(member(1, "ann"));
        own.join(member(2, "bob"));
        assert!(own.leave(member(1, "").session) && !own.leave(member(7, "").session));
        settle(&mut own, &mut store, 1, &mut number);
        own.leave(member(2, "").session);
        settle(&mut own, &mut store, 1, &mut number);
        assert_eq!(store.told, ["+1", "+2", "-1", "-2"]);
        assert!(own.is_spent() && store.mark.is_none() && store.there.is_empty());
    }

    #[test]
    fn an_answer_that_got_lost_changes_nothing() {
        let (mut own, mut store, mut number) = (Own::default(), Store::default(), 0);
        own.join(member(1, "ann"));
        own.listed(1);
        assert_eq!(own.step(1, 1), own.step(1, 2), "it is sent again as it was");
        let Step::Send(batch) = own.step(1, 3) else { panic!() };
        store.change(&batch);
        own.join(member(2, "bob"));
        settle(&mut own, &mut store, 1, &mut number);
        assert_eq!(store.told, ["+1", "+2"]);
    }

    #[test]
    fn a_batch_that_was_given_up_and_comes_late_is_found_out() {
        let (mut own, mut store, mut number) = (Own::default(), Store::default(), 10);
        own.join(member(1, "ann"));
        own.listed(1);
        let Step::Send(late) = own.step(1, 1) else { panic!() };
        own.doubt();
        assert_eq!(own.step(1, 2), Step::Look);
        own.looked(store.look());
        own.leave(member(1, "").session);
        let Step::Send(next) = own.step(1, 3) else { panic!() };
        assert_eq!(store.change(&late), Sent::Done);
        let sent = store.change(&next);
        assert_eq!(sent, Sent::Lost);
        own.sent(next.mark, sent);
        settle(&mut own, &mut store, 1, &mut number);
        assert_eq!(store.told, ["+1", "-1"]);
        assert!(own.is_spent());
    }

    #[test]
    fn a_redis_that_has_forgotten_all_is_told_quietly_what_it_knew() {
        let (mut own, mut store, mut number) = (Own::default(), Store::default(), 0);
        (1..=3).for_each(|number| own.join(member(number, "ann")));
        settle(&mut own, &mut store, 1, &mut number);
        store = Store::default();
        own.doubt();
        own.leave(member(2, "").session);
        own.join(member(4, "bob"));
        settle(&mut own, &mut store, 1, &mut number);
        assert_eq!(store.told.iter().collect::<HashSet<_>>(), HashSet::from([&"-2".to_owned(), &"+4".to_owned()]));
        assert_eq!(store.there.len(), 3);
        let ticket = own.ticket();
        assert!(own.acknowledged() >= ticket);
    }

    #[test]
    fn a_node_that_was_taken_for_dead_comes_back_with_all_its_members() {
        let (mut own, mut store, mut number) = (Own::default(), Store::default(), 0);
        (1..=2).for_each(|number| own.join(member(number, "ann")));
        settle(&mut own, &mut store, 1, &mut number);
        store.bury();
        store.told.clear();
        own.leave(member(1, "").session);
        settle(&mut own, &mut store, 2, &mut number);
        assert_eq!(store.told, ["+2"], "the leave of the first was told when the node was buried");
        assert_eq!(store.mark.map(|mark| mark.incarnation), Some(2));
        // Nobody had buried it this time.
        store.told.clear();
        settle(&mut own, &mut store, 3, &mut number);
        assert!(store.told.is_empty() && store.mark.is_some_and(|mark| mark.incarnation == 3));
    }

    #[test]
    fn what_waits_is_bounded_and_comes_right() {
        let (mut own, mut store, mut number) = (Own::default(), Store::default(), 0);
        for round in 0..3 * PENDING as u64 {
            own.join(member(round % 100, "ann"));
            if round % 3 == 0 {
                own.leave(member(round % 100, "").session);
            }
            assert!(own.pending.len() <= PENDING && own.touched.len() <= own.seats.len());
        }
        settle(&mut own, &mut store, 1, &mut number);
        assert_eq!(store.there.len(), own.seats.len());
        assert!(own.seats.keys().all(|session| store.there.contains_key(session)));
    }
}
