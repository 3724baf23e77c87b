//! Where the requests of one client find its session: for transports on which every message is a request of its own.
//!
//! What the session writes waits in its outbox until somebody fetches it: the body of a response that goes on (SSE), or one
//! poll after the other. A poll's answer is kept until the next poll acknowledges it, as its response may have been lost.

use std::future::poll_fn;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::time::{Instant, timeout};

use super::{Busy, Outbox, Request, Secret};
use crate::message::{Close, Closer, Message, SessionId};
use crate::wire::polls;

/// Bytes that one poll fetches, at most, unless one message alone is longer.
const BATCH: usize = 256 << 10;

/// What the client's requests and its session share.
pub struct Mailbox {
    secret: Secret,
    token: Box<str>,
    fetcher: Mutex<Option<Waker>>,
    polls: Mutex<Polls>,
}

struct Polls {
    /// Counts polls: a later one ends those before it.
    turn: u64,
    /// Polls that wait.
    waiting: u32,
    /// When there was one last.
    last: Instant,
    /// How many batches have been fetched; acknowledges the last of them.
    number: u64,
    /// The last batch, until the client has acknowledged it.
    kept: Option<Bytes>,
    /// Why the session has ended.
    close: Option<Close>,
}

/// What a client asks of its session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Take these messages, in this order.
    Post(Vec<Message>),
    /// Tell me what there is after the batch of this number, or wait so long for something.
    Poll { after: Option<u64>, wait: Duration },
    /// I am leaving.
    Leave,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    Done,
    /// The answer to a poll, JSON.
    Batch(Bytes),
    /// There is no such session, or not any more, or the secret is wrong.
    Gone,
    /// More waits to be handled than may.
    Busy,
    /// Another poll has taken this one's place.
    Overtaken,
}

impl Mailbox {
    pub fn new(session: SessionId, secret: Secret, now: Instant) -> Self {
        let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
        let polls = Polls { turn: 0, waiting: 0, last: now, number: 0, kept: None, close: None };
        let token = format!("{session}.{hex}").into();
        Self { secret, token, fetcher: Mutex::default(), polls: Mutex::new(polls) }
    }

    /// Names the session, and proves that whoever has it is its client.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// Reads a token.
    pub fn parse(token: &str) -> Option<(SessionId, Secret)> {
        let (session, hex) = token.split_once('.')?;
        let mut secret = Secret::default();
        if hex.len() != 2 * secret.len() || !hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        for (index, byte) in secret.iter_mut().enumerate() {
            *byte = u8::from_str_radix(hex.get(2 * index..2 * index + 2)?, 16).ok()?;
        }
        Some((SessionId::parse(session)?, secret))
    }

    /// In a time that does not depend on where they differ.
    pub fn is_secret(&self, secret: &Secret) -> bool {
        self.secret.iter().zip(secret).fold(0, |differs, (a, b)| differs | (a ^ b)) == 0
    }

    /// Whether the client has polled since then, or polls now.
    pub fn polled_since(&self, then: Instant) -> bool {
        let polls = self.polls.lock();
        polls.waiting > 0 || polls.last >= then
    }

    /// The next poll is told why the session has ended.
    pub fn close(&self, close: &Close) {
        self.polls.lock().close = Some(close.clone());
    }

    /// Whoever fetches has something to do.
    pub(super) fn wake(&self) {
        if let Some(waker) = self.fetcher.lock().take() {
            waker.wake();
        }
    }

    pub(super) fn await_more(&self, context: &Context<'_>) {
        *self.fetcher.lock() = Some(context.waker().clone());
    }
}

/// A poll that waits.
struct Waiting<'a>(&'a Mailbox);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut polls = self.0.polls.lock();
        polls.waiting -= 1;
        polls.last = Instant::now();
    }
}

impl Outbox {
    /// Does what the client has asked for.
    pub async fn visit(&self, secret: &Secret, ask: Ask) -> Answer {
        let Some(mailbox) = self.mailbox().filter(|mailbox| mailbox.is_secret(secret)) else { return Answer::Gone };
        match ask {
            Ask::Post(messages) => self.post(messages),
            Ask::Poll { after, wait } => self.poll(mailbox, after, wait).await,
            Ask::Leave => {
                let _ = self.request(Request::Close(Close::new(Close::GOING_AWAY, ""), Closer::Client));
                Answer::Done
            }
        }
    }

    /// All or none.
    fn post(&self, messages: Vec<Message>) -> Answer {
        // As on a socket: who does not take what it has caused causes no more.
        if self.own_backlog() > self.limit() / 2 {
            return Answer::Busy;
        }
        match self.request_all(messages.into_iter().map(Request::Posted)) {
            Ok(true) => Answer::Done,
            Ok(false) => Answer::Gone,
            Err(Busy) => Answer::Busy,
        }
    }

    async fn poll(&self, mailbox: &Mailbox, after: Option<u64>, wait: Duration) -> Answer {
        let turn = {
            let mut polls = mailbox.polls.lock();
            polls.turn += 1;
            polls.waiting += 1;
            if after == Some(polls.number) {
                polls.kept = None;
            }
            polls.turn
        };
        let _waiting = Waiting(mailbox);
        // The poll before this one sees that it is not the last any more.
        mailbox.wake();
        let fetched = timeout(wait, poll_fn(|context| self.poll_batch(mailbox, turn, context))).await;
        fetched.unwrap_or_else(|_| {
            let polls = mailbox.polls.lock();
            Answer::Batch(polls::answer(&mailbox.token, polls.number, b"", None).into())
        })
    }

    fn poll_batch(&self, mailbox: &Mailbox, turn: u64, context: &mut Context<'_>) -> Poll<Answer> {
        let mut polls = mailbox.polls.lock();
        if polls.turn != turn {
            return Poll::Ready(Answer::Overtaken);
        }
        if let Some(kept) = &polls.kept {
            return Poll::Ready(Answer::Batch(kept.clone()));
        }
        let Poll::Ready(fetched) = self.poll_fetch(context, BATCH) else { return Poll::Pending };
        let over = fetched.is_none();
        let close = if over { polls.close.clone() } else { None };
        let elements = fetched.unwrap_or_default().concat();
        polls.number += u64::from(!over);
        let answer = Bytes::from(polls::answer(&mailbox.token, polls.number, &elements, close.as_ref()));
        polls.kept = Some(answer.clone());
        Poll::Ready(Answer::Batch(answer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_back_and_nothing_else_is() {
        let id = SessionId { node: 1, number: 2 };
        let mailbox = Mailbox::new(id, [0xa5; 24], Instant::now());
        assert_eq!(Mailbox::parse(mailbox.token()), Some((id, [0xa5; 24])));
        assert!(mailbox.is_secret(&[0xa5; 24]) && !mailbox.is_secret(&[0xa4; 24]));
        let short = &mailbox.token()[..mailbox.token().len() - 1];
        for bad in ["", ".", &id.to_string(), short, &format!("{short}g"), &format!("{short}\u{e9}")] {
            assert_eq!(Mailbox::parse(bad), None, "{bad}");
        }
    }
}
