//! Publications that wait for Redis to come back, of routes that want that (`redis_gone = "queue"`).

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{Hub, PublishError, Published};
use crate::broker::{BrokerError, RedisBroker, Retention};
use crate::message::Publication;

/// What a publication that waits costs beside its message.
const OVERHEAD: usize = 256;
/// Between two attempts to publish, while Redis does not answer.
const PAUSE: Duration = Duration::from_millis(200);

/// In the order in which they were accepted.
#[derive(Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    filled: Notify,
    /// Something waits: what comes now must wait behind it.
    in_use: AtomicBool,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Arc<Queued>>,
    bytes: usize,
}

struct Queued {
    publication: Publication,
    retention: Retention,
    /// Always one, so that an attempt whose outcome is not known can be repeated.
    idempotency_key: Box<str>,
}

impl Queue {
    pub fn is_in_use(&self) -> bool {
        self.in_use.load(Ordering::Acquire)
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.state.lock().waiting.len()
    }
}

impl Hub {
    /// Publications that wait for Redis.
    pub fn queued(&self) -> usize {
        self.queue.len()
    }

    pub(super) fn queue_up(
        &self,
        broker: &RedisBroker,
        publication: Publication,
        retention: Retention,
        idempotency_key: Option<&str>,
    ) -> Result<Published, PublishError> {
        let config = &broker.redis.config;
        let bytes = publication.message.len() + OVERHEAD;
        let idempotency_key = idempotency_key.map_or_else(|| broker.fresh_key(), Into::into);
        let mut state = self.queue.state.lock();
        if state.waiting.len() >= config.queue || state.bytes + bytes > config.queue_memory.0 {
            return Err(BrokerError::QueueFull.into());
        }
        state.bytes += bytes;
        state.waiting.push_back(Arc::new(Queued { publication, retention, idempotency_key }));
        self.queue.in_use.store(true, Ordering::Release);
        self.metrics.redis_queued.set(state.waiting.len() as i64);
        self.queue.filled.notify_one();
        Ok(Published::Done)
    }

    /// Publishes what waits, in order, whenever Redis is there; for ever.
    pub async fn keep_queue(self: Arc<Self>) {
        let Some(broker) = self.remote().cloned() else { return };
        loop {
            let first = self.queue.state.lock().waiting.front().cloned();
            let Some(first) = first else {
                self.queue.filled.notified().await;
                continue;
            };
            let Queued { publication, retention, idempotency_key } = &*first;
            broker.redis.connected(&broker.redis.keys.channel(publication.topic.as_str())).await;
            match broker.publish(publication, *retention, Some(idempotency_key)).await {
                Ok(_) => {}
                Err(BrokerError::Gone | BrokerError::Unanswered | BrokerError::Busy) => {
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
                Err(error) => {
                    self.metrics.publications_refused.inc();
                    tracing::error!(topic = %publication.topic, %error, "a publication that had waited for Redis is lost");
                }
            }
            let mut state = self.queue.state.lock();
            state.waiting.pop_front();
            state.bytes -= first.publication.message.len() + OVERHEAD;
            self.metrics.redis_queued.set(state.waiting.len() as i64);
            if state.waiting.is_empty() {
                self.queue.in_use.store(false, Ordering::Release);
            }
        }
    }
}
