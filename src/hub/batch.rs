//! One round of a topic's flusher: frames that lie side by side, and how a subscriber gets those that are for it.

use std::sync::Arc;

use bytes::Bytes;

use super::audience::Shaped;
use super::topic::{Group, Subscriber};
use crate::message::{Close, Closer, Publication, SessionId};
use crate::metrics::Metrics;
use crate::outbox::{Offer, Piece, Request, Written};
use crate::wire;
use crate::wire::deflate::{self, Compression};

/// Bytes that are compressed before others have a turn: some 2 ms.
const TURN: usize = 64 << 10;

/// The publications of one round.
pub struct Batch {
    /// What all subscribers share, unless their route has frames of its own.
    pub common: Frames,
    /// Which frames are not for which session.
    pub excluded: Vec<(usize, SessionId)>,
    /// What the frames were made of, where that was kept.
    pub publications: Vec<Option<Arc<Publication>>>,
    /// The number of the first frame.
    pub first: u64,
}

/// Frames that are shared.
pub struct Frames {
    pub bytes: Bytes,
    /// Where each frame ends; a frame without a byte is nobody's.
    pub ends: Vec<u32>,
    /// From this one on there is nothing, and the subscribers must learn that.
    pub lost: Option<usize>,
    /// Compressed, where that is agreed on.
    pub ready: bool,
}

/// What a group of subscribers gets.
pub enum Shape {
    /// What was published.
    Common,
    /// Frames of its own.
    Frames(Frames),
    /// Each session decides for itself. None: nothing.
    OneByOne(Vec<Option<Offer>>, Option<usize>),
}

/// What all groups of a topic's subscribers get; by default what was published.
#[derive(Default)]
pub struct Shapes {
    /// The first is `Common`.
    made: Vec<Shape>,
    /// Which of them the group at a place gets; those that are not named get the first.
    of: Vec<usize>,
}

impl Shapes {
    fn push(&mut self, shape: Shape) -> usize {
        self.made.push(shape);
        self.made.len() - 1
    }

    /// Who came meanwhile has a later place in the topic than all that is delivered in this round.
    fn of(&self, place: u32) -> &Shape {
        let made = self.of.get(place as usize).copied().unwrap_or_default();
        self.made.get(made).unwrap_or(&Shape::Common)
    }
}

#[derive(Default)]
pub struct Tally {
    pub delivered: u64,
    /// Bytes that were compressed for one subscriber each.
    pub compressed: usize,
}

impl Batch {
    /// How many publications these are.
    pub fn len(&self) -> usize {
        self.common.ends.len()
    }

    /// Takes the next round's publications as well, which are those right behind.
    pub fn append(&mut self, next: Self) {
        let (bytes, count) = (self.common.bytes.len() as u32, self.common.ends.len());
        self.common.bytes = [&self.common.bytes[..], &next.common.bytes[..]].concat().into();
        self.common.ends.extend(next.common.ends.iter().map(|end| end + bytes));
        self.excluded.extend(next.excluded.iter().map(|(index, session)| (index + count, *session)));
        if !next.publications.is_empty() {
            self.publications.resize(count, None);
            self.publications.extend(next.publications);
        }
    }

    /// What each of the groups gets. Each audience is asked once, and each shape compressed once for each way to.
    pub async fn shapes(&self, groups: &[Option<Group>], metrics: &Metrics) -> Shapes {
        let mut shapes = Shapes { made: vec![Shape::Common], of: Vec::with_capacity(groups.len()) };
        for (place, group) in groups.iter().enumerate() {
            let made = match group {
                Some(group) if group.needs_publications() => {
                    let like = |one: &Group| one.by_hand == group.by_hand && one.has_audience(&group.audience);
                    let same = |one: &Option<Group>| one.as_ref().is_some_and(like);
                    match groups[..place].iter().position(same) {
                        Some(known) => shapes.of[known],
                        None => shapes.push(self.shape(group).await),
                    }
                }
                _ => 0,
            };
            shapes.of.push(made);
        }
        let mut known: Vec<((usize, Compression), usize)> = Vec::new();
        for (place, group) in groups.iter().enumerate() {
            let Some(how) = group.as_ref().and_then(|group| group.compression) else { continue };
            let plain = shapes.of[place];
            if let Some((_, compressed)) = known.iter().find(|(key, _)| *key == (plain, how)) {
                shapes.of[place] = *compressed;
                continue;
            }
            let frames = match &shapes.made[plain] {
                Shape::Common => self.common.compressed(how, metrics).await,
                Shape::Frames(frames) => frames.compressed(how, metrics).await,
                // Each session writes its own.
                Shape::OneByOne(..) => continue,
            };
            shapes.of[place] = shapes.push(Shape::Frames(frames));
            known.push(((plain, how), shapes.of[place]));
        }
        shapes
    }

    /// Asks an audience what it gets.
    async fn shape(&self, group: &Group) -> Shape {
        let (audience, count) = (&*group.audience, self.common.ends.len());
        // An audience that has become a special one only now has nothing to make its frames of, in this round.
        if self.publications.len() < count || self.publications.iter().any(Option::is_none) {
            return if group.by_hand { self.unframed() } else { Shape::Common };
        }
        let (mut messages, mut lost) = (Vec::with_capacity(count), None);
        for (index, publication) in self.publications.iter().flatten().enumerate() {
            match audience.shape(publication).await {
                Shaped::Message(message) => messages.push(Some((Some(publication.clone()), message))),
                Shaped::Nothing => messages.push(None),
                Shaped::Lost => {
                    lost = Some(index);
                    break;
                }
            }
        }
        messages.resize(count, None);
        if group.by_hand || audience.one_by_one() {
            return Shape::OneByOne(messages, lost);
        }
        let (mut bytes, mut ends) = (Vec::with_capacity(self.common.bytes.len()), Vec::with_capacity(count));
        for message in &messages {
            if let Some((_, message)) = message {
                wire::message(&mut bytes, message.as_ref());
            }
            ends.push(bytes.len() as u32);
        }
        Shape::Frames(Frames { bytes: bytes.into(), ends, lost, ready: false })
    }

    /// The messages in the common frames, for sessions that write their own.
    fn unframed(&self) -> Shape {
        let mut rest = &self.common.bytes[..];
        let message = |index: usize| {
            let message = wire::take_message(&mut rest)?;
            let publication = self.publications.get(index).cloned().flatten();
            Some((publication, message))
        };
        Shape::OneByOne((0..self.common.ends.len()).map(message).collect(), None)
    }

    pub fn deliver(&self, subscriber: &Subscriber, shapes: &Shapes, tally: &mut Tally) {
        let shape = shapes.of(subscriber.audience);
        let skip = subscriber.from.saturating_sub(self.first) as usize;
        let end = self.common.ends.len();
        if skip >= end {
            return;
        }
        let lost = match shape {
            Shape::Common => None,
            Shape::Frames(frames) => frames.lost,
            Shape::OneByOne(_, lost) => *lost,
        };
        let end = lost.unwrap_or(end).max(skip);
        let session = subscriber.outbox.id;
        match shape {
            Shape::Common => self.pieces(&self.common, skip..end, subscriber, tally),
            Shape::Frames(frames) => self.pieces(frames, skip..end, subscriber, tally),
            Shape::OneByOne(messages, _) => {
                for (index, one) in messages[..end].iter().enumerate().skip(skip) {
                    if let Some((publication, message)) = one
                        && !self.excluded.contains(&(index, session))
                    {
                        let written = subscriber.outbox.offer(publication.clone(), message.clone());
                        tally.count(written, 1);
                    }
                }
            }
        }
        if lost.is_some_and(|lost| !self.excluded.contains(&(lost, session))) {
            let close = Close::new(Close::INTERNAL, "a publication could not be delivered");
            // A close is always taken.
            let _ = subscriber.outbox.request(Request::Close(close, Closer::Gateway));
        }
    }

    fn pieces(&self, frames: &Frames, range: std::ops::Range<usize>, subscriber: &Subscriber, tally: &mut Tally) {
        let session = subscriber.outbox.id;
        let mut begin = range.start;
        for &(index, excluded) in &self.excluded {
            if excluded == session && (begin..range.end).contains(&index) {
                frames.run(begin, index, &self.publications, subscriber, tally);
                begin = index + 1;
            }
        }
        frames.run(begin, range.end, &self.publications, subscriber, tally);
    }
}

impl Frames {
    async fn compressed(&self, how: Compression, metrics: &Metrics) -> Self {
        let (mut bytes, mut ends) = (Vec::with_capacity(self.bytes.len() / 2), Vec::with_capacity(self.ends.len()));
        let (mut begin, mut turn) = (0, 0);
        for &end in &self.ends {
            let frame = &self.bytes[begin..end as usize];
            let sizes = deflate::compress(&mut bytes, frame, how);
            metrics.compressed.0.inc_by(sizes.plain);
            metrics.compressed.1.inc_by(sizes.compressed);
            ends.push(bytes.len() as u32);
            begin = end as usize;
            turn += frame.len();
            if turn >= TURN {
                turn = 0;
                tokio::task::yield_now().await;
            }
        }
        Self { bytes: bytes.into(), ends, lost: self.lost, ready: true }
    }

    /// Frames `begin..end`, which lie side by side, in pieces that an outbox has room for: a full one drops by its policy,
    /// and not a whole round at once.
    fn run(
        &self,
        mut begin: usize,
        end: usize,
        publications: &[Option<Arc<Publication>>],
        subscriber: &Subscriber,
        tally: &mut Tally,
    ) {
        let room = subscriber.outbox.limit() / 2;
        while begin < end {
            let from = if begin == 0 { 0 } else { self.ends[begin - 1] as usize };
            let fits = self.ends[begin..end].partition_point(|frame_end| *frame_end as usize - from <= room);
            let piece_end = begin + fits.max(1);
            let to = self.ends[piece_end - 1] as usize;
            let (count, piece) = ((piece_end - begin) as u32, begin..piece_end);
            begin = piece_end;
            if from == to {
                continue;
            }
            let part = if from == 0 && to == self.bytes.len() { &self.bytes } else { &self.bytes.slice(from..to) };
            let kept = publications.get(piece.clone()).filter(|_| subscriber.outbox.looks_at_each());
            let written = match (kept, self.ready) {
                (Some(publications), ready) => {
                    let ends = &self.ends[piece];
                    subscriber.outbox.deliver_each(&Piece {
                        frames: part,
                        ends,
                        begin: from as u32,
                        publications,
                        ready,
                    })
                }
                (None, true) => subscriber.outbox.deliver_ready(part, count),
                (None, false) => subscriber.outbox.deliver(part, count),
            };
            if !self.ready && subscriber.outbox.compresses_alone() {
                tally.compressed += part.len();
            }
            tally.count(written, count);
            if written == Written::Over {
                return;
            }
        }
    }
}

impl Tally {
    fn count(&mut self, written: Written, messages: u32) {
        match written {
            // An outbox counts itself what it drops.
            Written::Sent | Written::Queued | Written::Dropped(_) => self.delivered += u64::from(messages),
            Written::Over => {}
        }
    }
}
