//! A session's bounded outgoing queue: straight to the socket while that keeps up, by policy when it does not.
//!
//! Whatever is written to a client goes through here, whole frames at a time and under one lock, so frames of different
//! writers never mix. While nothing waits, a write goes directly to the socket and leaves no trace in memory; only a
//! client that does not read owns a queue, and only its own task empties that.

mod line;
mod mailbox;
mod offers;
mod packer;
mod queue;
mod requests;
pub mod secret;
mod slow;

use std::io::{self, IoSlice};
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use parking_lot::Mutex;
use thin_vec::ThinVec;
use tokio::io::ReadBuf;

pub use self::line::{Line, Stream};
pub use self::mailbox::{Answer, Ask, Mailbox};
pub use self::offers::Offer;
use self::offers::Offers;
pub use self::packer::Packer;
use self::queue::{Queue, Waiting};
pub use self::requests::{Busy, Request};
pub use self::secret::Secret;
use self::slow::Missed;
pub use self::slow::{Piece, SlowCounters};
use crate::config::Overflow;
use crate::message::SessionId;
use crate::wire::deflate::{self, Compression};

/// What became of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// The kernel has it.
    Sent,
    /// It waits for the client.
    Queued,
    /// So many messages were dropped by the policy: this one or older ones.
    Dropped(u32),
    /// The session is over, or has been ended by the policy just now.
    Over,
}

/// Slices handed to the kernel in one call; its own limit is 1,024.
const SLICES: usize = 64;

pub struct Outbox {
    pub id: SessionId,
    line: Line,
    /// Bytes that may wait.
    limit: usize,
    overflow: Overflow,
    /// Deliveries are handed to the session, which asks its plugins before it writes them.
    by_hand: bool,
    packer: Option<Box<Packer>>,
    slow: SlowCounters,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    offers: Option<Box<Offers>>,
    /// None: nothing waits, and writes go to the socket.
    queue: Option<Box<Queue>>,
    /// Topics on which something did not fit.
    missed: Option<Box<Missed>>,
    requests: ThinVec<Request>,
    /// Answers of upstreams that are on their way, or among the requests.
    replies: usize,
    /// The session's task.
    waker: Option<Waker>,
    over: bool,
    /// It was full since something began to wait.
    was_full: bool,
    /// Nothing more will be written.
    finished: bool,
    /// Whoever fetches knows that.
    told: bool,
}

impl Outbox {
    /// `limit` is what may wait for the client, in bytes.
    pub fn new(
        id: SessionId,
        line: Line,
        limit: usize,
        overflow: Overflow,
        by_hand: bool,
        packer: Option<Packer>,
        slow: SlowCounters,
    ) -> Self {
        Self { id, line, limit, overflow, by_hand, packer: packer.map(Box::new), slow, state: Mutex::default() }
    }

    /// How deliveries can be compressed once for all who share them. None: they are not, or each session has a window of
    /// its own.
    pub fn shared_compression(&self) -> Option<Compression> {
        self.packer.as_ref().filter(|packer| packer.window.is_none()).map(|packer| packer.how)
    }

    /// Whether each delivery is compressed for this session alone.
    pub fn compresses_alone(&self) -> bool {
        self.packer.as_ref().is_some_and(|packer| packer.window.is_some())
    }

    /// Whether deliveries must be offered, instead of written.
    pub fn by_hand(&self) -> bool {
        self.by_hand
    }

    /// What may wait for the client, in bytes.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Writes whole frames that are shared with other sessions.
    pub fn deliver(&self, frames: &Bytes, messages: u32) -> Written {
        match &self.packer {
            None => self.deliver_ready(frames, messages),
            Some(packer) => self.counted(self.pack(packer, frames, messages, true)),
        }
    }

    /// The same, where what can be compressed for this session is.
    pub fn deliver_ready(&self, frames: &Bytes, messages: u32) -> Written {
        self.counted(self.push(&mut self.state.lock(), frames, messages, || frames.clone(), true))
    }

    /// Writes whole frames from a buffer that is reused.
    pub fn write(&self, frames: &[u8], messages: u32) -> Written {
        self.counted(match &self.packer {
            None => self.push(&mut self.state.lock(), frames, messages, || Bytes::copy_from_slice(frames), false),
            Some(packer) => self.pack(packer, frames, messages, false),
        })
    }

    fn pack(&self, packer: &Packer, frames: &[u8], messages: u32, delivery: bool) -> Written {
        let mut packed = Vec::with_capacity(frames.len());
        let Some(window) = &packer.window else {
            packer.count(deflate::compress(&mut packed, frames, packer.how));
            return self.push(&mut self.state.lock(), &packed, messages, || Bytes::copy_from_slice(&packed), delivery);
        };
        let mut state = self.state.lock();
        if state.over {
            return Written::Over;
        }
        let mut window = window.lock();
        // What waits may be dropped, and what is held is overtaken.
        let waits = state.queue.is_some();
        packer.count(window.compress(&mut packed, frames, packer.how, waits));
        let written = self.push(&mut state, &packed, messages, || Bytes::copy_from_slice(&packed), delivery);
        if matches!(written, Written::Dropped(_)) {
            window.lost();
        }
        written
    }

    fn push(
        &self,
        state: &mut State,
        frames: &[u8],
        messages: u32,
        keep: impl FnOnce() -> Bytes,
        delivery: bool,
    ) -> Written {
        if state.over {
            return Written::Over;
        }
        let sent = match &mut state.queue {
            Some(queue) => {
                if delivery && queue.held.is_some() {
                    if queue.bytes + queue::cost(frames) > self.limit {
                        return self.overflow(state, None, messages);
                    }
                    queue.hold_back(Waiting::delivery(keep(), messages));
                    return Written::Queued;
                }
                // Held deliveries alone do not stand in the way of the event's own messages.
                if queue.waiting.is_empty() { self.try_write(frames) } else { Ok(0) }
            }
            None => self.try_write(frames),
        };
        match sent {
            Ok(sent) if sent == frames.len() => Written::Sent,
            Ok(sent) => {
                let rest = keep().slice(sent..);
                let rest = Waiting { begun: sent > 0, own: !delivery, ..Waiting::delivery(rest, messages) };
                self.enqueue(state, rest)
            }
            Err(_) => {
                state.end();
                Written::Over
            }
        }
    }

    fn enqueue(&self, state: &mut State, rest: Waiting) -> Written {
        let queue = state.queue.get_or_insert_default();
        // A frame that was begun must be finished, whatever the limit says; it is one write at the most.
        if !rest.begun && queue.bytes + queue::cost(&rest.frames) > self.limit {
            let messages = rest.messages;
            return self.overflow(state, Some(rest), messages);
        }
        queue.push(rest);
        state.wake();
        self.line.wake();
        Written::Queued
    }

    /// From now on deliveries wait, until `release`.
    pub fn hold(&self) {
        self.state.lock().hold();
    }

    /// The event that subscribed has written its messages: deliveries follow them.
    pub fn release(&self) {
        let mut state = self.state.lock();
        let Some(queue) = &mut state.queue else { return };
        queue.holds = queue.holds.saturating_sub(1);
        if queue.holds > 0 {
            return;
        }
        queue.release();
        if queue.waiting.is_empty() {
            state.queue = None;
        } else {
            state.wake();
            self.line.wake();
        }
    }

    /// Writes what waits, as far as the socket takes it. Ready when nothing waits, or with the socket's error.
    pub fn poll_flush(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let mut state = self.state.lock();
            if !state.waker.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
                state.waker = Some(context.waker().clone());
            }
            let Some(queue) = &mut state.queue else {
                state.ask_for_missed();
                return self.line.poll_flush(context);
            };
            queue.trim();
            if queue.waiting.is_empty() {
                if queue.held.is_none() {
                    state.queue = None;
                    state.was_full = false;
                    state.ask_for_missed();
                }
                return self.line.poll_flush(context);
            }
            let slices: Vec<IoSlice<'_>> = queue.waiting.iter().take(SLICES).map(|w| IoSlice::new(&w.frames)).collect();
            match self.line.try_write_vectored(context, &slices) {
                Ok(0) => {
                    drop(state);
                    ready!(self.line.poll_writable(context))?;
                }
                Ok(sent) => queue.advance(sent),
                Err(error) => {
                    state.end();
                    return Poll::Ready(Err(error));
                }
            }
        }
    }

    /// What a turn begins with: `poll_flush`, and then `requests`. Most often there is neither, and one look is enough.
    pub fn poll_turn(&self, context: &mut Context<'_>) -> (Poll<io::Result<()>>, ThinVec<Request>) {
        let idle = {
            let state = self.state.lock();
            let known = state.waker.as_ref().is_some_and(|waker| waker.will_wake(context.waker()));
            known && state.queue.is_none() && state.missed.is_none() && state.requests.is_empty()
        };
        if idle {
            return (self.line.poll_flush(context), ThinVec::new());
        }
        (self.poll_flush(context), self.requests())
    }

    /// Bytes that wait for the client and that it has caused itself.
    pub fn own_backlog(&self) -> usize {
        let state = self.state.lock();
        let waiting = state.queue.iter().flat_map(|queue| &queue.waiting);
        waiting.filter(|waiting| waiting.own).map(|waiting| waiting.frames.len()).sum()
    }

    /// Nothing more is taken; what waits is still flushed.
    pub fn end(&self) {
        self.state.lock().end();
    }

    /// The last frame of all, after whatever waits. Only the session's own task calls this, after `end`.
    pub fn write_last(&self, frame: &[u8]) {
        let mut state = self.state.lock();
        let waits = state.queue.as_ref().is_some_and(|queue| !queue.waiting.is_empty());
        let sent = if waits { 0 } else { self.try_write(frame).unwrap_or(0) };
        if sent < frame.len() {
            let rest = Bytes::copy_from_slice(&frame[sent..]);
            let queue = state.queue.get_or_insert_default();
            queue.push(Waiting { begun: true, own: true, ..Waiting::delivery(rest, 0) });
            self.line.wake();
        }
    }

    /// Tells the client that nothing more will come.
    pub fn poll_shutdown(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.line.poll_shutdown(context)
    }

    /// Bytes of the client, where what carries them is no plain socket.
    pub fn poll_read(&self, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.line.poll_read(context, buffer)
    }

    /// Where the client's requests find this session, if it comes by requests.
    pub fn mailbox(&self) -> Option<&Mailbox> {
        self.line.mailbox()
    }

    /// Whether something waits for the client.
    pub fn is_waiting(&self) -> bool {
        self.state.lock().queue.as_ref().is_some_and(|queue| !queue.waiting.is_empty())
    }

    /// Takes what waits for the client, at most `limit` bytes unless the first piece alone is longer. None: the session is
    /// over, and nothing waits.
    pub fn poll_fetch(&self, context: &mut Context<'_>, limit: usize) -> Poll<Option<Vec<Bytes>>> {
        let mut state = self.state.lock();
        let mut fetched = Vec::new();
        if let Some(queue) = &mut state.queue {
            let mut bytes = 0;
            while let Some(front) = queue.waiting.front()
                && (fetched.is_empty() || bytes + front.frames.len() <= limit)
            {
                bytes += front.frames.len();
                fetched.extend(queue.pop().map(|waiting| waiting.frames).filter(|frames| !frames.is_empty()));
            }
        }
        if !fetched.is_empty() {
            // The session's task may wait for room.
            state.wake();
            return Poll::Ready(Some(fetched));
        }
        if state.finished {
            state.told = true;
            state.wake();
            return Poll::Ready(None);
        }
        self.line.await_more(context);
        Poll::Pending
    }

    /// Ready when whoever fetches has found the end.
    pub fn poll_told(&self, context: &mut Context<'_>) -> Poll<()> {
        let mut state = self.state.lock();
        if state.told {
            return Poll::Ready(());
        }
        state.waker = Some(context.waker().clone());
        Poll::Pending
    }

    /// Whoever fetches finds the end when it has fetched the rest.
    pub fn finish(&self) {
        self.state.lock().finished = true;
        self.line.wake();
    }

    fn try_write(&self, frames: &[u8]) -> io::Result<usize> {
        self.line.try_write(frames)
    }
}

impl State {
    fn hold(&mut self) {
        let queue = self.queue.get_or_insert_default();
        queue.holds += 1;
        queue.held.get_or_insert_default();
    }

    fn wake(&self) {
        if let Some(waker) = &self.waker {
            waker.wake_by_ref();
        }
    }

    fn end(&mut self) {
        self.over = true;
        self.wake();
    }
}
