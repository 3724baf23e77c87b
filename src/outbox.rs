//! A session's bounded outgoing queue: straight to the socket while that keeps up, by policy when it does not.
//!
//! Whatever is written to a client goes through here, whole frames at a time and under one lock, so frames of different
//! writers never mix. While nothing waits, a write goes directly to the socket and leaves no trace in memory; only a
//! client that does not read owns a queue, and only its own task empties that.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::net::tcp::OwnedWriteHalf;

use crate::config::Overflow;
use crate::message::{Close, Closer, SessionId, TopicName};

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

/// What others ask of a session; its own task does it.
#[derive(Debug)]
pub enum Request {
    Close(Close, Closer),
    /// Some route is not served any more: whose it is ends its session.
    RouteGone,
    Subscribe(TopicName),
    Unsubscribe(TopicName),
}

/// A request that was not taken: too many wait already.
#[derive(Debug, PartialEq, Eq)]
pub struct Busy;

/// Requests that may wait for one session.
const REQUESTS: usize = 64;
/// Slices handed to the kernel in one call; its own limit is 1,024.
const SLICES: usize = 64;

pub struct Outbox {
    pub id: SessionId,
    socket: OwnedWriteHalf,
    /// Bytes that may wait.
    limit: usize,
    overflow: Overflow,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// None: nothing waits, and writes go to the socket.
    queue: Option<Box<Queue>>,
    requests: Vec<Request>,
    /// The session's task.
    waker: Option<Waker>,
    over: bool,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Waiting>,
    bytes: usize,
    /// Deliveries wait here until the event that subscribed has written its own messages.
    held: Option<Vec<Waiting>>,
}

struct Waiting {
    frames: Bytes,
    messages: u32,
    /// The first of these frames is partly written already: dropping it would break the stream.
    begun: bool,
    /// The session's own event wrote it, not somebody else's publication.
    own: bool,
}

impl Outbox {
    /// `limit` is what may wait for the client, in bytes.
    pub fn new(id: SessionId, socket: OwnedWriteHalf, limit: usize, overflow: Overflow) -> Self {
        Self { id, socket, limit, overflow, state: Mutex::default() }
    }

    /// What may wait for the client, in bytes.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Writes whole frames that are shared with other sessions.
    pub fn deliver(&self, frames: &Bytes, messages: u32) -> Written {
        self.push(frames, messages, || frames.clone(), true)
    }

    /// Writes whole frames from a buffer that is reused.
    pub fn write(&self, frames: &[u8], messages: u32) -> Written {
        self.push(frames, messages, || Bytes::copy_from_slice(frames), false)
    }

    fn push(&self, frames: &[u8], messages: u32, keep: impl FnOnce() -> Bytes, delivery: bool) -> Written {
        let mut state = self.state.lock();
        if state.over {
            return Written::Over;
        }
        let sent = match &mut state.queue {
            Some(queue) => {
                if let (true, Some(held)) = (delivery, &mut queue.held) {
                    if queue.bytes + frames.len() > self.limit {
                        return self.overflow(&mut state, None, messages);
                    }
                    queue.bytes += frames.len();
                    held.push(Waiting { frames: keep(), messages, begun: false, own: false });
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
                let rest = Waiting { frames: keep().slice(sent..), messages, begun: sent > 0, own: !delivery };
                self.enqueue(&mut state, rest)
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
        if !rest.begun && queue.bytes + rest.frames.len() > self.limit {
            let messages = rest.messages;
            return self.overflow(state, Some(rest), messages);
        }
        queue.bytes += rest.frames.len();
        queue.waiting.push_back(rest);
        state.wake();
        Written::Queued
    }

    fn overflow(&self, state: &mut State, newest: Option<Waiting>, messages: u32) -> Written {
        let Some(queue) = &mut state.queue else {
            return Written::Dropped(messages);
        };
        match (self.overflow, newest) {
            (Overflow::Disconnect, _) => {
                queue.waiting.retain(|waiting| waiting.begun);
                queue.held = None;
                queue.bytes = queue.waiting.iter().map(|waiting| waiting.frames.len()).sum();
                let why = Close::new(Close::TRY_LATER, "outbox full: the client reads too slowly");
                state.requests.insert(0, Request::Close(why, Closer::Gateway));
                state.end();
                Written::Over
            }
            (Overflow::DropOldest, Some(newest)) if newest.frames.len() <= self.limit => {
                let mut dropped = 0;
                while queue.bytes + newest.frames.len() > self.limit {
                    let oldest = usize::from(queue.waiting.front().is_some_and(|waiting| waiting.begun));
                    let Some(oldest) = queue.waiting.remove(oldest) else {
                        break;
                    };
                    queue.bytes -= oldest.frames.len();
                    dropped += oldest.messages;
                }
                queue.bytes += newest.frames.len();
                queue.waiting.push_back(newest);
                Written::Dropped(dropped)
            }
            _ => Written::Dropped(messages),
        }
    }

    /// From now on deliveries wait, until `release`.
    pub fn hold(&self) {
        let mut state = self.state.lock();
        state.queue.get_or_insert_default().held.get_or_insert_default();
    }

    /// The event that subscribed has written its messages: deliveries follow them.
    pub fn release(&self) {
        let mut state = self.state.lock();
        let Some(queue) = &mut state.queue else { return };
        queue.waiting.extend(queue.held.take().into_iter().flatten());
        if queue.waiting.is_empty() {
            state.queue = None;
        } else {
            state.wake();
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
                return Poll::Ready(Ok(()));
            };
            if queue.waiting.is_empty() {
                if queue.held.is_none() {
                    state.queue = None;
                }
                return Poll::Ready(Ok(()));
            }
            let slices: Vec<IoSlice<'_>> = queue.waiting.iter().take(SLICES).map(|w| IoSlice::new(&w.frames)).collect();
            match self.socket.try_write_vectored(&slices) {
                Ok(sent) => queue.advance(sent),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    drop(state);
                    ready!(self.socket.as_ref().poll_write_ready(context))?;
                }
                Err(error) => {
                    state.end();
                    return Poll::Ready(Err(error));
                }
            }
        }
    }

    /// Bytes that wait for the client and that it has caused itself.
    pub fn own_backlog(&self) -> usize {
        let state = self.state.lock();
        let waiting = state.queue.iter().flat_map(|queue| &queue.waiting);
        waiting.filter(|waiting| waiting.own).map(|waiting| waiting.frames.len()).sum()
    }

    /// Asks the session's task to do something.
    pub fn request(&self, request: Request) -> Result<(), Busy> {
        let mut state = self.state.lock();
        if state.over {
            return Ok(());
        }
        let is_close = |request: &Request| matches!(request, Request::Close(..));
        let is_gone = |request: &Request| matches!(request, Request::RouteGone);
        // A close is always taken, once: it ends all that waits.
        let closes = is_close(&request) && state.requests.iter().any(is_close);
        if closes || (is_gone(&request) && state.requests.iter().any(is_gone)) {
            return Ok(());
        }
        if state.requests.len() >= REQUESTS && !is_close(&request) && !is_gone(&request) {
            return Err(Busy);
        }
        state.requests.push(request);
        state.wake();
        Ok(())
    }

    /// What was asked since the last call, for the session's own task.
    pub fn requests(&self) -> Vec<Request> {
        std::mem::take(&mut self.state.lock().requests)
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
            queue.bytes += rest.len();
            queue.waiting.push_back(Waiting { frames: rest, messages: 0, begun: true, own: true });
        }
    }

    /// Tells the client that nothing more will come.
    pub fn shutdown(&self) -> io::Result<()> {
        Ok(rustix::net::shutdown(self.socket.as_ref(), rustix::net::Shutdown::Write)?)
    }

    fn try_write(&self, frames: &[u8]) -> io::Result<usize> {
        match self.socket.try_write(frames) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
            result => result,
        }
    }
}

impl State {
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

impl Queue {
    fn advance(&mut self, mut sent: usize) {
        self.bytes -= sent;
        while let Some(front) = self.waiting.front_mut() {
            if sent < front.frames.len() {
                if sent > 0 {
                    let _ = front.frames.split_to(sent);
                    front.begun = true;
                }
                return;
            }
            sent -= front.frames.len();
            self.waiting.pop_front();
        }
    }
}
