//! A key that the nodes on one Redis share. With it each of them tells what another has made from what somebody made up,
//! without asking.
//!
//! It stands in Redis. A node that finds none there writes its own, so a Redis that has lost everything is given the key that
//! was there before by the first node to look.

use std::sync::Arc;
use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use parking_lot::RwLock;
use redis::Value;
use sha2::Sha256;

use super::Redis;
use crate::source::Random;

/// What shows that a node has made something: as much as nobody guesses over a network.
pub type Mark = [u8; 8];

/// As long as HMAC with SHA-256 takes it without hashing it first.
type Key = [u8; 64];

/// The key, and the one before, of which there may still be marks: the node's own until it has seen that of Redis.
pub struct Seal(RwLock<[Key; 2]>);

impl Seal {
    pub fn new(random: &Random) -> anyhow::Result<Self> {
        let mut own = [0; size_of::<Key>()];
        random.fill(&mut own)?;
        Ok(Self(RwLock::new([own, own])))
    }

    /// The mark of these bytes. It is made in the same way by all nodes.
    pub fn mark(&self, bytes: &[u8]) -> Mark {
        let whole = mac(&self.0.read()[0], bytes).finalize().into_bytes();
        whole.first_chunk().copied().unwrap_or_default()
    }

    /// Whether a node has made this mark, in a time that does not depend on where it is wrong.
    pub fn is_marked(&self, bytes: &[u8], mark: &Mark) -> bool {
        self.0.read().iter().any(|key| mac(key, bytes).verify_truncated_left(mark).is_ok())
    }

    fn current(&self) -> Key {
        self.0.read()[0]
    }

    /// What stands in Redis is the key from now on.
    fn agree(&self, key: Key) {
        let mut keys = self.0.write();
        if keys[0] != key {
            *keys = [key, keys[0]];
        }
    }
}

fn mac(key: &Key, bytes: &[u8]) -> Hmac<Sha256> {
    Hmac::<Sha256>::new(key.into()).chain_update(bytes)
}

impl Redis {
    /// Agrees with the other nodes on the key, for as long as this one stays.
    pub(super) async fn keep_key(self: Arc<Self>) {
        let name = self.keys.seal();
        loop {
            self.connected(&name).await;
            let seen = self.look_at_key(&name).await;
            tokio::time::sleep(if seen { self.config.lease.0 } else { AGAIN }).await;
        }
    }

    /// False: Redis has not said.
    async fn look_at_key(&self, name: &str) -> bool {
        let own = self.seal.current();
        match self.query(redis::cmd("SET").arg(name).arg(&own[..]).arg("NX").arg("GET")).await {
            Ok(Value::BulkString(key)) => match Key::try_from(key) {
                Ok(key) => self.seal.agree(key),
                Err(other) => {
                    tracing::error!(key = name, bytes = other.len(), "this is not what nodes write there: remove it");
                }
            },
            // There was none, and now it is this node's.
            Ok(_) => {}
            Err(_) => return false,
        }
        true
    }
}

/// Before Redis is asked again that has not answered.
const AGAIN: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_that_agree_know_each_others_marks_and_those_from_before() {
        let seal = || Seal::new(&Random::default()).unwrap();
        let (one, other) = (seal(), seal());
        let before = other.mark(b"session 7");
        assert!(other.is_marked(b"session 7", &before));
        assert!(!one.is_marked(b"session 7", &before), "nothing is agreed on yet");
        other.agree(one.current());
        let after = other.mark(b"session 7");
        assert_eq!(after, one.mark(b"session 7"));
        assert!(one.is_marked(b"session 7", &after));
        assert!(other.is_marked(b"session 7", &before), "it has made this itself");
        assert!(!one.is_marked(b"session 8", &after));
        let mut wrong = after;
        wrong[7] ^= 1;
        assert!(!one.is_marked(b"session 7", &wrong));
        // Agreeing again changes nothing.
        other.agree(one.current());
        assert!(other.is_marked(b"session 7", &before));
    }
}
