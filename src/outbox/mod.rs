//! A session's bounded outgoing queue: straight to the socket while that keeps up, by policy when it does not.
//!
//! Whatever is written to a client goes through here, whole frames at a time and under one lock, so frames of different
//! writers never mix. While nothing waits, a write goes directly to the socket and leaves no trace in memory; only a
//! client that does not read owns a queue, and only its own task empties that.

mod line;
mod mailbox;
mod packer;
mod queue;

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::io::ReadBuf;

pub use self::line::{Line, Stream};
pub use self::mailbox::{Answer, Ask, Mailbox, Secret};
pub use self::packer::Packer;
use self::queue::{Queue, Waiting};
use crate::config::Overflow;
use crate::message::{Close, Closer, Message, Position, Publication, SessionId, TopicName};
use crate::upstream::Reply;
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

/// What others ask of a session; its own task does it.
#[derive(Debug)]
pub enum Request {
    Close(Close, Closer),
    /// Some route is not served any more: whose it is ends its session.
    RouteGone,
    Subscribe(TopicName),
    Unsubscribe(TopicName),
    /// Something was lost on a topic, which stands here now. Deliveries wait until the session has dealt with it.
    Gap(TopicName, Option<Position>),
    /// An upstream's answer, for this plugin and under this tag.
    Reply(Arc<str>, Box<str>, Reply),
    /// A message of the client's, which came by a request of its own.
    Posted(Message),
}

/// A request that was not taken: too many wait already.
#[derive(Debug, PartialEq, Eq)]
pub struct Busy;

/// Requests that may wait for one session.
const REQUESTS: usize = 64;
/// Requests to upstreams that one session may wait for.
const REPLIES: usize = 32;
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
    state: Mutex<State>,
}

/// A delivery that the session decides on; no publication: it was sent directly.
pub type Offer = (Option<Arc<Publication>>, Message);

#[derive(Default)]
struct Offers {
    waiting: VecDeque<Offer>,
    bytes: usize,
}

#[derive(Default)]
struct State {
    offers: Option<Box<Offers>>,
    /// None: nothing waits, and writes go to the socket.
    queue: Option<Box<Queue>>,
    requests: Vec<Request>,
    /// Answers of upstreams that are on their way, or among the requests.
    replies: usize,
    /// The session's task.
    waker: Option<Waker>,
    over: bool,
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
    ) -> Self {
        Self { id, line, limit, overflow, by_hand, packer: packer.map(Box::new), state: Mutex::default() }
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

    /// Hands the session a delivery.
    pub fn offer(&self, publication: Option<Arc<Publication>>, message: Message) -> Written {
        let mut state = self.state.lock();
        if state.over {
            return Written::Over;
        }
        let size = message.len() + size_of::<Offer>();
        let offers = state.offers.get_or_insert_default();
        let mut dropped = 0;
        if offers.bytes + size > self.limit {
            match self.overflow {
                Overflow::Disconnect => {
                    state.offers = None;
                    state.requests.insert(0, Request::Close(too_slow(), Closer::Gateway));
                    state.end();
                    return Written::Over;
                }
                Overflow::DropOldest if size <= self.limit => {
                    while offers.bytes + size > self.limit {
                        let Some((_, oldest)) = offers.waiting.pop_front() else { break };
                        offers.bytes -= oldest.len() + size_of::<Offer>();
                        dropped += 1;
                    }
                }
                Overflow::DropOldest | Overflow::DropNewest => return Written::Dropped(1),
            }
        }
        offers.bytes += size;
        offers.waiting.push_back((publication, message));
        state.wake();
        if dropped > 0 { Written::Dropped(dropped) } else { Written::Queued }
    }

    /// The next delivery that the session decides on.
    pub fn next_offer(&self) -> Option<Offer> {
        let mut state = self.state.lock();
        let offers = state.offers.as_mut()?;
        let next = offers.waiting.pop_front();
        match &next {
            Some((_, message)) => offers.bytes -= message.len() + size_of::<Offer>(),
            None => state.offers = None,
        }
        next
    }

    /// What may wait for the client, in bytes.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Writes whole frames that are shared with other sessions.
    pub fn deliver(&self, frames: &Bytes, messages: u32) -> Written {
        match &self.packer {
            None => self.deliver_ready(frames, messages),
            Some(packer) => self.pack(packer, frames, messages, true),
        }
    }

    /// The same, where what can be compressed for this session is.
    pub fn deliver_ready(&self, frames: &Bytes, messages: u32) -> Written {
        self.push(&mut self.state.lock(), frames, messages, || frames.clone(), true)
    }

    /// Writes whole frames from a buffer that is reused.
    pub fn write(&self, frames: &[u8], messages: u32) -> Written {
        match &self.packer {
            None => self.push(&mut self.state.lock(), frames, messages, || Bytes::copy_from_slice(frames), false),
            Some(packer) => self.pack(packer, frames, messages, false),
        }
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
                if let (true, Some(held)) = (delivery, &mut queue.held) {
                    if queue.bytes + frames.len() > self.limit {
                        return self.overflow(state, None, messages);
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
        if !rest.begun && queue.bytes + rest.frames.len() > self.limit {
            let messages = rest.messages;
            return self.overflow(state, Some(rest), messages);
        }
        queue.bytes += rest.frames.len();
        queue.waiting.push_back(rest);
        state.wake();
        self.line.wake();
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
                state.requests.insert(0, Request::Close(too_slow(), Closer::Gateway));
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
        self.state.lock().hold();
    }

    /// Tells the session of a gap on a topic. Deliveries wait until it has dealt with that, and `release`d.
    pub fn tell_gap(&self, topic: &TopicName, position: Option<Position>) {
        let mut state = self.state.lock();
        if state.over {
            return;
        }
        for request in &mut state.requests {
            if let Request::Gap(known, at) = request
                && known == topic
            {
                *at = position;
                return;
            }
        }
        state.hold();
        if state.requests.len() >= REQUESTS + REPLIES {
            let close = Close::new(Close::HISTORY_LOST, "what was missed is no longer kept: load the state anew");
            state.requests.insert(0, Request::Close(close, Closer::Gateway));
        } else {
            state.requests.push(Request::Gap(topic.clone(), position));
        }
        state.wake();
    }

    /// The event that subscribed has written its messages: deliveries follow them.
    pub fn release(&self) {
        let mut state = self.state.lock();
        let Some(queue) = &mut state.queue else { return };
        queue.holds = queue.holds.saturating_sub(1);
        if queue.holds > 0 {
            return;
        }
        queue.waiting.extend(queue.held.take().into_iter().flatten());
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
                return self.line.poll_flush(context);
            };
            if queue.waiting.is_empty() {
                if queue.held.is_none() {
                    state.queue = None;
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
        // An answer has its place since `await_reply`.
        let has_place = is_close(&request) || is_gone(&request) || matches!(request, Request::Reply(..));
        if state.requests.len() >= REQUESTS + REPLIES && !has_place {
            return Err(Busy);
        }
        state.requests.push(request);
        state.wake();
        Ok(())
    }

    /// The same for several, of which all are taken or none. False: the session is over.
    fn request_all(&self, requests: impl ExactSizeIterator<Item = Request>) -> Result<bool, Busy> {
        let mut state = self.state.lock();
        if state.over {
            return Ok(false);
        }
        if state.requests.len() + requests.len() > REQUESTS + REPLIES {
            return Err(Busy);
        }
        state.requests.extend(requests);
        state.wake();
        Ok(true)
    }

    /// What was asked since the last call, for the session's own task.
    pub fn requests(&self) -> Vec<Request> {
        let mut state = self.state.lock();
        let replies = state.requests.iter().filter(|request| matches!(request, Request::Reply(..))).count();
        state.replies -= replies.min(state.replies);
        std::mem::take(&mut state.requests)
    }

    /// Puts back what `requests` has given, before what was asked meanwhile.
    pub fn ask_again(&self, requests: impl Iterator<Item = Request>) {
        let mut state = self.state.lock();
        let meanwhile = std::mem::take(&mut state.requests);
        state.requests.extend(requests);
        state.replies += state.requests.iter().filter(|request| matches!(request, Request::Reply(..))).count();
        state.requests.extend(meanwhile);
        state.wake();
    }

    /// Keeps a place for an upstream's answer.
    pub fn await_reply(&self) -> Result<(), Busy> {
        let mut state = self.state.lock();
        if state.replies >= REPLIES {
            return Err(Busy);
        }
        state.replies += 1;
        Ok(())
    }

    /// No answer will come to the place that was kept last.
    pub fn expect_no_reply(&self) {
        let mut state = self.state.lock();
        state.replies = state.replies.saturating_sub(1);
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
                fetched.extend(queue.waiting.pop_front().map(|waiting| waiting.frames));
            }
            queue.bytes -= bytes;
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

fn too_slow() -> Close {
    Close::new(Close::TRY_LATER, "outbox full: the client reads too slowly")
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
