//! A topic with subscribers on this node: who they are, and what waits to be delivered to them.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::PENDING;
use super::audience::Audience;
use super::batch::{Batch, Frames};
use super::followed::Followed;
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

    /// Whether it gets other bytes than what lies in the pending buffer.
    pub fn is_special(&self) -> bool {
        self.compression.is_some() || self.needs_publications()
    }

    /// Whether they are made of the publications themselves.
    pub fn needs_publications(&self) -> bool {
        self.by_hand || self.audience.is_special()
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
}

impl Topic {
    /// Waits until the flusher has taken what was pending.
    pub async fn room(&self) {
        let room = self.room.notified();
        if self.pending.lock().bytes() > PENDING {
            room.await;
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
        let (compression, by_hand) = (outbox.shared_compression(), outbox.by_hand());
        let same = |known: &Option<(Group, usize)>| {
            let like = |known: &Group| known.compression == compression && known.by_hand == by_hand;
            known.as_ref().is_some_and(|(known, _)| like(known) && known.has_audience(audience))
        };
        let place = self.0.iter().position(same).or_else(|| self.0.iter().position(Option::is_none));
        let place = place.unwrap_or_else(|| {
            self.0.push(None);
            self.0.len() - 1
        });
        self.0[place].get_or_insert_with(|| (Group { audience: audience.clone(), compression, by_hand }, 0)).1 += 1;
        place as u32
    }

    /// Whether some need the publications themselves, to make frames of their own.
    pub fn has_special(&self) -> bool {
        self.0.iter().flatten().any(|(group, _)| group.needs_publications())
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
