//! Publish to topics. Needs the grant `publish`.

use std::time::Duration;

use crate::{Message, Refusal, Session, host};

/// Effect: publish to every subscriber in the cluster. History is as configured for the topic, unless
/// [`Publish::history`] says otherwise. Topic names: 1 to 255 bytes of UTF-8 without control characters.
///
/// ```no_run
/// # use tidegate_sdk::{Result, Session, topics};
/// # fn hook(session: Session) -> Result {
/// topics::publish("room:blue", "somebody is typing")?.exclude(session).no_history();
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// `Invalid`, `Denied`, `TooLarge`.
pub fn publish(topic: &str, message: impl Into<Message>) -> Result<Publish, Refusal> {
    host::topics::publish(topic, &message.into()).map(|effect| Publish { effect })
}

/// A publish that this event has asked for; its options are added here.
#[derive(Debug)]
pub struct Publish {
    effect: u32,
}

impl Publish {
    /// Do not deliver to this session.
    pub fn exclude(self, session: Session) -> Self {
        host::topics::with_exclude(self.effect, session.handle);
        self
    }

    /// Do not deliver to the session of this id.
    pub fn exclude_id(self, id: &str) -> Self {
        host::topics::with_exclude_id(self.effect, id);
        self
    }

    /// Keep the topic's last `size` publications for `ttl`.
    pub fn history(self, size: u32, ttl: Duration) -> Self {
        host::topics::with_history(self.effect, size, host::millis(ttl));
        self
    }

    /// Do not keep this publication.
    pub fn no_history(self) -> Self {
        host::topics::with_history(self.effect, 0, 0);
        self
    }

    /// A second publication to the topic under this key, up to 64 bytes, within five minutes counts as done and is not
    /// made.
    ///
    /// # Errors
    /// `Invalid` or `TooLarge`. The publication itself stands.
    pub fn idempotency_key(self, key: &str) -> Result<Self, Refusal> {
        host::topics::with_idempotency_key(self.effect, key)?;
        Ok(self)
    }

    /// Outboxes that keep the latest by key drop what waits under the same key, up to 64 bytes.
    ///
    /// # Errors
    /// `Invalid` or `TooLarge`. The publication itself stands.
    pub fn key(self, key: &str) -> Result<Self, Refusal> {
        host::topics::with_key(self.effect, key)?;
        Ok(self)
    }

    /// Metadata that travels with it, for hooks, upstreams and traces; clients do not see it. Up to 16 entries and 4 KiB.
    ///
    /// # Errors
    /// `Invalid`, `TooLarge` or `TooMany`. The publication itself stands.
    pub fn metadata(self, name: &str, value: &str) -> Result<Self, Refusal> {
        host::topics::with_metadata(self.effect, name, value)?;
        Ok(self)
    }
}
