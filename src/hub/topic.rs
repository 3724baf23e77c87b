//! A topic with subscribers on this node: who they are, and what waits to be delivered to them.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::PENDING;
use super::audience::Audience;
use super::batch::{Batch, Frames};
use super::followed::Followed;
use crate::config::BatchConfig;
use crate::message::{Publication, SessionId};
use crate::outbox::Outbox;
use crate::wire;
use crate::wire::deflate::Compression;

#[derive(Default)]
pub struct Topic {
    /// What fan-out walks. Empty slots are reused, so that a subscription's slot stays its own.
    pub(super) subscribers: Mutex<Subscribers>,
    /// The routes of the subscribers. Not under the lock that fan-out holds: publishers ask here.
    pub(super) audiences: Mutex<Audiences>,
    pub(super) pending: Mutex<Pending>,
    pub(super) room: Notify,
    /// More is pending, and the flusher may wait for that.
    pub(super) more: Notify,
    /// Where other nodes share the topic.
    pub(super) followed: Option<Followed>,
}

#[derive(Default)]
pub(super) struct Subscribers {
    slots: Vec<Option<Subscriber>>,
    free: Vec<u32>,
}

/// The subscribers' groups, and how many are of each.
#[derive(Default)]
pub(super) struct Audiences(Vec<Option<(Group, usize)>>);

/// Subscribers who get the same bytes: of one route, and with the same compression.
#[derive(Clone)]
pub(super) struct Group {
    pub audience: Arc<dyn Audience>,
    pub compression: Option<Compression>,
    /// Each session writes its own, whatever the route does: its transport has no frames that are shared.
    pub by_hand: bool,
    /// A slow one looks at each publication by itself.
    pub looks_at_each: bool,
    /// How long their deliveries may be gathered.
    pub window: Option<BatchConfig>,
}

pub(super) struct Subscriber {
    pub outbox: Arc<Outbox>,
    /// The first frame (counted from the topic's beginning) that is for this subscriber.
    pub from: u64,
    /// The place of its group among the topic's audiences.
    pub audience: u32,
}

impl Group {
    pub fn has_audience(&self, audience: &Arc<dyn Audience>) -> bool {
        std::ptr::eq(Arc::as_ptr(&self.audience).cast::<()>(), Arc::as_ptr(audience).cast())
    }

    fn is(&self, other: &Self) -> bool {
        self.has_audience(&other.audience)
            && (self.compression, self.by_hand, self.looks_at_each, self.window)
                == (other.compression, other.by_hand, other.looks_at_each, other.window)
    }

    /// Whether it gets other bytes than what lies in the pending buffer.
    pub fn is_special(&self) -> bool {
        self.compression.is_some() || self.needs_publications()
    }

    /// Whether they are made of the publications themselves.
    pub fn needs_publications(&self) -> bool {
        self.by_hand || self.audience.is_special()
    }
}

/// Groups whose deliveries are gathered.
pub(super) struct Windows {
    pub window: BatchConfig,
    gathers: Vec<bool>,
    /// There are no others.
    pub all: bool,
}

impl Windows {
    pub fn gathers(&self, place: u32) -> bool {
        self.gathers.get(place as usize).copied().unwrap_or_default()
    }
}

#[derive(Default)]
pub(super) struct Pending {
    frames: Vec<u8>,
    /// Where each frame ends.
    ends: Vec<u32>,
    /// Which frames are not for which session.
    excluded: Vec<(usize, SessionId)>,
    /// What the frames were made of, where an audience needs it; as long as `ends` or shorter.
    publications: Vec<Option<Arc<Publication>>>,
    /// The number of the first of these frames.
    first: u64,
    pub flushing: bool,
    /// So many publications are what the flusher waits for.
    wanted: Option<usize>,
}

impl Topic {
    /// Waits until the flusher has taken what was pending.
    pub async fn room(&self) {
        let room = self.room.notified();
        if self.pending.lock().bytes() > PENDING {
            room.await;
        }
    }

    /// Waits until so many are pending, or so many bytes that it is enough anyway.
    pub(super) async fn gathered(&self, messages: usize) {
        loop {
            let more = self.more.notified();
            {
                let mut pending = self.pending.lock();
                pending.wanted = Some(messages);
                if pending.is_wanted() {
                    return;
                }
            }
            more.await;
        }
    }

    /// Waits until nothing is pending, and what was is with the outboxes.
    pub(super) async fn idle(&self) {
        loop {
            let room = self.room.notified();
            if !self.pending.lock().flushing {
                return;
            }
            room.await;
        }
    }

    pub(super) fn subscribed(&self) -> usize {
        let subscribers = self.subscribers.lock();
        subscribers.slots.len() - subscribers.free.len()
    }
}

impl Subscribers {
    /// Slots, whether taken or not.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    pub fn range(&self, slots: std::ops::Range<usize>) -> impl Iterator<Item = &Subscriber> {
        self.slots[slots].iter().flatten()
    }

    pub fn get(&self, slot: usize) -> Option<&Subscriber> {
        self.slots.get(slot).and_then(Option::as_ref)
    }

    pub fn insert(&mut self, subscriber: Subscriber) -> u32 {
        if let Some(slot) = self.free.pop() {
            self.slots[slot as usize] = Some(subscriber);
            return slot;
        }
        self.slots.push(Some(subscriber));
        (self.slots.len() - 1) as u32
    }

    /// The place of the audience that the subscriber was of.
    pub fn remove(&mut self, slot: u32) -> Option<u32> {
        let gone = self.slots.get_mut(slot as usize).and_then(Option::take)?;
        self.free.push(slot);
        Some(gone.audience)
    }

    pub fn is_empty(&self) -> bool {
        self.free.len() == self.slots.len()
    }
}

impl Audiences {
    /// The place of a group, which has one subscriber more from now on.
    pub fn enter(&mut self, audience: &Arc<dyn Audience>, outbox: &Outbox) -> u32 {
        let group = Group {
            audience: audience.clone(),
            compression: outbox.shared_compression(),
            by_hand: outbox.by_hand(),
            looks_at_each: outbox.looks_at_each(),
            window: audience.window(),
        };
        let same = |known: &Option<(Group, usize)>| known.as_ref().is_some_and(|(known, _)| known.is(&group));
        let place = self.0.iter().position(same).or_else(|| self.0.iter().position(Option::is_none));
        let place = place.unwrap_or_else(|| {
            self.0.push(None);
            self.0.len() - 1
        });
        self.0[place].get_or_insert((group, 0)).1 += 1;
        place as u32
    }

    /// Whether some need the publications themselves, to make frames of their own.
    pub fn has_special(&self) -> bool {
        self.0.iter().flatten().any(|(group, _)| group.needs_publications() || group.looks_at_each)
    }

    /// Whose deliveries are gathered, by the places of their groups; none where nobody's are. The shortest window decides.
    pub fn windows(&self) -> Option<Windows> {
        let mut windows: Option<BatchConfig> = None;
        for (group, _) in self.0.iter().flatten() {
            if let Some(window) = group.window {
                let known = windows.get_or_insert(window);
                known.messages = known.messages.min(window.messages);
                known.time.0 = known.time.0.min(window.time.0);
            }
        }
        let gathers = |one: &Option<(Group, usize)>| one.as_ref().is_some_and(|(group, _)| group.window.is_some());
        windows.map(|window| Windows {
            window,
            gathers: self.0.iter().map(gathers).collect(),
            all: self.0.iter().flatten().all(|(group, _)| group.window.is_some()),
        })
    }

    /// The groups that get other bytes than the others, each at its place.
    pub fn special(&self) -> Vec<Option<Group>> {
        let special =
            |one: &Option<(Group, usize)>| one.as_ref().map(|(group, _)| group).filter(|one| one.is_special()).cloned();
        let has_special = self.0.iter().flatten().any(|(group, _)| group.is_special());
        if has_special { self.0.iter().map(special).collect() } else { Vec::new() }
    }

    /// One of the group's subscribers has gone.
    pub fn leave(&mut self, place: u32) {
        if let Some(audience) = self.0.get_mut(place as usize)
            && let Some((_, members)) = audience
        {
            *members -= 1;
            if *members == 0 {
                *audience = None;
            }
        }
    }
}

impl Pending {
    pub fn bytes(&self) -> usize {
        self.frames.len()
    }

    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Whether the flusher waits for as much as there is now.
    pub fn is_wanted(&self) -> bool {
        self.wanted.is_some_and(|wanted| self.ends.len() >= wanted || self.bytes() > PENDING / 2)
    }

    /// As `take`, for a flusher that goes on in any case.
    pub fn take_some(&mut self) -> Option<Batch> {
        if self.is_empty() { None } else { self.take() }
    }

    /// The number of the frame that comes next.
    pub fn next(&self) -> u64 {
        self.first + self.ends.len() as u64
    }

    /// `keep`: an audience needs the publication itself.
    pub fn push(&mut self, publication: &Arc<Publication>, keep: bool) {
        wire::message(&mut self.frames, publication.message.as_ref());
        let index = self.ends.len();
        self.ends.push(self.frames.len() as u32);
        self.excluded.extend(publication.exclude.iter().map(|session| (index, *session)));
        if keep {
            self.publications.resize(index, None);
            self.publications.push(Some(publication.clone()));
        }
    }

    /// The frames to flush now; None ends the flusher.
    pub fn take(&mut self) -> Option<Batch> {
        if self.ends.is_empty() {
            self.flushing = false;
            self.frames = Vec::new();
            return None;
        }
        self.wanted = None;
        let first = self.first;
        self.first += self.ends.len() as u64;
        // The next round is likely to be like this one.
        let capacity = self.frames.len().min(PENDING);
        let bytes = Bytes::from(std::mem::replace(&mut self.frames, Vec::with_capacity(capacity)));
        Some(Batch {
            common: Frames { bytes, ends: std::mem::take(&mut self.ends), lost: None, ready: false },
            excluded: std::mem::take(&mut self.excluded),
            publications: std::mem::take(&mut self.publications),
            first,
        })
    }
}
