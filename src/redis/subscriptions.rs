//! Which channels of one server are wanted, and which of them Redis has confirmed. It waits for nobody and asks nothing.

use std::collections::{HashMap, HashSet};

use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use super::Fault;

/// Channels of one command, or of one round trip.
const BATCH: usize = 256;

#[derive(Default)]
pub(super) struct Subscriptions {
    state: Mutex<State>,
    /// There are changes.
    changed: Notify,
    /// The connection must be given up.
    given_up: Notify,
}

#[derive(Default)]
struct State {
    channels: HashMap<String, Channel>,
    /// Channels that Redis may have to be told about.
    changes: HashSet<String>,
    /// Channels that were lost and are confirmed again; whoever follows them does not know yet.
    back: Vec<String>,
    /// The number of the connection of this moment.
    connection: Option<u64>,
}

/// A channel, wherever it is subscribed to.
#[derive(Default)]
pub(super) struct Channel {
    wanted: bool,
    /// By Redis, on the connection of this moment.
    confirmed: bool,
    /// Something may have been published since somebody wants it and before it is confirmed.
    lost: bool,
    waiters: Vec<oneshot::Sender<()>>,
}

impl Subscriptions {
    pub fn want(&self, channel: &str) {
        let mut state = self.state.lock();
        let lost = state.connection.is_none();
        let known = state.channels.entry(channel.to_owned()).or_default();
        known.wanted = true;
        known.lost |= lost;
        state.changes.insert(channel.to_owned());
        self.changed.notify_one();
    }

    pub fn unwant(&self, channel: &str) {
        let mut state = self.state.lock();
        let Some(known) = state.channels.get_mut(channel) else { return };
        known.wanted = false;
        known.waiters.clear();
        state.changes.insert(channel.to_owned());
        self.changed.notify_one();
    }

    /// What tells when the channel is confirmed; None where it is already.
    pub fn confirmation(&self, channel: &str) -> Result<Option<oneshot::Receiver<()>>, Fault> {
        let mut state = self.state.lock();
        if state.connection.is_none() {
            return Err(Fault::Gone);
        }
        let Some(known) = state.channels.get_mut(channel).filter(|known| known.wanted) else {
            return Err(Fault::Gone);
        };
        if known.confirmed {
            return Ok(None);
        }
        let (tell, told) = oneshot::channel();
        known.waiters.push(tell);
        Ok(Some(told))
    }

    pub fn is_connected(&self) -> bool {
        self.state.lock().connection.is_some()
    }

    /// Gives up the connection of this moment.
    pub fn give_up(&self) {
        self.given_up.notify_one();
    }

    /// Waits until the connection is given up.
    pub async fn given_up(&self) {
        self.given_up.notified().await;
    }

    /// Waits until there is something to tell Redis.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// All that are wanted.
    pub fn wanted(&self) -> Vec<String> {
        let state = self.state.lock();
        state.channels.iter().filter(|(_, channel)| channel.wanted).map(|(name, _)| name.clone()).collect()
    }

    /// A new connection, on which nothing is subscribed to yet.
    pub fn begin(&self, connection: u64) {
        let mut state = self.state.lock();
        state.channels.retain(|_, channel| channel.wanted);
        for channel in state.channels.values_mut() {
            (channel.confirmed, channel.lost) = (false, true);
        }
        state.changes = state.channels.keys().cloned().collect();
        state.back.clear();
        state.connection = Some(connection);
    }

    /// The connection is gone, and so is what waits for a confirmation on it. Says which channels are lost.
    pub fn end(&self) -> Vec<String> {
        let mut state = self.state.lock();
        state.connection = None;
        for channel in state.channels.values_mut() {
            channel.confirmed = false;
            channel.waiters.clear();
        }
        drop(state);
        self.wanted()
    }

    /// What Redis must be told next: channels to subscribe to, and to leave.
    pub fn batch(&self) -> (Vec<String>, Vec<String>) {
        let mut state = self.state.lock();
        let changes: Vec<_> = state.changes.iter().take(BATCH).cloned().collect();
        let (mut subscribe, mut unsubscribe) = (Vec::new(), Vec::new());
        for channel in changes {
            state.changes.remove(&channel);
            let Some(known) = state.channels.get_mut(&channel) else { continue };
            match (known.wanted, known.confirmed) {
                (true, false) => subscribe.push(channel),
                (false, true) => {
                    // Who wants it again must not take this confirmation for a new one.
                    known.confirmed = false;
                    unsubscribe.push(channel);
                }
                (false, false) => drop(state.channels.remove(&channel)),
                (true, true) => {}
            }
        }
        (subscribe, unsubscribe)
    }

    /// Redis has confirmed a channel on this connection.
    pub fn confirm(&self, connection: u64, channel: &str) {
        let mut state = self.state.lock();
        if state.connection != Some(connection) {
            return;
        }
        let Some(known) = state.channels.get_mut(channel) else { return };
        known.confirmed = true;
        if known.wanted {
            for waiter in known.waiters.drain(..) {
                // Who waits no more is not missed.
                let _ = waiter.send(());
            }
            if std::mem::take(&mut known.lost) {
                state.back.push(channel.to_owned());
            }
        } else {
            // Changed its mind while Redis was told.
            state.changes.insert(channel.to_owned());
        }
    }

    /// Redis has ended a subscription on this connection. Whether nobody had asked for it: the channel is lost then, and
    /// `again` subscribes to it anew.
    pub fn ended(&self, connection: u64, channel: &str) -> bool {
        let mut state = self.state.lock();
        if state.connection != Some(connection) {
            return false;
        }
        let Some(known) = state.channels.get_mut(channel).filter(|known| known.confirmed) else { return false };
        (known.confirmed, known.lost) = (false, true);
        known.wanted
    }

    /// These are to be told to Redis once more.
    pub fn again(&self, channels: &[String]) {
        let mut state = self.state.lock();
        state.changes.extend(channels.iter().cloned());
        self.changed.notify_one();
    }

    /// Redis has answered a batch. Those that it has not confirmed, or that changed their mind meanwhile, are in the next.
    /// Whether there are such.
    pub fn told(&self, subscribe: &[String], unsubscribe: &[String]) -> bool {
        let mut state = self.state.lock();
        let mut left = false;
        for channel in subscribe.iter().chain(unsubscribe) {
            let Some(known) = state.channels.get(channel) else { continue };
            if known.wanted != known.confirmed {
                left = true;
                state.changes.insert(channel.clone());
            } else if !known.wanted {
                state.channels.remove(channel);
            }
        }
        left
    }

    /// Whether nothing is left to tell Redis.
    pub fn is_settled(&self) -> bool {
        self.state.lock().changes.is_empty()
    }

    /// Those that were lost and are confirmed again, each once.
    pub fn back(&self) -> Vec<String> {
        std::mem::take(&mut self.state.lock().back)
    }

    /// Takes out the channels that are somebody else's.
    pub fn take(&self, is_other: impl Fn(&str) -> bool) -> Vec<(String, Channel)> {
        let mut state = self.state.lock();
        let moved: Vec<_> = state.channels.extract_if(|name, _| is_other(name)).collect();
        for (name, _) in &moved {
            state.changes.remove(name);
        }
        state.back.retain(|name| !is_other(name));
        moved
    }

    /// Takes in a channel that was somebody else's. `again` has it subscribed to.
    pub fn adopt(&self, name: String, channel: Channel) {
        if channel.wanted {
            let mut state = self.state.lock();
            state.channels.insert(name, Channel { confirmed: false, lost: true, ..channel });
        }
    }

    pub fn is_confirmed(&self, channel: &str) -> bool {
        self.state.lock().channels.get(channel).is_some_and(|channel| channel.confirmed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    fn confirm(subscriptions: &Subscriptions, channels: &[String]) {
        channels.iter().for_each(|channel| subscriptions.confirm(1, channel));
        assert!(!subscriptions.told(channels, &[]));
    }

    #[test]
    fn only_what_differs_is_told() {
        let subscriptions = Subscriptions::default();
        subscriptions.want("a");
        assert!(subscriptions.confirmation("a").is_err(), "nothing is connected");
        subscriptions.begin(1);
        assert_eq!(subscriptions.batch(), (names(&["a"]), vec![]));
        // Left and wanted again before Redis has answered: it stays subscribed.
        subscriptions.unwant("a");
        subscriptions.want("a");
        confirm(&subscriptions, &names(&["a"]));
        assert!(subscriptions.confirmation("a").unwrap().is_none());
        assert_eq!(subscriptions.batch(), (vec![], vec![]));
        subscriptions.unwant("a");
        assert_eq!(subscriptions.batch(), (vec![], names(&["a"])));
        // A stale confirmation removes no newer wish.
        subscriptions.want("a");
        assert!(!subscriptions.ended(1, "a"), "it was asked for");
        assert!(subscriptions.told(&[], &names(&["a"])));
        assert_eq!(subscriptions.batch(), (names(&["a"]), vec![]));
    }

    #[test]
    fn a_new_connection_subscribes_to_all_that_is_wanted() {
        let subscriptions = Subscriptions::default();
        subscriptions.begin(1);
        ["a", "b", "c"].iter().for_each(|name| subscriptions.want(name));
        let (told, _) = subscriptions.batch();
        confirm(&subscriptions, &told);
        assert!(subscriptions.is_settled() && subscriptions.back().is_empty(), "nothing was missed");
        subscriptions.unwant("b");
        subscriptions.want("d");
        let mut waiting = subscriptions.confirmation("d").unwrap().unwrap();
        let mut lost = subscriptions.end();
        lost.sort();
        assert_eq!(lost, names(&["a", "c", "d"]));
        assert!(waiting.try_recv() == Err(oneshot::error::TryRecvError::Closed), "its connection is gone");
        subscriptions.begin(2);
        let (mut told, left) = subscriptions.batch();
        told.sort();
        assert_eq!((&told, left), (&names(&["a", "c", "d"]), vec![]));
        subscriptions.confirm(1, "a");
        assert!(subscriptions.told(&names(&["a"]), &[]), "that was the connection before");
        told.iter().for_each(|channel| subscriptions.confirm(2, channel));
        assert!(!subscriptions.is_settled(), "it is not sure of the first one");
        assert_eq!(subscriptions.batch(), (vec![], vec![]));
        let mut back = subscriptions.back();
        back.sort();
        assert_eq!(back, told);
    }

    #[test]
    fn what_redis_has_ended_is_lost_and_what_is_moved_is_told_to_its_new_server() {
        let (old, new) = (Subscriptions::default(), Subscriptions::default());
        old.begin(1);
        new.begin(1);
        ["a", "b"].iter().for_each(|name| old.want(name));
        let (told, _) = old.batch();
        confirm(&old, &told);
        assert!(old.ended(1, "a") && !old.ended(1, "a"));
        assert_eq!(old.batch(), (vec![], vec![]), "not before it was said to be lost");
        old.again(&names(&["a"]));
        let waiting = old.confirmation("a").unwrap().unwrap();
        for (name, channel) in old.take(|name| name == "a") {
            new.adopt(name, channel);
        }
        assert!(old.batch() == (vec![], vec![]) && old.back().is_empty());
        assert_eq!(old.wanted(), names(&["b"]));
        assert_eq!(new.batch(), (vec![], vec![]));
        new.again(&names(&["a"]));
        let (told, _) = new.batch();
        confirm(&new, &told);
        assert_eq!(waiting.blocking_recv(), Ok(()), "who waits has moved along");
        assert_eq!(new.back(), names(&["a"]));
        assert!(new.is_confirmed("a") && !new.is_confirmed("b"));
    }
}
