//! What waits for a session's turn: what others ask of it, deliveries that it decides on, and what is due.

use std::pin::pin;
use std::task::{Context, Poll};

use thin_vec::ThinVec;

use super::turn::Scratch;
use super::{Next, Session, Task};
use crate::heartbeat::Beat;
use crate::message::{Close, Closer};
use crate::outbox::Request;

/// Deliveries that a session decides on before others have their turn.
const OFFERS: usize = 64;

impl Session {
    pub(super) fn requests(&mut self, requests: ThinVec<Request>, scratch: &mut Scratch) -> Option<Next> {
        let mut requests = requests.into_iter();
        while let Some(request) = requests.next() {
            let task = match request {
                Request::Close(close, by) => return Some(Next::End(close, by)),
                Request::RouteGone if self.route.route.is_gone() => {
                    let close = Close::new(Close::GOING_AWAY, "this is not served any more");
                    return Some(Next::End(close, Closer::Gateway));
                }
                Request::RouteGone => continue,
                Request::Subscribe(topic) => Task::Subscribe(topic),
                Request::Unsubscribe(topic) => Task::Unsubscribe(topic),
                Request::Gap(topic, position) => Task::Gap(topic, position),
                Request::Missed(topic, since) => Task::Missed(topic, since),
                Request::Reply(plugin, tag, reply) => Task::Reply(plugin, tag, reply),
                Request::Posted(message) => {
                    self.pulse.heard(self.clock().now());
                    let rules = self.route.route.rules();
                    let limit = rules.message_limit;
                    if message.len() > limit {
                        let close = Close::new(Close::TOO_BIG, &format!("the message is larger than {limit} bytes"));
                        return Some(Next::End(close, Closer::Gateway));
                    }
                    let chain = self.route.chain.load();
                    let next = self.message(message.as_ref(), &rules, &chain, scratch);
                    self.count(scratch);
                    if let Some(next) = next {
                        self.write_out(scratch);
                        self.outbox.ask_again(requests);
                        return Some(next);
                    }
                    continue;
                }
            };
            if let Some(next) = self.now_or_next(task, scratch) {
                // What earlier ones had to say; what follows may wait.
                self.write_out(scratch);
                self.outbox.ask_again(requests);
                return Some(next);
            }
        }
        self.write_out(scratch);
        None
    }

    /// Deliveries that the session decides on. Pending: there are more, and others have their turn first.
    pub(super) fn offers(&mut self, context: &mut Context<'_>, scratch: &mut Scratch) -> Poll<Option<Next>> {
        for _ in 0..OFFERS {
            let Some((publication, message)) = self.outbox.next_offer() else {
                self.write_out(scratch);
                return Poll::Ready(None);
            };
            if let Some(next) = self.now_or_next(Task::Outbound(publication, message), scratch) {
                self.write_out(scratch);
                return Poll::Ready(Some(next));
            }
        }
        self.write_out(scratch);
        let _ = pin!(tokio::task::yield_now()).poll(context);
        Poll::Pending
    }

    /// The heartbeat, the expiry, and plugins' timers.
    pub(super) fn alarmed(&mut self, context: &mut Context<'_>, scratch: &mut Scratch) -> Option<Next> {
        let now = self.clock().now();
        let beat = match self.pulse.beat(&self.route.route.rules().heartbeat, now) {
            Beat::Sleep(until) => until,
            Beat::Ping(payload, until) => {
                let mut ping = Vec::new();
                self.format.ping(&mut ping, &payload);
                self.write(&ping);
                until
            }
            // What has arrived while this session waited for something else is an answer too.
            Beat::Dead
                if (!self.stalls() && self.reader.has_unread(context))
                    || self.format.shows_life(&self.outbox, &self.route.route.rules().heartbeat, now) =>
            {
                self.pulse.heard(now);
                now + self.route.route.rules().heartbeat.interval
            }
            Beat::Dead => {
                self.applier.node.metrics.heartbeat_timeouts.inc();
                let close = Close::new(Close::POLICY, "no answer to the heartbeat");
                return Some(Next::End(close, Closer::Gateway));
            }
        };
        if self.state.as_ref().and_then(|state| state.expiry).is_some_and(|expiry| expiry.get() <= self.clock().unix())
        {
            let close = Close::new(Close::UNAUTHORIZED, "the session's time is over: sign in again");
            return Some(Next::End(close, Closer::Gateway));
        }
        let due = self.state.as_mut().and_then(|state| {
            let place = state.timers.iter().position(|timer| timer.at <= now)?;
            Some(state.timers.remove(place))
        });
        let at = if due.is_some() { now } else { self.next_alarm(beat) };
        self.alarm.set(at);
        let timer = due?;
        let next = self.now_or_next(Task::Timer(timer.plugin, timer.name), scratch);
        self.write_out(scratch);
        next
    }
}
