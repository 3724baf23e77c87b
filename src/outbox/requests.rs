//! What others ask of a session, until its own task does it.

use std::sync::Arc;

use thin_vec::ThinVec;

use super::Outbox;
use crate::message::{Close, Closer, Message, Position, TopicName};
use crate::upstream::Reply;

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
    /// The client has caught up: what did not fit for it on a topic can be read from the history, after this.
    Missed(TopicName, Option<Position>),
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

impl Outbox {
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
    pub(super) fn request_all(&self, requests: impl ExactSizeIterator<Item = Request>) -> Result<bool, Busy> {
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
    pub fn requests(&self) -> ThinVec<Request> {
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
}
