//! A client that was too slow has caught up: what did not fit into its outbox is read from the history, and delivered behind
//! what it has.

use super::{Session, Work};
use crate::message::{Position, TopicName};
use crate::plugin::{Event, SubscriptionEvent};

impl Session {
    /// `since` is the last that did fit; without such a position, the topic keeps nothing that could be read. Deliveries wait
    /// until this event's messages are written.
    pub(super) async fn catch_up(
        &mut self,
        event: &mut Option<Box<Event>>,
        topic: TopicName,
        since: Option<Position>,
        work: &mut Work<'_>,
    ) {
        let state = event.as_ref().and_then(|event| event.session.as_ref());
        if !state.is_some_and(|state| state.is_subscribed(&topic)) {
            return self.outbox.recovered(&topic, None);
        }
        if !std::mem::replace(&mut self.holds_for_gap, true) {
            self.outbox.hold();
        }
        let node = &self.applier.node;
        let page = match since {
            Some(since) => node.hub.recover(&topic, since).await.ok(),
            None => None,
        };
        let count = |outcome| node.metrics.missed.with_label_values(&[&*self.route.route.name, outcome]).inc();
        match page {
            Some(page) if page.complete => {
                count("recovered");
                let (mut up_to, mut room) = (page.position, self.outbox.limit() / 2);
                for (place, publication) in page.publications.iter().enumerate() {
                    let size = publication.message.len();
                    if size > room && place > 0 {
                        // The rest is read when this has been taken.
                        up_to = page.publications[place - 1].position.unwrap_or(up_to);
                        break;
                    }
                    room = room.saturating_sub(size);
                    if !publication.exclude.contains(&self.outbox.id) {
                        work.after.recovered.push(publication.clone());
                    }
                }
                self.outbox.recovered(&topic, Some(up_to));
            }
            page => {
                count("lost");
                let position = page.map(|page| page.position);
                self.outbox.recovered(&topic, position);
                self.format.stands(&topic, position);
                self.gap(work);
                work.after.told.push((topic, SubscriptionEvent::Gap, position));
            }
        }
    }
}
