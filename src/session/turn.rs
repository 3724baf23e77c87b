//! A turn: what waits goes out, what is due is done, what has arrived is read and handled, and written at once.

use std::cell::Cell;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use thin_vec::ThinVec;
use tokio::io::ReadBuf;

use super::batch::Batch;
use super::{After, KEEP, Next, READ, Session, Task, Waiting, Work};
use crate::config::RateExceeded;
use crate::message::{Close, Closer, MessageRef};
use crate::outbox::Request;
use crate::plugin::{Chain, Event, Hook, Patience, Verdict, Warm};
use crate::route::Rules;
use crate::transport::websocket::{Decoder, Flow, Frame};
use crate::wire::{self, opcode};

/// A thread's buffers, which the session whose turn it is uses.
pub(super) struct Scratch {
    read: Box<[u8]>,
    pub(super) out: Vec<u8>,
    pub(super) event: Option<Box<Event>>,
    /// Messages of this read that are not handled yet, if the chain takes them together.
    pub(super) batch: Batch,
    gathers: bool,
    /// Messages and bytes that are not in the route's counters yet.
    received: (u64, u64),
    /// Messages that were sent and are not there yet either.
    sent: u64,
    pub(super) warm: Warm,
}

/// What has become of an event within the turn.
pub(super) enum Handled {
    Over,
    /// The plugins have answered, and what they ask for may have to wait.
    Asks(Box<Event>),
    /// It was not over when it was polled.
    Lost,
}

thread_local! {
    static SCRATCH: Cell<Option<Box<Scratch>>> = const { Cell::new(None) };
}

impl Session {
    /// Ready when something has to be awaited, or the session ends.
    pub(super) fn poll_turn(&mut self, context: &mut Context<'_>) -> Poll<Next> {
        let mut scratch = SCRATCH.take().unwrap_or_else(|| {
            Box::new(Scratch {
                read: vec![0; READ].into(),
                out: Vec::new(),
                event: None,
                batch: Batch::default(),
                gathers: false,
                received: (0, 0),
                sent: 0,
                warm: Warm::default(),
            })
        });
        let next = self.poll_with(context, &mut scratch);
        scratch.out.clear();
        scratch.out.shrink_to(KEEP);
        scratch.warm.give_back();
        SCRATCH.set(Some(scratch));
        next
    }

    fn poll_with(&mut self, context: &mut Context<'_>, scratch: &mut Scratch) -> Poll<Next> {
        loop {
            let (flushed, requests) = self.outbox.poll_turn(context);
            if let Poll::Ready(Err(_)) = flushed {
                return Poll::Ready(self.broken(requests));
            }
            if !requests.is_empty()
                && let Some(next) = self.requests(requests, scratch)
            {
                return Poll::Ready(next);
            }
            if self.alarm.poll(context).is_ready() {
                if let Some(next) = self.alarmed(context, scratch) {
                    return Poll::Ready(next);
                }
                // Polled again, so that the new deadline wakes this task.
                continue;
            }
            if flushed.is_ready() && self.outbox.by_hand() {
                match self.offers(context, scratch) {
                    Poll::Ready(Some(next)) => return Poll::Ready(next),
                    Poll::Ready(None) => {}
                    Poll::Pending => return Poll::Pending,
                }
            }
            if let Some(topic) = self.congested.take() {
                return Poll::Ready(Next::Room(topic));
            }
            if self.decoder.has_left() {
                // Frames that a waiting event stopped; or the beginning of one, which this leaves as it is.
                if let Some(next) = self.take_in(&mut [], scratch) {
                    return Poll::Ready(next);
                }
            }
            // A client that does not take what it caused gets no more of it.
            if flushed.is_pending() && self.stalls() {
                return Poll::Pending;
            }
            if std::mem::take(&mut self.greedy) {
                // By way of the runtime's own queue, so that sockets are looked at before this session's next turn.
                let _ = pin!(tokio::task::yield_now()).poll(context);
                return Poll::Pending;
            }
            match self.read(context, scratch) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(next)) => return Poll::Ready(next),
                // What has come of it wakes this task, where anything waits. Most often there is nothing more to read, and
                // to ask for that is all that is left to do.
                Poll::Ready(None) if !self.greedy && self.congested.is_none() && !self.outbox.by_hand() => {
                    if let Some(next) = std::task::ready!(self.read(context, scratch)) {
                        return Poll::Ready(next);
                    }
                    // A client that is as quick as this loop would have its thread for itself.
                    self.greedy = true;
                }
                Poll::Ready(None) => {}
            }
        }
    }

    /// One read of what is there, and the events in it. None: it was handled.
    fn read(&mut self, context: &mut Context<'_>, scratch: &mut Scratch) -> Poll<Option<Next>> {
        let mut buffer = ReadBuf::new(&mut scratch.read);
        let count = match self.reader.poll_read(&self.outbox, context, &mut buffer) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Ok(())) => buffer.filled().len(),
            Poll::Ready(Err(_)) => 0,
        };
        if count == 0 {
            return Poll::Ready(Some(self.broken(self.outbox.requests())));
        }
        self.pulse.heard(self.clock().now());
        self.greedy = count == scratch.read.len();
        let mut read = std::mem::take(&mut scratch.read);
        let next = self.take_in(&mut read[..count], scratch);
        scratch.read = read;
        Poll::Ready(next)
    }

    /// Whether the client does not take what it has caused. Nothing is read from it then, so whatever it sends is no sign of
    /// life: it would have been heard if it had read anything since its ping.
    pub(super) fn stalls(&self) -> bool {
        self.outbox.own_backlog() > self.outbox.limit() / 2
    }

    fn broken(&self, requests: ThinVec<Request>) -> Next {
        // A full outbox has ended the session already, and says why.
        let asked = requests.into_iter().find_map(|request| match request {
            Request::Close(close, by) => Some(Next::End(close, by)),
            _ => None,
        });
        asked.unwrap_or_else(|| Next::End(Close::new(Close::BROKEN, "the connection broke"), Closer::Network))
    }

    /// Handles the frames in what was read, and writes what they caused at once.
    fn take_in(&mut self, read: &mut [u8], scratch: &mut Scratch) -> Option<Next> {
        let mut decoder = std::mem::take(&mut self.decoder);
        let (rules, chain) = (self.route.route.rules(), self.route.chain.load());
        let mut next = None;
        scratch.gathers = chain.batches() && !self.outbox.by_hand();
        let fed = decoder.feed(read, rules.message_limit, |frame| {
            next = self.frame(frame, &rules, &chain, scratch);
            if scratch.out.len() > KEEP {
                self.write_out(scratch);
            }
            if next.is_some() || self.congested.is_some() { Flow::Stop } else { Flow::Next }
        });
        scratch.gathers = false;
        self.decoder = decoder;
        if let Err(violation) = fed {
            if let Some(why) = violation.inflation() {
                let refused = &self.applier.node.metrics.inflate_refused;
                refused.with_label_values(&[&*self.route.route.name, why]).inc();
            }
            self.decoder = Decoder::default();
            next = Some(Next::End(Close::new(violation.code(), &violation.to_string()), Closer::Gateway));
        }
        // What came before the end of a session is handled before it.
        next = match (self.gathered(&chain, scratch), next) {
            (Some(Next::Await(waiting)), Some(Next::End(close, by))) => {
                self.ends(close, by);
                Some(Next::Await(waiting))
            }
            (Some(gathered), _) => Some(gathered),
            (None, next) => next,
        };
        self.count(scratch);
        self.write_out(scratch);
        next
    }

    /// What was received and answered goes into the route's counters, once for all of it.
    pub(super) fn count(&self, scratch: &mut Scratch) {
        let (messages, bytes) = std::mem::take(&mut scratch.received);
        if messages > 0 {
            self.route.route.counters.received.inc_by(messages);
            self.route.route.counters.received_bytes.inc_by(bytes);
        }
        let sent = std::mem::take(&mut scratch.sent);
        if sent > 0 {
            self.route.route.counters.sent.inc_by(sent);
        }
    }

    fn frame(&mut self, frame: Frame<'_>, rules: &Rules, chain: &Arc<Chain>, scratch: &mut Scratch) -> Option<Next> {
        match frame {
            Frame::Message(message) => self.message(message, rules, chain, scratch),
            Frame::Inflated(message, compressed) => {
                let (before, after) = &self.applier.node.metrics.inflated;
                before.inc_by(compressed as u64);
                after.inc_by(message.len() as u64);
                self.message(message, rules, chain, scratch)
            }
            Frame::Ping(payload) => {
                if let Some(end) = self.controlled() {
                    return Some(end);
                }
                wire::frame(&mut scratch.out, opcode::PONG, payload);
                None
            }
            Frame::Pong(payload) => {
                if let Some(took) = self.pulse.pong(payload, self.clock().now()) {
                    self.route.route.counters.round_trips.observe(took.as_secs_f64());
                    return None;
                }
                self.controlled()
            }
            Frame::Close(close) => Some(Next::End(close, Closer::Client)),
        }
    }

    pub(super) fn message(
        &mut self,
        message: MessageRef<'_>,
        rules: &Rules,
        chain: &Arc<Chain>,
        scratch: &mut Scratch,
    ) -> Option<Next> {
        if let (Some((ping, pong)), MessageRef::Text(text)) = (&rules.heartbeat_text, &message)
            && **ping == **text
        {
            let end = self.controlled();
            if end.is_none() {
                self.encode(&mut scratch.out, None, MessageRef::Text(pong));
            }
            return end;
        }
        if let Some(rate) = rules.rate
            && !self.bucket.take(rate, self.applier.node.clock.now())
        {
            let exceeded = &self.applier.node.metrics.rate_exceeded;
            exceeded.with_label_values(&[&*self.route.route.name, "message"]).inc();
            let code = match rules.rate_exceeded {
                RateExceeded::Close => Close::POLICY,
                RateExceeded::TryLater => Close::TRY_LATER,
                RateExceeded::Drop => return None,
            };
            let why = format!("more than {} messages a second", rate.per_second);
            return Some(Next::End(Close::new(code, &why), Closer::Gateway));
        }
        scratch.received.0 += 1;
        scratch.received.1 += message.len() as u64;
        if scratch.gathers { self.gather(message, chain, scratch) } else { self.one(message, chain, scratch) }
    }

    /// A message for the chain's `inbound`.
    pub(super) fn one(&mut self, message: MessageRef<'_>, chain: &Arc<Chain>, scratch: &mut Scratch) -> Option<Next> {
        if !chain.waits()
            && let Some(handled) = self.inbound_now(message, chain, scratch)
        {
            return self.handled(handled, chain, scratch);
        }
        self.now_or_next(Task::Inbound(message), scratch)
    }

    pub(super) fn handled(&mut self, handled: Handled, chain: &Arc<Chain>, scratch: &mut Scratch) -> Option<Next> {
        match handled {
            Handled::Over => self.after_event(scratch),
            Handled::Asks(event) => Some(Next::Await(Box::new(Waiting::Asked(event, chain.clone())))),
            Handled::Lost => Some(self.lost_event()),
        }
    }

    /// Counts what is answered without a plugin. Too much of it ends the session.
    fn controlled(&mut self) -> Option<Next> {
        let rate = self.route.route.rules().control_rate;
        if self.control.take(rate, self.applier.node.clock.now()) {
            return None;
        }
        let exceeded = &self.applier.node.metrics.rate_exceeded;
        exceeded.with_label_values(&[&*self.route.route.name, "control"]).inc();
        let why = format!("more than {} pings and pongs a second", rate.per_second);
        Some(Next::End(Close::new(Close::POLICY, &why), Closer::Gateway))
    }

    /// Handles an event within the turn, or leaves it to be awaited.
    pub(super) fn now_or_next(&mut self, task: Task<'_>, scratch: &mut Scratch) -> Option<Next> {
        scratch.warm.give_back();
        let chain = self.route.chain.load();
        // What others ask for calls no plugin.
        let calls =
            chain.has(Hook::Subscription) || !matches!(task, Task::Subscribe(_) | Task::Unsubscribe(_) | Task::Gap(..));
        let asks_redis = matches!(task, Task::Subscribe(_) | Task::Missed(..)) && self.applier.node.hub.waits();
        if asks_redis || (calls && (chain.waits() || self.applier.waits())) {
            return Some(Next::Await(task.into_owned()));
        }
        let spare = Some(&mut scratch.event);
        if !is_over(self.handle(task, &chain, Patience::None, &mut scratch.out, spare)) {
            return Some(self.lost_event());
        }
        self.after_event(scratch)
    }

    /// Nothing in such a chain waits, so this is a mistake of the gateway's; the session's state is gone with it.
    fn lost_event(&self) -> Next {
        tracing::error!(session = %self.outbox.id, "an event that cannot wait did: please report this");
        Next::End(Close::new(Close::INTERNAL, "internal error"), Closer::Gateway)
    }

    fn after_event(&mut self, scratch: &mut Scratch) -> Option<Next> {
        if self.holds || self.holds_for_gap {
            self.write_out(scratch);
            self.release();
        }
        self.ending.take().map(|ending| {
            let (close, by) = *ending;
            self.write_out(scratch);
            Next::End(close, by)
        })
    }

    /// A message of the client's, without a future around it as long as its effects are small ones. None: it has to go the
    /// usual way, and nothing has happened.
    fn inbound_now(&mut self, message: MessageRef<'_>, chain: &Chain, scratch: &mut Scratch) -> Option<Handled> {
        if self.outbox.by_hand() {
            return None;
        }
        let mut event = scratch.event.take().unwrap_or_default();
        event.session = Some(self.state.take()?);
        event.patience = Patience::None;
        let mut event = Some(event);
        let Some(called) = chain.inbound_now(&mut event, message, &mut scratch.warm) else {
            scratch.event = self.take_back(event);
            return None;
        };
        match called {
            Ok(verdict) => self.answered(event, std::iter::once((verdict, message)), chain, scratch),
            Err(failure) => {
                self.failed("inbound", &failure);
                scratch.event = self.take_back(event);
                Some(Handled::Over)
            }
        }
    }

    /// Goes on with what the plugins have answered to messages.
    pub(super) fn answered<'a>(
        &mut self,
        mut event: Option<Box<Event>>,
        verdicts: impl Iterator<Item = (Verdict, MessageRef<'a>)>,
        chain: &Chain,
        scratch: &mut Scratch,
    ) -> Option<Handled> {
        let mut work = Work { chain, out: &mut scratch.out, after: After::default(), sent: 0 };
        for (verdict, message) in verdicts {
            self.passed(verdict, message, &mut event, &mut work);
        }
        if !self.apply_small(&mut event, &mut work) {
            // A publication's hook may be this plugin's as well.
            scratch.warm.give_back();
            if self.applier.waits() {
                return event.map(Handled::Asks);
            }
            let over = is_over(async {
                self.apply_asked(&mut event, &mut work).await;
                if !work.after.is_empty() {
                    self.follow_up(&mut event, &mut work).await;
                }
            });
            if !over {
                return Some(Handled::Lost);
            }
        }
        scratch.sent += work.sent;
        scratch.event = self.take_back(event);
        Some(Handled::Over)
    }

    pub(super) fn write_out(&mut self, scratch: &mut Scratch) {
        let out = std::mem::take(&mut scratch.out);
        self.write(&out);
        scratch.out = out;
        scratch.out.clear();
    }
}

/// Polls once what cannot wait.
fn is_over(handled: impl Future<Output = ()>) -> bool {
    let mut context = Context::from_waker(std::task::Waker::noop());
    pin!(handled).poll(&mut context).is_ready()
}
