//! The events of sessions and topics: which hook is called, and what becomes of its answer.

use super::call::{self, Kind};
use super::gateway::Gateway;
use super::state::{Kept, Next};
use crate::upstream::{Failure, Response};
use crate::{Close, Closer, Error, Exported, Hook, Message, Publication, Result, Session, Verdict};

/// More events than one action can cause in a plugin that does not answer its own answers for ever.
pub(super) const ENDLESS: usize = 10_000;

/// What runs out.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    Session(String),
    Timer(String, String),
    Request(u64),
}

impl<P: Exported> Gateway<P> {
    /// One event of a session: call the hook, apply what it asked for, and let happen what follows.
    pub(super) fn event<T>(&self, kind: Kind, session: &str, hook: impl FnOnce(&P, Session) -> Result<T>) -> Result<T> {
        let plugin = self.plugin()?;
        let (answer, asked) =
            call::run(&self.state, kind, Some(session), None, |handle, _| hook(plugin, Session::new(handle)));
        match answer {
            Ok(answer) => {
                self.apply(Some(session), asked);
                Ok(answer)
            }
            Err(error) => {
                self.failed(kind, &error);
                Err(error)
            }
        }
    }

    pub(super) fn opened(&self, session: &str) -> Result {
        let done = match P::HOOKS.contains(&Hook::Session) {
            true => self.event(Kind::Opened, session, |plugin, session| plugin.opened(session)),
            false => Ok(()),
        };
        if let Some(peer) = self.state.borrow_mut().peers.get_mut(session) {
            peer.settled = true;
        }
        if done.is_err() {
            self.end(session, Close { code: 1011, reason: String::new(), by: Closer::Gateway });
        }
        self.settle();
        done
    }

    pub(super) fn inbound(&self, session: &str, message: Message) -> Result<Verdict> {
        if self.is_closed(session) {
            return Err(Error::new("the session is closed"));
        }
        let verdict = match P::HOOKS.contains(&Hook::Inbound) {
            true => self.event(Kind::Inbound, session, |plugin, session| plugin.inbound(session, message)),
            false => Ok(Verdict::Next),
        };
        self.settle();
        verdict
    }

    /// Messages that come together: one call where the plugin takes them so, and each its own where it does not, or where
    /// that call has failed.
    pub(super) fn together(&self, session: &str, messages: Vec<Message>) -> Vec<Result<Verdict>> {
        if P::HOOKS.contains(&Hook::Batch) && messages.len() > 1 && !self.is_closed(session) {
            let (count, given) = (messages.len(), messages.clone());
            let verdicts = self.event(Kind::Batch, session, |plugin, session| {
                let verdicts = plugin.batch(session, given)?;
                assert_eq!(verdicts.len(), count, "trap: `batch` answers a verdict for each message");
                Ok(verdicts)
            });
            if let Ok(verdicts) = verdicts {
                self.settle();
                return verdicts.into_iter().map(Ok).collect();
            }
        }
        messages.into_iter().map(|message| self.inbound(session, message)).collect()
    }

    pub(super) fn ends(&self, session: &str, close: Close) {
        self.end(session, close);
        self.settle();
    }

    /// The answer to a request, or an error where none is waited for any more.
    pub(super) fn answer(&self, number: u64, reply: Result<Response, Failure>) -> Result {
        let waiting = self.state.borrow_mut().waiting.remove(&number);
        let Some(waiting) = waiting else {
            return Err(Error::new("the request has its answer: it was given, or its time ran out"));
        };
        let done = match P::HOOKS.contains(&Hook::Reply) && !self.is_closed(&waiting.session) {
            true => {
                self.event(Kind::Reply, &waiting.session, |plugin, session| plugin.reply(session, &waiting.tag, reply))
            }
            false => Ok(()),
        };
        self.settle();
        done
    }

    /// What runs out up to this time: timers, expiries, requests to upstreams.
    pub(super) fn pass(&self, until: u64) {
        while let Some((at, due)) = self.due(until) {
            self.state.borrow_mut().now = at;
            match due {
                Due::Session(session) => {
                    self.end(&session, Close { code: 3000, reason: "expired".to_owned(), by: Closer::Gateway });
                }
                Due::Timer(session, name) => {
                    if let Some(peer) = self.state.borrow_mut().peers.get_mut(&session) {
                        peer.timers.remove(&name);
                    }
                    if P::HOOKS.contains(&Hook::Timer) {
                        // The failure is kept for `Gateway::failures`.
                        let _ = self.event(Kind::Timer, &session, |plugin, session| plugin.timer(session, &name));
                    }
                }
                Due::Request(number) => drop(self.answer(number, Err(Failure::Timeout))),
            }
            self.settle();
        }
    }

    /// What runs out first, and when.
    fn due(&self, until: u64) -> Option<(u64, Due)> {
        let state = self.state.borrow();
        let open = state.peers.iter().filter(|(_, peer)| peer.closed.is_none());
        let sessions = open.flat_map(|(id, peer)| {
            let timers = peer.timers.iter().map(move |(name, at)| (*at, Due::Timer(id.clone(), name.clone())));
            timers.chain(peer.expiry.map(|at| (at, Due::Session(id.clone()))))
        });
        let requests = state.waiting.iter().filter_map(|(number, one)| Some((one.until?, Due::Request(*number))));
        // A time that is past already is due now: time does not go back.
        sessions.chain(requests).min().filter(|(at, _)| *at <= until).map(|(at, due)| (at.max(state.now), due))
    }

    /// Let happen what follows from the events so far.
    pub(super) fn settle(&self) {
        for _ in 0..ENDLESS {
            let Some(next) = self.state.borrow_mut().next.pop_front() else {
                return;
            };
            match next {
                Next::End { session, close } => self.end(&session, close),
                Next::Presence(change) if P::HOOKS.contains(&Hook::Presence) => {
                    let (answer, asked) = call::run(&self.state, Kind::Presence, None, None, |_, _| {
                        self.plugin().and_then(|plugin| plugin.presence(change))
                    });
                    match answer {
                        Ok(()) => self.apply(None, asked),
                        Err(error) => self.failed(Kind::Presence, &error),
                    }
                }
                Next::Presence(_) => {}
            }
        }
        panic!("one action has caused more than {ENDLESS} events; does a hook answer its own doing?");
    }

    fn end(&self, session: &str, close: Close) {
        {
            let mut state = self.state.borrow_mut();
            let Some(peer) = state.peers.get_mut(session).filter(|peer| peer.closed.is_none()) else {
                return;
            };
            peer.closed = Some(close.clone());
            peer.timers.clear();
        }
        if P::HOOKS.contains(&Hook::Session) {
            // The failure is kept for `Gateway::failures`.
            let _ = self.event(Kind::Closed, session, |plugin, session| plugin.closed(session, close));
        }
        let mut state = self.state.borrow_mut();
        let topics = state.peers.get(session).map(|peer| peer.subscriptions.clone()).unwrap_or_default();
        topics.iter().for_each(|topic| state.unsubscribe(session, topic));
    }

    pub(super) fn is_closed(&self, session: &str) -> bool {
        self.state.borrow().peers.get(session).is_none_or(|peer| peer.closed.is_some())
    }

    /// The hook of a publication: what goes on, none if it was dropped.
    pub(super) fn examine(&self, kept: Kept) -> Result<Option<Message>> {
        if !P::HOOKS.contains(&Hook::Publication) {
            return Ok(Some(kept.message));
        }
        let plugin = self.plugin()?;
        let (topic, message) = (kept.topic.clone(), kept.message.clone());
        let (verdict, _) = call::run(&self.state, Kind::Publication, None, Some(kept), |_, publication| {
            plugin.publication(Publication::new(publication), &topic, message.clone())
        });
        match verdict {
            Ok(Verdict::Next) => Ok(Some(message)),
            Ok(Verdict::Replace(other)) => Ok(Some(other)),
            Ok(Verdict::Stop) => Ok(None),
            Err(error) => {
                self.failed(Kind::Publication, &error);
                Err(error)
            }
        }
    }
}
