//! What clients that come by requests ask of their sessions, on whichever node the request arrives: another node is asked
//! over its channel, and answers over that of the one that asked.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Buf, Bytes};
use parking_lot::Mutex;
use redis::Value;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::Instant;

use super::Applier;
use super::across::VERSION;
use crate::message::{Message, SessionId};
use crate::metrics::Metrics;
use crate::outbox::{Answer, Ask, Secret, secret as secrets};
use crate::rate::Bucket;
use crate::redis::Fault;
use crate::route::Rate;

/// The second byte of what nodes tell each other, beside those in `across.rs`.
pub(super) const ASK: u8 = 5;
pub(super) const ANSWER: u8 = 6;

const TEXT: u8 = 0;
const BINARY: u8 = 1;

/// Questions of other nodes that are worked on at a time. More are answered that this node is busy.
const AT_WORK: usize = 8_192;

/// Questions to other nodes by tokens that none seems to have made. There are honest ones for as long as a node has another key
/// than the others, which is when a Redis that has lost everything meets a new node first; all others are made up.
const UNPROVEN: Rate = Rate { per_second: 20, burst: 20 };

/// Why no answer has come.
#[derive(Debug)]
pub enum Unasked {
    /// The session's node cannot be asked, or has not answered; it may have been done.
    Fault(Fault),
    /// Nothing shows that there is such a session, and too many of that kind were asked about lately.
    Unproven,
}

impl From<Fault> for Unasked {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

/// The questions that this node waits for the answers of, and room for those of others.
pub(super) struct Asks {
    next: AtomicU64,
    waiting: Mutex<HashMap<u64, oneshot::Sender<Answer>>>,
    room: Arc<Semaphore>,
    unproven: Mutex<Bucket>,
}

impl Default for Asks {
    fn default() -> Self {
        Self {
            next: AtomicU64::new(0),
            waiting: Mutex::default(),
            room: Arc::new(Semaphore::new(AT_WORK)),
            unproven: Mutex::new(Bucket::new(Instant::now())),
        }
    }
}

impl Asks {
    /// Whether another node may be asked by a token that nothing is known of.
    fn may_ask(&self, metrics: &Metrics, now: Instant) -> bool {
        let may = self.unproven.lock().take(UNPROVEN, now);
        metrics.tokens_unproven.with_label_values(&[if may { "asked" } else { "refused" }]).inc();
        may
    }
}

/// Forgets a question whose asker has gone.
struct Waits<'a>(&'a Asks, u64);

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.waiting.lock().remove(&self.1);
    }
}

/// A question on its way: who asks, which session it is for.
#[derive(Debug, PartialEq, Eq)]
struct Question {
    from: u64,
    session: u64,
    id: u64,
    secret: Secret,
    ask: Ask,
}

impl Applier {
    /// Asks a session, wherever it is.
    pub async fn visit(&self, session: SessionId, secret: Secret, ask: Ask) -> Result<Answer, Unasked> {
        let own = self.node.registry.node();
        if session.node == own {
            return Ok(match self.node.registry.session(session) {
                Some(outbox) => outbox.visit(&secret, ask).await,
                None => Answer::Gone,
            });
        }
        let Some(redis) = &self.node.redis else { return Ok(Answer::Gone) };
        let may = || self.asks.may_ask(&self.node.metrics, self.node.clock.now());
        if !secrets::was_drawn(session, &secret, &redis.seal) && !may() {
            return Err(Unasked::Unproven);
        }
        let mut ask = ask;
        let wait = match &mut ask {
            // Short enough for a node that dies meanwhile to be missed soon: the client's next poll is told.
            Ask::Poll { wait, .. } => {
                *wait = (*wait).min(redis.config.lease.0 / 2);
                *wait
            }
            Ask::Post(_) | Ask::Leave => Duration::ZERO,
        };
        let (tell, told) = oneshot::channel();
        let id = self.asks.next.fetch_add(1, Ordering::Relaxed);
        self.asks.waiting.lock().insert(id, tell);
        let _waits = Waits(&self.asks, id);
        let question = Question { from: own, session: session.number, id, secret, ask };
        let channel = redis.keys.node_channel(session.node);
        // Nobody listens: the node has gone, and its sessions with it.
        if let Value::Int(0) = redis.publish(&channel, &question.written()).await? {
            return Ok(Answer::Gone);
        }
        match tokio::time::timeout(wait + 2 * redis.config.timeout.0, told).await {
            Ok(answer) => answer.map_err(|_| Fault::Broken.into()),
            Err(_) => Err(Fault::Timeout.into()),
        }
    }

    /// Another node asks or answers. False: it cannot be read.
    pub(super) fn hear(self: &Arc<Self>, kind: u8, payload: Bytes) -> bool {
        if kind == ANSWER {
            let Some((id, answer)) = read_answer(payload) else { return false };
            if let Some(tell) = self.asks.waiting.lock().remove(&id) {
                let _ = tell.send(answer);
            }
            return true;
        }
        let Some(question) = Question::read(payload) else { return false };
        let room = self.asks.room.clone().try_acquire_owned();
        let applier = self.clone();
        tokio::spawn(async move {
            let Question { from, session, id, secret, ask } = question;
            let answer = match (&room, applier.here(session)) {
                (Ok(_), Some(outbox)) => outbox.visit(&secret, ask).await,
                (Ok(_), None) => Answer::Gone,
                (Err(_), _) => Answer::Busy,
            };
            if let Some(redis) = &applier.node.redis {
                let own = applier.node.registry.node();
                let told = redis.publish(&redis.keys.node_channel(from), &written_answer(own, id, &answer)).await;
                if let Err(fault) = told {
                    // What was fetched for it is kept until a later poll of the client's acknowledges it.
                    tracing::warn!(%fault, "another node's question about a session could not be answered");
                }
            }
            drop(room);
        });
        true
    }

    fn here(&self, number: u64) -> Option<Arc<crate::outbox::Outbox>> {
        self.node.registry.session(SessionId { node: self.node.registry.node(), number })
    }
}

impl Question {
    fn written(&self) -> Vec<u8> {
        let mut out = vec![VERSION, ASK];
        out.extend(self.from.to_le_bytes());
        out.extend(self.session.to_le_bytes());
        out.extend(self.id.to_le_bytes());
        out.extend(self.secret);
        match &self.ask {
            Ask::Post(messages) => {
                out.push(0);
                for message in messages {
                    out.push(if matches!(message, Message::Text(_)) { TEXT } else { BINARY });
                    out.extend((message.len() as u32).to_le_bytes());
                    out.extend_from_slice(message.payload());
                }
            }
            Ask::Poll { after, wait } => {
                out.push(1);
                out.extend(after.unwrap_or(u64::MAX).to_le_bytes());
                out.extend((wait.as_millis() as u32).to_le_bytes());
            }
            Ask::Leave => out.push(2),
        }
        out
    }

    /// `payload` is what was written, but for the first two bytes.
    fn read(mut payload: Bytes) -> Option<Self> {
        let from = payload.try_get_u64_le().ok()?;
        let session = payload.try_get_u64_le().ok()?;
        let id = payload.try_get_u64_le().ok()?;
        let mut secret = Secret::default();
        payload.try_copy_to_slice(&mut secret).ok()?;
        let ask = match payload.try_get_u8().ok()? {
            0 => Ask::Post(messages(&mut payload)?),
            1 => {
                let after = payload.try_get_u64_le().ok()?;
                let wait = Duration::from_millis(payload.try_get_u32_le().ok()?.into());
                Ask::Poll { after: (after != u64::MAX).then_some(after), wait }
            }
            2 => Ask::Leave,
            _ => return None,
        };
        payload.is_empty().then_some(Self { from, session, id, secret, ask })
    }
}

fn messages(payload: &mut Bytes) -> Option<Vec<Message>> {
    let mut messages = Vec::new();
    while payload.has_remaining() {
        let kind = payload.try_get_u8().ok()?;
        let len = payload.try_get_u32_le().ok()? as usize;
        if len > payload.len() {
            return None;
        }
        let content = payload.split_to(len);
        messages.push(match kind {
            TEXT => Message::Text(content.try_into().ok()?),
            BINARY => Message::Binary(content),
            _ => return None,
        });
    }
    Some(messages)
}

fn written_answer(from: u64, id: u64, answer: &Answer) -> Vec<u8> {
    let mut out = vec![VERSION, ANSWER];
    out.extend(from.to_le_bytes());
    out.extend(id.to_le_bytes());
    match answer {
        Answer::Done => out.push(0),
        Answer::Batch(batch) => {
            out.push(1);
            out.extend_from_slice(batch);
        }
        Answer::Gone => out.push(2),
        Answer::Busy => out.push(3),
        Answer::Overtaken => out.push(4),
    }
    out
}

fn read_answer(mut payload: Bytes) -> Option<(u64, Answer)> {
    let _from = payload.try_get_u64_le().ok()?;
    let id = payload.try_get_u64_le().ok()?;
    let answer = match payload.try_get_u8().ok()? {
        0 => Answer::Done,
        1 => Answer::Batch(payload),
        2 => Answer::Gone,
        3 => Answer::Busy,
        4 => Answer::Overtaken,
        _ => return None,
    };
    Some((id, answer))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::MessageRef;

    #[tokio::test(start_paused = true)]
    async fn tokens_that_are_made_up_are_asked_about_only_so_often() {
        let (asks, metrics) = (Asks::default(), Metrics::new());
        let asked = || (0..1_000).filter(|_| asks.may_ask(&metrics, Instant::now())).count();
        assert_eq!(asked(), 20);
        tokio::time::advance(Duration::from_millis(500)).await;
        assert_eq!(asked(), 10);
        let counted = |what| metrics.tokens_unproven.with_label_values(&[what]).get();
        assert_eq!((counted("asked"), counted("refused")), (30, 1_970));
    }

    #[test]
    fn what_was_written_is_read_and_nothing_else() {
        let text = MessageRef::Text("caf\u{e9}").to_owned();
        let asks = [
            Ask::Post(vec![text, MessageRef::Binary(&[0, 255]).to_owned()]),
            Ask::Post(Vec::new()),
            Ask::Poll { after: None, wait: Duration::from_secs(25) },
            Ask::Poll { after: Some(7), wait: Duration::ZERO },
            Ask::Leave,
        ];
        for ask in asks {
            let question = Question { from: u64::MAX, session: 3, id: 4, secret: [9; size_of::<Secret>()], ask };
            let written = question.written();
            for cut in 2..written.len() {
                let part = Question::read(Bytes::copy_from_slice(&written[2..cut]));
                // Whole messages are a question of their own.
                assert!(part.is_none_or(|part| matches!(part.ask, Ask::Post(_)) && part != question), "{cut}");
            }
            assert_eq!(Question::read(written[2..].to_vec().into()), Some(question));
        }
        let answers =
            [Answer::Done, Answer::Batch(Bytes::from_static(b"{}")), Answer::Gone, Answer::Busy, Answer::Overtaken];
        for answer in answers {
            let written = written_answer(1, u64::MAX, &answer);
            assert_eq!(read_answer(written[2..].to_vec().into()), Some((u64::MAX, answer)));
        }
        assert_eq!(read_answer(Bytes::from_static(&[0; 16])), None);
    }
}
