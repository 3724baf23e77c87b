//! The connection for subscriptions to one server: it sees to it that Redis knows which channels are wanted, in batches, and
//! hands on what they carry.

use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{PushInfo, PushKind, RedisResult, ServerErrorKind, Value};
use tokio::sync::watch;

use super::backoff::Backoff;
use super::link::Link;
use super::{Intake, Redis};

/// Before channels are told again that the server says are another one's.
const PAUSE: Duration = Duration::from_millis(50);

impl Redis {
    /// Connects whenever there is no connection, for as long as the server is one of ours.
    pub(super) async fn keep_subscriptions(self: Arc<Self>, link: Arc<Link>, intake: Arc<dyn Intake>) {
        let mut backoff = Backoff::default();
        for number in 1_u64.. {
            let (end, mut ended) = watch::channel(false);
            let pushed = {
                let (redis, link, intake) = (self.clone(), link.clone(), intake.clone());
                move |info: PushInfo| {
                    redis.pushed(info, &link, number, &*intake, &end);
                    Ok::<_, ()>(())
                }
            };
            match self.servers.connect(link.address.as_ref(), pushed).await {
                Ok(connection) => {
                    let failed = backoff.failed();
                    backoff.reset();
                    link.subscriptions.begin(number);
                    let told = tokio::select! {
                        why = self.tell_changes(connection, &link, &*intake, failed) => Some(why),
                        _ = ended.wait_for(|ended| *ended) => None,
                        () = link.subscriptions.given_up() => None,
                    };
                    let lost = link.subscriptions.end();
                    self.health.subscriptions(&link, false, 0);
                    intake.lost(&lost);
                    self.metrics.redis_reconnects.with_label_values(&["subscriptions"]).inc();
                    let why = told.map(|why| anyhow::anyhow!("subscribing failed: {why}"));
                    self.health.lost(&link, "subscriptions", why.as_ref().map(|why| (why, 0)));
                }
                Err(error) => self.health.lost(&link, "subscriptions", Some((&error, backoff.failed()))),
            }
            self.look_again();
            tokio::time::sleep(self.pause(&mut backoff)).await;
        }
    }

    /// Tells Redis what has changed, for as long as it takes it.
    async fn tell_changes(
        &self,
        mut connection: MultiplexedConnection,
        link: &Link,
        intake: &dyn Intake,
        failed: u32,
    ) -> String {
        let mut complete = false;
        loop {
            let (subscribe, unsubscribe) = link.subscriptions.batch();
            let told = match &link.address {
                Some(_) => each(&mut connection, &subscribe, &unsubscribe).await,
                None => together(&mut connection, &subscribe, &unsubscribe).await.map(|()| true),
            };
            let taken = match told {
                Ok(taken) => taken,
                Err(error) => return error.to_string(),
            };
            link.subscriptions.told(&subscribe, &unsubscribe);
            let settled = link.subscriptions.is_settled();
            if settled || !taken {
                let back = link.subscriptions.back();
                if !back.is_empty() {
                    intake.back(&back);
                }
            }
            if !taken {
                self.look_again();
                tokio::time::sleep(PAUSE).await;
            }
            if settled {
                if !std::mem::replace(&mut complete, true) {
                    self.health.subscriptions(link, true, failed);
                }
                link.subscriptions.changed().await;
            }
        }
    }

    /// What the server sends unasked.
    fn pushed(&self, info: PushInfo, link: &Link, number: u64, intake: &dyn Intake, end: &watch::Sender<bool>) {
        if info.kind == PushKind::Disconnection {
            end.send_replace(true);
            return;
        }
        let mut data = info.data.into_iter();
        let Some(Value::BulkString(channel)) = data.next() else { return };
        let Ok(channel) = std::str::from_utf8(&channel) else { return };
        match info.kind {
            PushKind::Message | PushKind::SMessage => match data.next() {
                Some(Value::BulkString(payload)) if self.keys.is_probe(channel) => {
                    self.probed(link, channel, &payload, intake);
                }
                Some(Value::BulkString(payload)) => intake.arrived(channel, payload),
                _ => {}
            },
            PushKind::Subscribe | PushKind::SSubscribe => link.subscriptions.confirm(number, channel),
            // The slot is another server's now.
            PushKind::Unsubscribe | PushKind::SUnsubscribe if link.subscriptions.ended(number, channel) => {
                let lost = [channel.to_owned()];
                intake.lost(&lost);
                link.subscriptions.again(&lost);
                self.look_again();
            }
            _ => {}
        }
    }
}

/// One command for all channels.
async fn together(
    connection: &mut MultiplexedConnection,
    subscribe: &[String],
    unsubscribe: &[String],
) -> RedisResult<()> {
    if !subscribe.is_empty() {
        connection.subscribe(subscribe).await?;
    }
    if !unsubscribe.is_empty() {
        connection.unsubscribe(unsubscribe).await?;
    }
    Ok(())
}

/// A command for each channel, all in one round trip: a server of a Cluster takes no two slots together. Whether none was
/// refused because its slot is another server's.
///
/// Which ones are confirmed is seen in what the server pushes. The library takes a push for the answer to what is asked next,
/// and when a slot moves away there are pushes that nobody has asked for.
async fn each(
    connection: &mut MultiplexedConnection,
    subscribe: &[String],
    unsubscribe: &[String],
) -> RedisResult<bool> {
    let mut all = redis::pipe();
    for (command, channels) in [("SSUBSCRIBE", subscribe), ("SUNSUBSCRIBE", unsubscribe)] {
        for channel in channels {
            all.cmd(command).arg(channel);
        }
    }
    let count = subscribe.len() + unsubscribe.len();
    if count == 0 {
        return Ok(true);
    }
    let mut taken = true;
    for answer in connection.send_packed_commands(&all, 0, count).await? {
        let Value::ServerError(error) = answer else { continue };
        match error.kind() {
            Some(
                ServerErrorKind::Moved
                | ServerErrorKind::Ask
                | ServerErrorKind::TryAgain
                | ServerErrorKind::ClusterDown
                | ServerErrorKind::MasterDown,
            ) => taken = false,
            _ => return Err(error.into()),
        }
    }
    Ok(taken)
}
