//! A topic's flusher: hands what is pending to the subscribers, at once or gathered for a while.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::time::{Instant, sleep_until};

use super::batch::{Batch, Shapes, Tally};
use super::topic::{Topic, Windows};
use super::{CHUNK, COMPRESSED, Hub, PENDING};

/// What others have had already, and waits for the end of a window.
struct Late {
    batch: Batch,
    until: Instant,
    windows: Windows,
}

/// Which subscribers a round is for.
enum Whose<'a> {
    Everybodys,
    /// Of those whose deliveries are gathered, or of the others.
    Of {
        windows: &'a Windows,
        gathers: bool,
    },
}

impl Whose<'_> {
    fn includes(&self, place: u32) -> bool {
        match self {
            Self::Everybodys => true,
            Self::Of { windows, gathers } => windows.gathers(place) == *gathers,
        }
    }
}

impl Hub {
    /// Delivers what is pending on a topic until nothing is.
    pub(super) async fn flush(self: Arc<Self>, topic: Arc<Topic>) {
        loop {
            let windows = topic.audiences.lock().windows();
            if let Some(windows) = windows {
                let window = windows.window;
                if windows.all {
                    if !topic.pending.lock().is_empty() {
                        Box::pin(self.gather(&topic, window.messages, Instant::now() + window.time.0)).await;
                    }
                } else if Box::pin(self.flush_both(&topic, windows)).await {
                    continue;
                }
            }
            let Some(batch) = topic.pending.lock().take() else { break };
            topic.room.notify_waiters();
            self.hand_out(&topic, &batch, Whose::Everybodys).await;
        }
        topic.room.notify_waiters();
        if self.flushing.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.flushed.notify_waiters();
        }
    }

    /// One window of a topic that also has subscribers who wait for nothing. False: nothing is pending.
    async fn flush_both(&self, topic: &Topic, windows: Windows) -> bool {
        let window = windows.window;
        let Some(batch) = topic.pending.lock().take_some() else { return false };
        let mut late = Late { batch, until: Instant::now() + window.time.0, windows };
        topic.room.notify_waiters();
        self.hand_out(topic, &late.batch, Whose::Of { windows: &late.windows, gathers: false }).await;
        let is_full = |batch: &Batch| batch.len() >= window.messages || batch.common.bytes.len() > PENDING / 2;
        while !is_full(&late.batch) && self.gather(topic, 1, late.until).await {
            let Some(new) = topic.pending.lock().take_some() else { continue };
            topic.room.notify_waiters();
            self.hand_out(topic, &new, Whose::Of { windows: &late.windows, gathers: false }).await;
            late.batch.append(new);
        }
        self.hand_out(topic, &late.batch, Whose::Of { windows: &late.windows, gathers: true }).await;
        true
    }

    /// Waits until so many publications are pending, at the longest until then. False: they are not.
    async fn gather(&self, topic: &Topic, messages: usize, until: Instant) -> bool {
        let mut hurries = self.hurries.subscribe();
        tokio::select! {
            () = topic.gathered(messages) => true,
            () = sleep_until(until) => false,
            _ = hurries.wait_for(|hurries| *hurries) => false,
        }
    }

    /// From now on deliveries are not gathered any more.
    pub fn hurry(&self) {
        self.hurries.send_replace(true);
    }

    async fn hand_out(&self, topic: &Topic, batch: &Batch, whose: Whose<'_>) {
        let groups = topic.audiences.lock().special();
        let shapes = match groups.is_empty() {
            true => Shapes::default(),
            false => Box::pin(batch.shapes(&groups, &self.metrics)).await,
        };
        let mut at = 0;
        loop {
            let mut tally = Tally::default();
            let more = {
                let subscribers = topic.subscribers.lock();
                let end = (at + CHUNK).min(subscribers.len());
                while at < end && tally.compressed < COMPRESSED {
                    if let Some(one) = subscribers.get(at).filter(|one| whose.includes(one.audience)) {
                        batch.deliver(one, &shapes, &mut tally);
                    }
                    at += 1;
                }
                at < subscribers.len()
            };
            self.metrics.deliveries.inc_by(tally.delivered);
            if !more {
                break;
            }
            tokio::task::yield_now().await;
        }
    }
}
