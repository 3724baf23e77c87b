//! The connection for subscriptions. It is told which channels are wanted, and sees to it that Redis knows, in batches.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use parking_lot::Mutex;
use redis::aio::MultiplexedConnection;
use redis::{PushInfo, PushKind, Value};
use tokio::sync::{Notify, oneshot, watch};

use super::backoff::Backoff;
use super::{Fault, Intake, Redis};

/// Channels of one command.
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
    connected: bool,
}

#[derive(Default)]
struct Channel {
    wanted: bool,
    /// By Redis, on the connection of this moment.
    confirmed: bool,
    waiters: Vec<oneshot::Sender<()>>,
}

impl Subscriptions {
    pub fn want(&self, channel: &str) {
        let mut state = self.state.lock();
        state.channels.entry(channel.to_owned()).or_default().wanted = true;
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

    pub async fn confirmed(&self, channel: &str) -> Result<(), Fault> {
        let confirmed = {
            let mut state = self.state.lock();
            if !state.connected {
                return Err(Fault::Gone);
            }
            let Some(known) = state.channels.get_mut(channel).filter(|known| known.wanted) else {
                return Err(Fault::Gone);
            };
            if known.confirmed {
                return Ok(());
            }
            let (tell, told) = oneshot::channel();
            known.waiters.push(tell);
            told
        };
        confirmed.await.map_err(|_| Fault::Gone)
    }

    /// Gives up the connection of this moment.
    pub fn give_up(&self) {
        self.given_up.notify_one();
    }

    /// A new connection, on which nothing is subscribed to yet.
    fn begin(&self) {
        let mut state = self.state.lock();
        state.channels.retain(|_, channel| channel.wanted);
        state.channels.values_mut().for_each(|channel| channel.confirmed = false);
        state.changes = state.channels.keys().cloned().collect();
        state.connected = true;
    }

    /// The connection is gone, and so is what waits for a confirmation on it.
    fn end(&self) {
        let mut state = self.state.lock();
        state.connected = false;
        for channel in state.channels.values_mut() {
            channel.confirmed = false;
            channel.waiters.clear();
        }
    }

    /// What Redis must be told next: channels to subscribe to, and to leave.
    fn batch(&self) -> (Vec<String>, Vec<String>) {
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

    fn is_settled(&self) -> bool {
        self.state.lock().changes.is_empty()
    }

    fn set_confirmed(&self, channels: &[String], confirmed: bool) {
        let mut state = self.state.lock();
        for channel in channels {
            let Some(known) = state.channels.get_mut(channel) else { continue };
            known.confirmed = confirmed;
            if confirmed && known.wanted {
                for waiter in known.waiters.drain(..) {
                    // Who waits no more is not missed.
                    let _ = waiter.send(());
                }
            }
            // Changed its mind while Redis was told.
            if known.wanted != confirmed {
                state.changes.insert(channel.clone());
            } else if !confirmed {
                state.channels.remove(channel);
            }
        }
    }
}

impl Redis {
    /// Connects whenever there is no connection, for ever.
    pub(super) async fn keep_subscriptions(self: Arc<Self>, intake: Arc<dyn Intake>) {
        let mut backoff = Backoff::default();
        let own = self.keys.node_channel(self.node);
        self.want(&own);
        loop {
            let (end, mut ended) = watch::channel(false);
            let pushed = {
                let (redis, intake, own) = (self.clone(), intake.clone(), own.clone());
                move |info: PushInfo| {
                    redis.pushed(info, &own, &*intake, &end);
                    Ok::<_, ()>(())
                }
            };
            match self.servers.connect(pushed).await {
                Ok(connection) => {
                    let failed = backoff.failed();
                    backoff.reset();
                    self.subscriptions.begin();
                    let told = tokio::select! {
                        why = self.tell_changes(connection, &*intake, failed) => Some(why),
                        _ = ended.wait_for(|ended| *ended) => None,
                        () = self.subscriptions.given_up.notified() => None,
                    };
                    self.subscriptions.end();
                    self.health.subscriptions(false, 0);
                    intake.lost();
                    self.metrics.redis_reconnects.with_label_values(&["subscriptions"]).inc();
                    let why = told.map(|why| anyhow::anyhow!("subscribing failed: {why}"));
                    self.health.lost("subscriptions", why.as_ref().map(|why| (why, 0)));
                }
                Err(error) => self.health.lost("subscriptions", Some((&error, backoff.failed()))),
            }
            let random = self.random.number().unwrap_or_default();
            tokio::time::sleep(backoff.next(self.config.backoff.0, random)).await;
        }
    }

    /// Tells Redis what has changed, for as long as it takes it.
    async fn tell_changes(&self, mut connection: MultiplexedConnection, intake: &dyn Intake, failed: u32) -> String {
        let mut complete = false;
        loop {
            let (subscribe, unsubscribe) = self.subscriptions.batch();
            if !subscribe.is_empty() {
                if let Err(error) = connection.subscribe(&subscribe).await {
                    return error.to_string();
                }
                self.subscriptions.set_confirmed(&subscribe, true);
            }
            if !unsubscribe.is_empty() {
                if let Err(error) = connection.unsubscribe(&unsubscribe).await {
                    return error.to_string();
                }
                self.subscriptions.set_confirmed(&unsubscribe, false);
            }
            if !self.subscriptions.is_settled() {
                continue;
            }
            if !std::mem::replace(&mut complete, true) {
                intake.back();
                self.health.subscriptions(true, failed);
            }
            self.subscriptions.changed.notified().await;
        }
    }

    /// What the server sends unasked.
    fn pushed(&self, info: PushInfo, own: &str, intake: &dyn Intake, end: &watch::Sender<bool>) {
        match info.kind {
            PushKind::Message => {
                let mut data = info.data.into_iter();
                let (Some(Value::BulkString(channel)), Some(Value::BulkString(payload))) = (data.next(), data.next())
                else {
                    return;
                };
                match std::str::from_utf8(&channel) {
                    Ok(channel) if channel == own && payload.first().is_some_and(u8::is_ascii_digit) => {
                        self.probed(&payload);
                    }
                    Ok(channel) => intake.arrived(channel, payload),
                    Err(_) => {}
                }
            }
            PushKind::Disconnection => drop(end.send_replace(true)),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    #[tokio::test]
    async fn only_what_differs_is_told() {
        let subscriptions = Subscriptions::default();
        subscriptions.want("a");
        assert_eq!(subscriptions.confirmed("a").await, Err(Fault::Gone), "nothing is connected");
        subscriptions.begin();
        assert_eq!(subscriptions.batch(), (names(&["a"]), vec![]));
        // Left and wanted again before Redis has answered: it stays subscribed.
        subscriptions.unwant("a");
        subscriptions.want("a");
        subscriptions.set_confirmed(&names(&["a"]), true);
        assert_eq!(subscriptions.confirmed("a").await, Ok(()));
        assert_eq!(subscriptions.batch(), (vec![], vec![]));
        subscriptions.unwant("a");
        assert_eq!(subscriptions.batch(), (vec![], names(&["a"])));
        // A stale confirmation removes no newer wish.
        subscriptions.want("a");
        subscriptions.set_confirmed(&names(&["a"]), false);
        assert_eq!(subscriptions.batch(), (names(&["a"]), vec![]));
    }

    #[tokio::test]
    async fn a_new_connection_subscribes_to_all_that_is_wanted() {
        let subscriptions = Subscriptions::default();
        subscriptions.begin();
        ["a", "b", "c"].iter().for_each(|name| subscriptions.want(name));
        let (told, _) = subscriptions.batch();
        subscriptions.set_confirmed(&told, true);
        subscriptions.unwant("b");
        subscriptions.want("d");
        let waiting = subscriptions.confirmed("d");
        let mut waiting = std::pin::pin!(waiting);
        assert!(futures_util::poll!(&mut waiting).is_pending());
        subscriptions.end();
        assert_eq!(waiting.await, Err(Fault::Gone), "its connection is gone");
        subscriptions.begin();
        let (mut told, left) = subscriptions.batch();
        told.sort();
        assert_eq!((told, left), (names(&["a", "c", "d"]), vec![]));
    }
}
